"""A server with mailboxes, by LMTP (RFC 2033) on 2424: for `bob` and `postmaster`, and for nobody else.

    /seen            {"ids": [...]}

A mail's id is its X-Id field.
"""

from __future__ import annotations

import asyncio

from web import Query, serve

MAILBOXES = ("bob", "postmaster")


class Mailboxes:
    def __init__(self) -> None:
        self.ids: list[str] = []

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._dialogue(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the peer has gone; what came whole is kept
        finally:
            writer.close()

    async def _dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        await say("220 mailboxes LMTP")
        recipients = 0
        while line := (await reader.readline()).decode(errors="replace").rstrip():
            verb = line[:4].upper()
            if verb == "LHLO":
                await say("250-mailboxes\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
            elif verb == "RCPT":
                is_known = line.partition("<")[2].partition("@")[0].lower() in MAILBOXES
                recipients += is_known
                await say("250 2.1.5 ok" if is_known else "550 5.1.1 nobody of that name")
            elif verb == "DATA":
                await say("354 go on")
                self.ids.append(await _id(reader))
                await say("\r\n".join(["250 2.0.0 in the mailbox"] * recipients))
                recipients = 0
            elif verb == "QUIT":
                await say("221 bye")
                return
            else:
                if verb == "RSET":
                    recipients = 0
                await say("250 ok")

    async def seen(self, _query: Query) -> object:
        return {"ids": self.ids}


async def _id(reader: asyncio.StreamReader) -> str:
    """Read the content up to the final dot; its X-Id."""
    found = ""
    while (line := await reader.readline()) not in (b".\r\n", b""):
        name, _, value = line.decode(errors="replace").partition(":")
        if name.lower() == "x-id":
            found = value.strip()
    return found


async def main() -> None:
    mailboxes = Mailboxes()
    server = await asyncio.start_server(mailboxes.session, None, 2424)
    async with server:
        await serve({"seen": mailboxes.seen})


if __name__ == "__main__":
    asyncio.run(main())
