"""`python -m posthof_pod.worker START`: one worker process, started by the supervisor (admin/process.py)."""

from __future__ import annotations

import resource
import sys

import uvloop

from posthof_pod.admin.channel import WorkerStart
from posthof_pod.app import serve


def raise_descriptor_limit() -> None:
    """As many open files as the hard limit allows: a shell's soft limit of 1024 would end at 1,000 sessions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """The exit status: 0 a clean stop, 1 it was fenced or could not begin."""
    start = WorkerStart.from_argv()
    raise_descriptor_limit()
    return uvloop.run(serve(start))


if __name__ == "__main__":
    sys.exit(main())
