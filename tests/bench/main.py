"""The order of a benchmark run, its options, its budget.

One run: the cases, in rounds in which the systems take turns; latency, the same way; then what is Posthof's alone. A
system that fails in a case is left out of that case and told; figures of others stay. Exit status 1: Posthof, or an
instrument, failed. Figures below what was asked for are told, and are no failure: this is a benchmark, not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench import dkim, fairness, latency, million, place, report, sessions, stages, throughput
from bench.systems import SYSTEMS, missing
from bench.throughput import CASES, Result
from bench.tools import Stalled
from kit import peers

T = TypeVar("T")

SECTIONS = ("cases", "latency", "stages", "idle", "idle_tls", "fairness", "million", "dkim")
PROBES = 300  # messages a system and round in the latency section
FAULTS = (Stalled, peers.NotReady, OSError, TimeoutError, AssertionError, EOFError)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Posthof beside Postfix, Exim and OpenSMTPD.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of cases and latency (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one run of a case (8)")
    parser.add_argument("--quick", action="store_true", help="one round of 3 s, 100,000 for the million")
    parser.add_argument("--only", action="append", choices=list(CASES), help="only this case; may be repeated")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated: " + ",".join(SYSTEMS))
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated: " + ",".join(SECTIONS))
    parser.add_argument("--million", type=int, default=1_000_000, help="messages of the million section")
    parser.add_argument("--sessions", type=int, default=10_000, help="idle sessions")
    parser.add_argument("--dir", type=Path, help="where the spools lie (build/bench, or /var/tmp)")
    parser.add_argument("--out", type=Path, default=peers.REPOSITORY / "build" / "bench.json")
    parser.add_argument("--no-install", action="store_true", help="take the peers that are there")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 3.0
        chosen.million = min(chosen.million, 100_000)
    chosen.systems = [name for name in SYSTEMS if name in chosen.systems.split(",")]
    chosen.sections = [name for name in SECTIONS if name in chosen.sections.split(",")]
    chosen.cases = {name: load for name, load in CASES.items() if not chosen.only or name in chosen.only}
    return chosen


class Run:
    """One benchmark run: what was chosen, what was found so far, what failed."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self.chosen = chosen
        self.folder = folder
        self.started = time.monotonic()
        self.failures: list[str] = []
        self.has_failed = False  # something of ours, not a rival
        self.systems: list[str] = []
        for name in chosen.systems:
            if why := missing(name):
                self.failures.append(f"{name}: {why}")
            else:
                self.systems.append(name)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def budget(self) -> float:
        """About how many seconds the whole run takes."""
        chosen, systems = self.chosen, len(self.systems)
        times: dict[str, float] = {
            "cases": chosen.rounds * len(chosen.cases) * (systems + 1) * (chosen.seconds + 8),
            "latency": chosen.rounds * systems * (PROBES * latency.PACE + 5),
            "stages": 20,
            "idle": 30 + chosen.sessions / 500,
            "idle_tls": 30,
            "fairness": 90,
            "dkim": 4 * (chosen.seconds + 8),
            "million": 30 + chosen.million / 2500,
        }
        return sum(seconds for section, seconds in times.items() if section in chosen.sections)

    def attempt(self, what: str, measure: Callable[[], T], *, is_ours: bool) -> T | None:
        """The result, or None and a failure told."""
        try:
            return measure()
        except FAULTS as fault:
            self.failures.append(f"{what}: {type(fault).__name__}: {str(fault).strip()[-800:]}")
            self.say(f"FAILED {self.failures[-1]}")
            self.has_failed |= is_ours
            return None

    def cases(self) -> dict[str, dict[str, list[Result]]]:
        """All rounds of all cases; in a round the systems take turns."""
        names = ["ceiling", *self.systems]
        found: dict[str, dict[str, list[Result]]] = {case: {name: [] for name in names} for case in self.chosen.cases}
        broken: set[tuple[str, str]] = set()
        for number in range(1, self.chosen.rounds + 1):
            for case in self.chosen.cases:
                for name in names:
                    if (case, name) in broken:
                        continue
                    result = self._case(case, name, number)
                    if result is None:
                        broken.add((case, name))
                    else:
                        found[case][name].append(result)
        return found

    def _case(self, case: str, name: str, number: int) -> Result | None:
        load, seconds = self.chosen.cases[case], self.chosen.seconds

        def measure() -> Result:
            if name == "ceiling":
                return throughput.ceiling(load, seconds)
            return throughput.measure(name, load, seconds, self.folder)

        result = self.attempt(f"{case}, {name}, round {number}", measure, is_ours=name in ("ceiling", "posthof"))
        if result:
            rate = f"{result.msgs_per_s:8,.0f} messages/s {result.cpu_us_per_msg:7,.0f} us"
            self.say(f"round {number} {case:15} {name:10} {rate}  ({result.messages} in {result.seconds:.1f} s)")
        return result

    def latency(self) -> dict[str, dict[str, float]]:
        """p50 and p99 in milliseconds over the probes of all rounds."""
        found: dict[str, list[float]] = {}
        for number in range(1, self.chosen.rounds + 1):
            for name in self.systems:
                what = f"latency, {name}, round {number}"
                delays = self.attempt(what, partial(self._delays, name), is_ours=name == "posthof")
                found.setdefault(name, []).extend(delays or [])
        told = {}
        for name, delays in found.items():
            if delays:
                delays.sort()
                p50, p99 = latency.percentile(delays, 0.5) * 1000, latency.percentile(delays, 0.99) * 1000
                told[name] = {"p50": round(p50, 2), "p99": round(p99, 2)}
                self.say(f"latency {name:10} p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return told

    def _delays(self, name: str) -> list[float]:
        async def probe() -> list[float]:
            async with latency.Stopwatch().listening() as watch:
                with place.below(self.folder, f"latency-{name}-{time.monotonic_ns()}") as own:
                    system = SYSTEMS[name](own, watch.port)
                    try:
                        await asyncio.to_thread(system.start)
                        await latency.delays(watch, system.port, 20, recipient="to@sink.bench")
                        return await latency.delays(watch, system.port, PROBES, recipient="to@sink.bench", first=20)
                    finally:
                        await asyncio.to_thread(system.stop)

        return asyncio.run(probe())


def main(arguments: Sequence[str]) -> int:
    """Run, write build/bench.json, print the tables."""
    chosen = options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, so that everything is stopped
    if not chosen.no_install:
        subprocess.run([peers.REPOSITORY / "scripts" / "bench-peers"], check=True)
    if peers.find("smtp-source") is None or peers.find("smtp-sink") is None:
        print("bench: smtp-source and smtp-sink come with Debian's postfix; run as root: scripts/bench-peers")
        return 1
    with place.folder(chosen.dir) as folder:
        run = Run(chosen, folder)
        names = ", ".join(run.systems)
        run.say(f"about {run.budget() / 60:.0f} minutes; spools on {place.file_system(folder)}; {names}")
        found = _sections(run)
    report.write(found, chosen.out)
    print("\n" + report.markdown(found) + "\n")
    for is_met, text in report.verdicts(found):
        print(f"{'met   ' if is_met else 'MISSED'} {text}")
    print(f"\nwritten to {chosen.out}")
    return 1 if run.has_failed else 0


def _sections(run: Run) -> dict[str, object]:
    chosen, has_posthof = run.chosen, "posthof" in run.systems

    def alone(section: str, measure: Callable[[], T]) -> T | None:
        """A section for Posthof alone; None where it is not wanted or failed."""
        if section not in chosen.sections or not has_posthof:
            return None
        result = run.attempt(section, measure, is_ours=True)
        run.say(f"{section}: {result}")
        return result

    tls_sessions = max(1, chosen.sessions // 10)
    return report.summary(
        run.cases() if "cases" in chosen.sections else {},
        latency=run.latency() if "latency" in chosen.sections else {},
        profile=alone("stages", lambda: stages.measure(run.folder)),
        idle=alone("idle", lambda: sessions.measure(chosen.sessions, run.folder, is_encrypted=False)),
        idle_tls=alone("idle_tls", lambda: sessions.measure(tls_sessions, run.folder, is_encrypted=True)),
        fairness=alone("fairness", lambda: fairness.measure(min(100_000, chosen.million), run.folder)),
        million=alone("million", lambda: million.measure(chosen.million, run.folder, run.say)),
        dkim=None if dkim.missing() else alone("dkim", lambda: dkim.measure(chosen.seconds, run.folder, run.say)),
        failures=run.failures,
    )
