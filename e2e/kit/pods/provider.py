"""A mail provider: takes mail over STARTTLS from whoever logs in, and from nobody else. Port 2525.

    /seen            {"ids": [...], "users": {id: user}}
    /set?password=   the password it wants from now on ("first" at the start)
    /set?away=1      answers 421 to everything, until away=0

A mail's id is its X-Id field. The certificate is made at the start, for any name.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import os
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from web import Query, serve

USER = "relay@example.org"


def context() -> ssl.SSLContext:
    """TLS with a pair that nobody keeps."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file = os.memfd_create("pair")  # the root is read-only, and the ssl module reads files alone
    os.write(file, pem + certificate.public_bytes(serialization.Encoding.PEM))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"/proc/self/fd/{file}")
    os.close(file)
    return made


class Provider:
    def __init__(self) -> None:
        self.password, self.away = "first", False
        self.changes = 0  # a session from before a change is asked to come again
        self.users: dict[str, str] = {}
        self._tls = context()

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._dialogue(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the peer has gone; what came whole is kept
        finally:
            writer.close()

    async def _dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        await say("421 4.3.2 away" if self.away else "220 provider ESMTP")
        is_safe, user, changes = False, "", self.changes
        while line := (await reader.readline()).decode(errors="replace").rstrip():
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            if self.away or changes != self.changes:
                await say("421 4.3.2 come again")
                return
            if verb == "EHLO":
                offer = "250-AUTH PLAIN" if is_safe else "250-STARTTLS"
                await say(f"250-provider\r\n250-8BITMIME\r\n{offer}\r\n250 SIZE 0")
            elif verb == "STARTTLS":
                await say("220 go on")
                await writer.start_tls(self._tls)
                is_safe = True
            elif verb == "AUTH":
                user = self._user(rest)
                await say("235 2.7.0 welcome" if user else "535 5.7.8 who are you?")
            elif verb == "QUIT":
                await say("221 bye")
                return
            elif not user and verb in ("MAIL", "RCPT", "DATA"):
                await say("530 5.7.0 log in first")
            elif verb == "DATA":
                await say("354 go on")
                self.users[await _id(reader)] = user
                await say("250 2.0.0 kept")
            else:
                await say("250 ok")

    def _user(self, words: str) -> str:
        """The user of AUTH PLAIN, "" when the password is not the one of now."""
        _, user, password = base64.b64decode(words.partition(" ")[2]).decode().split("\0")
        return user if (user, password) == (USER, self.password) else ""

    # ------------------------------------------------------------ routes
    async def seen(self, _query: Query) -> object:
        return {"ids": list(self.users), "users": self.users}

    async def set(self, query: Query) -> object:
        self.changes += 1
        self.password = query.get("password", [self.password])[0]
        self.away = query.get("away", ["1" if self.away else "0"])[0] == "1"
        return {}


async def _id(reader: asyncio.StreamReader) -> str:
    """Read the content up to the final dot; its X-Id."""
    found = ""
    while (line := await reader.readline()) not in (b".\r\n", b""):
        name, _, value = line.decode(errors="replace").partition(":")
        if name.lower() == "x-id":
            found = value.strip()
    return found


async def main() -> None:
    provider = Provider()
    server = await asyncio.start_server(provider.session, None, 2525)
    async with server:
        await serve({"seen": provider.seen, "set": provider.set})


if __name__ == "__main__":
    asyncio.run(main())
