"""The ownership protocol, driven call by call on a real folder; names; file systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posthof_pod.spool import Volume, layout, protocol, record
from posthof_pod.spool.layout import SegmentName
from posthof_pod.spool.protocol import Call, Folder, Log, Look, Removal, Steps, Turned, Write, perform, run
from posthof_pod.spool.volume import file_system


def make(root: Path, *workers: str) -> Volume:
    disk = Volume(root)
    for folder in layout.FOLDERS:
        disk.mkdir(folder)
    for worker in workers:
        disk.mkdir(layout.worker(worker))
        run(disk, protocol.make_latch(worker))
    return disk


class Process:
    """Steps made one call at a time, so that two of them interleave as a test wants it."""

    def __init__(self, disk: Volume, steps: Steps[Any]) -> None:
        self.disk = disk
        self.steps = steps
        self.next: Call | None = next(steps)
        self.result: Any = None

    def step(self) -> str:
        """Make one call; its name."""
        assert self.next is not None
        call = self.next
        try:
            try:
                result = perform(self.disk, call)
            except OSError as error:
                self.next = self.steps.throw(error)
            else:
                self.next = self.steps.send(result)
        except StopIteration as stop:
            self.next, self.result = None, stop.value
        return call.act if isinstance(call.act, str) else call.act.__name__

    def until(self, name: str) -> None:
        """Stop before the first call of this name."""
        while self.next is not None and self.next.act != name:
            self.step()

    def end(self) -> Any:
        while self.next is not None:
            self.step()
        return self.result


def accept(nonce: bytes, number: int) -> list[bytes]:
    from kit.spools import envelope

    meta = record.accept_meta(number, record.Accept(envelope(f"l-{number}"), 0))
    return record.frame(nonce, record.ACCEPT, 0, meta, (b"body",))


def turn(
    worker: str, log: Log, number: int, told: list[Turned], removals: list[Removal] | None = None
) -> Steps[Turned]:
    nonce = b"12345678"
    parts = protocol.open_parts(record.Start(log.folder.lane, *log.name, worker), nonce) + accept(nonce, number)
    write = Write(log, 0, parts, True)
    return protocol.turn(worker, [write], [], removals or [], tell=told.append, now=lambda: 0.0)


def new_log(worker: str) -> Log:
    return Log(Folder("lane", worker, is_made=False), SegmentName(1, 1))


def test_an_owner_that_looks_before_the_fence_is_seen_by_the_adopter(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b")
    told: list[Turned] = []
    owner = Process(disk, turn("a", new_log("a"), 1, told))
    owner.until("look")
    assert told == []
    owner.step()
    assert told[0].look is Look.OPEN
    run(disk, protocol.fence("a", "b"))
    assert run(disk, protocol.claim("lane", 2, "b"))
    assert list(run(disk, protocol.read_lower("lane", 2)).messages) == [1]


def test_an_owner_that_looks_after_the_fence_promises_nothing(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b")
    told: list[Turned] = []
    owner = Process(disk, turn("a", new_log("a"), 1, told))
    owner.until("look")
    run(disk, protocol.fence("a", "b"))
    owner.end()
    assert told[0].look is Look.FENCED


def test_an_owner_frozen_between_look_and_unlink_removes_only_what_was_copied(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b")
    told: list[Turned] = []
    run(disk, turn("a", new_log("a"), 1, told))
    log = Log(Folder("lane", "a", is_made=True), SegmentName(1, 2))
    gone: list[OSError | None] = []
    removal = Removal("lane", lambda: protocol.remove_segment("lane", SegmentName(1, 1), is_kept=False), gone.append)
    owner = Process(disk, turn("a", log, 1, told, [removal]))
    owner.until("unlink")
    run(disk, protocol.fence("a", "b"))
    run(disk, protocol.claim("lane", 2, "b"))
    reading = Process(disk, protocol.read_lower("lane", 2))
    reading.step()
    owner.end()
    assert gone == [None]
    found = reading.end()
    assert {number: found.scans[message.ordinal].name for number, message in found.messages.items()} == {
        1: SegmentName(1, 2)
    }


def test_nothing_is_unlinked_after_a_failed_sync_or_a_bad_look(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b")
    told: list[Turned] = []
    run(disk, turn("a", new_log("a"), 1, told))
    run(disk, protocol.fence("a", "b"))
    gone: list[OSError | None] = []
    removal = Removal("lane", lambda: protocol.remove_segment("lane", SegmentName(1, 1), is_kept=False), gone.append)
    log = Log(Folder("lane", "a", is_made=True), SegmentName(1, 2))
    run(disk, turn("a", log, 2, told, [removal]))
    assert isinstance(gone[0], OSError)
    assert (tmp_path / "lanes/lane/1-1.seg").exists()


def test_one_of_two_claims_wins_and_the_winner_may_repeat_it(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b", "c")
    run(disk, turn("a", new_log("a"), 1, []))
    assert run(disk, protocol.claim("lane", 2, "b"))
    assert run(disk, protocol.claim("lane", 2, "b"))
    assert not run(disk, protocol.claim("lane", 2, "c"))
    assert not run(disk, protocol.claim("nowhere", 2, "c"))
    holding = run(disk, protocol.find("lane"))
    assert holding is not None
    assert (holding.claim, holding.holder, holding.is_free) == (2, "b", False)
    assert run(disk, protocol.find("nowhere")) is None


def test_what_a_zombie_appends_after_the_cut_is_not_read_any_more(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b", "c")
    told: list[Turned] = []
    log = new_log("a")
    run(disk, turn("a", log, 1, told))
    size = disk.size("lanes/lane/1-1.seg")
    run(disk, protocol.fence("a", "b"))
    run(disk, protocol.claim("lane", 2, "b"))
    found = run(disk, protocol.read_lower("lane", 2))
    assert found.lengths() == ((1, 1, size),)
    run(disk, protocol.cut("lane", record.Start("lane", 2, 1, "b", found.lengths()), b"abcdefgh"))
    write = Write(log, size, accept(b"12345678", 2), True)
    late = run(disk, protocol.turn("a", [write], [], [], tell=told.append, now=lambda: 0.0))
    assert late.look is Look.FENCED
    run(disk, turn("a", Log(log.folder, SegmentName(1, 2)), 3, told))
    run(disk, protocol.fence("b", "c"))
    run(disk, protocol.claim("lane", 3, "c"))
    assert list(run(disk, protocol.read_lower("lane", 3)).messages) == [1]


def test_a_former_owner_cannot_claim_back_what_its_taker_removed(tmp_path: Path) -> None:
    disk = make(tmp_path, "a", "b")
    run(disk, turn("a", new_log("a"), 1, []))
    run(disk, protocol.release("lane", 1, "a", (SegmentName(1, 1), disk.size("lanes/lane/1-1.seg")), 5))
    assert run(disk, protocol.is_complete("lane", 1))
    assert run(disk, protocol.claim("lane", 2, "b"))
    removing = Process(disk, protocol.remove_lane("lane"))
    while removing.next is not None:
        removing.step()
        assert not run(disk, protocol.claim("lane", 2, "a"))


def test_a_listing_that_is_old_is_asked_for_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = make(tmp_path, "a", "b")
    log = new_log("a")
    run(disk, turn("a", log, 1, []))
    old = disk.listdir("lanes/lane")
    run(disk, turn("a", Log(log.folder, SegmentName(1, 2)), 2, []))
    run(disk, protocol.claim("lane", 2, "b"))
    monkeypatch.setattr(disk, "listdir", lambda path: old)
    assert set(run(disk, protocol.read_lower("lane", 2)).messages) == {1, 2}


def test_the_taker_knows_whether_it_sees_all_that_was_given(tmp_path: Path) -> None:
    disk = make(tmp_path, "a")
    run(disk, turn("a", new_log("a"), 1, []))
    size = disk.size("lanes/lane/1-1.seg")
    run(disk, protocol.release("lane", 1, "a", (SegmentName(1, 1), size + 1), 5))
    assert not run(disk, protocol.is_complete("lane", 1))
    run(disk, protocol.release("lane", 2, "a", (SegmentName(9, 9), 1), 5))
    assert not run(disk, protocol.is_complete("lane", 2))
    run(disk, protocol.release("lane", 3, "a", None, 5))
    assert run(disk, protocol.is_complete("lane", 3))


def test_a_fence_also_covers_a_latch_that_cannot_be_found(tmp_path: Path) -> None:
    disk = make(tmp_path, "b")
    assert run(disk, protocol.look("a")) is Look.FENCED
    run(disk, protocol.fence("a", "b"))
    assert run(disk, protocol.look("a")) is Look.FENCED
    with pytest.raises(FileExistsError):
        run(disk, protocol.make_latch("a"))
    assert run(disk, protocol.look("b")) is Look.OPEN


@pytest.mark.parametrize("text", [b"", b"open a\n", b"open ab", b"fenced", b"Open a", b"open a" * 200])
def test_only_the_exact_text_is_open(tmp_path: Path, text: bytes) -> None:
    disk = make(tmp_path, "a")
    assert run(disk, protocol.look("a")) is Look.OPEN
    (tmp_path / "workers/a/latch").write_bytes(text)
    assert run(disk, protocol.look("a")) is Look.FENCED


def test_a_fence_is_longer_than_any_open_text() -> None:
    worker = layout.new_worker()
    assert len(layout.fenced_text("x")) > len(layout.open_text(worker))


def test_a_look_past_the_cache_sees_the_same(tmp_path: Path) -> None:
    make(tmp_path, "a")
    disk = Volume(tmp_path, direct=True)
    assert run(disk, protocol.look("a")) is Look.OPEN
    assert run(disk, protocol.look("nobody")) is Look.FENCED


def test_network_file_systems_are_known_by_the_mount_table(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        "30 22 0:40 / /srv/my\\040spool rw - nfs4 host:/x rw\n"
        "31 22 0:41 / /srv rw - fuse.juicefs juice rw\n"
    )
    assert file_system("/srv/my spool/lanes", str(table)) == "nfs4"
    assert file_system("/srv/other", str(table)) == "fuse.juicefs"
    assert file_system("/home", str(table)) == "ext4"
    assert file_system("/home", str(tmp_path / "none")) == ""


def test_names_are_put_together_and_taken_apart() -> None:
    name = layout.new_lane(1_700_000_000.0, b"\xff\xff\xff\xff")
    assert name == name.lower()
    assert len(name) == 12
    assert "-" not in name
    assert layout.new_lane(1_700_000_001.0, b"\0\0\0\0") > name
    assert layout.take_apart(layout.message_id(name, 17)) == (name, 17)
    files = layout.sort_out(
        ["own.2", "own.1", "free.1", "1-10.seg", "1-9.seg", "2-1.seg", "7.blob", ".nfs01", "x.seg"]
    )
    assert files.claim == 2
    assert files.frees == {1}
    assert [str(one) for one in files.segments] == ["1-9.seg", "1-10.seg", "2-1.seg"]
    assert files.blobs == (7,)
    assert files.others == (".nfs01", "x.seg")
    assert files.next_k(1) == 11
    assert layout.first_number(1) == 1
    assert layout.first_number(3) > 2 * 10**9


def test_two_workers_never_have_the_same_name() -> None:
    assert len({layout.new_worker() for _ in range(1000)}) == 1000
