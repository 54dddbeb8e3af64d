"""What a listener offers its clients, compiled once per configuration: limits, and replies as octets.

Owns: the words of EHLO (RFC 5321 4.1.1.1, RFC 1870, 2034, 2920, 3030, 3207, 3461, 4954, 6152, 6531, 8689, 9422) and
the greeting.
"""

from __future__ import annotations

import sys

from posthof_crds.engine import SUBMISSION, Listener, TLSMode
from posthof_pod.replies import Reply
from posthof_pod.smtp.grammar import XCLIENT_ATTRIBUTES

DROP_FACTOR = 10  # a message this many times the limit (DROP_LEAST octets at least) is not read to its end
DROP_LEAST = 64 * 1024 * 1024


class Terms:
    """Immutable by convention; a dialogue takes the newest between two messages."""

    __slots__ = (
        "_ehlo",
        "blob_threshold",
        "command_line",
        "commands",
        "drop_limit",
        "greeting",
        "has_starttls",
        "hello",
        "hostname",
        "is_rated",
        "limits",
        "mechanisms",
        "message_size",
        "messages",
        "needs_login",
        "normalises",
        "recipients",
        "too_large",
        "whole_max",
    )

    def __init__(
        self, listener: Listener, hostname: str, *, has_certificate: bool = False, blob_threshold: int = 256 * 1024
    ) -> None:
        limits = self.limits = listener.limits
        self.hostname = hostname
        # The limits once more, as the hot path asks for them: "no limit" is a number that nothing reaches.
        self.command_line = limits.command_line
        self.commands = limits.commands or sys.maxsize
        self.messages = limits.messages or sys.maxsize
        self.message_size = limits.message_size or sys.maxsize
        self.recipients = limits.recipients
        self.is_rated = limits.client_message_rate > 0
        self.whole_max = min(blob_threshold, self.message_size)  # octets of content that is taken in one piece
        self.too_large = Reply(552, "5.3.4", f"The message exceeds the limit of {limits.message_size} octets")
        self.normalises = listener.normalise_newlines
        self.blob_threshold = blob_threshold
        self.has_starttls = has_certificate and listener.tls is TLSMode.STARTTLS
        self.drop_limit = max(limits.message_size * DROP_FACTOR, DROP_LEAST) if limits.message_size else 0
        self.greeting = f"220 {hostname} ESMTP Posthof\r\n".encode()
        self.hello = f"250 {hostname}\r\n".encode()
        words = ["PIPELINING", f"SIZE {limits.message_size}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"]
        words += ["CHUNKING", "BINARYMIME", _limits_word(limits.messages, limits.recipients)]
        self.needs_login = listener.role in SUBMISSION
        self.mechanisms = frozenset(listener.mechanisms) if self.needs_login else frozenset()
        secure = [hostname, *words]
        plain = [*secure, "STARTTLS"] if self.has_starttls else [*secure]
        secure.append("REQUIRETLS")  # RFC 8689 section 2: never in the clear
        if self.mechanisms:  # RFC 4954; never in the clear
            secure.insert(1, "AUTH " + " ".join(listener.mechanisms))
        self._ehlo = {
            (is_secure, has_xclient): _ehlo(secure if is_secure else plain, has_xclient=has_xclient)
            for is_secure in (False, True)
            for has_xclient in (False, True)
        }

    def ehlo(self, *, is_secure: bool, has_xclient: bool) -> bytes:
        """The reply to EHLO."""
        return self._ehlo[is_secure, has_xclient]


def _ehlo(words: list[str], *, has_xclient: bool) -> bytes:
    if has_xclient:
        words = [*words, "XCLIENT " + " ".join(XCLIENT_ATTRIBUTES)]
    return Reply(250, "", "\n".join(words)).encode()


def _limits_word(messages: int, recipients: int) -> str:
    """RFC 9422 4: values have six digits at most."""
    mailmax = f" MAILMAX={min(messages, 999_999)}" if messages else ""
    return f"LIMITS{mailmax} RCPTMAX={min(recipients, 999_999)}"
