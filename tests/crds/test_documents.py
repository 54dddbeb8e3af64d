"""YAML to values and lines, and what is said where it is not YAML."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_crds.documents import dotted, read


def values(text: str) -> list[object]:
    documents, problems = read("f.yaml", text.encode())
    assert not problems
    return [document.value for document in documents]


def problem(text: str | bytes) -> tuple[int, int, str, str]:
    data = text.encode() if isinstance(text, str) else text
    _, problems = read("f.yaml", data)
    assert len(problems) == 1, problems
    return problems[0].document, problems[0].line, problems[0].what, problems[0].instead


def test_plain_scalars_follow_yaml_1_2_so_that_no_is_a_name() -> None:
    text = "a: [yes, no, off, 12:30, 010, 0x10, 1e3, 2001-01-01]\nb: [true, false, null, ~, 1, -2, 1.5, .5]\n"
    assert values(text) == [
        {
            "a": ["yes", "no", "off", "12:30", 10, "0x10", "1e3", "2001-01-01"],
            "b": [True, False, None, None, 1, -2, 1.5, 0.5],
        }
    ]


def test_quoted_and_block_scalars_are_texts() -> None:
    assert values("a: \"1\"\nb: '1'\nc: |\n  1\nd: !!str 1\n") == [{"a": "1", "b": "1", "c": "1\n", "d": "1"}]


def test_every_field_and_item_has_its_line() -> None:
    documents, _ = read("f.yaml", b"# head\na: 1\nb:\n  - x\n  - c: 2\n---\nd: {e: 3,\n f: 4}\n")
    assert documents[0].lines == {(): 2, ("a",): 2, ("b",): 3, ("b", 0): 4, ("b", 1): 5, ("b", 1, "c"): 5}
    assert documents[1].lines[("d", "f")] == 8
    assert documents[1].line(("d", "missing", "deeper")) == 7


def test_documents_without_content_are_skipped_and_not_counted() -> None:
    documents, problems = read("f.yaml", b"---\n# only a comment\n---\na: 1\n---\n\n---\nb: 2\n...\n")
    assert not problems
    assert [(d.number, d.value) for d in documents] == [(1, {"a": 1}), (2, {"b": 2})]


def test_a_byte_order_mark_and_crlf_are_fine() -> None:
    documents, problems = read("f.yaml", b"\xef\xbb\xbfa: 1\r\nb:\r\n  - 2\r\n---\r\nc: 3\r\n")
    assert not problems
    assert [d.value for d in documents] == [{"a": 1, "b": [2]}, {"c": 3}]
    assert documents[1].lines[("c",)] == 5


def test_an_error_in_one_document_leaves_the_others_readable() -> None:
    documents, problems = read("f.yaml", b"a: 1\n---\nb: [1\n---\nc: 3\n")
    assert [d.value for d in documents] == [{"a": 1}, {"c": 3}]
    assert [(p.document, p.line) for p in problems] == [(2, 3)]


@pytest.mark.parametrize(
    ("text", "line", "what", "instead"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, '"a" is written twice, first in line 1', "Keep one of them."),
        ("a:\n  x: 1\n  x: 2\n", 3, '"x" is written twice, first in line 2', "Keep one of them."),
        ("a:\n\t- b\n", 2, "this is not YAML", "there is a tab"),
        ("a: *b\n", 1, "anchors and aliases", "Write the value out."),
        ("a: *@example.org\n", 1, "this is not YAML", "A value that begins with * has to stand in quotation marks."),
        ("a: &b 1\n", 1, "anchors and aliases", "Write the value out."),
        ("a: &b [*b]\n", 1, "anchors and aliases", "Write the value out."),
        ("a: b: c\n", 1, "this is not YAML", "A value that holds a colon"),
        ("a: !!python/object:os.system 1\n", 1, "the tag", "Write the value without it."),
        ("? [a]\n: b\n", 1, "a key must be a text", "Quote it"),
        ("- a\n", 1, "the document is not an object", "apiVersion, kind"),
        ("just words\n", 1, "the document is not an object", "apiVersion, kind"),
        ("a: 'x\n", 1, "this is not YAML", "quotation mark"),
        ("a: 1\n b: 2\n", 2, "this is not YAML", ""),
        ("a: 1\n...\nb: 2\n", 3, "this is not YAML", ""),
        ("a: \x07\n", 1, "a control character", "Remove it"),
        ("[" * 100_000, 1, "more than 40 levels", ""),
        ("a: " + "{b: " * 5000, 1, "more than 40 levels", ""),
    ],
)
def test_what_is_not_readable_is_told_with_its_line_and_the_mend(
    text: str, line: int, what: str, instead: str
) -> None:
    _, found_line, found_what, found_instead = problem(text)
    assert (found_line, what in found_what, instead in found_instead) == (line, True, True), (
        found_what,
        found_instead,
    )


def test_a_file_that_is_not_utf_8_is_told_with_its_line() -> None:
    assert problem(b"a: 1\nb: \xff\n")[1:3] == (2, "this is not UTF-8")


def test_paths_are_written_as_people_write_them() -> None:
    assert dotted(("spec", "listeners", 0, "port")) == "spec.listeners[0].port"
    assert dotted(("data", "tls.crt")) == 'data["tls.crt"]'


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text("{}[]:,-?&*!|>'\"%@#\n\t ab0", max_size=200).map(str.encode)))
def test_whatever_the_bytes_documents_and_problems_come_back(data: bytes) -> None:
    documents, problems = read("f.yaml", data)
    assert all(isinstance(document.value, dict) for document in documents)
    assert all(each.what and each.file == "f.yaml" for each in problems)
