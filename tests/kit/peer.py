"""A scripted SMTP or LMTP server on a real socket: healthy by default, broken where the script says so.

It runs in threads of its own, so that it serves any loop, or none. A script is a table `step -> what happens there`:

    with Peer({"RCPT": ["250 2.1.5 ok", "550 5.1.1 no such user"], "DOT": RESET}) as peer:
        ...connect to ("127.0.0.1", peer.port)...
        assert peer.messages == []

Steps: CONNECT (before the banner), BANNER, EHLO, HELO, LHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, BODY (the first
bytes of the content, before the dot), DOT, BDAT (a chunk, not the last one), LAST (the last chunk), RSET, QUIT.
A list is used up one entry an occurrence (over all sessions), its last entry stays. What an entry may be:
- text: the reply, without CRLF ("\n" makes it a multi-line reply whose lines are given in full: "250-a\n250 b");
- bytes: sent as they are (half a line, garbage, too much);
- RESET (RST), CLOSE (FIN), SILENCE (says nothing more, keeps the connection);
- `Say(reply, then)`: sends and then resets, closes or falls silent;
- `Endless(chunk)`: sends the chunk again and again until the client gives up;
- DEFAULT: what a healthy peer does;
- a callable `(session, line) -> entry`.

`messages` holds what was received whole (dot or last chunk seen) with the code it was answered; `transcript` what
the client said. In LMTP mode a DOT or LAST entry that is a tuple gives one reply per accepted recipient.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kit.scratch import lasting


class Act:
    """A thing a peer does that is not a reply."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


RESET = Act("RESET")
CLOSE = Act("CLOSE")
SILENCE = Act("SILENCE")
DEFAULT = Act("DEFAULT")


@dataclass(frozen=True)
class Say:
    reply: str | bytes
    then: Act | Say = DEFAULT


@dataclass(frozen=True)
class Endless:
    chunk: bytes = b"x" * 4096


Entry = str | bytes | Act | Say | Endless | tuple[Any, ...] | Callable[["Session", bytes], Any]
Script = Mapping[str, Entry | Sequence[Entry]]

FULL = ("PIPELINING", "SIZE 36700160", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")


@dataclass
class Message:
    sender: str
    recipients: list[str]
    content: bytes  # dots unstuffed
    mail_line: bytes
    rcpt_lines: list[bytes]
    code: int  # of the (first) final reply the script chose; 0: none was chosen
    session: int
    by: str  # "DATA" or "BDAT"
    tls: bool = False


class _Gone(Exception):
    """The session ends."""


class Peer:
    """The server. A context manager; `port` (TCP on 127.0.0.1) or `path` (unix socket)."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        offers: Sequence[str] = FULL,
        lmtp: bool = False,
        path: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        implicit_tls: bool = False,
        client_ca: Path | None = None,
        password: tuple[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        delay: float = 0.0,
    ) -> None:
        self.offers = list(offers)
        self.lmtp = lmtp
        self.path = path
        self.implicit_tls = implicit_tls
        self.password = password
        self.delay = delay  # seconds before each write: makes round trips visible
        self.messages: list[Message] = []
        self.sessions: list[Session] = []
        self.transcript: list[bytes] = []
        self.server_names: list[str | None] = []  # what clients asked for (SNI)
        self.faults: list[str] = []  # protocol faults of the client this peer noticed
        self._script = {step: list(e) if isinstance(e, list) else [e] for step, e in (script or {}).items()}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
            self._context.sni_callback = lambda _, name, __: self.server_names.append(name)
        if self._context and client_ca:  # only clients with a certificate of this CA
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        if path is None:
            self._listener = socket.create_server((host, port), backlog=256)
            self.port: int = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen(256)
            self.port = 0
        self._thread = threading.Thread(target=self._serve, daemon=True, name="peer")
        self._is_open = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the listener and every session, as a server that was killed."""
        self._is_open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for session in list(self.sessions):
            session.kill()
            session.thread.join(5)

    def wait(self, condition: Callable[[Peer], bool], timeout: float = 10.0) -> None:
        """Until the condition holds; an AssertionError with what was seen otherwise."""
        end = time.monotonic() + timeout
        with self._changed:
            while not condition(self):
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"peer saw only {self.transcript[-20:]} and {len(self.messages)} messages")
                self._changed.wait(left)

    def said(self, verb: str) -> list[bytes]:
        """The client's command lines that begin with this verb."""
        return [line for line in self.transcript if line.upper().startswith(verb.upper().encode())]

    def _serve(self) -> None:
        while self._is_open:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            session = Session(self, connection, len(self.sessions))
            self.sessions.append(session)
            session.thread.start()

    def _entry(self, step: str) -> Any:
        with self._lock:
            entries = self._script.get(step)
            if not entries:
                return DEFAULT
            return entries.pop(0) if len(entries) > 1 else entries[0]

    def _note(self, line: bytes) -> None:
        with self._changed:
            self.transcript.append(line)
            self._changed.notify_all()

    def _keep(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()


@dataclass
class _Mail:
    sender: str | None = None
    mail_line: bytes = b""
    recipients: list[str] = field(default_factory=list)
    rcpt_lines: list[bytes] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)


class Session:
    """One connection, one thread."""

    def __init__(self, peer: Peer, connection: socket.socket, number: int) -> None:
        self.peer = peer
        self.number = number
        self.is_tls = False
        self.is_resumed = False  # the client came with a TLS session it had before
        self.reads = 0  # how many pieces the client's bytes came in
        self.mail = _Mail()
        self.client = connection.getpeername()  # (address, port) of a TCP client
        self._socket = connection
        self._buffer = b""
        self._is_silent = False
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"peer-{number}")

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def say(self, raw: bytes) -> None:
        if self.peer.delay:
            time.sleep(self.peer.delay)
        try:
            self._socket.sendall(raw)
        except OSError as error:
            raise _Gone from error

    def _run(self) -> None:
        # _Gone, OSError: the conversation is over, by script or by the client; what it held stands in `messages`
        with contextlib.suppress(_Gone, OSError):
            if self.peer.implicit_tls:
                self._encrypt()
            self._do("CONNECT", b"", "")
            self._do("BANNER", b"", "220 peer.test LMTP" if self.peer.lmtp else "220 peer.test ESMTP")
            while True:
                self._command(self._line())
        self._socket.close()

    # --- what happens at a step

    def _do(self, step: str, line: bytes, healthy: str) -> int:
        """Do what the script says; gives the code of the reply (0: no SMTP reply)."""
        entry = self.peer._entry(step)
        while callable(entry):
            entry = entry(self, line)
        return self._act(healthy if entry is DEFAULT else entry)

    def _act(self, entry: Any) -> int:
        if isinstance(entry, Say):
            code = self._act(entry.reply)
            self._act(entry.then)
            return code
        if isinstance(entry, Endless):
            while True:
                self.say(entry.chunk)
        if isinstance(entry, bytes):
            self.say(entry)
            return _code(entry)
        if isinstance(entry, str):
            if entry:
                self.say(entry.replace("\n", "\r\n").encode() + b"\r\n")
            return _code(entry.encode())
        if entry is RESET:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
        if entry is CLOSE:
            raise _Gone
        if entry is SILENCE:
            while self._receive():
                pass
            raise _Gone
        return 0

    def _receive(self) -> bytes:
        return self._socket.recv(65536)

    def _fill(self) -> None:
        data = self._receive()
        if not data:
            raise _Gone
        self.reads += 1
        self._buffer += data

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._fill()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        self.peer._note(line)
        return line

    # --- the commands

    def _command(self, line: bytes) -> None:
        verb = line.split(b" ", 1)[0].upper().decode("ascii", "replace")
        handler = getattr(self, f"_on_{verb.lower()}", None)
        if handler is None:
            self.peer.faults.append(f"unknown command {line!r}")
            self.say(b"500 5.5.2 what?\r\n")
            return
        handler(line)

    def _offer(self) -> str:
        lines = ["peer.test", *self.peer.offers]
        if self.peer._context and not self.is_tls:
            lines.append("STARTTLS")
        if self.peer.password:
            lines.append("AUTH PLAIN LOGIN")
        return "\n".join(f"250{' ' if n == len(lines) - 1 else '-'}{text}" for n, text in enumerate(lines))

    def _on_ehlo(self, line: bytes) -> None:
        self.mail = _Mail()
        self._do("EHLO", line, "500 5.5.1 this is LMTP" if self.peer.lmtp else self._offer())

    def _on_helo(self, line: bytes) -> None:
        self.mail = _Mail()
        self._do("HELO", line, "250 peer.test")

    def _on_lhlo(self, line: bytes) -> None:
        self.mail = _Mail()
        self._do("LHLO", line, self._offer() if self.peer.lmtp else "500 5.5.1 this is SMTP")

    def _on_starttls(self, line: bytes) -> None:
        code = self._do("STARTTLS", line, "220 2.0.0 go ahead" if self.peer._context else "502 5.5.1 no TLS here")
        if code == 220:
            self._encrypt()

    def _encrypt(self) -> None:
        if self.peer._context is None:
            raise _Gone
        try:
            self._socket = self.peer._context.wrap_socket(self._socket, server_side=True)
        except (ssl.SSLError, OSError) as error:
            raise _Gone from error
        self.is_tls = True
        self.is_resumed = bool(self._socket.session_reused)
        self._buffer = b""

    def _on_auth(self, line: bytes) -> None:
        words = line.split()
        healthy = "504 5.5.4 unknown mechanism"
        if words[1].upper() == b"PLAIN" and len(words) == 3:
            _, user, password = base64.b64decode(words[2]).split(b"\0")
            healthy = self._judge(user, password)
        elif words[1].upper() == b"LOGIN":
            self.say(b"334 VXNlcm5hbWU6\r\n")
            user = base64.b64decode(self._line())
            self.say(b"334 UGFzc3dvcmQ6\r\n")
            healthy = self._judge(user, base64.b64decode(self._line()))
        self._do("AUTH", line, healthy)

    def _judge(self, user: bytes, password: bytes) -> str:
        if self.peer.password == (user.decode(), password.decode()):
            return "235 2.7.0 welcome"
        return "535 5.7.8 wrong name or password"

    def _on_mail(self, line: bytes) -> None:
        if self.mail.sender is not None:
            self.say(b"503 5.5.1 nested MAIL\r\n")
            self.peer.faults.append("nested MAIL")
            return
        if self._do("MAIL", line, "250 2.1.0 ok") // 100 == 2:
            self.mail = _Mail(sender=_path(line), mail_line=line)

    def _on_rcpt(self, line: bytes) -> None:
        if self.mail.sender is None:
            self.say(b"503 5.5.1 MAIL first\r\n")
        elif self._do("RCPT", line, "250 2.1.5 ok") // 100 == 2:
            self.mail.recipients.append(_path(line))
            self.mail.rcpt_lines.append(line)

    def _on_data(self, line: bytes) -> None:
        if not self.mail.recipients:
            self._do("NODATA", line, "503 5.5.1 no valid recipients")
            return
        if self._do("DATA", line, "354 go ahead") != 354:
            return
        body_entry = self.peer._entry("BODY")
        if body_entry is not DEFAULT:
            while not self._buffer:
                self._fill()
            self._act(body_entry)
        self._finish("DOT", line, self._until_dot(), "DATA")

    def _until_dot(self) -> bytes:
        """The content, dots unstuffed; exactly CRLF . CRLF ends it (RFC 5321 4.1.1.4)."""
        pieces = bytearray(b"\r\n")  # the CRLF of the DATA line counts as the one before the dot
        searched = 0
        while True:
            pieces += self._buffer
            self._buffer = b""
            end = pieces.find(b"\r\n.\r\n", max(0, searched - 5))
            if end >= 0:
                self._buffer = bytes(pieces[end + 5 :])
                return bytes(pieces[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
            searched = len(pieces)
            self._fill()

    def _on_bdat(self, line: bytes) -> None:
        words = line.upper().split()
        size = int(words[1])
        while len(self._buffer) < size:
            body_entry = self.peer._entry("BODY") if self._buffer else DEFAULT
            if body_entry is not DEFAULT:
                self._act(body_entry)
            self._fill()
        chunk, self._buffer = self._buffer[:size], self._buffer[size:]
        if not self.mail.recipients:
            self.say(b"503 5.5.1 no valid recipients\r\n")
            return
        self.mail.chunks.append(chunk)
        if len(words) > 2 and words[2] == b"LAST":
            self._finish("LAST", line, b"".join(self.mail.chunks), "BDAT")
        elif self._do("BDAT", line, f"250 2.0.0 {size} bytes") // 100 != 2:
            self.mail = _Mail()

    def _finish(self, step: str, line: bytes, content: bytes, by: str) -> None:
        mail, self.mail = self.mail, _Mail()
        message = Message(
            sender=mail.sender or "",
            recipients=mail.recipients,
            content=content,
            mail_line=mail.mail_line,
            rcpt_lines=mail.rcpt_lines,
            code=0,
            session=self.number,
            by=by,
            tls=self.is_tls,
        )
        self.peer._keep(message)
        if not self.peer.lmtp:
            message.code = self._do(step, line, f"250 2.0.0 queued as {len(self.peer.messages)}")
            return
        entry = self.peer._entry(step)
        replies = entry if isinstance(entry, tuple) else (entry,) * len(mail.recipients)
        for address, reply in zip(mail.recipients, replies, strict=False):
            code = self._act(f"250 2.1.5 <{address}> stored" if reply is DEFAULT else reply)
            message.code = message.code or code

    def _on_rset(self, line: bytes) -> None:
        self.mail = _Mail()
        self._do("RSET", line, "250 2.0.0 ok")

    def _on_noop(self, line: bytes) -> None:
        self._do("NOOP", line, "250 2.0.0 ok")

    def _on_quit(self, line: bytes) -> None:
        self._do("QUIT", line, "221 2.0.0 bye")
        raise _Gone


def _code(reply: bytes) -> int:
    last = reply.rstrip(b"\r\n").rsplit(b"\n", 1)[-1][:3]
    return int(last) if last.isdigit() else 0


def _path(line: bytes) -> str:
    return line[line.index(b"<") + 1 : line.rindex(b">")].decode()


_PAIRS: dict[tuple[str, ...], tuple[Path, Path]] = {}


def certificate(*names: str) -> tuple[Path, Path]:
    """A self-signed pair (certificate file, key file) for these DNS names or IP addresses; made once a process."""
    if names not in _PAIRS:
        _PAIRS[names] = _make_pair(names)
    return _PAIRS[names]


def _make_pair(names: tuple[str, ...]) -> tuple[Path, Path]:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    entries: list[x509.GeneralName] = []
    for name in names:
        try:
            entries.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            entries.append(x509.DNSName(name))
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(entries), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = lasting("peer")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"
