"""A folder of YAML files -> Manifests, or every mistake in it at once.

Rules of this file
- Read are `*.yaml` and `*.yml` directly in the folder, by name; hidden files and sub-folders are not.
- A mistake never hides another: what can be read is checked, in itself and against the others.
- Nothing but `Invalid` is raised for what stands in the folder, whatever its bytes.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from posthof_crds import rules
from posthof_crds.accesspolicy import AccessPolicy
from posthof_crds.core import API_VERSION, ConfigMap, Secret
from posthof_crds.dkimkey import DKIMKey
from posthof_crds.documents import Document, read
from posthof_crds.maildomain import MailDomain
from posthof_crds.manifests import Entry, Manifests
from posthof_crds.mistakes import explain
from posthof_crds.mta import MTA
from posthof_crds.problems import Invalid, Problem, did_you_mean, sentence
from posthof_crds.relaypolicy import RelayPolicy
from posthof_crds.smtpcredential import SMTPCredential
from posthof_crds.tlscert import TLSCert

KINDS: dict[str, type[BaseModel]] = {
    "MTA": MTA,
    "MailDomain": MailDomain,
    "RelayPolicy": RelayPolicy,
    "AccessPolicy": AccessPolicy,
    "SMTPCredential": SMTPCredential,
    "DKIMKey": DKIMKey,
    "TLSCert": TLSCert,
    "Secret": Secret,
    "ConfigMap": ConfigMap,
}
_CORE = ("Secret", "ConfigMap")
_LATER = ("EgressPool", "DeliveryProfile", "QueueOperation")


def load(folder: Path) -> Manifests:
    """All objects of the folder. Raises Invalid with every error."""
    files, problems, open_files = _files(folder)
    return _parse(files, problems, open_files)


def parse(files: Iterable[tuple[str, bytes]]) -> Manifests:
    """The same for `(name, bytes)` pairs that come from elsewhere."""
    return _parse(files, [], set())


def _parse(files: Iterable[tuple[str, bytes]], problems: list[Problem], open_files: set[str]) -> Manifests:
    documents: list[Document] = []
    for name, data in files:
        found, wrong = read(name, data)
        documents += found
        problems += wrong
    entries, declared, wrong = _objects(documents)
    problems += wrong
    manifests = _gather(entries)
    problems += _one_mta(documents, problems)
    errors, warnings = rules.check(manifests, declared)
    problems += errors
    warnings += _readable_secrets(manifests, open_files)
    if problems:
        raise Invalid(sorted(problems, key=lambda p: (p.file, p.line)), warnings)
    return Manifests(**{**vars(manifests), "warnings": tuple(warnings)})


def _files(folder: Path) -> tuple[list[tuple[str, bytes]], list[Problem], set[str]]:
    """`(name, bytes)` of each file, what could not be read, and the names of files that everybody may read."""
    files: list[tuple[str, bytes]] = []
    problems: list[Problem] = []
    open_files: set[str] = set()
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        what = f"the folder cannot be read: {error.strerror}"
        raise Invalid([Problem(str(folder), 0, "", "", 0, what, "Name a folder with manifests, by -f.")]) from None
    for path in found:
        if path.suffix not in (".yaml", ".yml") or path.name.startswith("."):
            continue
        try:
            if not path.is_file():
                continue
            files.append((str(path), path.read_bytes()))
            if path.stat().st_mode & stat.S_IROTH:
                open_files.add(str(path))
        except OSError as error:
            what = f"the file cannot be read: {error.strerror}"
            problems.append(Problem(str(path), 0, "", "", 0, what, "Look at its owner and mode."))
    if not files and not problems:
        what = "there is no .yaml file in this folder"
        problems.append(Problem(str(folder), 0, "", "", 0, what, "Begin with a copy of examples/quickstart."))
    return files, problems, open_files


def _objects(documents: list[Document]) -> tuple[list[Entry[Any]], rules.Declared, list[Problem]]:
    """The valid objects, the kind and name of all, and the mistakes of the others."""
    entries: list[Entry[Any]] = []
    declared: rules.Declared = set()
    problems: list[Problem] = []
    lines: dict[tuple[str, str], str] = {}
    for document in documents:
        model, wrong = _model(document)
        problems += wrong
        if model is None:
            continue
        key = _key(document)
        if key in lines:
            what = f'the name "{key[1]}" is taken by another {key[0]}, in {lines[key]}'
            problems.append(document.problem(("metadata", "name"), what, "Give each object a name of its own."))
        elif key[1]:
            lines[key] = f"{document.file}:{document.line(('metadata', 'name'))}"
            declared.add(key)
        try:
            entries.append(Entry(model.model_validate(document.value), document))
        except ValidationError as error:
            problems += explain(error, model, document)
    return entries, declared, problems


def _key(document: Document) -> tuple[str, str]:
    metadata = document.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return str(document.value["kind"]), name if isinstance(name, str) else ""


def _model(document: Document) -> tuple[type[BaseModel] | None, list[Problem]]:
    """The model for a document's kind and apiVersion."""
    kind, version = document.value.get("kind"), document.value.get("apiVersion")
    if kind is None:
        return None, [document.problem((), "kind is missing", f"Write kind: one of {', '.join(KINDS)}.")]
    if not isinstance(kind, str) or kind not in KINDS:
        instead = sentence(did_you_mean(str(kind), list(KINDS)))
        if kind in _LATER:
            instead = f"Remove it: {kind} is not in this version. Known here: {', '.join(KINDS)}."
        elif kind == "List":
            instead = "Write each item as a document of its own, with --- between them."
        return None, [document.problem(("kind",), "this kind is not known", instead)]
    wanted = "v1" if kind in _CORE else API_VERSION
    if version != wanted:
        what = "apiVersion is missing" if version is None else "this apiVersion is not known"
        return None, [document.problem(("apiVersion",), what, f"Write apiVersion: {wanted}.")]
    return KINDS[kind], []


def _gather(entries: list[Entry[Any]]) -> Manifests:
    by_kind: dict[str, list[Entry[Any]]] = defaultdict(list)
    for entry in entries:
        by_kind[entry.object.kind].append(entry)
    return Manifests(
        mtas=tuple(by_kind["MTA"]),
        domains=tuple(by_kind["MailDomain"]),
        policies=tuple(by_kind["RelayPolicy"]),
        access=tuple(by_kind["AccessPolicy"]),
        credentials=tuple(by_kind["SMTPCredential"]),
        dkim_keys=tuple(by_kind["DKIMKey"]),
        certificates=tuple(by_kind["TLSCert"]),
        secrets={entry.name: entry for entry in by_kind["Secret"]},
        config_maps={entry.name: entry for entry in by_kind["ConfigMap"]},
    )


def _one_mta(documents: list[Document], problems: list[Problem]) -> list[Problem]:
    """One folder is one MTA."""
    written = [document for document in documents if document.value.get("kind") == "MTA"]
    if len(written) > 1:
        what = f"a second MTA, after {written[0].subject or 'one'} in {written[0].file}"
        return [document.problem((), what, "Keep one MTA in a folder.") for document in written[1:]]
    has_unreadable = any(not problem.subject for problem in problems)  # one of them may have been meant as an MTA
    if not written and not has_unreadable:
        place = documents[0].file.rpartition("/")[0] if documents else ""
        return [Problem(place, 0, "", "", 0, "there is no MTA in this folder", "Write an object of kind MTA.")]
    return []


def _readable_secrets(manifests: Manifests, open_files: set[str]) -> list[Problem]:
    what, instead = "everybody on this machine may read this Secret", "Run chmod o-r on the file."
    return [
        e.document.problem((), what, instead) for e in manifests.secrets.values() if e.document.file in open_files
    ]
