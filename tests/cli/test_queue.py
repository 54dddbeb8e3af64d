"""What people read: the queue as a table, one message, a life in order, the first steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthof_crds.compile import compile as compile_manifests
from posthof_crds.load import load
from posthof_pod.admin.waiting import QueueItem, QueuePage, QueueRecipient
from posthof_pod.cli import main, queue, trace, up

REPOSITORY = Path(__file__).resolve().parents[2]
WAITING = QueueRecipient(
    "b@far.test", "deferred", due=1060.0, attempts=2, reason="ConnectFailed", destination="out:mx:25"
)
ITEM = QueueItem("lane-1", "a@ours.test", 940.0, 2048, [WAITING], recipients=2, detail="mx: connection refused")


def test_a_message_is_one_line_of_the_table() -> None:
    head, row = queue.table(QueuePage([ITEM], 1), now=1000.0)
    assert head.split() == ["ID", "AGE", "SIZE", "FROM", "TO", "STATE", "NEXT", "TRIES", "REASON"]
    assert row.split() == (
        ["lane-1", "1m00s", "2.0", "KiB", "a@ours.test", "b@far.test", "deferred", "1m00s", "2", "ConnectFailed"]
    )


def test_what_is_not_shown_is_counted_and_who_is_silent_is_named() -> None:
    lines = queue.table(QueuePage([ITEM], 7, ["2"]), now=1000.0)
    assert lines[-2:] == ["... and 6 more (--limit)", "no answer from worker 2: its messages are missing here"]


def test_an_empty_queue_says_so() -> None:
    assert queue.table(QueuePage([], 0), now=0.0) == ["Nothing is queued."]


def test_one_message_is_told_with_the_peers_words() -> None:
    text = "\n".join(queue.details(ITEM, now=1000.0))
    assert "recipients  1 of 2 wait" in text
    assert "b@far.test: deferred, next try in 1m00s, 2 tries so far" in text
    assert text.endswith("last reply  mx: connection refused")


def test_control_characters_of_a_peer_do_not_reach_the_terminal() -> None:
    item = QueueItem("lane-1", "a\x1b[31m@x", 0.0, 1, [WAITING], detail="\x1b]0;boo\x07")
    assert "\x1b" not in "\n".join([*queue.details(item, now=1.0), *queue.table(QueuePage([item], 1), now=1.0)])


def test_a_life_is_told_in_order_and_then_what_waits() -> None:
    event = {"time": "2026-01-01T00:00:00.000Z", "event": "accepted", "queue_id": "lane-1"}
    lines = list(trace.lines({"events": [event], "queued": [ITEM], "missing": []}, now=1000.0))
    assert lines[0].startswith("2026-01-01 00:00:00.000 accepted")
    assert any("b@far.test: deferred" in line for line in lines)


def test_the_quickstart_says_how_to_send_a_first_mail_and_where_it_lands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    config = compile_manifests(load(REPOSITORY / "examples" / "quickstart"), REPOSITORY)
    text = "\n".join(up.first_steps(config, "127.0.0.1:8025", "examples/quickstart"))
    assert "swaks --server 127.0.0.1:2525 --from you@example.org --to alice@quickstart.test" in text
    assert "var/mail/quickstart.test/alice/new/" in text


def test_without_a_house_the_commands_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["queue", "--admin", "http://127.0.0.1:1", "list"]) == 1
    assert "posthof up -f DIR" in capsys.readouterr().err


def test_a_change_without_a_choice_of_messages_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["queue", "--admin", "http://127.0.0.1:1", "delete"]) == 2
    assert "which messages?" in capsys.readouterr().err


def test_every_command_is_listed_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help"])
    listed = capsys.readouterr().out
    assert all(command in listed for command in main.COMMANDS)
    with pytest.raises(SystemExit):
        main.main(["nonsense"])


def test_manifests_with_errors_do_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mta.yaml").write_text("kind: Nonsense\n")
    assert main.main(["up", "-f", str(tmp_path)]) == 1
    assert "mta.yaml:1" in capsys.readouterr().err
