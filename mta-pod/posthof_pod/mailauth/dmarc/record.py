"""A DMARC policy record: tags and values (RFC 9989 sections 4.7 and 4.8). Pure.

Rules
- Tags nobody knows, those of RFC 7489 that are gone (pct, rf, ri) among them, are ignored. A known tag with a value
  that is none has its default, but for p, sp and np: then the record counts as p=none where it asks for reports, else
  as no record (4.10.1).
- What was read is kept by its bytes, unless it is large: what anybody publishes must not fill our memory.
"""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple
from urllib.parse import unquote

Wish = Literal["none", "quarantine", "reject"]
_WISHES: dict[str, Wish] = {"none": "none", "quarantine": "quarantine", "reject": "reject"}
_VERSION = re.compile(rb"[ \t]*v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s,;]+", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s@<>\"(),:;\\\[\]]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
MOST_URIS = 10
_KEPT = 2048  # octets of a record that is kept


class Record(NamedTuple):
    """What the domain's owner says."""

    p: Wish
    sp: Wish | None = None
    np: Wish | None = None
    is_strict_dkim: bool = False
    is_strict_spf: bool = False
    psd: Literal["y", "n", "u"] = "u"
    is_testing: bool = False  # t=y
    rua: tuple[str, ...] = ()  # URIs as written, without a size
    ruf: tuple[str, ...] = ()
    fo: frozenset[str] = frozenset("0")


def is_dmarc(text: bytes) -> bool:
    """Whether a TXT record is one of DMARC: the version comes first."""
    return _VERSION.match(text) is not None


def parse(text: bytes) -> Record | None:
    """The record; None for one that no receiver can use, and for other TXT records."""
    return _kept(text) if len(text) <= _KEPT else _read(text)


def _read(text: bytes) -> Record | None:
    if not is_dmarc(text):
        return None
    tags: dict[str, str] = {}
    for part in text.decode("ascii", "replace").split(";"):
        name, equals, value = part.partition("=")
        if equals and _NAME.fullmatch(name.strip()):
            tags.setdefault(name.strip().lower(), value.strip())
    rua, ruf = uris(tags.get("rua", "")), uris(tags.get("ruf", ""))
    wishes = {name: _WISHES.get(tags[name].lower()) for name in ("p", "sp", "np") if name in tags}
    if None in wishes.values():
        if not rua:
            return None
        wishes = {}
    psd = tags.get("psd", "u").lower()
    return Record(
        p=wishes.get("p") or "none",
        sp=wishes.get("sp"),
        np=wishes.get("np"),
        is_strict_dkim=tags.get("adkim", "r").lower() == "s",
        is_strict_spf=tags.get("aspf", "r").lower() == "s",
        psd="y" if psd == "y" else "n" if psd == "n" else "u",
        is_testing=tags.get("t", "n").lower() == "y",
        rua=rua,
        ruf=ruf,
        fo=frozenset(one.strip().lower() for one in tags.get("fo", "0").split(":")) & frozenset("01ds"),
    )


_kept = functools.lru_cache(maxsize=4096)(_read)


def uris(value: str) -> tuple[str, ...]:
    """The URIs of rua or ruf, a dozen at most; a size behind an exclamation mark is RFC 7489's and ignored."""
    found = (one.strip().partition("!")[0] for one in value.split(","))
    return tuple(dict.fromkeys(one for one in found if _URI.fullmatch(one)))[:MOST_URIS]


def mailbox(uri: str) -> str:
    """The address of a mailto: URI, "" for all else (4.6: no other scheme has to be known)."""
    scheme, _, rest = uri.partition(":")
    address = unquote(rest.partition("?")[0])
    return address if scheme.lower() == "mailto" and _ADDRESS.fullmatch(address) else ""
