"""Every rule of the schema, asked of the API server: it takes what it should, and refuses the rest in its words."""

import importlib.util
from functools import partial
from types import ModuleType

from kit.api import ApiError
from kit.place import ROOT
from kit.stage import Stage

CASES = ROOT / "tests" / "kit" / "celcases.py"  # and the cases themselves: tests/crds/cel_cases.yaml
EXPLAINED = {
    "mta.spec.listeners": ("The ports to receive on.", "Which protocol code serves the port.", "-required-"),
    "maildomain.spec.inbound.mode": ("given to a mailbox server (RFC 2033)",),
    "relaypolicy.spec.match": ("every part that is given must hold",),
    "tlscert.status.conditions.reason": ("in one word",),
}


def story(stage: Stage) -> None:
    stage.step("the models and the API server give one verdict")
    wrong: list[str] = []
    cases = _celcases().cases()
    for case in cases:
        said = answer(stage, case.raw)
        if (said == "") != case.is_accepted:
            wrong.append(f"{case} but the API server says {said or 'yes'!r}")
        elif said and case.message not in said:
            wrong.append(f"{case}: the refusal should say {case.message!r}: {said}")
    stage.expect(not wrong, "\n".join(wrong))
    stage.keep("objects judged", len(cases), unit="objects")

    stage.step("`kubectl explain` reads like documentation")
    for field, words in EXPLAINED.items():
        stage.until(f"kubectl explain {field} says {words}", partial(is_said, stage, field, words), wanted=30)

    stage.step("`kubectl get mail` knows all kinds")
    names = stage.place.kubectl("api-resources", "--categories=mail", "-o", "name").split()
    kinds = "mtas maildomains relaypolicies accesspolicies smtpcredentials dkimkeys tlscerts"
    wanted = {f"{each}.posthof.dev" for each in kinds.split()}
    stage.expect(wanted <= set(names), f"the category mail holds {names}")

    stage.step("a domain is found by its name")
    stage.place.kubectl("get", "maildomains", "-A", "--field-selector", "spec.domain=nobody.test")


def is_said(stage: Stage, field: str, words: tuple[str, ...]) -> bool:
    """The server gathers what it explains a little after a definition has changed."""
    told = " ".join(stage.place.kubectl("explain", field).split())
    return all(word in told for word in words)


def answer(stage: Stage, raw: dict[str, object]) -> str:
    """ "" for an object that could be created, else why not. Nothing is."""
    version, kind = str(raw["apiVersion"]), str(raw["kind"])
    path = stage.api.path(version, kind, stage.namespace, dryRun="All", fieldValidation="Strict")

    def asked() -> list[str]:
        try:
            stage.api.call("POST", path, raw)
        except ApiError as error:
            return [] if error.is_away or error.status == 429 else [error.message]
        return [""]

    return stage.until(f"the API server judges a {kind}", asked)[0]


def _celcases() -> ModuleType:
    """`kit` is the name of both folders of instruments, so the one of the tests is loaded by its path."""
    spec = importlib.util.spec_from_file_location("celcases", CASES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
