"""What a large message passes on its way to the disk: its body hashes are made, and foreign fields in our name lose
their name (RFC 8601 section 5).

Rules
- The header is held until it ends, 64 KiB at most; the body never. A longer header is refused (552 5.3.4): nobody
  reads what stands behind, so it could hold another From, or results in our name.
- Every octet that came leaves, and the size stays: only names of fields change, into others of the same length.
- Where nothing is signed nothing is hashed.
"""

from __future__ import annotations

from posthof_pod import fields
from posthof_pod.mailauth import results
from posthof_pod.mailauth.canon import BodyHashes
from posthof_pod.mailauth.canon import fields as parts
from posthof_pod.mailauth.dkim.verify import wishes
from posthof_pod.replies import Permanent
from posthof_pod.smtp.data import HEAD_TOO_LARGE


class Strainer:
    """For one message. `hashes` is there when its header has ended."""

    __slots__ = ("_hostname", "_is_in_body", "_kept", "hashes")

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._kept = b""
        self._is_in_body = False
        self.hashes: BodyHashes | None = None

    def take(self, data: bytes) -> bytes:
        """The next octets -> what may be written now. Permanent: the header is too long."""
        if self._is_in_body:
            if self.hashes is not None:
                self.hashes.update(data)
            return data
        kept = self._kept + data
        end = 0 if kept.startswith(b"\r\n") else kept.find(b"\r\n\r\n") + 2
        if end > fields.LIMIT or (end == 1 and len(kept) > fields.LIMIT):
            raise Permanent(HEAD_TOO_LARGE, f"a header of more than {fields.LIMIT} octets")
        if end == 1:
            self._kept = kept
            return b""
        self._kept = b""
        return self._headed(kept, end)

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
