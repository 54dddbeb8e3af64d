"""The charts, with this cluster's helm: lint, committed renders, an API server that takes them, refused values."""

from __future__ import annotations

import shlex
import subprocess
import sys

from kit.place import ROOT, run
from kit.record import Failure
from kit.stage import CHART, Stage

INSTALLS = True  # nothing is installed
CRD_CHART = ROOT / "helm" / "posthof-crds"
REFUSED = {
    "a key that nothing reads": ("operater.replicas=2", "operater"),
    "a value of the wrong type": ("operator.replicas=many", "replicas"),
    "an MTA without a spec": ("mta.enabled=true", "needs mta.spec"),
    "an MTA before its definitions": (
        "mta.enabled=true,mta.spec.hostname=a.test,mta.spec.listeners[0].name=mx,"
        "mta.spec.listeners[0].role=MX,mta.spec.listeners[0].port=25",
        "posthof-crds first",
    ),
}


def story(stage: Stage) -> None:
    helm = stage.place.helm
    cases = sorted((CHART / "ci").glob("*-values.yaml"))

    stage.step("lint")
    for case in cases:
        helm("lint", "--strict", str(CHART), "-f", str(case), "--set", "crds.enabled=true")
    helm("lint", "--strict", str(CRD_CHART))

    stage.step("the renders that tests read are those of the templates")
    script = [sys.executable, str(ROOT / "scripts" / "chart.py")]
    run([*script, "--render", shlex.join(stage.place.helm_command()), "--check"])

    stage.step("values that nothing obeys are refused, with a word that helps")
    for what, (setting, word) in REFUSED.items():
        said = refusal(stage, setting)
        stage.expect(word in said, f"{what}: helm should speak of {word!r}: {said}")

    stage.step("the API server takes every object")
    for chart in (CRD_CHART, CHART):
        more = ["--set", "crds.enabled=false"] if chart == CHART else []
        rendered = helm("template", "posthof", str(chart), "-n", stage.namespace, "--no-hooks", *more)
        how = ("--dry-run=server", "--server-side", "--force-conflicts")  # a release may own them already
        stage.place.kubectl("apply", *how, "-f", "-", given=rendered)


def refusal(stage: Stage, setting: str) -> str:
    """What helm says to a value that it must refuse."""
    command = [*stage.place.helm_command(), "template", "posthof", str(CHART), "--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        raise Failure(f"helm should refuse --set {setting}")
    return done.stderr
