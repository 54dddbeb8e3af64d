"""When deferred units become due: pages of a calendar, a page for each quarter of a second that has one.

Owns: which unit stands on which page. It does not know whether the unit is still deferred: who takes a page checks
that (`Backlog.wake_due`), so that leaving the agenda early costs nothing. `stale` counts such entries; the backlog
rewrites the agenda when they are the greater part.
Memory: 4 bytes an entry, about 200 a page. Times further away than a minute are rounded up to whole seconds: a page
then holds many.
"""

from __future__ import annotations

import heapq
from array import array

PAGES_PER_SECOND = 4  # a power of two: page / 4 is exact
_FAR = 60.0


def page_of(due: float, now: float) -> int:
    """The first page at or after `due`, in quarter seconds since 1970."""
    if due - now > _FAR:
        return -int(-due // 1) * PAGES_PER_SECOND
    return -int(-due * PAGES_PER_SECOND // 1)


class Agenda:
    """A heap of page numbers and the pages."""

    __slots__ = ("_heap", "_pages", "stale")

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        self._heap: list[int] = []
        self.stale = 0

    def put(self, unit: int, page: int) -> None:
        """Write the unit on a page."""
        entries = self._pages.get(page)
        if entries is None:
            self._pages[page] = array("I", (unit,))
            heapq.heappush(self._heap, page)
        else:
            entries.append(unit)

    def take(self, now: float) -> tuple[int, array[int]] | None:
        """Tear out the earliest page that is due: its number and units, or None."""
        if not self._heap or self._heap[0] > now * PAGES_PER_SECOND:
            return None
        page = heapq.heappop(self._heap)
        return page, self._pages.pop(page)

    def clear(self) -> None:
        self._pages.clear()
        self._heap.clear()
        self.stale = 0
