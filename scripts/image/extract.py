"""Copy one file out of an image that is kept as an OCI archive: `extract.py ARCHIVE PATH OUTPUT`.

The newest layer that has the path wins; an image without it is an error.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path


def main(archive: str, path: str, output: str) -> int:
    with tarfile.open(archive) as image:

        def read(name: str) -> bytes:
            file = image.extractfile(name)
            assert file is not None
            return file.read()

        def blob(digest: str) -> str:
            return "blobs/" + digest.replace(":", "/")

        index = json.loads(read("index.json"))
        manifest = json.loads(read(blob(index["manifests"][0]["digest"])))
        for layer in reversed(manifest["layers"]):
            with tarfile.open(fileobj=image.extractfile(blob(layer["digest"]))) as files:
                for member in files:
                    if member.name.removeprefix("./") == path and member.isfile():
                        content = files.extractfile(member)
                        assert content is not None
                        Path(output).write_bytes(content.read())
                        return 0
    print(f"{archive} has no {path}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
