"""Whether new definitions take everything that old ones took, and mean the same by it.

    python -m posthof_crds.compatible OLD_DIR NEW_DIR    two folders of crds/*.yaml
    python -m posthof_crds.compatible NEW_DIR            against the last commit, and the newest tag there is

Exit 1, and a line for each change that breaks somebody: a field, word, version, name or subresource that is gone,
another type, a narrower bound, another pattern, a new required field, a new rule, a default that is not what it was.
A new field, word or wider bound breaks nobody; nor does another text, message, column or order.

Rules of this file
- In doubt it breaks: two patterns or rules cannot be compared, so one that changed is a new one.
- `compare` is pure; only `main` reads folders and asks git.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Definition = dict[str, Any]
Schema = dict[str, Any]

_AT_MOST = ("maximum", "maxLength", "maxItems", "maxProperties")
_AT_LEAST = ("minimum", "minLength", "minItems", "minProperties")
_SAME = ("type", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string")


class Break(NamedTuple):
    """`where`: "MTA spec.listeners[].port"."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def compare(old: dict[str, Definition], new: dict[str, Definition]) -> list[Break]:
    """What breaks; definitions by kind."""
    found: list[Break] = []
    for kind, before in old.items():
        if kind not in new:
            found.append(Break(kind, "the kind is gone"))
        else:
            found += _kind(kind, before["spec"], new[kind]["spec"])
    return found


def _kind(kind: str, old: Definition, new: Definition) -> Iterator[Break]:
    for key in ("group", "scope"):
        if old[key] != new[key]:
            yield Break(kind, f"{key} was {old[key]} and is {new[key]}")
    for key in ("plural", "singular", "kind"):
        if old["names"].get(key) != new["names"].get(key):
            yield Break(kind, f"names.{key} was {old['names'].get(key)} and is {new['names'].get(key)}")
    for key in ("shortNames", "categories"):
        for gone in sorted({*old["names"].get(key, ())} - {*new["names"].get(key, ())}):
            yield Break(kind, f"{gone} is gone from names.{key}")
    versions = {each["name"]: each for each in new["versions"] if each["served"]}
    for before in old["versions"]:
        after = versions.get(before["name"])
        if before["served"] and after is None:
            yield Break(kind, f"version {before['name']} is not served any more")
        elif before["served"] and after is not None:
            yield from _version(kind, before, after)


def _version(kind: str, old: Definition, new: Definition) -> Iterator[Break]:
    for name, before in old.get("subresources", {}).items():
        if name not in new.get("subresources", {}):
            yield Break(kind, f"the subresource {name} is gone")
        elif before != new["subresources"][name]:
            yield Break(kind, f"the subresource {name} reads other fields")
    fields = {each["jsonPath"] for each in new.get("selectableFields", ())}
    for gone in sorted({each["jsonPath"] for each in old.get("selectableFields", ())} - fields):
        yield Break(kind, f"{gone} cannot be selected by any more")
    yield from _schema(kind, "", old["schema"]["openAPIV3Schema"], new["schema"]["openAPIV3Schema"])


def _schema(kind: str, path: str, old: Schema, new: Schema) -> Iterator[Break]:
    where = f"{kind} {path}".strip()
    for what in (*_types(old, new), *_bounds(old, new), *_meaning(old, new)):
        yield Break(where, what)
    known = new.get("properties", {})
    for name, before in old.get("properties", {}).items():
        inside = f"{path}.{name}".lstrip(".")
        if name not in known:
            yield Break(f"{kind} {inside}", "the field is gone")
        else:
            yield from _schema(kind, inside, before, known[name])
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from _schema(kind, f"{path}[]", old[key], new[key])
    for name in sorted({*new.get("required", ())} - {*old.get("required", ())}):
        yield Break(f"{kind} {f'{path}.{name}'.lstrip('.')}", "the field is required now")


def _types(old: Schema, new: Schema) -> Iterator[str]:
    for key in _SAME:
        was, now = old.get(key), new.get(key)
        is_wider = key == "type" and was in ("string", "integer") and new.get("x-kubernetes-int-or-string")
        if was != now and not is_wider and not (key == "x-kubernetes-int-or-string" and now):
            yield f"{key} was {_word(was)} and is {_word(now)}"
    if "format" in new and new["format"] != old.get("format"):
        yield f"format was {_word(old.get('format'))} and is {new['format']}"
    if old.get("nullable") and not new.get("nullable"):
        yield "null is not taken any more"
    if "enum" in new:
        if "enum" not in old:
            yield f"only {', '.join(map(str, new['enum']))} are taken now"
        for gone in (word for word in old.get("enum", ()) if word not in new["enum"]):
            yield f"{gone} is not taken any more"


def _bounds(old: Schema, new: Schema) -> Iterator[str]:
    for key in _AT_MOST:
        if key in new and (key not in old or new[key] < old[key]):
            yield f"{key} was {_word(old.get(key))} and is {new[key]}"
    for key in _AT_LEAST:
        if key in new and new[key] > old.get(key, float("-inf") if key == "minimum" else 0):
            yield f"{key} was {_word(old.get(key))} and is {new[key]}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"the pattern was {_word(old.get('pattern'))} and is {new['pattern']}"
    known = {each["rule"] for each in old.get("x-kubernetes-validations", ())}
    for each in new.get("x-kubernetes-validations", ()):
        if each["rule"] not in known:
            yield f"a rule is new: {each.get('message') or each['rule']}"


def _meaning(old: Schema, new: Schema) -> Iterator[str]:
    if old.get("default") != new.get("default"):
        yield f"the default was {_word(old.get('default'))} and is {_word(new.get('default'))}"


def _word(value: object) -> str:
    return "not there" if value is None else str(value)


# -- the edge --------------------------------------------------------------------------------------------------------


def read(folder: Path) -> dict[str, Definition]:
    """The definitions in a folder's *.yaml, by kind."""
    return _by_kind(path.read_text() for path in sorted(folder.glob("*.yaml")))


def _by_kind(texts: Iterator[str]) -> dict[str, Definition]:
    found = (document for text in texts for document in yaml.safe_load_all(text) if document)
    return {each["spec"]["names"]["kind"]: each for each in found if each.get("kind") == "CustomResourceDefinition"}


def committed(folder: Path, revision: str) -> dict[str, Definition]:
    """The same of a revision in git; nothing where it has no such folder."""
    listed = _git(folder, "ls-tree", "--name-only", revision, "./").splitlines()
    return _by_kind(_git(folder, "show", f"{revision}:./{name}") for name in listed if name.endswith(".yaml"))


def _git(folder: Path, *words: str) -> str:
    """What git says; "" where it has nothing to say: no repository, no such revision."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _before(folder: Path) -> dict[str, dict[str, Definition]]:
    """What others may have: the last commit's definitions, and those of the newest tag."""
    tag = _git(folder, "describe", "--tags", "--abbrev=0").strip()
    revisions = ["HEAD", *([tag] if tag else [])]
    return {revision: committed(folder, revision) for revision in revisions}


def main() -> int:
    arguments = [Path(word) for word in sys.argv[1:]]
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    new = read(arguments[-1])
    old = {str(arguments[0]): read(arguments[0])} if len(arguments) == 2 else _before(arguments[0])
    broken = 0
    for name, definitions in old.items():
        for each in compare(definitions, new):
            broken += 1
            print(f"{each} (since {name})", file=sys.stderr)
    if broken:
        print("Objects that are valid today would be refused, or mean something else.", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
