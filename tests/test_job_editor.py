"""The JSON Schema of job files: what editors complete and underline agrees with what `check` takes and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from nightbatch.cli import app
from nightbatch.job_draft import Draft
from nightbatch.job_editor import FILE, FIRST_LINE, job_schema
from nightbatch.job_file import load_job
from nightbatch.job_yaml import read_yaml

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "include" / "jobs").glob("*.yaml"))
EXAMPLES = re.findall(r"```yaml\n(name: .*?)```", (ROOT / "docs" / "job-file.md").read_text("utf-8"), re.DOTALL)
SCHEMA = jsonschema_rs.validator_for(json.loads(job_schema()))


def said(text: str) -> Any:
    """Give what a job file says, days as an editor reads them."""
    return json.loads(json.dumps(read_yaml(text).value, default=str))


def test_the_command_prints_the_schema_that_lies_beside_the_jobs() -> None:
    """Wrong? `nightbatch schema > include/jobs/job.schema.json` mends it."""
    printed = CliRunner().invoke(app, ["schema"])

    assert (printed.exit_code, printed.stdout) == (0, job_schema())
    assert (ROOT / "include" / "jobs" / FILE).read_text("utf-8") == job_schema()


def test_every_job_and_every_example_fits_it() -> None:
    texts = [*(file.read_text("utf-8") for file in JOBS), *EXAMPLES]

    assert [[error.message for error in SCHEMA.iter_errors(said(text))] for text in texts] == [[]] * len(texts)
    assert len(texts) == 5


def test_our_own_jobs_name_it_on_their_first_line() -> None:
    assert {file.read_text("utf-8").splitlines()[0] for file in JOBS} == {FIRST_LINE}


def test_a_drafted_job_fits_it_and_names_it() -> None:
    draft = Draft("t", "id", {"body": "body"}, 2, "openai", "gpt-5-mini", "openai_default", "out/", files="in.csv")

    assert draft.job().splitlines()[0] == FIRST_LINE
    assert SCHEMA.is_valid(said(draft.job()))


SMALL = """
name: tickets
source: {files: in.csv, key: id}
prompt: {user: "{{ body }}"}
models: [{provider: openai, model: m, connection: c}]
sink: {files: out/}
"""


@pytest.mark.parametrize(
    ("more", "is_good"),
    [
        ("", True),
        ("retention: 30m", True),
        ("retention: PT30M", True),
        ("retention: 0", True),
        ("retention: 30", False),
        ("retention: soon", False),
        ("shard: {max_bytes: 50MB}", True),
        ("shard: {max_bytes: 50}", True),
        ("shard: {max_bytes: 50 barrels}", False),
        ("notify: {mail: a@example.com, on: failed}", True),
        ("notify: {mail: [a@example.com], on: [late, failed]}", True),
        ("notify: {on: never}", False),
        ('deadline: {at: "07:00"}', True),
        ("deadline: {at: seven}", False),
        ("start: 2026-11-21", True),
        ("budget_usd: 5.00", True),
        ("budget_usd: 0", False),
        ("budget: 5.00", False),
        ("rounds: 9", False),
        ("catch_up: maybe", False),
    ],
)
def test_it_takes_and_refuses_what_check_does(more: str, is_good: bool, tmp_path: Path) -> None:
    text = f"{SMALL}{more}\n".replace("connection: c}", "connection: c, max_output_tokens: 9}")
    file = tmp_path / "tickets.yaml"
    file.write_text(text)

    assert SCHEMA.is_valid(said(text)) is is_good
    if is_good:
        assert load_job(file).name == "tickets"
    else:
        with pytest.raises(Exception, match=re.escape(more.partition(":")[0])):
            load_job(file)
