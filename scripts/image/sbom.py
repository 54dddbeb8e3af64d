"""Write what an image is made of as CycloneDX 1.5 JSON: `sbom.py NAME OUTPUT SITE_PACKAGES...`.

Rules
- Runs inside the image's build, with the standard library only: it lists what is there, not what was asked for.
- Python packages come from their metadata below each SITE_PACKAGES, Debian packages from dpkg's own status.
- Equal content gives equal bytes: sorted, no time, no serial number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

Component = dict[str, Any]


def python_packages(folders: list[str]) -> Iterator[Component]:
    """One component per distribution that is installed in the folders."""
    for package in distributions(path=folders):
        name, version = package.metadata["Name"], package.version
        component: Component = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        }
        licences = [text for key in ("License-Expression", "License") for text in package.metadata.get_all(key) or ()]
        if licences and "\n" not in licences[0]:
            component["licenses"] = [{"license": {"name": licences[0]}}]
        yield component


def debian_packages(root: Path) -> Iterator[Component]:
    """One component per package in dpkg's status, or in status.d of an image without dpkg."""
    for file in [root / "status", *sorted((root / "status.d").glob("*"))]:
        if not file.is_file():
            continue
        for paragraph in file.read_text().split("\n\n"):
            fields = HeaderParser().parsestr(paragraph)
            name, version, machine = fields["Package"], fields["Version"], fields["Architecture"]
            if name and version:
                purl = f"pkg:deb/debian/{name}@{version}?arch={machine}"
                yield {"type": "library", "name": name, "version": version, "purl": purl}


def main(name: str, output: str, *folders: str) -> int:
    parts = [*python_packages(list(folders)), *debian_packages(Path("/var/lib/dpkg"))]
    unique = {part["purl"]: part for part in parts}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name}},
        "components": [unique[purl] for purl in sorted(unique)],
    }
    Path(output).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
