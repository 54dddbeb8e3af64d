"""Rules of the whole suite: in CI hypothesis repeats itself and nothing is skipped."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """With CI=true a skipped test has failed: there, everything a test needs is installed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        reason = call.excinfo.value if call.excinfo else "marked so"
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}"
    return report
