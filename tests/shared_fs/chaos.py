"""`make chaos MINUTES=n`: rounds of faults on two JuiceFS mounts of one volume; one table, and the verdict last.

    chaos.py [--minutes N] [--seed N] [--workers N]

Rounds take the faults of tests/kit/chaos.py in turn. Every twenty rounds all workers stop cleanly and begin anew on a
new volume; what the volume still holds is read then. Exit status 1 when something was lost, came back, changed, or
came twice more often than was metered.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit import juicefs
from kit.chaos import FAULTS, Fleet, Row, verdict

A_LIFE = 20  # rounds on one volume


def life(seed: int, workers: int, ends: float) -> Iterator[Row]:
    """Rounds on one volume, from its making to its end."""
    with juicefs.shared() as shared, Fleet(shared, each=workers, seed=seed) as fleet:
        faults = list(FAULTS)
        random.Random(seed).shuffle(faults)
        for number in range(A_LIFE):
            yield fleet.round(faults[number % len(faults)])
            if time.monotonic() > ends:
                break
        fleet.end()


def table(rows: list[Row]) -> str:
    """By fault, and all of them."""
    head = ("fault", "rounds", "sent", "accepted", "delivered", "lost", "duplicated", "metered", "others had it (s)")
    lines = [head]
    for name in [*dict.fromkeys(row.fault for row in rows), ""]:
        some = [row for row in rows if row.fault == name or not name]
        took = sorted(row.took for row in some if row.took)
        times = f"{took[len(took) // 2]:.1f}, {took[-1]:.1f} at most" if took and name else "-"
        sums = [
            str(sum(getattr(row, each) for row in some))
            for each in ("sent", "accepted", "delivered", "lost", "duplicated", "metered")
        ]
        lines.append((name.replace("_", " ") or "all", str(len(some)), *sums, times))
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    cells = [
        [
            text.ljust(width) if not at else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    ruler = ["-" * width for width in widths]
    return "\n".join("| " + " | ".join(line) + " |" for line in [cells[0], ruler, *cells[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2, help="on each mount")
    args = parser.parse_args()
    began, ends = time.monotonic(), time.monotonic() + args.minutes * 60
    print(
        f"chaos: seed {args.seed}, {args.workers} workers on each of two mounts, {args.minutes:g} minutes", flush=True
    )
    rows: list[Row] = []
    wrong: list[str] = []
    seed = args.seed
    while time.monotonic() < ends and not wrong:
        try:
            for row in life(seed, args.workers, ends):
                rows.append(row)
                print(
                    f"  {len(rows):4} {row.fault}: {row.accepted} accepted, {row.lost} lost, {row.seconds:.1f} s",
                    flush=True,
                )
        except AssertionError as failure:
            wrong.append(f"seed {seed}, round {len(rows)}: {failure}")
        seed += 1
        wrong += verdict(rows)
    print(table(rows))
    for each in wrong:
        print(f"chaos: {each}")
    words = "FAILED" if wrong else "nothing lost, nothing changed, every duplicate metered"
    print(f"chaos: {len(rows)} rounds in {(time.monotonic() - began) / 60:.1f} minutes: {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
