"""
Nights on a real Airflow: backfills, kills, alerts, failures, and a command line that joins in.

One installation serves all of them, and each job has a vendor, a table and a Dag of its own. Runs that wait for long
at their vendors are started first: they wait while the other tests work, and are looked at later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from nightbatch.core.window import Window
from nightbatch.demo.installation import install
from nightbatch.demo.services.stack import Stack
from nightbatch.demo.services.waiting import monotonic_s, wait_until
from tests.e2e.stand import ANSWER_COLUMNS, DAYS, LONG_S, Stand, job, write_dags
from tests.receivers import Otlp, Statsd, attributes, otlp_receiver, statsd_receiver

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

FORTY = 40
OTHER_STARTS_WITHIN_S = 10.0
FAULTS = {"transient": 0.02, "truncated": 0.02, "permanent": 0.01, "shuffle": 1}
"""Faults that one more round mends, but for the permanent one; `off_schema` adds a hint, so asks another question."""


PAST = f"{DAYS[1]:%Y}"
"""How the windows of the backfill begin."""


def one_shard_in(parts: int) -> dict[str, Any]:
    """Let a night's window, 756 rows, be so many shards."""
    return {"shard": {"max_rows": -(-780 // parts)}}


JOBS = [
    job("wide", shard={"max_rows": 10}, rounds=0),
    job("past", schedule="0 0 * * *", deadline={"after": "8h"}, warn_before="1h", rounds=1)
    | {"notify": {"mail": ["night@example.com"], "slack_connection": "slack_alerts", "on": ["at_risk", "late"]}},
    job("calm", **one_shard_in(3)),
    job("rough", **one_shard_in(3)),
    job("late", **one_shard_in(2), rounds=0),
    job("revoked", **one_shard_in(2), rounds=0),
    job("halved", **one_shard_in(2)),
    job("joined", **one_shard_in(2), rounds=0),
]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Everything, started once; prints how long that took."""
    folder = tmp_path_factory.mktemp("nights")
    dags = write_dags(folder / "dags", JOBS)
    began = monotonic_s()
    with statsd_receiver() as statsd, otlp_receiver() as otlp, Stack(folder / "data") as stack:
        extra = monitored(statsd, otlp)
        installed = install(stack, is_real=False, faults={}, dags_folder=dags, extra=extra)
        stand = Stand(stack, installed, statsd=statsd, otlp=otlp)
        stand.make_table()
        for name in ("another", *(each["name"] for each in JOBS)):
            stand.api.wait_for_dag(name)
        stand.api.unpause("another")
        print(f"\ninstallation: {monotonic_s() - began:.1f} s")
        assert stand.api.import_errors() == []
        yield stand


def monitored(statsd: Statsd, otlp: Otlp) -> dict[str, str]:
    """Set Airflow up to tell these receivers: figures by StatsD, as most do, and spans by OpenTelemetry."""
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "nightbatch",
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
    }


@dataclass(frozen=True)
class LongNights:
    """Airflow's ids of the runs that were started first, and what they wait for."""

    late: str
    calm: str
    wide: str


@pytest.fixture(scope="module", autouse=True)
def long_nights(stand: Stand) -> LongNights:
    """Start what takes long: a shard that misses its deadline, a calm night, and forty shards at a slow vendor."""
    stand.vendor("late", late_match="r0-s001", late_seconds=100)
    stand.vendor("calm", **FAULTS)
    stand.vendor("wide", batch_seconds=130)
    deadline = datetime.now(UTC) + timedelta(seconds=75)
    return LongNights(
        late=stand.start("late", deadline=deadline.isoformat()),
        calm=stand.start("calm"),
        wide=stand.start("wide", limit=10 * FORTY),
    )


def test_forty_waiting_shards_hold_no_worker(stand: Stand, long_nights: LongNights) -> None:
    """Eight worker slots, forty shards at the vendor: another Dag's task starts at once."""
    waited = stand.until_waiting("wide", long_nights.wide, "round_0.batch", FORTY)
    assert stand.installation.airflow.settings.parallelism == 8

    began = datetime.now(UTC)
    run = stand.api.trigger("another")["dag_run_id"]

    assert stand.end("another", run) == "success"
    [hello] = stand.api.task_instances("another", run)
    seconds = (datetime.fromisoformat(hello["start_date"]) - began).total_seconds()
    statuses = [batch["status"] for batch in stand.vendors["wide"].state()["batches"]]
    assert statuses == ["in_progress"] * FORTY, "the shards did not wait all the while"
    print(f"\n{FORTY} shards were at the vendor after {waited:.1f} s; another Dag's task began after {seconds:.2f} s")
    assert seconds < OTHER_STARTS_WITHIN_S


@pytest.fixture(scope="module")
def backfill(stand: Stand) -> float:
    """Three past days, by the call that the button of the UI makes; gives the seconds until all have ended."""
    stand.vendor("past", **FAULTS | {"permanent": 0})
    began = monotonic_s()
    stand.api.create_backfill("past", from_date=DAYS[1], to_date=DAYS[3], max_active_runs=3)
    assert backfilled(stand, 3) == ["success"] * 3
    return monotonic_s() - began


def test_a_backfill_loads_exactly_the_rows_of_its_days(stand: Stand, backfill: float) -> None:
    """Each row under its own day, after a round in which some were sent again; nobody hears of old deadlines."""
    found = stand.rows("select nb_window_start, sentence_id from past order by 1, 2")

    assert found == [(day, key) for day in DAYS[1:4] for key in stand.keys(Window(day, day + timedelta(days=1)))]
    assert stand.loaded("past") == stand.keys(Window(DAYS[1], DAYS[4]))
    assert stand.vendors["past"].batch_ids() == stand.known_batches("past")
    assert stand.rows("select max(nb_round) from past") == [(1,)], "no row was sent again, so this proves less"
    # From 07:00 to 08:00 UTC last night's run, which unpausing starts, is at risk, and people hear of that one.
    assert stand.told("past", day=PAST) == ([], [])
    print(f"\n{len(found):,} rows of three days in {backfill:.1f} s")


def backfilled(stand: Stand, count: int) -> list[str]:
    """Wait until the backfill's runs have ended; give their states."""

    def ended() -> list[str]:
        runs = [run for run in stand.api.dag_runs("past") if run["run_type"] == "backfill"]
        states = [str(run["state"]) for run in runs]
        return states if len(states) == count and set(states) <= {"success", "failed"} else []

    return wait_until(ended, what=f"{count} runs of the backfill", timeout_s=LONG_S, every_s=0.5)


def settled_tries(stand: Stand) -> int:
    """Tell how often the backfill's runs have been settled, all of them."""
    tries = [
        task["try_number"]
        for run in stand.api.dag_runs("past")
        if run["run_type"] == "backfill"
        for task in stand.api.task_instances("past", run["dag_run_id"])
        if task["task_id"] == "settle" and task["state"] in ("success", "failed")
    ]
    return min(tries) if len(tries) == 3 else 0


def active_backfill(stand: Stand) -> bool:
    """Tell whether Airflow still counts a backfill as running."""
    return any(each["completed_at"] is None for each in stand.api.pages("/backfills", "backfills", dag_id="past"))


def test_a_revoked_key_is_told_once_and_the_run_goes_on_when_it_works_again(stand: Stand) -> None:
    """Red, with every row pending; cleared after the key works again, it loads all rows and pays for each once."""
    vendor = stand.vendor("revoked", http_401=1_000_000, on="create_batch")
    began = monotonic_s()
    run = stand.start("revoked")

    assert stand.end("revoked", run) == "failed"
    failed_after = monotonic_s() - began
    rows = len(stand.keys())
    mails, texts = stand.told("revoked")
    assert mails == texts
    [told] = mails
    assert told.startswith("Account cannot be used: openai takes nothing through the connection ")
    assert stand.ledger("select sum(rows) from nb_pending where job = 'revoked'") == [(rows,)]
    assert stand.loaded("revoked") == []
    assert vendor.batch_ids() == []

    # Every task but settle is green by now, and still nothing is loaded.
    assert stand.clear("revoked", run, only_failed=True) == "failed"

    vendor.change_faults(http_401=0)
    assert stand.clear("revoked", run) == "success"
    assert stand.loaded("revoked") == stand.keys()
    found = vendor.state()["rows"]
    assert (found["billed"], found["billed_twice"]) == (rows, 0)
    assert vendor.batch_ids() == stand.known_batches("revoked")
    mails, texts = stand.told("revoked")
    assert mails == texts
    assert [mail.partition(":")[0] for mail in mails] == ["Account cannot be used", "It is over"]
    print(f"\nfailed after {failed_after:.1f} s, complete after {monotonic_s() - began:.1f} s")


def test_reprocessing_a_backfill_pays_nothing(stand: Stand, backfill: float) -> None:
    """The same days again, with all that they did before: same batches, same rows, same cost."""
    vendor = stand.vendors["past"]

    def paid() -> tuple[Any, ...]:
        state = vendor.state()
        return vendor.batch_ids(), state["creations"], state["rows"], stand.cost("past"), stand.sink_hash("past", "*")

    before = paid()
    wait_until(lambda: not active_backfill(stand), what="the first backfill to be closed", timeout_s=LONG_S)
    began = monotonic_s()
    stand.api.create_backfill("past", from_date=DAYS[1], to_date=DAYS[3], max_active_runs=3, reprocess="completed")
    wait_until(lambda: settled_tries(stand) == 2, what="the runs to be settled again", timeout_s=LONG_S, every_s=0.5)

    assert backfilled(stand, 3) == ["success"] * 3
    assert paid() == before
    assert stand.told("past", day=PAST) == ([], [])
    print(f"\nreprocessed in {monotonic_s() - began:.1f} s; the first time took {backfill:.1f} s")


def test_clearing_only_what_failed_loads_the_late_shard_with_all_its_rounds(stand: Stand) -> None:
    """A shard's task fails while its batch goes on. Its `retry` is green, so settle sends its bad rows again."""
    vendor = stand.vendor("halved", transient=0.05, late_match="r0-s001", late_seconds=20)
    began = monotonic_s()
    run = stand.start("halved")
    stand.until_shards("halved", loaded=1, open=1)
    vendor.change_faults(http_401=1_000_000, on="retrieve_batch")
    wait_until(lambda: "failed" in batch_states(stand, run), what="a shard's task to fail", timeout_s=LONG_S)
    vendor.change_faults(http_401=0)
    assert stand.end("halved", run) == "failed"
    missing = unloaded(stand)
    assert len(missing) > 300

    state, left = stand.clear("halved", run, only_failed=True), unloaded(stand)

    # The failed shard is loaded with all its rounds. Only what the other one had to send again while the account was
    # in trouble was set aside then, and is pending.
    assert state == "failed"
    assert 0 < len(left) < 100
    assert stand.clear("halved", run) == "success"
    assert stand.loaded("halved") == stand.keys()
    assert vendor.state()["rows"]["good_twice"] == 0
    assert vendor.batch_ids() == stand.known_batches("halved")
    print(f"\n{len(missing)} rows were missing, then {len(left)}, then none; {monotonic_s() - began:.1f} s in all")


def unloaded(stand: Stand) -> set[str]:
    """List the keys that the job's window has and its sink has not."""
    return set(stand.keys()) - set(stand.loaded("halved"))


def batch_states(stand: Stand, run: str) -> list[str]:
    """Give the states of round 0's shards."""
    return [str(each["state"]) for each in stand.api.mapped_instances("halved", run, "round_0.batch")]


def test_the_command_line_and_a_manual_run_of_one_window_are_one_run(stand: Stand) -> None:
    """The command joins the run while its batches are open, and both come to the same end."""
    vendor = stand.vendor("joined", batch_seconds=10)
    began = monotonic_s()
    run = stand.start("joined")
    stand.until_shards("joined", open=2)

    joining = stand.command_line("joined")
    joined, _ = joining.communicate(timeout=LONG_S)
    assert joining.returncode == 0, joined
    assert stand.end("joined", run) == "success"
    again = stand.command_line("joined")
    later, _ = again.communicate(timeout=LONG_S)
    assert again.returncode == 0, later

    books = [json.loads(text) for text in (joined, later)]
    assert {each["run"] for each in books} == {"joined/20250310T000000Z-20250311T000000Z/g1"}
    assert {each["batches"] for each in books} == {2}
    assert {each["merged"] for each in books} == {len(stand.keys())}
    assert len(vendor.batch_ids()) == 2
    assert vendor.batch_ids() == stand.known_batches("joined")
    assert stand.loaded("joined") == stand.keys()
    assert vendor.state()["rows"]["billed_twice"] == 0
    print(f"\none run, two runners: {monotonic_s() - began:.1f} s")


def test_a_missed_deadline_is_told_once_with_its_batch_and_a_link(stand: Stand, long_nights: LongNights) -> None:
    """One mail and one message in Slack about the shard that is late, and one of each when it is over."""
    wait_until(lambda: all(stand.told("late")), what="people to be told", timeout_s=LONG_S)
    assert stand.end("late", long_nights.late) == "success"

    mails, texts = stand.told("late")
    assert mails == texts
    told, over = mails
    assert re.fullmatch(r"Deadline \(SLA\) missed: late: \d+ s late", told)
    assert over == "It is over: late: the answers are there"
    [mail] = [mail for mail in stand.installation.mail.mails() if mail.subject == mails[0]]
    [message] = [found for found in stand.installation.slack.messages() if found.text == texts[0]]
    [late] = [batch["id"] for batch in stand.vendors["late"].state()["batches"] if batch["late_seconds"]]
    for text in (mail.text, json.dumps(message.payload)):
        assert f"r0-s001 = {late} at openai (in_progress)" in text
        assert_leads_to(stand, long_nights.late, text)
    assert stand.loaded("late") == stand.keys()


def assert_leads_to(stand: Stand, run_id: str, text: str) -> None:
    """Follow the link in a message: the UI serves it, and the API knows the run that it names."""
    [link] = set(re.findall(r"http://127\.0\.0\.1:\d+/dags/[\w%.+:-]+/runs/[\w%.+:-]+", text))
    page = httpx.get(link, trust_env=False, follow_redirects=True)
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    address = link.replace("/dags/", "/api/v2/dags/").replace("/runs/", "/dagRuns/")
    path = address.removeprefix(f"{stand.api.address}/api/v2")
    assert stand.api.get(path)["dag_run_id"] == run_id


def test_forty_shards_that_waited_are_all_loaded(stand: Stand, long_nights: LongNights) -> None:
    """Forty batches, four hundred rows, one answer each."""
    assert stand.end("wide", long_nights.wide) == "success"

    found = stand.vendors["wide"].state()
    assert len(found["batches"]) == FORTY
    assert found["rows"]["billed_twice"] == 0
    assert stand.loaded("wide") == stand.keys()[: 10 * FORTY]
    assert stand.known_batches("wide") == stand.vendors["wide"].batch_ids()
    told = counted(stand, "wide")
    assert (told["batches"], told["rows_loaded"], told["runs"]) == (FORTY, 10 * FORTY, 1)
    assert told["cost_usd"] == pytest.approx(float(stand.cost("wide")))


def test_the_triggerer_tells_how_old_batches_are_and_tasks_tell_each_as_a_span(
    stand: Stand, long_nights: LongNights
) -> None:
    """Real processes: forked tasks that flush when they end, and a triggerer whose stats are set up elsewhere."""
    assert stand.end("wide", long_nights.wide) == "success"

    def told() -> list[dict[str, Any]]:
        found = [attributes(span) for span in stand.otlp.spans if span.name == "chat gpt-5-mini"]
        return [one for one in found if one["nightbatch.job"] == "wide"]

    wait_until(lambda: len(told()) == FORTY, what="a span for each batch", timeout_s=60)
    assert sorted(one["nightbatch.batch.id"] for one in told()) == stand.vendors["wide"].batch_ids()
    spans = {span.span_id: span for span in stand.otlp.spans}
    validated = {spans[span.parent_span_id].name for span in spans.values() if span.name == "chat gpt-5-mini"}
    assert validated == {"nightbatch.validate"}
    ages = [float(line.split(":")[1].split("|")[0]) for line in stand.statsd.lines if is_age(line, "wide")]
    # The task that waits looks once itself; all later looks are the triggerer's.
    assert max(ages) > 60
    assert ages[-1] == 0


def is_age(line: str, job: str) -> bool:
    """Say whether a line of StatsD tells the age of a job's oldest batch."""
    return line.startswith("airflow.nightbatch.batch_age,") and f"job_name={job}," in line


def counted(stand: Stand, job: str) -> dict[str, float]:
    """Add up what StatsD was told of a job, by name alone."""
    sums: dict[str, float] = {}
    for (name, labels), value in stand.statsd.counters().items():
        if ("job_name", job) in labels:
            short = name.removeprefix("airflow.nightbatch.")
            sums[short] = sums.get(short, 0) + value
    return sums


def test_killing_triggerer_and_scheduler_while_shards_wait_changes_nothing(
    stand: Stand, long_nights: LongNights
) -> None:
    """Two jobs ask the same of two equal vendors with equal faults; one night is calm, the other is not."""
    assert stand.end("calm", long_nights.calm) == "success"
    calm, began = stand.vendors["calm"], monotonic_s()
    rough = stand.vendor("rough", late_match="r0-", late_seconds=20, **FAULTS)
    run = stand.start("rough")
    stand.until_shards("rough", open=3)
    stand.until_waiting("rough", run, "round_0.batch", 3)
    waiting = rough.batch_ids()
    for part in ("triggerer", "scheduler"):
        stand.installation.airflow.kill_component(part)
    assert {batch["status"] for batch in rough.state()["batches"]} == {"in_progress"}
    for part in ("triggerer", "scheduler"):
        stand.installation.airflow.start_component(part)
    assert stand.end("rough", run) == "success"

    assert set(waiting) < set(rough.batch_ids())
    assert len(rough.batch_ids()) == len(calm.batch_ids())
    assert rough.batch_ids() == stand.known_batches("rough")
    assert stand.sink_hash("rough") == stand.sink_hash("calm")
    assert stand.loaded("rough")
    assert stand.buried("rough") == stand.buried("calm")
    assert stand.cost("rough") == stand.cost("calm") > 0
    assert counted(stand, "rough") == pytest.approx(counted(stand, "calm"))
    assert rough.work() == calm.work()
    print(f"\na night with two kills: {monotonic_s() - began:.1f} s; compared: {ANSWER_COLUMNS}")
