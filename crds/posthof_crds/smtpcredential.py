"""SMTPCredential: an account that may submit mail: how it proves who it is, what it may send as, and how much.

It is proven by a password (secretRef, generate), by being a pod (podSelector), or both. Listeners of role Submission
and Submissions take its mail. Secrets hold passwords, or hashes of them; manifests and configurations never do.
"""

from __future__ import annotations

import datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from posthof_crds import engine, patterns
from posthof_crds.core import MTARef, Resource
from posthof_crds.fields import Bool, Int, ObjectName, Part, SecretKey, Unit, wrong
from posthof_crds.selectors import LabelSelector
from posthof_crds.verifiers import prepare

_QUOTA = engine.Quota()
_GUARD = engine.Guard()
_COUNT = Field(ge=0, le=1_000_000_000)


def user_name(value: str) -> str:
    """A user name in its one form: prepared by SASLprep (RFC 4013), without case."""
    try:
        name = prepare(value).casefold()
    except ValueError as error:
        raise wrong(f"this is not a user name: {error}", "Write a name such as bob or bob@example.org.") from None
    if not 0 < len(name) <= 320 or not name.isprintable() or name != name.strip():
        raise wrong("this is not a user name", "Write a name such as bob or bob@example.org.")
    return name


def moment(value: str) -> str:
    """A moment as RFC 3339 writes it."""
    try:
        parsed = datetime.datetime.fromisoformat(value)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise wrong(f"{value!r} is not a moment", "Write it as 2027-01-31T12:00:00Z.")
    return value


def sender_pattern(value: str) -> str:
    """A pattern over sender addresses."""
    try:
        return patterns.normalise(value)
    except ValueError as error:
        raise wrong(str(error), "Write bob@example.org, example.org, *.example.org, or * for any.") from None


class PasswordRef(Part):
    """A password in a Secret of the same folder (or namespace)."""

    name: ObjectName
    """The Secret's metadata.name."""

    password_key: SecretKey = "password"
    """The key of the password. The default is what a Kubernetes Secret of type basic-auth has. Beside it, or instead,
    a key of this name with `.hash` at its end may hold what only checks the password: a line `$scrypt$...`, a line
    `SCRAM-SHA-256$...`, or both (`posthof hash-password` makes them)."""


class Generate(Part):
    """A password made here. In a cluster it is in the Secret `<name>-smtp` (keys username, password) beside the
    SMTPCredential; on one machine in a manifest of that Secret below the MTA's stateDir, in `credentials/`. Removing
    that Secret makes a new password."""

    length: Annotated[Int, Field(ge=16, le=128)] = 32
    """Characters of the password, each one of 62."""


class DomainRef(Part):
    """A MailDomain of the same folder (or namespace)."""

    name: ObjectName
    """The MailDomain's metadata.name."""


class Quota(Part):
    """How much the account may send, all pods together. Above it mail is refused with 450 4.7.1, and may come
    later."""

    messages_per_minute: Annotated[Int, _COUNT] = _QUOTA.messages_minute
    """Messages in a minute; 0: no limit."""

    messages_per_hour: Annotated[Int, _COUNT] = _QUOTA.messages_hour
    """Messages in an hour; 0: no limit."""

    messages_per_day: Annotated[Int, _COUNT] = _QUOTA.messages_day
    """Messages in a day of UTC; 0: no limit."""

    recipients_per_hour: Annotated[Int, _COUNT] = _QUOTA.recipients_hour
    """Recipients in an hour; 0: no limit."""

    recipients_per_day: Annotated[Int, _COUNT] = _QUOTA.recipients_day
    """Recipients in a day of UTC; 0: no limit."""

    recipients_per_message: Annotated[Int, _COUNT] = _QUOTA.recipients_message
    """Recipients of one message, refused with 550 5.5.3 above it; 0: as many as the listener takes."""


class Guard(Part):
    """What happens when the account sends unlike itself: its mail is taken and held, until a person looks (`posthof
    queue release`) and either changes the password or switches the guard off. Why: a stolen password sends spam at
    once and a lot of it, and our addresses' reputation with it."""

    enabled: Bool = _GUARD.is_on
    """Whether it watches."""

    factor: Annotated[Int, Field(ge=2, le=1000)] = int(_GUARD.factor)
    """So many times the busiest hour of the account's last days is suspicious."""

    recipients: Annotated[Int, Field(ge=1, le=10_000_000)] = _GUARD.recipients
    """Recipients in an hour that are never suspicious, however quiet the account was before."""

    strangers: Annotated[Int, Field(ge=1, le=10_000_000)] = _GUARD.strangers
    """The same for recipients that the account never wrote to before."""


class SMTPCredentialSpec(Part):
    """An account."""

    mta_ref: MTARef | None = None
    """In a cluster: the one MTA that knows it. Default: every MTA whose `policySelector` matches, in this namespace
    or in one that allows this namespace. An account with a password needs it where the MTA is in another namespace,
    because what checks the password goes there. On one machine it is the folder's MTA."""

    username: Annotated[str, AfterValidator(user_name), Field(max_length=320)] | None = None
    """The name to log in with; case does not count. Default: metadata.name. Of two accounts of an MTA with one name,
    that of the MTA's own namespace has it, then the older one."""

    secret_ref: PasswordRef | None = None
    """The password is in this Secret."""

    generate: Generate | None = None
    """The password is made here. Write `generate: {}`."""

    pod_selector: LabelSelector | None = None
    """In a cluster: labels of pods of this namespace that are this account without logging in, on listeners of role
    Submission, Submissions and Internal; `{}` is every pod. Counts only where addresses are the clients' own, as in
    a RelayPolicy. On one machine it never holds."""

    allowed_senders: Annotated[
        tuple[Annotated[str, AfterValidator(sender_pattern)], ...], Field(max_length=1000)
    ] = ()
    """What it may send as: patterns over the envelope sender and the addresses in From and Sender: bob@example.org,
    example.org, *.example.org, * for any. In another namespace than the MTA's, only of domains that this namespace
    may receive for."""

    domain_ref: DomainRef | None = None
    """It may also send as every address of this MailDomain."""

    quota: Quota = Quota()
    """How much it may send. Default: no limit but the listener's."""

    guard: Guard = Guard()
    """What happens when it sends unlike itself."""

    expires: Annotated[str, AfterValidator(moment), Field(max_length=64), Unit("moment")] | None = None
    """When it ends: from then on nobody logs in, and open sessions send nothing more. RFC 3339, such as
    2027-01-31T12:00:00Z. Default: never."""

    @model_validator(mode="after")
    def _proof(self) -> Self:
        if self.secret_ref is not None and self.generate is not None:
            raise wrong("both secretRef and generate", "Keep one: the password has one place.")
        if self.secret_ref is None and self.generate is None and self.pod_selector is None:
            raise wrong("nobody can be this account", "Write secretRef, generate: {} or podSelector.")
        if not self.allowed_senders and self.domain_ref is None:
            raise wrong("it may send as nobody", "Write allowedSenders: [bob@example.org], or domainRef.")
        if self.username is not None and self.secret_ref is None and self.generate is None:
            raise wrong("username says nothing without a password", "Remove it, or write secretRef or generate.")
        return self


class SMTPCredential(Resource):
    """An account that may submit mail."""

    short: ClassVar[str] = "smtpc"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["SMTPCredential"]
    """SMTPCredential"""

    spec: SMTPCredentialSpec
    """What it shall be."""
