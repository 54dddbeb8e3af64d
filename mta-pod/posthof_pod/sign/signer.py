"""What is added to a message on its way out, for one session: signatures, a seal, and its envelope sender.

Owns: Signer, made of one configuration and its keys, and swapped whole with them. `None` where no domain has anything
to add, so that a house without keys pays one attribute test for each message.

Rules of this file
- Signed at the last step before the wire, and not at the commit: what leaves is what was signed (a conversion for a
  peer without 8BITMIME is signed anew), every recipient may get a signature of its own, a message that waited for
  days leaves with the key of the day, and reports need no way of their own. Measured: the same 0.4 ms, once; what
  goes to several destinations, or is tried again soon, takes the fields made before (KEPT).
- A key that cannot be used is told once and left out; the others sign. Mail never waits for a key.
- A body that is not held is hashed as it streams, and never held for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from posthof_crds import names
from posthof_crds.engine import Domain, EngineConfig, SecretRef
from posthof_pod.config.secrets import Secrets, lines
from posthof_pod.mailauth import batv, srs
from posthof_pod.mailauth.arc.chain import NAMES
from posthof_pod.mailauth.arc.seal import seal
from posthof_pod.mailauth.canon import RELAXED, Body, BodyHashes, fields, parted
from posthof_pod.mailauth.dkim.keys import BadKey, private_key
from posthof_pod.mailauth.dkim.sign import SigningKey, sign
from posthof_pod.model import Envelope, Origin, Recipient
from posthof_pod.sign.authors import Authors, author_domain
from posthof_pod.sign.keyring import KEYS, StateKey, unpacked
from posthof_pod.sign.results import our_results

KEPT = 256  # messages whose fields are remembered
FRESH = 600.0  # seconds they are used for
_HEAD = 64 * 1024  # bytes in which a header must end


class Reader(Protocol):
    """A content too large to hold: each `async for` begins again at its first byte."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Dressed(NamedTuple):
    """A message as this session shall see it."""

    sender: str
    trace: bytes
    resign: Callable[[bytes], bytes] | None = None  # the trace for this content, where a conversion changed it


class _Domain(NamedTuple):
    name: str  # the MailDomain's
    keys: tuple[SigningKey, ...]
    srs: tuple[bytes, ...]
    batv: tuple[bytes, ...]


class _Mail(NamedTuple):
    """One message for one session; `first` stands for all its recipients, who share a way out."""

    envelope: Envelope
    first: Recipient
    sender: str
    trace: bytes
    now: float


class _Job(NamedTuple):
    """Who adds fields to it, as its author's domain or as a forwarder."""

    mail: _Mail
    domain: str
    is_author: bool


class Signer:
    """`warn` is told of each key or secret that cannot be used."""

    def __init__(self, config: EngineConfig, secrets: Secrets, warn: Callable[[str], object]) -> None:
        self._hostname = config.hostname
        self._authors = Authors(config)
        self._ours = config.domains
        self._domains: dict[str, _Domain] = {}
        self._made: OrderedDict[tuple[str, str, bool], tuple[float, bytes]] = OrderedDict()
        made = unpacked(secrets.found(KEYS))
        for domain in config.domains.values():
            if domain.outbound is not None:
                own = [key for key in made if key.domain == domain.domain]
                self._domains[domain.domain] = _equipped(domain, own, secrets, warn)

    def dress(
        self, envelope: Envelope, recipients: tuple[int, ...], trace: bytes, body: bytes | Reader, now: float
    ) -> Dressed | Awaitable[Dressed]:
        """What these recipients of the message get. An Awaitable where the content has to be read first."""
        everyone = [envelope.recipients[n] for n in recipients]
        mail = _Mail(envelope, everyone[0], self._sender(envelope, everyone, now), trace, now)
        if isinstance(body, bytes):
            return self._dressed(mail, *parted(body))
        return self._streamed(mail, body)

    # ---- the sender

    def _sender(self, envelope: Envelope, everyone: list[Recipient], now: float) -> str:
        """Rewritten where an alias that goes elsewhere reaches all of them; marked where it is our own."""
        sender = envelope.sender
        if not sender:
            return sender
        place = names.split(sender)[1]
        if place in self._ours:
            own = self._domains.get(place)
            if own is None or not own.batv or not self._authors.may_sign(envelope, everyone[0], own.name):
                return sender
            return batv.mark(sender, own.batv[0], now)
        forwarding = [self._forwarding(one) for one in everyone]
        first = forwarding[0]
        if first is None or None in forwarding:
            return sender
        return srs.forward(sender, first[0], first[1].srs[0], now) or sender

    def _forwarding(self, recipient: Recipient) -> tuple[str, _Domain] | None:
        """The domain whose alias sends it elsewhere, where that rewrites senders."""
        if not recipient.original or names.split(recipient.address)[1] in self._ours:
            return None
        place = names.split(recipient.original)[1]
        found = self._domains.get(place)
        return (place, found) if found is not None and found.srs else None

    # ---- the fields

    def _dressed(self, mail: _Mail, head: bytes, rest: bytes) -> Dressed:
        job = self._job(mail, head)
        if job is None:
            return Dressed(mail.sender, mail.trace)
        added = self._recall(job)
        if added is None:
            added = self._fields(job, head, rest)
            self._remember(job, added)
        return Dressed(mail.sender, added + mail.trace, partial(self._resign, job))

    async def _streamed(self, mail: _Mail, body: Reader) -> Dressed:
        chunks = aiter(body)
        rest = b""
        async for chunk in chunks:
            rest += chunk
            if b"\r\n\r\n" in rest or len(rest) > _HEAD:
                break
        head, rest = parted(rest)
        job = self._job(mail, head) if len(head) <= _HEAD else None
        if job is None:
            return Dressed(mail.sender, mail.trace)
        added = self._recall(job)
        if added is None:
            hashes = BodyHashes([RELAXED])
            hashes.update(rest)
            async for chunk in chunks:
                hashes.update(chunk)
            added = self._fields(job, head, hashes)
            self._remember(job, added)
        return Dressed(mail.sender, added + mail.trace, partial(self._resign, job))

    def _resign(self, job: _Job, content: bytes) -> bytes:
        head, rest = parted(content)
        return self._fields(job, head, rest) + job.mail.trace

    def _job(self, mail: _Mail, head: bytes) -> _Job | None:
        """Who signs: the author's domain, or the one whose alias sends it on. None: nobody."""
        envelope, first = mail.envelope, mail.first
        place = author_domain(mail.trace + head)
        if envelope.origin == Origin.REPORT:
            place = self._above(place)
        own = self._domains.get(place)
        if own is not None and own.keys and self._authors.may_sign(envelope, first, own.name):
            return _Job(mail, place, True)
        if envelope.origin == Origin.REPORT or not first.original:
            return None
        if names.split(first.address)[1] in self._ours:
            return None
        place = names.split(first.original)[1]
        forwarder = self._domains.get(place)
        return _Job(mail, place, False) if forwarder is not None and forwarder.keys else None

    def _above(self, place: str) -> str:
        """The domain itself, or the next one above it that has keys: a report is from our own hostname."""
        while place and not ((own := self._domains.get(place)) is not None and own.keys):
            place = place.partition(".")[2]
        return place

    def _fields(self, job: _Job, head: bytes, body: Body) -> bytes:
        trace, now = job.mail.trace, job.mail.now
        keys = self._domains[job.domain].keys
        headers = fields(trace + head)
        if job.is_author:
            return sign(headers, body, keys, now)
        found = our_results(trace, self._hostname, has_chain=any(name in NAMES for name, _ in headers))
        return seal(headers, body, keys[0], results=found.text, cv=found.cv, now=now) if found else b""

    def _recall(self, job: _Job) -> bytes | None:
        made = self._made.get((job.mail.envelope.id, job.domain, job.is_author))
        return made[1] if made is not None and job.mail.now - made[0] < FRESH else None

    def _remember(self, job: _Job, added: bytes) -> None:
        envelope = job.mail.envelope
        if len(envelope.recipients) == 1:
            return
        self._made[envelope.id, job.domain, job.is_author] = (job.mail.now, added)
        if len(self._made) > KEPT:
            self._made.popitem(last=False)


def signer_of(config: EngineConfig, secrets: Secrets, warn: Callable[[str], object]) -> Signer | None:
    """None where no domain adds anything."""
    if not any(domain.outbound is not None for domain in config.domains.values()):
        return None
    return Signer(config, secrets, warn)


def _equipped(domain: Domain, made: Sequence[StateKey], secrets: Secrets, warn: Callable[[str], object]) -> _Domain:
    outbound = domain.outbound
    assert outbound is not None
    keys: list[SigningKey] = []
    for each in outbound.dkim:
        if each.secret is None:
            continue  # one of the state folder's, in `made` once it may sign
        try:
            keys.append(SigningKey(domain.domain, each.selector, private_key(secrets.bytes(each.secret))))
        except (BadKey, LookupError) as error:
            warn(f"DKIMKey {each.name}: {error.args[0]}; {domain.domain} is not signed with it")
    for one in made:
        try:
            keys.append(SigningKey(domain.domain, one.selector, private_key(one.pem)))
        except BadKey as error:
            warn(f"DKIM key {one.selector} of {domain.domain}: {error.args[0]}; it does not sign")
    keys.sort(key=lambda one: one.key.algorithm, reverse=True)  # RSA first: what seals must be known everywhere
    rewriting, marking = _lines(secrets, outbound.srs, warn), _lines(secrets, outbound.batv, warn)
    return _Domain(domain.name, tuple(keys), rewriting, marking)


def _lines(secrets: Secrets, ref: SecretRef | None, warn: Callable[[str], object]) -> tuple[bytes, ...]:
    if ref is None:
        return ()
    try:
        return lines(secrets, ref)
    except LookupError as error:
        warn(f"{error.args[0]}: senders stay as they are")
        return ()
