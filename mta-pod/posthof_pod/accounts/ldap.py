"""Names and passwords that a directory knows: the user is bound to it (RFC 4513 section 5.1). Only here is ldap3.

Rules
- A user's name is escaped before it stands in a distinguished name (RFC 4514 section 2.4): it stays one value.
- Directories pass over blanks around a name and double ones in it (RFC 4518 section 2.6.1): such a name is refused,
  or one user would have as many names, quotas and guesses as there are blanks.
- A referral is not followed: it would take the password to another host.
- An empty password would be an anonymous bind, which succeeds (RFC 4513 section 5.1.2): it is refused here.
- A directory that does not answer is a 454 and never a "no". The library blocks: it runs in a thread.
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor

from posthof_pod.accounts.directory import Account
from posthof_pod.accounts.exchange import Login, Refusal
from posthof_pod.accounts.passwords import BUSY
from posthof_pod.replies import Temporary
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.sasl import Claim, Password

PATIENCE = 10  # seconds; the library wants whole ones
THREADS = 4
WAITING_MAX = 64


class LDAPBackend:
    """accounts.Backend. `context`: whose certificates are believed; None: those the system knows."""

    def __init__(self, account: Account) -> None:
        assert account.credential.ldap is not None
        self._account, self._settings = account, account.credential.ldap
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ldap")
        self._waiting = 0

    async def check(self, claim: Claim, session: Session) -> Login | Refusal | None:
        if not isinstance(claim, Password):
            return None
        if not claim.password:
            return Refusal("the password is empty")
        if claim.username != " ".join(claim.username.split()):
            return Refusal("the name has blanks that a directory does not see")
        if self._waiting >= WAITING_MAX:
            raise Temporary(BUSY, "too many wait for the directory")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            is_right = await loop.run_in_executor(self._pool, self._bind, claim.username, claim.password)
        finally:
            self._waiting -= 1
        return Login(self._account, claim.username) if is_right else Refusal("the directory says no")

    def _bind(self, user: str, password: str) -> bool:
        import ldap3
        from ldap3.core.exceptions import LDAPException
        from ldap3.utils.dn import escape_rdn

        url = self._settings.url
        tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, version=ssl.PROTOCOL_TLS_CLIENT) if url[:5] == "ldaps" else None
        name = self._settings.user_dn.replace("{user}", escape_rdn(user))
        try:
            server = ldap3.Server(url, tls=tls, connect_timeout=PATIENCE, get_info=ldap3.NONE)
            connection = ldap3.Connection(
                server, name, password, receive_timeout=PATIENCE, raise_exceptions=False, auto_referrals=False
            )
            is_right = bool(connection.bind())
            code = int(connection.result["result"])
            connection.unbind()
        except (LDAPException, OSError) as error:
            raise Temporary(BUSY, f"the directory {url}: {type(error).__name__}") from None
        if not is_right and code not in (32, 34, 48, 49, 50, 53):  # no such object, no such syntax, no right
            raise Temporary(BUSY, f"the directory {url} answered {code}")
        return is_right

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
