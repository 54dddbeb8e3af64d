"""What the suite's instruments put into the temporary folder is gone when they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
MAKE = """
import os
from kit.peer import certificate
from kit.pki import Authority

chain, key = certificate("mx.test")
authority = Authority("root")
pair = authority.issue("mx.test")
child = os.fork()
if not child:
    raise SystemExit  # as a process does that ends by itself
os.waitpid(child, 0)
assert all(path.exists() for path in (chain, key, authority.file, *pair))
print(len(os.listdir(os.environ["TMPDIR"])))
"""


def test_certificates_of_peers_and_authorities_leave_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(TESTS)}
    ended = subprocess.run(
        [sys.executable, "-c", MAKE], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) == 2
    assert list(tmp_path.iterdir()) == []
