"""`nightbatch status` and `skip`, as a person or a cron types them: windows without a run, and the age of answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nightbatch.demo.services.mail import MailSink
from nightbatch.emulator import EmulatorSettings, running
from tests.servers import mail_sink
from tests.test_cli import GOOD, folder, reach, typed

__all__ = ["folder", "mail_sink"]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SCHEDULED = GOOD.replace("key: id", "key: id, time_column: at") + 'schedule: "0 0 * * *"\n'


def day(days_ago: int) -> str:
    return (TODAY - timedelta(days=days_ago)).date().isoformat()


@pytest.fixture
def jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of job files, with a window of eight days ago to begin with."""
    monkeypatch.setenv("NIGHTBATCH_MISSING_AFTER_S", "0")
    records = [{"id": f"k{ago}", "text": f"text {ago}", "at": f"{day(ago)}T12:00:00+00:00"} for ago in range(1, 9)]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "jobs").mkdir()
    (folder / "jobs" / "tickets.yaml").write_text(SCHEDULED)
    return folder / "jobs"


def status(*words: str) -> list[dict[str, object]]:
    jobs: list[dict[str, object]] = json.loads(typed("status", "--jobs", "jobs", "--json", *words).stdout)["jobs"]
    return jobs


def starts(*words: str) -> list[str]:
    (job,) = status(*words)
    missing = job["missing"]
    assert isinstance(missing, list)
    return [window["start"][:10] for window in missing]


def test_a_cron_that_watches_a_misspelt_job_is_told_so(jobs: Path) -> None:
    ended = typed("status", "ticket", "--jobs", "jobs", "--exit-code")

    assert ended.exit_code == 2
    assert "ticket" in ended.stderr
    assert "no job of this name has a schedule. Correct the name, or --jobs (now jobs)." in ended.stderr


def test_every_window_without_a_run_is_named_until_it_has_one_or_is_skipped(
    jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        for ago in (8, 6):
            assert typed("run", "jobs/tickets.yaml", "--from", day(ago)).exit_code == 0

        assert starts() == [day(ago) for ago in (7, 5, 4, 3, 2, 1)]
        said = typed("status", "--jobs", "jobs")
        assert "6 without a run" in said.output
        assert f"{day(5)} 00:00 to {day(0)} 00:00 UTC (5 windows)" in said.output
        assert "its Dag is paused, Airflow's scheduler is down" in said.output
        assert f"airflow backfill create --dag-id tickets --from-date {day(7)}T00:00Z" in said.output
        assert typed("status", "--jobs", "jobs", "--exit-code").exit_code == 3

        assert typed("run", "jobs/tickets.yaml", "--from", day(5), "--to", day(0)).exit_code == 0
    assert starts() == [day(7)]
    (job,) = status()
    assert job["fresh_until"] == f"{day(7)}T00:00:00+00:00"
    assert typed("skip", "tickets", "--jobs", "jobs").exit_code == 0
    assert starts() == []
    assert typed("status", "--jobs", "jobs", "--exit-code").exit_code == 0
    assert "each due window has a run" in typed("status", "--jobs", "jobs").output
    (job,) = status()
    assert (job["fresh_until"], job["is_stale"]) == (f"{day(0)}T00:00:00+00:00", False)
    assert typed("skip", "tickets", "--jobs", "jobs").exit_code == 2, "there is nothing to skip any more"


def test_a_cron_outside_airflow_tells_people_once(
    jobs: Path, monkeypatch: pytest.MonkeyPatch, mail_sink: MailSink
) -> None:
    """The job's file fails to check by now, and says so."""
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", mail_sink.airflow_connection())
    (jobs / "tickets.yaml").write_text(f"{SCHEDULED}notify: {{mail: team@example.com}}\n")
    mail_sink.clear()
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "jobs/tickets.yaml", "--from", day(3)).exit_code == 0
    (jobs / "tickets.yaml").write_text(f"{SCHEDULED}notify: {{mail: team@example.com}}\nrounds: nine\n")

    exits = [typed("status", "--jobs", "jobs", "--exit-code", "--tell").exit_code for _ in range(2)]

    assert exits == [3, 3]
    (mail,) = mail_sink.mails()
    assert mail.subject == "No run: tickets: 2 windows have no run"
    assert "its job file tickets.yaml cannot be used" in " ".join(mail.text.split())
    assert "rounds" in mail.text


def test_a_job_that_is_gone_for_good_rests(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "jobs/tickets.yaml", "--from", day(3)).exit_code == 0
    (jobs / "tickets.yaml").unlink()
    assert starts() == [day(2), day(1)]

    said = typed("skip", "tickets", "--for-good", "--jobs", "jobs")

    assert said.exit_code == 0
    assert "until it runs again" in said.output
    assert starts() == []
