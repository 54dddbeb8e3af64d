"""DKIM keys of one machine: made below the state folder, signing once DNS has them, changed for new ones in time."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from kit.manifests import compiled, manifest
from kit.supervised import Supervised
from posthof_certs import dkim
from posthof_certs.zone import Record
from posthof_crds.engine import EngineConfig
from posthof_pod.admin import keyring, supervisor
from posthof_pod.admin.keyring import KeyRing, Unreadable
from posthof_pod.cli.dkim import told, zone_lines
from posthof_pod.sign.keyring import KEYS, unpacked

DAY = 86400.0
NOW = 1_790_000_000.0


class Zone:
    """What the servers show."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def lacking(self, records: Sequence[Record], resolver: Sequence[str] = (), *, port: int = 53) -> list[str]:
        return [f"ns.example has no TXT {one.name}" for one in records if one.text not in self.texts]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Zone:
    """In the place of DNS."""
    found = Zone()
    monkeypatch.setattr(keyring, "lacking", found.lacking)
    return found


def config(outbound: str = "{dkim: {auto: {rotation: {interval: 10d, overlap: 2d}}}}") -> EngineConfig:
    spec = f"domain: a.test\ninbound: {{mode: Reject}}\noutbound: {outbound}"
    return compiled(manifest("MailDomain", "a", spec))


def states(ring: KeyRing, of: EngineConfig) -> list[str]:
    return sorted(f"{key.algorithm} {key.state}" for key in ring.shown(of))


def tend(ring: KeyRing, of: EngineConfig, now: float) -> bool:
    return ring.tend(of, now, pytest.fail)


def test_keys_sign_once_the_zone_shows_them(tmp_path: Path, zone: Zone) -> None:
    ring, of = KeyRing(tmp_path), config()
    assert not tend(ring, of, NOW)
    assert states(ring, of) == ["Ed25519 waits for DNS", "RSA waits for DNS"]
    assert ring.complete(of, {"a/b": b"c"}) == {"a/b": b"c"}
    zone.texts = {key.text for key in ring.shown(of)}
    assert tend(ring, of, NOW)
    assert not tend(ring, of, NOW)
    keys = unpacked(ring.complete(of, {})[KEYS])
    assert sorted(dkim.record(key.pem) for key in keys) == sorted(zone.texts)
    for path in (tmp_path / "dkim").rglob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_old_key_gives_way_when_its_successor_is_seen(tmp_path: Path, zone: Zone) -> None:
    ring, of = (
        KeyRing(tmp_path),
        config("{dkim: {auto: {algorithms: [RSA], rotation: {interval: 10d, overlap: 2d}}}}"),
    )
    tend(ring, of, NOW)
    zone.texts = {key.text for key in ring.shown(of)}
    tend(ring, of, NOW)
    (first,) = [key.selector for key in unpacked(ring.complete(of, {})[KEYS])]
    tend(ring, of, NOW + 11 * DAY)
    assert states(ring, of) == ["RSA signs", "RSA waits for DNS"]
    assert [key.selector for key in unpacked(ring.complete(of, {})[KEYS])] == [first]
    zone.texts |= {key.text for key in ring.shown(of)}
    assert tend(ring, of, NOW + 11 * DAY)
    assert states(ring, of) == ["RSA retired", "RSA signs"]
    assert [key.selector for key in unpacked(ring.complete(of, {})[KEYS])] != [first]
    tend(ring, of, NOW + 14 * DAY)
    assert [key.text for key in ring.shown(of) if key.state == "revoked"] == [dkim.REVOKED]
    tend(ring, of, NOW + 17 * DAY)
    assert states(ring, of) == ["RSA signs"]
    assert not (tmp_path / "dkim" / "a.test" / f"{first}.pem").exists()


def test_a_restart_finds_its_keys_and_a_damaged_list_is_told(tmp_path: Path, zone: Zone) -> None:
    of = config()
    tend(KeyRing(tmp_path), of, NOW)
    before = [key.text for key in KeyRing(tmp_path).shown(of)]
    tend(KeyRing(tmp_path), of, NOW + 60)
    assert [key.text for key in KeyRing(tmp_path).shown(of)] == before
    (tmp_path / "dkim/a.test/keys.json").write_text("[")
    warnings: list[str] = []
    assert not KeyRing(tmp_path).tend(of, NOW, warnings.append)
    assert "keys.json cannot be read" in warnings[0]
    with pytest.raises(Unreadable):
        list(KeyRing(tmp_path).shown(of))
    assert len(list((tmp_path / "dkim/a.test").glob("*.pem"))) == len(before)


def test_a_named_key_without_a_secret_is_made(tmp_path: Path, zone: Zone) -> None:
    domain = manifest(
        "MailDomain", "a", "domain: a.test\ninbound: {mode: Reject}\noutbound: {dkim: {keyRefs: [{name: k}]}}"
    )
    of = compiled(domain, manifest("DKIMKey", "k", "{domainRef: {name: a}, selector: s1, algorithm: Ed25519}"))
    ring = KeyRing(tmp_path)
    tend(ring, of, NOW)
    (key,) = ring.shown(of)
    assert key.name == "s1._domainkey.a.test"
    zone.texts = {key.text}
    assert tend(ring, of, NOW + 365 * DAY)
    assert [one.selector for one in unpacked(ring.complete(of, {})[KEYS])] == ["s1"]


def test_what_is_shown_can_be_put_into_a_zone_file(tmp_path: Path, zone: Zone) -> None:
    ring, of = KeyRing(tmp_path), config("{dkim: {auto: {algorithms: [RSA]}}}")
    ring.make(of, NOW)
    (line,) = zone_lines(ring.shown(of))
    assert line.count('"') == 4
    assert all(len(text) <= 255 for text in line.split('"')[1::2])
    assert told(ring.shown(of, is_asking=True))[-2].startswith("  ! ns.example has no TXT ph")


def test_a_running_house_gives_its_workers_a_key_when_the_zone_shows_it(
    tmp_path: Path, zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor looks by itself; the workers get the key beside the configuration they run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    monkeypatch.setattr(supervisor, "DKIM", 0.05)
    spec = "  domain: a.test\n  inbound: {mode: Reject}\n  outbound: {dkim: {auto: {algorithms: [Ed25519]}}}\n"
    more = f"---\napiVersion: posthof.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: a}}\nspec:\n{spec}"

    async def story() -> None:
        house = Supervised(tmp_path, workers=1)
        house.write(more=more)
        async with house:
            await house.ready()
            ring = KeyRing(tmp_path / "state")
            config_ = house.supervisor.config
            keys = await house.until(lambda: list(ring.shown(config_)))
            assert [key.state for key in keys] == ["waits for DNS"]
            assert not any(KEYS in line for line in await house.journal())
            zone.texts = {key.text for key in keys}
            await house.until(lambda: [key.state for key in ring.shown(config_)] == ["signs"])
            await house.until(lambda: "config_swapped" in house.names())
            assert any(KEYS in line for line in await house.journal())

    asyncio.run(story())
