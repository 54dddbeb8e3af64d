"""AUTH at a smarthost (RFC 4954): PLAIN (RFC 4616) and LOGIN, as values; no socket.

Rules
- The secret stands in no error, no log line and no repr.
- Both mechanisms show the password to whoever listens: only over TLS, to this machine, or where the policy says
  `tls: None` and so has decided it.
- A refusal is temporary for the mail: a wrong password is a fault of the configuration, not of the message.
"""

from __future__ import annotations

import base64
from collections.abc import Generator

from posthof_pod.model import Reason
from posthof_pod.smtp.client import Ask, Refused
from posthof_pod.smtp.extensions import Extensions
from posthof_pod.smtp.replyline import Broken, PeerReply


class Credentials:
    """A name and a password, as the Secret holds them."""

    __slots__ = ("password", "username")

    def __init__(self, username: bytes | str, password: bytes | str) -> None:
        self.username = username.encode() if isinstance(username, str) else username
        self.password = password.encode() if isinstance(password, str) else password

    def __repr__(self) -> str:
        return "Credentials(...)"


def authenticate(credentials: Credentials, offer: Extensions, *, is_private: bool) -> Generator[Ask, PeerReply, None]:
    """Yields what to ask, is sent the replies. Raises Refused (AUTH_FAILED) or Broken.

    `is_private`: nobody can listen on this session, or the policy does not mind.
    """
    if not is_private:
        raise Refused(Reason.AUTH_FAILED, 0, "4.7.11", "the password is not sent over a session without TLS")
    if b"\0" in credentials.username or b"\0" in credentials.password:
        raise Refused(Reason.AUTH_FAILED, 0, "4.7.8", "the name or the password holds a NUL")
    if "PLAIN" in offer.mechanisms:
        reply = yield Ask("AUTH", b"AUTH PLAIN %b\r\n" % _plain(credentials))
        if reply.code == 334:  # it did not take the initial response: say it again
            reply = yield Ask("AUTH", _plain(credentials) + b"\r\n")
    elif "LOGIN" in offer.mechanisms:
        reply = yield Ask("AUTH", b"AUTH LOGIN\r\n")
        for answer in (credentials.username, credentials.password):
            if reply.code != 334:
                break
            reply = yield Ask("AUTH", base64.b64encode(answer) + b"\r\n")
    else:
        offered = " ".join(sorted(offer.mechanisms)) or "none"
        raise Refused(Reason.AUTH_FAILED, 0, "4.7.4", f"the host offers neither AUTH PLAIN nor LOGIN but: {offered}")
    if reply.code >= 400:
        raise Refused(Reason.AUTH_FAILED, reply.code, reply.enhanced, str(reply))
    if reply.code >= 300:
        raise Broken(f"AUTH got {reply}")


def _plain(credentials: Credentials) -> bytes:
    return base64.b64encode(b"\0" + credentials.username + b"\0" + credentials.password)
