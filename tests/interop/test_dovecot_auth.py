"""Dovecot says who may log in, by its auth socket."""

from __future__ import annotations

import asyncio

import pytest

from kit.dovecot import dovecot
from posthof_crds import patterns
from posthof_crds.engine import Credential, ListenerRole
from posthof_pod.accounts.directory import Account
from posthof_pod.accounts.dovecot import DovecotBackend
from posthof_pod.accounts.exchange import Login, Refusal
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.sasl import Password

pytestmark = pytest.mark.interop


def test_dovecot_knows_its_users() -> None:
    who = Session("192.0.2.1", listener="in", role=ListenerRole.SUBMISSION)

    async def story(path: str) -> None:
        credential = Credential(name="many", senders=("{user}@ours.test",), dovecot=path)
        backend = DovecotBackend(Account(credential, None, b"", patterns.AddressSet(())))
        right = await backend.check(Password("alice@ours.test", "x"), who)
        assert isinstance(right, Login)
        assert right.user == "alice"  # as Dovecot has it
        assert isinstance(await backend.check(Password("alice", "y"), who), Refusal)
        assert isinstance(await backend.check(Password("nobody", "x"), who), Refusal)

    with dovecot("alice") as peer:
        asyncio.run(story(str(peer.auth)))
