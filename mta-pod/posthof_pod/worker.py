"""`python -m posthof_pod.worker START`: one worker process, started by the supervisor (admin/process.py)."""

from __future__ import annotations

import sys

import uvloop

from posthof_pod.admin.channel import WorkerStart
from posthof_pod.app import serve


def main() -> int:
    """The exit status: 0 a clean stop, 1 it was fenced or could not begin."""
    start = WorkerStart.from_argv()
    return uvloop.run(serve(start))


if __name__ == "__main__":
    sys.exit(main())
