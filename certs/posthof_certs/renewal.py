"""When a successor is made: two thirds through, in the windows that are allowed, and with patience after failures.

Rules of this file
- Pure: unix seconds in, unix seconds out; days and hours are UTC.
- A window never lets a certificate end: in its last tenth (a day at most) it is renewed whatever the hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DAY = 86400.0
FIRST_PAUSE = 300.0  # seconds after a first failure; Let's Encrypt counts five failures of an hour
LONGEST_PAUSE = DAY


class Window(NamedTuple):
    """When renewals are welcome. `days`: 0 is Monday; `start`: seconds after midnight UTC; `length`: seconds."""

    days: frozenset[int]
    start: float
    length: float


def due(not_before: float, not_after: float, renew_before: float | None) -> float:
    """When a successor is wanted: two thirds through its time, or `renew_before` seconds before its end; but never in
    its first quarter, or a certificate cut short by its authority would be renewed without end."""
    lifetime = not_after - not_before
    if renew_before is not None:
        return max(not_after - renew_before, not_before + lifetime / 4)
    return not_before + lifetime * 2 / 3


def allowed(wanted: float, not_before: float, not_after: float, windows: Sequence[Window]) -> float:
    """The first moment at or after `wanted` that lies in a window, or that cannot wait for one."""
    if not windows:
        return wanted
    latest = not_after - min(DAY, (not_after - not_before) / 10)
    return max(wanted, min(latest, *(_next(wanted, one) for one in windows)))


def pause(failures: int, retry_after: float = 0.0) -> float:
    """Seconds to wait after so many failures in a row, and at least as long as the server said."""
    if failures <= 0:
        return 0.0
    return max(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 20)), retry_after)


def _next(wanted: float, window: Window) -> float:
    """The first moment at or after `wanted` in this window; it may have begun the day before."""
    today = wanted // DAY * DAY
    for n in range(-1, 9):
        midnight = today + n * DAY
        weekday = (int(midnight // DAY) + 3) % 7  # 1970-01-01 was a Thursday
        begins = midnight + window.start
        if weekday in window.days and wanted < begins + window.length:
            return max(wanted, begins)
    return wanted
