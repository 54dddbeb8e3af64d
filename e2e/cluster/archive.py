"""Put one program into an OCI archive as an image of one file: `archive.py PROGRAM NAME OUT.tar`.

For the pause image: 700 KB, no registry. The archive has no time in it, so equal programs give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

KIND = "application/vnd.oci.image."
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def part(media: str, content: bytes) -> dict[str, object]:
    """A descriptor of a blob."""
    return {"mediaType": KIND + media, "digest": digest(content), "size": len(content)}


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def main(program: str, name: str, out: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layers:
        add(layers, "pause", Path(program).read_bytes(), 0o755)
    layer = buffer.getvalue()
    machine = platform.machine()
    config = json.dumps(
        {
            "architecture": MACHINE.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": ["/pause"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": KIND + "manifest.v1+json",
            "config": part("config.v1+json", config),
            "layers": [part("layer.v1.tar", layer)],
        }
    ).encode()
    entry = part("manifest.v1+json", manifest) | {"annotations": {"io.containerd.image.name": name}}
    with tarfile.open(out, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for blob in (layer, config, manifest):
            add(archive, "blobs/" + digest(blob).replace(":", "/"), blob)


if __name__ == "__main__":
    main(*sys.argv[1:])
