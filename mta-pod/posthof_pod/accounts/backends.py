"""Which foreign sources of names the accounts of a configuration have. Libraries are loaded where one needs them."""

from __future__ import annotations

from collections.abc import Callable

from posthof_crds.engine import SecretRef
from posthof_pod.accounts.accounts import Backend
from posthof_pod.accounts.directory import Directory
from posthof_pod.accounts.issuer import Ask

Find = Callable[[SecretRef], bytes]


def backends_of(directory: Directory, find: Find, ask: Ask) -> tuple[list[Backend], list[str]]:
    """`(backends, complaints)`, by the names of their accounts."""
    found: list[Backend] = []
    complaints: list[str] = []
    for name, account in sorted(directory.accounts.items()):
        credential = account.credential
        try:
            if credential.dovecot:
                from posthof_pod.accounts.dovecot import DovecotBackend

                found.append(DovecotBackend(account))
            if credential.ldap is not None:
                from posthof_pod.accounts.ldap import LDAPBackend

                found.append(LDAPBackend(account))
            if credential.oauth is not None:
                from posthof_pod.accounts.tokens import TokenBackend

                oauth = credential.oauth
                who = tuple(_text(find, ref) for ref in (oauth.client_id, oauth.client_secret))
                keys = find(oauth.jwks) if oauth.jwks is not None else b""
                found.append(TokenBackend(account, ask, jwks=keys, login=(who[0], who[1])))
        except LookupError as error:
            complaints.append(f"SMTPCredential {name}: {error.args[0]}")
        except Exception as error:  # keys that a library cannot read: this account alone is out of use
            complaints.append(f"SMTPCredential {name}: {error}")
    return found, complaints


def _text(find: Find, ref: SecretRef | None) -> str:
    return find(ref).decode("utf-8", "replace").strip() if ref is not None else ""
