"""Who a submitted message says it is from: the addresses of From and Sender, on one strict reading. Pure.

Rules
- What two readers could read differently has no author: several From fields, a line that is one for some, a group,
  text that is not UTF-8, an address outside the grammar, leftovers. Such a submission is refused (RFC 6409 section
  6.2), never guessed at.
- Encoded words may stand in names, never in addresses (RFC 2047 section 5).
Sources: RFC 5322 3.4 and 3.6.2, RFC 6854 (groups, not taken here), RFC 6532.
"""

from __future__ import annotations

import re

from posthof_pod import fields
from posthof_pod.mailauth.canon import fields as parts
from posthof_pod.mailauth.fromline import has_lookalike

_ATOM = r"[^\s\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+"
_LOCAL = rf"(?:{_ATOM}(?:\.{_ATOM})*|\"(?:[^\"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*\")"
_DOMAIN = r"[^\s\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+(?:\.[^\s\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+)*"
_ADDRESS = rf"{_LOCAL}@{_DOMAIN}"
_QUOTED = r"\"(?:[^\"\\\x00-\x1f\x7f]|\\[\x20-\x7e\u0080-\U0010ffff])*\""
# One character, or one quoted string, at a time: no text can be taken apart in two ways, so none costs more than one
# look at each of its characters.
_PHRASE = rf"(?:[^\x00-\x08\x0a-\x1f\x7f()<>\[\]:;@\\,\"]|{_QUOTED})*"
_MAILBOX = re.compile(rf"(?:\s*(?P<bare>{_ADDRESS})|{_PHRASE}<\s*(?P<angle>{_ADDRESS})\s*>)\s*")


def of(head: bytes, name: bytes) -> tuple[str, ...] | None:
    """The addresses of the one field called `name` (lower case); () where there is none, None where it cannot be
    read in one way."""
    found = fields.values(head, name)
    if len(found) != 1:
        return None if found else ()
    if name == b"from" and has_lookalike(parts(head)):
        return None
    try:
        text = _without_comments(found[0].decode())
    except (UnicodeDecodeError, ValueError):
        return None
    addresses: list[str] = []
    at = 0
    while True:
        hit = _MAILBOX.match(text, at)
        if hit is None:
            return None
        address = hit["bare"] or hit["angle"]
        if "=?" in address:
            return None
        addresses.append(address)
        at = hit.end()
        if at == len(text):
            return tuple(addresses)
        if text[at] != ",":
            return None
        at += 1


def _without_comments(text: str) -> str:
    """Each comment becomes a blank; quoted strings stay as they are. ValueError: a control character, or it does not
    end."""
    if len(text) > 10_000 or any(char < " " and char != "\t" for char in text) or "\x7f" in text:
        raise ValueError("no header text")
    out: list[str] = []
    depth, is_quoted, is_escaped = 0, False, False
    for char in text:
        if is_escaped:
            is_escaped = False
        elif char == "\\" and (depth or is_quoted):
            is_escaped = True
        elif char == '"' and not depth:
            is_quoted = not is_quoted
        elif char == "(" and not is_quoted:
            depth += 1
        elif char == ")" and not is_quoted:
            if not depth:
                raise ValueError("a comment ends that did not begin")
            depth -= 1
            out.append(" ")
            continue
        if not depth:
            out.append(char)
    if depth or is_quoted or is_escaped:
        raise ValueError("something does not end")
    return "".join(out)
