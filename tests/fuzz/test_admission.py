"""Invariant: whatever an AdmissionReview holds, the webhook answers it, with its uid, allowed or with a message;
and no fault of ours stands behind the answer."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_operator.metrics import Metrics
from posthof_operator.store import Store
from posthof_operator.webhook.server import Webhook
from posthof_operator.webhook.view import View

KINDS = ["MTA", "MailDomain", "RelayPolicy", "DKIMKey", "TLSCert", "Secret", "Pod"]
junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["domain", "inbound", "mode", "hostname", "listeners", "tls", "certRefs", "spool", "issuer", "match", "action"]
)
specs = st.dictionaries(fields, junk | st.dictionaries(fields, junk, max_size=3), max_size=4)
objects = st.fixed_dictionaries(
    {"metadata": st.fixed_dictionaries({"name": st.just("x"), "namespace": st.just("ns")})},
    optional={"spec": specs | junk},
)


@pytest.mark.fuzz
@settings(max_examples=60)
@given(fresh=objects | st.none(), old=objects | st.none())
def test_every_review_is_answered(fresh: Any, old: Any) -> None:
    hook = Webhook(View(Store()), Metrics())
    for kind, operation in itertools.product(KINDS, ("CREATE", "UPDATE", "DELETE", "CONNECT")):
        request = {
            "uid": "u",
            "kind": {"kind": kind},
            "operation": operation,
            "namespace": "ns",
            "name": "x",
            "object": fresh,
            "oldObject": old,
        }
        response = asked(hook, {"apiVersion": "admission.k8s.io/v1", "request": request})
        assert response["uid"] == "u"
        assert response["allowed"] or response["status"]["message"]
        assert not [warning for warning in response.get("warnings", ()) if "not checked" in warning]


def asked(hook: Webhook, review: Any) -> Any:
    class Http:
        async def read(self) -> bytes:
            return json.dumps(review).encode()

    answer: web.Response = asyncio.run(hook._validate(Http()))  # type: ignore[arg-type]  # all it asks is read()
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)["response"]
