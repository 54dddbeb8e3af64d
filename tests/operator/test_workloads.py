"""Which addresses are in which selections of pods."""

from __future__ import annotations

from typing import Any

from posthof_crds.fleet import PodSelection
from posthof_crds.selectors import Selector, parse
from posthof_operator.workloads import listed

WEB, ALL = PodSelection(("shop",), parse("app=web")), PodSelection(("shop", "blog"), Selector())


def pod(address: str, app: str = "web", *, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    addresses = [{"ip": one} for one in address.split()]
    status = {"phase": phase, "podIP": addresses[0]["ip"], "podIPs": addresses}
    return {"metadata": {"name": app, "labels": {"app": app}}, "spec": spec, "status": status}


def test_an_address_is_in_the_selections_of_its_pod_in_both_families() -> None:
    found = listed({"web": WEB, "all": ALL}, {"shop": [pod("10.1.0.1 fd00::1"), pod("10.1.0.2", "db")], "blog": []})
    assert found == {"10.1.0.1": ("all", "web"), "fd00::1": ("all", "web"), "10.1.0.2": ("all",)}


def test_addresses_of_nodes_and_of_pods_that_ended_are_nobodys() -> None:
    pods = [pod("10.1.0.1", hostNetwork=True), pod("10.1.0.2", phase="Succeeded"), pod("10.1.0.3", phase="Failed")]
    assert listed({"web": WEB}, {"shop": pods}) == {}


def test_while_two_pods_have_one_address_it_is_in_the_selections_of_both_only() -> None:
    """The second has it now; the first one's node was away and has not said yet that it ended."""
    both = {"shop": [pod("10.1.0.1"), pod("10.1.0.1", "db")], "blog": [pod("10.1.0.2")]}
    assert listed({"web": WEB, "all": ALL}, both) == {"10.1.0.1": ("all",), "10.1.0.2": ("all",)}
    assert listed({"web": WEB}, both) == {}
