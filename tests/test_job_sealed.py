"""A job sealed with a run is read by the versions before and after, or refused before anything is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nightbatch import __version__
from nightbatch.core.version import is_too_new
from nightbatch.errors import PlanUnreadable
from nightbatch.job import Job
from nightbatch.job_file import load_job
from nightbatch.job_sealed import facts_of, unsealed

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "include" / "jobs").glob("*.yaml"))
LATER: list[list[Any]] = [["tomorrow"], ["source", "later"], ["models", 0, "later"], ["prompt", "redact"]]
"""Keys that a later version has, at its own defaults."""


def sealed_later(job: Job, *, said: list[Any] | None = None, library: str = "0.2.0") -> dict[str, Any]:
    """Seal a job as a later version would; `said` is the one of its new keys that somebody set."""
    facts = facts_of(job)
    values = json.loads(facts["job"])
    for *parents, last in LATER:
        place = values
        for step in parents:
            place = place[step]
        place[last] = {"anything": ["at", "all"]}
    unsaid = [*facts["unsaid"], *(path for path in LATER if path != said)]
    return {"job": json.dumps(values), "unsaid": unsaid, "library": library, "more": "facts"}


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_what_is_sealed_is_what_is_read(file: Path) -> None:
    job = load_job(file)

    assert unsealed(facts_of(job), run="run") == job
    assert facts_of(job)["library"] == __version__


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_keys_of_a_later_version_that_nobody_set_are_left_out(file: Path) -> None:
    job = load_job(file)

    assert unsealed(sealed_later(job), run="run") == job


@pytest.mark.parametrize("said", LATER, ids=str)
def test_a_key_of_a_later_version_that_somebody_set_is_not_passed_over(said: list[Any]) -> None:
    with pytest.raises(PlanUnreadable) as unreadable:
        unsealed(sealed_later(load_job(JOBS[0]), said=said), run="reviews/1/g1")

    text = str(unreadable.value)
    assert ".".join(map(str, said)) in text
    assert f"run reviews/1/g1 was sealed by nightbatch 0.2.0, and this is {__version__}" in text
    assert "anything" not in text, "it quotes what the job says"


def test_sealed_defaults_win_over_those_of_this_version() -> None:
    """Else a deploy in the middle of the night would change how many rounds a run has."""
    facts = sealed_later(load_job(JOBS[0]))
    values = {**json.loads(facts["job"]), "rounds": 5, "max_dead_share": 0.5}
    facts |= {"job": json.dumps(values), "unsaid": [*facts["unsaid"], ["rounds"], ["max_dead_share"]]}

    job = unsealed(facts, run="run")

    assert (job.rounds, job.max_dead_share) == (5, 0.5)


def test_a_version_too_far_ahead_is_not_even_tried() -> None:
    with pytest.raises(PlanUnreadable, match="more than one minor version newer"):
        unsealed(facts_of(load_job(JOBS[0])) | {"library": "0.9.0"}, run="run")


@pytest.mark.parametrize(
    ("other", "own", "is_far"),
    [
        ("0.1.0", "0.1.0", False),
        ("0.2.7", "0.1.0", False),
        ("0.3.0", "0.1.9", True),
        ("0.1.0", "0.9.0", False),
        ("1.0.0", "0.9.0", True),
        ("0.9.0", "1.0.0", False),
        ("0.2.0.dev3+local", "0.1.0", False),
        ("unknown", "0.1.0", False),
    ],
)
def test_one_minor_apart_is_near(other: str, own: str, is_far: bool) -> None:
    assert is_too_new(other, own=own) is is_far


def test_a_job_that_the_first_version_sealed_is_still_read() -> None:
    """The file is never changed: what it holds lies in ledgers out there."""
    facts = json.loads((ROOT / "tests" / "golden" / "sealed_job_0_1_0.json").read_text(encoding="utf-8"))

    with_all, with_job_alone = unsealed(facts, run="run"), unsealed({"job": facts["job"]}, run="run")

    assert with_all == with_job_alone
    assert (with_all.name, with_all.rounds, with_all.models[0].max_output_tokens) == ("review_sentiment", 2, 400)
    assert with_all.prompt.user is not None


@pytest.mark.parametrize("job", ["", "no JSON: geheim", "[1]", '{"name": "geheim"}'])
def test_what_is_no_job_is_told_without_what_it_says(job: str) -> None:
    with pytest.raises(PlanUnreadable) as unreadable:
        unsealed({"job": job}, run="run")

    assert "geheim" not in str(unreadable.value)
    assert unreadable.value.__cause__ is None
