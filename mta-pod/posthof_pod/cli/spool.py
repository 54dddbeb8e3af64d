"""`posthof spool check DIR`, `dump DIR` and `owners [DIR]`: look into a spool without a worker.
`posthof spool probe DIR [DIR2]`: try out what a volume promises.

The first three only read. While workers run they show a moment: what is torn may be about to be written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the spool's modules are loaded when the command runs, not with the parser
    from posthof_pod.spool import Volume

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

IN_A_POD = "/var/lib/posthof/spool"


def add_parser(subparsers: Subparsers) -> None:
    """`posthof spool ...`"""
    parser = subparsers.add_parser("spool", help="look into a spool: verify it, read its records")
    what = parser.add_subparsers(dest="what", required=True, metavar="check|dump|probe|owners")
    check = what.add_parser("check", help="verify every record and every blob; say what a start would repair")
    check.add_argument("dir", type=Path, metavar="DIR", help="the spool's directory")
    dump = what.add_parser("dump", help="print records, one JSON object a line")
    dump.add_argument("dir", type=Path, metavar="DIR", help="the spool's directory")
    dump.add_argument("--lane", default="", help="only this lane")
    dump.add_argument("--live", action="store_true", help="only the messages a start would bring back")
    dump.add_argument("--content", default="", metavar="ID", help="write the content of this live message instead")
    probe = what.add_parser("probe", help="try out what a spool needs of a volume, and say how fast it is")
    probe.add_argument(
        "dir", type=Path, metavar="DIR", help="any folder of the volume; a folder is made in it, and goes"
    )
    probe.add_argument("other", type=Path, nargs="?", metavar="DIR2", help="the same folder through another mount")
    owners = what.add_parser("owners", help="who owns which part of it: pods, workers, lanes, messages")
    owners.add_argument(
        "dir", type=Path, metavar="DIR", nargs="?", default=Path(IN_A_POD), help="the spool's directory"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 sound, 1 damage was found (probe: the volume is refused), 2 it is no spool or cannot be read."""
    from posthof_pod.spool import Damaged, Volume

    if args.what == "probe":
        return _probe(args.dir, args.other)
    if not (args.dir / "lanes").is_dir() or not (args.dir / "workers").is_dir():
        print(f"posthof: {args.dir} is not a spool: it has no lanes/ and workers/", file=sys.stderr)
        return 2
    try:
        volume = Volume(args.dir)
        if args.what == "owners":
            return _owners(volume)
        return _check(volume) if args.what == "check" else _dump(volume, args)
    except (LookupError, ValueError) as error:
        print(f"posthof: no such message: {error}", file=sys.stderr)
        return 2
    except Damaged as damage:
        print(f"posthof: damaged: {damage}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"posthof: {args.dir} cannot be read: {error}", file=sys.stderr)
        return 2


def _probe(folder: Path, other: Path | None) -> int:
    from posthof_pod.spool.probe import probe

    try:
        found = probe(folder, other)
    except OSError as error:
        print(f"posthof: {folder} cannot be used: {error}", file=sys.stderr)
        return 2
    for line in found.lines():
        print(line)
    return 1 if found.broken else 0


def _owners(volume: Volume) -> int:
    from posthof_pod.spool.owners import FREE, owners

    found = owners(volume)
    width = max([3, *(len(one.pod) for one in found)])
    print(f"{'POD':{width}}  {'WORKER':17}  STATE   LANES  MESSAGES")
    for one in found:
        messages = "-" if one.state == FREE else str(one.messages)
        print(f"{one.pod or '-':{width}}  {one.worker or '-':17}  {one.state:6}  {one.lanes:5}  {messages:>8}")
    return 0


def _check(volume: Volume) -> int:
    from posthof_pod.spool.check import check

    summary = check(volume)
    for finding in summary.findings:
        print(f"{finding.weight.value:7} {finding.where}: {finding.text}")
    print(
        f"{summary.messages} live messages to {summary.recipients} recipients in {summary.lanes} lanes, "
        f"{summary.segments} segments of {summary.bytes} bytes; "
        f"{summary.tried} recipients were tried without an outcome"
    )
    if summary.messages:
        print(
            f"a start may send {summary.tried} recipients theirs a second time; if this is a restored snapshot, "
            f"any of the {summary.messages} messages may have been sent since it was taken"
        )
    print("damaged: see above" if summary.is_damaged else "sound")
    return 1 if summary.is_damaged else 0


def _dump(volume: Volume, args: argparse.Namespace) -> int:
    import msgspec

    from posthof_pod.spool import dump

    if args.content:
        for part in dump.content(volume, args.content):
            sys.stdout.buffer.write(part)
        return 0
    for lane in [args.lane] if args.lane else dump.lanes(volume):
        for row in dump.live(volume, lane) if args.live else dump.records(volume, lane):
            print(msgspec.json.encode(row, enc_hook=str).decode())
    return 0
