"""Read by every Python that starts with this folder on PYTHONPATH: samples where the time of a worker goes.

The engine has no profiler in it. A timer signal comes every 2 ms of the process' CPU; the handler charges the CPU
time of the main thread since the last sample to the function it interrupts, and to the innermost room of ours on the
stack. The other threads (they write, sync and look) are read from their own clocks. Every half second the sums go to
a file of this process in POSTHOF_BENCH_PROFILE, as JSON: seconds by stage, by function, and of the other threads.

What the loop does in C between two callbacks is charged to the callback that follows.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from types import CodeType, FrameType

STEP = 0.002
# The first that fits decides: a module's name below posthof_pod., or a room and, after `.*.`, a function's beginning.
STAGES = (
    ("spool.*.settle", "settle"),
    ("spool.*.tried", "deliver"),
    ("outbox", "write"),
    ("flow.accept", "commit"),
    ("flow.settle", "settle"),
    ("smtp.client", "deliver"),
    ("deliver", "deliver"),
    ("smtp", "receive"),
    ("listen", "receive"),
    ("admit.route", "route"),
    ("admit", "receive"),
    ("spool", "commit"),
    ("schedule", "route"),
    ("resolve", "route"),
    ("plan", "settle"),
    ("bounce", "settle"),
    ("observe", "settle"),
)


def stage_of(module: str, function: str) -> str:
    """The stage of a function of ours; "" where only its caller can tell."""
    for pattern, stage in STAGES:
        room, star, name = pattern.partition(".*.")
        if star:
            if module.startswith(room) and function.startswith(name):
                return stage
        elif f"{module}.{function}".startswith(pattern):
            return stage
    return ""


class Sampler:
    """Sums of one process."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, f"{os.getpid()}.json")
        self.stages: dict[str, float] = {}
        self.functions: dict[str, float] = {}
        self.last = time.thread_time()
        self.written = time.monotonic()
        self.known: dict[CodeType, tuple[str, str]] = {}

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self.sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, STEP, STEP)

    def sample(self, _signal: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        spent, self.last = now - self.last, now
        stage, function = "other", ""
        while frame is not None:
            known = self.known.get(frame.f_code)
            if known is None:
                known = self.known[frame.f_code] = self.place(frame)
            if known[1] and not function:
                function = known[1]
            if known[0]:
                stage = known[0]
                break
            frame = frame.f_back
        self.stages[stage] = self.stages.get(stage, 0.0) + spent
        self.functions[function] = self.functions.get(function, 0.0) + spent
        if time.monotonic() - self.written > 0.5:
            self.write()

    def place(self, frame: FrameType) -> tuple[str, str]:
        """(stage, name) of the function a frame runs."""
        module = frame.f_globals.get("__name__", "")
        code = frame.f_code
        if not module.startswith("posthof_pod."):
            return "", ""
        inner = module.removeprefix("posthof_pod.")
        return stage_of(inner, code.co_name), f"{inner}.{code.co_qualname}"

    def write(self) -> None:
        self.written = time.monotonic()
        others = 0.0
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and thread.ident is not None:
                with contextlib.suppress(OSError):  # it ended meanwhile
                    others += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        found = {"stages": self.stages, "functions": self.functions, "threads": others}
        fresh = self.path + ".new"
        with open(fresh, "w") as file:
            json.dump(found, file)
        os.replace(fresh, self.path)


if "posthof_pod.worker" in sys.orig_argv and "POSTHOF_BENCH_PROFILE" in os.environ:
    Sampler(os.environ["POSTHOF_BENCH_PROFILE"]).start()
