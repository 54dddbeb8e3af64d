"""Globs over mail addresses: what a RelayPolicy's `senders`, `recipients` and header patterns are made of.

Rules of this file
- The only wildcard is `*`: any run of characters, also none. There is no regular expression anywhere, so no pattern
  can be slow: matching is one `str.find` per literal piece.
- Case does not count; domains are compared as lower-case A-labels, local parts by `names.fold`.
- Workers import it: no pydantic, no yaml.

| pattern | means |
|---|---|
| `<>` | the null sender, and nothing else does |
| `bob@example.org` | that address |
| `*@example.org` | every address at that domain |
| `example.org` | the same |
| `*.example.org` | every address below that domain, not at it |
| `sales-*@*.example.org` | both parts hold |
| `*` | every address that is not the null sender |
"""

from __future__ import annotations

from collections.abc import Iterable

from posthof_crds import names


class Glob:
    """One text with `*` in it, cut into its literal pieces. The subject must be folded as the pattern was."""

    __slots__ = ("_first", "_floor", "_last", "_middle", "is_any", "literal")

    def __init__(self, pattern: str) -> None:
        pieces = pattern.split("*")
        self._first, self._last = pieces[0], pieces[-1]
        self._middle = tuple(piece for piece in pieces[1:-1] if piece)
        self._floor = len(self._first) + len(self._last)
        self.literal = pattern if len(pieces) == 1 else None
        self.is_any = len(pieces) > 1 and not any(pieces)

    def matches(self, text: str) -> bool:
        """Leftmost placement of each piece is enough: whatever fits later fits after the earliest place too."""
        if self.literal is not None:
            return text == self.literal
        if self.is_any:
            return True
        if len(text) < self._floor or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        at, end = len(self._first), len(text) - len(self._last)
        for piece in self._middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def normalise(pattern: str) -> str:
    """The pattern in the form EngineConfig holds. ValueError says what is wrong with it."""
    if pattern == "<>":
        return pattern
    if not pattern or any(c.isspace() for c in pattern) or not pattern.isprintable():
        raise ValueError("a pattern is a non-empty text without spaces")
    local, at, domain = pattern.rpartition("@")
    if at and not local:
        raise ValueError("nothing stands before the @")
    if at and not domain:
        raise ValueError("nothing stands after the @")
    domain = _normalise_domain(domain)
    return f"{names.fold(local)}@{domain}" if at else domain


def _normalise_domain(domain: str) -> str:
    if domain.startswith("["):
        if names.literal(domain) is None:
            raise ValueError(f"{domain} is not an address literal")
        return domain.lower()
    if "*" in domain:
        labels = domain.split(".")
        if any("*" in label and not label.isascii() for label in labels):
            raise ValueError("a label with * in it must be ASCII")
        domain = ".".join(
            label.lower() if "*" in label else names.to_ascii(label) if label else "" for label in labels
        )
        probe = domain.replace("*", "a")
    else:
        probe = domain = names.to_ascii(domain)
    if not names.is_host_name(probe):
        raise ValueError(f"{domain} is not a domain")
    return domain


def parts(pattern: str) -> tuple[str, str]:
    """`(local glob, domain glob)` of a normalised pattern other than `<>`."""
    local, at, domain = pattern.rpartition("@")
    return (local, domain) if at else ("*", domain)


def literal_domain(pattern: str) -> str | None:
    """The one domain the pattern names, None where it has a wildcard or is `<>`."""
    if pattern == "<>":
        return None
    domain = parts(pattern)[1]
    return None if "*" in domain else domain


def bounds_domain(pattern: str) -> bool:
    """Does the pattern keep to domains that somebody wrote down: a domain, or all below one of two labels or more."""
    if pattern == "<>":
        return False
    domain = parts(pattern)[1]
    if "*" not in domain:
        return True
    # What follows the last wildcard must begin at a label: `*ample.org` would take domains nobody named.
    tail = domain.rpartition("*")[2]
    return tail.startswith(".") and tail.count(".") >= 2


class AddressSet:
    """Patterns asked together: does one of them hold? Literal domains are found by one dictionary look-up."""

    __slots__ = ("_by_domain", "_has_null", "_wild")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._has_null = False
        self._by_domain: dict[str, list[Glob]] = {}
        self._wild: list[tuple[Glob, Glob]] = []
        for pattern in patterns:
            if pattern == "<>":
                self._has_null = True
                continue
            local, domain = parts(pattern)
            if "*" in domain:
                self._wild.append((Glob(local), Glob(domain)))
            else:
                self._by_domain.setdefault(domain, []).append(Glob(local))

    def matches(self, local: str, domain: str) -> bool:
        """`local` folded, `domain` in its one form; both "" for the null sender."""
        if not domain and not local:
            return self._has_null
        for glob in self._by_domain.get(domain, ()):
            if glob.matches(local):
                return True
        return any(d.matches(domain) and g.matches(local) for g, d in self._wild)
