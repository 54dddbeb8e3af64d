"""What fields are made of: the base of all models and the types of their values, each with words for a mistake.

Rules of this file
- Manifests write camelCase; unknown fields are errors; nothing is coerced (`"25"` is not a port).
- A type that has a unit carries a `Unit`, so that the reference pages and `posthof check` print it.
- Messages name the mend. They never repeat a value that could be a secret: `Mend` texts are about form only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from posthof_crds import names, patterns
from posthof_crds.units import Unclear, duration, duration_text, size, size_text


class Part(BaseModel):
    """Base of every object in a manifest."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class Unit(NamedTuple):
    """What a number or text counts, for the reference: `duration`, `size`, or a word."""

    name: str


def wrong(what: str, instead: str = "") -> PydanticCustomError:
    """What a validator raises: what is wrong, and a sentence that says what to write."""
    return PydanticCustomError("wrong", "{what}", {"what": what, "instead": instead})


# -- durations and sizes ---------------------------------------------------------------------------------------------


def _in_our_words(read: Callable[[Any], Any]) -> BeforeValidator:
    def check(value: Any) -> Any:
        try:
            return read(value)
        except Unclear as unclear:
            raise wrong(unclear.what, unclear.instead) from None

    return BeforeValidator(check)


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a duration (seconds) or size (bytes), both allowed; the texts are as manifests write them."""

    low: float
    high: float
    low_text: str
    high_text: str
    show: Callable[[Any], str]

    def __call__(self, value: Any) -> Any:
        if not self.low <= value <= self.high:
            raise wrong(f"{self.show(value)} is out of range", f"Write {self.low_text} to {self.high_text}.")
        return value


def seconds_between(low: str, high: str) -> AfterValidator:
    """Bounds of a Duration, both allowed."""
    return AfterValidator(Range(duration(low), duration(high), low, high, duration_text))


def bytes_between(low: str, high: str) -> AfterValidator:
    """Bounds of a Size, both allowed."""
    return AfterValidator(Range(size(low), size(high), low, high, lambda n: size_text(int(n))))


Duration = Annotated[float, _in_our_words(duration), Unit("duration")]
Size = Annotated[int, _in_our_words(size), Unit("size")]
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Unit("share")]
Port = Annotated[int, Strict(), Field(ge=0, le=65535)]
RemotePort = Annotated[int, Strict(), Field(ge=1, le=65535)]


# -- names -----------------------------------------------------------------------------------------------------------

_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")


def _ascii(value: str) -> str:
    try:
        return names.to_ascii(value)
    except ValueError as error:
        raise wrong(f"{value!r} is not a domain name: {error}", "Write a name such as mail.example.org.") from None


def fqdn(value: str) -> str:
    if value.endswith("."):
        raise wrong("a name is written without the final dot", f"Write {value.rstrip('.') or 'mail.example.org'}.")
    ascii_name = _ascii(value)
    if not names.is_fqdn(ascii_name):
        hint = "Write a full name of letters, digits and hyphens with at least one dot, such as mail.example.org."
        raise wrong(f"{value!r} is not a fully qualified domain name", hint)
    return ascii_name


def host_or_address(value: str) -> str:
    bare = value.strip("[]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    ascii_name = _ascii(value)
    if not names.is_host_name(ascii_name):
        raise wrong(f"{value!r} is neither a host name nor an IP address", "Write smtp.example.org or 192.0.2.1.")
    return ascii_name


def srv_name(value: str) -> str:
    ascii_name = value.lower()
    if not names.is_srv_name(ascii_name):
        raise wrong(f"{value!r} is not a SRV name", "Write it in full, such as _submission._tcp.example.org.")
    return ascii_name


def ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise wrong(f"{value!r} is not an IP address", "Write 192.0.2.1 or 2001:db8::1, without a port.") from None


def listen_address(value: str) -> str:
    return ip_address(value) if value else value


def resolver_address(value: str) -> str:
    address, at, port = value.partition("@")
    if at and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise wrong(f"{value!r} has no usable port", "Write address@port, such as 192.0.2.53@5353.")
    return f"{ip_address(address)}@{int(port)}" if at else ip_address(address)


def network(value: str) -> str:
    try:
        net = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise wrong(f"{value!r} is not a network", "Write 192.0.2.0/24, 2001:db8::/32 or one address.") from None
    if "/" in value and str(ipaddress.ip_interface(value).ip) != str(net.network_address):
        raise wrong(f"{value!r} has bits set behind its prefix", f"Write {net}, or one address without a prefix.")
    if isinstance(net, ipaddress.IPv6Network) and net.prefixlen >= 96 and net.network_address.ipv4_mapped is not None:
        raise wrong(
            f"{value!r} is IPv4 in IPv6 clothes", "Write the IPv4 network itself: clients are compared as IPv4."
        )
    return str(net)


def local_part(value: str) -> str:
    if "@" in value and not value.startswith('"'):
        raise wrong(
            f"{value!r} has a domain", f"Write the part before the @ alone: {value.partition('@')[0] or 'bob'}."
        )
    if "*" in value:
        raise wrong(f"{value!r} has a wildcard", "List every name, or write `recipients: {any: true}` or a catchAll.")
    if not names.is_local_part(value):
        raise wrong(f"{value!r} is not the local part of an address", "Write what stands before the @, such as bob.")
    return value


def address(value: str) -> str:
    """`local@domain`; the domain in its one form."""
    local, at, domain = value.rpartition("@")
    if not at or not names.is_local_part(local):
        raise wrong(f"{value!r} is not a mail address", "Write local@domain, such as bob@example.org.")
    return f"{local}@{fqdn(domain)}"


def address_or_local(value: str) -> str:
    """An address, or the local part of one in the same domain."""
    return address(value) if "@" in value else local_part(value)


def pattern(value: str) -> str:
    try:
        return patterns.normalise(value)
    except ValueError as error:
        hint = "Write bob@example.org, *@example.org, example.org, *.example.org or <>; * is the only wildcard."
        raise wrong(f"{value!r} is not an address pattern: {error}", hint) from None


def one_line(value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > 400:
        raise wrong("a reply is one line of at most 400 printable ASCII characters", "Shorten it, use plain letters.")
    return value


def file_path(value: str) -> str:
    if not value or "\0" in value or value != value.strip():
        raise wrong("this is not a path", "Write an absolute path, or one relative to the current directory.")
    return value


@dataclass(frozen=True, slots=True)
class Form:
    """A text that a regular expression describes as a whole."""

    rule: re.Pattern[str]
    what: str
    instead: str

    def __call__(self, value: str) -> str:
        if not self.rule.fullmatch(value):
            raise wrong(f"{value!r} is not {self.what}", self.instead)
        return value


def _matching(rule: re.Pattern[str], what: str, instead: str) -> AfterValidator:
    return AfterValidator(Form(rule, what, instead))


FQDN = Annotated[str, AfterValidator(fqdn)]
Host = Annotated[str, AfterValidator(host_or_address)]
SRVName = Annotated[str, AfterValidator(srv_name)]
IPAddress = Annotated[str, AfterValidator(ip_address)]
ListenAddress = Annotated[str, AfterValidator(listen_address)]
ResolverAddress = Annotated[str, AfterValidator(resolver_address)]
Network = Annotated[str, AfterValidator(network)]
LocalPart = Annotated[str, AfterValidator(local_part)]
Address = Annotated[str, AfterValidator(address)]
AddressOrLocal = Annotated[str, AfterValidator(address_or_local)]
Pattern = Annotated[str, AfterValidator(pattern)]
Line = Annotated[str, AfterValidator(one_line)]
FilePath = Annotated[str, AfterValidator(file_path)]
ObjectName = Annotated[
    str, _matching(_OBJECT_NAME, "a name", "Use lower-case letters, digits, - and . (at most 253), such as mx-edge.")
]
PortName = Annotated[
    str, _matching(_PORT_NAME, "a listener name", "Use lower-case letters, digits and - (at most 63), such as smtp.")
]
SecretKey = Annotated[
    str, _matching(_KEY, "a key of a Secret or ConfigMap", "Use letters, digits, - . and _, such as password.")
]


def one_of(part: Part, fields: tuple[str, ...], what: str) -> None:
    """Exactly one of the fields is given (they default to None)."""
    given = [name for name in fields if getattr(part, name) is not None]
    if len(given) != 1:
        choices = ", ".join(to_camel(name) for name in fields)
        found = "none of them is there" if not given else f"{' and '.join(to_camel(n) for n in given)} are there"
        raise wrong(f"{what} is exactly one of {choices}; {found}", f"Keep one of: {choices}.")
