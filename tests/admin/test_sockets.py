"""The ports: bound for all workers, changed in two steps, never shared with a stranger."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kit.supervised import free_port
from posthof_crds.engine import EngineConfig, Listener, ListenerRole, SpoolSettings
from posthof_pod.admin.channel import SocketInfo
from posthof_pod.admin.sockets import BindFailed, Ports, addresses, quieten


def config(*listeners: Listener) -> EngineConfig:
    spool = SpoolSettings(path="/nowhere")
    return EngineConfig(
        name="t", hostname="h.test", listeners=listeners, spool=spool, mail_root=str(Path("/m")), state_dir="/s"
    )


def listener(name: str, port: int, host: str = "127.0.0.1") -> Listener:
    return Listener(name=name, role=ListenerRole.MX, host=host, port=port)


@pytest.fixture
def ports():
    found = Ports(2)
    yield found
    found.close()


def is_answered(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_every_worker_gets_a_socket_of_its_own_on_the_same_port(ports: Ports) -> None:
    ports.change(config(listener("mx", 0)))
    (one,), (two,) = ports.of(1).items(), ports.of(2).items()
    assert one[0] == two[0]
    assert one[0].port > 0
    assert one[1].getsockname() == two[1].getsockname()
    assert one[1] is not two[1]


def test_a_bound_port_lets_nobody_in_before_a_worker_listens_and_after_it_was_quietened(ports: Ports) -> None:
    ports.change(config(listener("mx", 0)))
    ((info, bound),) = ports.of(1).items()
    assert not is_answered(info.port)
    bound.listen()
    assert is_answered(info.port)
    quieten(bound)
    assert not is_answered(info.port)
    bound.listen()
    assert is_answered(info.port)


def test_a_port_another_posthof_listens_on_is_refused_though_the_kernel_would_share_it(ports: Ports) -> None:
    ports.change(config(listener("mx", 0)))
    ((info, bound),) = ports.of(1).items()
    bound.listen()
    second = Ports(1)
    with pytest.raises(BindFailed, match=f"mx: 127.0.0.1:{info.port} is in use"):
        second.change(config(listener("mx", info.port)))


def test_all_ports_that_cannot_be_had_are_named_at_once_and_none_stays_bound(ports: Ports) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, free = taken.getsockname()[1], free_port()
        with pytest.raises(BindFailed) as failed:
            ports.change(config(listener("a", port), listener("b", free), listener("c", 25, "192.0.2.99")))
        assert str(port) in str(failed.value)
        assert "c: 192.0.2.99:25 is no address of this machine" in str(failed.value)
    assert ports.addresses == []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free))


def test_a_change_binds_what_is_new_keeps_what_stays_and_closes_what_goes_when_it_is_finished(ports: Ports) -> None:
    ports.change(config(listener("stays", 0), listener("goes", 0)))
    before = ports.of(1)
    change = ports.change(config(listener("stays", 0), listener("new", free_port())))
    after = ports.of(1)
    assert {info.listener for info in after} == {"stays", "new"}
    kept = next(info for info in after if info.listener == "stays")
    assert after[kept] is before[kept]
    gone = next(info for info in before if info.listener == "goes")
    assert before[gone].fileno() >= 0
    ports.finish(change)
    assert before[gone].fileno() == -1


def test_an_undone_change_leaves_everything_as_it_was(ports: Ports) -> None:
    ports.change(config(listener("old", 0)))
    before = ports.of(1)
    change = ports.change(config(listener("new", free_port())))
    fresh = next(iter(ports.of(1).values()))
    ports.undo(change)
    assert ports.of(1) == before
    assert next(iter(before.values())).fileno() >= 0
    assert fresh.fileno() == -1


@pytest.mark.parametrize("is_agreed", [True, False])
def test_a_renamed_listener_keeps_its_sockets_whether_agreed_or_undone(ports: Ports, is_agreed: bool) -> None:
    ports.change(config(listener("old", 0)))
    ((info, bound),) = ports.of(1).items()
    ports.close()
    ports.change(config(listener("old", info.port)))
    ((info, bound),) = ports.of(1).items()
    change = ports.change(config(listener("new", info.port)))
    assert ports.of(1) == {SocketInfo("new", "127.0.0.1", info.port): bound}
    if is_agreed:
        ports.finish(change)
    else:
        ports.undo(change)
    assert bound.fileno() >= 0
    (now,) = ports.of(1)
    assert now.listener == ("new" if is_agreed else "old")


def test_no_address_means_all_of_both_families() -> None:
    hosts = {address.host for address in addresses(listener("mx", 25, ""))}
    assert "0.0.0.0" in hosts
    assert hosts <= {"0.0.0.0", "::"}


def test_a_name_that_is_no_address_of_anybody_is_told() -> None:
    with pytest.raises(BindFailed, match=r"listener mx: 'no\.such\.host\.invalid' is no address of this machine"):
        addresses(listener("mx", 25, "no.such.host.invalid"))
