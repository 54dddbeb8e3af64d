"""A folder's objects, read and valid, each with the document it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from posthof_crds.accesspolicy import AccessPolicy
from posthof_crds.core import ConfigMap, Metadata, Secret
from posthof_crds.dkimkey import DKIMKey
from posthof_crds.documents import Document
from posthof_crds.engine import SecretRef
from posthof_crds.maildomain import MailDomain
from posthof_crds.mta import MTA
from posthof_crds.problems import Problem
from posthof_crds.relaypolicy import RelayPolicy
from posthof_crds.smtpcredential import SMTPCredential
from posthof_crds.tlscert import TLSCert
from posthof_crds.verifiers import HASHED, UNHASHED

AnyKind = MTA | MailDomain | RelayPolicy | AccessPolicy | SMTPCredential | DKIMKey | TLSCert | Secret | ConfigMap
K_co = TypeVar("K_co", bound=AnyKind, covariant=True)


@dataclass(frozen=True, slots=True)
class Entry(Generic[K_co]):
    """An object and where it was written."""

    object: K_co
    document: Document = field(repr=False)

    @property
    def metadata(self) -> Metadata:
        return self.object.metadata

    @property
    def name(self) -> str:
        return self.object.metadata.name


@dataclass(frozen=True)
class Manifests:
    """What `load` gives: objects by kind in the order of the files, and what it wants to warn of."""

    mtas: tuple[Entry[MTA], ...] = ()
    domains: tuple[Entry[MailDomain], ...] = ()
    policies: tuple[Entry[RelayPolicy], ...] = ()
    access: tuple[Entry[AccessPolicy], ...] = ()
    credentials: tuple[Entry[SMTPCredential], ...] = ()
    dkim_keys: tuple[Entry[DKIMKey], ...] = ()
    certificates: tuple[Entry[TLSCert], ...] = ()
    secrets: dict[str, Entry[Secret]] = field(default_factory=dict, repr=False)
    config_maps: dict[str, Entry[ConfigMap]] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()

    @property
    def mta(self) -> MTA:
        """The one MTA; `load` has seen that there is exactly one."""
        return self.mtas[0].object

    def secret(self, ref: SecretRef) -> bytes:
        """The bytes a SecretRef names; for a verifier that is not there the password, marked as such (UNHASHED).
        LookupError: no such Secret or key; it names both, never a value."""
        entry = self.secrets.get(ref.name)
        if entry is None:
            raise LookupError(f"there is no Secret {ref.name}")
        plain = ref.key.removesuffix(HASHED)
        if ref.key not in entry.object.key_names and plain in entry.object.key_names:
            return UNHASHED + entry.object.value(plain)
        if ref.key not in entry.object.key_names:
            raise LookupError(f"Secret {ref.name} has no key {ref.key}")
        return entry.object.value(ref.key)
