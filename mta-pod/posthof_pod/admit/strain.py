"""What a large message passes on its way to the disk: its body hashes are made, and foreign fields in our name lose
their name (RFC 8601 section 5).

Rules
- The header is held until it ends, 64 KiB at most; the body never.
- Every octet that came leaves, and the size stays: only names of fields change, into others of the same length.
- Where nothing is signed nothing is hashed.
"""

from __future__ import annotations

from posthof_pod import fields
from posthof_pod.mailauth import results
from posthof_pod.mailauth.canon import BodyHashes
from posthof_pod.mailauth.canon import fields as parts
from posthof_pod.mailauth.dkim.verify import wishes


class Strainer:
    """For one message. `hashes` is there when its header has ended."""

    __slots__ = ("_hostname", "_is_in_body", "_kept", "hashes")

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._kept = b""
        self._is_in_body = False
        self.hashes: BodyHashes | None = None

    def take(self, data: bytes) -> bytes:
        """The next octets -> what may be written now."""
        if self._is_in_body:
            if self.hashes is not None:
                self.hashes.update(data)
            return data
        kept = self._kept + data
        end = 0 if kept.startswith(b"\r\n") else kept.find(b"\r\n\r\n") + 2
        if end == 1:
            if len(kept) <= fields.LIMIT:
                self._kept = kept
                return b""
            self._is_in_body = True  # a header too long to be read: nothing in it can be judged
        else:
            kept = self._headed(kept, end)
        self._kept = b""
        return kept

    def _headed(self, content: bytes, end: int) -> bytes:
        """`content` up to `end` is the header block."""
        self._is_in_body = True
        head = content[:end]
        read = parts(head)
        self.hashes = BodyHashes(wishes(read))
        self.hashes.update(content[end + 2 :])
        return results.disarmed(head, read, self._hostname) + content[end:]

    def end(self) -> bytes:
        """What is left to be written when nothing more comes."""
        kept, self._kept = self._kept, b""
        return kept
