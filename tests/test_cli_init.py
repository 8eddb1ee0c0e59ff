"""`nightbatch init`: a stranger's file or table becomes a job that passes `check` and that `try` runs at once."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from nightbatch.cli import app
from nightbatch.core.sample import Sample, can_be_said
from nightbatch.core.template import PromptTemplate
from nightbatch.demo.services.postgres import airflow_connection
from nightbatch.emulator import DEFAULT_KEY, EmulatorSettings, running
from nightbatch.job_draft import Draft
from nightbatch.job_file import load_job
from tests.servers import PostgresForTests

pytest_plugins = ["tests.servers"]

TICKETS = [
    {"id": "k7", "Customer Name": "Ann", "body": "The box came broken, and nobody answers my mails", "stars": "1"},
    {"id": "k8", "Customer Name": "Bob", "body": "{{ 7 * 7 }} All is well: # I like it very much", "stars": "5"},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in an empty folder, with a vendor at hand."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN", "NIGHTBATCH"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "Tickets of May.csv", TICKETS)
    with running(EmulatorSettings()) as vendor:
        connection = {"conn_type": "openai", "host": f"{vendor}/v1", "password": DEFAULT_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
        yield tmp_path


def write_csv(path: Path, records: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def typed(*words: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, words, input=answers)


def works(job: str) -> list[dict[str, Any]]:
    """Check a job and try it; gives what the model was asked and said."""
    checked = typed("check", job, "--json")
    assert json.loads(checked.stdout)["valid"], checked.stdout
    tried = typed("try", job, "-n", "2", "--json")
    assert tried.exit_code == 0, tried.output
    trials: list[dict[str, Any]] = json.loads(tried.stdout)["trials"]
    return trials


def test_a_csv_becomes_a_job_that_runs_at_once(folder: Path) -> None:
    done = typed("init", "--files", "Tickets of May.csv", "--json")

    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["key"], said["columns"], said["sampled"]) == ("id", ["body"], 2)
    assert Path(said["job"]) == Path("include/jobs/tickets_of_may.yaml")
    assert [trial["verdict"] for trial in works(said["job"])] == ["good", "good"]
    assert load_job(said["job"]).columns_sent == ("body",)


def test_it_asks_for_what_it_is_not_told(folder: Path) -> None:
    done = typed("init", "--folder", "jobs", answers="Tickets of May.csv\n")

    assert done.exit_code == 0, done.output
    assert "The key is 'id'; sent are body." in done.stdout
    assert load_job("jobs/tickets_of_may.yaml").name == "tickets_of_may"


def test_a_table_becomes_a_job_whatever_its_columns_are_called(
    folder: Path, postgres_server: PostgresForTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.new_database()
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            'create table "Odd Tickets" ("the ""key"": # {{ x }}" int, "What: {% they %} said?" text, "not" text,'
            " changed_at timestamp)"
        )
        database.execute(
            """insert into "Odd Tickets" values (1, 'It broke, and nobody answers', 'and so on, at length', now()),
            (2, 'All is well, I like it a lot', 'and so on, at length', now())"""
        )
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", airflow_connection(url))

    done = typed("init", "--table", '"Odd Tickets"', "--connection", "warehouse", "--json")

    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["key"] == 'the "key": # {{ x }}'
    trials = works(said["job"])
    assert [trial["verdict"] for trial in trials] == ["good", "good"]
    assert "nobody answers" in json.dumps(trials[0])
    job = load_job(said["job"])
    assert job.columns_sent == ("field_2", "what_they_said")
    assert job.sink.model_dump()["table"] == "odd_tickets_answers"


def test_it_never_overwrites(folder: Path) -> None:
    prompts = folder / "include" / "jobs" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "mine.user.txt").write_text("mine")

    done = typed("init", "--files", "Tickets of May.csv", "--name", "mine")

    assert (done.exit_code, (prompts / "mine.user.txt").read_text()) == (2, "mine")
    assert "mine.user.txt would be overwritten. Nothing was written." in done.stderr
    assert [file.name for file in folder.rglob("mine*")] == ["mine.user.txt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--files", "none.csv"], "there is no such file"),
        (["--files", "empty.csv"], "it has no records"),
        (["--files", "Tickets of May.csv", "--table", "t"], "both --files and --table"),
        (["--table", "t"], "a table needs one"),
        (["--table", "t", "--connection", "nowhere"], "AIRFLOW_CONN_NOWHERE is not set"),
        (["--files", "Tickets of May.csv", "--key", "idd"], "Did you mean id?"),
        (["--files", "same.csv"], "none is unique and never empty"),
        (["--files", "same.csv", "--key", "a"], "2 of 3 records share it"),
        (["--files", "Tickets of May.csv", "--text", "Customer Name"], "a template cannot say 'Customer Name'"),
        (["--files", "Tickets of May.csv", "--name", "../up"], "is no job's name"),
        (["--files", "Tickets of May.csv", "--provider", "x"], "Use one of: openai, anthropic"),
        (["--files", "Tickets of May.csv", "--model", "no-such-model"], "no-such-model"),
        (["--json"], "neither --files nor --table"),
        ([], "no answer"),
    ],
)
def test_what_it_cannot_use_is_told_and_nothing_is_written(folder: Path, options: list[str], sentence: str) -> None:
    write_csv(folder / "same.csv", [{"a": "x", "b": "long enough to be asked about"}] * 3)
    (folder / "empty.csv").write_text("id,body\n")
    before = sorted(folder.rglob("*"))

    done = typed("init", *options)

    assert done.exit_code in (1, 2)
    assert sentence in done.output
    assert "Traceback" not in done.output
    assert sorted(folder.rglob("*")) == before


def test_a_key_that_few_records_share_is_taken_and_told(folder: Path) -> None:
    rows = [
        {"report_no": f"M-{at // 2 if at < 2 else at}", "body": "it stopped in the night again"} for at in range(20)
    ]
    write_csv(folder / "faults.csv", rows)

    done = typed("init", "--files", "faults.csv", "--key", "report_no", "--json")

    assert done.exit_code == 0, done.output
    [note] = json.loads(done.stdout)["notes"]
    assert note.startswith("1 of 20 records share their 'report_no' with an earlier one")


def test_a_text_that_no_template_can_say_is_named_where_another_takes_its_place(folder: Path) -> None:
    rows = [{"id": str(at), "report text": "it stopped in the night again", "when": "May"} for at in range(3)]
    write_csv(folder / "faults.csv", rows)

    done = typed("init", "--files", "faults.csv")

    assert done.exit_code == 0, done.output
    assert "'report text' looks like a text to ask about, and a template cannot say it" in done.output


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


@given(names, names, names)
def test_no_name_of_a_column_or_file_breaks_out_of_its_place(key: str, column: str, path: str) -> None:
    draft = Draft("job", key, {column: "field_1"}, 1, "openai", path, column, sink=path, files=path, connection=key)

    loaded = yaml.safe_load(draft.job())

    assert loaded["source"] == {"files": path, "key": key, "connection": key}
    assert (loaded["models"][0]["model"], loaded["models"][0]["connection"]) == (path, column)
    assert loaded["sink"] == {"files": path, "connection": key}
    assert set(loaded) == {"name", "description", "source", "prompt", "answer", "models", "sink", "budget_usd"}


@given(st.text(min_size=1, max_size=20))
def test_what_can_be_said_is_what_a_template_reads(column: str) -> None:
    if can_be_said(column):
        assert PromptTemplate("", f"x {{{{ {column} }}}} y").columns == {column}


def test_the_key_is_what_is_unique_and_called_like_one() -> None:
    sample = Sample(
        ("text", "order_id", "n"), [("a long text, that is unique", 5, 1.5), ("another long text here", 6, 2.5)]
    )

    assert (sample.guess_key(), sample.guess_texts("order_id")) == ("order_id", ("text",))
    assert Sample(("a",), [(None,), ("x",)]).guess_key() == ""
