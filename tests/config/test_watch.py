"""The manifest folder, watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from posthof_pod.config.watch import FolderWatcher, snapshot

TICK = 0.01


def watched(folder: Path, act: Callable[[FolderWatcher], object], *, seconds: float = 5.0) -> bool:
    """Did the watcher tell of a change within the time, `act` having happened while it watched?"""

    async def scene() -> bool:
        watcher = FolderWatcher(folder, interval=TICK, patience=0.2)
        change = asyncio.ensure_future(watcher.changed())
        await asyncio.sleep(3 * TICK)
        assert not change.done()
        act(watcher)
        done, _ = await asyncio.wait([change], timeout=seconds)
        change.cancel()
        return bool(done)

    return asyncio.run(scene())


def test_a_new_a_changed_and_a_removed_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    assert watched(tmp_path, lambda _: path.write_text("a"))
    assert watched(tmp_path, lambda _: path.write_text("ab"))
    assert watched(tmp_path, lambda _: path.unlink())


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_told(tmp_path: Path) -> None:
    import os

    path, other = tmp_path / "a.yaml", tmp_path / "b"
    path.write_text("a")
    other.write_text("b")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert watched(tmp_path, lambda _: other.rename(path))


def test_a_symbolic_link_that_moves_is_told_as_kubernetes_does_it(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    def swap(_: FolderWatcher) -> None:
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")

    assert watched(tmp_path, swap)


def test_other_files_are_not_told(tmp_path: Path) -> None:
    def act(_: FolderWatcher) -> None:
        (tmp_path / "a.yaml~").write_text("a")
        (tmp_path / ".a.yaml.swp").write_text("a")
        (tmp_path / ".a.yaml").write_text("a")
        (tmp_path / "notes.txt").write_text("a")

    assert not watched(tmp_path, act, seconds=10 * TICK)


def test_a_poke_tells_at_once_without_a_change(tmp_path: Path) -> None:
    assert watched(tmp_path, lambda watcher: watcher.poke())


def test_a_folder_that_vanishes_is_a_change(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "a.yaml").write_text("a")
    assert watched(folder, lambda _: folder.rename(tmp_path / "gone"))


def test_files_outside_the_folder_can_matter_too(tmp_path: Path) -> None:
    folder, cert = tmp_path / "m", tmp_path / "cert.pem"
    folder.mkdir()
    before = snapshot(folder, [cert])
    cert.write_text("a")
    assert snapshot(folder, [cert]) != before


def test_a_folder_that_never_rests_is_told_all_the_same(tmp_path: Path) -> None:
    async def scene() -> None:
        watcher = FolderWatcher(tmp_path, interval=TICK, patience=5 * TICK)
        change = asyncio.ensure_future(watcher.changed())
        for n in range(2000):
            (tmp_path / "a.yaml").write_text("x" * n)
            await asyncio.sleep(TICK / 4)
            if change.done():
                return
        raise AssertionError("never told")

    asyncio.run(scene())


def test_what_changes_while_a_change_is_loaded_is_told_again(tmp_path: Path) -> None:
    async def scene() -> int:
        watcher = FolderWatcher(tmp_path, interval=TICK)
        told = 0
        enough = asyncio.Event()

        async def load() -> None:
            nonlocal told
            told += 1
            if told == 1:
                (tmp_path / "a.yaml").write_text("second")
            else:
                enough.set()

        task = asyncio.ensure_future(watcher.run(load))
        (tmp_path / "a.yaml").write_text("first")
        await asyncio.wait_for(enough.wait(), 5)
        task.cancel()
        return told

    assert asyncio.run(scene()) == 2
