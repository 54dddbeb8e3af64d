"""What ExternalDNS is asked to publish, and for whom: nobody gets records under names of others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from posthof_operator.certs.asking import Asker, Failure
from posthof_operator.certs.wish import wish_of
from posthof_operator.publishing import why_not
from posthof_operator.store import Store


def thing(kind: str, namespace: str, name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "resourceVersion": "1"}
    metadata["generation"] = 2
    return {"apiVersion": "posthof.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, **more}


def domain(name: str, *, generation: int = 2, status: str = "True") -> dict[str, Any]:
    one = {"type": "Accepted", "status": status, "observedGeneration": generation}
    return thing("MailDomain", "shop", "d", {"domain": name}, status={"conditions": [one]})


def store(*raws: dict[str, Any]) -> Store:
    made = Store()
    for raw in raws:
        made.put(raw["kind"], raw)
    return made


MTA = thing("MTA", "mail", "edge", {"hostname": "mx.owner.example"})


@pytest.mark.parametrize(
    ("held", "names", "may"),
    [
        ((MTA,), ("mx.owner.example",), False),  # somebody else's MTA
        ((MTA, domain("shop.example")), ("mx.owner.example",), False),
        ((MTA, domain("shop.example")), ("shop.example", "mta-sts.shop.example", "*.shop.example"), True),
        ((MTA, domain("shop.example")), ("notshop.example",), False),
        ((domain("shop.example"),), ("shop.example", "mx.owner.example"), False),
        ((domain("owner.example", status="False"),), ("owner.example",), False),
        ((domain("owner.example", generation=1),), ("owner.example",), False),  # accepted under another name
    ],
)
def test_a_tenant_publishes_under_its_own_names_alone(held: Any, names: Any, may: bool) -> None:
    assert (why_not(store(*held), "shop", names) == "") is may


def test_a_namespace_with_an_mta_is_its_administrators() -> None:
    assert why_not(store(MTA), "mail", ["anything.example"]) == ""


def test_a_certificate_for_names_of_others_is_not_proven_by_external_dns() -> None:
    acme = {"directory": "https://ca.test/dir", "solver": {"dns01": {"dnsEndpoint": {}}}}
    raw = thing("TLSCert", "shop", "theirs", {"dnsNames": ["mx.owner.example"], "issuer": {"acme": acme}})

    class Api:
        async def has(self, _: object) -> bool:
            return True

    async def story() -> None:
        world: Any = SimpleNamespace(
            api=Api(), store=store(MTA, raw), settings=SimpleNamespace(resolver=(), dns_port=53)
        )
        with pytest.raises(Failure, match="that an MTA has accepted"):
            await Asker()._solver(wish_of(raw), raw, world)

    asyncio.run(story())
