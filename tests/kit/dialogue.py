"""Stand-ins around a server dialogue (a gate, a reception, a sink), and the runner of scripts.

A script (tests/dialogues/*.smtp) is one conversation, read line by line:

    # native only: reason                  the other listener lacks what is tested
    # with: message_size=1000 tls=STARTTLS settings of the listener and of the gate (see `Setting`)
    c -> TEXT                              the client sends TEXT and CRLF
    c => TEXT                              the client sends TEXT as it stands; no CRLF
    c <- TEXT                              the last line of the next reply begins with TEXT
    c <~ REGEX                             the last line of the next reply matches REGEX as a whole
    c <- 250-TEXT                          some other line of that reply begins so (told before its last line)
    c <! TEXT                              no line of that reply holds TEXT (told before its last line)
    c <- closed                            the server closes
    c tls                                  the handshake happens here
    mail <- KEY=VALUE ...                  the next message the gate took (sender, recipients, body, size, ...)
    mail none                              the gate has taken no further message

`\\r \\n \\t \\s \\0 \\xHH \\\\` are octets, `\\|` cuts the packet, `\\{CHAR*N}` repeats; the rest is UTF-8.
Lines that are empty or begin with `#` say nothing. Sending and expecting alternate: what is sent up to the next
expectation is a group, which the runner delivers whole, cut at `\\|`, or octet by octet.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kit import logins
from posthof_crds.engine import SUBMISSION, Listener, ListenerLimits, ListenerRole, TLSMode
from posthof_pod.listen import tls
from posthof_pod.model import Recipient
from posthof_pod.observe.events import RecordedEvents
from posthof_pod.replies import Reply, Temporary
from posthof_pod.smtp.server import (
    BodySink,
    Dialogue,
    Incoming,
    MailParameters,
    RecipientParameters,
    Request,
    Session,
    Terms,
)

FOLDER = Path(__file__).resolve().parent.parent / "dialogues"
HOSTNAME = "mx.posthof.test"


class Sink:
    """A blob in memory. `pending` grows with each write and falls with each drain."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.pending = 0
        self.drains = 0
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.content += data
        self.pending += len(data)

    async def drain(self) -> None:
        self.drains += 1
        self.pending = 0

    def abort(self) -> None:
        self.is_aborted = True


@dataclass
class Taken:
    """A message as the gate took it."""

    sender: str
    recipients: tuple[str, ...]
    body: bytes
    size: int
    has_binary: bool
    protocol: str
    parameters: MailParameters
    notify: tuple[int, ...]
    orcpt: tuple[str, ...]
    client: str
    helo: str
    head: bytes
    is_streamed: bool


class PlainGate:
    """Takes mail for *.test, knows no `nobody@`, wants `later@` later, and keeps what it took in `mails`.

    `deferred@` is answered by an awaitable; `trouble@` fails with an exception of ours, `broken@` with a foreign one.
    """

    def __init__(self) -> None:
        self.mails: list[Taken] = []
        self.sinks: list[Sink] = []
        self.answer = Reply(250, "2.0.0", "Queued")
        self.is_full = False
        self.can_stream = True
        self.accounts = logins.accounts()

    def knows(self, session: Session) -> bool:
        return self.accounts.knows(session)

    def authenticate(self, session: Session, mechanism: str) -> Any:
        return self.accounts.authenticate(session, mechanism)

    def sender(self, session: Session, address: str, parameters: MailParameters) -> Reply | None:
        if session.credential:
            return self.accounts.sender(session, address)
        if address.startswith("banned@"):
            return Reply(550, "5.7.1", "Sender refused")
        return None

    def recipient(self, session: Session, sender: str, address: str, parameters: RecipientParameters) -> Any:
        local, _, domain = address.rpartition("@") if "@" in address else (address, "", "posthof.test")
        if local == "nobody":
            return Reply(550, "5.1.1", "No such mailbox")
        if local == "later":
            return Reply(450, "4.2.1", "Not now")
        if local == "trouble":
            raise Temporary(Reply(451, "4.3.0", "Cannot say"), "a look-up failed")
        if local == "broken":
            raise LookupError("a fault of the gate")
        if not domain.endswith("test") and not session.credential:
            return Reply(550, "5.7.1", "Relaying denied")
        found = (Recipient(address, notify=int(parameters.notify), orcpt=parameters.orcpt),)
        return _at_once(found) if local == "deferred" else found

    def room(self, size: int) -> Reply | None:
        return Reply(452, "4.3.1", "The spool is full") if self.is_full else None

    def blob(self, session: Session) -> BodySink:
        if not self.can_stream:
            raise Temporary(Reply(452, "4.3.1", "The spool is full"), "no space")
        self.sinks.append(Sink())
        return self.sinks[-1]

    async def accept(self, mail: Incoming) -> Reply:
        body = mail.body
        if mail.session.credential and (refusal := self.accounts.submits(mail)) is not None:
            return refusal
        self.mails.append(
            Taken(
                mail.sender,
                tuple(one.address for one in mail.recipients),
                body if isinstance(body, bytes) else bytes(body.content),  # type: ignore[attr-defined]  # our Sink
                mail.size,
                mail.has_binary,
                mail.protocol,
                mail.parameters,
                tuple(one.notify for one in mail.recipients),
                tuple(one.orcpt for one in mail.recipients),
                mail.session.client,
                mail.session.helo,
                mail.header_block(),
                not isinstance(body, bytes),
            )
        )
        return self.answer


async def _at_once(value: object) -> object:
    return value


class Desk:
    """A Reception for one sans-IO session."""

    def __init__(self, gate: PlainGate, terms: Terms) -> None:
        self.gate = gate
        self.terms = terms
        self.coming = 0
        self.refusals: list[tuple[str, str | None, str | None, Reply]] = []
        self.faults: list[tuple[str, BaseException]] = []
        self.message_reply: Reply | None = None
        self.move_reply: Reply | None = None

    def admits_message(self, session: Session) -> Reply | None:
        return self.message_reply

    def authenticate(self, session: Session, mechanism: str) -> Any:
        return self.gate.authenticate(session, mechanism)

    def moves(self, session: Session, client: str) -> Reply | None:
        return self.move_reply

    def refused(self, session: Session, verb: str, sender: str | None, recipient: str | None, reply: Reply) -> None:
        self.refusals.append((verb, sender, recipient, reply))

    def failed(self, where: str, error: BaseException) -> None:
        self.faults.append((where, error))


@dataclass
class Setting:
    """What `# with:` of a script sets: fields of ListenerLimits by name, and these."""

    role: ListenerRole = ListenerRole.MX
    tls: TLSMode = TLSMode.OFF
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    xclient: tuple[str, ...] = ()
    proxy: tuple[str, ...] = ()
    normalise: bool = False
    blob_threshold: int = 256 * 1024
    is_full: bool = False
    can_stream: bool = True
    limits: dict[str, Any] = field(default_factory=dict)

    def listener(self, *, implementation: str = "native") -> Listener:
        return Listener(
            name="in",
            role=self.role,
            host="127.0.0.1",
            port=0,
            tls=self.tls,
            mechanisms=self.mechanisms if self.role in SUBMISSION else (),
            proxy_trusted=self.proxy,
            xclient_trusted=self.xclient,
            normalise_newlines=self.normalise,
            implementation=implementation,
            limits=ListenerLimits(**self.limits),
        )

    def gate(self) -> PlainGate:
        gate = PlainGate()
        gate.is_full = self.is_full
        gate.can_stream = self.can_stream
        return gate


def finish(awaited: Any) -> object:
    """The result of an awaitable that does not suspend."""
    step = awaited.__await__()
    try:
        while True:
            next(step)
    except StopIteration as stop:
        return stop.value


class Talk:
    """A sans-IO dialogue driven at once: what is awaited is awaited here."""

    def __init__(self, setting: Setting | None = None, gate: PlainGate | None = None) -> None:
        setting = setting or Setting()
        self.gate = gate or setting.gate()
        listener = setting.listener()
        terms = Terms(listener, HOSTNAME, has_certificate=True, blob_threshold=setting.blob_threshold)
        self.desk = Desk(self.gate, terms)
        self.session = Session("192.0.2.1", listener="in", role=setting.role)
        self.session.has_xclient = bool(setting.xclient)
        self.dialogue = Dialogue(self.session, self.desk)
        self.writes: list[bytes] = []

    def say(self, data: bytes) -> bytes:
        """Octets in, all replies out; each piece written apart is also kept in `writes`."""
        written = [self.dialogue.feed(data)]
        while self.dialogue.request is Request.WAIT:
            written.append(self.dialogue.resume(finish(self.dialogue.awaited)))
        written = [piece for piece in written if piece]
        self.writes += written
        return b"".join(written)

    @property
    def is_closed(self) -> bool:
        return self.dialogue.request is Request.CLOSE


# ---- scripts


@dataclass
class Send:
    packets: list[bytes]


@dataclass
class Expect:
    text: str
    arrow: str
    line: int

    @property
    def is_about_other_lines(self) -> bool:
        return self.arrow == "<!" or (self.arrow == "<-" and re.match(r"\d{3}-", self.text) is not None)

    def check(self, reply: list[str], where: str) -> None:
        """`reply`: the lines of one whole reply."""
        if self.arrow == "<!":
            is_met = not any(self.text in line for line in reply)
        elif self.is_about_other_lines:
            is_met = any(line.startswith(self.text) for line in reply[:-1])
        elif self.arrow == "<~":
            is_met = re.fullmatch(self.text, reply[-1]) is not None
        else:
            is_met = reply[-1].startswith(self.text)
        assert is_met, f"{where}:{self.line}: expected {self.arrow} {self.text!r}, the server said {reply!r}"


@dataclass
class Closed:
    line: int


@dataclass
class Handshake:
    line: int


@dataclass
class Mail:
    wanted: dict[str, str] | None
    line: int

    def check(self, mails: Iterator[Taken], where: str) -> None:
        place = f"{where}:{self.line}"
        mail = next(mails, None)
        if self.wanted is None:
            assert mail is None, f"{place}: the gate took {mail}"
            return
        assert mail is not None, f"{place}: the gate took no message"
        for key, text in self.wanted.items():
            assert _shown(mail, key) == text, f"{place}: {key} is {_shown(mail, key)!r}, not {text!r}"


def _shown(mail: Taken, key: str) -> str:
    """A field of a message as scripts write it."""
    value = getattr(mail, key) if hasattr(mail, key) else getattr(mail.parameters, key)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, tuple):
        return ",".join(str(one) for one in value)
    return str(value.value if hasattr(value, "value") else value)


@dataclass
class Script:
    name: str
    setting: Setting
    native_only: str
    steps: list[Any]


_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|\{(.[^*]*)\*(\d+)\}|(.))", re.DOTALL)
_PLAIN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\", "s": b" "}


def octets(text: str) -> list[bytes]:
    """Packets of the octets a script's text stands for."""
    packets, at = [b""], 0
    for hit in _ESCAPE.finditer(text):
        packets[-1] += text[at : hit.start()].encode()
        at = hit.end()
        if hit[1]:
            packets[-1] += bytes([int(hit[1], 16)])
        elif hit[2]:
            packets[-1] += b"".join(octets(hit[2])) * int(hit[3])
        elif hit[4] == "|":
            packets.append(b"")
        else:
            packets[-1] += _PLAIN[hit[4]]
    packets[-1] += text[at:].encode()
    return packets


def read_script(path: Path) -> Script:
    """One .smtp file."""
    setting, native_only, steps = Setting(), "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("# native only:"):
            native_only = line.partition(":")[2].strip()
        elif line.startswith("# with:"):
            _read_setting(setting, line.partition(":")[2].split())
        elif line.strip() and not line.startswith("#"):
            steps.append(_read_step(line, number))
    return Script(path.stem, setting, native_only, _join_sends(steps))


def _read_setting(setting: Setting, words: list[str]) -> None:
    for word in words:
        key, _, value = word.partition("=")
        if key == "tls":
            setting.tls = TLSMode(value)
        elif key == "role":
            setting.role = ListenerRole(value)
        elif key == "mechanisms":
            setting.mechanisms = tuple(value.split(","))
        elif key in ("xclient", "proxy"):
            setattr(setting, key, tuple(value.split(",")))
        elif key in ("normalise", "is_full", "can_stream"):
            setattr(setting, key, value == "yes")
        elif key == "blob_threshold":
            setting.blob_threshold = int(value)
        else:
            setting.limits[key] = int(value)


def _read_step(line: str, number: int) -> Any:
    if line == "c <- closed":
        return Closed(number)
    if line == "c tls":
        return Handshake(number)
    if line == "mail none":
        return Mail(None, number)
    actor, arrow, text = [*line.split(" ", 2), ""][:3]
    if (actor, arrow) == ("mail", "<-"):
        pairs = (pair.partition("=") for pair in text.split())
        return Mail({key: b"".join(octets(value)).decode("latin-1") for key, _, value in pairs}, number)
    if actor != "c" or arrow not in ("->", "=>", "<-", "<~", "<!"):
        raise ValueError(f"line {number}: {line!r} is no step")
    if arrow.startswith("<"):
        return Expect(text, arrow, number)
    packets = octets(text)
    if arrow == "->":
        packets[-1] += b"\r\n"
    return Send(packets)


def _join_sends(steps: list[Any]) -> list[Any]:
    """Sends in a row are one group: the second continues the first one's last packet."""
    joined: list[Any] = []
    for step in steps:
        if isinstance(step, Send) and joined and isinstance(joined[-1], Send):
            joined[-1].packets[-1] += step.packets[0]
            joined[-1].packets += step.packets[1:]
        else:
            joined.append(step)
    return joined


def scripts() -> list[Script]:
    return [read_script(path) for path in sorted(FOLDER.glob("*.smtp"))]


Cut = Callable[[list[bytes]], list[bytes]]


def as_written(packets: list[bytes]) -> list[bytes]:
    return packets


def whole_group(packets: list[bytes]) -> list[bytes]:
    return [b"".join(packets)]


def octet_by_octet(packets: list[bytes]) -> list[bytes]:
    return [bytes([octet]) for octet in b"".join(packets)]


def play(script: Script, cut: Cut) -> None:
    """The script against a sans-IO dialogue; `cut` says how a group is delivered."""
    talk = Talk(script.setting)
    mails = InOrder(talk.gate.mails)
    said = talk.dialogue.greet().decode()
    reply: list[str] = []
    for step in script.steps:
        if isinstance(step, Send):
            said += b"".join(talk.say(packet) for packet in cut(step.packets)).decode()
        elif isinstance(step, Expect):
            while not _is_whole(reply):
                line, ended, said = said.partition("\r\n")
                assert ended, f"{script.name}:{step.line}: expected {step.text!r}, the server is silent"
                reply.append(line)
            step.check(reply, script.name)
            reply = reply if step.is_about_other_lines else []
        elif isinstance(step, Closed):
            assert talk.is_closed, f"{script.name}:{step.line}: the session goes on"
        elif isinstance(step, Handshake):
            assert talk.dialogue.request is Request.START_TLS, f"{script.name}:{step.line}: no TLS was asked for"
            talk.dialogue.tls_started("TLSv1.3 TLS_TEST")
        else:
            step.check(mails, script.name)
    assert not said, f"{script.name}: the server also said {said!r}"
    assert next(mails, None) is None, f"{script.name}: the gate took more than was told"
    assert not talk.desk.faults or "broken@" in repr(script.steps), talk.desk.faults


class InOrder:
    """The messages one after the other, also those that come after it said there is none."""

    def __init__(self, mails: list[Taken]) -> None:
        self._mails = mails
        self._at = 0

    def __iter__(self) -> Iterator[Taken]:
        return self

    def __next__(self) -> Taken:
        if self._at >= len(self._mails):
            raise StopIteration
        self._at += 1
        return self._mails[self._at - 1]


def _is_whole(reply: list[str]) -> bool:
    return bool(reply) and reply[-1][3:4] != "-"


# ---- scripts over real sockets

Make = Callable[..., Any]  # NativeListener or AiosmtpdListener
PATIENCE = 20.0  # seconds for one reply; only a failing test waits for it


@cache
def certificate() -> tls.Pair:
    return tls.self_signed([HOSTNAME], 86400.0, time.time())


@cache
def server_tls() -> ssl.SSLContext:
    return tls.server_context([tls.Certificate((HOSTNAME,), (certificate(),))])


def client_tls() -> ssl.SSLContext:
    """Trusts nobody but the test's certificate."""
    context = ssl.create_default_context(cadata=certificate().chain.decode())
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context


class House:
    """A listener on a free port of 127.0.0.1, for one test."""

    def __init__(self, make: Make, setting: Setting, gate: PlainGate | None = None) -> None:
        implementation = "native" if make.__name__ == "NativeListener" else "aiosmtpd"
        self.events = RecordedEvents()
        self.gate = gate or setting.gate()
        self.setting = setting
        self.listener = make(
            setting.listener(implementation=implementation),
            HOSTNAME,
            self.gate,
            contexts=server_tls,
            watch=self.events,
            blob_threshold=setting.blob_threshold,
            **({"tick": 0.05} if implementation == "native" else {}),
        )
        self.port = 0
        self.clients: list[Client] = []

    async def __aenter__(self) -> House:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.listener.start(sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        await self.listener.drain(2.0)

    async def connect(self, **extra: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **extra))
        self.clients.append(client)
        return client


class Client:
    """The other end, line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> list[str]:
        """The lines of the next reply; raises EOFError where the server closed instead."""
        lines: list[str] = []
        while not _is_whole(lines):
            line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
            if not line.endswith(b"\r\n"):
                raise EOFError(f"the server closed after {lines} and {line!r}")
            lines.append(line.decode().removesuffix("\r\n"))
        return lines

    async def say(self, *packets: bytes) -> None:
        for packet in packets:
            self.writer.write(packet)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def ask(self, *packets: bytes) -> str:
        """Says, and returns the last line of the reply."""
        await self.say(*packets)
        return (await self.reply())[-1]

    async def rest(self) -> bytes:
        """All the server says until it closes."""
        try:
            return await asyncio.wait_for(self.reader.read(-1), PATIENCE)
        except ConnectionError:
            return b""

    async def start_tls(self) -> None:
        await self.writer.start_tls(client_tls(), server_hostname=HOSTNAME)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


async def play_over_socket(script: Script, make: Make) -> None:
    """The script against a listener."""
    async with House(make, script.setting) as house:
        client = await house.connect()
        mails = InOrder(house.gate.mails)
        reply: list[str] = []
        is_closed = False
        try:
            for step in script.steps:
                if isinstance(step, Send):
                    await client.say(*step.packets)
                elif isinstance(step, Expect):
                    reply = reply or await client.reply()
                    step.check(reply, script.name)
                    reply = reply if step.is_about_other_lines else []
                elif isinstance(step, Closed):
                    said = await client.rest()
                    assert said == b"", f"{script.name}:{step.line}: the server said {said!r} before it closed"
                    is_closed = True
                elif isinstance(step, Handshake):
                    await client.start_tls()
                else:
                    step.check(mails, script.name)
        except (EOFError, OSError) as error:
            raise AssertionError(f"{script.name}:{step.line}: {error!r}") from error
        if not is_closed and client.writer.can_write_eof():
            client.writer.write_eof()
            said = await client.rest()
            assert said == b"", f"{script.name}: the server also said {said!r}"
        assert next(mails, None) is None, f"{script.name}: the gate took more than was told"
        await client.close()
