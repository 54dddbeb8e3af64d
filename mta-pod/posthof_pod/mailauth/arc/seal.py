"""A set added to a chain: what we saw, the message as it leaves, and the seal over all of it. Source: RFC 8617 5.1.

Rules of this file
- Who seals has judged the chain first and hands over the verdict; nothing is judged here.
- A chain that was given up (cv=fail), that has no room or that is not whole gets nothing more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from posthof_pod.mailauth.arc import chain
from posthof_pod.mailauth.arc.verify import sealed_text
from posthof_pod.mailauth.canon import RELAXED, Body, Field, canonical, hashes_of, relaxed_field, select
from posthof_pod.mailauth.dkim.sign import SigningKey, folded, folded_list, signed_names
from posthof_pod.mailauth.tags import BadTags, encoded


def seal(
    headers: Sequence[Field],
    body: Body,
    key: SigningKey,
    *,
    results: bytes,
    cv: Literal["none", "pass", "fail"],
    now: float,
) -> bytes:
    """The three fields of the next instance, to stand before the message; b"" where nothing can be added.

    `results` is the value of our Authentication-Results field ("mx.example.org; spf=pass ..."), `cv` what
    arc.verify.verify_chain said of the message as it came.
    """
    try:
        sets = chain.sets(headers)
        has_ended = any(chain.read_seal(one.seal).cv == "fail" for one in sets)
    except BadTags:
        return b""
    number = len(sets) + 1
    if has_ended or number > chain.MOST or (cv == "none") != (number == 1):
        return b""
    lines = b";\r\n\t".join(part.strip() for part in results.split(b";"))
    aar = b"ARC-Authentication-Results: i=%d; %b\r\n" % (number, lines)
    ams = _message_signature(headers, body, key, number, now)
    empty = b"ARC-Seal: i=%d; a=%b; cv=%b; d=%b;\r\n\ts=%b; t=%d;\r\n\tb=\r\n" % (
        number,
        key.key.algorithm.encode("ascii"),
        cv.encode("ascii"),
        key.domain.encode("ascii"),
        key.selector.encode("ascii"),
        int(now),
    )
    new = chain.ArcSet(number, aar, ams, empty)
    covered = (new,) if cv == "fail" else (*sets, new)  # a failed chain's last seal covers its own set (5.1.2)
    sealed = key.key.sign(hashlib.sha256(sealed_text(covered)).digest())
    return b"%b%b\r\n%b%b" % (empty.removesuffix(b"\r\n"), folded(encoded(sealed)), ams, aar)


def _message_signature(headers: Sequence[Field], body: Body, key: SigningKey, number: int, now: float) -> bytes:
    """As a DKIM signature, the DKIM-Signature fields of others included."""
    names = signed_names(headers)
    names += [b"dkim-signature"] * min(20, sum(1 for name, _ in headers if name == b"dkim-signature"))
    head = (
        b"ARC-Message-Signature: i=%d; a=%b; c=relaxed/relaxed; d=%b;\r\n\ts=%b; t=%d;\r\n\th=%b;\r\n\tbh=%b;\r\n\tb="
        % (
            number,
            key.key.algorithm.encode("ascii"),
            key.domain.encode("ascii"),
            key.selector.encode("ascii"),
            int(now),
            folded_list(names),
            encoded(hashes_of(body).get(RELAXED).digest),
        )
    )
    covered = canonical(select(headers, names), is_relaxed=True)
    own = relaxed_field(chain.AMS, head).removesuffix(b"\r\n")
    return b"%b%b\r\n" % (head, folded(encoded(key.key.sign(hashlib.sha256(covered + own).digest()))))
