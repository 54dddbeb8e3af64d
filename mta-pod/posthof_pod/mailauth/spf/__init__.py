"""SPF (RFC 7208): may this client send for this domain? Pure; the resolver is passed in."""

from posthof_pod.mailauth.spf.check import Identity, Verdict, check

__all__ = ["Identity", "Verdict", "check"]
