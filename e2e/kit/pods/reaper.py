"""An admission webhook that stops the world at a write, so that whoever writes can be killed in the middle of it.

    /certificate     {"pem": ...}: of the server on 8443, to be trusted by the API server
    /arm             hold the next write that is asked about
    /state           {"seen": writes since the start, "holding": "PATCH services/edge" or ""}
    /release?allow=1 let the held write through; allow=0 refuses it: it has never happened

Not armed, everything is allowed at once.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
import sys
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from web import Query, one, serve


class Reaper:
    def __init__(self, pem: str) -> None:
        self.pem = pem
        self.seen = 0
        self.is_armed = False
        self.holding = ""
        self.decision: asyncio.Future[bool] | None = None

    async def review(self, request: web.Request) -> web.Response:
        """One AdmissionReview."""
        asked = (await request.json())["request"]
        self.seen += 1
        allowed = True
        if self.is_armed and not self.holding:
            self.is_armed = False
            self.decision = asyncio.get_running_loop().create_future()
            what = asked["resource"]["resource"] + (f"/{asked['subResource']}" if asked.get("subResource") else "")
            self.holding = f"{asked['operation']} {what} {asked.get('name') or ''}"
            try:
                allowed = await asyncio.wait_for(self.decision, 25)
            except TimeoutError:
                pass  # nobody came: let it through
            finally:
                self.holding = ""
        response = {"uid": asked["uid"], "allowed": allowed}
        return web.json_response(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        )

    async def arm(self, _query: Query) -> object:
        self.is_armed = True
        return {}

    async def state(self, _query: Query) -> object:
        return {"seen": self.seen, "holding": self.holding}

    async def release(self, query: Query) -> object:
        if self.decision is not None and not self.decision.done():
            self.decision.set_result(one(query, "allow", "1") == "1")
        return {}

    async def certificate(self, _query: Query) -> object:
        return {"pem": self.pem}


def make_pair(name: str, folder: Path) -> str:
    """A self-signed pair for `name` in folder/{crt,key}; the certificate's text."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "reaper")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "crt").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key").write_bytes(private)
    return pem.decode()


async def main() -> None:
    folder = Path("/dev/shm")
    reaper = Reaper(make_pair(sys.argv[1], folder))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/", reaper.review)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=8443, ssl_context=context).start()
    routes = {"arm": reaper.arm, "state": reaper.state, "release": reaper.release, "certificate": reaper.certificate}
    await serve(routes)


if __name__ == "__main__":
    asyncio.run(main())
