"""The end of the line: an SMTP server that keeps nothing but which mail came, how often, and for whom.

    /seen            {"count": mails, "again": {id: times more than once}, "ids": [...]}
    /mails?id=...    what is known of one mail: envelope, size, when, header, and each time it came
    /set?reply=...   answer each end of data with this ("" is 250), after ?wait= seconds; ?connect=421 ... answers
                     connections so
    /forget

A mail's id is its X-Id field, or its Message-ID.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from web import Query, serve


class Sink:
    def __init__(self) -> None:
        self.mails: dict[str, list[dict[str, Any]]] = {}
        self.reply = ""
        self.greeting = ""
        self.wait = 0.0
        self.sessions = 0

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        self.sessions += 1
        try:
            writer.write((self.greeting or "220 sink ESMTP").encode() + b"\r\n")
            await self._dialogue(peer, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the peer has gone; what came whole is kept
        finally:
            self.sessions -= 1
            writer.close()

    async def _dialogue(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, recipients = "", list[str]()
        while line := await reader.readline():
            verb = line[:4].upper()
            reply = b"250 ok"
            if verb == b"EHLO":
                reply = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 0"
            elif verb == b"MAIL":
                sender, recipients = _address(line), []
            elif verb == b"RCPT":
                recipients.append(_address(line))
            elif verb == b"RSET":
                sender, recipients = "", []
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
                content = await _content(reader)
                if self.wait:
                    await asyncio.sleep(self.wait)
                reply = self.reply.encode() or b"250 kept"
                if reply.startswith(b"2"):
                    self.keep(peer, sender, recipients, content)
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                await writer.drain()
                return
            writer.write(reply + b"\r\n")
            await writer.drain()

    def keep(self, peer: str, sender: str, recipients: list[str], content: bytes) -> None:
        header = content.partition(b"\n\n")[0].decode(errors="replace")
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in reversed(header.split("\n")) if ":" in line)
        }
        found = fields.get("x-id") or fields.get("message-id") or f"nameless-{len(self.mails)}"
        self.mails.setdefault(found, []).append(
            {
                "from": sender,
                "to": recipients,
                "peer": peer,
                "at": time.time(),
                "size": len(content),
                "header": header,
                "text": content[:65536].decode(errors="replace"),
            }
        )
        if len(self.mails) > 1000:  # one whole header is of interest, thousands are not
            del self.mails[found][-1]["header"], self.mails[found][-1]["text"]

    # ------------------------------------------------------------ routes
    async def seen(self, _query: Query) -> object:
        again = {key: len(times) - 1 for key, times in self.mails.items() if len(times) > 1}
        return {"count": len(self.mails), "again": again, "ids": list(self.mails), "sessions": self.sessions}

    async def find(self, query: Query) -> object:
        return self.mails.get(query["id"][0], [])

    async def set(self, query: Query) -> object:
        self.reply = query.get("reply", [""])[0]
        self.greeting = query.get("connect", [""])[0]
        self.wait = float(query.get("wait", ["0"])[0])
        return {}

    async def forget(self, _query: Query) -> object:
        self.mails.clear()
        return {}


def _address(line: bytes) -> str:
    return line.partition(b"<")[2].partition(b">")[0].decode(errors="replace")


async def _content(reader: asyncio.StreamReader) -> bytes:
    """The content up to the final dot, dots unstuffed, with LF ends."""
    lines: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\n")
        if line == b".\r\n":
            return b"".join(lines)
        lines.append((line[1:] if line.startswith(b".") else line).replace(b"\r\n", b"\n"))


async def main() -> None:
    sink = Sink()
    server = await asyncio.start_server(sink.session, None, 2525, limit=1 << 22, backlog=1024)
    routes = {"seen": sink.seen, "mails": sink.find, "set": sink.set, "forget": sink.forget}
    async with server:
        await serve(routes)


if __name__ == "__main__":
    asyncio.run(main())
