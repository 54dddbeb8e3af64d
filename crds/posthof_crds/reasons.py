"""Conditions and their reasons: the closed list that statuses, events and the reference pages share.

Rules of this file
- No pydantic, no I/O. Every reason and condition has its sentence here, and a test asks for it.
- A reason is a word for programs: its meaning does not change, and none is taken away. What to do stands in the
  condition's message, made where the reason is given.
- `Reconciling`, `Stalled`, `Issuing` and `Conflicted` exist only while they are True (kstatus).
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Condition(enum.StrEnum):
    """The `type` of a condition."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    ACCEPTED = "Accepted"
    # MTA
    AVAILABLE = "Available"
    CONFIG_CONVERGED = "ConfigConverged"
    SPOOL_HEALTHY = "SpoolHealthy"
    CERTIFICATES_READY = "CertificatesReady"
    CLIENT_IP_PRESERVED = "ClientIPPreserved"
    SCALING_ACTIVE = "ScalingActive"
    # MailDomain
    DNS_READY = "DNSReady"
    MTA_STS_READY = "MTASTSReady"
    CONFLICTED = "Conflicted"
    DKIM_READY = "DKIMReady"
    # RelayPolicy
    RESOLVED_REFS = "ResolvedRefs"
    # SMTPCredential
    USABLE = "Usable"
    UNSUSPICIOUS = "Unsuspicious"
    # DKIMKey
    GENERATED = "Generated"
    PUBLISHED = "Published"
    ACTIVE = "Active"
    RETIRING = "Retiring"
    REVOKED = "Revoked"
    # TLSCert
    ISSUING = "Issuing"
    SERVED = "Served"
    DANE_READY = "DANEReady"


class Reason(enum.StrEnum):
    """The `reason` of a condition."""

    # of every kind
    READY = "Ready"
    NOT_READY = "NotReady"
    INVALID = "Invalid"
    PAUSED = "Paused"
    PROGRESSING = "Progressing"
    DELETING = "Deleting"
    APPLY_FAILED = "ApplyFailed"

    # Usable, Unsuspicious
    USABLE = "Usable"
    SENDING_UNUSUALLY = "SendingUnusually"
    SENDING_AS_USUAL = "SendingAsUsual"

    # Accepted
    ACCEPTED = "Accepted"
    NO_MTA = "NoMTA"
    NOT_ALLOWED = "NotAllowed"
    PROOF_MISSING = "ProofMissing"
    DOMAIN_TAKEN = "DomainTaken"
    NEXT_HOP_NOT_ALLOWED = "NextHopNotAllowed"
    OPEN_RELAY = "OpenRelay"
    POLICY_TAKEN = "PolicyTaken"
    USERNAME_TAKEN = "UsernameTaken"
    SENDER_NOT_ALLOWED = "SenderNotAllowed"
    DOMAIN_MISSING = "DomainMissing"
    CONFIG_MAP_MISSING = "ConfigMapMissing"
    CONFIG_MAP_INVALID = "ConfigMapInvalid"

    # references
    RESOLVED = "Resolved"
    SECRET_MISSING = "SecretMissing"
    SECRET_KEY_MISSING = "SecretKeyMissing"

    # MTA
    PODS_READY = "PodsReady"
    PODS_NOT_READY = "PodsNotReady"
    NO_POD_READY = "NoPodReady"
    ROLLING_OUT = "RollingOut"
    DRAINING = "Draining"
    CONVERGED = "Converged"
    CONVERGING = "Converging"
    CONFIG_REFUSED = "ConfigRefused"
    CONFIG_TOO_LARGE = "ConfigTooLarge"
    NO_REPORTS = "NoReports"
    SPOOL_HEALTHY = "SpoolHealthy"
    SPOOL_FAILING = "SpoolFailing"
    CLAIM_MISSING = "ClaimMissing"
    CLAIM_PENDING = "ClaimPending"
    CLAIM_LOST = "ClaimLost"
    ONE_NODE_ONLY = "OneNodeOnly"
    CLAIM_FOR_ONE_POD = "ClaimForOnePod"
    VOLUME_REFUSED = "VolumeRefused"
    CERTIFICATES_READY = "CertificatesReady"
    NO_CERTIFICATES = "NoCertificates"
    CERTIFICATE_MISSING = "CertificateMissing"
    CERTIFICATE_NOT_READY = "CertificateNotReady"
    ADDRESSES_KEPT = "AddressesKept"
    ADDRESSES_TRANSLATED = "AddressesTranslated"
    NODE_ADDRESSES_SEEN = "NodeAddressesSeen"
    NO_PUBLIC_LISTENER = "NoPublicListener"
    WITHIN_TARGETS = "WithinTargets"
    SCALING_UP = "ScalingUp"
    SCALING_DOWN = "ScalingDown"
    STABILIZING = "Stabilizing"
    AT_MAXIMUM = "AtMaximum"
    HELD_BY_MEMORY = "HeldByMemory"
    DELEGATED = "Delegated"
    KEDA_MISSING = "KEDAMissing"
    SCALER_FAILED = "ScalerFailed"

    # DNS
    RECORDS_RIGHT = "RecordsRight"
    RECORDS_MISSING = "RecordsMissing"
    RECORDS_DIFFER = "RecordsDiffer"
    HOSTS_NOT_PROVEN = "HostsNotProven"
    RECORDS_UNKNOWN = "RecordsUnknown"
    RESOLVER_FAILED = "ResolverFailed"
    NOT_CHECKED = "NotChecked"

    # DKIM
    SIGNING = "Signing"
    NOT_SIGNED = "NotSigned"
    KEYS_WAIT = "KeysWait"
    KEY_MADE = "KeyMade"
    KEY_INVALID = "KeyInvalid"
    PUBLISH_FAILED = "PublishFailed"
    RETIRED = "Retired"
    REVOKED = "Revoked"

    # TLSCert
    KEY_WAITS = "KeyWaits"
    ISSUED = "Issued"
    ISSUING = "Issuing"
    RENEWING = "Renewing"
    ISSUER_MISSING = "IssuerMissing"
    ISSUER_FAILED = "IssuerFailed"
    CERT_MANAGER_MISSING = "CertManagerMissing"
    CHALLENGE_FAILED = "ChallengeFailed"
    RATE_LIMITED = "RateLimited"
    APPROVAL_PENDING = "ApprovalPending"
    SECRET_TAKEN = "SecretTaken"
    PAIR_INVALID = "PairInvalid"
    NAMES_MISSING = "NamesMissing"
    NOT_YET_VALID = "NotYetValid"
    EXPIRED = "Expired"
    SERVED = "Served"
    NOT_SERVED = "NotServed"
    NOT_USED = "NotUsed"


class ConditionText(NamedTuple):
    type: Condition
    meaning: str  # when it is True
    reasons: tuple[Reason, ...]
    is_only_while_true: bool = False


MEANINGS: dict[Reason, str] = {
    Reason.READY: "Everything about it is in order.",
    Reason.NOT_READY: "Another condition is not in order; the message repeats it.",
    Reason.INVALID: "The object breaks a rule of its kind; its last good version stays in force.",
    Reason.PAUSED: "The annotation posthof.dev/paused is there: nothing is changed until it is removed.",
    Reason.PROGRESSING: "A change is on its way.",
    Reason.DELETING: "It is being deleted.",
    Reason.APPLY_FAILED: "The API server refused what was to be written; the message has its words.",
    Reason.ACCEPTED: "An MTA obeys it.",
    Reason.NO_MTA: "No MTA selects it: see mtaRef here, and the selectors and allowedNamespaces there.",
    Reason.NOT_ALLOWED: "The MTA allows this namespace no such thing; the message says what.",
    Reason.PROOF_MISSING: "The MTA's allowedNamespaces does not cover the domain, and its DNS does not prove it.",
    Reason.DOMAIN_TAKEN: "Another MailDomain has this domain: the proven one wins, then the older.",
    Reason.NEXT_HOP_NOT_ALLOWED: "The MTA's allowedNamespaces does not allow this namespace that next hop.",
    Reason.OPEN_RELAY: "It would let anybody relay: its match is not bounded.",
    Reason.SIGNING: "It signs: every authoritative server shows the record.",
    Reason.NOT_SIGNED: "The MailDomain asks for no signatures.",
    Reason.KEYS_WAIT: "A key waits until every authoritative server of the zone shows its record.",
    Reason.KEY_MADE: "The private key is in its Secret.",
    Reason.KEY_INVALID: "What is in the Secret is no key that can sign as the DKIMKey says.",
    Reason.PUBLISH_FAILED: "The record could not be published; the message says what the server said.",
    Reason.RETIRED: "It signs no more; its record stays for what is on its way.",
    Reason.REVOKED: "Its record says that nothing signed with it is to be believed.",
    Reason.POLICY_TAKEN: "The MTA obeys another AccessPolicy, which is older.",
    Reason.USERNAME_TAKEN: "Another SMTPCredential of this MTA has the user name.",
    Reason.SENDER_NOT_ALLOWED: "It would send as addresses that are not this namespace's.",
    Reason.DOMAIN_MISSING: "The MailDomain it names is not there, or this MTA does not receive for it.",
    Reason.USABLE: "It can be used.",
    Reason.SENDING_UNUSUALLY: "It sends unlike itself, so its mail is held.",
    Reason.SENDING_AS_USUAL: "It sends as it always did.",
    Reason.CONFIG_MAP_MISSING: "The ConfigMap of recipients.listFrom, or its key, is not there.",
    Reason.CONFIG_MAP_INVALID: "A line of the ConfigMap of recipients.listFrom is no local part.",
    Reason.RESOLVED: "Everything it refers to is there.",
    Reason.SECRET_MISSING: "A Secret it refers to is not there. Mail that needs it waits in the queue.",
    Reason.SECRET_KEY_MISSING: "A Secret it refers to has not that key. Mail that needs it waits in the queue.",
    Reason.PODS_READY: "All pods that are wanted are ready.",
    Reason.PODS_NOT_READY: "Some pods are not ready.",
    Reason.NO_POD_READY: "No pod is ready: nothing is received.",
    Reason.ROLLING_OUT: "Pods of a new form replace those of the old one.",
    Reason.DRAINING: "The MTA is being deleted, and its pods deliver what the spool holds first.",
    Reason.CONVERGED: "Every pod runs the newest configuration.",
    Reason.CONVERGING: "Some pods do not run the newest configuration yet.",
    Reason.CONFIG_REFUSED: "A pod refused the newest configuration and goes on with the one before.",
    Reason.CONFIG_TOO_LARGE: "The configuration is larger than what pods can be sent; the one before stays in force.",
    Reason.NO_REPORTS: "No pod has reported yet.",
    Reason.SPOOL_HEALTHY: "Every pod can write to the spool.",
    Reason.SPOOL_FAILING: "A pod cannot write to the spool, or the spool is full.",
    Reason.CLAIM_MISSING: "The claim of spool.existingClaim is not there.",
    Reason.CLAIM_PENDING: "The spool's claim is not bound to a volume yet.",
    Reason.CLAIM_LOST: "The spool's volume is gone.",
    Reason.ONE_NODE_ONLY: "The claim is ReadWriteOnce, so all pods run on one node.",
    Reason.CLAIM_FOR_ONE_POD: "The claim is ReadWriteOncePod, so no second pod can mount it.",
    Reason.VOLUME_REFUSED: "A pod measured the volume and refuses it: it breaks a promise that the spool rests on.",
    Reason.CERTIFICATES_READY: "Every certificate of the listeners can be served.",
    Reason.NO_CERTIFICATES: "No listener speaks TLS.",
    Reason.CERTIFICATE_MISSING: "A listener names a TLSCert that is not there.",
    Reason.CERTIFICATE_NOT_READY: "A TLSCert of a listener is not ready.",
    Reason.ADDRESSES_KEPT: "Clients are seen with their own addresses.",
    Reason.ADDRESSES_TRANSLATED: "Clients may come with a node's address, so rules about clients do not count there.",
    Reason.NODE_ADDRESSES_SEEN: "Nearly all clients seem to be nodes of the cluster: their addresses are translated.",
    Reason.NO_PUBLIC_LISTENER: "There are listeners of role Internal alone, and these see the pods' own addresses.",
    Reason.WITHIN_TARGETS: "The pods are neither too many nor too few; the message has the target that is nearest.",
    Reason.SCALING_UP: "Pods are added; the message has the target that asks for them.",
    Reason.SCALING_DOWN: "A pod is taken away: fewer have been enough for the whole stabilisation window.",
    Reason.STABILIZING: "Fewer pods would be enough just now. If that lasts, one is taken away.",
    Reason.AT_MAXIMUM: "More pods would be needed than autoscaling.max allows.",
    Reason.HELD_BY_MEMORY: "Fewer pods would not hold all queued mail in memory, so none is taken away.",
    Reason.DELEGATED: "Somebody else decides how many pods run: an HPA, KEDA, or who writes spec.replicas.",
    Reason.KEDA_MISSING: "The mode is KEDA, and this cluster has not its API.",
    Reason.SCALER_FAILED: "The HPA or ScaledObject cannot decide; the message has its words.",
    Reason.HOSTS_NOT_PROVEN: "An MX host in the policy has not been seen with a certificate that the world believes.",
    Reason.RECORDS_RIGHT: "What is published is what is expected.",
    Reason.RECORDS_MISSING: "A record is not published; status.dnsRecords has its text.",
    Reason.RECORDS_DIFFER: "A record is published and says something else; status.dnsRecords has both texts.",
    Reason.RECORDS_UNKNOWN: "What to expect is not known: the MTA says no egress.addresses, or has no address yet.",
    Reason.RESOLVER_FAILED: "DNS did not answer; it is asked again.",
    Reason.NOT_CHECKED: "DNS has not been asked, because no MTA accepts the domain.",
    Reason.KEY_WAITS: "The next key waits until its TLSA records have stood for two TTLs.",
    Reason.ISSUED: "The certificate is valid, for these names, and in its Secret.",
    Reason.ISSUING: "The first certificate is being made.",
    Reason.RENEWING: "A certificate is there, and its successor is being made.",
    Reason.ISSUER_MISSING: "The issuer, or the Secret of its certificate authority, is not there.",
    Reason.ISSUER_FAILED: "The issuer refused; the message has its words.",
    Reason.CERT_MANAGER_MISSING: "The issuer is of cert-manager, and this cluster has not its API.",
    Reason.CHALLENGE_FAILED: "The names cannot be proven to be ours: nobody answers for them, or there is no record.",
    Reason.RATE_LIMITED: "The authority gives no more for now; it is asked again at status.nextAttempt.",
    Reason.APPROVAL_PENDING: "A CertificateSigningRequest waits for its approval, or for its signer.",
    Reason.SECRET_TAKEN: "The Secret the certificate would be kept in is there, and is somebody else's.",
    Reason.PAIR_INVALID: "Certificate and key cannot be read, or do not belong together.",
    Reason.NAMES_MISSING: "The certificate is not for all of dnsNames.",
    Reason.NOT_YET_VALID: "The certificate's time has not begun.",
    Reason.EXPIRED: "The certificate's time is over.",
    Reason.SERVED: "Every pod of the MTAs that name it serves it.",
    Reason.NOT_SERVED: "Some pods serve another certificate still, or none.",
    Reason.NOT_USED: "No listener of an MTA names it.",
}

_READY = (Reason.READY, Reason.NOT_READY, Reason.INVALID, Reason.PAUSED, Reason.DELETING)
_ACCEPTED = (Reason.ACCEPTED, Reason.NO_MTA, Reason.INVALID, Reason.NOT_ALLOWED, Reason.PAUSED)
_RECONCILING = (Reason.PROGRESSING, Reason.ROLLING_OUT, Reason.DRAINING, Reason.DELETING)
_STALLED = (Reason.INVALID, Reason.APPLY_FAILED, Reason.CONFIG_TOO_LARGE, Reason.CLAIM_FOR_ONE_POD)

_TROUBLE = (
    Reason.ISSUER_MISSING,
    Reason.ISSUER_FAILED,
    Reason.CERT_MANAGER_MISSING,
    Reason.CHALLENGE_FAILED,
    Reason.KEY_WAITS,
    Reason.RATE_LIMITED,
    Reason.APPROVAL_PENDING,
    Reason.SECRET_TAKEN,
    Reason.SECRET_MISSING,
    Reason.SECRET_KEY_MISSING,
    Reason.PAIR_INVALID,
    Reason.NAMES_MISSING,
    Reason.NOT_YET_VALID,
    Reason.EXPIRED,
)

CONDITIONS: dict[str, tuple[ConditionText, ...]] = {
    "MTA": (
        ConditionText(
            Condition.READY,
            "All pods are ready, run the newest configuration, have their spool and their certificates.",
            (*_READY, Reason.PODS_NOT_READY, Reason.NO_POD_READY, Reason.ROLLING_OUT),
        ),
        ConditionText(
            Condition.AVAILABLE,
            "At least one pod is ready: mail is received.",
            (Reason.PODS_READY, Reason.PODS_NOT_READY, Reason.NO_POD_READY),
        ),
        ConditionText(
            Condition.CONFIG_CONVERGED,
            "Every pod reports that it runs the newest configuration.",
            (
                Reason.CONVERGED,
                Reason.CONVERGING,
                Reason.CONFIG_REFUSED,
                Reason.CONFIG_TOO_LARGE,
                Reason.NO_REPORTS,
                Reason.INVALID,
            ),
        ),
        ConditionText(
            Condition.SPOOL_HEALTHY,
            "The spool's volume is there and every pod can write to it.",
            (
                Reason.SPOOL_HEALTHY,
                Reason.ONE_NODE_ONLY,
                Reason.SPOOL_FAILING,
                Reason.CLAIM_MISSING,
                Reason.CLAIM_PENDING,
                Reason.CLAIM_LOST,
                Reason.CLAIM_FOR_ONE_POD,
                Reason.VOLUME_REFUSED,
                Reason.NO_REPORTS,
            ),
        ),
        ConditionText(
            Condition.CERTIFICATES_READY,
            "Every certificate that a listener names can be served.",
            (
                Reason.CERTIFICATES_READY,
                Reason.NO_CERTIFICATES,
                Reason.CERTIFICATE_MISSING,
                Reason.CERTIFICATE_NOT_READY,
            ),
        ),
        ConditionText(
            Condition.CLIENT_IP_PRESERVED,
            "The listeners for the world see their clients' own addresses, so rules may be about clients there.",
            (
                Reason.ADDRESSES_KEPT,
                Reason.ADDRESSES_TRANSLATED,
                Reason.NODE_ADDRESSES_SEEN,
                Reason.NO_PUBLIC_LISTENER,
            ),
        ),
        ConditionText(
            Condition.SCALING_ACTIVE,
            "The number of pods follows the work. There only with spec.autoscaling, or while mail holds pods.",
            (
                Reason.WITHIN_TARGETS,
                Reason.STABILIZING,
                Reason.SCALING_UP,
                Reason.SCALING_DOWN,
                Reason.AT_MAXIMUM,
                Reason.HELD_BY_MEMORY,
                Reason.DELEGATED,
                Reason.KEDA_MISSING,
                Reason.SCALER_FAILED,
                Reason.NO_REPORTS,
            ),
        ),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(Condition.STALLED, "It does not go on without somebody's help.", _STALLED, True),
    ),
    "MailDomain": (
        ConditionText(Condition.READY, "It is accepted and nothing about it is wrong.", (*_READY, Reason.ACCEPTED)),
        ConditionText(
            Condition.ACCEPTED,
            "At least one MTA receives mail for the domain; `bindings` says which.",
            (
                *_ACCEPTED,
                Reason.PROOF_MISSING,
                Reason.DOMAIN_TAKEN,
                Reason.NEXT_HOP_NOT_ALLOWED,
                Reason.CONFIG_MAP_MISSING,
                Reason.CONFIG_MAP_INVALID,
            ),
        ),
        ConditionText(
            Condition.DNS_READY,
            "MX, SPF and DMARC are published as `dnsRecords` expects them.",
            (
                Reason.RECORDS_RIGHT,
                Reason.RECORDS_MISSING,
                Reason.RECORDS_DIFFER,
                Reason.RECORDS_UNKNOWN,
                Reason.RESOLVER_FAILED,
                Reason.NOT_CHECKED,
            ),
        ),
        ConditionText(
            Condition.MTA_STS_READY,
            "The MTA-STS policy is announced, its host leads here, and it says what `dns.mtaSts` does. Left out "
            "where none is asked for.",
            (
                Reason.RECORDS_RIGHT,
                Reason.RECORDS_MISSING,
                Reason.RECORDS_DIFFER,
                Reason.RECORDS_UNKNOWN,
                Reason.HOSTS_NOT_PROVEN,
            ),
        ),
        ConditionText(
            Condition.DKIM_READY,
            "Every algorithm that is asked for has a key that signs.",
            (Reason.SIGNING, Reason.KEYS_WAIT, Reason.NOT_SIGNED, Reason.NOT_ALLOWED),
        ),
        ConditionText(Condition.CONFLICTED, "Another MailDomain has the same domain.", (Reason.DOMAIN_TAKEN,), True),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(Condition.STALLED, "It does not go on without somebody's help.", _STALLED, True),
    ),
    "RelayPolicy": (
        ConditionText(
            Condition.READY,
            "It is accepted and everything it refers to is there.",
            (*_READY, Reason.ACCEPTED, Reason.SECRET_MISSING, Reason.SECRET_KEY_MISSING),
        ),
        ConditionText(
            Condition.ACCEPTED,
            "At least one MTA obeys the rule; `bindings` says which.",
            (*_ACCEPTED, Reason.OPEN_RELAY, Reason.NEXT_HOP_NOT_ALLOWED),
        ),
        ConditionText(
            Condition.RESOLVED_REFS,
            "The Secrets it refers to are there.",
            (Reason.RESOLVED, Reason.SECRET_MISSING, Reason.SECRET_KEY_MISSING),
        ),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(Condition.STALLED, "It does not go on without somebody's help.", _STALLED, True),
    ),
    "SMTPCredential": (
        ConditionText(
            Condition.READY,
            "It is accepted, its Secret is there, it has not expired, and nothing about it is suspicious.",
            (*_READY, Reason.ACCEPTED),
        ),
        ConditionText(
            Condition.ACCEPTED,
            "At least one MTA knows it; `bindings` says which.",
            (*_ACCEPTED, Reason.USERNAME_TAKEN, Reason.SENDER_NOT_ALLOWED, Reason.DOMAIN_MISSING),
        ),
        ConditionText(
            Condition.RESOLVED_REFS,
            "The Secret it names is there.",
            (Reason.RESOLVED, Reason.SECRET_MISSING, Reason.SECRET_KEY_MISSING, Reason.SECRET_TAKEN),
        ),
        ConditionText(Condition.USABLE, "It has not expired.", (Reason.USABLE, Reason.EXPIRED)),
        ConditionText(
            Condition.UNSUSPICIOUS,
            "It sends as it always did; else its mail is held until somebody looks.",
            (Reason.SENDING_AS_USUAL, Reason.SENDING_UNUSUALLY),
        ),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(Condition.STALLED, "It does not go on without somebody's help.", _STALLED, True),
    ),
    "AccessPolicy": (
        ConditionText(Condition.READY, "It is accepted.", (*_READY, Reason.ACCEPTED)),
        ConditionText(
            Condition.ACCEPTED,
            "At least one MTA obeys it; `bindings` says which.",
            (*_ACCEPTED, Reason.POLICY_TAKEN),
        ),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(Condition.STALLED, "It does not go on without somebody's help.", _STALLED, True),
    ),
    "DKIMKey": (
        ConditionText(
            Condition.READY,
            "It is as its spec wants it: Active and signing, Retired, or Revoked.",
            (*_READY, Reason.SIGNING, Reason.RETIRED, Reason.REVOKED, Reason.KEYS_WAIT),
        ),
        ConditionText(
            Condition.GENERATED,
            "The private key is there.",
            (
                Reason.KEY_MADE,
                Reason.KEY_INVALID,
                Reason.SECRET_MISSING,
                Reason.SECRET_KEY_MISSING,
                Reason.SECRET_TAKEN,
                Reason.DOMAIN_MISSING,
            ),
        ),
        ConditionText(
            Condition.PUBLISHED,
            "Every authoritative server of the zone shows the record.",
            (Reason.RECORDS_RIGHT, Reason.RECORDS_MISSING, Reason.RESOLVER_FAILED, Reason.PUBLISH_FAILED),
        ),
        ConditionText(
            Condition.ACTIVE, "Pods sign with it.", (Reason.SIGNING, Reason.KEYS_WAIT, Reason.RETIRED, Reason.REVOKED)
        ),
        ConditionText(Condition.RETIRING, "It signs no more; its record stays.", (Reason.RETIRED,)),
        ConditionText(Condition.REVOKED, "Its record says `p=`.", (Reason.REVOKED,)),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(Condition.STALLED, "It does not go on without somebody's help.", _STALLED, True),
    ),
    "TLSCert": (
        ConditionText(
            Condition.READY,
            "A valid certificate for all of dnsNames is in its Secret.",
            (
                *_READY,
                Reason.ISSUED,
                Reason.ISSUING,
                *_TROUBLE,
            ),
        ),
        ConditionText(Condition.ISSUING, "A certificate is being made.", (Reason.ISSUING, Reason.RENEWING), True),
        ConditionText(
            Condition.SERVED,
            "Every pod of the MTAs that name it reports its serial.",
            (Reason.SERVED, Reason.NOT_SERVED, Reason.NOT_USED),
        ),
        ConditionText(
            Condition.DANE_READY,
            "Every authoritative server shows the TLSA records of the present and the next key. Only with dane.mode "
            "Staged.",
            (Reason.RECORDS_RIGHT, Reason.RECORDS_MISSING, Reason.RECORDS_UNKNOWN),
        ),
        ConditionText(Condition.RECONCILING, "A change is on its way.", _RECONCILING, True),
        ConditionText(
            Condition.STALLED,
            "It does not go on without somebody's help.",
            (Reason.INVALID, Reason.APPLY_FAILED, *_TROUBLE),
            True,
        ),
    ),
}
