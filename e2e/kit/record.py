"""What is kept of a run: outcomes, and times beside what was wanted; printed as they come, and build/e2e.json."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

LEDGER = ("sent", "accepted", "delivered", "lost", "duplicated", "metered")


class Failure(Exception):
    """A scenario's condition was not reached, or what was found is wrong. The text says which."""


class NotApplicable(Exception):
    """A scenario needs what this cluster does not give. The text says what."""


@dataclass
class Measured:
    """A time (`s`), or another quantity, beside what was wanted (0: nothing was)."""

    value: float
    wanted: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Above 1: slower, larger, more than wanted."""
        return self.value / self.wanted if self.wanted else 0.0


@dataclass
class Told:
    """One scenario's outcome."""

    name: str
    outcome: str = "running"  # passed, failed, not applicable
    why: str = ""
    seconds: float = 0.0
    measured: dict[str, Measured] = field(default_factory=dict)

    def keep(self, name: str, measured: Measured) -> None:
        self.measured[name] = measured
        wanted = f"  (wanted {measured.wanted:g} {measured.unit}, {measured.ratio:.2f})" if measured.wanted else ""
        say(f"    {name}: {measured.value:.2f} {measured.unit}{wanted}")


@dataclass
class Run:
    """All scenarios of a run, in order."""

    told: list[Told] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def count(self, outcome: str) -> int:
        return sum(each.outcome == outcome for each in self.told)

    def ledger(self) -> list[str]:
        """What became of the mail of scenarios that count it so: a table, one line for each run."""
        rows = [
            (each.name, *(f"{each.measured[name].value:.0f}" for name in LEDGER))
            for each in self.told
            if "lost" in each.measured
        ]
        if not rows:
            return []
        head = ("faults under load", *LEDGER)
        widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
        lines = [head, tuple("-" * width for width in widths), *rows]
        return [
            " | ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in lines
        ]

    def named(self) -> list[tuple[str, Told]]:
        """Each with its name; a scenario that ran before gets a number, too."""
        times: dict[str, int] = {}
        found = []
        for each in self.told:
            times[each.name] = times.get(each.name, 0) + 1
            found.append((each.name if times[each.name] == 1 else f"{each.name} {times[each.name]}", each))
        return found

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "started": round(self.started),
            "seconds": round(time.time() - self.started, 1),
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "notApplicable": self.count("not applicable"),
            "scenarios": {
                name: {
                    "outcome": each.outcome,
                    **({"why": each.why} if each.why else {}),
                    "seconds": round(each.seconds, 1),
                    "measured": {
                        what: {"value": round(m.value, 3), "unit": m.unit}
                        | ({"wanted": m.wanted, "ratio": round(m.ratio, 3)} if m.wanted else {})
                        for what, m in each.measured.items()
                    },
                }
                for name, each in self.named()
            },
        }
        path.write_text(json.dumps(body, indent=2) + "\n")


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, flush=True, file=sys.stdout)
