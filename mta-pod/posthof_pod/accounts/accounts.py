"""The accounts of one worker: who a client is, and what it may send as.

Owns: Accounts, which the gate asks. `take` puts another configuration in place; sessions that are open stay who they
are for as long as their account lasts and does not expire.

Rules
- A client logs in (`authenticate`), or is a pod that an account stands for (`knows`), where its address is believed.
- Who is known may send as what the account's `allowedSenders` say, envelope and From; the null sender is everybody's
  (RFC 8098 section 3 wants it), so From decides there.
- An account that is gone or has expired sends nothing more, in an open session either.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from posthof_crds import names, patterns
from posthof_crds.engine import Quota
from posthof_pod.accounts.authors import of as authors_of
from posthof_pod.accounts.directory import Account, Directory
from posthof_pod.accounts.exchange import Login, LoginExchange, Refusal, Watch
from posthof_pod.accounts.guesses import Guesses
from posthof_pod.accounts.passwords import Passwords
from posthof_pod.accounts.usage import Ledger, suspicion
from posthof_pod.replies import Reply, Temporary
from posthof_pod.smtp import answers as say
from posthof_pod.smtp import sasl
from posthof_pod.smtp.gate import Exchange, Incoming, Session

_NO_QUOTA = Quota()
USER = "{user}"  # in allowedSenders: the name somebody logged in with
REMEMBERED = 4096
FOREIGN = 4.0  # seconds before a wrong answer, where some names are others' to know: theirs take longer than ours
NOT_YOURS = Reply(550, "5.7.1", "You may not send as this address")
NOT_YOURS_IN_FROM = Reply(550, "5.7.1", "You may not send as the address in From or Sender")
NO_AUTHOR = Reply(550, "5.6.0", "The message needs one From field, with addresses that can be read in one way only")
GONE = Reply(530, "5.7.0", "Authentication required")

Pods = Mapping[str, tuple[str, ...]]  # IP address -> ids of the selections the pod is in


class Backend(Protocol):
    """Somebody else who knows names and passwords: Dovecot, LDAP, a token's issuer."""

    async def check(self, claim: sasl.Claim, session: Session) -> Login | Refusal | None:
        """None: not a claim for this one. Raises replies.Temporary when it cannot say."""
        ...


class Accounts:
    """`wall` and `clock`: unix and monotonic seconds. `client_key`: what counts as one client."""

    def __init__(
        self,
        watch: Watch,
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
        client_key: Callable[[str], str],
        nonce: Callable[[], str] = lambda: secrets.token_urlsafe(24),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._watch, self._wall, self._clock = watch, wall, clock
        self._client_key, self._nonce, self._sleep = client_key, nonce, sleep
        self.directory = Directory({}, _nothing, b"")
        self.ledger = Ledger()
        self.guesses = Guesses()
        self.passwords = Passwords(clock)
        self.backends: tuple[Backend, ...] = ()
        self._bindings: Mapping[str, tuple[bytes, ...]] = {}
        self._pods: Pods = {}
        self._sets: OrderedDict[tuple[str, str], patterns.AddressSet] = OrderedDict()

    def take(
        self,
        directory: Directory,
        bindings: Mapping[str, tuple[bytes, ...]],
        backends: Sequence[Backend] = (),
    ) -> None:
        """Another configuration. `bindings`: the tls-server-end-point values of each listener's certificates."""
        self.directory, self._bindings, self.backends = directory, bindings, tuple(backends)
        self._sets.clear()

    def know_pods(self, pods: Pods) -> None:
        """Which address is in which selections, from now on."""
        self._pods = pods

    # ---- who is it

    def knows(self, session: Session) -> bool:
        """smtp.gate.Gate.knows."""
        if session.credential:
            return True
        if not self.directory.has_workloads or not session.vouched:
            return False
        account = self.directory.of_workloads(self._pods.get(session.vouched, ()))
        if account is None or account.is_expired(self._wall()):
            return False
        session.credential = account.name
        return True

    def authenticate(self, session: Session, mechanism: str) -> Exchange | Reply:
        """smtp.gate.Gate.authenticate."""
        begin = self._mechanism(session, mechanism)
        if begin is None:
            return say.NO_MECHANISM
        return LoginExchange(
            session,
            mechanism,
            begin,
            check=self._check,
            guesses=self.guesses,
            watch=self._watch,
            client=self._client_key(session.vouched) if session.vouched else "",
            least=FOREIGN if self.backends else 0.0,
            clock=self._clock,
            sleep=self._sleep,
        )

    def _mechanism(self, session: Session, name: str) -> Callable[[bytes | None], sasl.Mechanism] | None:
        bindings = self._bindings.get(session.listener, ())
        if name in (sasl.SCRAM, sasl.SCRAM_PLUS):
            return partial(
                sasl.scram,
                keys=self.directory.scram,
                nonce=self._nonce(),
                bindings=bindings,
                is_plus=name == sasl.SCRAM_PLUS,
                has_plus=bool(bindings),
            )
        return _SIMPLE.get(name)

    async def _check(self, claim: sasl.Claim, session: Session) -> Login | Refusal:
        if isinstance(claim, sasl.Certificate):
            found: Login | Refusal = self._certified(claim, session)
        else:
            found = await self._own(claim)
        is_certificate = isinstance(claim, sasl.Certificate)
        if isinstance(found, Refusal) and not is_certificate and self.directory.named(claim.username) is None:
            found = await self._foreign(claim, session, found)
        if isinstance(found, Login) and found.account.is_expired(self._wall()):
            return Refusal("the account has expired")
        return found

    async def _foreign(self, claim: sasl.Claim, session: Session, refusal: Refusal) -> Login | Refusal:
        """Of those that others know, for names that are none of ours. One that cannot say stands in nobody's way,
        unless nobody else knows the name."""
        trouble: Temporary | None = None
        for backend in self.backends:
            try:
                found = await backend.check(claim, session)
            except Temporary as error:
                trouble = error
                continue
            if isinstance(found, Login):
                return found
            refusal = found or refusal
        if trouble is not None:
            raise trouble
        return refusal

    def _certified(self, claim: sasl.Certificate, session: Session) -> Login | Refusal:
        """By the names that TLS has proven."""
        account = self.directory.of_certificate(session.proven)
        if account is None:
            return Refusal("the client has no certificate of an account")
        names = ("", account.name.casefold(), account.credential.username, account.credential.certificate)
        return Login(account) if claim.username in names else Refusal("the certificate is another account's")

    async def _own(self, claim: sasl.Claim) -> Login | Refusal:
        """Of the accounts whose secret we have."""
        account = self.directory.named(claim.username)
        if isinstance(claim, sasl.Password):
            verifier = self.directory.verifier(claim.username)
            is_right = await self.passwords.check(verifier, claim.password)
        elif isinstance(claim, sasl.Proof):
            is_right = claim.is_right
        else:
            return Refusal("nobody here takes such a proof")
        if account is None:
            return Refusal("there is no such account")
        if account.verifier is None:
            return Refusal("the account has no password, or its Secret is not there")
        return Login(account) if is_right else Refusal("the password is wrong")

    # ---- what may it send

    def account(self, session: Session) -> Account | None:
        """Whose mail it is; None: nobody's any more."""
        account = self.directory.accounts.get(session.credential)
        return None if account is None or account.is_expired(self._wall()) else account

    def sender(self, session: Session, address: str) -> Reply | None:
        """MAIL FROM of a client that is known, or that may be a pod."""
        if not session.credential and not self.knows(session):
            return None  # on a listener that needs no login; rules decide
        account = self.account(session)
        if account is None:
            session.credential = session.user = ""
            return GONE
        if address and not self.owns(account, session.user, address):
            return NOT_YOURS
        return self._why_too_much(account, session.user, 1)

    def submits(self, mail: Incoming) -> Reply | None:
        """The content is there: why this account may not send it (RFC 6409 section 6)."""
        session = mail.session
        account = self.account(session)
        if account is None:
            return GONE
        refusal = self._why_too_much(account, session.user, len(mail.recipients))
        if refusal is not None:
            return refusal
        head = mail.header_block()
        authors, sender = authors_of(head, b"from"), authors_of(head, b"sender")
        if not authors or sender is None or len(sender) > 1:
            return NO_AUTHOR
        if not all(self.owns(account, session.user, address) for address in (*authors, *sender)):
            return NOT_YOURS_IN_FROM
        self._count(account, session.user, [recipient.address for recipient in mail.recipients])
        return None

    def why_held(self, credential: str, user: str = "") -> str:
        """Why what this account sends is kept back; "": it is not."""
        account = self.directory.accounts.get(credential)
        if account is None or not account.credential.guard.is_on:
            return ""
        return self.ledger.held(_key(account, user), account.print_)

    def _why_too_much(self, account: Account, user: str, recipients: int) -> Reply | None:
        quota = account.credential.quota
        if quota == _NO_QUOTA:
            return None
        if quota.recipients_message and recipients > quota.recipients_message:
            return Reply(550, "5.5.3", f"At most {quota.recipients_message} recipients in one message")
        exceeded = self.ledger.exceeded(_key(account, user), quota, recipients, self._wall())
        if not exceeded:
            return None
        return Reply(450, "4.7.1", f"This account may send {exceeded}, try again later")

    def _count(self, account: Account, user: str, recipients: list[str]) -> None:
        """It was taken; is it like the account to send this much?"""
        ledger, key, now, guard = self.ledger, _key(account, user), self._wall(), account.credential.guard
        strangers = ledger.strangers(key, recipients) if guard.is_on else 0
        ledger.count(key, len(recipients), strangers, now)
        if not guard.is_on or ledger.held(key, account.print_):
            return
        why = suspicion(guard, ledger.hour(key, now), ledger.busiest(key, now))
        if why:
            ledger.hold(key, why, account.print_)
            self._watch.account_held(account.name, user, why)

    def uses(self) -> dict[str, tuple[float, int, str]]:
        """Of each account, over all its users: last used, messages today, why its mail is held."""
        found: dict[str, tuple[float, int, str]] = {}
        now = self._wall()
        for key in self.ledger.names():
            name = key.partition("\0")[0]
            account = self.directory.accounts.get(name)
            if account is None:
                continue
            last, messages, held = found.get(name, (0.0, 0, ""))
            found[name] = (
                max(last, self.ledger.last_used(key)),
                messages + self.ledger.day(key, now)[0],
                held or (self.ledger.held(key, account.print_) if account.credential.guard.is_on else ""),
            )
        return found

    def owns(self, account: Account, user: str, address: str) -> bool:
        """Whether the account may send as this address."""
        local, domain = names.split(address)
        return self._senders(account, user).matches(names.fold(local), domain)

    def _senders(self, account: Account, user: str) -> patterns.AddressSet:
        if not user or not any(USER in pattern for pattern in account.credential.senders):
            return account.senders
        key = (account.name, user)
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = patterns.AddressSet(_of_user(account.credential.senders, user))
            if len(self._sets) > REMEMBERED:
                self._sets.popitem(last=False)
        return found

    def close(self) -> None:
        self.passwords.close()


def _of_user(senders: tuple[str, ...], user: str) -> list[str]:
    """The patterns with the user's name in them. A name that would be more than a name makes no pattern."""
    found = []
    for pattern in senders:
        if USER not in pattern:
            found.append(pattern)
        elif "*" not in user:
            try:
                found.append(patterns.normalise(pattern.replace(USER, user)))
            except ValueError:
                continue
    return found


def _key(account: Account, user: str) -> str:
    """What is counted together."""
    return f"{account.name}\0{user}" if user else account.name


def _nothing(_: object) -> bytes:
    raise LookupError("there are no accounts yet")


_SIMPLE: dict[str, Callable[[bytes | None], sasl.Mechanism]] = {
    sasl.PLAIN: sasl.plain,
    sasl.LOGIN: sasl.login,
    sasl.OAUTHBEARER: sasl.oauthbearer,
    sasl.XOAUTH2: sasl.xoauth2,
    sasl.EXTERNAL: sasl.external,
}
