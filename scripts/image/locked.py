"""Print the part of requirements.lock that an extra of posthof needs: `locked.py EXTRA`.

Rules
- Runs in the environment that was made from the lock (scripts/venv); what a package requires is read from its own
  metadata there, so nothing is resolved anew and nothing is fetched.
- The text printed is made of whole entries of the lock, hashes included, in the lock's order.
- A package that the closure needs and the lock lacks is an error that names it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(package: str, extras: frozenset[str]) -> set[str]:
    """Names of everything `package[extras]` needs, without itself."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(package, extras)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        waiting.extend((canonicalize_name(each.name), frozenset(each.extras)) for each in needs(name, wanted))
    return {name for name, _ in seen} - {package}


def needs(package: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What one installed package requires here, with these extras."""
    for line in requires(package) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            yield requirement


def entries(lock: str) -> dict[str, str]:
    """Name -> its lines in the lock."""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]:
        found[canonicalize_name(entry.partition("==")[0])] = entry
    return found


def main(extra: str) -> int:
    lock = entries(Path("requirements.lock").read_text())
    wanted = closure("posthof", frozenset({extra}))
    missing = sorted(wanted - lock.keys())
    if missing:
        print(f"requirements.lock lacks {', '.join(missing)}: make lock", file=sys.stderr)
        return 1
    print("".join(text for name, text in lock.items() if name in wanted), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
