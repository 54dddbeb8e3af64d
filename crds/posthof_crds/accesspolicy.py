"""AccessPolicy: what SPF, DKIM, DMARC and ARC of mail from the world lead to.

Listeners of role MX judge every message, but what comes from this machine itself only where there is an AccessPolicy;
others never do. The results stand in an Authentication-Results field on top of the message (RFC 8601). An MTA obeys
one AccessPolicy: of two the older, in files there may be one. Without any the results are written, mail that the
author's DMARC policy wants rejected or quarantined gets the field X-Posthof-Quarantine, and nothing else happens.

What the words do: Accept: nothing more than the result. Quarantine: the field X-Posthof-Quarantine with the reason,
for a mailbox server to sort by. Hold: kept in the queue until somebody releases it. Reject: 550 5.7.x after the
content has come, so that the reports the domain owner gets count it (RFC 9989 7.1). The strictest of all wins.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posthof_crds.core import MTARef, Resource
from posthof_crds.engine import Forgery, OnTrouble, Suspicion
from posthof_crds.fields import FQDN, Address, Bool, Line, Network, Part


class SPF(Part):
    """The client's address against the envelope sender's domain (RFC 7208)."""

    check: Bool = True
    """Whether it is asked at all. Off where every client is a gateway in front of this one: its address says nothing
    about the sender. DMARC then rests on DKIM alone."""

    fail: Suspicion = Suspicion.ACCEPT
    """The domain says that this client may not send for it (`-all`). Default Accept, because every forwarder that
    keeps the sender fails; DMARC judges with DKIM beside it."""

    soft_fail: Suspicion = Suspicion.ACCEPT
    """The domain says that this client probably may not (`~all`)."""

    perm_error: Suspicion = Suspicion.ACCEPT
    """The domain's record cannot be read, or asks for more than 10 look-ups."""

    temp_error: OnTrouble = OnTrouble.ACCEPT
    """DNS did not answer. Defer: 451 4.4.3, the sender tries again."""

    trusted_clients: Annotated[tuple[Network, ...], Field(max_length=1000)] = ()
    """Networks of forwarders and gateways of our own that SPF is not asked about: the result is `none` there."""


class DKIM(Part):
    """Signatures of the message (RFC 6376)."""

    check: Bool = True
    """Whether signatures are verified. Off saves most of the cost; DMARC then rests on SPF alone."""

    fail: Suspicion = Suspicion.ACCEPT
    """There are signatures, and none of them is good. Default Accept: lists and gateways break signatures, and the
    standard says to treat it like none (RFC 6376 6.1)."""

    unsigned: Suspicion = Suspicion.ACCEPT
    """There is no signature."""

    temp_error: OnTrouble = OnTrouble.ACCEPT
    """No signature is good, and the key of one could not be had. Defer: 451 4.7.5, the sender tries again."""


class DMARC(Part):
    """What the domain in From wishes for mail that is not authenticated as its own (RFC 9989)."""

    check: Bool = True
    """Whether the policy is looked up."""

    reject: Forgery = Forgery.EVIDENCE
    """The domain's policy is `reject`, and the message failed. RFC 9989 7.4 forbids to reject by that alone, because
    mailing lists and forwarders break what it rests on. Evidence: rejected where the message itself shows that it
    came straight from somebody else: SPF says fail for a sender of the same organisation, and there is no signature,
    no ARC set, no List field and at most one earlier hop; else as `quarantine` below. Reject: always rejected."""

    quarantine: Suspicion = Suspicion.QUARANTINE
    """The domain's policy is `quarantine`, and the message failed."""

    bad_from: Suspicion = Suspicion.QUARANTINE
    """There is no From field, several, none or several addresses in it, or one that programs read differently: no
    domain can be judged, and readers would see what nobody proved. Such a message never counts as authenticated."""

    temp_error: OnTrouble = OnTrouble.ACCEPT
    """The policy could not be had. Defer: 451 4.7.24, the sender tries again."""

    known_lists: Annotated[tuple[FQDN, ...], Field(max_length=1000)] = ()
    """Domains of mailing lists and forwarders that are believed: a message that SPF or DKIM authenticates as one of
    these, or a domain below, is not held against the author's domain. Reports call it a local policy."""

    aggregate_reports: Bool = True
    """Whether domain owners who ask for it (`rua`) get a report once a day: counts by client and result, no content
    (RFC 9990). They find their own mistakes by it."""

    organisation: Line = ""
    """The name in these reports. Default: the MTA's hostname."""

    contact: Address | None = None
    """The address these reports are from, and answers go to. Default: postmaster at the MTA's hostname."""

    failure_reports: Bool = False
    """Whether domain owners who ask for it (`ruf`) get a report about each message that failed, with its header but
    no body (RFC 9991), ten an hour and domain at most. Off: it tells strangers who writes to whom here."""


class ARC(Part):
    """What forwarders before us say they saw (RFC 8617)."""

    check: Bool = True
    """Whether the chain is verified."""

    trusted_sealers: Annotated[tuple[FQDN, ...], Field(max_length=1000)] = ()
    """Domains of forwarders whose word is believed: where the chain is good, its last sealer is one of these and it
    says that DMARC passed when the message came to it, a failure here is forgiven. Default: nobody."""


class AccessPolicySpec(Part):
    """What is checked and what follows."""

    mta_ref: MTARef | None = None
    """In a cluster: the one MTA that obeys it. Default: every MTA of this namespace whose `policySelector` matches. A
    policy of another namespace than the MTA's is refused: it would be about everybody's mail. On one machine it is
    the folder's MTA."""

    spf: SPF = SPF()
    """The client's address against the envelope sender's domain."""

    dkim: DKIM = DKIM()
    """Signatures."""

    dmarc: DMARC = DMARC()
    """The wish of the domain in From."""

    arc: ARC = ARC()
    """The word of forwarders."""


class AccessPolicy(Resource):
    """What SPF, DKIM, DMARC and ARC of mail from the world lead to."""

    short: ClassVar[str] = "acp"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["AccessPolicy"]
    """AccessPolicy"""

    spec: AccessPolicySpec
    """What it shall be."""
