"""Every `kubectl posthof` and `posthof` line that the documents tell people to type is one that exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from kit import charts
from posthof_pod.cli import kubectl, main

DOCUMENTS = [
    charts.ROOT / "README.md",
    charts.CHART / "templates" / "NOTES.txt",
    *sorted((charts.ROOT / "docs").glob("*.md")),
    *sorted((charts.ROOT / "docs" / "runbooks").glob("*.md")),
    *sorted((charts.ROOT / "examples").rglob("*.md")),
]
LINE = re.compile(r"^ {4}((?:kubectl )?posthof [^`\n]+)$|`((?:kubectl )?posthof [^`]+)`", re.MULTILINE)


def lines(start: str) -> Iterator[tuple[str, str]]:
    """(document, command line) of every one that begins so, in a code block or between back-ticks."""
    for path in DOCUMENTS:
        for block, inline in LINE.findall(path.read_text()):
            line = re.sub(r"\s+#.*|\s+\|.*|\{\{.*?\}\}", " x" if "{{" in block else "", block or inline)
            if line.startswith(start):
                yield path.name, " ".join(line.split())


@pytest.mark.parametrize(("where", "line"), list(lines("kubectl posthof ")))
def test_a_line_for_the_plug_in_is_understood(where: str, line: str) -> None:
    words = shlex.split(line.replace("[", "").replace("]", ""))[2:]
    args, _ = kubectl._parser().parse_known_args(words)
    assert args.command in kubectl._COMMANDS
    after = words[words.index(args.command) :]
    assert not {"-n", "--namespace", "--mta"} & set(after), "options of the plug-in come first"


@pytest.mark.parametrize(("where", "line"), list(lines("posthof ")))
def test_a_line_for_the_command_names_a_command(where: str, line: str) -> None:
    assert line.split()[1].strip("`,") in {*main.COMMANDS, "--version"}
