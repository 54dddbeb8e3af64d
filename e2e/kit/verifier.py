"""Somebody else's judge of a mail: Debian's rspamd beside the cluster, its DNS the scenario's zone server."""

from __future__ import annotations

import os
import subprocess
import sys

from kit.place import ROOT
from kit.stage import Stage
from kit.zone import Zone


def verdict(stage: Stage, primary: Zone, text: str, *, client: str, sender: str, helo: str) -> str:
    """ "spf=pass dkim=pass dmarc=pass", or worse, of a mail that came from `client`. `text`: with LF ends."""
    words = [sys.executable, "-m", "kit.rspamd", primary.address, client, sender, helo]  # of tests/kit
    answered = subprocess.run(
        [*stage.place.beside(), *words],
        input=text.replace("\n", "\r\n").encode(),
        stdout=subprocess.PIPE,
        cwd=ROOT / "tests",
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"},
        check=True,
        timeout=120,
    )
    return answered.stdout.decode().strip()
