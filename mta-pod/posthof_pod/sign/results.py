"""Our own Authentication-Results field, as it stands in the trace: what a seal repeats, and what it says of ARC."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from posthof_pod import fields

_ARC = re.compile(rb";\s*arc=(none|pass|fail)\b", re.IGNORECASE)


class Results(NamedTuple):
    text: bytes  # the field's value, unfolded: "mx.example.org; spf=pass ..."
    cv: Literal["none", "pass", "fail"]


def our_results(trace: bytes, hostname: str, *, has_chain: bool) -> Results | None:
    """None where nobody judged the message here, or where it has a chain nobody judged: nothing can be sealed."""
    name = hostname.encode("ascii", "replace").lower()
    for value in fields.values(trace, b"authentication-results"):
        who, _, rest = value.partition(b";")
        if who.split()[:1] != [name] or not rest:
            continue
        said = _ARC.search(value)
        if said is None:
            return None if has_chain else Results(value, "none")
        cv = said[1].lower()
        return Results(value, "pass" if cv == b"pass" else "fail" if cv == b"fail" else "none")
    return None
