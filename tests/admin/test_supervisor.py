"""The supervisor: workers start, die, are replaced; configurations change; everything ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kit.supervised import Supervised, free_port
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
