"""Manifests as short texts: what stands between `---` lines, without what all of them share."""

from __future__ import annotations

import textwrap
from pathlib import Path

from posthof_crds.compile import compile as compile_manifests
from posthof_crds.engine import EngineConfig
from posthof_crds.load import parse
from posthof_crds.manifests import Manifests
from posthof_crds.problems import Invalid, Problem

BASE = Path("/srv")

MTA = """
hostname: mx.example.org
listeners:
  - {name: smtp, role: MX, address: 127.0.0.1, port: 2525}
  - {name: inside, role: Internal, address: 127.0.0.1, port: 2526}
"""


def manifest(kind: str, name: str, spec: str) -> str:
    """One document. `spec` is YAML without indentation."""
    body = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return f"apiVersion: posthof.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{body}\n"


def mta(spec: str = MTA, more: str = "") -> str:
    return manifest("MTA", "edge", textwrap.dedent(spec).strip() + "\n" + textwrap.dedent(more).strip())


def domain(name: str, inbound: str, place: str | None = None) -> str:
    """A MailDomain; `place` is its domain, by default `<name>.test`."""
    body = textwrap.indent(textwrap.dedent(inbound).strip(), "  ")
    return manifest("MailDomain", name, f"domain: {place or name + '.test'}\ninbound:\n{body}")


def policy(name: str, spec: str) -> str:
    return manifest("RelayPolicy", name, spec)


def secret(name: str, **values: str) -> str:
    rows = "".join(f"  {key}: {value}\n" for key, value in values.items())
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n{rows}"


def loaded(*documents: str) -> Manifests:
    return parse([("all.yaml", "---\n".join(documents).encode())])


def compiled(*documents: str) -> EngineConfig:
    """The configuration of these documents; an MTA is added where none is there."""
    has_mta = any("kind: MTA\n" in document for document in documents)
    return compile_manifests(loaded(*documents, *(() if has_mta else (mta(),))), BASE)


def mistakes(*documents: str) -> list[Problem]:
    """The errors of these documents; an MTA is added where none is there."""
    has_mta = any("kind: MTA" in document for document in documents)
    try:
        loaded(*documents, *(() if has_mta else (mta(),)))
    except Invalid as invalid:
        return list(invalid.errors)
    return []


def mistake(*documents: str) -> str:
    """The only error, as `path: what | instead`."""
    found = mistakes(*documents)
    assert len(found) == 1, "\n".join(map(str, found)) or "no error"
    return f"{found[0].path}: {found[0].what} | {found[0].instead}"


def warnings(*documents: str) -> list[str]:
    has_mta = any("kind: MTA\n" in document for document in documents)
    found = loaded(*documents, *(() if has_mta else (mta(),))).warnings
    return [f"{problem.path}: {problem.what}" for problem in found]
