"""Every conversation of tests/dialogues runs over a real socket, against both listeners."""

from __future__ import annotations

from typing import Any

import pytest
import uvloop

from kit.dialogue import Script, play_over_socket, scripts
from posthof_pod.listen.aiosmtpd import AiosmtpdListener
from posthof_pod.listen.native import NativeListener

SCRIPTS = scripts()


async def converse(script: Script, make: Any) -> None:
    await play_over_socket(script, make)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_native_listener_converses_as_written(script: Script) -> None:
    uvloop.run(converse(script, NativeListener))


@pytest.mark.parametrize("script", [one for one in SCRIPTS if not one.native_only], ids=lambda script: script.name)
def test_the_aiosmtpd_listener_converses_as_written(script: Script) -> None:
    uvloop.run(converse(script, AiosmtpdListener))


def test_most_conversations_run_on_both() -> None:
    assert sum(not one.native_only for one in SCRIPTS) * 2 >= len(SCRIPTS)
