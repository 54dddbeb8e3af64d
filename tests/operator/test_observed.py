"""What the resources' status says is a metric, and only what is wrong is named."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from posthof_operator.observed import LIMIT, Observed
from posthof_operator.resources import Raw
from posthof_operator.store import Store


def told(store: Store) -> list[str]:
    registry = CollectorRegistry()
    registry.register(Observed(store))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def one(name: str, status: Raw, **spec: str) -> Raw:
    return {"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": spec, "status": status}


def ready(status: str, reason: str = "Accepted") -> Raw:
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason}]}


def test_an_empty_store_has_nothing_to_tell() -> None:
    assert told(Store()) == []


def test_healthy_objects_are_a_number_and_others_have_names() -> None:
    store = Store()
    for name in ("x", "y"):
        store.put("MailDomain", one(name, ready("True"), domain=f"{name}.test"))
    store.put("MailDomain", one("z", ready("False", "DomainTaken"), domain="z.test"))
    store.put("MTA", one("edge", {}))
    lines = told(store)
    assert 'posthof_operator_ready{kind="MailDomain",ready="True"} 2.0' in lines
    assert 'posthof_operator_ready{kind="MTA",ready="Unknown"} 1.0' in lines
    [named] = [line for line in lines if line.startswith("posthof_operator_not_ready")]
    for label in ('object_namespace="a"', 'kind="MailDomain"', 'name="z"', 'reason="DomainTaken"'):
        assert label in named


def test_a_record_that_differs_is_named_with_its_domain() -> None:
    store = Store()
    store.put("MailDomain", one("x", {"dns": {"mx": "ok", "spf": "differs", "dmarc": "off"}}, domain="x.test"))
    lines = told(store)
    assert 'posthof_operator_dns_records{record="mx",state="ok"} 1.0' in lines
    [wrong] = [line for line in lines if line.startswith("posthof_operator_dns_wrong")]
    assert 'domain="x.test"' in wrong
    assert 'record="spf",state="differs"' in wrong


def test_an_mta_that_scales_says_why_it_has_as_many_pods_as_it_has() -> None:
    store = Store()
    store.put("MTA", one("fixed", ready("True")))
    active = {"type": "ScalingActive", "status": "True", "reason": "AtMaximum"}
    store.put("MTA", one("bulk", {"conditions": [active]}))
    [line] = [line for line in told(store) if line.startswith("posthof_operator_scaling")]
    assert line == 'posthof_operator_scaling{name="bulk",object_namespace="a",reason="AtMaximum"} 1.0'


def test_a_certificate_tells_when_it_ends() -> None:
    store = Store()
    store.put("TLSCert", one("mx", {"notAfter": "2027-01-19T08:00:00Z"}))
    store.put("TLSCert", one("new", {}))
    [line] = [line for line in told(store) if "expiry" in line]
    assert line.endswith(" 1.8003456e+09")


def test_there_is_an_end_to_the_names() -> None:
    store = Store()
    for number in range(LIMIT + 10):
        store.put("MailDomain", one(f"n{number}", ready("False"), domain="n.test"))
    lines = told(store)
    assert len([line for line in lines if line.startswith("posthof_operator_not_ready")]) == LIMIT
    assert f'posthof_operator_ready{{kind="MailDomain",ready="False"}} {LIMIT + 10}.0' in lines
