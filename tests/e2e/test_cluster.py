"""A job on PostgreSQL, Redis, S3 and two Celery workers, one of which dies: the same sink as on one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from nightbatch.demo.installation import install
from nightbatch.demo.services.stack import Stack
from nightbatch.demo.services.waiting import wait_until
from tests.e2e.stand import LONG_S, Stand, job, write_dags

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SHARDS = 21
FAULTS = {"transient": 0.02, "truncated": 0.02, "permanent": 0.01, "shuffle": 1}
SHORTENED = {
    # The dead are missed within half a minute.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "45",
    # So are the tasks that the dead worker had fetched beforehand.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "40",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "NIGHTBATCH_SEND_DEADLINE_S": "60",
    "NIGHTBATCH_REQUEST_TIMEOUT_S": "90",
    "NIGHTBATCH_LISTING_LAG_S": "5",
}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("cluster")
    jobs = [job(name, shard={"max_rows": 36}) for name in ("spread", "alone")]
    for each in jobs:
        # Read by both workers, and on the command line by two processes; cut by a hash, so alike in both.
        each["source"]["parts"] = 2
    dags = write_dags(folder / "dags", jobs)
    with Stack(folder / "data") as stack:
        stand = Stand(stack, install(stack, is_real=False, faults={}, dags_folder=dags, extra=SHORTENED, workers=2))
        stand.make_table()
        for each in jobs:
            stand.api.wait_for_dag(each["name"])
        yield stand


def test_a_worker_that_dies_mid_run_changes_nothing(stand: Stand) -> None:
    lost, other = stand.installation.workers
    vendor = stand.vendor("spread", batch_seconds=15, **FAULTS)
    run = stand.start("spread")
    wait_until(
        lambda: lost.tasks() and other.tasks() and len(vendor.batch_ids()) >= SHARDS // 3,
        what="both workers to be in the middle of it",
        timeout_s=LONG_S,
        every_s=0.1,
    )
    lost.kill()
    sent_before = len(vendor.batch_ids())

    assert stand.end("spread", run) == "success"

    calm = stand.vendor("alone", **FAULTS)
    alone = stand.command_line("alone")
    out, _ = alone.communicate(timeout=LONG_S)
    books = json.loads(out)
    assert (books["state"], sent_before < len(vendor.batch_ids())) == ("complete", True)
    assert stand.sink_hash("spread") == stand.sink_hash("alone")
    assert stand.buried("spread") == stand.buried("alone")
    assert vendor.batch_ids() == stand.known_batches("spread"), "one batch a shard"
    assert (vendor.work(), vendor.asked()) == (calm.work(), calm.asked())
    assert stand.cost("spread") == stand.cost("alone") > 0
    assert len(calm.batch_ids()) > SHARDS, "the second round is tried too"
    for worker in (lost, other):
        left = [
            path.name for path in (stand.stack.folder / worker.name / "home").rglob("*") if ".nightbatch" in str(path)
        ]
        assert left == [], "a worker keeps nothing in its own folder"
