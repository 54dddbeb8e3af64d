"""What is wrong in the manifests: told so that a person can mend it without reading our source.

A Problem says where (file, document, object, field path, line), what is wrong, and what to write instead.
All problems of a folder come in one `Invalid`. Values of a Secret never stand in a Problem.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    file: str  # as the person named it, "" where no file is to blame
    document: int  # counted from 1, 0: the file as a whole
    subject: str  # "MTA/edge", "" while that is unknown
    path: str  # "spec.listeners[0].port", "" for the object as a whole
    line: int  # counted from 1, 0: unknown
    what: str
    instead: str  # what to write, a whole sentence or ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "")
        if self.document > 1:
            place += f" (document {self.document})"
        owner = " ".join(part for part in (self.subject, self.path) if part)
        text = ": ".join(part for part in (place, owner, self.what) if part)
        return f"{text}\n    {self.instead}" if self.instead else text


class Invalid(Exception):
    """The manifests cannot be used. `errors` is never empty; `warnings` are told beside them."""

    def __init__(self, errors: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        self.errors = tuple(errors)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(str(problem) for problem in self.errors))


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or "". Case does not count."""
    by_lower = {name.lower(): name for name in known}
    if word.lower() in by_lower:
        return by_lower[word.lower()]
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""


def did_you_mean(word: str, known: Sequence[str], *, quote: str = '"', limit: int = 32) -> str:
    """A sentence for a word that is not among the known ones; the list itself where it is short enough to read."""
    names = ", ".join(known) if len(known) <= limit else f"{len(known)} names"
    meant = closest(word, known)
    if meant:
        return f"did you mean {quote}{meant}{quote}? known here: {names}"
    return f"known here: {names}" if known else "nothing of that kind is there"


def sentence(text: str) -> str:
    """With a capital and an end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(("?", ".")) else ".")
