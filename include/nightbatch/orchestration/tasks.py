"""
The operators of a job's Dag: each calls one function of `flow` and turns its outcome into Airflow's words.

Airflow imports this module at every parse, in every process, so what only a run needs is imported where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from airflow.configuration import conf
from airflow.sdk import BaseOperator, BaseOperatorLink, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from nightbatch.errors import RunOverlaps
from nightbatch.job import Job

from .connections import task_ports
from .failures import airflow_failures
from .lineage import DatasetsOfAJob
from .progress import log_progress
from .waking import note_look, trigger_for, wait_for_window
from .windows import options_of, window_of

if TYPE_CHECKING:
    from nightbatch.core.ids import ShardRef
    from nightbatch.ports import Ports, RoundPlan
    from nightbatch.steps.outcome import Waiting

RUN_KEY = "run"
"""XCom key under which `prepare` names the run in the ledger."""
SPREAD_KEY = "spread"
"""XCom key under which `parts` names how the source was split; empty where it was not."""
DRY_RUN_KEY = "dry_run"
"""XCom key under which the `prepare` of a dry run leaves its figures."""


def run_link(context: Mapping[str, Any], ports: Ports) -> str:
    """Give the page of this run in the Airflow UI."""
    base = ports.settings.ui_base_url.rstrip("/")
    run = context["dag_run"]
    return f"{base}/dags/{quote(run.dag_id)}/runs/{quote(run.run_id)}" if base else ""


def shard_refs(plan: RoundPlan) -> list[dict[str, Any]]:
    """Give the shards of a round as XCom takes them: references and a name, never rows."""
    most = conf.getint("core", "max_map_length")
    if len(plan.shards) > most:
        raise AirflowFailException(
            f"run {plan.run}: round {plan.round} has {len(plan.shards):,} shards and Airflow maps a task over {most:,} "
            "at most. Nothing of it was sent. Raise max_map_length in Airflow's [core] section and clear this task, or "
            "raise shard.max_rows in the job file and run the window with force."
        )
    return [
        {
            "run": shard.ref.run,
            "round": shard.ref.round,
            "shard": shard.ref.shard,
            "name": f"{shard.ref.name} · {shard.rows:,} rows · {shard.model}",
        }
        for shard in plan.shards
    ]


class PrepareOperator(DatasetsOfAJob, BaseOperator):
    """Steps 1 to 3: pull, render, pack, seal. Gives the shards of round 0."""

    writes_sink = False

    def __init__(self, *, job: Job, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job

    def execute(self, context: Any, event: Any = None) -> list[dict[str, Any]]:
        """Seal the window's plan; waits, without a worker, for another run that holds the window."""
        spread = context["ti"].xcom_pull(task_ids="parts", key=SPREAD_KEY) if self.job.source.parts > 1 else ""
        from nightbatch import flow

        with airflow_failures():
            ports, window, options = task_ports(self.job), window_of(context), options_of(context)
            if context["params"].get("dry_run"):
                self._look_ahead(ports, context)
            try:
                watch = log_progress(self.log)
                plan = flow.prepare(ports, self.job, window, options, watch=watch, spread=spread or "")
            except RunOverlaps as overlap:
                wait_for_window(self, ports, overlap)
        context["ti"].xcom_push(key=RUN_KEY, value=plan.run)
        self.log.info("run %s: %s", plan.run, plan.facts["counts"])
        return shard_refs(plan)

    def _look_ahead(self, ports: Ports, context: Any) -> NoReturn:
        from nightbatch import flow
        from nightbatch.steps.estimate import too_small_budgets
        from nightbatch.steps.forecast_words import forecast_rows, warnings

        found = flow.look_ahead(ports, self.job, window_of(context), options_of(context))
        context["ti"].xcom_push(
            key=DRY_RUN_KEY,
            value={"requests": found.counts.requests, "shards": found.shards},
        )
        rows = [f"{label}: {value}" for label, value in forecast_rows(self.job, found.forecast) if label]
        said = ". ".join([*rows, *too_small_budgets(self.job, found), *warnings(self.job, found.forecast)])
        raise AirflowSkipException(
            f"dry run, nothing was sent: {found.counts.requests:,} requests in {found.shards:,} shards, "
            f"{found.expected_usd} USD expected, {found.worst_usd} USD at worst "
            f"(real time: {found.realtime_expected_usd} expected). {said}"
        )


class BatchLink(BaseOperatorLink):
    """The button on a shard's page that leads to its batch at the vendor."""

    name = "Batch at the vendor"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Give the link that the sensor found; empty while there is no batch."""
        return getattr(operator, "batch_url", "")


def _take_up_again(ports: Ports, ref: ShardRef) -> None:
    """
    Let a run send again when somebody clears a shard of it that failed.

    Clearing only what failed does not start `prepare`, which forgets the trouble with an account otherwise.
    """
    if ports.ledger.shard(ref).problem:
        ports.ledger.resume(ref.run, now=ports.clock.now())


class BatchSensor(DatasetsOfAJob, BaseOperator):
    """
    Steps 4 to 8 for one shard: submit, wait, collect, validate, load.

    Re-entrant: it looks at the shard's state in the ledger, does the next thing, and defers whenever it must wait.
    Cleared, retried or killed, it goes on from where the shard is.
    """

    template_fields = ("shard",)
    operator_extra_links = (BatchLink(),)

    def __init__(self, *, job: Job, shard: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job, self.shard = job, shard
        self.batch_url = ""

    def execute(self, context: Any, event: Any = None) -> None:
        """Move the shard on as far as it goes now; looks once before it defers."""
        get_current_context()["shard_name"] = self.shard["name"]  # type: ignore[typeddict-unknown-key]  # for labels
        from nightbatch import flow
        from nightbatch.core.ids import ShardRef
        from nightbatch.steps.outcome import Waiting

        ref = ShardRef(self.shard["run"], self.shard["round"], self.shard["shard"])
        with airflow_failures():
            ports = task_ports(self.job)
            if event is None:
                _take_up_again(ports, ref)
            job = flow.sealed_job(ports, ref.run)
            note_look(ports, job, ref, event or {})
            outcome = flow.advance(ports, job, ref)
        self._find_link(ports, ref)
        if isinstance(outcome, Waiting):
            if outcome.batch is None:  # else the look at the batch has said so
                self.log.info("%s [job=%s run=%s shard=%s]", outcome.reason, job.name, ref.run, ref.name)
            trigger = trigger_for(outcome, ports, about=f"job={job.name} run={ref.run} shard={ref.name}")
            self.defer(trigger=trigger, method_name="execute")
        self.log.info("the shard is %s [job=%s run=%s shard=%s]", outcome.state, job.name, ref.run, ref.name)

    def _find_link(self, ports: Ports, ref: ShardRef) -> None:
        shard = ports.ledger.shard(ref)
        if shard.current is not None and shard.current.batch_id:
            provider = ports.provider(shard.plan.provider, shard.plan.connection)
            self.batch_url = provider.batch_url(shard.current.batch_id)
            context = get_current_context()
            # Airflow asks for the link only when a task ends, and a batch is looked at while it waits.
            context["ti"].xcom_push(key=BatchLink().xcom_key, value=self.batch_url)


class RetryOperator(BaseOperator):
    """Step 9: seals the next round and gives its shards."""

    def __init__(self, *, job: Job, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job, self.number = job, number

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Give every bad row of the rounds so far its fate."""
        run = context["ti"].xcom_pull(task_ids="prepare", key=RUN_KEY)
        from nightbatch import flow

        with airflow_failures():
            ports = task_ports(self.job)
            plan = flow.close_round(ports, flow.sealed_job(ports, run), run, self.number, last=self.job.rounds)
        self.log.info("run %s: %s", run, {name: plan.facts[name] for name in ("sent_again", "dead", "pending")})
        return shard_refs(plan)


_UNDER_WAY = ["scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting"]


def _others_under_way(ti: Any) -> int:
    """Count the other tasks of a Dag run that are not over: clearing only what failed starts settle beside them."""
    return int(ti.get_ti_count(dag_id=ti.dag_id, run_ids=[ti.run_id], states=_UNDER_WAY)) - 1


def _wait_for(ports: Ports, others: int) -> Waiting:
    from nightbatch.steps.outcome import Waiting

    until = ports.clock.now() + timedelta(seconds=ports.settings.poll_from_s)
    return Waiting(until, f"waits for {others} other tasks of this run")


class SettleOperator(DatasetsOfAJob, BaseOperator):
    """
    Step 10: adds up, tells people, emits the outlet asset, and gives the run its colour.

    Before that it sees through what came back after its round was closed, for which no other task is left; it defers
    while such a shard waits.
    """

    def __init__(self, *, job: Job, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job

    def execute(self, context: Any, event: Any = None) -> dict[str, Any]:
        """Settle the run; fails when anything failed, is pending, or does not add up."""
        if context["params"].get("dry_run"):
            self._end_dry_run(context)
        run = context["ti"].xcom_pull(task_ids="prepare", key=RUN_KEY)
        from nightbatch import flow

        with airflow_failures():
            ports = task_ports(self.job)
            if run is None:
                flow.fail_unplanned(ports, self.job, window_of(context), link=run_link(context, ports))
            job = flow.sealed_job(ports, run)
            others = _others_under_way(context["ti"])
            waiting = _wait_for(ports, others) if others > 0 else flow.advance_late(ports, job, run)
            if waiting is not None:
                self.log.info("settle: %s [job=%s run=%s]", waiting.reason, job.name, run)
                trigger = trigger_for(waiting, ports, about=f"job={job.name} run={run} late rows")
                self.defer(trigger=trigger, method_name="execute")
            books = flow.finish(ports, job, run, link=run_link(context, ports))
        self._check_tasks(context, run)
        counts = books.as_json()
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = counts
        return counts

    def _end_dry_run(self, context: Any) -> NoReturn:
        if context["ti"].xcom_pull(task_ids="prepare", key=DRY_RUN_KEY) is None:
            raise AirflowFailException(
                "dry run: it could not plan, and nothing was sent. The log of `prepare` says why."
            )
        raise AirflowSkipException("dry run: nothing was sent, so there is nothing to settle")

    def _check_tasks(self, context: Any, run: str) -> None:
        """Fail where a task did, though its work is done by now: a red square and a green run would not go together."""
        ti = context["ti"]
        # Not "upstream_failed": that is also what becomes of a round that a cleared run no longer has.
        red = ti.get_ti_count(dag_id=ti.dag_id, run_ids=[ti.run_id], states=["failed"])
        if red:
            raise AirflowFailException(
                f"run {run} is complete in the ledger, but {red} of its tasks failed. Read their logs, mend what they "
                "name, and clear them with downstream; nothing is paid twice."
            )


class InvalidJobOperator(BaseOperator):
    """Stands in the Dag of a job file that cannot be used; fails with all that is wrong with it."""

    def __init__(self, *, problem: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.problem = problem

    def execute(self, context: Any) -> None:
        """Say what is wrong."""
        raise AirflowFailException(self.problem)
