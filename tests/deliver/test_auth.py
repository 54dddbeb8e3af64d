"""AUTH at a smarthost."""

import base64
import contextlib

import pytest
import uvloop

from kit.peer import FULL, Peer, certificate
from kit.session import connect, destination, mail
from posthof_crds.engine import TLSLevel
from posthof_pod.deliver.auth import Credentials, authenticate
from posthof_pod.deliver.connection import Unreachable
from posthof_pod.model import Reason, Status
from posthof_pod.smtp.client import Refused
from posthof_pod.smtp.extensions import Extensions
from posthof_pod.smtp.replyline import Broken, PeerReply

SECRET = "s3cret pässword"
GOOD = Credentials("user", SECRET)
PAIR = certificate("peer.test")


def deliver(peer, credentials, level=TLSLevel.ENCRYPT):
    async def run():
        connection = await connect(peer, destination=destination(tls=level), auth=credentials)
        [outcome] = await connection.send(mail())
        await connection.quit()
        return outcome

    with peer:
        return uvloop.run(run())


def talk(credentials, mechanisms, replies, *, is_private=True):
    """The commands of the dialogue when it gets these replies."""
    dialogue = authenticate(credentials, Extensions(mechanisms=frozenset(mechanisms)), is_private=is_private)
    said = []
    answers = iter([None, *[PeerReply(code, b"2.7.0 words") for code in replies]])
    with contextlib.suppress(StopIteration):
        while True:
            said.append(dialogue.send(next(answers)).command)
    return said


def test_plain_is_preferred_and_lets_the_message_through():
    peer = Peer(certificate=PAIR, password=("user", SECRET))
    assert deliver(peer, GOOD).status is Status.RELAYED
    token = base64.b64encode(b"\0user\0" + SECRET.encode())
    assert peer.said("AUTH") == [b"AUTH PLAIN " + token]


def test_login_is_used_where_plain_is_not_offered():
    encoded = [base64.b64encode(b"user") + b"\r\n", base64.b64encode(SECRET.encode()) + b"\r\n"]
    assert talk(GOOD, {"LOGIN", "CRAM-MD5"}, [334, 334, 235]) == [b"AUTH LOGIN\r\n", *encoded]


def test_plain_is_said_again_where_the_initial_response_was_not_taken():
    token = base64.b64encode(b"\0user\0" + SECRET.encode())
    assert talk(GOOD, {"PLAIN"}, [334, 235]) == [b"AUTH PLAIN " + token + b"\r\n", token + b"\r\n"]


def test_a_wrong_password_is_temporary_and_told_without_the_password():
    peer = Peer(certificate=PAIR, password=("user", "another"))
    with pytest.raises(Unreachable) as caught:
        deliver(peer, GOOD)
    failure = caught.value
    assert (failure.reason, failure.code, failure.enhanced) == (Reason.AUTH_FAILED, 535, "5.7.8")
    assert not failure.is_permanent
    assert SECRET not in repr(failure) + failure.reply
    assert SECRET not in repr(GOOD) + str(GOOD)
    assert peer.messages == []


@pytest.mark.parametrize("mechanisms", [set(), {"CRAM-MD5", "XOAUTH2"}])
def test_a_host_without_plain_and_login_gets_nothing(mechanisms):
    with pytest.raises(Refused) as caught:
        talk(GOOD, mechanisms, [])
    assert caught.value.reason is Reason.AUTH_FAILED


def test_the_password_is_not_sent_where_somebody_can_listen():
    with pytest.raises(Refused, match="without TLS"):
        talk(GOOD, {"PLAIN"}, [], is_private=False)


@pytest.mark.parametrize("level", [TLSLevel.NONE, TLSLevel.MAY])
def test_the_password_is_sent_in_plain_text_to_this_machine(level):
    peer = Peer(offers=FULL, password=("user", SECRET))
    assert deliver(peer, GOOD, level).status is Status.RELAYED


def test_a_nul_in_a_secret_is_refused_and_a_strange_reply_is_a_broken_peer():
    with pytest.raises(Refused):
        talk(Credentials("a\0b", "c"), {"PLAIN"}, [])
    with pytest.raises(Broken):
        talk(GOOD, {"PLAIN"}, [334, 354])


@pytest.mark.parametrize("codes", [[421], [454], [500], [334, 535], [334, 334, 535]])
def test_every_refusal_of_login_is_a_failed_auth(codes):
    with pytest.raises(Refused) as caught:
        talk(GOOD, {"LOGIN"}, codes)
    assert (caught.value.reason, caught.value.code) == (Reason.AUTH_FAILED, codes[-1])
