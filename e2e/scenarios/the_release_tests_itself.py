"""`helm test`: a mail goes through an MTA made for it and is found again; nothing of it stays."""

from __future__ import annotations

from kit.stage import RELEASE, SYSTEM, Stage, settings


def story(stage: Stage) -> None:
    stage.step("helm test")
    with stage.measure("helm test", wanted=30):
        said = stage.place.helm("test", RELEASE, "-n", SYSTEM, "--logs")
    stage.expect("it came back after" in said, f"the test should tell of its mail: {said}")
    stage.expect("Received: from" in said, f"the mail should have been through an MTA: {said}")

    stage.step("nothing of it stays")
    stage.until("the MTA, its claim and the pod are gone", lambda: not left(stage), wanted=15)

    stage.step("a release with an MTA of its own tests that one")
    values = [
        "crds.enabled=false",  # they are there
        "mta.enabled=true",
        "mta.name=own",
        "mta.spec.hostname=own.test",
        "mta.spec.workers=1",
        "mta.spec.listeners[0].name=mx",
        "mta.spec.listeners[0].role=MX",
        "mta.spec.listeners[0].port=25",
        "mta.spec.spool.size=256Mi",
        "mta.spec.spool.deletionPolicy=Delete",
        "mta.spec.podTemplate.resources.requests.cpu=20m",
        "domains[0].name=own",
        "domains[0].spec.domain=own.test",
        "domains[0].spec.inbound.mode=Reject",
    ]
    try:
        stage.install(*values)
        said = stage.place.helm("test", RELEASE, "-n", SYSTEM, "--logs")
        stage.expect("by own.test with ESMTP" in said, f"the mail should have been through the MTA: {said}")
        shown = stage.place.kubectl("get", "mail", "-n", SYSTEM)
        stage.expect("own.test" in shown, f"the domain of the release should be there: {shown}")
    finally:
        stage.place.helm("upgrade", RELEASE, "helm/posthof", "-n", SYSTEM, *words(stage))
    stage.until("the release's MTA is gone", lambda: not left(stage), wanted=15)


def words(stage: Stage) -> list[str]:
    return [word for value in settings(stage.place) for word in ("--set", value)]


def left(stage: Stage) -> list[str]:
    """What tests or MTAs have left in the release's namespace."""
    kinds = (
        ("posthof.dev/v1alpha1", "MTA"),
        ("posthof.dev/v1alpha1", "MailDomain"),
        ("v1", "PersistentVolumeClaim"),
    )
    found = [one["metadata"]["name"] for version, kind in kinds for one in stage.api.list(version, kind, SYSTEM)]
    pods = (one["metadata"] for one in stage.api.list("v1", "Pod", SYSTEM))
    return found + [
        pod["name"] for pod in pods if pod["labels"].get("app.kubernetes.io/component") in ("mta", "test")
    ]
