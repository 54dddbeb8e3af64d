"""Both images are pushed to a registry, and are what they promise: small, numeric user, no shell, with their SBOM."""

import json
import os
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kit.place import ROOT, run
from kit.record import NotApplicable
from kit.stage import Stage, chart_version

INSTALLS = True  # it needs no cluster at all
SHELLS = {"bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/bash", "bin/dash", "usr/bin/dash", "usr/bin/busybox"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def story(stage: Stage) -> None:
    if os.geteuid() or not Path("/usr/bin/apt-get").exists():
        raise NotApplicable("it installs Debian's docker-registry")
    run([ROOT / "scripts" / "apt-quietly", "install", "docker-registry"])

    with TemporaryDirectory() as folder, registry(Path(folder)) as host:
        stage.step("make images REGISTRY=...")
        run(
            [ROOT / "scripts" / "images"],
            env={"REGISTRY": f"{host}/mail", "TLS_VERIFY": "false", "TAG": chart_version()},
        )
        for name in ("posthof-pod", "posthof-operator"):
            stage.step(name)
            judge(stage, f"http://{host}/v2/mail/{name}", name)


def judge(stage: Stage, base: str, name: str) -> None:
    """What the registry holds of one image."""
    manifest = json.loads(fetch(f"{base}/manifests/{chart_version()}"))
    config = json.loads(fetch(f"{base}/blobs/{manifest['config']['digest']}"))["config"]
    stage.expect(config["User"] == "65532:65532", f"the user is {config['User']}")
    labels = config["Labels"]
    for label in ("title", "version", "revision", "licenses"):
        stage.expect(labels.get(f"org.opencontainers.image.{label}"), f"there is no label {label}")

    size = sum(layer["size"] for layer in manifest["layers"]) / 1e6
    stage.keep(f"{name}, compressed", size, wanted=60, unit="MB")
    stage.expect(size < 120, f"it has {size:.0f} MB")

    files: dict[str, bytes] = {}
    for layer in manifest["layers"]:
        files |= dict(content(fetch(f"{base}/blobs/{layer['digest']}")))
    stage.expect(not SHELLS & files.keys(), f"there is a shell: {SHELLS & files.keys()}")
    stage.expect(not [path for path in files if path.endswith("/pip/__init__.py")], "there is an installer")
    bill = json.loads(files["opt/posthof/sbom.cdx.json"])
    parts = {part["name"].lower(): part["version"] for part in bill["components"]}
    stage.expect(
        {"posthof", "msgspec", "aiohttp", "libssl3"} <= parts.keys(), f"the SBOM lacks some: {sorted(parts)}"
    )
    lock = (ROOT / "requirements.lock").read_text()
    stage.expect(f"aiohttp=={parts['aiohttp']} " in lock, "the image has another aiohttp than the lock")


def content(layer: bytes) -> Iterator[tuple[str, bytes]]:
    """Every file of a layer; the content of the SBOM alone."""
    with tarfile.open(fileobj=BytesIO(layer)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith("sbom.cdx.json") else None
            yield member.name.removeprefix("./"), file.read() if file else b""


def fetch(url: str) -> bytes:
    found: Any = urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFEST}), timeout=60)
    with found:
        return bytes(found.read())


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield host
    finally:
        process.terminate()
        process.wait(10)
