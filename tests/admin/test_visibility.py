"""What one pod writes another has to see: tried out between the pods that run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

import pytest

from kit.spools import until
from posthof_pod.admin.visibility import FOLDER, Visibility
from posthof_pod.spool import Volume


class Blind(Volume):
    """It shows each text as it was first seen."""

    first: ClassVar[dict[str, bytes]] = {}

    def look(self, path: str) -> bytes:
        return self.first.setdefault(path, super().look(path))


class Place:
    """Two pods; what one says in its Lease the other hears."""

    def __init__(
        self, spool: Path, volume: type[Volume] = Volume, patience: tuple[float, float] = (0.1, 0.4)
    ) -> None:
        self.said: list[str] = []
        self.late: list[str] = []
        self.blind: list[str] = []
        self.spool = spool
        Blind.first = {}
        self.writer = Visibility(
            spool, "a", say=self.said.append, on_late=self.late.append, on_blind=self.blind.append
        )
        self.reader = Visibility(
            spool,
            "b",
            say=lambda word: None,
            on_late=self.late.append,
            on_blind=self.blind.append,
            volume=volume,
            patience=patience,
        )

    async def word(self) -> str:
        """The writer's next one, as its Lease has it."""
        before = len(self.said)
        writing = asyncio.ensure_future(self.writer.run())
        await until(lambda: len(self.said) > before)
        writing.cancel()
        return self.said[-1]


def test_a_word_that_is_seen_is_measured(tmp_path: Path) -> None:
    async def story() -> None:
        place = Place(tmp_path)
        for _ in range(3):
            place.reader.hear({"a": await place.word(), "b": "its own", "c": ""})
            await until(lambda: place.reader.worst is not None)
        assert place.late == []
        assert not place.reader.unseen
        await place.writer.leave()
        assert list((tmp_path / FOLDER).iterdir()) == []

    asyncio.run(story())


def test_a_client_that_keeps_old_texts_is_told_of_and_ends_its_house(tmp_path: Path) -> None:
    async def story() -> None:
        place = Place(tmp_path, Blind)
        place.reader.hear({"a": await place.word()})
        await until(lambda: place.reader.worst is not None)
        place.reader.hear({"a": await place.word()})
        await until(lambda: place.blind)
        assert len(place.late) == len(place.blind) == 1
        assert "pod a" in place.blind[0]

    asyncio.run(story())


def test_a_word_that_another_followed_is_forgotten_and_an_error_is_no_evidence(tmp_path: Path) -> None:
    class Failing(Volume):
        def look(self, path: str) -> bytes:
            raise OSError(116, "Stale file handle")

    async def story() -> None:
        place = Place(tmp_path, patience=(20.0, 20.0))
        first, second = await place.word(), await place.word()
        place.reader.hear({"a": first})
        await asyncio.sleep(0.1)
        assert place.reader.worst is None
        place.reader.hear({"a": second})
        await until(lambda: place.reader.worst is not None)
        broken = Place(tmp_path, Failing)
        broken.reader.hear({"a": await broken.word()})
        await asyncio.sleep(0.6)
        assert broken.late == broken.blind == []

    asyncio.run(story())


def test_a_word_of_a_pod_that_has_left_is_looked_for_no_more(tmp_path: Path) -> None:
    async def story() -> None:
        place = Place(tmp_path, patience=(0.2, 0.3))
        place.reader.hear({"a": "a word whose file is gone"})
        await asyncio.sleep(0.05)
        place.reader.hear({})
        await asyncio.sleep(0.6)
        assert place.late == place.blind == []

    asyncio.run(story())


def test_what_was_not_seen_of_a_pod_that_has_left_is_told_of_no_more(tmp_path: Path) -> None:
    async def story() -> None:
        place = Place(tmp_path, patience=(0.1, 20.0))
        place.reader.hear({"a": "a word whose file is gone"})
        await until(lambda: place.late)
        assert "pod a" in place.reader.unseen
        place.reader.hear({})
        assert not place.reader.unseen

    asyncio.run(story())


def test_a_pod_whose_clock_is_days_ahead_removes_nobody_s_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        place = Place(tmp_path)
        word = await place.word()
        monkeypatch.setattr("time.time", lambda: 4e9)
        writing = asyncio.ensure_future(place.reader.run())
        await until((tmp_path / FOLDER / "b").exists)
        await asyncio.sleep(0.1)
        writing.cancel()
        assert (tmp_path / FOLDER / "a").read_text() == word

    asyncio.run(story())
