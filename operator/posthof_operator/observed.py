"""What the resources' status says, as metrics: for alerts and dashboards about objects, not about the operator.

Rules of this file
- Read from the store when somebody asks for metrics; nothing is kept, nothing is written.
- An object is named only when something is wrong with it, `LIMIT` of them at most: ten thousand healthy domains are
  one number. Certificates are few and are all named.
- Only the replica that leads knows objects; the other one shows nothing here.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from posthof_operator.resources import OURS, Key, Raw
from posthof_operator.store import Store

LIMIT = 1000
DNS_RECORDS = ("mx", "spf", "dmarc", "mtaSts")
WRONG = ("missing", "differs")


class Observed(Collector):
    """Registered with the registry of `Metrics` while a store is there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families without samples: so registering asks the store nothing."""
        return [*_readiness(()), *_dns(()), _certificates(()), _scaling(())]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _readiness((key, held.raw()) for kind in OURS for key, held in self._store.all(kind))
        yield from _dns((key, held.raw()) for key, held in self._store.all("MailDomain"))
        yield _certificates((key, held.raw()) for key, held in self._store.all("TLSCert"))
        yield _scaling((key, held.raw()) for key, held in self._store.all("MTA"))


def _readiness(objects: Iterable[tuple[Key, Raw]]) -> list[GaugeMetricFamily]:
    counted = GaugeMetricFamily("posthof_operator_ready", "Objects by kind and Ready.", labels=["kind", "ready"])
    named = GaugeMetricFamily(
        "posthof_operator_not_ready",
        "1 for each object whose Ready is False, with the reason.",
        labels=["kind", "object_namespace", "name", "reason"],
    )
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[str, ...]] = []
    for key, raw in objects:
        ready: Raw = next((one for one in raw["status"].get("conditions") or () if one["type"] == "Ready"), {})
        status = ready.get("status", "Unknown")
        counts[key.kind, status] += 1
        if status == "False":
            wrong.append((*key, ready.get("reason", "")))
    for labels, count in sorted(counts.items()):
        counted.add_metric(labels, count)
    for row in islice(wrong, LIMIT):
        named.add_metric(row, 1)
    return [counted, named]


def _dns(objects: Iterable[tuple[Key, Raw]]) -> list[GaugeMetricFamily]:
    counted = GaugeMetricFamily(
        "posthof_operator_dns_records", "DNS records of MailDomains, by record and state.", labels=["record", "state"]
    )
    named = GaugeMetricFamily(
        "posthof_operator_dns_wrong",
        "1 for each DNS record of a MailDomain that is missing or differs.",
        labels=["object_namespace", "name", "domain", "record", "state"],
    )
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[str, ...]] = []
    for key, raw in objects:
        states = raw["status"].get("dns") or {}
        for record in DNS_RECORDS:
            if record not in states and record == "mtaSts":
                continue  # not asked for
            state = states.get(record, "unknown")
            counts[record, state] += 1
            if state in WRONG:
                wrong.append((key.namespace, key.name, raw["spec"].get("domain", ""), record, state))
    for labels, count in sorted(counts.items()):
        counted.add_metric(labels, count)
    for row in islice(wrong, LIMIT):
        named.add_metric(row, 1)
    return [counted, named]


def _certificates(objects: Iterable[tuple[Key, Raw]]) -> GaugeMetricFamily:
    ends = GaugeMetricFamily(
        "posthof_operator_certificate_expiry_timestamp_seconds",
        "When the certificate of a TLSCert ends, in Unix time.",
        labels=["object_namespace", "name"],
    )
    for key, raw in objects:
        if moment := raw["status"].get("notAfter"):
            ends.add_metric((key.namespace, key.name), datetime.datetime.fromisoformat(moment).timestamp())
    return ends


def _scaling(objects: Iterable[tuple[Key, Raw]]) -> GaugeMetricFamily:
    found = GaugeMetricFamily(
        "posthof_operator_scaling",
        "1 for each MTA with ScalingActive, with the reason: why there are as many pods as there are.",
        labels=["object_namespace", "name", "reason"],
    )
    for key, raw in objects:
        for one in raw["status"].get("conditions") or ():
            if one["type"] == "ScalingActive":
                found.add_metric((key.namespace, key.name, one.get("reason", "")), 1)
    return found
