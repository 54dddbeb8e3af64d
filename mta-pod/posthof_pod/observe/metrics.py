"""Every metric of the house: name, kind, what it counts, and how the values of several workers make one.

A worker's `stats()` is a flat dict `name{label="value"} -> number`; this table turns the sums into Prometheus text.
Names that the table does not know are shown too: `_total` as a counter, others as a gauge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

Stats = dict[str, int | float]


class Metric(NamedTuple):
    """`merge`: how workers' values become one: sum, max or min."""

    kind: str  # counter, gauge, histogram
    help: str
    merge: str = "sum"


METRICS: dict[str, Metric] = {
    "posthof_messages_accepted_total": Metric("counter", "Messages answered with 250."),
    "posthof_recipients_accepted_total": Metric("counter", "Recipients of accepted messages, after aliases."),
    "posthof_bytes_accepted_total": Metric("counter", "Bytes of content of accepted messages."),
    "posthof_refused_total": Metric("counter", "Refusals by stage (connect, helo, mail, rcpt, data) and reply code."),
    "posthof_sender_auth_total": Metric("counter", "Mail from the world by method (spf, dkim, arc, dmarc), result."),
    "posthof_sessions_total": Metric("counter", "SMTP sessions that said at least one command, ended."),
    "posthof_probes_total": Metric("counter", "Connections that left without a command: health checks, scanners."),
    "posthof_recipients_total": Metric(
        "counter",
        "Recipients that a try finished, by result: delivered (a mailbox of ours), relayed, failed, expired, "
        "discarded, held, uncertain.",
    ),
    "posthof_deferred_total": Metric("counter", "Recipients put back into the queue, by reason."),
    "posthof_failed_total": Metric("counter", "Recipients that failed for good, by reason."),
    "posthof_possible_duplicates_total": Metric("counter", "Recipients that may get a message twice."),
    "posthof_reports_total": Metric("counter", "Delivery status notifications made here, by kind."),
    "posthof_reports_dropped_total": Metric("counter", "Reports that nobody can be told."),
    "posthof_tls_fallbacks_total": Metric("counter", "Sessions that went on in plain text after TLS failed."),
    "posthof_dnssec_missing_total": Metric("counter", "Times the resolver was found not to validate: DANE is off."),
    "posthof_sts_failures_total": Metric("counter", "MTA-STS policies that could not be had or met, by result."),
    "posthof_tls_failures_total": Metric("counter", "TLS that failed on the way to a session, by result."),
    "posthof_delivery_delay_seconds": Metric("histogram", "From accepted to delivered or relayed, by recipient."),
    "posthof_operator_actions_total": Metric("counter", "Messages a person changed, by action."),
    "posthof_config_swaps_total": Metric("counter", "Configurations taken into use after the first."),
    "posthof_config_refused_total": Metric("counter", "Configurations refused; the old one stayed."),
    "posthof_cluster_away_total": Metric("counter", "Times the API server did not answer; the configuration stayed."),
    "posthof_lease_lost_total": Metric("counter", "Times the pod's Lease was not renewed, or the others' not seen."),
    "posthof_lease_renewals_total": Metric("counter", "Renewals of the pod's Lease."),
    "posthof_volume_blind_total": Metric("counter", "Words of other pods on the volume that were not seen in 10 s."),
    "posthof_slept_total": Metric("counter", "Times the pod's processes were stopped for 10 s or more."),
    "posthof_spool_adoptions_total": Metric("counter", "Lanes taken over from dead or stopped workers."),
    "posthof_spool_take_overs_total": Metric("counter", "Workers whose lanes this house took over."),
    "posthof_spool_damaged_total": Metric("counter", "Records or segments that cannot be read, set aside."),
    "posthof_spool_fenced_total": Metric("counter", "Times this worker found itself fenced."),
    "posthof_spool_full_total": Metric("counter", "Times the spool went over its limit: mail gets 452."),
    "posthof_spool_segments_given_up_total": Metric("counter", "Segments left after an error of the volume."),
    "posthof_internal_errors_total": Metric("counter", "Errors of our own making; the log has the trace."),
    "posthof_log_lines_total": Metric("counter", "Events told."),
    "posthof_log_lines_lost_total": Metric("counter", "Log lines that found no reader or no disk."),
    "posthof_worker_starts_total": Metric("counter", "Workers started."),
    "posthof_worker_deaths_total": Metric("counter", "Workers that died unasked."),
    "posthof_authenticated_total": Metric("counter", "Logins of clients, by mechanism."),
    "posthof_not_authenticated_total": Metric("counter", "Logins that failed, by mechanism."),
    "posthof_accounts_held_total": Metric("counter", "Times an account began to send unlike itself."),
    "posthof_accounts_held": Metric("gauge", "Accounts whose mail is held now.", "max"),
    "posthof_workers": Metric("gauge", "Workers by state."),
    "posthof_uptime_seconds": Metric("gauge", "Since the supervisor started.", "max"),
    "posthof_build_info": Metric("gauge", "1; the version is a label.", "max"),
    "posthof_config_info": Metric("gauge", "Workers that run the configuration with this hash."),
    "posthof_queue_messages": Metric("gauge", "What waits, by state: ready, deferred, held, sending."),
    "posthof_queue_oldest_ready_seconds": Metric("gauge", "Age of the oldest unit that is due.", "max"),
    "posthof_limits_share": Metric("gauge", "Part of the fleet's limits that is ours; all pods together: 1 at most."),
    "posthof_accept_seconds": Metric("histogram", "From the last dot to the 250."),
    "posthof_queue_free_messages": Metric(
        "gauge", "Ready mail that waits for nothing but a worker: not for its destination or its route."
    ),
    "posthof_queue_oldest_free_seconds": Metric("gauge", "Age of the oldest of these.", "max"),
    "posthof_queue_begun_total": Metric("counter", "Units given to a session, or to a mailbox."),
    "posthof_sessions_share": Metric("gauge", "Share of the sessions allowed that are taken, in or out.", "max"),
    "posthof_spool_messages_most": Metric("gauge", "Live messages that fit into the workers' memory."),
    "posthof_sessions_open": Metric("gauge", "Open sessions, by direction: in, out."),
    "posthof_spool_messages": Metric("gauge", "Live messages in the spool."),
    "posthof_spool_bytes": Metric("gauge", "Bytes of the spool's segments and blobs."),
    "posthof_spool_lanes": Metric("gauge", "Lanes held."),
    "posthof_spool_cached_bytes": Metric("gauge", "Contents kept in memory for their first attempt."),
    "posthof_spool_turns_total": Metric("counter", "Turns of write, sync and look."),
    "posthof_spool_turn_seconds": Metric("gauge", "How long the last turn took.", "max"),
    "posthof_spool_look_age_seconds": Metric("gauge", "Since the last good look at the latch.", "max"),
    "posthof_spool_unowned_lanes": Metric("gauge", "Lanes that wait for a worker with room.", "max"),
    "posthof_spool_poisoned_lanes": Metric("gauge", "Lanes that nobody takes: three takers died over them.", "max"),
    "posthof_spool_is_full": Metric("gauge", "1 while mail is answered with 452.", "max"),
    "posthof_spool_torn_total": Metric("counter", "Segments whose end was torn by a crash."),
    "posthof_spool_compacted_total": Metric("counter", "Messages written again so that an old segment could go."),
    "posthof_spool_removed_segments_total": Metric("counter", "Segments removed."),
    "posthof_spool_free_bytes": Metric("gauge", "Free bytes of the spool's volume.", "min"),
}


class Histogram:
    """Fixed buckets, plain integers. `observe` costs a bisect and two additions."""

    def __init__(self, name: str, bounds: tuple[float, ...]) -> None:
        self.name, self.bounds = name, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def stats(self) -> Stats:
        """Cumulative buckets, sum and count, in Prometheus' names."""
        found: Stats = {}
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            found[f'{self.name}_bucket{{le="{"+Inf" if bound == float("inf") else bound}"}}'] = total
        found[f"{self.name}_sum"] = round(self.sum, 6)
        found[f"{self.name}_count"] = total
        return found


def labelled(name: str, label: str, counts: Mapping[str, int]) -> Stats:
    """{"DNSFailed": 3} -> {'name{label="DNSFailed"}': 3}."""
    return {f'{name}{{{label}="{key}"}}': count for key, count in counts.items()}


def merged(stats: Iterable[Mapping[str, int | float]]) -> Stats:
    """The workers' stats as one: each name by its own rule (sum where the table knows nothing better)."""
    total: Stats = {}
    for one in stats:
        for key, value in one.items():
            known = METRICS.get(key.partition("{")[0])
            rule = known.merge if known else "sum"
            if key not in total:
                total[key] = value
            elif rule == "sum":
                total[key] += value
            else:
                total[key] = max(total[key], value) if rule == "max" else min(total[key], value)
    return total
