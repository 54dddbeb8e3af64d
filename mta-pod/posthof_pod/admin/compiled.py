"""Manifests to EngineConfig in a process of its own, so that the supervisor stays small.

The models of 10,000 MailDomains are hundreds of MiB of pydantic objects, and an interpreter gives little of it back.
The child reads, compiles, writes one msgpack value and ends. `python -m posthof_pod.admin.compiled FOLDER BASE`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from posthof_crds.engine import EngineConfig
from posthof_crds.verifiers import UNHASHED
from posthof_pod.config import secrets

SECONDS = 120.0


class Compiled(msgspec.Struct):
    """`config` is None exactly when there are errors. Secrets by "name/key". `revision`: what its maker calls it;
    "": its content hash. `complaints`: what is wrong and keeps nothing from being used."""

    config: EngineConfig | None = None
    secrets: dict[str, bytes] = {}
    errors: list[str] = []
    warnings: list[str] = []
    revision: str = ""
    complaints: list[str] = []


def compile_apart(folder: Path, base: Path) -> Compiled:
    """Read and compile `folder`; relative paths in it start at `base`. Never raises: failing is an error."""
    command = [sys.executable, "-m", "posthof_pod.admin.compiled", str(folder), str(base)]
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
        if child.returncode:
            told = child.stderr.decode("utf-8", "replace").strip()
            return Compiled(errors=[f"the manifests could not be read: {told or child.returncode}"])
        return msgspec.msgpack.decode(child.stdout, type=Compiled)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        return Compiled(errors=[f"the manifests could not be read: {error}"])


def compile_here(folder: Path, base: Path) -> Compiled:
    """The same in this process: it loads the models and keeps them."""
    from posthof_crds.compile import compile as compile_manifests
    from posthof_crds.load import load
    from posthof_crds.problems import Invalid

    try:
        manifests = load(folder)
    except Invalid as invalid:
        return Compiled(errors=[str(one) for one in invalid.errors], warnings=[str(one) for one in invalid.warnings])
    config = compile_manifests(manifests, base)
    found = Compiled(config, warnings=[str(one) for one in manifests.warnings])
    generated = {f"{entry.name}-smtp" for entry in manifests.credentials if entry.object.spec.generate is not None}
    for ref in dict.fromkeys(secrets.refs(config)):
        try:
            found.secrets[secrets.key(ref)] = manifests.secret(ref)
        except LookupError as error:
            if ref.name in generated:
                found.secrets[secrets.key(ref)] = UNHASHED  # the supervisor makes it
            else:
                found.errors.append(str(error.args[0]))
    if found.errors:
        found.config = None
    return found


def main() -> int:
    sys.stdout.buffer.write(msgspec.msgpack.encode(compile_here(Path(sys.argv[1]), Path(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
