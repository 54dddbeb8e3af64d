"""Install every wheel of a folder into the environment that runs this: `install.py WHEELS ROOT`.

Rules
- Runs inside an image's build. pip is run from its own wheel (/wheels/pip) and stays out of the image; it has no
  index and resolves nothing: the folder holds exactly what the lock names.
- Byte code is written here, once, and never looked at against the source again: the file system is read-only at run
  time, and equal wheels give equal layers.
"""

from __future__ import annotations

import compileall
import runpy
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def main(folder: str, root: str) -> int:
    wheels = sorted(str(wheel) for wheel in Path(folder).glob("*.whl"))
    pip = next(Path("/wheels/pip").glob("pip-*.whl"))
    status = run(
        pip, "install", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--root-user-action=ignore",
        "--disable-pip-version-check", "--quiet", "--no-warn-script-location", "--root", root, *wheels,
    )  # fmt: skip
    if status:
        return status
    for packages in Path(root).joinpath(sys.prefix.lstrip("/"), "lib").glob("python3*/site-packages"):
        for record in packages.glob("*.dist-info/direct_url.json"):
            record.unlink()  # where the wheel was found is no fact about the image
        ok = compileall.compile_dir(
            packages, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, stripdir=root, prependdir="/"
        )
        if not ok:
            return 1
    return 0


def run(pip: Path, *arguments: str) -> int:
    """pip's exit status."""
    sys.path.insert(0, str(pip))
    sys.argv = ["pip", *arguments]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
