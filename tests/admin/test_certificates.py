"""The pairs that listeners serve: proven before anybody gets them, made only when they must be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from posthof_crds.engine import Certificate, EngineConfig, KeyPair, SecretRef, SpoolSettings
from posthof_pod.admin import certificates
from posthof_pod.listen import tls


def config(state: Path, **named: Certificate) -> EngineConfig:
    return EngineConfig(
        name="t",
        hostname="h.test",
        listeners=(),
        spool=SpoolSettings(path="/nowhere"),
        mail_root="/m",
        state_dir=str(state),
        certificates=named,
    )


def own(*names: str) -> Certificate:
    return Certificate(name="own", dns_names=names, self_signed=True)


def test_a_self_signed_pair_is_made_once_and_its_key_is_for_the_owner_alone(tmp_path: Path) -> None:
    first = certificates.pairs(config(tmp_path, own=own("a.test")), {})
    assert certificates.pairs(config(tmp_path, own=own("a.test")), {}) == first
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


def test_it_is_made_anew_for_other_names_and_when_a_third_of_its_life_is_left(tmp_path: Path) -> None:
    first = certificates.pairs(config(tmp_path, own=own("a.test")), {})
    second = certificates.pairs(config(tmp_path, own=own("a.test", "b.test")), {})
    assert second != first
    about = tmp_path / "tls" / "own.json"
    made = msgspec.json.decode(about.read_bytes(), type=certificates.Made)
    about.write_bytes(msgspec.json.encode(msgspec.structs.replace(made, renew=1.0)))
    assert certificates.pairs(config(tmp_path, own=own("a.test", "b.test")), {}) != second


def test_a_pair_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    certificates.pairs(config(tmp_path, own=own("a.test")), {})
    (tmp_path / "tls" / "own.json").unlink()
    (tmp_path / "tls" / "own.crt").write_bytes(b"")
    assert certificates.pairs(config(tmp_path, own=own("a.test")), {})["own"][0].startswith(b"-----BEGIN")


def test_files_and_secrets_give_pairs_too(tmp_path: Path) -> None:
    pair = tls.self_signed(["a.test"], 86400.0, 1_782_907_200.0)
    (tmp_path / "c.pem").write_bytes(pair.chain)
    (tmp_path / "k.pem").write_bytes(pair.key)
    files = KeyPair(cert_file=str(tmp_path / "c.pem"), key_file=str(tmp_path / "k.pem"))
    secret = KeyPair(cert_secret=SecretRef(name="s", key="tls.crt"), key_secret=SecretRef(name="s", key="tls.key"))
    given = config(
        tmp_path,
        files=Certificate(name="files", dns_names=("a.test",), pair=files),
        secret=Certificate(name="secret", dns_names=("a.test",), pair=secret),
    )
    found = certificates.pairs(given, {"s/tls.crt": pair.chain, "s/tls.key": pair.key})
    assert found == {"files": tuple(pair), "secret": tuple(pair)}


def test_everything_that_is_wrong_is_told_at_once_and_no_key_with_it(tmp_path: Path) -> None:
    one, two = (tls.self_signed([name], 86400.0, 1_782_907_200.0) for name in ("a.test", "b.test"))
    (tmp_path / "c.pem").write_bytes(one.chain)
    (tmp_path / "k.pem").write_bytes(two.key)
    mixed = KeyPair(cert_file=str(tmp_path / "c.pem"), key_file=str(tmp_path / "k.pem"))
    absent = KeyPair(cert_file=str(tmp_path / "none.pem"), key_file=str(tmp_path / "k.pem"))
    given = config(
        tmp_path,
        mixed=Certificate(name="mixed", dns_names=("a.test",), pair=mixed),
        absent=Certificate(name="absent", dns_names=("a.test",), pair=absent),
    )
    with pytest.raises(certificates.Unusable) as wrong:
        certificates.pairs(given, {})
    mismatch, missing = wrong.value.problems
    assert mismatch.startswith("TLSCert/mixed: the certificate and its key cannot be used")
    assert missing == f"TLSCert/absent: {tmp_path / 'none.pem'}: No such file or directory"
    assert "PRIVATE" not in str(wrong.value)
