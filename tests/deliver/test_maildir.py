"""Final delivery into Maildirs: what a file holds, where it is, and what a hostile disk or person can do."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import samples
from posthof_crds.engine import Domain, InboundMode, RecipientCheck
from posthof_pod.deliver import drop
from posthof_pod.deliver.maildir import MaildirDelivery, Reader
from posthof_pod.model import Envelope, Outcome, Reason, Recipient, Status

DOMAIN = Domain(
    name="quickstart",
    domain="quickstart.test",
    mode=InboundMode.MAILDIR,
    recipients=frozenset({"bob", "alice", "with+plus"}),
)
ANY = Domain(name="any", domain="quickstart.test", mode=InboundMode.MAILDIR, check=RecipientCheck.ANY)
TRACE = b"Received: from x\r\n\tby mx.test; now\r\n"
BODY = b"Subject: hi\r\n\r\n.hello\r\n"
BOB = "bob@quickstart.test"


def envelope(*addresses: str, number: int = 1, sender: str = "a@a.test") -> Envelope:
    recipients = tuple(Recipient(a) for a in addresses or (BOB,))
    return Envelope(
        id=f"lane-{number}", sender=sender, recipients=recipients, arrived=1_790_000_000.5, size=len(BODY)
    )


def deliver(
    root: Path,
    mail: Envelope | None = None,
    body: bytes | Reader = BODY,
    *,
    domain: Domain = DOMAIN,
    is_repeat: bool = True,
    hostname: str = "mx.test",
) -> list[Outcome]:
    mail = mail or envelope()

    async def once() -> list[Outcome]:
        delivery = MaildirDelivery(str(root), hostname)
        try:
            numbers = range(len(mail.recipients))
            return await delivery.deliver(mail, numbers, TRACE, body, domain, is_repeat=is_repeat)
        finally:
            await delivery.close()

    return asyncio.run(once())


def mailbox(root: Path, local: str = "bob") -> Path:
    return root / "quickstart.test" / local


def new(root: Path, local: str = "bob") -> list[Path]:
    return sorted((mailbox(root, local) / "new").iterdir())


class Pieces:
    """A reader over bytes; `fails_after` chunks it raises as a damaged blob does."""

    def __init__(self, content: bytes, chunk: int, fails_after: int = -1) -> None:
        self.content, self.chunk, self.fails_after = content, chunk, fails_after

    @property
    def size(self) -> int:
        return len(self.content)

    async def chunks(self) -> AsyncIterator[bytes]:
        for n, start in enumerate(range(0, len(self.content), self.chunk)):
            if n == self.fails_after:
                raise EOFError("damaged")
            await asyncio.sleep(0)
            yield self.content[start : start + self.chunk]


# ---------------------------------------------------------------- what a file holds


def test_a_file_holds_return_path_delivered_to_trace_and_the_content_byte_for_byte(tmp_path: Path):
    (outcome,) = deliver(tmp_path)
    (file,) = new(tmp_path)
    assert file.read_bytes() == (b"Return-Path: <a@a.test>\r\nDelivered-To: bob@quickstart.test\r\n" + TRACE + BODY)
    assert outcome == Outcome(0, Status.DELIVERED, Reason.RECEIVED, 250, "2.0.0", "delivered to quickstart.test/bob")


def test_a_bounce_has_the_empty_return_path(tmp_path: Path):
    deliver(tmp_path, envelope(sender=""))
    assert new(tmp_path)[0].read_bytes().startswith(b"Return-Path: <>\r\n")


@pytest.mark.parametrize("name", sorted(samples.everything()))
def test_every_sample_passes_through_byte_for_byte(tmp_path: Path, name: str):
    content = samples.everything()[name]
    (outcome,) = deliver(tmp_path, body=content)
    assert outcome.status is Status.DELIVERED
    top = b"Return-Path: <a@a.test>\r\nDelivered-To: bob@quickstart.test\r\n" + TRACE
    assert new(tmp_path)[0].read_bytes() == top + content


def test_the_name_tells_time_queue_id_host_and_size(tmp_path: Path):
    deliver(tmp_path, hostname="mx/odd:name.test")
    (file,) = new(tmp_path)
    assert file.name == f"1790000000.Qlane-1R0.mx\\057odd\\072name.test,S={file.stat().st_size}"


def test_folders_and_files_belong_to_the_mail_user_alone(tmp_path: Path):
    deliver(tmp_path / "mail")
    for folder in (mailbox(tmp_path / "mail"), mailbox(tmp_path / "mail") / "new", tmp_path / "mail/quickstart.test"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(new(tmp_path / "mail")[0].stat().st_mode) == 0o600
    assert {p.name for p in mailbox(tmp_path / "mail").iterdir()} == {"tmp", "new", "cur"}


def test_each_recipient_gets_a_file_with_its_own_address(tmp_path: Path):
    outcomes = deliver(tmp_path, envelope(BOB, "alice@quickstart.test", "bob+shop@quickstart.test"))
    assert [o.recipient for o in outcomes] == [0, 1, 2]
    assert {o.status for o in outcomes} == {Status.DELIVERED}
    assert len(new(tmp_path, "bob")) == 2
    assert b"Delivered-To: bob+shop@quickstart.test\r\n" in new(tmp_path, "bob")[1].read_bytes()
    assert b"Delivered-To: alice@quickstart.test\r\n" in new(tmp_path, "alice")[0].read_bytes()


def test_nothing_stays_in_tmp(tmp_path: Path):
    deliver(tmp_path)
    assert not list((mailbox(tmp_path) / "tmp").iterdir())


# ---------------------------------------------------------------- again, after a crash


def test_a_second_try_makes_no_second_file(tmp_path: Path):
    deliver(tmp_path)
    (outcome,) = deliver(tmp_path)
    assert len(new(tmp_path)) == 1
    assert outcome.status is Status.DELIVERED
    assert "earlier try" in outcome.reply


def test_a_second_try_finds_what_was_read_meanwhile(tmp_path: Path):
    deliver(tmp_path)
    (file,) = new(tmp_path)
    file.rename(mailbox(tmp_path) / "cur" / (file.name + ":2,S"))
    deliver(tmp_path)
    assert not new(tmp_path)


def test_a_first_try_replaces_what_has_its_name(tmp_path: Path):
    deliver(tmp_path, is_repeat=False)
    deliver(tmp_path, is_repeat=False)
    assert len(new(tmp_path)) == 1


def test_a_second_try_takes_what_a_crash_left_in_tmp_away_and_nothing_else(tmp_path: Path):
    deliver(tmp_path)
    (file,) = new(tmp_path)
    stem = file.name.partition(",")[0]
    file.unlink()
    (mailbox(tmp_path) / "tmp" / f"{stem}.99999_0").write_bytes(b"half")
    other = mailbox(tmp_path) / "tmp" / "1790000000.Qlane-2R0.mx.test.99999_0"
    other.write_bytes(b"of another message")
    deliver(tmp_path)
    assert list((mailbox(tmp_path) / "tmp").iterdir()) == [other]
    assert len(new(tmp_path)) == 1


def test_messages_whose_numbers_begin_alike_are_not_mistaken_for_each_other(tmp_path: Path):
    deliver(tmp_path, envelope(number=11))
    deliver(tmp_path, envelope(number=1))
    assert len(new(tmp_path)) == 2


# ---------------------------------------------------------------- loops


def test_mail_that_was_delivered_to_this_address_before_is_refused(tmp_path: Path):
    looped = b"delivered-to: BOB@quickstart.test\r\n" + BODY
    first, second = deliver(tmp_path, envelope(BOB, "alice@quickstart.test"), looped)
    assert (first.status, first.enhanced, first.reason) == (Status.FAILED, "5.4.6", Reason.LOCAL_FAILED)
    assert second.status is Status.DELIVERED


# ---------------------------------------------------------------- where it goes


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("bob@quickstart.test", "bob"),
        ("BoB@Quickstart.Test", "bob"),
        ('"bob"@quickstart.test', "bob"),
        ("bob+any.detail@quickstart.test", "bob"),
        ("with+plus@quickstart.test", "with+plus"),
    ],
)
def test_spellings_of_one_mailbox_are_one_folder(address: str, folder: str):
    assert drop.folder_of(DOMAIN, address) == ("quickstart.test", folder)


@pytest.mark.parametrize(
    ("local", "folder"),
    [
        ('"../../etc"', "%2E./..%2Fetc".replace("/", "%2F")),
        ('".."', "%2E."),
        ('"."', "%2E"),
        (".hidden", "%2Ehidden"),
        ('"a/b"', "a%2Fb"),
        ('"a b"', "a%20b"),
        ("ü", "%C3%BC"),
        ("100%", "100%25"),
        ("{domain}", "%7Bdomain%7D"),
        ('""', "%"),
    ],
)
def test_a_local_part_is_one_name_and_never_a_way_out(local: str, folder: str):
    assert drop.folder_of(ANY, f"{local}@quickstart.test") == ("quickstart.test", folder)


@given(st.text(max_size=80), st.sampled_from(["{domain}/{local}", "{local}", "x/.{local}/{domain}.d", "a{local}b"]))
def test_no_local_part_leaves_the_root_or_makes_a_name_too_long(local: str, template: str):
    domain = Domain(
        name="d", domain="quickstart.test", mode=InboundMode.MAILDIR, check=RecipientCheck.ANY, maildir=template
    )
    parts = drop.folder_of(domain, local.replace("@", "") + "@quickstart.test")
    assert len(parts) == template.count("/") + 1
    for part in parts:
        assert part not in ("", ".", "..")
        assert "/" not in part
        assert "\0" not in part
        assert len(part.encode()) <= drop.NAME_MAX


def test_two_long_names_that_begin_alike_are_two_folders():
    one, two = (drop.folder_of(ANY, "ü" * 60 + end + "@quickstart.test") for end in "ab")
    assert one != two


def test_a_symbolic_link_in_place_of_a_mailbox_is_not_followed(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    for part in ("tmp", "new", "cur"):
        (elsewhere / part).mkdir(parents=True)
    root = tmp_path / "mail"
    (root / "quickstart.test").mkdir(parents=True)
    mailbox(root).symlink_to(elsewhere)
    (outcome,) = deliver(root)
    assert (outcome.status, outcome.reason, outcome.enhanced) == (Status.DEFERRED, Reason.LOCAL_FAILED, "4.3.5")
    assert not list((elsewhere / "new").iterdir())


@pytest.mark.parametrize("part", ["tmp", "new", "cur"])
def test_a_symbolic_link_inside_a_mailbox_is_not_followed(tmp_path: Path, part: str):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "mail"
    mailbox(root).mkdir(parents=True)
    (mailbox(root) / part).symlink_to(elsewhere)
    (outcome,) = deliver(root)
    assert outcome.status is Status.DEFERRED
    assert not list(elsewhere.iterdir())


def test_the_mail_root_itself_may_be_a_symbolic_link(tmp_path: Path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "mail").symlink_to(tmp_path / "disk2")
    assert deliver(tmp_path / "mail")[0].status is Status.DELIVERED


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("number", "code", "enhanced"),
    [
        (errno.ENOSPC, 452, "4.3.1"),
        (errno.EDQUOT, 452, "4.2.2"),
        (errno.EACCES, 451, "4.3.0"),
        (errno.EROFS, 451, "4.3.0"),
        (errno.EIO, 451, "4.3.0"),
        (errno.ENOTDIR, 451, "4.3.5"),
    ],
)
@pytest.mark.parametrize("call", ["writev", "fsync", "rename", "open"])
def test_a_disk_that_fails_is_a_temporary_failure_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: int, enhanced: str
):
    deliver(tmp_path, envelope(number=2))

    def fails(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(drop.os, call, fails)
    (outcome,) = deliver(tmp_path)
    monkeypatch.undo()
    assert (outcome.status, outcome.reason) == (Status.DEFERRED, Reason.LOCAL_FAILED)
    assert (outcome.code, outcome.enhanced) == (code, enhanced)
    assert errno.errorcode[number] in outcome.reply
    assert str(tmp_path) not in outcome.reply
    assert len(new(tmp_path)) == 1
    assert not list((mailbox(tmp_path) / "tmp").iterdir())


def test_a_failing_sync_of_the_folder_is_not_a_delivery_and_the_next_try_makes_it_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deliver(tmp_path, envelope(number=2))
    real, calls = os.fsync, []

    def second_fails(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:  # the file, then the folder
            raise OSError(errno.EIO, "lost")
        real(fd)

    monkeypatch.setattr(drop.os, "fsync", second_fails)
    assert deliver(tmp_path)[0].status is Status.DEFERRED
    monkeypatch.undo()
    assert deliver(tmp_path)[0].status is Status.DELIVERED
    assert len(new(tmp_path)) == 2


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.writev
    monkeypatch.setattr(drop.os, "writev", lambda fd, pieces: real(fd, [memoryview(pieces[0])[:7]]))
    deliver(tmp_path)
    assert new(tmp_path)[0].read_bytes().endswith(TRACE + BODY)


def test_one_bad_mailbox_does_not_hold_up_the_others(tmp_path: Path):
    (tmp_path / "quickstart.test").mkdir()
    mailbox(tmp_path).write_bytes(b"a file, no folder")
    bob, alice = deliver(tmp_path, envelope(BOB, "alice@quickstart.test"))
    assert (bob.status, bob.enhanced) == (Status.DEFERRED, "4.3.5")
    assert alice.status is Status.DELIVERED


# ---------------------------------------------------------------- many, and large ones


def test_many_messages_at_once_share_their_syncs_and_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, folders = os.fsync, []

    def counted(fd: int) -> None:
        folders.extend([fd] if stat.S_ISDIR(os.fstat(fd).st_mode) else [])
        real(fd)

    monkeypatch.setattr(drop.os, "fsync", counted)

    async def all_of_them() -> list[list[Outcome]]:
        delivery = MaildirDelivery(str(tmp_path), "mx.test")
        try:
            return await asyncio.gather(
                *(
                    delivery.deliver(envelope(number=n), (0,), TRACE, BODY, DOMAIN, is_repeat=False)
                    for n in range(300)
                )
            )
        finally:
            await delivery.close()

    outcomes = asyncio.run(all_of_them())
    assert all(one.status is Status.DELIVERED for (one,) in outcomes)
    assert len(new(tmp_path)) == 300
    assert len(folders) < 100


def test_a_large_body_is_written_as_it_comes(tmp_path: Path):
    content = b"Subject: big\r\n\r\n" + os.urandom(1 << 20)
    outcomes = deliver(tmp_path, envelope(BOB, "alice@quickstart.test"), Pieces(content, 65536))
    assert [o.status for o in outcomes] == [Status.DELIVERED, Status.DELIVERED]
    for local in ("bob", "alice"):
        (file,) = new(tmp_path, local)
        assert file.read_bytes().endswith(TRACE + content)
        assert file.name.endswith(f",S={file.stat().st_size}")
    again = deliver(tmp_path, envelope(BOB, "alice@quickstart.test"), Pieces(content, 65536))
    assert all("earlier try" in o.reply for o in again)
    assert len(new(tmp_path)) == 1
    assert not list((mailbox(tmp_path) / "tmp").iterdir())


def test_a_loop_is_seen_in_a_large_body_too(tmp_path: Path):
    content = b"Delivered-To: bob@quickstart.test\r\n\r\n" + b"x" * 100_000
    (outcome,) = deliver(tmp_path, body=Pieces(content, 65536))
    assert outcome.enhanced == "5.4.6"


def test_a_damaged_body_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(EOFError):
        deliver(tmp_path, body=Pieces(b"x" * 100_000, 1000, fails_after=50))
    assert not new(tmp_path)
    assert not list((mailbox(tmp_path) / "tmp").iterdir())


def test_a_disk_that_fills_while_a_large_body_comes_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, calls = os.writev, []

    def fills(fd: int, pieces: list[memoryview]) -> int:
        calls.append(fd)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, pieces)

    monkeypatch.setattr(drop.os, "writev", fills)
    (outcome,) = deliver(tmp_path, body=Pieces(b"x" * 100_000, 1000))
    assert (outcome.code, outcome.enhanced) == (452, "4.3.1")
    assert not new(tmp_path)
    assert not list((mailbox(tmp_path) / "tmp").iterdir())


def test_a_cancelled_delivery_leaves_no_open_file(tmp_path: Path):
    before = len(os.listdir("/proc/self/fd"))

    is_running = asyncio.Event()

    class Endless(Pieces):
        async def chunks(self) -> AsyncIterator[bytes]:
            for n in itertools.count():
                if n == 3:
                    is_running.set()
                await asyncio.sleep(0)
                yield b"x" * 1000

    async def cancelled() -> None:
        delivery = MaildirDelivery(str(tmp_path), "mx.test")
        task = asyncio.create_task(delivery.deliver(envelope(), (0,), TRACE, Endless(b"", 1), DOMAIN))
        await is_running.wait()
        assert list((mailbox(tmp_path) / "tmp").iterdir())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await delivery.close()

    asyncio.run(cancelled())
    assert not list((mailbox(tmp_path) / "tmp").iterdir())
    assert len(os.listdir("/proc/self/fd")) <= before
