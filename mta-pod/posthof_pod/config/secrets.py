"""The values behind SecretRefs, for the workers: passwords of smarthosts, keys of certificates.

Owns: which secrets a config needs, how they are keyed on the channel to the workers, and the store a worker asks.

Rules
- EngineConfig only names secrets. Values come beside it over the channel and live in this store alone; they stand in
  no repr, no error and no log.
- A store is never changed: a new configuration brings a new one, and both are swapped together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from posthof_crds.engine import EngineConfig, SecretRef


class Secrets:
    """`values`: by `key(ref)`."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, bytes] | None = None) -> None:
        self._values = dict(values or {})

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secrets) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # compared by value, and nobody's dictionary key

    def found(self, name: str) -> bytes:
        """What the supervisor made for the workers under this name; b"" where there is none."""
        return self._values.get(name, b"")

    def bytes(self, ref: SecretRef) -> bytes:
        """The value as it is. LookupError names the secret, never a value."""
        found = self._values.get(key(ref))
        if found is None:
            raise LookupError(f"secret {key(ref)} is not known to this worker")
        return found

    def text(self, ref: SecretRef) -> str:
        """A user name or password: UTF-8, without the line end that editors leave behind."""
        try:
            return self.bytes(ref).decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise LookupError(f"secret {key(ref)} is not UTF-8") from None


def key(ref: SecretRef) -> str:
    """`name/key`: neither holds a slash."""
    return f"{ref.name}/{ref.key}"


def lines(secrets: Secrets, ref: SecretRef) -> tuple[bytes, ...]:
    """Several values in one, one a line: the first is used, all are believed. LookupError: none at all."""
    found = tuple(filter(None, (line.strip() for line in secrets.bytes(ref).splitlines())))
    if not found:
        raise LookupError(f"secret {key(ref)} is empty")
    return found


def refs(part: object) -> Iterator[SecretRef]:
    """Every SecretRef in a config or a part of one."""
    if isinstance(part, SecretRef):
        yield part
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from refs(getattr(part, name))
    elif isinstance(part, tuple | list):
        for each in part:
            yield from refs(each)
    elif isinstance(part, dict):
        for each in part.values():
            yield from refs(each)


def of_config(config: EngineConfig) -> Iterator[SecretRef]:
    """As `refs`, and quicker: of ten thousand domains only how their mail leaves is looked at, where secrets are."""
    for name in config.__struct_fields__:
        if name != "domains":
            yield from refs(getattr(config, name))
    for domain in config.domains.values():
        if domain.outbound is not None:
            yield from refs(domain.outbound)


def gather(part: object, find: Callable[[SecretRef], bytes]) -> dict[str, bytes]:
    """The values a config needs, by key. `find` (Manifests.secret) raises LookupError."""
    return {key(ref): find(ref) for ref in dict.fromkeys(refs(part))}
