"""Our Authentication-Results, read by authres, which dkimpy brings."""

from __future__ import annotations

import pytest

from posthof_pod.mailauth.results import Result, field

authres = pytest.importorskip("authres")
CONTEXT = authres.FeatureContext()

RESULTS = [
    Result("spf", "fail", (("smtp.mailfrom", "ada@a.example"),), "a.example: -all"),
    Result("dkim", "pass", (("header.d", "a.example"), ("header.s", "sel"), ("header.b", "a/b+c=")), "", "2048 bits"),
    Result("dkim", "permerror", (), 'a "quoted"; reason=x'),
    Result("dmarc", "pass", (("header.from", "a.example"), ("polrec.p", "reject"), ("polrec.domain", "a.example"))),
    Result("arc", "fail", (("header.oldest-pass", "2"),), "the seal of instance 1: " + "very long " * 30),
]


def test_a_foreign_parser_reads_every_result() -> None:
    made = field("mx.house.test", RESULTS).decode()
    parsed = CONTEXT.parse(made)
    assert parsed.authserv_id == "mx.house.test"
    assert [(one.method, one.result) for one in parsed.results] == [(one.method, one.result) for one in RESULTS]
    spf, dkim, _, dmarc, arc = parsed.results
    assert spf.reason == "a.example: -all"
    assert [(one.type, one.name, one.value) for one in spf.properties] == [("smtp", "mailfrom", "ada@a.example")]
    assert [one.value for one in dkim.properties] == ["a.example", "sel", "a/b+c="]
    known = [f"{one.type}.{one.name}={one.value}" for one in dmarc.properties]
    assert known[0] == "header.from=a.example"  # polrec is younger than that parser, which passes over it
    assert arc.reason.startswith("the seal of instance 1: very long")


def test_a_foreign_parser_reads_that_nothing_was_asked() -> None:
    assert CONTEXT.parse(field("mx.house.test", []).decode()).results == []
