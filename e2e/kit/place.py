"""Where scenarios run: the cluster this repository builds, or any other that KUBECONFIG names.

Rules
- `Built` belongs to the run: stopped first, started, stopped at the end, whatever happened (unless told to keep it).
- `Given` belongs to somebody else: nothing is started or stopped there, images come from the user's REGISTRY.
- What only the owner of a node can do (freeze it, stop the API server) exists in `Built`; `Given` says NotApplicable.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from kit.api import Api, ApiError
from kit.record import Failure, NotApplicable, say

ROOT = Path(__file__).parents[2]
PREVIOUS = ROOT / "build" / "e2e-previous"
CLUSTER = ROOT / "e2e" / "cluster" / "cluster"


def run(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    given: str | None = None,
    seconds: float | None = None,
    cwd: Path | None = None,
) -> str:
    """A command's output. Failure, with what it said, when its exit status is not 0; with `seconds` it is cut off."""
    if seconds is not None:
        command = ["timeout", str(seconds), *command]
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        text=True,
        capture_output=True,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd or ROOT,
    )
    if done.returncode:
        words = " ".join(str(word) for word in command)
        words = words if len(words) < 300 else f"{words[:300]}..."
        said = "\n".join(part.strip()[-2000:] for part in (done.stdout, done.stderr) if part.strip())
        raise Failure(f"`{words}` ended with {done.returncode}:\n{said}")
    return done.stdout


def previous_tree() -> tuple[Path, str]:
    """The newest tag's tree and version; where there is none that has a chart, this tree as version 0.0.0."""
    tags = run(["git", "tag", "--sort=-v:refname", "--list", "v*"]).split()
    for tag in tags[:1]:
        tree = PREVIOUS / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        run(["bash", "-c", f"git archive {tag} | tar -x -C {tree}"])
        if (tree / "helm" / "posthof").is_dir():
            return tree, tag.removeprefix("v")
    return ROOT, "0.0.0"


class Place:
    """A cluster that scenarios can use. `api` is there after `open`."""

    is_built = False
    registry = "docker.io/posthof"
    tag = ""  # the chart's own

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="posthof-e2e-"))
        self._proxy: subprocess.Popen[bytes] | None = None
        self.api = Api(self._folder / "api")

    def open(self) -> None:
        """Start what is to be started; the API answers afterwards."""
        socket = self._folder / "api"
        command = [*self.kubectl_command(), "proxy", f"--unix-socket={socket}", "--reject-paths=^$"]
        self._proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            try:
                self.api.call("GET", "/version")
                return
            except ApiError as error:
                if time.monotonic() > until:
                    raise Failure(f"the API server does not answer: {error}") from None
                time.sleep(0.2)

    def close(self) -> None:
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait(10)
            self._proxy = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def images(self) -> None:
        """Build both images and bring them to where the nodes find them."""
        raise NotImplementedError

    def previous(self) -> tuple[Path, str]:
        """The release before this one, its images where the nodes find them: the chart, and the images' tag."""
        raise NotImplementedError

    def kubectl_command(self) -> list[str]:
        raise NotImplementedError

    def helm_command(self) -> list[str]:
        raise NotImplementedError

    def kubectl(self, *arguments: str, given: str | None = None, seconds: float | None = None) -> str:
        return run([*self.kubectl_command(), *arguments], given=given, seconds=seconds)

    def helm(self, *arguments: str) -> str:
        return run([*self.helm_command(), *arguments])

    def packaged(self, tree: Path, version: str) -> Path:
        """The chart of a tree, as of that version."""
        words = ["--version", version, "--app-version", version, "--destination", str(PREVIOUS)]
        self.helm("package", str(tree / "helm" / "posthof"), *words)
        return PREVIOUS / f"posthof-{version}.tgz"

    def person(self, script: str, namespace: str) -> str:
        """Run a bash script as a person would who has this cluster, kubectl and helm, and `posthof` in PATH."""
        config = self._folder / "person.kubeconfig"
        config.write_text(self.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
        run(["chmod", "600", config])
        env = {"KUBECONFIG": str(config), "PATH": os.pathsep.join([*self.programs(), os.environ["PATH"]])}
        self.kubectl("--kubeconfig", str(config), "config", "set-context", "--current", "--namespace", namespace)
        return run([*self.beside(), "bash", "-c", script], env=env)

    def programs(self) -> list[str]:
        """Folders with kubectl, helm and posthof."""
        return [str(Path(os.environ["VENV"]).resolve() / "bin")]

    def beside(self) -> list[str]:
        """What a command begins with that reaches the API server."""
        return []

    def has_program(self, name: str) -> bool:
        return shutil.which(name) is not None

    def outside(self, *command: str) -> str:
        """Run a program on a machine that is not in the cluster, and reaches its nodes."""
        raise NotApplicable("it needs a machine beside the nodes")

    def node(self, *arguments: str) -> str:
        """`cluster freeze node-b` and the like."""
        raise NotApplicable("it needs the nodes' own processes")


class Built(Place):
    """Two nodes on this machine, from e2e/cluster."""

    is_built = True

    def __init__(self, keep: bool = False) -> None:
        super().__init__()
        self._keep = keep

    def open(self) -> None:
        is_up = self._keep and run([CLUSTER, "state"]).startswith("up ")
        if not is_up:
            subprocess.run([CLUSTER, "up"], check=True, stdin=subprocess.DEVNULL)
        super().open()

    def close(self) -> None:
        super().close()
        if not self._keep:
            subprocess.run([CLUSTER, "down"], check=False, stdin=subprocess.DEVNULL)

    def images(self) -> None:
        subprocess.run([ROOT / "scripts" / "images"], check=True, stdin=subprocess.DEVNULL, cwd=ROOT)
        self._load(ROOT / "build" / "images")

    def _load(self, folder: Path) -> None:
        for target in ("pod", "operator"):
            run([CLUSTER, "load", folder / f"{target}.tar"])

    def previous(self) -> tuple[Path, str]:
        tree, version = previous_tree()
        run([tree / "scripts" / "images"], env={"TAG": version, "OUT": str(PREVIOUS / "images")}, cwd=tree)
        self._load(PREVIOUS / "images")
        return self.packaged(tree, version), version

    def kubectl_command(self) -> list[str]:
        return [str(CLUSTER), "kubectl"]

    def helm_command(self) -> list[str]:
        return [str(CLUSTER), "helm"]

    def beside(self) -> list[str]:
        return [str(CLUSTER), "on", "node-a"]

    def programs(self) -> list[str]:
        return [str(Path(run([CLUSTER, "state"]).split()[1]).parent / "bin"), *super().programs()]

    def has_program(self, name: str) -> bool:
        if not super().has_program(name):
            run([ROOT / "scripts" / "apt-quietly", "install", "--no-install-recommends", name])
        return super().has_program(name)

    def outside(self, *command: str) -> str:
        return run([CLUSTER, "on", "outside", *command])

    def node(self, *arguments: str) -> str:
        return run([CLUSTER, *arguments])


class Given(Place):
    """Any cluster: KUBECONFIG says which, REGISTRY where its nodes pull images from."""

    def __init__(self, registry: str) -> None:
        super().__init__()
        self.registry = registry
        self.tag = f"e2e-{int(time.time())}"  # nodes keep images they have: a new name for each run
        for tool in ("kubectl", "helm"):
            if not shutil.which(tool):
                raise Failure(f"{tool} is needed in PATH to run on a cluster of your own")

    def images(self) -> None:
        say(f"images to {self.registry}")
        env = {**os.environ, "REGISTRY": self.registry, "TAG": self.tag}
        subprocess.run([ROOT / "scripts" / "images"], check=True, stdin=subprocess.DEVNULL, cwd=ROOT, env=env)

    def previous(self) -> tuple[Path, str]:
        tree, version = previous_tree()
        tag = f"{self.tag}-{version}"
        run(
            [tree / "scripts" / "images"],
            env={"REGISTRY": self.registry, "TAG": tag, "OUT": str(PREVIOUS / "images")},
        )
        return self.packaged(tree, version), tag

    def kubectl_command(self) -> list[str]:
        return ["kubectl"]

    def helm_command(self) -> list[str]:
        return ["helm"]


def choose(keep: bool) -> Place:
    """From the environment: KUBECONFIG and REGISTRY together, or neither."""
    registry = os.environ.get("REGISTRY", "")
    if os.environ.get("KUBECONFIG"):
        if not registry:
            raise Failure(
                "KUBECONFIG names a cluster; name a registry its nodes can pull from, too: REGISTRY=host/path"
            )
        return Given(registry)
    if registry:
        raise Failure("REGISTRY is for a cluster of your own: name it with KUBECONFIG=...")
    return Built(keep)
