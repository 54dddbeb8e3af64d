"""swaks, the SMTP client that people try mail servers with, as a child process."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from kit import peers


class Said(NamedTuple):
    """How it ended: status 0 when the mail was taken, and the conversation as it prints it."""

    status: int
    conversation: str

    @property
    def is_taken(self) -> bool:
        return self.status == 0


def swaks(
    port: int, *arguments: str, sender: str = "swaks@client.test", recipient: str = "", given: str = ""
) -> Said:
    """One mail (or whatever the arguments say) to 127.0.0.1 at `port`; skips where swaks is missing."""
    peers.require("swaks")
    command = ["swaks", "--server", f"127.0.0.1:{port}", "--helo", "client.test", "--from", sender]
    command += ["--to", recipient] if recipient else []
    ran = subprocess.run([*command, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)
    return Said(ran.returncode, ran.stdout + ran.stderr)
