"""A change of the definitions that breaks somebody is found, and one that breaks nobody is not."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from posthof_crds import render
from posthof_crds.compatible import committed, compare, read
from posthof_crds.openapi import definitions

ROOT = Path(__file__).parents[2]
Schema = dict[str, Any]
Change = Callable[[dict[str, Schema]], object]


def version(found: dict[str, Schema], kind: str) -> Schema:
    served: Schema = found[kind]["spec"]["versions"][0]
    return served


def at(found: dict[str, Schema], path: str) -> Schema:
    """The schema of `MTA.spec.listeners[].port`."""
    kind, *names = path.replace("[]", ".[]").split(".")
    schema: Schema = version(found, kind)["schema"]["openAPIV3Schema"]
    for name in names:
        schema = schema["items"] if name == "[]" else schema["properties"][name]
    return schema


def broken_by(change: Change) -> list[str]:
    old, new = definitions(), copy.deepcopy(definitions())
    change(new)
    return [str(each) for each in compare(old, new)]


BREAKING: list[tuple[str, Change]] = [
    ("MTA: the kind is gone", lambda new: new.pop("MTA")),
    ("MTA: version v1alpha1 is not served any more", lambda new: version(new, "MTA").update(served=False)),
    ("MTA: scope was Namespaced and is Cluster", lambda new: new["MTA"]["spec"].update(scope="Cluster")),
    (
        "MailDomain: md is gone from names.shortNames",
        lambda new: new["MailDomain"]["spec"]["names"].pop("shortNames"),
    ),
    ("MTA: the subresource scale is gone", lambda new: version(new, "MTA")["subresources"].pop("scale")),
    (
        "MailDomain: .spec.domain cannot be selected by any more",
        lambda new: version(new, "MailDomain")["selectableFields"].pop(0),
    ),
    ("MTA spec.workers: the field is gone", lambda new: at(new, "MTA.spec")["properties"].pop("workers")),
    (
        "RelayPolicy spec.action.nextHops[].host: the field is gone",
        lambda new: at(new, "RelayPolicy.spec.action.nextHops[]")["properties"].pop("host"),
    ),
    ("MTA status.phase: the field is gone", lambda new: at(new, "MTA.status")["properties"].pop("phase")),
    (
        "MTA spec.workers: type was integer and is string",
        lambda new: at(new, "MTA.spec.workers").update(type="string"),
    ),
    (
        "MTA spec.spool.size: x-kubernetes-int-or-string was True and is not there",
        lambda new: at(new, "MTA.spec.spool.size").pop("x-kubernetes-int-or-string"),
    ),
    (
        "MTA spec.listeners[].role: Internal is not taken any more",
        lambda new: at(new, "MTA.spec.listeners[].role")["enum"].remove("Internal"),
    ),
    (
        "MTA spec.hostname: only a.example are taken now",
        lambda new: at(new, "MTA.spec.hostname").update(enum=["a.example"]),
    ),
    (
        "MTA spec.replicas: maximum was 100 and is 10",
        lambda new: at(new, "MTA.spec.replicas").update(maximum=10),
    ),
    ("MTA spec.replicas: minimum was 0 and is 2", lambda new: at(new, "MTA.spec.replicas").update(minimum=2)),
    (
        "MTA spec.listeners: maxItems was 64 and is 8",
        lambda new: at(new, "MTA.spec.listeners").update(maxItems=8),
    ),
    (
        "MTA spec.resolver: minItems was not there and is 1",
        lambda new: at(new, "MTA.spec.resolver").update(minItems=1),
    ),
    (
        "MailDomain spec.domain: maxLength was 253 and is 63",
        lambda new: at(new, "MailDomain.spec.domain").update(maxLength=63),
    ),
    (
        "RelayPolicy spec.action.status: the pattern was ^[45]\\.[0-9]{1,3}\\.[0-9]{1,3}$ and is ^5",
        lambda new: at(new, "RelayPolicy.spec.action.status").update(pattern="^5"),
    ),
    (
        "TLSCert spec.duration: the field is required now",
        lambda new: at(new, "TLSCert.spec")["required"].append("duration"),
    ),
    (
        "RelayPolicy spec.tls: the default was Best and is Verify",
        lambda new: at(new, "RelayPolicy.spec.tls").update(default="Verify"),
    ),
    (
        "MTA spec.workers: the default was not there and is 4",
        lambda new: at(new, "MTA.spec.workers").update(default=4),
    ),
    (
        "MTA spec.replicas: the default was 1 and is not there",
        lambda new: at(new, "MTA.spec.replicas").pop("default"),
    ),
    (
        "MTA spec.drain: a rule is new: be quick.",
        lambda new: at(new, "MTA.spec.drain").update(
            {"x-kubernetes-validations": [{"rule": "self.settle == '1s'", "message": "be quick."}]}
        ),
    ),
    (
        "MTA spec.listeners: x-kubernetes-list-type was map and is atomic",
        lambda new: at(new, "MTA.spec.listeners").update({"x-kubernetes-list-type": "atomic"}),
    ),
]


@pytest.mark.parametrize(("told", "change"), BREAKING, ids=[told for told, _ in BREAKING])
def test_what_breaks_somebody_is_told(told: str, change: Change) -> None:
    assert broken_by(change) == [told]


HARMLESS: list[tuple[str, Change]] = [
    ("a new kind", lambda new: new.update(Other=new["MTA"])),
    ("a new field", lambda new: at(new, "MTA.spec")["properties"].update(more={"type": "string", "maxLength": 9})),
    (
        "a new field that has a required one",
        lambda new: at(new, "MTA.spec")["properties"].update(more={"type": "object", "required": ["x"]}),
    ),
    ("a new word", lambda new: at(new, "MTA.spec.logLevel")["enum"].append("trace")),
    ("any word", lambda new: at(new, "MTA.spec.logLevel").pop("enum")),
    ("a wider bound", lambda new: at(new, "MTA.spec.replicas").update(maximum=1000, minimum=0)),
    ("no bound", lambda new: at(new, "MTA.spec.replicas").pop("maximum")),
    ("no pattern", lambda new: at(new, "MailDomain.spec.domain").pop("pattern")),
    ("a rule less", lambda new: at(new, "MTA.spec").pop("x-kubernetes-validations")),
    (
        "another message",
        lambda new: at(new, "MTA.spec")["x-kubernetes-validations"][0].update(message="Think again."),
    ),
    ("another text", lambda new: at(new, "MTA.spec.workers").update(description="Hands.")),
    ("not required any more", lambda new: at(new, "TLSCert.spec")["required"].remove("issuer")),
    ("other columns", lambda new: version(new, "MTA")["additionalPrinterColumns"].pop()),
    (
        "a number or a text",
        lambda new: (
            at(new, "MTA.spec.workers").update({"x-kubernetes-int-or-string": True}),
            at(new, "MTA.spec.workers").pop("type"),
            at(new, "MTA.spec.workers").pop("format"),
        ),
    ),
]


@pytest.mark.parametrize(("what", "change"), HARMLESS, ids=[what for what, _ in HARMLESS])
def test_what_breaks_nobody_is_not(what: str, change: Change) -> None:
    assert broken_by(change) == [], what


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "posthof_crds.compatible", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def folder_of(path: Path, found: dict[str, Schema]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for kind, each in found.items():
        (path / f"{kind}.yaml").write_text(yaml.safe_dump(each))
    return path


def test_the_command_compares_two_folders(tmp_path: Path) -> None:
    old = folder_of(tmp_path / "old", definitions())
    changed = definitions()
    at(changed, "MTA.spec.replicas").update(maximum=10)
    new = folder_of(tmp_path / "new", changed)
    done = run(old, new)
    assert done.returncode == 1
    assert f"MTA spec.replicas: maximum was 100 and is 10 (since {old})" in done.stderr
    assert run(new, old).returncode == 0
    assert run().returncode == 2


def test_the_command_compares_with_the_last_commit_and_the_newest_tag(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    folder = folder_of(tmp_path / "crds", definitions())
    git("init", "-q")
    git("add", "crds")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    assert run(folder).returncode == 0
    changed = definitions()
    at(changed, "MTA.spec.replicas").update(maximum=10)
    folder_of(folder, changed)
    assert "(since HEAD)" in run(folder).stderr
    git("commit", "-q", "-a", "-m", "two")
    done = run(folder)
    assert done.returncode == 1
    assert "(since v1)" in done.stderr
    assert "(since HEAD)" not in done.stderr


def test_without_a_repository_there_is_nothing_to_break(tmp_path: Path) -> None:
    folder_of(tmp_path, definitions())
    assert committed(tmp_path, "HEAD") == {}
    assert run(tmp_path).returncode == 0


def test_the_committed_folder_is_read() -> None:
    rendered = [yaml.safe_load(text) for text in render.files().values()]
    assert read(ROOT / "crds") == {each["spec"]["names"]["kind"]: each for each in rendered}
