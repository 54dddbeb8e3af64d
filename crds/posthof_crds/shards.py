"""How a configuration travels from the operator to the pods: bytes for ConfigMaps and Secrets, and back. Pure.

Rules of this file
- No pydantic, no I/O, no clock. Equal input gives equal bytes, on every machine and in every process.
- A ConfigMap or Secret holds 1 MiB: a shard stays below MAX_BYTES, and a config has at most MAX_CONFIG_SHARDS.
- A shard says which revision it belongs to (engine.content_hash of the config), its place and how many there are.
  Shards of two revisions are never mixed: while only some of them have changed, there is no config (Incomplete).
  Shards left over from a revision that needed more of them do not matter.
- Keys go to a shard by the hash of their Secret, so a changed Secret changes one shard: a certificate and its key
  come together.
- What is written may bear a stamp in front (`stamped`): the moment its content was new. A pod that sees an object
  twice, from the API server and as a mounted file that is a minute behind, never goes back to the older state.
  Everything here reads with and without a stamp, and the content below it is what equal bytes are promised of.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from posthof_crds.engine import EngineConfig, content_hash

FORMAT = 1
MAX_BYTES = 768 * 1024
MAX_CONFIG_SHARDS = 8
KEY_SHARDS = 4
ACCOUNTS_KEY = "/accounts"  # among the keys: what salts the accounts' verifiers, of the MTA
_CHUNK = MAX_BYTES - 256  # room for the head
_MAX_PLAIN = 512 * 1024 * 1024  # what a config may be when unpacked

_STAMP = b"\xc1PH1"  # no msgpack and no zlib begins so
_STAMPED = len(_STAMP) + 8

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Incomplete(Exception):
    """No revision has all of its shards (yet): wait for the others, and keep what is in force."""


class Unreadable(Exception):
    """A shard is damaged, or of a format this version does not know."""


class TooLarge(Exception):
    """It does not fit; says how large it is and how large it may be."""


class _Shard(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    revision: str
    index: int
    count: int
    chunk: bytes


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    keys: dict[str, bytes]


class _Pods(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    pods: dict[str, tuple[str, ...]]


def config_shards(config: EngineConfig, revision: str = "") -> list[bytes]:
    """One to MAX_CONFIG_SHARDS shards. `revision`: content_hash(config), if it is known already. Raises TooLarge."""
    revision = revision or content_hash(config)
    packed = zlib.compress(_encode(config), 6)
    chunks = [packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK)]
    if len(chunks) > MAX_CONFIG_SHARDS:
        most = MAX_CONFIG_SHARDS * _CHUNK
        raise TooLarge(
            f"the configuration is {len(packed)} bytes compressed, and {most} is the most pods can be sent"
        )
    return [
        _encode(_Shard(format=FORMAT, revision=revision, index=n, count=len(chunks), chunk=chunk))
        for n, chunk in enumerate(chunks)
    ]


def read_config(shards: Mapping[int, bytes]) -> EngineConfig:
    """The config of the one revision that is complete. `shards`: by place; missing ones are left out."""
    packed = b"".join(shard.chunk for shard in _complete(shards))
    config: EngineConfig = _decoded(_unpacked(packed), EngineConfig)
    return config


def revision_of(shards: Mapping[int, bytes]) -> str:
    """The revision `read_config` would give, without unpacking it."""
    return _complete(shards)[0].revision


def _complete(shards: Mapping[int, bytes]) -> list[_Shard]:
    by_revision: dict[str, dict[int, _Shard]] = {}
    for index, data in shards.items():
        shard = _decoded(content_of(data), _Shard)
        if shard.format != FORMAT:
            raise Unreadable(f"shard {index} has format {shard.format}, and this version reads {FORMAT}")
        if shard.index == index and 0 <= index < shard.count <= MAX_CONFIG_SHARDS:
            by_revision.setdefault(shard.revision, {})[index] = shard
    for found in by_revision.values():
        if (
            len(found) == next(iter(found.values())).count
        ):  # place 0 is in it, so no other revision has all of its own
            return [found[n] for n in range(len(found))]
    revisions = ", ".join(sorted(by_revision)) or "none"
    raise Incomplete(f"no revision has all of its shards; seen: {revisions}")


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, _MAX_PLAIN)
    except zlib.error as error:
        raise Unreadable(f"a shard cannot be unpacked: {error}") from None
    if not unpacker.eof:
        raise Unreadable("a shard is cut off, or larger than any configuration")
    return plain


def _decoded(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"a shard cannot be read: {error}") from None


# -- stamps ----------------------------------------------------------------------------------------------------------


def stamped(content: bytes, now: float, previous: bytes | None = None) -> bytes:
    """`content` with the moment (unix seconds) it is written at. `previous`: what stands there now; it is given back
    where its content is the same, and a stamp is always later than it."""
    last = 0
    if previous is not None:
        if content_of(previous) == content:
            return previous
        last = stamp_of(previous)
    return _STAMP + max(int(now * 1000), last + 1).to_bytes(8) + content


def stamp_of(data: bytes) -> int:
    """Milliseconds since 1970; 0: it bears no stamp."""
    return int.from_bytes(data[len(_STAMP) : _STAMPED]) if data.startswith(_STAMP) else 0


def content_of(data: bytes) -> bytes:
    """Without its stamp."""
    return data[_STAMPED:] if data.startswith(_STAMP) else data


# -- keys ------------------------------------------------------------------------------------------------------------


def key_shards(keys: Mapping[str, bytes], count: int = KEY_SHARDS) -> list[bytes]:
    """`count` shards, also empty ones. `keys`: "namespace/secret/key" -> value. Raises TooLarge."""
    parts: list[dict[str, bytes]] = [{} for _ in range(count)]
    for name, value in keys.items():
        parts[_place(name.rpartition("/")[0], count)][name] = value
    shards = [_encode(_Keys(format=FORMAT, keys=part)) for part in parts]
    for n, shard in enumerate(shards):
        _fits(shard, f"the key material of shard {n}")
    return shards


def read_keys(shards: Iterable[bytes]) -> dict[str, bytes]:
    """What `key_shards` was given; raises Unreadable. Missing shards are left out by the caller."""
    keys: dict[str, bytes] = {}
    for data in shards:
        shard = _decoded(content_of(data), _Keys)
        if shard.format != FORMAT:
            raise Unreadable(f"a key shard has format {shard.format}, and this version reads {FORMAT}")
        keys.update(shard.keys)
    return keys


def _place(secret: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(secret.encode()).digest()[:4]) % count


def _fits(data: bytes, what: str) -> None:
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{what} is {len(data)} bytes, and {MAX_BYTES} is the most pods can be sent")


# -- pods ------------------------------------------------------------------------------------------------------------


def pods_shard(pods: Mapping[str, Sequence[str]]) -> bytes:
    """Which pod is in which selections: pod IP -> ids (engine.Match.workloads). Raises TooLarge."""
    packed = zlib.compress(_encode(_Pods(format=FORMAT, pods={ip: tuple(ids) for ip, ids in pods.items()})), 6)
    _fits(packed, "the list of pods")
    return packed


def read_pods(data: bytes) -> dict[str, tuple[str, ...]]:
    """What `pods_shard` was given; raises Unreadable."""
    shard = _decoded(_unpacked(content_of(data)), _Pods)
    if shard.format != FORMAT:
        raise Unreadable(f"the list of pods has format {shard.format}, and this version reads {FORMAT}")
    pods: dict[str, tuple[str, ...]] = shard.pods
    return pods
