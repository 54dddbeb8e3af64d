"""The trace: the newest lines of this worker, in memory, to be searched by `posthof trace`.

Rules of this file
- Bounded by lines and by bytes; what falls out is still in the log.
- It keeps what was written at once as one block of bytes: 33 bytes of Python a block, not an object a line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from posthof_pod.observe.line import Line, decode

LINES = 20_000
BYTES = 8 * 1024 * 1024
FEW = 16  # ids that are looked for one by one; for more, every line is read


class Ring:
    """The newest `lines` lines, at most `size` bytes of them."""

    def __init__(self, lines: int = LINES, size: int = BYTES) -> None:
        self.max_lines, self.max_bytes = lines, size
        self.lines = self.bytes = 0
        self._blocks: deque[tuple[int, bytes]] = deque()

    def add(self, block: bytes, lines: int) -> None:
        """Keep a block of `lines` whole lines."""
        self._blocks.append((lines, block))
        self.lines += lines
        self.bytes += len(block)
        while (self.lines > self.max_lines or self.bytes > self.max_bytes) and len(self._blocks) > 1:
            count, gone = self._blocks.popleft()
            self.lines -= count
            self.bytes -= len(gone)

    def search(self, wanted: str, limit: int = 1000) -> list[bytes]:
        """The lines of every message that `wanted` names, oldest first, at most the newest `limit`.

        `wanted` is a queue id, an address, a domain with its `@`, or a Message-ID. First the messages are found, then
        all their lines, because not every line of a message names its sender and recipients; then the reports about
        them, and so on.
        """
        blocks = [block for _, block in self._blocks]
        needle = wanted.lower().encode("utf-8", "replace")
        found = [line for line in _lines(blocks, [needle]) if names(line[1], wanted)]
        ids: set[str] = set()
        while more := {key for _, line in found for key in (line.queue_id, line.about) if key} - ids:
            ids |= more
            wholes = _lines(blocks, [needle, *(f'"{one}"'.encode() for one in ids)] if len(ids) < FEW else [])
            found = [
                (raw, line)
                for raw, line in wholes
                if line.queue_id in ids or line.about in ids or names(line, wanted)
            ]
        return [raw for raw, _ in found[-limit:]]


def _lines(blocks: list[bytes], needles: list[bytes]) -> Iterator[tuple[bytes, Line]]:
    """The lines that hold one of the needles (lower case); without needles all lines."""
    for block in blocks:
        if needles and not _holds(block.lower(), needles):
            continue
        for raw in block.splitlines():
            if not needles or _holds(raw.lower(), needles):
                yield raw, decode(raw)


def _holds(text: bytes, needles: list[bytes]) -> bool:
    return any(needle in text for needle in needles)


def names(line: Line, wanted: str) -> bool:
    """True where `wanted` is the line's queue id, Message-ID, one of its addresses, or `@domain` of one of them."""
    if wanted in (line.queue_id, line.about, line.message_id) or f"<{wanted}>" == line.message_id:
        return bool(wanted)
    folded = wanted.casefold()
    addresses = [address.casefold() for address in (line.from_ or "", *line.to, *line.original)]
    if folded.startswith("@"):
        return any(address.endswith(folded) for address in addresses)
    return folded in addresses and bool(folded)
