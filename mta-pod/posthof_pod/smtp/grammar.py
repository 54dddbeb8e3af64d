"""What an SMTP client may write on a command line: paths, parameters, xtext, XCLIENT attributes.

Owns: the syntax of RFC 5321 4.1 (commands, paths), RFC 1870 (SIZE), RFC 6152 and 3030 (BODY), RFC 3461 4 (RET, ENVID,
NOTIFY, ORCPT, xtext), RFC 6531 (SMTPUTF8), RFC 6533 3 (utf-8 address type), and Postfix's XCLIENT.

Rules
- Bytes in, values out. A line comes without its CRLF. What is wrong is raised as `Malformed`, with its reply.
- Control characters and NUL never pass. Octets above 127 pass only as valid UTF-8 with SMTPUTF8.
- One anchored expression answers the usual MAIL and RCPT; what it does not match goes through the whole grammar. Both
  agree on what both can read (a property test holds them to it).
- Addresses leave as text without angle brackets; a source route is dropped (RFC 5321 appendix C); a quoted local part
  that needs no quotes loses them (RFC 5321 4.1.2 calls the two forms equal).
- Lengths are the standard's or longer: RFC 5321 4.5.3.1 asks for generosity, and real senders (VERP, SRS) need it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

import msgspec

from posthof_pod.model import Body, Notify
from posthof_pod.replies import Reply

LOCAL_PART_MAX = 255  # octets; RFC 5321 4.5.3.1.1 asks for 64, VERP and SRS go beyond
DOMAIN_MAX = 255  # octets, RFC 5321 4.5.3.1.2
LABEL_MAX = 63  # octets, RFC 1035 2.3.4
ENVID_MAX = 100  # characters before decoding, RFC 3461 4.4
ORCPT_MAX = 500  # characters before decoding, RFC 3461 4.2


class Malformed(Exception):
    """A command that cannot be read. `reply` is what the client is told."""

    def __init__(self, code: int, status: str, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(code, status, text)


class MailParameters(msgspec.Struct, frozen=True, gc=False):
    """What came with MAIL FROM."""

    size: int = 0  # octets declared, 0 = not given
    body: Body = Body.SEVENBIT
    smtputf8: bool = False
    ret: str = ""  # "FULL", "HDRS", "" = not given
    envid: str = ""  # xtext decoded
    requiretls: bool = False  # RFC 8689


class RecipientParameters(NamedTuple):
    """What came with RCPT TO."""

    notify: Notify = Notify.UNSET
    orcpt: str = ""  # "type;address", decoded


NO_MAIL_PARAMETERS = MailParameters()
EIGHTBIT_PARAMETERS = MailParameters(body=Body.EIGHTBIT)
NO_RECIPIENT_PARAMETERS = RecipientParameters()

# Sets are possessive (`[..]++`), groups are not: before Python 3.11.5 a possessive group that fails half-way leaves
# the place where it failed, and `a@b.test.` matched. What follows a group never begins as the group does, so giving
# parts of it back costs no more than reading them did.

# ---- the usual case: one expression, 0.5 us

_LOCAL = rb"[A-Za-z0-9_+=~-]++(?:\.[A-Za-z0-9_+=~-]++)*"
_NAME = rb"[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*"
_MAILBOX = _LOCAL + rb"@" + _NAME + rb"(?:\." + _NAME + rb")*"
_FAST_MAIL = re.compile(
    rb"[Mm][Aa][Ii][Ll] [Ff][Rr][Oo][Mm]:<(" + _MAILBOX + rb"|)>(?: SIZE=([0-9]{1,18}))?(?: BODY=(7BIT|8BITMIME))?"
)
_FAST_RCPT = re.compile(rb"[Rr][Cc][Pp][Tt] [Tt][Oo]:<(" + _MAILBOX + rb")>")
_FAST_MAX = 64  # a longer address is measured part by part

# ---- the whole grammar

_BEYOND = "\u00a0-\u2027\u202a-\U0010ffff"  # RFC 6531 3.3 without C1 controls and line separators
_ATEXT = rf"A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_BEYOND}\-"
_DOT_STRING = rf"[{_ATEXT}]++(?:\.[{_ATEXT}]++)*"
_QUOTED = rf'"(?:[ !#-\[\]-~{_BEYOND}]|\\[ -~])*"'
_LABEL = rf"[A-Za-z0-9_{_BEYOND}]++(?:-++[A-Za-z0-9_{_BEYOND}]++)*"  # `_` is no letter of RFC 1035, but it is in use
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]++\]"
_PATH = re.compile(
    rf"<(?:@(?:{_DOMAIN}|{_LITERAL})(?:,@(?:{_DOMAIN}|{_LITERAL}))*:)?"
    rf"(?P<local>{_DOT_STRING}|{_QUOTED})(?:@(?P<domain>{_DOMAIN}|{_LITERAL}))?>"
)
_IS_DOT_STRING = re.compile(_DOT_STRING)
_MAIL = re.compile(r"MAIL +FROM: *", re.IGNORECASE)
_RCPT = re.compile(r"RCPT +TO: *", re.IGNORECASE)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([^\x00-\x20=\x7f]++))?")
_VALUE_MAY_HOLD_EQUALS = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*+)=([^\x00-\x20\x7f]++)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 4
_HEX = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")  # RFC 6533 3
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]++")
_HELO = re.compile(rb"[A-Za-z0-9._:\[\]+/=~#-]{1,255}")  # generous: RFC 5321 4.1.4
_TAG_LITERAL = re.compile(r"([A-Za-z0-9-]*[A-Za-z0-9]):([!-Z^-~]+)")


def parse_mail(line: bytes) -> tuple[str, MailParameters]:
    """`MAIL FROM:<path> [parameters]` -> (address, parameters); the null sender is "".

    Raises Malformed: 501 5.1.7 (path), 501 5.5.4 and 555 5.5.4 (parameters), 553 5.6.7 (needs SMTPUTF8), 500 5.5.2.
    """
    match = _FAST_MAIL.fullmatch(line)
    if match is not None:
        path, size, body = match.groups()
        if len(path) <= _FAST_MAX:
            if size is None:
                parameters = EIGHTBIT_PARAMETERS if body == b"8BITMIME" else NO_MAIL_PARAMETERS
            else:
                parameters = MailParameters(int(size), Body.EIGHTBIT if body == b"8BITMIME" else Body.SEVENBIT)
            return path.decode("ascii"), parameters
    return _parse_mail_whole(line)


def parse_rcpt(line: bytes, *, smtputf8: bool = False) -> tuple[str, RecipientParameters]:
    """`RCPT TO:<path> [parameters]` -> (address, parameters). `smtputf8`: MAIL had SMTPUTF8.

    Only `<postmaster>`, in any case, may stand without a domain (RFC 5321 4.1.1.3).
    Raises Malformed: 501 5.1.3 (path), 501 5.5.4 and 555 5.5.4 (parameters), 553 5.6.7 (needs SMTPUTF8), 500 5.5.2.
    """
    match = _FAST_RCPT.fullmatch(line)
    if match is not None:
        path = match[1]
        if len(path) <= _FAST_MAX:
            return path.decode("ascii"), NO_RECIPIENT_PARAMETERS
    return _parse_rcpt_whole(line, smtputf8=smtputf8)


def _parse_mail_whole(line: bytes) -> tuple[str, MailParameters]:
    text = command_text(line)
    start = _MAIL.match(text)
    if start is None:
        raise Malformed(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
    if text.startswith("<>", start.end()):
        address, end = "", start.end() + 2
    else:
        local, domain, end = _path(text, start.end(), "5.1.7", "sender")
        if not domain:
            raise Malformed(501, "5.1.7", "A sender address needs a domain")
        address = f"{local}@{domain}"
    parameters = _mail_parameters(_parameters(text, end))
    if not text.isascii() and not parameters.smtputf8:
        raise Malformed(553, "5.6.7", "An address beyond ASCII needs the parameter SMTPUTF8")
    return address, parameters


def _parse_rcpt_whole(line: bytes, *, smtputf8: bool) -> tuple[str, RecipientParameters]:
    text = command_text(line)
    if not smtputf8 and not text.isascii():
        raise Malformed(553, "5.6.7", "An address beyond ASCII needs SMTPUTF8 with MAIL")
    start = _RCPT.match(text)
    if start is None:
        raise Malformed(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
    local, domain, end = _path(text, start.end(), "5.1.3", "recipient")
    if domain:
        address = f"{local}@{domain}"
    elif local.lower() == "postmaster":
        address = local
    else:
        raise Malformed(501, "5.1.3", "A recipient address needs a domain")
    return address, _recipient_parameters(_parameters(text, end))


def command_text(line: bytes) -> str:
    """The line as text. Raises Malformed 500 5.5.2 for control characters, NUL and what is not UTF-8."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(500, "5.5.2", "The command is not valid UTF-8") from None
    if _CONTROL.search(text) is not None:
        raise Malformed(500, "5.5.2", "Control characters are not allowed in commands")
    return text


def _path(text: str, at: int, status: str, who: str) -> tuple[str, str, int]:
    """The path at `at` -> (local part, domain or "", index behind it)."""
    match = _PATH.match(text, at)
    if match is None:
        raise Malformed(501, status, f"Bad {who} address syntax")
    local, domain = match["local"], match["domain"] or ""
    if len(local.encode()) > LOCAL_PART_MAX or len(domain.encode()) > DOMAIN_MAX:
        raise Malformed(501, status, f"The {who} address is too long")
    if domain.startswith("["):
        domain = _literal(domain, status, who)
    elif any(len(label.encode()) > LABEL_MAX for label in domain.split(".")):
        raise Malformed(501, status, f"A label of the {who} domain is too long")
    if local.startswith('"'):
        local = _canonical_quoted(local)
    return local, domain, match.end()


def _canonical_quoted(local: str) -> str:
    """A quoted string in its shortest form: without quotes where it may, else without idle backslashes."""
    content = re.sub(r"\\(.)", r"\1", local[1:-1])
    if _IS_DOT_STRING.fullmatch(content):
        return content
    return '"' + re.sub(r'(["\\])', r"\\\1", content) + '"'


def _literal(domain: str, status: str, who: str) -> str:
    """An address literal (RFC 5321 4.1.3) as it stands, once its address is one."""
    inner = domain[1:-1]
    try:
        if inner[:5].upper() == "IPV6:":
            ipaddress.IPv6Address(inner[5:])
        elif not _TAG_LITERAL.fullmatch(inner):
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise Malformed(501, status, f"Bad address literal in the {who} address") from None
    return domain


def _parameters(text: str, at: int) -> dict[str, str | None]:
    """What follows the path, by upper-case keyword; None where no value was given."""
    found: dict[str, str | None] = {}
    if at == len(text):
        return found
    if text[at] != " ":
        raise Malformed(501, "5.5.4", "A space must follow the address")
    for word in text[at:].split():
        match = _PARAMETER.fullmatch(word) or _VALUE_MAY_HOLD_EQUALS.fullmatch(word)
        if match is None:
            raise Malformed(501, "5.5.4", "Bad parameter syntax")
        keyword = match[1].upper()
        if keyword in found:
            raise Malformed(501, "5.5.4", f"{keyword} was given twice")
        found[keyword] = match[2]
    return found


def _mail_parameters(found: dict[str, str | None]) -> MailParameters:
    if not found:
        return NO_MAIL_PARAMETERS
    size, body, smtputf8, ret, envid, requiretls = 0, Body.SEVENBIT, False, "", "", False
    for keyword, value in found.items():
        if keyword == "SIZE":
            size = _size(value)
        elif keyword == "BODY":
            body = _body(value)
        elif keyword == "SMTPUTF8":
            if value is not None:
                raise Malformed(501, "5.5.4", "SMTPUTF8 takes no value")
            smtputf8 = True
        elif keyword == "RET":
            ret = (value or "").upper()
            if ret not in ("FULL", "HDRS"):
                raise Malformed(501, "5.5.4", "RET is FULL or HDRS")
        elif keyword == "ENVID":
            envid = _envid(value)
        elif keyword == "REQUIRETLS":
            if value is not None:
                raise Malformed(501, "5.5.4", "REQUIRETLS takes no value")
            requiretls = True
        elif keyword == "AUTH":  # RFC 4954 section 5; whom the client vouches for we do not believe: as if AUTH=<>
            if not value or (value != "<>" and _octets_of_xtext(value) is None):
                raise Malformed(501, "5.5.4", "AUTH is <> or an address as xtext")
        else:
            raise Malformed(555, "5.5.4", f"MAIL does not know the parameter {keyword}")
    return MailParameters(size, body, smtputf8, ret, envid, requiretls)


def _size(value: str | None) -> int:
    if value is None or len(value) > 20 or not (value.isascii() and value.isdigit()):
        raise Malformed(501, "5.5.4", "SIZE is a number of octets")
    return int(value)


_BODIES = {"7BIT": Body.SEVENBIT, "8BITMIME": Body.EIGHTBIT, "BINARYMIME": Body.BINARY}


def _body(value: str | None) -> Body:
    body = _BODIES.get((value or "").upper())
    if body is None:
        raise Malformed(501, "5.5.4", "BODY is 7BIT, 8BITMIME or BINARYMIME")
    return body


def _envid(value: str | None) -> str:
    """RFC 3461 4.4: xtext of at most 100 characters; decoded it is printable ASCII and space."""
    decoded = decode_xtext(value or "")
    if not value or len(value) > ENVID_MAX or decoded is None or not _is_printable(decoded):
        raise Malformed(501, "5.5.4", "ENVID is xtext of at most 100 characters")
    return decoded


def _recipient_parameters(found: dict[str, str | None]) -> RecipientParameters:
    if not found:
        return NO_RECIPIENT_PARAMETERS
    notify, orcpt = Notify.UNSET, ""
    for keyword, value in found.items():
        if keyword == "NOTIFY":
            notify = _notify(value)
        elif keyword == "ORCPT":
            orcpt = _orcpt(value or "")
        else:
            raise Malformed(555, "5.5.4", f"RCPT does not know the parameter {keyword}")
    return RecipientParameters(notify, orcpt)


_NOTIFIES = {"NEVER": Notify.NEVER, "SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


def _notify(value: str | None) -> Notify:
    """RFC 3461 4.1: NEVER alone, or a list of the others, each at most once."""
    notify = Notify.UNSET
    for word in (value or "").upper().split(","):
        flag = _NOTIFIES.get(word)
        if flag is None or flag in notify:
            raise Malformed(501, "5.5.4", "NOTIFY is NEVER or a list of SUCCESS, FAILURE, DELAY")
        notify |= flag
    if Notify.NEVER in notify and notify != Notify.NEVER:
        raise Malformed(501, "5.5.4", "NOTIFY=NEVER stands alone")
    return notify


def _orcpt(value: str) -> str:
    """RFC 3461 4.2 and RFC 6533 3: `type;xtext`, decoded. The utf-8 type may hold `\\x{...}` or UTF-8 itself."""
    kind, separator, encoded = value.partition(";")
    refusal = Malformed(501, "5.5.4", "ORCPT is address-type;xtext of at most 500 characters")
    if not separator or not encoded or len(value) > ORCPT_MAX or not _ADDRESS_TYPE.fullmatch(kind):
        raise refusal
    if kind.lower() == "utf-8":
        address = decode_xtext(encoded) if encoded.isascii() else encoded
        try:
            address = None if address is None else _EMBEDDED.sub(lambda hit: chr(int(hit[1], 16)), address)
        except (ValueError, OverflowError):
            raise refusal from None
        if address is None or _CONTROL.search(address) or any("\ud800" <= letter <= "\udfff" for letter in address):
            raise refusal
    else:
        address = _octets_of_xtext(encoded) if encoded.isascii() else encoded
        if address is None or not address or not address.isprintable():
            raise refusal
        if not address.isascii():  # Postfix puts UTF-8 octets into xtext of type rfc822; RFC 6533 calls that utf-8
            kind = "utf-8"
    return f"{kind};{address}"


def _octets_of_xtext(text: str) -> str | None:
    """xtext whose octets may be UTF-8. None where it is no xtext, or its octets are no UTF-8."""
    if not _XTEXT.fullmatch(text):
        return None
    try:
        return _HEX.sub(lambda hit: chr(int(hit[1], 16)), text).encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return None


def decode_xtext(text: str) -> str | None:
    """RFC 3461 4: `+XX` stands for an octet. None where the text is no xtext or an octet is above 127."""
    if not _XTEXT.fullmatch(text):
        return None
    decoded = _HEX.sub(lambda hit: chr(int(hit[1], 16)), text) if "+" in text else text
    return decoded if decoded.isascii() else None


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def parse_helo(argument: bytes) -> str:
    """The name after EHLO or HELO: a domain or an address literal, taken generously. Raises Malformed 501 5.5.4."""
    name = argument.strip(b" ")
    if _HELO.fullmatch(name) is None:
        raise Malformed(501, "5.5.4", "Syntax: EHLO name (a domain or an address literal)")
    return name.decode("ascii")


# ---- XCLIENT (Postfix XCLIENT_README)

XCLIENT_ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO")
_NOT_KNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_XCLIENT_VALUE = re.compile(r"[A-Za-z0-9._:\[\]+/=~#-]{0,255}")


def parse_xclient(argument: bytes) -> dict[str, str]:
    """`NAME=value ...` -> values by upper-case name, xtext decoded, "" where the front end does not know.

    ADDR comes out as `ipaddress` writes it, without `IPV6:`; PORT is a number; PROTO is SMTP or ESMTP.
    Raises Malformed 501 5.5.4.
    """
    found: dict[str, str] = {}
    for word in command_text(argument).split():
        name, separator, encoded = word.partition("=")
        name = name.upper()
        value = decode_xtext(encoded)
        if name not in XCLIENT_ATTRIBUTES or not separator or value is None:
            raise Malformed(501, "5.5.4", f"Bad XCLIENT attribute {name}")
        found[name] = "" if value.upper() in _NOT_KNOWN else _xclient_value(name, value)
    if not found:
        raise Malformed(501, "5.5.4", "Syntax: XCLIENT attribute=value ...")
    return found


def _xclient_value(name: str, value: str) -> str:
    if name == "ADDR":
        try:
            return str(ipaddress.ip_address(value[5:] if value[:5].upper() == "IPV6:" else value))
        except ValueError:
            raise Malformed(501, "5.5.4", "XCLIENT ADDR is an IP address") from None
    is_good = (
        value.upper() in ("SMTP", "ESMTP")
        if name == "PROTO"
        else value.isdigit() and int(value[:6]) < 65536
        if name == "PORT"
        else _XCLIENT_VALUE.fullmatch(value) is not None
    )
    if not is_good:
        raise Malformed(501, "5.5.4", f"Bad value of XCLIENT {name}")
    return value.upper() if name == "PROTO" else value


# ---- BDAT (RFC 3030 2)

_BDAT = re.compile(rb"[Bb][Dd][Aa][Tt] +([0-9]{1,20})( +[Ll][Aa][Ss][Tt])? *")


def parse_bdat(line: bytes) -> tuple[int, bool]:
    """`BDAT size [LAST]` -> (octets, is last). Raises Malformed 501 5.5.4; the chunk's end is then unknown."""
    match = _BDAT.fullmatch(line)
    if match is None:
        raise Malformed(501, "5.5.4", "Syntax: BDAT octets [LAST]")
    return int(match[1]), match[2] is not None
