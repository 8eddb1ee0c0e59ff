"""Deadlines (SLA): who is told, when, of what, and who is left alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
import pytest
from airflow.models import DagRun
from airflow.models.deadline import Deadline
from airflow.sdk import DAG
from airflow.triggers.callback import CallbackTrigger
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import select

from nightbatch import flow
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.core.window import Window
from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.slack import SlackSink
from nightbatch.orchestration.connections import airflow_connection
from nightbatch.orchestration.dag import build_dag
from nightbatch.orchestration.deadlines import JobDeadline, alerts, tell_deadline
from tests.orchestration.night import Night, known, new_run

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = (TODAY - timedelta(days=1), TODAY)
"""The interval of last night's run; a deadline two days after its end is to come."""
NOTIFY = {"mail": ["team@example.com"], "slack_connection": "slack_alerts", "on": ["at_risk", "late", "failed"]}
WITH_DEADLINE: dict[str, Any] = {"deadline": {"after": "2d"}, "warn_before": "90m", "notify": NOTIFY}


def deadlines(dag: DAG, run_id: str) -> dict[str, datetime]:
    """Give what Airflow noted for a run: name of the alert -> when it fires."""
    with create_session() as session:
        here = (DagRun.dag_id == dag.dag_id, DagRun.run_id == run_id)
        found = session.scalars(select(Deadline).join(DagRun, Deadline.dagrun_id == DagRun.id).where(*here)).all()
        return {deadline.deadline_alert.name: deadline.deadline_time for deadline in found}


@pytest.fixture
def job_dag(night: Night) -> Callable[..., DAG]:
    """Makes the Dag of a job that has a deadline, as it is shipped."""

    def make(**changes: Any) -> DAG:
        return known(build_dag(night.job(**{**WITH_DEADLINE, **changes})))

    return make


# --- when -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", [JobDeadline(), JobDeadline(after_s=3600.0), JobDeadline(at="07:00:00", timezone="Europe/Berlin")]
)
def test_a_deadline_survives_being_written_down(reference: JobDeadline) -> None:
    written = json.loads(json.dumps(reference.serialize_reference()))

    assert JobDeadline.deserialize_reference(written) == reference


def test_a_scheduled_run_is_watched_at_its_deadline_and_before(job_dag: Callable[..., DAG]) -> None:
    dag = job_dag()

    run = new_run(dag, DagRunType.SCHEDULED, YESTERDAY)

    due = TODAY + timedelta(days=2)
    assert deadlines(dag, run) == {"night late": due, "night at_risk": due - timedelta(minutes=90)}


def test_a_time_of_day_is_the_next_one_after_the_window_in_the_jobs_zone() -> None:
    end = datetime(2026, 11, 21, tzinfo=UTC)

    assert JobDeadline(at="07:00:00", timezone="Europe/Berlin").due({}, end) == datetime(2026, 11, 21, 6, tzinfo=UTC)


def test_airflows_own_kind_of_time_keeps_its_zone() -> None:
    """The scheduler hands over pendulum's times, and would stop at one without a zone."""
    end = pendulum.datetime(2026, 11, 21, tz="Europe/Berlin")

    assert JobDeadline(after_s=3600.0).due({}, end) == datetime(2026, 11, 21, tzinfo=UTC)


def test_a_backfill_pages_nobody(job_dag: Callable[..., DAG]) -> None:
    dag = job_dag()

    assert deadlines(dag, new_run(dag, DagRunType.BACKFILL_JOB, YESTERDAY)) == {}


def test_a_window_that_is_late_already_pages_nobody(job_dag: Callable[..., DAG]) -> None:
    dag = job_dag()
    old = (TODAY - timedelta(days=9), TODAY - timedelta(days=8))

    assert deadlines(dag, new_run(dag, DagRunType.SCHEDULED, old)) == {}
    assert deadlines(dag, new_run(dag, DagRunType.MANUAL, None, _form(*old))) == {}


def test_the_deadline_of_the_trigger_form_wins(job_dag: Callable[..., DAG]) -> None:
    dag = job_dag()
    own = TODAY + timedelta(days=5)

    run = new_run(dag, DagRunType.MANUAL, YESTERDAY, {"deadline": own.isoformat()})

    assert deadlines(dag, run) == {"night late": own, "night at_risk": own - timedelta(minutes=90)}


def test_a_job_without_a_deadline_can_be_given_one_for_a_run(job_dag: Callable[..., DAG]) -> None:
    dag = job_dag(deadline=None, warn_before=0)
    own = TODAY + timedelta(days=5)

    assert deadlines(dag, new_run(dag, DagRunType.SCHEDULED, YESTERDAY)) == {}
    run = new_run(dag, DagRunType.MANUAL, None, {"deadline": own.isoformat()})
    assert deadlines(dag, run) == {"night late": own}


def test_the_window_of_the_trigger_form_counts_and_not_the_runs_interval(job_dag: Callable[..., DAG]) -> None:
    dag = job_dag()

    run = new_run(dag, DagRunType.MANUAL, None, _form(*YESTERDAY))

    assert deadlines(dag, run)["night late"] == TODAY + timedelta(days=2)


@pytest.mark.parametrize("conf", [{"deadline": "soon"}, {"window_end": "9999-12-31T23:59:59Z"}])
def test_a_deadline_that_cannot_be_read_stops_no_run_from_being_made(
    job_dag: Callable[..., DAG], conf: dict[str, Any]
) -> None:
    dag = job_dag()

    assert deadlines(dag, new_run(dag, DagRunType.MANUAL, None, conf)) == {}


def test_only_what_a_job_asks_to_be_told_is_watched(night: Night) -> None:
    watched = {
        on: [alert.name for alert in alerts(night.job(**{**WITH_DEADLINE, "notify": {**NOTIFY, "on": on.split()}}))]
        for on in ("late", "at_risk", "failed report", "at_risk late")
    }

    assert watched == {
        "late": ["night late"],
        "at_risk": ["night at_risk"],
        "failed report": [],
        "at_risk late": ["night late", "night at_risk"],
    }


# --- what -----------------------------------------------------------------------------------------------------


def _form(start: datetime, end: datetime) -> dict[str, str]:
    return {"window_start": start.isoformat(), "window_end": end.isoformat()}


def missed(dag: DAG, run_id: str, name: str = "night late") -> CallbackTrigger:
    """Let a deadline of a run be missed, and give what the triggerer then runs."""
    with create_session() as session:
        here = (DagRun.dag_id == dag.dag_id, DagRun.run_id == run_id)
        found = session.scalars(select(Deadline).join(DagRun, Deadline.dagrun_id == DagRun.id).where(*here)).all()
        (deadline,) = [each for each in found if each.deadline_alert.name == name]
        deadline.handle_miss(session)
        row = deadline.callback.trigger
        return CallbackTrigger(**row.kwargs)


def run_in_triggerer(trigger: CallbackTrigger) -> list[str]:
    """Run a callback as the triggerer does; gives the states it goes through."""

    async def states() -> list[str]:
        return [str(event.payload["state"]) async for event in trigger.run()]

    return asyncio.run(states())


def tell(night: Night, *, kind: str, moment: datetime, window: tuple[datetime, datetime], **changes: Any) -> None:
    """Call what a missed deadline calls, for a moment of our choice."""
    start, end = (each.isoformat() for each in window)
    run = {
        "dag_id": "night",
        "dag_run_id": "manual__1 of tests",
        "data_interval_start": start,
        "data_interval_end": end,
    }
    context = {"dag_run": {**run, "conf": {}}, "deadline": {"id": "1", "deadline_time": moment}}
    job = night.job(**{**WITH_DEADLINE, **changes})
    asyncio.run(tell_deadline(job=job.to_json(), kind=kind, context=context))


def test_a_missed_deadline_is_told_once_by_mail_and_once_by_slack_through_airflows_own_path(
    night: Night, job_dag: Callable[..., DAG], mail_sink: MailSink, slack_sink: SlackSink
) -> None:
    """From the row that the scheduler finds, through its context, to the callback in the triggerer."""
    dag = job_dag()
    run = new_run(dag, DagRunType.SCHEDULED, YESTERDAY)

    assert run_in_triggerer(missed(dag, run)) == ["running", "success"]

    (mail,), (slack,) = mail_sink.mails(), slack_sink.messages()
    assert mail.recipients == ["team@example.com"]
    for said in (mail.text, json.dumps(slack.payload, ensure_ascii=False)):
        assert "Deadline (SLA) missed: night: " in said
        assert str(Window(*YESTERDAY)) in said
        assert "http://airflow.test:8080/dags/night/runs/scheduled__" in said


def test_it_says_how_late_which_batches_and_what_happens_next(
    night: Night, mail_sink: MailSink, slack_sink: SlackSink
) -> None:
    start = YESTERDAY[0]
    night.fill([(f"k{n}", f"text {n}", f"{start:%Y-%m-%d}") for n in range(4)])
    night.faults(stuck="in_progress")
    batches = _leave_open(night)

    tell(night, kind="late", moment=datetime.now(UTC) - timedelta(minutes=42), window=YESTERDAY)

    assert len(batches) == 2
    (mail,), (slack,) = mail_sink.mails(), slack_sink.messages()
    for said in (mail.text, json.dumps(slack.payload, ensure_ascii=False)):
        assert "42 min ago" in said
        assert all(batch in said for batch in batches)
        assert "4 of 4 rows have no answer yet" in said
        assert "Nothing is sent twice" in said
        assert "/dags/night/runs/manual__1%20of%20tests" in said
    assert "text 1" not in mail.text


def test_a_second_call_for_the_same_miss_tells_nobody(night: Night, mail_sink: MailSink, slack_sink: SlackSink) -> None:
    now = datetime.now(UTC)

    for minutes in (1, 5):
        tell(night, kind="late", moment=now - timedelta(minutes=minutes), window=YESTERDAY)

    assert (len(mail_sink.mails()), len(slack_sink.messages())) == (1, 1)


def test_at_risk_names_the_deadline_and_how_much_time_is_left(
    night: Night, mail_sink: MailSink, slack_sink: SlackSink
) -> None:
    tell(night, kind="at_risk", moment=datetime.now(UTC), window=YESTERDAY)
    tell(night, kind="late", moment=datetime.now(UTC), window=YESTERDAY)

    at_risk, late = mail_sink.mails()
    assert "at risk" in at_risk.subject
    assert "In 90 min" in at_risk.text
    assert "missed" in late.subject
    assert len(slack_sink.messages()) == 2


def test_a_run_that_never_began_is_told_too(night: Night, mail_sink: MailSink, slack_sink: SlackSink) -> None:
    tell(night, kind="late", moment=datetime.now(UTC), window=YESTERDAY)

    assert night.runs() == []
    (mail,) = mail_sink.mails()
    assert "no plan yet" in mail.text
    assert len(slack_sink.messages()) == 1


def test_a_run_that_is_complete_pages_nobody(night: Night, mail_sink: MailSink, slack_sink: SlackSink) -> None:
    night.fill([("k0", "text", f"{YESTERDAY[0]:%Y-%m-%d}")])
    assert night.backfill(night.dag(), *YESTERDAY).state == "success"

    tell(night, kind="late", moment=datetime.now(UTC), window=YESTERDAY)

    assert (mail_sink.mails(), slack_sink.messages()) == ([], [])


def test_an_incomplete_run_is_late_too(night: Night, mail_sink: MailSink) -> None:
    night.fill([("k0", "text", f"{YESTERDAY[0]:%Y-%m-%d}")])
    night.faults(expired=1, fault_attempts=0)
    assert night.backfill(night.dag(), *YESTERDAY).state == "failed"
    assert mail_sink.mails() == []

    tell(night, kind="late", moment=datetime.now(UTC), window=YESTERDAY)

    assert len(mail_sink.mails()) == 1


def test_a_channel_that_is_down_keeps_the_other_one_from_nothing(
    night: Night, slack_sink: SlackSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": 9,
        "extra": {"from_email": "a@b.c", "disable_ssl": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(nobody))

    tell(night, kind="late", moment=datetime.now(UTC), window=YESTERDAY)

    assert len(slack_sink.messages()) == 1


def test_a_run_that_fails_is_told_with_a_link_to_it(night: Night, mail_sink: MailSink, slack_sink: SlackSink) -> None:
    ended = night.backfill(night.dag(notify=NOTIFY), *YESTERDAY)

    assert ended.state == "failed"
    (mail,) = mail_sink.mails()
    assert "Run failed: night" in mail.subject
    assert "http://airflow.test:8080/dags/night/runs/backfill__" in mail.text
    assert len(slack_sink.messages()) == 1


def test_an_old_deadline_of_a_backfill_is_not_told_by_its_tasks_either(
    night: Night, mail_sink: MailSink, slack_sink: SlackSink
) -> None:
    start, end = TODAY - timedelta(days=9), TODAY - timedelta(days=8)
    night.fill([("k0", "text", f"{start:%Y-%m-%d}")])

    assert night.backfill(night.dag(**WITH_DEADLINE), start, end).state == "success"

    assert (mail_sink.mails(), slack_sink.messages()) == ([], [])


def _leave_open(night: Night) -> list[str]:
    """Begin a run whose batches do not end; gives their ids."""
    job = night.job()
    ports = open_ports(job, settings_from(night.env), airflow_connection)
    plan = flow.prepare(ports, job, Window(*YESTERDAY))
    for shard in plan.shards:
        flow.advance(ports, job, shard.ref)
    return [batch["id"] for batch in night.batches()]
