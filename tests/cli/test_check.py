"""`posthof check`: every error with its mend, or the configuration as a person reads it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kit.manifests import domain, manifest, mta, policy, secret
from posthof_pod.cli import check

REPOSITORY = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    args = parser.parse_args(["check", *arguments])
    status = args.run(args)
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_quickstart_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "-f", str(REPOSITORY / "examples" / "quickstart"))
    assert (status, err) == (0, "")
    for line in (
        "mail.quickstart.test (MTA quickstart), configuration ",
        "  smtp: 127.0.0.1:2525, role MX, STARTTLS with quickstart",
        "  quickstart: mail.quickstart.test; made here, valid 90d",
        f"  spool: {Path.cwd()}/var/spool, refuses mail above 90%",
        "  double bounces: postmaster@quickstart.test",
        f"  quickstart.test: Maildirs {Path.cwd()}/var/mail/{{domain}}/{{local}}",
        "      exists: alice, bob, postmaster",
        "  otherwise: mail for other domains is refused (550 5.7.1); our own reports and aliases go Direct",
        "  health, metrics and API at http://127.0.0.1:8025/",
    ):
        assert line in out


def test_every_setting_that_matters_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    house = mta("""
    hostname: mx.example.org
    listeners:
      - {name: a, role: MX, port: 25, address: '::', implementation: Aiosmtpd, bareNewlines: Normalise,
         proxyProtocol: {trustedCIDRs: [10.0.0.0/8]}, xclient: {trustedCIDRs: ['::1']},
         limits: {clientSessionRate: 9}, tls: {mode: Implicit, certRefs: [{name: c}]}}
    resolver: [192.0.2.53@5353]
    directPort: 2525
    workers: 3
    user: posthof
    """)
    (tmp_path / "a.yaml").write_text(
        "---\n".join(
            [
                house,
                manifest("TLSCert", "c", "dnsNames: [mx.example.org]\nissuer: {secretRef: {name: pair}}"),
                secret("pair", **{"tls.crt": "xyzzy", "tls.key": "xyzzy"}),
                secret("login", username="xyzzy", password="xyzzy"),
                domain("l", "mode: LMTP\nnextHops: [{host: a}]\nrecipients: {callout: {}}\ncatchAll: [x@far.test]"),
                domain("r", "mode: Reject\nrejectText: Closed", place="bücher.example"),
                domain("n", "mode: Relay\nnextHops: [{host: b}]\nrecipients: {any: true}\nseparator: '-'"),
                policy(
                    "no", "match: {headers: [{name: Subject, pattern: 'x*'}]}\naction: {type: Reject, text: Closed}"
                ),
                policy("re", "match: {recipients: [re.test]}\naction: {type: Redirect, addresses: [a@far.test]}"),
                policy(
                    "out",
                    "match: {clients: [10.0.0.0/8], senders: [a.test]}\n"
                    "action: {type: Smarthost, nextHops: [{host: s, port: 587}, {mx: m.test}], "
                    "auth: {secretName: login}}\n"
                    "tls: Verify\negress: {addresses: [127.0.0.1], helo: out.example.org}\nlimits: {connections: 2}\n"
                    "retry: {intervals: [1m]}",
                ),
            ]
        )
    )
    (tmp_path / "a.yaml").chmod(0o600)
    status, out, err = run(capsys, "-f", str(tmp_path))
    assert status == 0
    assert "xyzzy" not in out + err
    for line in (
        "a: [::]:25, role MX, TLS from the first byte with c",
        "at most 9 sessions a client and minute",
        "PROXY protocol from 10.0.0.0/8",
        "XCLIENT from ::1/128",
        "a CR or LF that stands alone becomes CRLF",
        "served by aiosmtpd",
        "c: mx.example.org; Secret pair",
        "l.test: LMTP to host a:24, TLS May",
        "exists: whom the next hop knows (yes is believed 1h, no 10m)",
        "all other names: x@far.test",
        "xn--bcher-kva.example (bücher.example): refused, but for postmaster (Closed)",
        "exists: everybody (backscatter!)",
        "sub-addresses: name-detail",
        "1. no (priority 0): Reject with 550 5.7.1 Closed",
        "for headers subject: x*",
        "2. out (priority 0): Smarthost to host s:587, then mx m.test:25, TLS Verify, with the login in Secret login",
        "for clients in 10.0.0.0/8 and senders a.test",
        "as out.example.org, from 127.0.0.1",
        "tries again after 1m (+-10%), gives up after 5d",
        "up to 2 connections a destination",
        "3. re (priority 0): Redirect to a@far.test",
        "DNS: 192.0.2.53@5353",
        "MX hosts are asked on port 2525",
        "3 workers",
        "as user posthof",
    ):
        assert line in out, line
    assert err.count("warning: ") == 1
    assert "backscatter" in err


def test_errors_are_told_all_at_once_with_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(mta(more="wrokers: 3") + "---\n" + policy("p", "action: {type: Direct}"))
    status, out, err = run(capsys, "-f", str(tmp_path))
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert lines[0] == f"error: {tmp_path}/a.yaml:9: MTA/edge spec.wrokers: unknown field"
    assert lines[1].startswith('    Did you mean "workers"? known here: ')
    assert lines[2] == (
        f"error: {tmp_path}/a.yaml:14 (document 2): RelayPolicy/p spec.match: "
        "this would be an open relay: it matches all mail"
    )
    assert lines[4] == "2 errors: this configuration cannot be used."


def test_quiet_says_only_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "-q", "-f", str(REPOSITORY / "examples" / "quickstart")) == (0, "", "")


def test_of_many_domains_the_first_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "---\n".join([mta(), *(domain(f"d{n}", "mode: Reject") for n in range(60))])
    (tmp_path / "a.yaml").write_text(text)
    assert "... and 11 more" in run(capsys, "-f", str(tmp_path))[1]
    assert "... and" not in run(capsys, "--all", "-f", str(tmp_path))[1]
