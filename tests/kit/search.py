"""A search of every interleaving of workers that ask one modelled volume, one call at a time.

A worker is a coroutine that yields `Call`s (and `Choice`s, where it may do one thing or another, and `Note`s, which
tell the search what it promised). Coroutines cannot be copied, so a worker's state is the list of answers it got: to
go on from there again it is made anew and given the same answers. A worker that is never asked again has died, or is
frozen: so every schedule is also one with crashes and freezes.

The volume answers each call as one step. In the strict mode written bytes reach it with the sync, not before (a
network client's cache); else at once (one machine). What a call does that nobody else can see (a close, a sync of
names) is taken together with the call before: that loses no interleaving.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, NamedTuple

from posthof_pod.spool import layout, protocol, replay
from posthof_pod.spool.protocol import Call, Steps

from .disk import put

FOLDER = object()


class Link(NamedTuple):
    target: str


class Choice(NamedTuple):
    """The worker may go on in any of these ways."""

    options: tuple[str, ...]


class Note(NamedTuple):
    """What is so from here on, and of which message: `ack` it is promised, `settle` it is being settled, `done` that
    is promised too, `part` that its first recipient is done is promised."""

    kind: str
    number: int


Files = dict[Any, Any]  # path -> bytes, Link or FOLDER; (worker, path) -> writes that are not synced


class ModelDisk:
    """One worker's view of the volume's files. Descriptors are numbers of paths: no name is used twice."""

    _paths: list[str] = []  # noqa: RUF012  # shared by all, so that a descriptor means the same in every run
    _numbers: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, files: Files, worker: int, *, is_strict: bool) -> None:
        self.files = files
        self.worker = worker
        self.is_strict = is_strict

    def _error(self, code: int, path: str) -> OSError:
        return OSError(code, os.strerror(code), path)

    def _get(self, path: str) -> Any:
        found = self.files.get(path)
        if found is None:
            raise self._error(errno.ENOENT, path)
        return found

    def _make(self, path: str, what: Any) -> None:
        if path in self.files:
            raise self._error(errno.EEXIST, path)
        self._get(path.rpartition("/")[0])
        self.files[path] = what

    @classmethod
    def _fd(cls, path: str) -> int:
        if path not in cls._numbers:
            cls._numbers[path] = len(cls._paths)
            cls._paths.append(path)
        return cls._numbers[path]

    def listdir(self, path: str) -> list[str]:
        self._get(path)
        return sorted(
            name.rpartition("/")[2]
            for name in self.files
            if isinstance(name, str) and name.rpartition("/")[0] == path and name != path
        )

    def readlink(self, path: str) -> str:
        target: str = self._get(path).target
        return target

    def size(self, path: str) -> int:
        return len(self._get(path))

    def look(self, path: str) -> bytes:
        text: bytes = self._get(path)
        return text

    def open(self, path: str) -> int:
        self._get(path)
        return self._fd(path)

    def length(self, fd: int) -> int:
        return len(self._get(self._paths[fd]))

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data: bytes = self._get(self._paths[fd])
        return data[offset : offset + size]

    def mkdir(self, path: str) -> None:
        self._make(path, FOLDER)

    def symlink(self, target: str, path: str) -> None:
        self._make(path, Link(target))

    def create(self, path: str) -> int:
        self._make(path, b"")
        return self._fd(path)

    def overwrite(self, path: str) -> int:
        if path not in self.files:
            self._make(path, b"")
        return self._fd(path)

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        data = b"".join(parts)
        path = self._paths[fd]
        if path.endswith(".seg"):
            self._sign(path)
        if self.is_strict:
            key = (self.worker, path)
            self.files[key] = (*self.files.get(key, ()), (offset, data))
        elif path in self.files:
            self.files[path] = put(self.files[path], offset, data)
        return len(data)

    def _sign(self, path: str) -> None:
        writer = self.files.setdefault(("writer", path), self.worker)
        if writer != self.worker:
            raise AssertionError(f"P3: two workers write {path}")

    def fdatasync(self, fd: int) -> None:
        path = self._paths[fd]
        for offset, data in self.files.pop((self.worker, path), ()):
            if path in self.files:  # bytes for a file that was removed go nowhere
                self.files[path] = put(self.files[path], offset, data)

    def fsync_dir(self, path: str) -> None:
        self._get(path)

    def unlink(self, path: str) -> None:
        self._get(path)
        del self.files[path]

    def rename(self, old: str, new: str) -> None:
        self.files[new] = self._get(old)
        del self.files[old]

    def close(self, fd: int) -> None:
        """The model has no number of descriptors to run out of."""


class Asking:
    """Protocol steps that a coroutine can await."""

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._steps)


def choose(*options: str) -> Awaitable[str]:
    def steps() -> Generator[Any, Any, str]:
        chosen: str = yield Choice(tuple(options))
        return chosen

    return Asking(steps())


class Program:
    """One worker. `digest` says all there is to its state where it has a choice; `known` tells, if it owns a lane as
    far as it knows: (claim, message -> path of the segment it believes it in)."""

    worker: str

    def main(self) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    def digest(self) -> object:
        raise NotImplementedError

    def known(self) -> tuple[int, dict[int, str]] | None:
        raise NotImplementedError


class Answer(NamedTuple):
    """What a call gave: a key that tells it from others, and how to make the value anew (values may be changed by who
    gets them)."""

    key: Any
    value: Callable[[], Any]


class Node:
    """A worker that got certain answers and waits for the next."""

    __slots__ = ("answers", "known", "next", "notes", "request")

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self.answers = answers
        self.next: dict[Any, Node] = {}
        self.request: Any = None  # None: it has ended
        self.known: tuple[int, dict[int, str]] | None = None
        self.notes: frozenset[Note] = frozenset()


class Violation(Exception):
    """A state that must not be, with the schedule that leads there."""

    def __init__(self, what: str, schedule: list[str]) -> None:
        super().__init__(f"{what}\n  " + "\n  ".join(schedule))
        self.what = what
        self.schedule = schedule


State = tuple[int, tuple[Node, ...]]


class Search:
    """Breadth first, so the schedule of a violation is a shortest one."""

    def __init__(self, programs: list[Callable[[], Program]], files: Files, lane: str, *, is_strict: bool) -> None:
        self._programs = programs
        self._lane = lane
        self._is_strict = is_strict
        self._workers = [make().worker for make in programs]
        self._idle: list[dict[object, Node]] = [{} for _ in programs]
        self._disks: dict[frozenset[Any], int] = {}
        self._files: list[Files] = []
        self._live: dict[int, dict[int, frozenset[int]]] = {}
        roots = []
        for at in range(len(programs)):
            root = Node(())
            self._run(at, root)
            files, root = self._settle(at, files, root)
            roots.append(root)
        self.first: State = (self._keep(files), tuple(roots))
        self.states = 0

    # -- one worker -------------------------------------------------------------------------------------------------

    def _run(self, at: int, node: Node) -> Node:
        """Make the worker anew, give it its answers, and note what it asks next. A node that stands for the same
        state is used instead."""
        program = self._programs[at]()
        main = program.main()
        notes: set[Note] = set()
        try:
            request = main.send(None)
            for answer in node.answers:
                request = self._pass_notes(main, request, notes)
                value = answer.value()
                request = main.throw(value) if isinstance(value, OSError) else main.send(value)
            request = self._pass_notes(main, request, notes)
        except StopIteration:
            request = None
        node.request = request
        node.known = program.known()
        node.notes = frozenset(notes)
        if request is not None:
            main.close()
        if isinstance(request, Choice):
            key = (program.digest(), request, node.notes)
            return self._idle[at].setdefault(key, node)
        return node

    @staticmethod
    def _pass_notes(main: Coroutine[Any, Any, None], request: Any, notes: set[Note]) -> Any:
        while request is None or isinstance(request, Note):
            if request is not None:
                notes.add(request)
            request = main.send(None)
        return request

    def _follow(self, at: int, node: Node, answer: Answer) -> Node:
        found = node.next.get(answer.key)
        if found is None:
            found = node.next[answer.key] = self._run(at, Node((*node.answers, answer)))
        return found

    def nodes(self) -> list[list[Node]]:
        """Of each worker: everything that may have happened to it."""
        return [list(_below(root)) for root in self.first[1]]

    # -- one step ---------------------------------------------------------------------------------------------------

    def _ask(self, at: int, files: Files, call: Call) -> Answer:
        """Make one call; `files` is changed."""
        disk = ModelDisk(files, at, is_strict=self._is_strict)
        if not isinstance(call.act, str):
            path = layout.segment(*call.args)
            data = files.get(path)
            if data is None:
                return Answer((path, None), lambda: FileNotFoundError(errno.ENOENT, "gone", path))
            return Answer((path, data), lambda: call.act(ModelDisk({path: data}, at, is_strict=True), *call.args))  # type: ignore[operator]  # not text, as was asked
        try:
            value = getattr(disk, call.act)(*call.args)
        except OSError as error:
            kind, code = type(error), error.errno
            return Answer(("!", code), lambda: kind(code, os.strerror(code or 0)))
        if isinstance(value, list):
            return Answer(tuple(value), lambda: list(value))
        return Answer(value, lambda: value)

    def _is_private(self, files: Files, call: Any) -> bool:
        """Whether nobody else can tell when this call is made, nor change what it gives."""
        if not isinstance(call, Call):
            return False
        if call.act in ("close", "fsync_dir"):
            return True
        if call.act == "pwritev":
            return self._is_strict
        # The folders and latches of workers are never removed here.
        return call.act in ("mkdir", "overwrite") and call.args[0].startswith("workers/") and call.args[0] in files

    def _settle(self, at: int, files: Files, node: Node) -> tuple[Files, Node]:
        """Take the private calls that follow."""
        copied = False
        while self._is_private(files, node.request):
            if not copied:
                files, copied = dict(files), True
            node = self._follow(at, node, self._ask(at, files, node.request))
        return files, node

    def _steps(self, state: State) -> Iterator[tuple[str, State]]:
        disk, nodes = state
        for at, node in enumerate(nodes):
            request = node.request
            if request is None:
                continue
            if isinstance(request, Choice):
                for option in request.options:
                    answer = Answer(option, lambda option=option: option)  # type: ignore[misc]  # bound now
                    yield self._after(state, at, dict(self._files[disk]), answer, option)
                continue
            files = dict(self._files[disk])
            answer = self._ask(at, files, request)
            yield self._after(state, at, files, answer, _text(request))

    def _after(self, state: State, at: int, files: Files, answer: Answer, label: str) -> tuple[str, State]:
        nodes = state[1]
        files, node = self._settle(at, files, self._follow(at, nodes[at], answer))
        return f"{self._workers[at]}: {label}", (self._keep(files), (*nodes[:at], node, *nodes[at + 1 :]))

    def _keep(self, files: Files) -> int:
        key = frozenset(files.items())
        number = self._disks.get(key)
        if number is None:
            number = self._disks[key] = len(self._files)
            self._files.append(files)
        return number

    # -- all of them ------------------------------------------------------------------------------------------------

    def run(self, limit: int = 10_000_000) -> int:
        """How many states there are. Violation, with a shortest schedule."""
        came: dict[State, tuple[str, State] | None] = {self.first: None}
        waiting = deque([self.first])
        while waiting and len(came) < limit:
            state = waiting.popleft()
            wrong = self._wrong(state)
            if wrong is not None:
                raise Violation(wrong, _schedule(came, state))
            try:
                for label, after in self._steps(state):
                    if after not in came:
                        came[after] = (label, state)
                        waiting.append(after)
            except AssertionError as error:
                raise Violation(str(error), _schedule(came, state)) from error
        self.states = len(came)
        return self.states

    def _wrong(self, state: State) -> str | None:
        disk, nodes = state
        files = self._files[disk]
        notes = frozenset().union(*(node.notes for node in nodes))
        done = {note.number for note in notes if note.kind == "done"}
        promised = {note.number for note in notes if note.kind == "ack"}
        promised -= {note.number for note in notes if note.kind == "settle"}
        waiting = self._read(disk)
        live = waiting.keys()
        if not promised <= live:
            return f"P1: promised mail is gone from the volume: {sorted(promised - live)}"
        if done & live:
            return f"P4: done mail is back: {sorted(done & live)}"
        parts = {note.number for note in notes if note.kind == "part"}
        again = sorted(number for number in parts & live if 0 in waiting[number])
        if again:
            return f"P5: a recipient that was done waits again: {again}"
        for worker, node in zip(self._workers, nodes, strict=True):
            if node.known is None or not self._is_owner(files, worker, node.known[0]):
                continue
            for number in promised:
                if node.known[1].get(number) not in files:
                    return f"P2: {worker} owns the lane and does not have promised mail {number}"
        return None

    def _is_owner(self, files: Files, worker: str, claim: int) -> bool:
        return (
            files.get(layout.own(self._lane, claim)) == Link(worker)
            and layout.own(self._lane, claim + 1) not in files
            and layout.free(self._lane, claim) not in files
            and files.get(layout.latch(worker)) == layout.open_text(worker)
        )

    def _read(self, disk: int) -> dict[int, frozenset[int]]:
        """The live messages and which recipients wait, as the next one to take the lane would read them."""
        found = self._live.get(disk)
        if found is None:
            model = ModelDisk(dict(self._files[disk]), -1, is_strict=self._is_strict)
            top = layout.sort_out(model.listdir(layout.lane(self._lane))).claim
            added: replay.Replay = protocol.run(model, protocol.read_lower(self._lane, top + 1))  # type: ignore[arg-type]  # what it asks is there
            found = self._live[disk] = {
                number: frozenset(held.recipient for held in replay.decode(message).waiting)
                for number, message in added.messages.items()
            }
        return found


def _below(root: Node) -> Iterator[Node]:
    found = {id(root)}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        for after in node.next.values():
            if id(after) not in found:
                found.add(id(after))
                waiting.append(after)


def _text(call: Call) -> str:
    if isinstance(call.act, str):
        return f"{call.act} {call.args[0] if not isinstance(call.args[0], int) else ModelDisk._paths[call.args[0]]}"
    return f"read {call.args}"


def _schedule(came: dict[State, tuple[str, State] | None], state: State) -> list[str]:
    labels = []
    while (step := came[state]) is not None:
        label, state = step
        labels.append(label)
    return labels[::-1]
