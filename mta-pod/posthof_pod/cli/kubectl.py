"""`kubectl posthof`: status, queue, trace, explain, send, certs of an MTA in a cluster: one answer for all its pods.

    kubectl posthof [-n NAMESPACE] [--context NAME] [--kubeconfig FILE] [--mta NAME] COMMAND ...

Rules of this file
- It speaks to the cluster through the user's own `kubectl` alone (`get`, and `exec` into the pods), so the user's
  RBAC decides what is allowed. KUBECTL names another program.
- Every pod of the MTA is asked at the same time; answers are merged as the supervisor merges its workers'. A pod that
  does not answer is named, and the others' answer stands.
- What cannot be merged (`explain`, `send`) is done by the first pod that is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from posthof_crds.report import Report
from posthof_pod.admin import client
from posthof_pod.admin.waiting import QueuePage
from posthof_pod.cli import explain, queue, send, status, trace
from posthof_pod.cli.api import Answer
from posthof_pod.observe.line import span_text

CONTAINER = "mta"
SECONDS = 60.0
AT_ONCE = 16  # pods asked at the same time
KIND = "mtas.posthof.dev"
CERTS = "tlscerts.posthof.dev"

Failed = client.AdminError  # the text is for the person at the terminal


class Pod(NamedTuple):
    name: str
    node: str
    is_ready: bool


class Kubectl:
    """The user's kubectl with the user's flags."""

    def __init__(self, flags: Sequence[str] = (), program: str = "") -> None:
        self._command = shlex.split(program or os.environ.get("KUBECTL", "") or "kubectl")
        self._flags = list(flags)

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`. Raises AdminError with kubectl's words."""
        done = self.run("get", *arguments, "-o", "json")
        if done.returncode:
            raise Failed(_words(done))
        return msgspec.json.decode(done.stdout)

    def exec(self, pod: str, *command: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """A command in the pod's container, with `given` as its standard input."""
        stdin = ["-i"] if given is not None else []
        return self.run("exec", *stdin, pod, "-c", CONTAINER, "--", *command, given=given)

    def run(self, *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        verb, *rest = arguments
        try:
            return subprocess.run(
                [*self._command, verb, *self._flags, *rest],
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise Failed(f"{self._command[0]} is not installed, or not in PATH; KUBECTL names another one") from None
        except subprocess.TimeoutExpired:
            raise Failed(f"kubectl {verb} gave no answer within {SECONDS:.0f} s") from None


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    text = done.stderr.decode("utf-8", "replace").strip()
    return text or f"kubectl ended with status {done.returncode}"


# ---------------------------------------------------------------------- an MTA


class Fleet:
    """All pods of an MTA, asked as if they were one house (admin.client.House)."""

    def __init__(self, kubectl: Kubectl, mta: str) -> None:
        self.kubectl, self.mta = kubectl, mta
        found = kubectl.get("pods", "-l", f"posthof.dev/mta={mta},app.kubernetes.io/component=mta")["items"]
        self.pods = [_pod(one) for one in found if one.get("status", {}).get("phase") == "Running"]
        if not self.pods:
            why = "; ".join(f"{one['metadata']['name']}: {_why_not(one)}" for one in found)
            raise Failed(f"MTA {mta} has no pod that runs{': ' if why else ''}{why}")

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        full = client.full_path(path, query)
        if path == "/api/v1/queue":
            return self._pages(full, int((query or {}).get("limit") or 0))
        if path == "/api/v1/trace":
            return self._traces(full, int((query or {}).get("limit") or 0))
        return msgspec.json.decode(self._first(full).body)

    def post(self, path: str, body: object) -> Any:
        """A change in every pod: how many messages all in all."""
        answers, missing = self._ask("POST", path, msgspec.json.encode(body))
        told = [msgspec.json.decode(answer.body) for _, answer in answers]
        count = sum(int(one.get("count", 0)) for one in told)
        absent = [name for one in told for name in one.get("missing", [])] + missing
        if absent:
            print(f"no answer from {queue.named(absent)}: its messages are as they were", file=sys.stderr)
        return {"count": count, "missing": absent}

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """What one pod has: a message's content."""
        answer = self._first(path)
        return answer.content or bytes(answer.body)

    # ------------------------------------------------------------------ merging

    def _pages(self, path: str, limit: int) -> Any:
        answers, missing = self._ask("GET", path)
        page = QueuePage([], missing=missing)
        for pod, answer in answers:
            one = msgspec.json.decode(answer.body, type=QueuePage)
            page.total += one.total
            page.missing += [f"worker {name} of pod {pod.name}" for name in one.missing]
            for item in one.items:
                item.worker = f"{pod.name}/{item.worker}"
            page.items += one.items
        page.items.sort(key=lambda item: item.arrived)
        if limit:
            del page.items[limit:]
        return msgspec.to_builtins(page)

    def _traces(self, path: str, limit: int) -> Any:
        answers, missing = self._ask("GET", path)
        events: list[dict[str, Any]] = []
        queued: list[dict[str, Any]] = []
        for pod, answer in answers:
            told = msgspec.json.decode(answer.body)
            for event in told["events"]:
                event["worker"] = f"{pod.name}/{event.get('worker', '')}"
            events += told["events"]
            queued += told["queued"]
            missing += [f"worker {name} of pod {pod.name}" for name in told.get("missing", [])]
        events.sort(key=lambda event: str(event["time"]))
        return {"events": events[-limit:] if limit else events, "queued": queued, "missing": missing}

    def _first(self, path: str) -> Answer:
        """The answer of the pod that has it. Raises AdminError with a refusal, where nobody does."""
        answers, missing = self._ask("GET", path, refused=True)
        good = [answer for _, answer in answers if answer.status < 400]
        if good:
            return good[0]
        status_, content = answers[0][1].status, bytes(answers[0][1].body)
        more = f" (no answer from {queue.named(missing)})" if missing else ""
        raise Failed(client.refusal(status_, content) + more)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, *, refused: bool = False
    ) -> tuple[list[tuple[Pod, Answer]], list[str]]:
        """Every pod at once: answers, and the names of those that gave none. `refused`: refusals are answers too.
        Raises AdminError where there is no answer at all, or a refusal."""
        found = self.each(lambda pod: self._api(pod, method, path, body))
        answers = [(pod, one) for pod, one in found if isinstance(one, Answer)]
        if not answers:
            raise Failed("\n".join(f"pod {pod.name}: {why}" for pod, why in found))
        for _, answer in answers:
            if answer.status >= 400 and not refused:
                raise Failed(client.refusal(answer.status, bytes(answer.body)))
        return answers, [f"pod {pod.name}" for pod, one in found if not isinstance(one, Answer)]

    def each(self, ask: Callable[[Pod], Any]) -> list[tuple[Pod, Any]]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(zip(self.pods, threads.map(ask, self.pods), strict=True))

    def _api(self, pod: Pod, method: str, path: str, body: bytes | None) -> Answer | str:
        """The pod's answer, or why there is none."""
        try:
            done = self.kubectl.exec(pod.name, "posthof", "api", method, path, given=body)
        except Failed as error:
            return str(error)
        if done.returncode:
            return _words(done)
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(done.stdout, type=Answer)
        return "its answer cannot be read: another version of Posthof?"

    def report(self, pod: Pod) -> Report | str:
        """What the pod says of itself, also before it has a configuration; or why nothing."""
        try:
            done = self.kubectl.exec(pod.name, "posthof", "status", "--json")
        except Failed as error:
            return str(error)
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(done.stdout, type=Report)
        return _words(done)

    def one(self) -> Pod:
        """A pod to do what one pod can do."""
        return next((pod for pod in self.pods if pod.is_ready), self.pods[0])


def _pod(raw: dict[str, Any]) -> Pod:
    conditions = raw.get("status", {}).get("conditions", [])
    is_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return Pod(raw["metadata"]["name"], raw.get("spec", {}).get("nodeName", ""), is_ready)


def _why_not(raw: dict[str, Any]) -> str:
    told = raw.get("status", {})
    for one in told.get("containerStatuses", []):
        waiting = one.get("state", {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
    for one in told.get("conditions", []):
        if one.get("status") == "False" and one.get("message"):
            return str(one["message"])
    return str(told.get("phase", "unknown"))


# ---------------------------------------------------------------------- the commands


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not given or given[0] in ("-h", "--help", "help"):
        parser.print_help()
        return 0
    args, rest = parser.parse_known_args(given)
    flags = [text for name in ("namespace", "context", "kubeconfig") for text in _flag(args, name)]
    kubectl = Kubectl(flags)
    try:
        return int(_COMMANDS[args.command](kubectl, args.mta, rest))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "kubectl posthof",
        description="Look into the MTAs of a cluster: one answer for all pods of an MTA.",
        epilog="COMMAND --help shows the options of a command.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--namespace", metavar="NAME", default="", help="as for kubectl")
    parser.add_argument("--context", metavar="NAME", default="", help="as for kubectl")
    parser.add_argument("--kubeconfig", metavar="FILE", default="", help="as for kubectl")
    parser.add_argument("--mta", metavar="NAME", default="", help="which MTA; not needed where there is one")
    parser.add_argument("command", metavar="COMMAND", choices=list(_COMMANDS), help=", ".join(_COMMANDS))
    return parser


def _flag(args: argparse.Namespace, name: str) -> list[str]:
    value = getattr(args, name)
    return [f"--{name}", value] if value else []


def _own(command: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(f"kubectl posthof {command}")


def _fleet(kubectl: Kubectl, mta: str) -> Fleet:
    """The MTA that is meant. Raises AdminError."""
    if mta:
        return Fleet(kubectl, mta)
    names = [one["metadata"]["name"] for one in kubectl.get(KIND)["items"]]
    if not names:
        raise Failed("there is no MTA in this namespace; -n NAMESPACE looks into another one")
    if len(names) > 1:
        raise Failed(f"which MTA? --mta {' or '.join(names)}")
    return Fleet(kubectl, names[0])


def _queue(kubectl: Kubectl, mta: str, rest: Sequence[str]) -> int:
    parser = _own("queue")
    queue.add_actions(parser)
    args = parser.parse_args(rest)
    return queue.ask(_fleet(kubectl, mta), args)


def _trace(kubectl: Kubectl, mta: str, rest: Sequence[str]) -> int:
    parser = _own("trace")
    trace.add_words(parser)
    args = parser.parse_args(rest)
    return trace.ask(_fleet(kubectl, mta), args)


def _explain(kubectl: Kubectl, mta: str, rest: Sequence[str]) -> int:
    parser = _own("explain")
    explain.add_question(parser)
    parser.parse_args(rest)  # what is wrong is said here, and not by a pod
    fleet = _fleet(kubectl, mta)
    return _pass_on(kubectl.exec(fleet.one().name, "posthof", "explain", *rest))


def _send(kubectl: Kubectl, mta: str, rest: Sequence[str]) -> int:
    parser = _own("send")
    send.add_options(parser)
    parser.add_argument("--listener", metavar="NAME", default="", help="default: the first one in the clear")
    args = parser.parse_args(rest)
    fleet = _fleet(kubectl, mta)
    words, content = _send_words(args, rest)
    if args.server == send.SERVER:
        words += ["--server", f"127.0.0.1:{_port(fleet, args.listener)}"]
    if args.sender is None:
        words += ["--from", send.own_address()]
    return _pass_on(kubectl.exec(fleet.one().name, "posthof", "send", *words, given=content))


def _send_words(args: argparse.Namespace, rest: Sequence[str]) -> tuple[list[str], bytes]:
    """The options as the pod understands them, and the file of the message, which is here and not there."""
    words: list[str] = []
    skip = False
    for word in rest:
        if skip:
            skip = False
        elif word in ("-f", "--file"):
            words += ["-f", "-"]
            skip = True
        elif word.startswith("--file="):
            words += ["-f", "-"]
        elif word == "--listener":
            skip = True
        elif not word.startswith("--listener="):
            words.append(word)
    try:
        return words, send.read(args.file) if args.file else b""
    except send.NotSent as error:
        raise Failed(str(error)) from None


def _port(fleet: Fleet, name: str) -> int:
    config = fleet.get("/api/v1/config")["config"]
    listeners = [one for one in config["listeners"] if name in ("", one["name"])]
    usable = [one for one in listeners if one.get("tls") != "Implicit"]
    if not usable:
        known = ", ".join(one["name"] for one in config["listeners"])
        raise Failed(f"no listener {name or 'in the clear'}; there are {known}")
    return int(usable[0]["port"])


def _pass_on(done: subprocess.CompletedProcess[bytes]) -> int:
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    errors = b"".join(
        line for line in done.stderr.splitlines(keepends=True) if not line.startswith(b"command terminated with")
    )
    sys.stderr.buffer.write(errors)
    return done.returncode


def _status(kubectl: Kubectl, mta: str, rest: Sequence[str]) -> int:
    parser = _own("status")
    parser.add_argument("--json", action="store_true", help="print what the pods say as JSON")
    args = parser.parse_args(rest)
    names = [mta] if mta else [one["metadata"]["name"] for one in kubectl.get(KIND)["items"]]
    if not names:
        raise Failed("there is no MTA in this namespace; -n NAMESPACE looks into another one")
    worst = 0
    for name in names:
        raw = kubectl.get(KIND, name)
        try:
            reports = _reports(Fleet(kubectl, name))
        except Failed as error:
            reports = []
            print(error, file=sys.stderr)
        if args.json:
            told = {"mta": name, "pods": {pod.name: one for pod, one in reports}}
            print(msgspec.json.encode(told).decode())
        else:
            for line in status_lines(raw, reports):
                print(line)
        is_well = bool(reports) and all(isinstance(one, Report) and one.ready for _, one in reports)
        worst = max(worst, 0 if is_well else 1)
    return worst


def _reports(fleet: Fleet) -> list[tuple[Pod, Report | str]]:
    return fleet.each(fleet.report)


def status_lines(raw: dict[str, Any], reports: Sequence[tuple[Pod, Report | str]]) -> Iterator[str]:
    """An MTA for people: its conditions that are not as they should be, and a line for each pod."""
    told = raw.get("status", {})
    yield f"MTA {raw['metadata']['name']}: {told.get('phase', 'unknown')}, {told.get('ready', '?')} pods ready"
    for one in told.get("conditions", []):
        if one["status"] == "False" or (one["status"] == "True" and one["type"] in ("Stalled", "Reconciling")):
            yield f"  {one['type']} {one['status']}: {one.get('reason', '')}: {one.get('message', '')}"
    rows: list[tuple[str, ...]] = [
        ("POD", "NODE", "READY", "CONFIG", "READY MAIL", "DEFERRED", "HELD", "OLDEST", "SESSIONS", "SPOOL", "UP")
    ]
    rows += [_status_row(pod, one) for pod, one in reports if isinstance(one, Report)]
    if len(rows) > 1:
        rows.append(_sum_row([one for _, one in reports if isinstance(one, Report)]))
        yield from _columns(rows)
    for pod, report in reports:
        if isinstance(report, str):
            yield f"  {pod.name}: no answer: {report}"
        else:
            yield from (f"  {pod.name}: {text}" for text in report.refused)


def _status_row(pod: Pod, one: Report) -> tuple[str, ...]:
    state = "draining" if one.draining else "yes" if one.ready else "no"
    config = one.revision if one.revision == one.desired else f"{one.revision or '-'} (newest {one.desired or '-'})"
    queued = one.queue
    return (
        pod.name,
        pod.node,
        state,
        config or "-",
        str(queued.ready),
        str(queued.deferred),
        str(queued.held),
        span_text(queued.oldest_ready_seconds) if queued.ready else "-",
        str(one.sessions),
        "ok" if one.spool.healthy else one.spool.reason,
        span_text(one.uptime_seconds),
    )


def _sum_row(reports: Sequence[Report]) -> tuple[str, ...]:
    ready = sum(one.ready for one in reports)
    oldest = max((one.queue.oldest_ready_seconds for one in reports if one.queue.ready), default=0.0)
    return (
        "all",
        "",
        f"{ready}/{len(reports)}",
        "one" if len({one.revision for one in reports}) == 1 else "several",
        str(sum(one.queue.ready for one in reports)),
        str(sum(one.queue.deferred for one in reports)),
        str(sum(one.queue.held for one in reports)),
        span_text(oldest) if oldest else "-",
        str(sum(one.sessions for one in reports)),
        "",
        "",
    )


def _certs(kubectl: Kubectl, mta: str, rest: Sequence[str]) -> int:
    _own("certs").parse_args(rest)
    fleet = _fleet(kubectl, mta)
    try:
        wanted = {one["metadata"]["name"]: one.get("status", {}) for one in kubectl.get(CERTS)["items"]}
    except Failed as error:
        print(error, file=sys.stderr)  # the pods still say what they serve
        wanted = {}
    reports = _reports(fleet)
    for line in cert_lines(wanted, reports, time.time()):
        print(line)
    return 0 if all(isinstance(one, Report) for _, one in reports) else 1


def cert_lines(
    wanted: dict[str, dict[str, Any]], reports: Sequence[tuple[Pod, Report | str]], now: float
) -> Iterator[str]:
    """Each certificate with what every pod shows to its clients."""
    told = [(pod, one) for pod, one in reports if isinstance(one, Report)]
    names = sorted({name for _, one in told for name in one.certificates})
    if not names:
        yield "No pod serves a certificate."
    rows = [("CERTIFICATE", "SERVED", "SERIAL", "ENDS", "RENEWAL")]
    details = []
    for name in names:
        serials = {pod.name: one.certificates[name] for pod, one in told if name in one.certificates}
        newest = str(wanted.get(name, {}).get("serial", "")).lower()
        newest = newest or max(serials.values(), key=lambda each: each.not_after).serial
        served = [pod for pod, each in serials.items() if each.serial == newest]
        ends = next((each.not_after for each in serials.values() if each.serial == newest), 0.0)
        renewal = str(wanted.get(name, {}).get("renewalTime", "-"))
        rows.append((name, f"{len(served)}/{len(reports)}", newest, status.ends(ends, now) if ends else "-", renewal))
        details += [
            f"  {pod} serves {name} {each.serial}, {status.ends(each.not_after, now)}"
            for pod, each in serials.items()
            if each.serial != newest
        ]
    if names:
        yield from _columns(rows)
        yield from details
    for pod, report in reports:
        if isinstance(report, str):
            yield f"  {pod.name}: no answer: {report}"


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


_COMMANDS: dict[str, Callable[[Kubectl, str, Sequence[str]], int]] = {
    "status": _status,
    "queue": _queue,
    "trace": _trace,
    "explain": _explain,
    "send": _send,
    "certs": _certs,
}

if __name__ == "__main__":
    sys.exit(main())
