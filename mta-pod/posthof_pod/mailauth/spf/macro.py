"""Macros of SPF: texts with %{...} in them, read once and filled in for each check (RFC 7208 section 7).

Rules
- `read` refuses what the grammar refuses (Unreadable); filling in cannot fail, but for `p`, which asks DNS.
- The letters c, r and t are for explanations alone (7.2).
- A name that became longer than 253 characters loses labels on its left (7.3).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import quote

_LONGEST_NAME = 253
_MACRO = re.compile(r"%\{([slodipvhcrt])([0-9]*)(r?)([-.+,/_=]*)\}", re.IGNORECASE)
_LITERAL = re.compile(r"[!-$&-~]+")
_LITERAL_OR_BLANK = re.compile(r"[ -$&-~]+")
_TOP_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_MOST_PARTS = 256  # literals and macros of one text: what is made of more, for a name or a reply, nobody needs
_ESCAPES = {"%%": "%", "%_": " ", "%-": "%20"}
_ONLY_EXPLAINS = "crt"


class Unreadable(ValueError):
    """It breaks the grammar: permerror."""


class Macro(NamedTuple):
    letter: str  # lower case
    is_escaped: bool  # written in upper case: URL-escaped
    keep: int  # right-hand parts; 0 = all
    is_reversed: bool
    delimiters: str

    def apply(self, value: str) -> str:
        """The transformers (7.3)."""
        if self.keep or self.is_reversed or self.delimiters != ".":
            parts = _split(value, self.delimiters)
            if self.is_reversed:
                parts.reverse()
            value = ".".join(parts[-self.keep :] if self.keep else parts)
        return quote(value, safe="-._~") if self.is_escaped else value


Template = tuple[str | Macro, ...]
Values = Callable[[str], str | Awaitable[str]]
"""What a letter stands for; awaited only for `p`."""


def _split(value: str, delimiters: str) -> list[str]:
    for other in delimiters[1:]:
        value = value.replace(other, delimiters[0])
    return value.split(delimiters[0])


def _read(text: str, *, is_explanation: bool) -> Template:
    """A macro-string, or an explain-string. Raises Unreadable."""
    literal = _LITERAL_OR_BLANK if is_explanation else _LITERAL
    parts: list[str | Macro] = []
    at = 0
    while at < len(text):
        if text[at] != "%":
            found = literal.match(text, at)
            if found is None:
                raise Unreadable(f"a character that may not be there: {text[at]!r}")
            parts.append(found.group())
        elif text[at : at + 2] in _ESCAPES:
            parts.append(_ESCAPES[text[at : at + 2]])
            at += 2
            continue
        else:
            found = _MACRO.match(text, at)
            if found is None:
                raise Unreadable(f"no macro: {text[at : at + 10]!r}")
            parts.append(_macro(found, is_explanation=is_explanation))
        at = found.end()
    if len(parts) > _MOST_PARTS:
        raise Unreadable(f"more than {_MOST_PARTS} parts in one term")
    return tuple(parts)


def _macro(found: re.Match[str], *, is_explanation: bool) -> Macro:
    letter, digits, reverse, delimiters = found.groups()
    if letter.lower() in _ONLY_EXPLAINS and not is_explanation:
        raise Unreadable(f"the macro {letter} is for explanations alone")
    if digits and not int(digits[:4]):
        raise Unreadable("a macro that keeps no part")
    return Macro(letter.lower(), letter.isupper(), int(digits[:4] or 0), bool(reverse), delimiters or ".")


def macro_string(text: str) -> Template:
    """The value of a modifier nobody knows. Raises Unreadable."""
    return _read(text, is_explanation=False)


def domain_spec(text: str) -> Template:
    """A name with macros: it ends with a macro or a top label (7.1). Raises Unreadable."""
    parts = _read(text, is_explanation=False)
    ends_in_macro = bool(parts) and text.endswith("}") and isinstance(parts[-1], Macro)
    if not ends_in_macro and not _has_top_label(text):
        raise Unreadable(f"no domain name: {text[:64]!r}")
    return parts


def _has_top_label(text: str) -> bool:
    """Whether it ends with a dot and a label that is no number, and perhaps a dot."""
    _, dot, label = text.removesuffix(".").rpartition(".")
    return bool(dot) and _TOP_LABEL.fullmatch(label) is not None and not label.isdigit()


@functools.lru_cache(maxsize=256)
def explanation(text: str) -> Template:
    """An explain-string (6.2). Raises Unreadable."""
    return _read(text, is_explanation=True)


async def fill(template: Template, values: Values) -> str:
    """The text with its macros filled in."""
    if len(template) == 1 and isinstance(template[0], str):
        return template[0]
    parts = []
    for part in template:
        if isinstance(part, str):
            parts.append(part)
            continue
        value = values(part.letter)
        parts.append(part.apply(value if isinstance(value, str) else await value))
    return "".join(parts)


async def name(template: Template, values: Values) -> str:
    """A domain-spec, filled in, without a final dot, short enough."""
    found = (await fill(template, values)).removesuffix(".")
    if len(found) <= _LONGEST_NAME:
        return found
    return found[-_LONGEST_NAME - 1 :].partition(".")[2]
