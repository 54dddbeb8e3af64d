"""DMARC (RFC 9989): what the author's domain wishes, and whether the message is authenticated as its own. Pure."""

from posthof_pod.mailauth.dmarc.evaluate import NOT_ASKED, Aligned, Policy, Verdict, evaluate
from posthof_pod.mailauth.dmarc.record import Record, parse
from posthof_pod.mailauth.dmarc.walk import Discovery, discover

__all__ = ["NOT_ASKED", "Aligned", "Discovery", "Policy", "Record", "Verdict", "discover", "evaluate", "parse"]
