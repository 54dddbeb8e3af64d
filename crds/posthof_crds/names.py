"""Names of domains, hosts and mailboxes, and when two of them are the same.

Rules of this file
- Workers import it: no pydantic, no yaml. `idna` is loaded only when a name is not ASCII.
- A domain has one form inside the house: lower-case A-labels (RFC 5890). U-label and A-label are the same domain.
- A local part keeps its spelling; only its `fold` is compared (RFC 5321 2.4 leaves that to the receiving host).
Sources: RFC 1123 2.1 (host names), RFC 5321 4.1.2 and 4.5.3.1 (sizes), RFC 5890 to 5892 (IDNA 2008).
"""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SRV = re.compile(rf"_[a-z0-9-]{{1,62}}\._(?:tcp|udp)(?:\.{_LABEL})+")
_DOT_ATOM = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*"
)
_QUOTED = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\U0010ffff]|\\[\x20-\x7e])*"')
_UNQUOTE = re.compile(r"\\(.)")


def to_ascii(domain: str) -> str:
    """The domain as lower-case A-labels. ASCII is not checked, only lowered. ValueError: not a domain in IDNA
    2008."""
    if domain.isascii():
        return domain.lower()
    return _encode(domain)


@functools.lru_cache(maxsize=4096)
def _encode(domain: str) -> str:
    import idna

    try:
        return idna.encode(domain, uts46=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(str(error)) from None


def to_unicode(domain: str) -> str:
    """The domain as a person reads it; the domain itself where that is not possible."""
    if "xn--" not in domain:
        return domain
    import idna

    try:
        return idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return domain


def is_host_name(name: str) -> bool:
    """One or more LDH labels, at most 253 octets, the last not a number. `name` is lower-case ASCII."""
    if len(name) > 253 or not _HOST.fullmatch(name):
        return False
    return not name.rpartition(".")[2].isdigit()


def is_fqdn(name: str) -> bool:
    """A host name of at least two labels."""
    return "." in name and is_host_name(name)


def is_srv_name(name: str) -> bool:
    """`_service._tcp.example.org` (RFC 2782), lower-case ASCII."""
    return len(name) <= 253 and _SRV.fullmatch(name) is not None


def is_local_part(local: str) -> bool:
    """A dot-atom or a quoted string, UTF-8 allowed (RFC 6531 3.3), at most 64 octets."""
    if len(local.encode("utf-8", "surrogatepass")) > 64 or not local.isprintable():
        return False
    return bool(_DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local))


def split(address: str) -> tuple[str, str]:
    """`(local, domain)`; the domain in its one form, or "" where the address has none.

    A domain that IDNA refuses comes back lowered: it is then nobody's, which is the right answer for a look-up.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        return domain, ""
    if domain.isascii():
        return local, domain.lower()
    try:
        return local, _encode(domain)
    except ValueError:
        return local, domain.lower()


def fold(local: str) -> str:
    """What two spellings of one mailbox share: case, quotes and composition do not count."""
    if local.startswith('"') and local.endswith('"') and len(local) > 1:
        local = _UNQUOTE.sub(r"\1", local[1:-1])
    if local.isascii():
        return local.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())


def literal(domain: str) -> str | None:
    """The address in a literal `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3), in its canonical text."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    inner = domain[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return str(ipaddress.IPv6Address(inner[5:]))
        return str(ipaddress.IPv4Address(inner))
    except ValueError:
        return None
