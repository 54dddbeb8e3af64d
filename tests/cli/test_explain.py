"""`posthof explain`: the rule, why not the others, the hosts, the TLS."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kit.manifests import domain, mta, policy
from posthof_pod.cli import explain

REPOSITORY = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    explain.add_parser(parser.add_subparsers())
    args = parser.parse_args(["explain", *arguments])
    status = args.run(args)
    return status, capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path) -> str:
    documents = [
        mta(),
        domain("ours", "mode: Maildir\nrecipients: {list: [bob]}\naliases: {team: [bob, x@far.test]}"),
        policy("a-hold", "priority: 5\nmatch: {senders: [slow.test], recipients: [far.test]}\naction: {type: Hold}"),
        policy("b-trap", "priority: 4\nmatch: {recipients: [trap.test]}\naction: {type: Discard}"),
        policy(
            "c-bulk", "priority: 3\nmatch: {clients: [10.0.0.0/8], headers: [{name: x-bulk}]}\naction: {type: Direct}"
        ),
        policy(
            "d-out",
            "match: {clients: [10.0.0.0/8], listenerRoles: [Internal]}\n"
            "action: {type: Smarthost, nextHops: [{host: 127.0.0.9, port: 587}, {host: 127.0.0.8}]}\n"
            "tls: Verify\negress: {helo: out.example.org}",
        ),
    ]
    (tmp_path / "a.yaml").write_text("---\n".join(documents))
    return str(tmp_path)


def test_a_relayed_mail_is_explained_to_the_hosts(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    status, out = run(
        capsys, "--from", "a@b.test", "--to", "x@far.test", "--client", "10.0.0.1", "--role", "Internal", "-f", folder
    )
    assert status == 0
    assert out.splitlines() == [
        "From <a@b.test> to <x@far.test>, client 10.0.0.1, listener role Internal",
        "",
        "far.test is not ours.",
        "Rules, in the order they are asked:",
        "     a-hold (priority 5, Hold): the sender a@b.test is none of slow.test",
        "     b-trap (priority 4, Discard): the recipient is none of trap.test",
        "     c-bulk (priority 3, Direct): undecided until the headers are there: it wants x-bulk: *",
        "  -> d-out (priority 0, Smarthost): it matches",
        "Decided by RelayPolicy d-out: Smarthost to host 127.0.0.9:587, then host 127.0.0.8:25, TLS Verify",
        "A rule with headers may change this after DATA; give them with --header.",
        "",
        "x@far.test",
        "    as RelayPolicy d-out says",
        "    by SMTP to 127.0.0.9, then 127.0.0.8",
        "    TLS Verify: demanded, with a certificate valid for the host's name",
        "    as out.example.org, from the address the kernel chooses",
        "    hosts, in the order of the tries:",
        "      1. 127.0.0.9[127.0.0.9]:587",
        "      2. 127.0.0.8[127.0.0.8]:25",
    ]


def test_headers_settle_what_was_undecided(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    given = ["--to", "x@far.test", "--client", "10.0.0.1", "--no-dns", "-f", folder, "--header", "X-Bulk: yes"]
    status, out = run(capsys, *given)
    assert status == 0
    assert "Decided by RelayPolicy c-bulk: Direct to the domain's MX, TLS Best" in out
    assert "to the MX hosts of far.test" in out
    assert "may change" not in out


def test_a_refused_mail_has_status_1_and_its_reply(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    status, out = run(capsys, "--to", "<x@far.test>", "-f", folder)
    assert status == 1
    assert "d-out (priority 0, Smarthost): the listener's role is MX, not Internal" in out
    assert "Decided by the built-in rule: no RelayPolicy lets this mail out" in out
    assert out.endswith(
        "At RCPT TO it is refused: 550 5.7.1 Relaying denied: this server takes no mail for that domain from you\n"
    )


def test_aliases_maildirs_holds_and_discards(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    status, out = run(capsys, "--to", "team+x@ours.test", "--no-dns", "-f", folder)
    assert status == 0
    assert "ours.test is ours: MailDomain ours." in out
    assert "Decided by MailDomain ours: Maildir" in out
    assert "bob+x@ours.test (by team+x@ours.test)\n    into the Maildir /var/mail/posthof/ours.test/bob\n" in out
    assert "x@far.test (by team+x@ours.test)\n    as RelayPolicy d-out says" in out
    out = run(capsys, "--from", "a@slow.test", "--to", "x@far.test", "--no-dns", "-f", folder)[1]
    assert "kept in the queue until it is released; then:\n    to the MX hosts of far.test" in out
    assert "accepted and forgotten" in run(capsys, "--to", "x@trap.test", "-f", folder)[1]
    assert "only postmaster is known that way" in run(capsys, "--to", "postmaster", "-f", folder)[1]


def test_a_callout_is_named_and_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(REPOSITORY / "examples" / "inbound-gateway")
    status, out = run(capsys, "--to", "eve@example.org", "--no-dns", "-f", folder)
    assert status == 0
    assert (
        "eve@example.org\n    if the next hop says that it exists (callout)\n    by LMTP to dovecot.internal" in out
    )


def test_what_cannot_be_resolved_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rule = policy("p", "match: {recipients: [far.test]}\naction: {type: Direct}")
    (tmp_path / "a.yaml").write_text(mta(more="resolver: [127.0.0.1@1]") + "---\n" + rule)
    status, out = run(capsys, "--to", "x@far.test", "-f", str(tmp_path))
    assert status == 0
    assert "    no hosts: " in out
    assert "(451 4.4.3 " in out


def test_bad_manifests_are_told_as_check_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: MTA")
    assert run(capsys, "--to", "x@y.test", "-f", str(tmp_path)) == (1, "")


def test_the_quickstart_delivers_to_alice(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "--to", "info@quickstart.test", "-f", str(REPOSITORY / "examples" / "quickstart"))
    assert status == 0
    assert out.endswith(f"    into the Maildir {Path.cwd()}/var/mail/quickstart.test/alice\n")
