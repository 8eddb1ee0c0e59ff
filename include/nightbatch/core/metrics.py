"""Every figure that a monitor is told: name, kind, labels, meaning. docs/observability.md is written from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

LANE = ("job_name", "provider", "model", "lane")
"""Labels of what a lane did. Not `job`: Prometheus gives that name to what it scrapes."""
JOB = ("job_name",)
MAX_LABEL = 80
"""Longest value of a label, characters; a StatsD name of ours stays below Airflow's 250."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_./-]")
_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")


class Kind(StrEnum):
    """How a receiver adds a figure up."""

    COUNTER = "counter"
    """Each figure is added to those before."""
    TIMER = "timer"
    """Seconds here; the receiver keeps their distribution, so quantiles are its work."""
    GAUGE = "gauge"
    """The last figure counts."""


@dataclass(frozen=True)
class Metric:
    """One figure."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    says: str
    """What it counts, and the place in the ledger that has the same number."""

    def told(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Give the labels in their order, each safe for every receiver; an absent one is `none`."""
        return {name: _UNSAFE.sub("_", labels.get(name, ""))[:MAX_LABEL] or "none" for name in self.labels}

    def dotted(self, labels: Mapping[str, str]) -> str:
        """Give name and labels as one name, for receivers that know no labels: `nightbatch.runs.reviews.complete`."""
        return ".".join([self.name, *(_UNSAFE_IN_NAME.sub("_", value) for value in self.told(labels).values())])


RECORDS = Metric(
    "nightbatch.records",
    Kind.COUNTER,
    (*JOB, "what"),
    "Records that a sealed plan is made of, by `what` became of them: `pulled`, `from_pending`, `from_dead` came in; "
    "`requests`, `unchanged`, `duplicates`, `superseded`, `unrenderable`, `not_deferrable` is where they went. "
    "`nb_rounds.facts`, `counts` of round 0.",
)
BATCHES = Metric("nightbatch.batches", Kind.COUNTER, LANE, "Batches made at the vendor: attempts with an id.")
ROWS_SENT = Metric("nightbatch.rows_sent", Kind.COUNTER, LANE, "Rows in these batches, each time.")
VERDICTS = Metric(
    "nightbatch.verdicts",
    Kind.COUNTER,
    (*LANE, "kind", "reason"),
    "Rows that came back or did not, by verdict and reason. `nb_shards.counts`.",
)
TOKENS = Metric(
    "nightbatch.tokens",
    Kind.COUNTER,
    (*LANE, "what"),
    "Billed tokens: `input`, of which `cached` and `cache_write`; `output`, of which `reasoning`. `nb_shards`.",
)
COST = Metric("nightbatch.cost_usd", Kind.COUNTER, LANE, "USD that batches were billed. `nb_shards.batch_usd`.")
REALTIME = Metric(
    "nightbatch.cost_realtime_usd",
    Kind.COUNTER,
    LANE,
    "USD that the same answers would have cost in real time. `nb_shards.realtime_usd`.",
)
ROWS_LOADED = Metric(
    "nightbatch.rows_loaded",
    Kind.COUNTER,
    LANE,
    "Answers in the sink, with copies. `nb_shards.merged`.",
)
ROWS_AGAIN = Metric(
    "nightbatch.rows_sent_again", Kind.COUNTER, (*JOB, "reason"), "Rows that the next round sends again, by reason."
)
ROWS_DEAD = Metric(
    "nightbatch.rows_dead",
    Kind.COUNTER,
    (*JOB, "reason"),
    "Dead letters by reason; `copy` are records that ask what another one got no answer to.",
)
ROWS_PENDING = Metric(
    "nightbatch.rows_pending", Kind.COUNTER, (*JOB, "reason"), "Rows left to the job's next run, by reason, or `copy`."
)
RUNS = Metric(
    "nightbatch.runs", Kind.COUNTER, (*JOB, "state"), "Runs that ended `complete`, `incomplete` or `failed`. `nb_runs`."
)
RUN_DURATION = Metric(
    "nightbatch.run_duration", Kind.TIMER, JOB, "From a run's start to its end, when it is complete. Books, `seconds`."
)
TURNAROUND = Metric(
    "nightbatch.batch_turnaround",
    Kind.TIMER,
    LANE,
    "From a batch's creation to its end, by the vendor's clock where it tells; told when its answers are stored.",
)
QUEUE_WAIT = Metric(
    "nightbatch.queue_wait",
    Kind.TIMER,
    LANE,
    "From a shard's first asking for a place in the vendor's queue to the attempt that got one.",
)
BATCH_AGE = Metric(
    "nightbatch.batch_age",
    Kind.GAUGE,
    LANE,
    "Seconds since the oldest batch was made that is still open; 0 when the last one is done. Told at each look.",
)
POLL_ERRORS = Metric(
    "nightbatch.poll_errors", Kind.COUNTER, (*LANE, "error"), "Looks at a batch that failed, by the name of the error."
)
WINDOWS_MISSING = Metric(
    "nightbatch.windows_missing", Kind.GAUGE, JOB, "Due windows without a run. Told by the watchdog, every hour."
)
ANSWERS_AGE = Metric(
    "nightbatch.answers_age",
    Kind.GAUGE,
    JOB,
    "Seconds since the end of the last window whose answers are all there. Told by the watchdog, every hour.",
)

METRICS = (
    RECORDS,
    BATCHES,
    ROWS_SENT,
    VERDICTS,
    TOKENS,
    COST,
    REALTIME,
    ROWS_LOADED,
    ROWS_AGAIN,
    ROWS_DEAD,
    ROWS_PENDING,
    RUNS,
    RUN_DURATION,
    TURNAROUND,
    QUEUE_WAIT,
    BATCH_AGE,
    POLL_ERRORS,
    WINDOWS_MISSING,
    ANSWERS_AGE,
)
"""All of them, in the order of a record's path."""
