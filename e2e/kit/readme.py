"""The commands of a page, as a person would type them: the indented blocks of one of its sections.

`script` puts them into one bash script that stops at the first that fails; `$` and comments of the page stay as they
are. A command that goes to the background is followed by a wait for its port, where the person would take a breath.
"""

from __future__ import annotations

import re
from pathlib import Path

from kit.record import Failure

PORT_FORWARD = re.compile(r"kubectl port-forward .* (\d+):\d+ &$")


def commands(page: Path, section: str) -> list[str]:
    """The lines of code below `## section`, in order."""
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise Failure(f"{page.name} has no section {section}")
    return [line[4:] for line in found[1].splitlines() if line.startswith("    ")]


def script(lines: list[str]) -> str:
    """One script of them; the output of each comes after a line `$ command`."""
    parts = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for line in lines:
        parts += [f"echo '$ '{_quoted(line)}"]
        parts.append(f"{line[:-2]} >/dev/null &" if PORT_FORWARD.match(line) else line)
        if match := PORT_FORWARD.match(line):
            parts.append(f"until (: </dev/tcp/127.0.0.1/{match[1]}) 2>/dev/null; do kill -0 $!; sleep 0.1; done")
    return "\n".join(parts)


def _quoted(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"
