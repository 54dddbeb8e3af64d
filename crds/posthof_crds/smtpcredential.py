"""SMTPCredential: an account that may submit mail: how it proves who it is, what it may send as, and how much.

It is proven by a password (secretRef, generate, or somebody else's: dovecot, ldap), a token (oauth), or by being a
pod (podSelector). Listeners of role Submission
and Submissions take its mail. Secrets hold passwords, or hashes of them; manifests and configurations never do.
"""

from __future__ import annotations

import datetime
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from posthof_crds import engine, patterns
from posthof_crds.core import MTARef, Resource
from posthof_crds.fields import FQDN, Bool, FilePath, Int, ObjectName, Part, SecretKey, Unit, one_of, wrong
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


def https_url(value: str) -> str:
    """An https URL without user, password and fragment."""
    parts = urlsplit(value)
    is_plain = value.isascii() and value.isprintable() and " " not in value and "@" not in parts.netloc
    if parts.scheme != "https" or not parts.hostname or parts.fragment or not is_plain:
        raise wrong(f"{value!r} is not an https URL", "Write https://login.example.org/path.")
    return value


def ldap_url(value: str) -> str:
    """An ldaps URL, or an ldap URL of loopback: a password is not for everybody."""
    parts = urlsplit(value)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if (
        not parts.hostname
        or parts.path.strip("/")
        or not (parts.scheme == "ldaps" or (parts.scheme == "ldap" and is_local))
    ):
        raise wrong(f"{value!r} is not an ldaps URL", "Write ldaps://ldap.example.org, or ldap://localhost.")
    return value


def distinguished_name(value: str) -> str:
    """A distinguished name with {user} in it."""
    if "{user}" not in value or "=" not in value or not value.isprintable():
        raise wrong("this is not a name of users", "Write uid={user},ou=people,dc=example,dc=org.")
    return value


def sender_pattern(value: str) -> str:
    """A pattern over sender addresses; `{user}` is who logged in."""
    if "{user}" in value:
        stand_in = "user@user.test" if value == "{user}" else "user"
        sender_pattern(value.replace("{user}", stand_in))
        return value
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
    `SCRAM-SHA-256$...`, or both (`posthof password` makes them)."""


class Generate(Part):
    """A password made here. In a cluster it is in the Secret `<name>-smtp` (keys username, password) beside the
    SMTPCredential; on one machine in a manifest of that Secret below the MTA's stateDir, in `credentials/`. Removing
    that Secret makes a new password."""

    length: Annotated[Int, Field(ge=16, le=128)] = 32
    """Characters of the password, each one of 62."""


class SecretValue(Part):
    """One key of a Secret of the same folder (or namespace)."""

    name: ObjectName
    """The Secret's metadata.name."""

    key: SecretKey
    """The key."""


class Introspection(Part):
    """The issuer is asked about each token (RFC 7662). What it says is believed for a minute."""

    url: Annotated[str, AfterValidator(https_url)]
    """Where it is asked, such as https://login.example.org/introspect. Its certificate must be one that the system
    knows."""

    secret_name: ObjectName
    """The Secret with what we log in with there: keys username (the client's id) and password (its secret)."""


class OAuth(Part):
    """Bearer tokens (mechanisms OAUTHBEARER, RFC 7628, and XOAUTH2) of one issuer: exactly one of jwksURL,
    jwksSecretRef and introspection says which hold."""

    issuer: Annotated[str, Field(min_length=1, max_length=1000)]
    """The issuer, as tokens name it in `iss`; compared as it is written."""

    audience: Annotated[str, Field(min_length=1, max_length=1000)]
    """Whom tokens must be for: one of those in `aud`. Why: a token for another service must not open this one."""

    jwks_url: Annotated[str, AfterValidator(https_url)] | None = Field(default=None, alias="jwksURL")
    """Where the issuer publishes its keys (RFC 7517); asked every ten minutes, and when a new key is used."""

    jwks_secret_ref: SecretValue | None = None
    """A Secret that holds these keys, for issuers that cannot be asked. For tokens of a cluster's service accounts it
    is what `kubectl get --raw /openid/v1/jwks` prints."""

    introspection: Introspection | None = None
    """The issuer is asked about each token."""

    claim: Annotated[str, Field(min_length=1, max_length=100)] = "email"
    """The claim that names the user: email, preferred_username, or sub, such as
    system:serviceaccount:NAMESPACE:NAME."""

    users: Annotated[tuple[Annotated[str, Field(max_length=320)], ...], Field(max_length=1000)] = ()
    """Users it is for. Default: all that the issuer gives a token for this audience."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("jwks_url", "jwks_secret_ref", "introspection"), "oauth")
        return self


class Dovecot(Part):
    """On one machine: names and passwords are Dovecot's (mechanisms PLAIN and LOGIN), asked by its auth socket."""

    socket: FilePath
    """The socket of Dovecot's auth service, such as /var/spool/postfix/private/auth."""


class LDAP(Part):
    """Names and passwords are a directory's (mechanisms PLAIN and LOGIN): the user is bound to it."""

    url: Annotated[str, AfterValidator(ldap_url)]
    """The directory: ldaps://ldap.example.org, or ldap:// for one on loopback. Its certificate must be one the system
    knows."""

    user_dn: Annotated[str, AfterValidator(distinguished_name), Field(max_length=1000)] = Field(alias="userDN")
    """The name that is bound, with {user} where the user's name stands: uid={user},ou=people,dc=example,dc=org."""


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

    oauth: OAuth | None = None
    """Clients come with bearer tokens. The account is that of all its users; each has a quota of their own."""

    dovecot: Dovecot | None = None
    """Names and passwords are Dovecot's. The account is that of all its users; each has a quota of their own."""

    ldap: LDAP | None = None
    """Names and passwords are a directory's. The account is that of all its users; each has a quota of their own."""

    certificate: FQDN | None = None
    """A DNS name in the client's certificate (mechanism EXTERNAL): whoever shows one with this name, signed by a CA
    of the listener's `tls.clientCa`, is the account. Only in the MTA's own namespace."""

    pod_selector: LabelSelector | None = None
    """In a cluster: labels of pods of this namespace that are this account without logging in, on listeners of role
    Submission, Submissions and Internal; `{}` is every pod. Counts only where addresses are the clients' own, as in
    a RelayPolicy. On one machine it never holds."""

    allowed_senders: Annotated[
        tuple[Annotated[str, AfterValidator(sender_pattern)], ...], Field(max_length=1000)
    ] = ()
    """What it may send as: patterns over the envelope sender and the addresses in From and Sender: bob@example.org,
    example.org, *.example.org, * for any. With oauth, dovecot or ldap `{user}` is the name that somebody logged in
    with: {user}, or {user}@example.org. In another namespace than the MTA's, only of domains that this namespace
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

    @property
    def is_of_many(self) -> bool:
        """Whether it stands for many users."""
        return any(place is not None for place in (self.oauth, self.dovecot, self.ldap))

    @model_validator(mode="after")
    def _proof(self) -> Self:
        places = (self.secret_ref, self.generate, self.oauth, self.dovecot, self.ldap)
        count = sum(place is not None for place in places)
        if count > 1:
            what = "more than one of secretRef, generate, oauth, dovecot and ldap"
            raise wrong(what, "Keep one: the proof has one place.")
        if not count and self.pod_selector is None and self.certificate is None:
            instead = "Write secretRef, generate: {}, oauth, ldap, certificate or podSelector."
            raise wrong("nobody can be this account", instead)
        if self.is_of_many and (self.pod_selector is not None or self.certificate is not None):
            raise wrong("podSelector or certificate beside oauth, dovecot or ldap", "Make two accounts of it.")
        if not self.is_of_many and any("{user}" in pattern for pattern in self.allowed_senders):
            raise wrong("{user} says nothing here", "Write the addresses: the account is one user's.")
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
