"""`posthof send`: one mail into a running house, and what it answered. Also the SMTP submission that sendmail uses.

Rules of this file
- All or nothing: when one recipient is refused, nothing is sent, and the exit code says so truthfully.
- Content is put into wire form once (`wire`): any line end becomes CRLF, which is what makes text a mail.
- Exit codes are those of sysexits.h: 0 sent, 75 try again later, 67 no such recipient, 69 refused.
"""

from __future__ import annotations

import argparse
import contextlib
import email.utils
import os
import re
import smtplib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

EX_OK, EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_NOUSER = 0, 64, 65, 66, 67
EX_UNAVAILABLE, EX_TEMPFAIL = 69, 75

SERVER = "127.0.0.1:2525"
SECONDS = 300.0  # for each answer: one that comes after we gave up would be a mail sent twice

_LINE_END = re.compile(rb"\r\n|\r|\n")
_QUEUE_ID = re.compile(r"\b([a-z0-9]+-[0-9]+)\b")


class Mail(NamedTuple):
    sender: str
    recipients: Sequence[str]
    content: bytes  # wire form


class Options(NamedTuple):
    """What goes with a message beside its addresses."""

    notify: str = ""  # "SUCCESS,FAILURE" (RFC 3461 4.1)
    ret: str = ""  # "FULL", "HDRS"
    envid: str = ""
    helo: str = ""
    starttls: bool = False


PLAIN = Options()


class Accepted(NamedTuple):
    server: str  # "127.0.0.1:2525"
    code: int
    text: str

    @property
    def queue_id(self) -> str:
        found = _QUEUE_ID.search(self.text)
        return found[1] if found else ""


class NotSent(Exception):
    """Nothing was sent. `exit_code` is of sysexits.h; the text is for the person at the terminal."""

    def __init__(self, exit_code: int, text: str, *, code: int = 0, is_unreachable: bool = False) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.code = code
        self.is_unreachable = is_unreachable


class _Client(smtplib.SMTP):
    """smtplib with its dialogue given to a function instead of stderr."""

    say: Callable[[str], object] | None = None

    def putcmd(self, cmd: str, args: str = "") -> None:
        if self.say is not None:
            self.say(f"C: {cmd} {args}".rstrip())
        super().putcmd(cmd, args)

    def getreply(self) -> tuple[int, bytes]:
        code, text = super().getreply()
        if self.say is not None:
            for line in _text(text).split("\n"):
                self.say(f"S: {code} {line}")
        return code, text


def wire(content: bytes) -> bytes:
    """Text as it goes over the wire: every line end is CRLF, the last line has one."""
    content = _LINE_END.sub(b"\r\n", content)
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def submit(
    server: str,
    mail: Mail,
    options: Options = PLAIN,
    *,
    say: Callable[[str], object] | None = None,
    timeout: float = SECONDS,
) -> Accepted:
    """Hand `mail` to `server` ("host:port", "[::1]:25" or "host"). Raises NotSent; then nothing was sent.

    `timeout`: seconds for each answer."""
    host, port = split(server)
    check(mail.sender, *mail.recipients)
    client = _Client(local_hostname=options.helo or None, timeout=timeout)
    client.say = say
    try:
        with contextlib.closing(client):
            code, text = client.connect(host, port)
            if code != 220:
                raise _refused(code, text, f"{server} does not greet us")
            _hello(client, server, options)
            _envelope(client, server, mail, options)
            code, text = client.data(mail.content)
            if code != 250:
                raise _refused(code, text, f"{server} refused the message")
            _quit(client)
    except smtplib.SMTPDataError as error:
        raise _refused(error.smtp_code, error.smtp_error, f"{server} refused the message") from error
    except (OSError, smtplib.SMTPException) as error:
        unreachable = isinstance(error, ConnectionRefusedError)
        raise NotSent(EX_TEMPFAIL, f"{server}: {error}", is_unreachable=unreachable) from error
    return Accepted(server, code, _text(text))


def _hello(client: _Client, server: str, options: Options) -> None:
    code, text = client.ehlo()
    if code != 250:
        code, text = client.helo()
    if code != 250:
        raise _refused(code, text, f"{server} refused our EHLO")
    if options.starttls:
        import ssl

        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a test mail to one's own house; its certificate may be self-signed
        client.starttls(context=context)
        client.ehlo()


def _envelope(client: _Client, server: str, mail: Mail, options: Options) -> None:
    """MAIL and RCPT, with the parameters the server offers."""
    sender, recipients, content = mail
    end = content.find(b"\r\n\r\n")
    is_utf8 = not all(a.isascii() for a in (sender, *recipients)) or not content[: max(end, 0)].isascii()
    has_dsn = client.has_extn("dsn")
    parameters = [f"SIZE={len(content)}"] if client.has_extn("size") else []
    if not content.isascii() and client.has_extn("8bitmime"):
        parameters.append("BODY=8BITMIME")
    if is_utf8 and client.has_extn("smtputf8"):
        parameters.append("SMTPUTF8")
        client.command_encoding = "utf-8"
    if has_dsn and options.ret:
        parameters.append(f"RET={options.ret}")
    if has_dsn and options.envid:
        parameters.append(f"ENVID={_xtext(options.envid)}")
    try:
        code, text = client.docmd("MAIL", " ".join((f"FROM:<{sender}>", *parameters)))
        if code != 250:
            raise _refused(code, text, f"{server} refused the sender <{sender}>")
        refused: list[NotSent] = []
        for recipient in recipients:
            notify = [f"NOTIFY={options.notify}"] if has_dsn and options.notify else []
            code, text = client.docmd("RCPT", " ".join((f"TO:<{recipient}>", *notify)))
            if code not in (250, 251):
                refused.append(_refused(code, text, f"{server} refused <{recipient}>", EX_NOUSER))
    except UnicodeEncodeError as error:
        raise NotSent(EX_DATAERR, f"{server} takes no addresses beyond ASCII") from error
    if refused:
        worst = next((one for one in refused if one.exit_code == EX_TEMPFAIL), refused[0])
        raise NotSent(worst.exit_code, "\n".join(map(str, refused)), code=worst.code)


def _quit(client: _Client) -> None:
    """The message is the server's; how the session ends does not matter any more."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        client.quit()


def _refused(code: int, text: bytes | str, what: str, permanent: int = EX_UNAVAILABLE) -> NotSent:
    is_temporary = 400 <= code < 500 or code <= 0
    return NotSent(EX_TEMPFAIL if is_temporary else permanent, f"{what}: {code} {_text(text)}", code=code)


def check(*addresses: str) -> None:
    """NotSent for an address that would break a command or a header field."""
    for address in addresses:
        if not address.isprintable() or "<" in address or ">" in address:
            raise NotSent(EX_DATAERR, f"{address!r} is no address")


def split(server: str) -> tuple[str, int]:
    """`host:port` -> its parts; the port is 25 where it is missing. NotSent for what is neither."""
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]") or (server.count(":") > 1 and not server.startswith("[")):
        host, port = server, "25"
    if not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise NotSent(EX_USAGE, f"{server!r} is no server; it looks like {SERVER}")
    return host.strip("[]"), int(port)


def _xtext(text: str) -> str:
    """RFC 3461 4."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def _text(reply: bytes | str) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply


# -------------------------------------------------------------------- the command


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`posthof send`."""
    parser = subparsers.add_parser(
        "send",
        help="send a test mail and show what the server answers",
        description="Send one mail over SMTP and show what the server answers.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is sent, and how: the same here and into an MTA of a cluster."""
    parser.add_argument("--from", dest="sender", metavar="A", help="the sender; <> is the null sender")
    parser.add_argument(
        "--to", dest="recipients", metavar="B", action="append", required=True, help="may be repeated"
    )
    parser.add_argument("--subject", default="A test mail", help="default: %(default)s")
    content = parser.add_mutually_exclusive_group()
    content.add_argument("--body", metavar="TEXT", help="default: a line of text")
    content.add_argument("-f", "--file", metavar="FILE", help="a whole message, header and body; - is standard input")
    parser.add_argument("--server", default=SERVER, metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--helo", default="", metavar="NAME", help="the name to say in EHLO")
    parser.add_argument("--starttls", action="store_true", help="speak TLS; the certificate is not checked")
    parser.add_argument("--notify", default="", metavar="WHEN", help="never, or of success,failure,delay (RFC 3461)")
    parser.add_argument("--ret", default="", choices=("full", "hdrs"), help="what a report sends back (RFC 3461)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the dialogue")


def run(args: argparse.Namespace) -> int:
    """Send it. 0, or an exit code of sysexits.h."""
    sender = own_address() if args.sender is None else args.sender.strip("<>")
    recipients = [one.strip("<>") for one in args.recipients]
    try:
        notify = notify_of(args.notify)
        check(sender, *recipients)
        if args.file:
            content = wire(read(args.file))
        else:
            content = compose(sender, recipients, args.subject, args.body)
        options = Options(notify, args.ret.upper(), helo=args.helo, starttls=args.starttls)
        mail = Mail(sender, recipients, content)
        accepted = submit(args.server, mail, options, say=print if args.verbose else None)
    except NotSent as error:
        print(f"not sent: {error}", file=sys.stderr)
        if error.is_unreachable:
            print(f"nothing listens at {args.server}; `posthof up -f DIR` starts a house", file=sys.stderr)
        return error.exit_code
    print(f"{accepted.server} took it: {accepted.code} {accepted.text}")
    if accepted.queue_id:
        print(f"queue id: {accepted.queue_id}   (posthof trace {accepted.queue_id})")
    return EX_OK


def read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise NotSent(EX_NOINPUT, f"{file}: {error.strerror}") from error


def compose(sender: str, recipients: Sequence[str], subject: str, body: str | None) -> bytes:
    """A plain mail in wire form."""
    from email.message import EmailMessage
    from email.policy import SMTP, SMTPUTF8

    text = body if body is not None else f"A test mail, sent with `posthof send` at {time.strftime('%H:%M:%S')}."
    message = EmailMessage()
    message["From"] = sender or "mailer-daemon@" + origin()
    message["To"] = ", ".join(recipients)
    message["Subject"] = " ".join(subject.split())
    message["Date"] = email.utils.formatdate(localtime=True)
    message["Message-ID"] = email.utils.make_msgid(domain=origin())
    message.set_content(text)
    is_ascii = all(one.isascii() for one in (sender, *recipients))
    return wire(message.as_bytes(policy=SMTP if is_ascii else SMTPUTF8))


def notify_of(given: str) -> str:
    """The NOTIFY parameter for "success,failure"; NotSent for what RFC 3461 4.1 does not know."""
    words = [word.strip().upper() for word in given.split(",") if word.strip()]
    if set(words) - {"NEVER", "SUCCESS", "FAILURE", "DELAY"} or ("NEVER" in words and len(words) > 1):
        raise NotSent(EX_USAGE, f"{given!r}: write never, or a list of success, failure, delay")
    return ",".join(words)


def origin() -> str:
    """The domain of this host's own mail: POSTHOF_ORIGIN, else /etc/mailname, else the host's full name."""
    if given := os.environ.get("POSTHOF_ORIGIN", "").strip():
        return given
    try:
        mailname = Path("/etc/mailname").read_text("ascii", "replace").split()
    except OSError:
        mailname = []
    return mailname[0] if mailname else socket.getfqdn()


def own_address() -> str:
    """Who runs this program, as an address."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{origin()}"
