"""What a house finds out about its machine before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from posthof_crds.engine import HTTPSettings
from posthof_pod.admin import prepare
from posthof_pod.admin.prepare import VolumeRefused, bind_public, cpus, probed
from posthof_pod.spool.probe import probe


@pytest.mark.parametrize(
    ("text", "unlimited", "wanted"),
    [
        ("200000 100000", 0, 2),
        ("50000 100000", 0, 1),
        ("150000 100000", 4, 2),
        ("max 100000", 0, 100),
        ("max 100000", 4, 4),
        ("", 4, 4),
    ],
)
def test_workers_follow_the_containers_cpu_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, unlimited: int, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(100)))
    (tmp_path / "cpu.max").write_text(text)
    assert cpus(unlimited, tmp_path / "cpu.max") == wanted
    assert cpus(3, tmp_path / "nothing") == 3


def test_a_volume_that_breaks_a_promise_is_refused_with_what_it_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "spool")
    assert probed(path).broken == ()
    found = msgspec.structs.replace(probe(path), file_system="nfs4", broken=("the mount option nocto",))
    monkeypatch.setattr(prepare, "probe", lambda _: found)
    with pytest.raises(VolumeRefused) as refused:
        probed(path)
    assert refused.value.problems == [f"{path} cannot hold a spool (nfs4): the mount option nocto"]


def test_the_public_port_is_on_both_families_where_there_are_two() -> None:
    bound = bind_public(HTTPSettings(host="", port=0))
    try:
        assert len({one.getsockname()[1] for one in bound}) == 1
        assert bound[0].getsockname()[0] == "0.0.0.0"
    finally:
        for one in bound:
            one.close()
