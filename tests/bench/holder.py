"""holder.py COMMAND...: run a mail server so that no CPU second of it gets lost.

Exim and Postfix leave children behind that outlive their parents. A process that is a child subreaper gets them
instead of init, and the time of a child that was waited for is kept in the waiter's cutime and cstime. The holder
waits and hands SIGTERM on; when its own parent is gone, it ends what it holds.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36
WATCH = 5.0  # seconds between two looks at the parent


def main() -> int:
    """Exit status of the command, once nothing of it is left."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(sys.argv[1:], start_new_session=True)
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: child.send_signal(signal.SIGTERM) if os.getppid() != parent else None)
    signal.setitimer(signal.ITIMER_REAL, WATCH, WATCH)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    while True:
        try:
            pid, result = os.wait()
        except ChildProcessError:
            return status
        if pid == child.pid:
            status = os.waitstatus_to_exitcode(result)
            child.returncode = status


if __name__ == "__main__":
    sys.exit(main())
