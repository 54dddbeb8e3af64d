"""A changed manifest is taken into use between two messages: no session is dropped, no mail refused."""

from __future__ import annotations

import pytest

from kit.load import clients
from kit.mails import mail, numbers
from kit.posthof import mail_domain, posthof

pytestmark = pytest.mark.interop

OURS = mail_domain("ours.test", "Maildir", recipients={"list": ["b"]})
WIDER = mail_domain("ours.test", "Maildir", recipients={"list": ["b", "new"]})


def test_a_new_manifest_drops_no_session() -> None:
    with posthof(OURS) as mta:
        with clients(mta.port, "b@ours.test") as busy:
            busy.wait_for(30)
            for document in (WIDER, OURS, WIDER):
                before = len(mta.events("config_swapped"))
                mta.write("maildomain-ours-test", document)
                mta.reload()
                mta.wait_for_events("config_swapped", before + 1)
                busy.wait_for(30)
            mta.send("a@client.test", "new@ours.test", mail(0))
        mta.wait_until_empty()
        arrived = numbers(mta.inbox("ours.test", "b").mails())
        mta.inbox("ours.test", "new").wait_for(1)
    assert busy.drops == 0
    assert not busy.refusals
    assert sorted(arrived) == sorted(busy.accepted)  # no loss, and no duplicate either


def test_a_file_that_changes_is_noticed_without_a_signal() -> None:
    with posthof(OURS) as mta:
        mta.write("maildomain-ours-test", WIDER)
        mta.wait_for_event("config_swapped")
        mta.send("a@client.test", "new@ours.test", mail(0))
        mta.inbox("ours.test", "new").wait_for(1)


def test_a_bad_manifest_is_refused_and_the_old_one_stays() -> None:
    with posthof(OURS) as mta, mta.connect() as session:
        mta.write("maildomain-ours-test", mail_domain("ours.test", "Maildirs", recipients={"list": ["b"]}))
        mta.reload()
        told = mta.wait_for_event("config_refused")
        assert "mode" in str(told)
        session.sendmail("a@client.test", ["b@ours.test"], mail(1))
        mta.inbox("ours.test", "b").wait_for(1)
