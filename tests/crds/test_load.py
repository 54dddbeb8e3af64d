"""Folders: which files are read, and that nothing but Invalid comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.manifests import domain, mta, policy, secret
from posthof_crds.load import load, parse
from posthof_crds.parts import MODELS
from posthof_crds.problems import Invalid, Problem

REPOSITORY = Path(__file__).parents[2]
MAILDIR = "mode: Maildir\nrecipients: {list: [bob]}"


def refusal(folder: Path) -> list[str]:
    with pytest.raises(Invalid) as invalid:
        load(folder)
    return [str(error) for error in invalid.value.errors]


def test_yaml_files_of_the_folder_are_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(mta())
    (tmp_path / "a.yml").write_text(domain("a", MAILDIR) + "---\n" + domain("b", MAILDIR))
    (tmp_path / ".hidden.yaml").write_text("{")
    (tmp_path / "notes.txt").write_text("{")
    (tmp_path / "c.yaml~").write_text("{")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yaml").write_text("{")
    (tmp_path / "e.yaml").mkdir()
    manifests = load(tmp_path)
    assert manifests.mta.metadata.name == "edge"
    assert [entry.name for entry in manifests.domains] == ["a", "b"]
    assert manifests.domains[1].document.number == 2


def test_an_empty_a_missing_and_a_headless_folder_say_what_is_wanted(tmp_path: Path) -> None:
    assert "no .yaml file in this folder" in refusal(tmp_path)[0]
    assert "the folder cannot be read" in refusal(tmp_path / "no")[0]
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert "there is no MTA in this folder" in refusal(tmp_path)[0]
    (tmp_path / "a.yaml").write_text(domain("a", MAILDIR))
    assert "there is no MTA in this folder" in refusal(tmp_path)[0]


def test_mistakes_name_the_file_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(mta())
    (tmp_path / "b.yaml").write_text("\n\n" + domain("a", "mode: Maildir"))
    (found,) = refusal(tmp_path)
    assert found.startswith(f"{tmp_path}/b.yaml:8: MailDomain/a spec.inbound: recipients is missing")


def test_errors_of_all_files_come_together_with_the_warnings(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text(mta() + "---\n" + policy("p", "action: {type: Direct}"))
    (tmp_path / "c.yaml").write_text(domain("a", "mode: Relay\nnextHops: [{host: b}]\nrecipients: {any: true}"))
    with pytest.raises(Invalid) as invalid:
        load(tmp_path)
    assert [error.file.rpartition("/")[2] for error in invalid.value.errors] == ["a.yaml", "b.yaml"]
    assert [warning.path for warning in invalid.value.warnings] == ["spec.inbound.recipients.any"]


def test_a_secret_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(mta())
    path = tmp_path / "s.yaml"
    path.write_text(secret("s", password="xyzzy"))
    path.chmod(0o644)
    assert [warning.what for warning in load(tmp_path).warnings] == ["everybody on this machine may read this Secret"]
    path.chmod(0o600)
    assert load(tmp_path).warnings == ()


@pytest.mark.parametrize(
    "example", sorted(path.name for path in (REPOSITORY / "examples").iterdir() if any(path.glob("*.yaml")))
)
def test_every_example_is_valid(example: str) -> None:
    manifests = load(REPOSITORY / "examples" / example)
    known = ("everybody on this machine may read this Secret", "namespaces never holds on one machine")
    assert [warning.what for warning in manifests.warnings if not warning.what.startswith(known)] == []


def errors(text: str) -> tuple[Problem, ...]:
    try:
        parse([("a.yaml", text.encode())])
    except Invalid as invalid:
        return invalid.errors
    return ()


SAMPLE = "---\n".join([mta(), domain("a", MAILDIR), policy("p", "action: {type: Reject}"), secret("s", a="b")])
VALUES = st.sampled_from(
    ["", "{}", "[]", "null", "-1", "1e9", "true", "'*'", "[[1]]", "{a: {b: c}}", "\u2603", "0.0.0.0/0"]
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 12), VALUES), min_size=1, max_size=4))
def test_a_damaged_folder_raises_nothing_but_invalid(cuts: list[tuple[int, int, str]]) -> None:
    text = SAMPLE
    for at, length, value in cuts:
        text = text[:at] + value + text[at + length :]
    assert all(error.what for error in errors(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "apiVersion",
                    "kind",
                    "metadata",
                    "name",
                    "spec",
                    "listeners",
                    "match",
                    "action",
                    "inbound",
                    "data",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*MODELS, "Secret", "ConfigMap"]), JSON)
def test_an_object_of_any_shape_raises_nothing_but_invalid(kind: str, spec: object) -> None:
    import yaml

    version = "v1" if kind in ("Secret", "ConfigMap") else "posthof.dev/v1alpha1"
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec, "data": spec}
    with pytest.raises(Invalid):
        parse([("a.yaml", yaml.safe_dump(document).encode())])
