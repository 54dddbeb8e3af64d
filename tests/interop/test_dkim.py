"""Our signatures in OpenDKIM, dkimpy and Mail::DKIM, theirs in ours; our ARC chains in dkimpy and Mail::DKIM."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit import peers
from kit.dkim import MESSAGE, NOW, at_once, judged, pem, signed, signing_key, table
from posthof_pod.mailauth import canon
from posthof_pod.mailauth.arc.seal import seal
from posthof_pod.mailauth.arc.verify import verify_chain
from posthof_pod.mailauth.dkim import keys

pytestmark = pytest.mark.interop

RSA, ED = signing_key("rsa2048"), signing_key("ed25519")
RECORDS = {f"{one.selector}._domainkey.{one.domain}": keys.record(one.key) for one in (RSA, ED)}
TABLE = table(RSA, ED)
SCRIPT = Path(__file__).parents[1] / "kit" / "maildkim.pl"
ODD = (
    MESSAGE,
    b"from:ada@a.example\r\nSubject:\r\n\r\n",
    b"From: ada@a.example\r\nX:\r\n y\r\n\r\n\r\n\r\n",
    b"From: ada@a.example\r\n\r\n a\t b \r\n \t\r\nc\r\n" + b"\r\n" * 50,
    b"From: ada@a.example\r\n\r\n" + b"long " * 3000 + b"\r\n",
)
OBSOLETE = b"From: ada@a.example\r\nSubject : spaced\t \r\n\r\nRFC 5322 4.5\r\n"  # dkimpy reads no such field
OPEN = b"From: ada@a.example\r\n\r\nno line end"  # OpenDKIM's test mode reads whole lines


def dkimpy() -> Any:
    return pytest.importorskip("dkim", reason="dkimpy is in the dev extra: make .venv")


def dns(name: bytes, timeout: float = 5.0) -> bytes | None:
    found = RECORDS.get(name.decode().rstrip("."))
    return found.encode() if found else None


def perl(what: str, message: bytes, *arguments: str) -> str:
    command = ["perl", str(SCRIPT), what, *arguments]
    try:
        done = subprocess.run(command, input=message, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        peers.absent("perl not installed")
    if b"Can't locate Mail/DKIM" in done.stderr:
        peers.absent("libmail-dkim-perl not installed")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def opendkim(folder: Path, message: bytes, *lines: str) -> str:
    """What the filter would add, in its test mode: no socket is opened."""
    peers.require("opendkim")
    (folder / "mail").write_bytes(message)
    (folder / "conf").write_text("\n".join(["Socket local:nowhere", "Syslog no", *lines, ""]))
    command = ["opendkim", "-x", str(folder / "conf"), "-vv", "-t", str(folder / "mail")]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    return done.stdout.decode() + done.stderr.decode()


def listed(folder: Path) -> str:
    path = folder / "keys"
    path.write_text("".join(f"{name} {text}\n" for name, text in RECORDS.items()))
    return str(path)


def key_file(folder: Path) -> str:
    path = folder / "rsa.pem"
    path.write_bytes(pem("rsa2048"))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("message", [*ODD, OBSOLETE])
def test_opendkim_verifies_both_of_ours(tmp_path: Path, message: bytes) -> None:
    said = opendkim(tmp_path, signed(message, RSA, ED), "Mode v", f"TestPublicKeys {listed(tmp_path)}")
    assert re.findall(r"dkim=(\w+).*?header\.a=([\w-]+)", said) == [
        ("pass", "rsa-sha256"),
        ("pass", "ed25519-sha256"),
    ]


@pytest.mark.parametrize("message", [*ODD, OPEN])
def test_dkimpy_verifies_both_of_ours(message: bytes) -> None:
    dkim = dkimpy()
    judge = dkim.DKIM(signed(message, RSA, ED))
    assert judge.verify(idx=0, dnsfunc=dns)
    assert judge.verify(idx=1, dnsfunc=dns)
    changed = dkim.DKIM(signed(message, RSA, ED).replace(b"ada@", b"eve@"))
    assert not changed.verify(idx=0, dnsfunc=dns)


@pytest.mark.parametrize("message", [*ODD, OPEN, OBSOLETE])
def test_mail_dkim_verifies_ours(tmp_path: Path, message: bytes) -> None:
    assert perl("verify", signed(message, RSA), listed(tmp_path)) == "rsa-sha256 pass\n"


@pytest.mark.parametrize("message", [*ODD, OPEN])
@pytest.mark.parametrize("canons", ["simple/simple", "relaxed/simple", "simple/relaxed", "relaxed/relaxed"])
def test_what_dkimpy_signs_passes(message: bytes, canons: str) -> None:
    dkim = dkimpy()
    ways = tuple(each.encode() for each in canons.split("/"))
    made = dkim.sign(message, b"rsa2048", b"a.example", pem("rsa2048"), canonicalize=ways, include_headers=[b"from"])
    (found,) = judged(made + message, TABLE)
    assert (found.result, found.reason) == ("pass", "")


@pytest.mark.parametrize("message", ODD)
def test_what_opendkim_signs_passes(tmp_path: Path, message: bytes) -> None:
    said = opendkim(
        tmp_path,
        message,
        "Mode s",
        "Domain a.example",
        "Selector rsa2048",
        f"KeyFile {key_file(tmp_path)}",
        "Canonicalization relaxed/simple",
        "RequireSafeKeys no",
    )
    found = re.search(r"hname='DKIM-Signature' hvalue='(.*?)'", said, re.DOTALL)
    assert found, said
    field = b"DKIM-Signature: " + re.sub(r"\r?\n", "\r\n", found[1]).encode() + b"\r\n"
    (one,) = judged(field + message, TABLE)
    assert (one.result, one.reason) == ("pass", "")


def test_what_mail_dkim_signs_passes(tmp_path: Path) -> None:
    field = perl("sign", MESSAGE, key_file(tmp_path), "a.example", "rsa2048").encode()
    (one,) = judged(field + MESSAGE, TABLE)
    assert (one.result, one.reason) == ("pass", "")


def sealed(message: bytes, times: int) -> bytes:
    for _ in range(times):
        head, body = canon.parted(message)
        headers = canon.fields(head)
        cv = at_once(verify_chain(headers, body, TABLE, NOW)).cv
        results = b"mx.a.example; spf=pass smtp.mailfrom=ada@a.example; arc=" + cv.encode()
        message = seal(headers, body, RSA, results=results, cv=cv, now=NOW) + message
    return message


@pytest.mark.parametrize("times", [1, 2, 3])
def test_our_chains_pass_in_dkimpy_and_mail_dkim(tmp_path: Path, times: int) -> None:
    message = sealed(signed(MESSAGE, RSA), times)
    result, details, why = dkimpy().ARC(message).verify(dnsfunc=dns)
    assert (result, len(details)) == (b"pass", times), why
    assert perl("arc", message, listed(tmp_path)).startswith("pass")
    head, body = canon.parted(message)
    found = at_once(verify_chain(canon.fields(head), body, TABLE, NOW))
    assert (found.cv, found.instances, found.oldest_pass) == ("pass", times, 1)


def test_what_dkimpy_seals_passes() -> None:
    dkim = dkimpy()
    message = b"Authentication-Results: mx.a.example; spf=pass smtp.mailfrom=a.example\r\n" + MESSAGE
    fields = dkim.arc_sign(
        message, b"rsa2048", b"a.example", pem("rsa2048"), b"mx.a.example", include_headers=[b"from"]
    )
    head, body = canon.parted(b"".join(fields) + message)
    assert at_once(verify_chain(canon.fields(head), body, TABLE, NOW)).cv == "pass"
