"""The supervisor: workers start, die, are replaced; configurations change; everything ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kit.supervised import Supervised, free_port
from posthof_pod.admin import crew, process
from posthof_pod.admin.prepare import CannotStart


@pytest.fixture(autouse=True)
def _fake_workers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 110))  # type: ignore[arg-type]  # a coroutine, as asyncio.run wants


def test_every_worker_listens_and_the_house_is_ready(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            pids = {worker.pid for worker in house.supervisor.crew.workers}
            assert len(pids) == 2
            assert int(await house.greeting(house.ports[0])) in pids
            assert (await house.get("/readyz"))[0] == 200
        assert house.names()[-1] == "stopped"

    run(act)


def test_a_killed_worker_is_replaced_and_the_other_one_told_to_take_over(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            first, second = house.supervisor.crew.workers
            os.kill(first.pid, signal.SIGKILL)
            await house.until(lambda: "worker_died" in house.names())
            await house.until(lambda: len(house.supervisor.crew.ready) == 2)
            _, said = await house.get("/api/v1/trace?q=journal")
            told = [event["event"] for event in said["events"]]
            assert any(first.spool_id in what for what in told if what.startswith("adopt"))
            assert second.pid in {worker.pid for worker in house.supervisor.crew.workers}

    run(act)


def test_a_house_whose_workers_never_start_gives_up_and_says_so(tmp_path: Path) -> None:
    async def act() -> None:
        house = Supervised(tmp_path, hostname="crash.house.test", workers=1)
        async with house:
            assert await asyncio.wait_for(asyncio.shield(house.running), 60) == 1
        assert "no worker can be started" in str([event.get("reason") for event in house.log])

    run(act)


def test_a_change_reaches_all_workers_and_a_new_listener_is_bound(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            house.ports.append(free_port())
            house.write("new.house.test")
            assert await house.supervisor.reload() == []
            assert house.supervisor.config.hostname == "new.house.test"
            assert (await house.greeting(house.ports[1])).isdigit()
            assert {worker.revision for worker in house.supervisor.crew.workers} == {house.supervisor.desired}

    run(act)


def test_a_bad_change_is_refused_with_its_errors_and_the_old_one_stays(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            house.write("mail.house.test", more="---\nkind: Nonsense\n")
            problems = await house.supervisor.reload()
            assert any("Nonsense" in problem for problem in problems)
            assert (await house.get("/api/v1/config"))[1]["refused"] == problems
            assert "config_refused" in house.names()
            assert (await house.greeting(house.ports[0])).isdigit()

    run(act)


def test_a_change_no_worker_can_live_with_is_taken_back(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            house.write("refuse.house.test")
            assert any("cannot live" in problem for problem in await house.supervisor.reload())
            assert house.supervisor.config.hostname == "mail.house.test"

    run(act)


def test_a_worker_that_does_not_end_is_killed_in_time(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path, hostname="stubborn.house.test", workers=1) as house:
            await house.ready()
            pid = house.supervisor.crew.workers[0].pid
        assert any("killed" in event.get("detail", "") for event in house.log)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(act)


def test_a_port_that_is_taken_refuses_the_start_and_names_it(tmp_path: Path) -> None:
    async def act() -> None:
        house = Supervised(tmp_path)
        taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", house.ports[0])
        async with taken:
            with pytest.raises(CannotStart, match=str(house.ports[0])):
                await house.__aenter__()

    run(act)


def test_two_houses_do_not_share_a_state_folder(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            (tmp_path / "second").mkdir()
            second = Supervised(tmp_path / "second")
            second.folder = tmp_path
            with pytest.raises(CannotStart):
                await second.__aenter__()

    run(act)


def test_a_worker_that_dies_again_and_again_listens_again_after_the_pause(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path, workers=1) as house:
            for deaths in (1, 2, 3):
                await house.ready()
                os.kill(house.supervisor.crew.workers[0].pid, signal.SIGKILL)
                await house.until(lambda deaths=deaths: house.names().count("worker_died") == deaths)
            await house.ready()
            assert int(await house.greeting(house.ports[0])) == house.supervisor.crew.workers[0].pid

    run(act)


def test_a_worker_whose_loop_does_not_turn_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PING", 0.1)
    monkeypatch.setattr(crew, "PING", 0.1)

    async def act() -> None:
        async with Supervised(tmp_path, workers=1) as house:
            await house.ready()
            pid = house.supervisor.crew.workers[0].pid
            house.supervisor.crew.workers[0].channel.tell("hang")
            await house.until(lambda: any(worker.pid != pid for worker in house.supervisor.crew.ready))
            assert "worker_stuck" in house.names()

    run(act)


def test_the_counts_of_the_dead_stay_in_the_sum_with_their_last_words(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            assert "posthof_messages_accepted_total 10.0" in (await house.get("/metrics"))[1]
            house.supervisor.crew.workers[0].channel.tell("end")
            await house.until(lambda: "worker_died" in house.names())
            await house.until(lambda: len(house.supervisor.crew.ready) == 2)
            metrics = (await house.get("/metrics"))[1]
            assert "posthof_messages_accepted_total 17.0" in metrics
            assert 'posthof_queue_messages{state="ready"} 2.0' in metrics

    run(act)


def test_a_hang_up_reads_the_manifests_and_opens_the_log_again(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            house.write("new.house.test")
            os.kill(os.getpid(), signal.SIGHUP)
            await house.until(lambda: house.supervisor.config.hostname == "new.house.test")
            assert len([what for what in await house.journal() if what.startswith("reopen")]) == 2

    run(act)


def test_a_change_of_the_folder_needs_no_signal(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            house.write("new.house.test")
            house.announce()
            await house.until(lambda: "config_swapped" in house.names())

    run(act)


def test_a_listener_that_is_taken_out_lets_nobody_in_and_one_that_is_renamed_goes_on(tmp_path: Path) -> None:
    async def act() -> None:
        house = Supervised(tmp_path)
        house.ports.append(free_port())
        house.write()
        async with house:
            await house.ready()
            gone = house.ports.pop()
            house.write(prefix="other")
            assert await house.supervisor.reload() == []
            assert (await house.greeting(house.ports[0])).isdigit()
            with pytest.raises(ConnectionRefusedError):
                await house.greeting(gone)
            assert house.names().count("listener_closed") == 2

    run(act)


def test_a_port_that_cannot_be_bound_refuses_the_whole_change(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
            async with taken:
                house.ports.append(taken.sockets[0].getsockname()[1])
                house.write("new.house.test")
                assert any("in use" in problem for problem in await house.supervisor.reload())
            assert house.supervisor.config.hostname == "mail.house.test"
            assert (await house.greeting(house.ports[0])).isdigit()

    run(act)


def test_what_only_a_start_can_change_is_named_and_the_rest_is_taken(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            house.http, before = free_port(), house.http
            house.write("new.house.test")
            house.http = before
            assert await house.supervisor.reload() == []
            assert house.supervisor.config.hostname == "new.house.test"
            assert house.supervisor.config.http.port == before
            assert [event["detail"] for event in house.log if event["event"] == "restart_needed"] == ["http"]
            assert (await house.get("/api/v1/config"))[1]["restart_needed_for"] == ["http"]

    run(act)


def test_a_second_stop_does_not_wait(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path, hostname="stubborn.house.test") as house:
            await house.ready()
            house.supervisor.stop("first")
            house.supervisor.stop("second")
            assert await asyncio.wait_for(asyncio.shield(house.running), 30) == 0
        assert "warning" not in house.names()

    run(act)


def test_who_is_killed_by_a_second_stop_is_not_replaced(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path, hostname="stubborn.house.test") as house:
            await house.ready()
            killed = house.supervisor.crew.workers
            house.supervisor.crew.kill()  # as the second stop does; their end may be seen before the first goes on
            for worker in killed:
                await asyncio.wait_for(worker.gone.wait(), 30)
            house.supervisor.stop("first")
            assert await asyncio.wait_for(asyncio.shield(house.running), 30) == 0
        assert house.names().count("worker_started") == len(killed)
        assert not {"warning", "worker_died"} & set(house.names())

    run(act)


def test_systemd_is_told_when_it_is_up_reloads_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(tmp_path / "notify"))
            listening.setblocking(False)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            async with Supervised(tmp_path) as house:
                await house.until(lambda: "started" in house.names())
                await house.supervisor.reload()
            told = [listening.recv(1000).decode().splitlines()[0] for _ in range(4)]
            assert told == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]

    run(act)


# ---- the admin API


def test_what_changes_something_needs_the_token(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            body = '{"ids": ["lane1-1"]}'
            assert (await house.get("/api/v1/queue/hold", method="POST", body=body))[0] == 401
            wrong = "Authorization: Bearer nonsense"
            assert (await house.get("/api/v1/queue/hold", wrong, method="POST", body=body))[0] == 401
            right = f"Authorization: Bearer {(tmp_path / 'state' / 'admin.token').read_text().strip()}"
            status, said = await house.get("/api/v1/queue/hold", right, method="POST", body=body)
            assert (status, said["count"]) == (200, 1)
            assert (await house.get("/api/v1/queue/lane1-1/content"))[0] == 401

    run(act)


def test_with_the_token_the_queue_changes_and_mail_is_shown(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            body = '{"all": true}'
            status, said = await house.get("/api/v1/queue/hold", house.token, method="POST", body=body)
            assert (status, said) == (200, {"action": "hold", "count": 2, "missing": []})
            assert (await house.get("/api/v1/queue?state=held"))[1]["total"] == 2
            assert "hello" in (await house.get("/api/v1/queue/lane2-1/content", house.token))[1]
            assert (await house.get("/api/v1/reload", house.token, method="POST"))[0] == 200

    run(act)


def test_a_question_that_makes_no_sense_is_answered_with_what_would(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            for path, hint in (
                ("/api/v1/queue?state=odd", "ready"),
                ("/api/v1/queue?sendr=x", "sender"),
                ("/api/v1/queue?limit=many", "a number"),
                ("/api/v1/trace", "an address"),
            ):
                status, said = await house.get(path)
                assert status == 400
                assert hint in said["error"]
            for path, body, status in (
                ("/api/v1/queue/hold", "{}", 400),
                ("/api/v1/queue/hold", '{"sendr": "x"}', 400),
                ("/api/v1/queue/hold", "nonsense", 400),
                ("/api/v1/queue/explode", '{"all": true}', 404),
            ):
                assert (await house.get(path, house.token, method="POST", body=body))[0] == status
            assert (await house.get("/api/v1/queue", method="DELETE"))[0] == 405
            assert "internal_error" not in house.names()

    run(act)


def test_a_trace_is_in_the_order_of_time_and_says_what_is_queued(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            _, said = await house.get("/api/v1/trace?q=lane2-1")
            assert [event["queue_id"] for event in said["events"]] == ["lane1-1", "lane2-1"]
            assert [item["id"] for item in said["queued"]] == ["lane2-1"]
            _, said = await house.get("/api/v1/trace?q=b@example.net")
            assert [item["id"] for item in said["queued"]] == ["lane1-1", "lane2-1"]

    run(act)


def test_the_token_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            assert (tmp_path / "state" / "admin.token").stat().st_mode & 0o777 == 0o600

    run(act)


def test_a_name_that_is_not_ours_is_not_answered(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            assert (await house.get("/api/v1/queue", "Host: evil.example"))[0] == 421
            assert (await house.get("/api/v1/queue", "Origin: http://evil.example"))[0] == 403
            assert (await house.get("/api/v1/queue", f"Host: localhost:{house.http}"))[0] == 200

    run(act)


def test_the_queue_of_all_workers_is_one_list_and_the_metrics_one_sum(tmp_path: Path) -> None:
    async def act() -> None:
        async with Supervised(tmp_path) as house:
            await house.ready()
            _, page = await house.get("/api/v1/queue")
            assert [item["id"] for item in page["items"]] == ["lane1-1", "lane2-1"]
            assert (await house.get("/api/v1/queue/lane2-1"))[1]["sender"] == "a@example.org"
            assert (await house.get("/api/v1/queue/lane9-1"))[0] == 404
            _, metrics = await house.get("/metrics")
            assert "posthof_messages_accepted_total 10.0" in metrics

    run(act)
