"""Every conversation of tests/dialogues runs against the sans-IO dialogue, however its octets are cut."""

from __future__ import annotations

import pytest

from kit.dialogue import Cut, Script, as_written, octet_by_octet, play, scripts, whole_group

SCRIPTS = scripts()


@pytest.mark.parametrize("cut", [as_written, whole_group, octet_by_octet], ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_conversation_goes_as_written(script: Script, cut: Cut) -> None:
    play(script, cut)


def test_there_are_sixty_conversations_and_more() -> None:
    assert len(SCRIPTS) >= 60
