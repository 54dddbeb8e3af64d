"""What the crash tests say at the end: how to repeat them."""

from __future__ import annotations

from typing import Any

from kit.crash import IS_ALL, SEED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    walked = (
        "all of it" if IS_ALL else f"a sample; POSTHOF_CRASH_SEED={SEED} repeats it, POSTHOF_CRASH=all walks it all"
    )
    terminalreporter.write_line(f"crash tests walked {walked}")
