"""What was measured, as build/bench.json and as tables in Markdown.

Rules of this file
- `cases` holds the three cases in their order, each system -> msgs_per_s, cpu_us_per_msg, and nothing else: other
  programs read it. Everything else stands beside it.
- A figure is the median of its rounds; the rounds themselves stand in `rounds`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.dkim import DKIM, SIGN_WANTED, VERIFY_WANTED
from bench.dkim import WANTED as DKIM_WANTED
from bench.fairness import Fairness
from bench.million import Million
from bench.sessions import Idle
from bench.stages import BUDGET, Stages
from bench.throughput import TITLES, Result

Rounds = Mapping[str, Mapping[str, Sequence[Result]]]  # case -> system -> rounds
WANTED = {"4k_reused": 8.0, "4k_new_session": 6.0, "100k": 2.5}  # times Postfix, on 2 cores
CPU_WANTED = 130.0  # us a message at 4 KiB
CEILING_WANTED = 0.45  # at 100 KiB


def summary(
    rounds: Rounds,
    *,
    latency: Mapping[str, Mapping[str, float]],
    profile: Stages | None,
    idle: Idle | None,
    idle_tls: Idle | None,
    fairness: Fairness | None,
    million: Million | None,
    dkim: DKIM | None,
    failures: Sequence[str],
) -> dict[str, Any]:
    """The whole of build/bench.json."""
    found: dict[str, Any] = {
        "cases": {
            case: {
                system: {
                    "msgs_per_s": _median([one.msgs_per_s for one in results]),
                    "cpu_us_per_msg": _median([one.cpu_us_per_msg for one in results]),
                }
                for system, results in systems.items()
                if results
            }
            for case, systems in rounds.items()
        }
    }
    found["ratios"] = {case: ratios(systems) for case, systems in found["cases"].items()}
    found["latency_ms"] = latency
    if profile:
        found["stages_us"], found["functions_us"] = profile.stages, profile.functions
    if idle:
        found["idle_sessions"] = _idle(idle)
    if idle_tls:
        found["idle_tls_sessions"] = _idle(idle_tls)
    if fairness:
        found["fairness"] = {**fairness._asdict(), "allowed_p99": fairness.allowed_p99}
    if million:
        found["million"] = {**million._asdict(), "bytes_each": round(million.bytes_each, 1)}
    if dkim:
        rows = {"sign": dkim.sign, "verify": dkim.verify}
        found["dkim"] = {name: {**row.posthof._asdict(), "ratio": row.ratio} for name, row in rows.items()}
        found["dkim"] |= {
            "sign_us": round(dkim.sign_us, 1),
            "verify_us": round(dkim.verify_us, 1),
            "judge_us": round(dkim.judge_us, 1),
        }
    found["rounds"] = {
        case: {system: [one._asdict() for one in results] for system, results in systems.items()}
        for case, systems in rounds.items()
    }
    found["failures"] = list(failures)
    found["machine"] = machine()
    return found


def ratios(systems: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Posthof's messages/s as a multiple of every other system's."""
    ours = systems.get("posthof")
    if not ours:
        return {}
    others = {name: one["msgs_per_s"] for name, one in systems.items() if name != "posthof"}
    return {name: round(ours["msgs_per_s"] / rate, 2) for name, rate in others.items()}


def machine() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("postfix", "exim4-daemon-light", "opensmtpd")},
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The tables people read."""
    parts = [_throughput(found), _latency(found), _stages(found), _rest(found)]
    if found["failures"]:
        parts.append("Not measured:\n" + "\n".join(f"- {failure}" for failure in found["failures"]))
    return "\n\n".join(part for part in parts if part)


def write(found: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def _throughput(found: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for systems in found["cases"].values() for name in systems))
    if not names:
        return ""
    lines = [
        "| messages/s (CPU us a message) | " + " | ".join(names) + " | posthof : postfix | posthof : ceiling |",
        "|---|" + "---:|" * (len(names) + 2),
    ]
    for case, systems in found["cases"].items():
        cells = [
            f"{systems[name]['msgs_per_s']:,.0f} ({systems[name]['cpu_us_per_msg']:,.0f})" if name in systems else "-"
            for name in names
        ]
        times = found["ratios"][case]
        cells += [f"{times[name]:.2f}" if name in times else "-" for name in ("postfix", "ceiling")]
        lines.append(f"| {TITLES[case]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _latency(found: Mapping[str, Any]) -> str:
    if not found["latency_ms"]:
        return ""
    lines = ["| accept to delivered, ms | p50 | p99 |", "|---|---:|---:|"]
    lines += [f"| {name} | {one['p50']:.1f} | {one['p99']:.1f} |" for name, one in found["latency_ms"].items()]
    return "\n".join(lines)


def _stages(found: Mapping[str, Any]) -> str:
    spent = found.get("stages_us")
    if not spent:
        return ""
    lines = ["| posthof, us of CPU a 4 KiB message | measured | budget |", "|---|---:|---:|"]
    lines += [f"| {stage} | {spent[stage]:.1f} | {BUDGET[stage]:.0f} |" for stage in BUDGET]
    lines += [f"| {stage} | {time:.1f} | |" for stage, time in spent.items() if stage not in BUDGET]
    lines += [
        f"| together | {sum(spent.values()):.1f} | {sum(BUDGET.values()):.0f} |",
    ]
    lines += ["", "The dearest functions, us: " + ", ".join(f"{k} {v:.1f}" for k, v in found["functions_us"].items())]
    return "\n".join(lines)


def _rest(found: Mapping[str, Any]) -> str:
    rows: list[tuple[str, str]] = []
    for key, words in (("idle_sessions", "idle sessions"), ("idle_tls_sessions", "idle sessions after STARTTLS")):
        if one := found.get(key):
            text = f"{one['total_bytes'] / 1e6:,.0f} MB, {one['bytes_each'] / 1000:.1f} kB each"
            rows.append((f"{one['sessions']:,} {words}", text))
    if one := found.get("dkim"):
        for name in ("sign", "verify"):
            text = f"{one[name]['msgs_per_s']:,.0f}/s ({one[name]['cpu_us_per_msg']:,.0f} us), {one[name]['ratio']} x"
            rows.append((f"DKIM {name}, RSA-2048, 4 KiB, beside Postfix with OpenDKIM", text))
        rows.append(("one message signed, RSA-2048 and Ed25519", f"{one['sign_us']:.0f} us"))
        rows.append(("one signature judged, RSA-2048", f"{one['verify_us']:.0f} us"))
        rows.append(("one message judged: SPF, RSA-2048, DMARC", f"{one['judge_us']:.0f} us"))
    if one := found.get("fairness"):
        now, allowed = one["busy_p99"] * 1000, one["allowed_p99"] * 1000
        rows.append((f"p99 of mail to B, {one['queued']:,} queued to A", f"{now:.1f} ms (allowed {allowed:.1f} ms)"))
    if one := found.get("million"):
        n = f"{one['messages']:,} queued, {one['destinations']:,} destinations"
        rows += [
            (f"{n}: memory", f"{one['full_bytes'] / 1e6:,.0f} MB, the cache of bodies included"),
            (f"{n}: after a replay", f"{one['replayed_bytes'] / 1e6:,.0f} MB, {one['bytes_each']:.0f} bytes each"),
            (f"{n}: replay after a cold start", f"{one['replay_seconds']:.1f} s"),
            (
                f"{n}: accepted beside them",
                f"{one['accept_full']:,.0f}/s (empty: {one['accept_empty']:,.0f}/s)",
            ),
        ]
    if not rows:
        return ""
    return "\n".join(["| posthof alone | |", "|---|---:|", *[f"| {name} | {value} |" for name, value in rows]])


def verdicts(found: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """The figures that were asked for, and whether they were met; only for what was measured."""
    told: list[tuple[bool, str]] = []
    for case, wanted in WANTED.items():
        ratio = found["ratios"].get(case, {}).get("postfix")
        if ratio is not None:
            told.append((ratio >= wanted, f"{TITLES[case]}: {ratio:.2f} x Postfix (wanted {wanted:g})"))
    share = found["ratios"].get("100k", {}).get("ceiling")
    if share is not None:
        told.append((share >= CEILING_WANTED, f"100 KiB: {share:.2f} of the ceiling (wanted {CEILING_WANTED})"))
    ours = found["cases"].get("4k_reused", {}).get("posthof")
    if ours:
        cpu = ours["cpu_us_per_msg"]
        told.append((cpu <= CPU_WANTED, f"4 KiB: {cpu:.0f} us of CPU a message (wanted {CPU_WANTED:g})"))
    if one := found.get("idle_sessions"):
        told.append((one["total_bytes"] <= 300e6, f"idle sessions: {one['total_bytes'] / 1e6:.0f} MB (wanted 300)"))
    if one := found.get("dkim"):
        for name in ("sign", "verify"):
            ratio = one[name]["ratio"]
            text = f"DKIM {name}: {ratio:.2f} x Postfix with OpenDKIM (wanted {DKIM_WANTED:g})"
            told.append((ratio >= DKIM_WANTED, text))
        told.append((one["sign_us"] <= SIGN_WANTED, f"signing: {one['sign_us']:.0f} us (wanted {SIGN_WANTED:g})"))
        told.append(
            (
                one["judge_us"] <= VERIFY_WANTED,
                f"SPF, DKIM, DMARC judged: {one['judge_us']:.0f} us of {VERIFY_WANTED:g}",
            )
        )
    if one := found.get("fairness"):
        told.append((one["busy_p99"] <= one["allowed_p99"], f"fairness: p99 {one['busy_p99'] * 1000:.1f} ms"))
    if one := found.get("million"):
        told.append((one["full_bytes"] <= 512 * 2**20, f"queued: {one['full_bytes'] / 2**20:.0f} MiB (wanted 512)"))
        told.append((one["replay_seconds"] <= 30, f"replay: {one['replay_seconds']:.1f} s (wanted 30)"))
    return told


def _idle(one: Idle) -> dict[str, float]:
    return {
        "sessions": one.sessions,
        "total_bytes": one.total,
        "before_bytes": one.before,
        "bytes_each": round(one.per_session, 1),
    }


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 1)


def _version(package: str) -> str:
    """Debian's version of an installed or downloadable package, "" where there is no Debian."""
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    if asked.returncode == 0 and asked.stdout:
        return asked.stdout
    shown = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False).stdout
    candidates = [line.split()[-1] for line in shown.splitlines() if "Candidate" in line]
    return candidates[0] if candidates else ""
