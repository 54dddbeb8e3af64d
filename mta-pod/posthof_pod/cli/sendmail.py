"""`posthof sendmail`: mail from programs on this host, in the form of sendmail(1).

Where it goes: `--server HOST:PORT`, else POSTHOF_SUBMIT, else 127.0.0.1:25, else, if nobody listens there,
127.0.0.1:2525. There is no queue of our own before that server: while it is away the exit code is 75 and the caller
keeps the mail.

Rules of this file
- What a program writes is text: line ends of any kind become CRLF. A line with a lone dot ends it, unless -i or -oi.
- `-t` adds the recipients in To, Cc and Bcc (in the Resent- fields, where there are any) to those of the arguments.
- Bcc fields are never sent. From, Date and Message-ID are added where they are missing, nothing else is changed.
- Every recipient is taken or nothing is sent (send.py); what sendmail(1) has and we need not is accepted and ignored.
"""

from __future__ import annotations

import argparse
import email.header
import email.utils
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from posthof_pod.cli import send
from posthof_pod.cli.send import EX_DATAERR, EX_OK, EX_USAGE, NotSent

SERVERS = ("127.0.0.1:25", send.SERVER)

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_ATTACHED = frozenset("bAdqM")  # options whose value, if any, follows directly
_WITH_VALUE = frozenset("BCDFfhLNOopRrVXe")  # options with a value, attached or as the next argument
_ALONE = frozenset("GimnsTtUvxI")
_HEADER_RECIPIENTS = ("to", "cc", "bcc")

_HELP = """usage: posthof sendmail [options] [recipient ...] < message

  -t              recipients are read from To, Cc and Bcc, too
  -i, -oi         a line with a lone dot does not end the message
  -f, -r ADDRESS  the envelope sender; <> is the null sender
  -F NAME         the full name in a From field that is added
  -N WHEN         reports: never, or of success,failure,delay     -R full|hdrs     -V ENVID
  -bm             read a message (the default)    -bp  show the queue    -bs  speak SMTP on standard input and output
  -v              show the dialogue
  --server HOST:PORT
"""


class Call(NamedTuple):
    """What a command line asks for."""

    recipients: tuple[str, ...] = ()
    mode: str = "m"
    sender: str | None = None  # None: who runs the program
    full_name: str = ""
    takes_header_recipients: bool = False
    ends_at_dot: bool = True
    notify: str = ""
    ret: str = ""
    envid: str = ""
    server: str = ""
    is_verbose: bool = False


# -------------------------------------------------------------------- the command line


def parse(arguments: Sequence[str]) -> Call:
    """Raises NotSent(EX_USAGE)."""
    given: dict[str, object] = {}
    recipients: list[str] = []
    for name, value in _options(arguments):
        if name == "":
            recipients += [address for _, address in email.utils.getaddresses([value]) if address] or [value]
        elif name == "b":
            given["mode"] = value or "m"
        elif name in "fr":
            given["sender"] = _sender(value)
        elif name == "F":
            given["full_name"] = value
        elif name == "t":
            given["takes_header_recipients"] = True
        elif name == "i" or (name == "o" and value == "i"):
            given["ends_at_dot"] = False
        elif name == "N":
            given["notify"] = send.notify_of(value)
        elif name == "R":
            given["ret"] = _ret(value)
        elif name == "V":
            given["envid"] = value
        elif name == "v":
            given["is_verbose"] = True
        elif name == "server":
            given["server"] = value
    return Call(tuple(recipients), **given)  # type: ignore[arg-type]  # the names and types are those above


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`(letter, value)` for each option, `("", address)` for each recipient."""
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--":
            yield from (("", one) for one in left)
            return
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name != "server":
                raise NotSent(EX_USAGE, f"unknown option {word}\n{_HELP}")
            yield name, value if equals else _next(left, word)
        elif word.startswith("-") and len(word) > 1:
            yield from _letters(word, left)
        else:
            yield "", word


def _letters(word: str, left: list[str]) -> Iterator[tuple[str, str]]:
    """The options in one word: `-ti`, `-fa@b.test`, `-oi`."""
    at = 1
    while at < len(word):
        letter, rest = word[at], word[at + 1 :]
        if letter in _ATTACHED:
            yield letter, rest
            return
        if letter in _WITH_VALUE:
            yield letter, rest or _next(left, word)
            return
        if letter not in _ALONE:
            raise NotSent(EX_USAGE, f"unknown option -{letter}\n{_HELP}")
        yield letter, ""
        at += 1


def _next(left: list[str], word: str) -> str:
    if not left:
        raise NotSent(EX_USAGE, f"{word} needs a value\n{_HELP}")
    return left.pop(0)


def _sender(given: str) -> str:
    if given.strip() in ("", "<>"):
        return ""
    address = email.utils.parseaddr(given)[1]
    if not address:
        raise NotSent(EX_USAGE, f"{given!r} is no address")
    return _qualified(address)


def _ret(given: str) -> str:
    if given.lower() not in ("full", "hdrs"):
        raise NotSent(EX_USAGE, f"-R {given}: write full or hdrs")
    return given.upper()


def _qualified(address: str) -> str:
    return address if "@" in address else f"{address}@{send.origin()}"


# -------------------------------------------------------------------- the message


def read(stream: BinaryIO, *, ends_at_dot: bool) -> bytes:
    """The message as it was written, without the dot that ended it."""
    if not ends_at_dot:
        return stream.read()
    lines: list[bytes] = []
    for line in stream:
        if line.rstrip(b"\r\n") == b".":
            break
        lines.append(line)
    return b"".join(lines)


def prepare(call: Call, raw: bytes) -> send.Mail:
    """The message as it is sent, and its recipients. Raises NotSent."""
    sender = send.own_address() if call.sender is None else call.sender
    fields, body = divide(send.wire(raw))
    recipients = list(call.recipients)
    if call.takes_header_recipients:
        recipients += header_recipients(fields)
        if not recipients:
            raise NotSent(EX_DATAERR, "no recipient, neither in To, Cc or Bcc nor on the command line")
    if not recipients:
        raise NotSent(EX_USAGE, f"no recipient: name one, or use -t\n{_HELP}")
    kept = [field for field in fields if _name(field) not in ("bcc", "resent-bcc")]
    head = b"".join([*kept, *missing(kept, sender, call.full_name)])
    wanted = dict.fromkeys(_qualified(one) for one in recipients)
    return send.Mail(sender, tuple(wanted), head + b"\r\n" + body)


def divide(content: bytes) -> tuple[list[bytes], bytes]:
    """Wire form -> (fields, each with its line ends; the body). Text without a header is all body."""
    lines = [line + b"\n" for line in content.split(b"\n")[:-1]]  # wire form ends with a line end
    fields: list[bytes] = []
    at = 1 if lines and lines[0].startswith(b"From ") else 0  # an mbox file's own line
    while at < len(lines):
        line = lines[at]
        if line == b"\r\n":
            at += 1
            break
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line
        elif _FIELD.match(line):
            fields.append(line)
        else:
            break  # the writer forgot the empty line
        at += 1
    return fields, b"".join(lines[at:])


def _name(field: bytes) -> str:
    found = _FIELD.match(field)
    return found[1].decode("ascii").lower() if found else ""


def header_recipients(fields: Sequence[bytes]) -> list[str]:
    """The addresses in To, Cc and Bcc, or in their Resent- forms where the message is sent again (RFC 5322 3.6.6)."""
    named = [(_name(field), field) for field in fields]
    is_resent = any(name.startswith("resent-") and name[7:] in _HEADER_RECIPIENTS for name, _ in named)
    wanted = {("resent-" if is_resent else "") + name for name in _HEADER_RECIPIENTS}
    texts: list[str] = []
    for name, field in named:
        if name in wanted:
            value = field.partition(b":")[2].replace(b"\r\n", b"").strip()
            try:
                texts.append(value.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise NotSent(EX_DATAERR, f"the {name} field is not UTF-8: {value!r}") from error
    return [address for _, address in email.utils.getaddresses(texts) if address]


def missing(fields: Sequence[bytes], sender: str, full_name: str) -> list[bytes]:
    """The fields every message has (RFC 5322 3.6) and this one does not."""
    there = {_name(field) for field in fields}
    added: list[bytes] = []
    if "from" not in there:
        address = sender or "mailer-daemon@" + send.origin()
        added.append(b"From: " + _mailbox(full_name or _full_name(), address) + b"\r\n")
    if "date" not in there:
        added.append(f"Date: {email.utils.formatdate(localtime=True)}\r\n".encode())
    if "message-id" not in there:
        added.append(f"Message-ID: {email.utils.make_msgid(domain=send.origin())}\r\n".encode("ascii", "replace"))
    return added


def _mailbox(name: str, address: str) -> bytes:
    name = " ".join(name.split())
    if not name:
        return address.encode("utf-8")
    if name.isascii():
        return email.utils.formataddr((name, "x@y")).replace("x@y", address).encode("utf-8")
    return f"{email.header.Header(name, 'utf-8').encode(linesep='')} <{address}>".encode()


def _full_name() -> str:
    """Whose program it is, as the system knows them."""
    if given := os.environ.get("NAME", ""):
        return given
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_gecos.partition(",")[0]
    except KeyError:
        return ""


# -------------------------------------------------------------------- what is done


def deliver(call: Call, stream: BinaryIO) -> send.Accepted:
    """Read a message and hand it to the server. Raises NotSent."""
    mail = prepare(call, read(stream, ends_at_dot=call.ends_at_dot))
    options = send.Options(call.notify, call.ret, call.envid)
    say = _tell if call.is_verbose else None
    servers = servers_of(call)
    for server in servers[:-1]:
        try:
            return send.submit(server, mail, options, say=say)
        except NotSent as error:
            if not error.is_unreachable:
                raise
    return send.submit(servers[-1], mail, options, say=say)


def servers_of(call: Call) -> tuple[str, ...]:
    given = call.server or os.environ.get("POSTHOF_SUBMIT", "")
    return (given,) if given else SERVERS


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def speak(call: Call) -> int:
    """-bs: the server's own SMTP, on standard input and output."""
    import selectors
    import socket

    failure: OSError | None = None
    for server in servers_of(call):
        try:
            connection = socket.create_connection(send.split(server), timeout=send.SECONDS)
            break
        except OSError as error:
            failure = error
    else:
        raise NotSent(send.EX_TEMPFAIL, f"no server answers: {failure}")
    with connection, selectors.DefaultSelector() as selector:
        connection.settimeout(None)
        selector.register(connection, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    octets = os.read(0, 65536)
                    if octets:
                        connection.sendall(octets)
                    else:
                        selector.unregister(0)
                        connection.shutdown(socket.SHUT_WR)
                else:
                    octets = connection.recv(65536)
                    if not octets:
                        return EX_OK
                    send_all(1, octets)


def send_all(fd: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(fd, octets) :]


def command(arguments: Sequence[str]) -> int:
    """What sendmail(1) would do; an exit code of sysexits.h."""
    if "--help" in arguments:
        print(_HELP, end="")
        return EX_OK
    try:
        call = parse(arguments)
        if call.mode == "p":
            from posthof_pod.cli import mailq as queue

            return queue.show([])
        if call.mode == "s":
            return speak(call)
        if call.mode == "i":
            return EX_OK  # newaliases: aliases stand in the MailDomains
        if call.mode != "m":
            raise NotSent(EX_USAGE, f"-b{call.mode} is not done here; `posthof up` runs the server\n{_HELP}")
        deliver(call, sys.stdin.buffer)
    except NotSent as error:
        print(f"sendmail: {error}", file=sys.stderr)
        return error.exit_code
    return EX_OK


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`posthof sendmail`: its options are sendmail's, so argparse only passes them on."""
    parser = subparsers.add_parser(
        "sendmail", help="send a mail as sendmail(1) does", prefix_chars="\0", add_help=False, usage=_HELP
    )
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return command(args.arguments)


def main() -> None:
    """The program `posthof-sendmail`, for /usr/sbin/sendmail."""
    sys.exit(command(sys.argv[1:]))


def mailq() -> None:
    """The program `posthof-mailq`."""
    from posthof_pod.cli import mailq as queue

    sys.exit(queue.show(sys.argv[1:]))


if __name__ == "__main__":
    main()
