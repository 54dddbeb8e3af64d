"""Mail that keeps coming: sessions that stay open and send one mail after the other.

    /start?host=&port=&to=a@b&to=c@d&rate=&sessions=&tls=1&size=&run=    begin, as `run` (default "main")
    /counts?run=     what has happened so far
    /accepted?run=   ids of the mails that got their 250 after the final dot
    /set?run=&to=..&rate=..   change it while it runs
    /stop?run=       finish the mail in progress, say QUIT; answers when all sessions have ended
    /once?host=&port=&to=&tls=1   one mail; {"id", "reply"}
    /rcpt?host=&port=&to=         RCPT only; {"reply"}
    /until?hosts=a,b&port=&to=&reply=250&seconds=   seconds until RCPT gets the reply at all hosts
    /serial?host=&port=           serial number and key type of the certificate presented
    /serials?hosts=a,b&port=&serial=&seconds=    seconds until all hosts present it

Counts: sent, accepted, refused {reply: n}, told (421, or QUIT-less end announced by it), dropped (a session that
ended with no reply), unknown (a mail whose final reply never came), unreachable (connections that did not come
about), sessions.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from dataclasses import dataclass, field

from web import Query, one, serve

PATIENCE = 60.0  # seconds for a reply: the other end may be frozen
QUIET = ssl.create_default_context()
QUIET.check_hostname = False
QUIET.verify_mode = ssl.CERT_NONE


class Ended(Exception):
    """The session is over: the reply that said so, or "" for none."""


class Session:
    """One SMTP session, from connect to QUIT. Every reply is its text, lines joined by a blank."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, host: str, port: int, tls: bool) -> Session:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 10)
        session = cls(reader, writer)
        try:
            await session.expect("220")
            await session.say("EHLO traffic.test", "250")
            if tls:
                await session.say("STARTTLS", "220")
                await writer.start_tls(QUIET)
                await session.say("EHLO traffic.test", "250")
        except BaseException:
            writer.close()
            raise
        return session

    async def expect(self, code: str) -> str:
        reply = await self.reply()
        if not reply.startswith(code):
            raise Ended(reply)
        return reply

    async def reply(self) -> str:
        """A 421 ends the session, and so does an end without a word."""
        words: list[str] = []
        while True:
            line = (await asyncio.wait_for(self._reader.readline(), PATIENCE)).decode(errors="replace")
            if not line.endswith("\n"):
                raise Ended("")
            words.append(line.rstrip() if not words else line[4:].rstrip())
            if line[3:4] != "-":
                break
        text = " ".join(words)
        if text.startswith("421"):
            raise Ended(text)
        return text

    async def say(self, line: str, code: str = "") -> str:
        self._writer.write(line.encode() + b"\r\n")
        await self._writer.drain()
        return await (self.expect(code) if code else self.reply())

    async def mail(self, sender: str, to: str, content: bytes) -> str:
        """The reply that decided: of MAIL or RCPT where they refuse, else of the final dot."""
        for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>"):
            reply = await self.say(line)
            if not reply.startswith("2"):
                await self.say("RSET")
                return reply
        reply = await self.say("DATA")
        if not reply.startswith("354"):
            return reply
        self._writer.write(content + b"\r\n.\r\n")
        await self._writer.drain()
        return await self.reply()

    async def quit(self) -> None:
        try:
            await asyncio.wait_for(self.say("QUIT"), 5)
        except (Ended, OSError, TimeoutError):
            pass  # it is over either way
        finally:
            self.close()

    def close(self) -> None:
        self._writer.close()

    def certificate(self) -> bytes | None:
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return found.getpeercert(binary_form=True) if found else None


@dataclass
class Run:
    """One flow of mail and what became of it."""

    host: str
    port: int
    to: list[str]
    rate: float
    sessions: int
    tls: bool
    size: int
    accepted: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    told: int = 0
    dropped: int = 0
    unknown: int = 0
    unreachable: int = 0
    open: int = 0
    slowest: float = 0.0
    last_words: list[str] = field(default_factory=list)
    is_over: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    sent: int = 0

    def start(self) -> None:
        self.tasks = [asyncio.create_task(self._flow()) for _ in range(self.sessions)]

    async def _flow(self) -> None:
        while not self.is_over:
            try:
                session = await Session.open(self.host, self.port, self.tls)
            except Ended as end:
                self.told += 1 if str(end) else 0
                self.unreachable += 0 if str(end) else 1
                self._note(f"greeting: {end or 'nothing'}")
                await asyncio.sleep(0.2)
                continue
            except (OSError, TimeoutError, ssl.SSLError) as fault:
                self.unreachable += 1
                self._note(f"connect: {fault!r}")
                await asyncio.sleep(0.2)
                continue
            self.open += 1
            try:
                await self._live(session)
                await session.quit()
            except Ended as end:
                self.told += 1 if str(end) else 0
                self.dropped += 0 if str(end) else 1
                self._note(str(end) or "the session ended without a word")
            except OSError as fault:
                self.dropped += 1
                self._note(repr(fault))
            finally:
                self.open -= 1
                session.close()

    async def _live(self, session: Session) -> None:
        while not self.is_over:
            if self.rate <= 0:
                await asyncio.sleep(0.05)
                continue
            began = time.monotonic()
            key = uuid.uuid4().hex
            to = self.to[self.sent % len(self.to)]
            self.sent += 1
            try:
                reply = await session.mail("sender@traffic.test", to, message(key, to, self.size))
            except Ended as end:
                if not str(end):
                    self.unknown += 1  # perhaps taken, perhaps not: never counted as accepted
                raise
            except OSError:
                self.unknown += 1
                raise
            took = time.monotonic() - began
            self.slowest = max(self.slowest, took)
            if reply.startswith("250"):
                self.accepted.append(key)
            else:
                self.refused[reply] = self.refused.get(reply, 0) + 1
            await asyncio.sleep(max(0.0, self.sessions / self.rate - took))

    def _note(self, text: str) -> None:
        self.last_words = [*self.last_words[-9:], text]

    def counts(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "accepted": len(self.accepted),
            "refused": self.refused,
            "told": self.told,
            "dropped": self.dropped,
            "unknown": self.unknown,
            "unreachable": self.unreachable,
            "open": self.open,
            "slowest": self.slowest,
            "lastWords": self.last_words,
        }


def message(key: str, to: str, size: int = 1000) -> bytes:
    """A mail of about `size` bytes, without the final dot."""
    head = ["From: sender@traffic.test", f"To: {to}", f"Subject: {key}", f"Message-ID: <{key}@traffic.test>"]
    head += [f"X-Id: {key}", ""]
    return "\r\n".join([*head, *["x" * 70] * max(1, size // 72)]).encode()


RUNS: dict[str, Run] = {}


async def start(query: Query) -> object:
    run = RUNS[one(query, "run", "main")] = Run(
        host=one(query, "host"),
        port=int(one(query, "port", "25")),
        to=query["to"],
        rate=float(one(query, "rate", "20")),
        sessions=int(one(query, "sessions", "4")),
        tls=bool(one(query, "tls")),
        size=int(one(query, "size", "1000")),
    )
    run.start()
    return {}


async def change(query: Query) -> object:
    run = RUNS[one(query, "run", "main")]
    run.to = query.get("to", run.to)
    run.rate = float(one(query, "rate", str(run.rate)))
    return {}


async def stop(query: Query) -> object:
    run = RUNS[one(query, "run", "main")]
    run.is_over = True
    await asyncio.gather(*run.tasks)
    return run.counts()


async def counts(query: Query) -> object:
    return RUNS[one(query, "run", "main")].counts()


async def accepted(query: Query) -> object:
    return RUNS[one(query, "run", "main")].accepted


async def once(query: Query) -> object:
    key, to = uuid.uuid4().hex, one(query, "to")
    session = await Session.open(one(query, "host"), int(one(query, "port", "25")), bool(one(query, "tls")))
    sender = one(query, "from", "sender@traffic.test")
    reply = await session.mail(sender, to, message(key, to, int(one(query, "size", "1000"))))
    await session.quit()
    return {"id": key, "reply": reply}


async def recipient(host: str, port: int, to: str) -> str:
    """What RCPT gets at a host; a text that begins with 000 where there is no session."""
    try:
        session = await Session.open(host, port, False)
        try:
            await session.say("MAIL FROM:<sender@traffic.test>", "250")
            return await session.say(f"RCPT TO:<{to}>")
        finally:
            await session.quit()
    except Ended as end:
        return str(end) or "000 the session ended without a word"
    except (OSError, TimeoutError) as fault:
        return f"000 {fault!r}"


async def rcpt(query: Query) -> object:
    return {"reply": await recipient(one(query, "host"), int(one(query, "port", "25")), one(query, "to"))}


async def until(query: Query) -> object:
    port, to, wanted = int(one(query, "port", "2525")), one(query, "to"), one(query, "reply", "250")

    async def at(host: str) -> str:
        return await recipient(host, port, to)

    return await _until_all(query, at, lambda reply: reply.startswith(wanted))


async def serial(query: Query) -> object:
    return {"serial": await _serial(one(query, "host"), int(one(query, "port", "2525")))}


async def serials(query: Query) -> object:
    port, wanted = int(one(query, "port", "2525")), one(query, "serial")

    async def at(host: str) -> str:
        return await _serial(host, port)

    return await _until_all(query, at, lambda found: found.split(" ")[0] == wanted)


async def _until_all(query, ask, is_right) -> dict[str, object]:  # type: ignore[no-untyped-def]  # routes of one file
    hosts, began = one(query, "hosts").split(","), time.monotonic()
    end = began + float(one(query, "seconds", "60"))
    while True:
        answers = await asyncio.gather(*(ask(host) for host in hosts))
        took = time.monotonic() - began
        if all(is_right(answer) for answer in answers):
            return {"reached": True, "seconds": took, "answers": answers}
        if time.monotonic() > end:
            return {"reached": False, "seconds": took, "answers": answers}
        await asyncio.sleep(0.02)


async def _serial(host: str, port: int) -> str:
    """`<serial in lower-case hex> <key type>` of the certificate at STARTTLS; "" where there is none."""
    from cryptography import x509

    try:
        session = await Session.open(host, port, True)
    except (Ended, OSError, TimeoutError, ssl.SSLError):
        return ""
    content = session.certificate()
    await session.quit()
    if content is None:
        return ""
    found = x509.load_der_x509_certificate(content)
    return f"{found.serial_number:x} {type(found.public_key()).__name__}"


if __name__ == "__main__":
    asyncio.run(
        serve(
            {
                "start": start,
                "set": change,
                "stop": stop,
                "counts": counts,
                "accepted": accepted,
                "once": once,
                "rcpt": rcpt,
                "until": until,
                "serial": serial,
                "serials": serials,
            }
        )
    )
