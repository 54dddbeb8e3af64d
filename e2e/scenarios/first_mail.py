"""From nothing to a delivered mail by the README's own commands: Helm, an MTA, a domain, swaks, `kubectl posthof`.

The way of somebody who has a cluster and ten minutes.
"""

from __future__ import annotations

from kit import readme
from kit.place import ROOT
from kit.record import NotApplicable
from kit.stage import SYSTEM, Stage, settings, uninstall

INSTALLS = True
BEFORE = ("make images", "kind ", "sudo k3s ")  # how images come to nodes is the runner's part
AFTER = "helm install "


def story(stage: Stage) -> None:
    stage.step("a cluster that has never seen Posthof, but its images")
    uninstall(stage.place)
    stage.api.delete("v1", "Namespace", SYSTEM)
    stage.until("nothing is left of it", lambda: stage.api.get("v1", "Namespace", SYSTEM) is None, wanted=20)
    if not stage.place.has_program("swaks"):
        raise NotApplicable("it sends with swaks: apt-get install swaks")

    lines = [line for line in readme.commands(ROOT / "README.md", "On Kubernetes") if not line.startswith(BEFORE)]
    stage.expect(any(line.startswith(AFTER) for line in lines), f"the README does not install: {lines}")
    small = " ".join(f"--set {value}" for value in settings(stage.place))
    lines = [f"{line} {small}" if line.startswith(AFTER) else line for line in lines]

    stage.step("the README, word for word")
    with stage.measure("from helm install to the delivered mail", wanted=60):
        shown = stage.person(readme.script(lines))
        stage.until("the mail is in alice's Maildir", lambda: "delivered" in trace(stage), wanted=5)

    stage.step("what was shown is what a person would expect")
    stage.expect("250" in shown and "alice@first.test" in shown, f"swaks was not told 250:\n{shown}")
    stage.until("the MTA's columns are right", lambda: stage.columns("mta", "edge").get("READY") == "1/1")
    stage.until_condition("MailDomain", "first", Accepted="True")
    shown = stage.place.kubectl("get", "mail", "-n", stage.namespace)
    for word in ("mta.posthof.dev/edge", "maildomain.posthof.dev/first", "first.test", "tlscert.posthof.dev/edge"):
        stage.expect(word in shown, f"`kubectl get mail` does not show {word}:\n{shown}")

    stage.step("a stranger may not relay")
    refused = stage.person(
        readme.script(
            [
                "kubectl port-forward service/edge 2525:25 &",
                "swaks --server 127.0.0.1:2525 --from you@example.org --to bob@elsewhere.test || true",
            ]
        )
    )
    stage.expect("550" in refused, f"it relays for strangers:\n{refused}")


def trace(stage: Stage) -> str:
    [pod] = stage.pods()
    return stage.exec(pod["metadata"]["name"], "posthof", "trace", "alice@first.test")
