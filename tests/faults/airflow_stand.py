"""What cells on a running Airflow share: moments to strike at, processes to kill, and what must be true at the end."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil

from nightbatch.demo.services.airflow_api import FINISHED, AirflowRefused
from nightbatch.demo.services.family import kill, runs
from nightbatch.demo.services.waiting import wait_until
from tests.e2e.stand import WINDOW, Stand, Vendor
from tests.faults.conftest import Cell

LONG_S = 900.0
"""How long anything may take here that takes a minute on two quiet cores."""

SHARDS = 3
FAULTS = {"transient": 0.02, "truncated": 0.02, "permanent": 0.01, "shuffle": 1}
"""What every night has to mend in its second round, but for the permanent ones, which become dead letters."""

IN_CREATE = {"create_timeout_after_success": 1, "hang_seconds": 60}
"""The vendor makes a batch and does not answer: whoever asked is held in the middle of paying."""
DRIP = {"slow_drip": 1, "drip_bytes": 64, "drip_seconds": 0.5, "on": "download"}
"""The next result file takes half an hour."""

TWIN = "calm"
"""The job whose night nothing disturbs."""

EVENT = re.compile(r"Event (\S+)\. A message with the same event is a repeat")


@dataclass(frozen=True)
class Night:
    """One night of one job: its own Dag, vendor, table and run."""

    stand: Stand
    job: str
    run: str

    @classmethod
    def begin(cls, stand: Stand, job: str, *, batch_seconds: float = 10.0, **faults: Any) -> Night:
        """Start a job's vendor and its run."""
        stand.vendor(job, batch_seconds=batch_seconds, **FAULTS, **faults)
        return cls(stand, job, stand.start(job))

    @property
    def vendor(self) -> Vendor:
        """The emulated vendor of this job alone."""
        return self.stand.vendors[self.job]

    def end(self) -> str:
        """Wait for the end of the run; gives its state."""
        return self.stand.end(self.job, self.run, timeout_s=LONG_S)

    def state_if_told(self) -> str:
        """Give the run's state once it has ended; empty before, and where Airflow cannot read its database."""
        try:
            state = str(self.stand.api.dag_run(self.job, self.run)["state"])
        except AirflowRefused as refused:
            if refused.status < 500:
                raise
            return ""
        return state if state in FINISHED else ""

    def tasks(self, task_id: str = "round_0.batch") -> list[dict[str, Any]]:
        """List the instances of a mapped task."""
        return self.stand.api.mapped_instances(self.job, self.run, task_id)

    def until_in_create(self) -> psutil.Process:
        """Wait until a task waits for the reply to its create call, whose batch exists; gives the task's process."""

        def found() -> psutil.Process | None:
            if len(self.vendor.batch_ids()) < SHARDS or len(self.stand.known_batches(self.job)) != SHARDS - 1:
                return None
            return self._process_of(self._sending())

        return wait_until(found, what=f"a create call of {self.job} in flight", timeout_s=LONG_S, every_s=1.0)

    def until_downloading(self) -> psutil.Process:
        """Wait until one task alone still reads its results, which drip; gives the task's process."""

        def found() -> psutil.Process | None:
            if self.stand.shards(self.job).get("loaded", 0) < SHARDS - 1:
                return None
            return self._process_of([task["map_index"] for task in self.tasks() if task["state"] == "running"])

        return wait_until(found, what=f"a download of {self.job} under way", timeout_s=LONG_S, every_s=1.0)

    def until_waiting(self) -> None:
        """Wait until all shards are at the vendor, and no task holds a worker."""
        self.stand.until_waiting(self.job, self.run, "round_0.batch", SHARDS, timeout_s=LONG_S)

    def _sending(self) -> list[int]:
        query = "select shard from nb_attempts a join nb_runs r using (run) where r.job = %s and a.state = 'sending'"
        return [shard for (shard,) in self.stand.ledger(query, self.job)]

    def _process_of(self, indexes: list[int]) -> psutil.Process | None:
        """Give the process of the one task in question; None while there is none, or more than one."""
        pids = [task["pid"] for task in self.tasks() if task["map_index"] in indexes and task["state"] == "running"]
        if len(pids) != 1 or pids[0] is None:
            return None
        try:
            return psutil.Process(pids[0])
        except psutil.NoSuchProcess:
            return None


def worker_of(task: psutil.Process) -> psutil.Process:
    """
    Give the worker that a task runs under.

    A worker of the LocalExecutor is a child of the scheduler that takes a task, forks the process in which our code
    runs, and sends that task's heartbeats: what with Celery is a process of the worker's pool.
    """
    worker = task.parent()
    assert worker is not None
    assert "LocalExecutor" in " ".join(worker.cmdline())
    return worker


def strike(*victims: psutil.Process) -> None:
    """Kill processes with SIGKILL, all of which must be alive, and wait until they are gone."""
    assert all(runs(victim) for victim in victims), "it ended by itself before it could be killed"
    for victim in victims:
        kill(victim)
    wait_until(lambda: not any(map(runs, victims)), what="the killed to be gone", timeout_s=30)


def check(night: Night, cell: Cell) -> None:
    """Look that a night ended as its calm twin did: same rows, batches and bill, closed books, and people told."""
    stand, job, vendor = night.stand, night.job, night.vendor
    state = vendor.state()
    cell.record(
        expected=len(stand.loaded(TWIN)),
        loaded=len(stand.loaded(job)),
        batches=len(state["batches"]),
        billed=sum(batch["billed_rows"] for batch in state["batches"]),
    )
    assert stand.sink_hash(job) == stand.sink_hash(TWIN)
    assert stand.buried(job) == stand.buried(TWIN)
    assert stand.loaded(job)

    shards = sum(stand.shards(job).values())
    assert stand.shards(job) == {"loaded": shards}
    assert len(vendor.batch_ids()) == shards, "one batch a shard"
    assert vendor.batch_ids() == stand.known_batches(job)
    assert vendor.work() == stand.vendors[TWIN].work()
    assert vendor.asked() == stand.vendors[TWIN].asked()
    assert vendor.asked()["good_twice"] == 0

    assert stand.cost(job) == stand.cost(TWIN) > 0
    ended = "select state from nb_runs where job = %s and window_start_utc = %s"
    assert stand.ledger(ended, job, WINDOW.start) == [("complete",)]
    open_money = "select coalesce(sum(usd), 0) from nb_money where job = %s and kind <> 'actual'"
    assert stand.ledger(open_money, job) == [(0,)], "what was reserved and not used is given back"
    assert stand.ledger("select * from nb_pending where job = %s and taken_by_run is null", job) == []
    check_messages(stand, job)


def check_messages(stand: Stand, job: str) -> None:
    """Look that people heard of every event, by mail and in Slack, and of none more than twice."""
    query = "select e.event_id, e.kind from nb_events e join nb_runs r using (run) where r.job = %s"
    events = dict(stand.ledger(query, job))
    assert "report" in events.values()
    mails = Counter(_event(mail.text) for mail in stand.installation.mail.mails())
    texts = Counter(_event(str(message.payload)) for message in stand.installation.slack.messages())
    for event in events:
        assert 1 <= mails[event] <= 2, f"{mails[event]} mails about {event}"
        assert 1 <= texts[event] <= 2, f"{texts[event]} messages about {event}"


def _event(text: str) -> str:
    found = EVENT.search(text)
    return found.group(1) if found else ""
