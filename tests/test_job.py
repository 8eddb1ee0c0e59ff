"""Jobs: what they give the steps, and that a sealed copy is the same job."""

from datetime import time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from nightbatch.core.deadline import DeadlineRule
from nightbatch.core.request import Endpoint, RequestSpec
from nightbatch.errors import JobInvalid
from nightbatch.job import (
    Answer,
    DeadlineSpec,
    FileSinkSpec,
    FileSourceSpec,
    FrameSourceSpec,
    Job,
    ModelChoice,
    Notify,
    Prompt,
    QuerySourceSpec,
    ShardSpec,
    TableSinkSpec,
)
from nightbatch.job_file import job_from

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"enum": ["x", None]}}, "required": ["a"]}
CLOSED = SCHEMA | {"additionalProperties": False}
OPENAI = ModelChoice(provider="openai", model="m", connection="c", max_output_tokens=100)


def make(**changes: Any) -> Job:
    """Make a job as one does in Python."""
    parts: dict[str, Any] = {
        "name": "reviews",
        "source": FileSourceSpec(files="s3://a/in/", key="id"),
        "prompt": Prompt(user="{{ text }}"),
        "models": (OPENAI,),
        "sink": FileSinkSpec(files="s3://a/out/"),
    }
    return Job(**parts | changes)


FULL = make(
    description="A job with everything said",
    owner="team",
    tags=("a", "b"),
    source=QuerySourceSpec(
        query="select * from t where at >= :window_start and at < :window_end",
        connection="w",
        key="id",
        deferrable="priority != 'urgent' and region",
        timezone="Europe/Berlin",
    ),
    prompt=Prompt(system="Be {{ tone }}", user="{{ text }} {{ id }}", cache_prefix=True, version="v7"),
    answer=Answer(schema=SCHEMA),
    models=(
        ModelChoice(provider="openai", model="m", connection="c", max_output_tokens=100, params={"seed": 1}),
        ModelChoice(provider="anthropic", model="n", connection="d", max_output_tokens=200, temperature=0.5),
        ModelChoice(provider="openai", model="o", connection="c", max_output_tokens=5, endpoint=Endpoint.RESPONSES),
    ),
    sink=TableSinkSpec(table="s.t", connection="w", dead_letters="s.dead"),
    schedule="30 2 * * mon-fri",
    timezone="America/New_York",
    deadline=DeadlineSpec(at="07:00"),
    warn_before="90m",
    rounds=0,
    budget_usd="12.50",
    shard=ShardSpec(max_rows=10, max_bytes="50MB"),
    notify=Notify(mail="a@b.c", slack_connection="slack", on="late"),
    retention="2w",
    max_dead_share=0,
    min_rows=5,
)


def test_columns_are_the_key_and_what_templates_and_deferrable_use() -> None:
    assert FULL.columns == ("id", "priority", "region", "text", "tone")


def test_only_the_columns_of_the_templates_are_sent() -> None:
    assert FULL.columns_sent == ("id", "text", "tone")
    assert make(prompt=Prompt(embed="{{ text }}")).columns_sent == ("text",)


def test_a_key_that_no_template_names_stays_at_home() -> None:
    assert make().columns == ("id", "text")
    assert make().columns_sent == ("text",)


@pytest.mark.parametrize(
    ("choice", "spec"),
    [
        (0, RequestSpec(Endpoint.CHAT, "m", 100, None, {"seed": 1}, CLOSED, cache_prefix=True)),
        (1, RequestSpec(Endpoint.MESSAGES, "n", 200, 0.5, {}, CLOSED, cache_prefix=True)),
        (2, RequestSpec(Endpoint.RESPONSES, "o", 5, None, {}, CLOSED, cache_prefix=True)),
    ],
)
def test_each_model_is_asked_in_its_own_way(choice: int, spec: RequestSpec) -> None:
    assert FULL.request_spec(choice) == spec
    assert FULL.endpoint(choice) is spec.endpoint


def test_a_larger_cap_replaces_the_models_own() -> None:
    assert FULL.request_spec(0, max_output_tokens=200).max_output_tokens == 200


def test_embeddings_have_no_cap_and_no_temperature() -> None:
    job = make(prompt=Prompt(embed="{{ text }}"), budget_usd=1)

    assert job.request_spec(0, max_output_tokens=200) == RequestSpec(Endpoint.EMBEDDINGS, "m")


def test_the_deadline_is_in_the_jobs_zone() -> None:
    warn = timedelta(minutes=90)

    assert FULL.deadline_rule() == DeadlineRule(at=time(7), timezone="America/New_York", warn_before=warn)
    assert make(deadline={"after": "6h"}).deadline_rule() == DeadlineRule(after=timedelta(hours=6))
    assert make().deadline_rule() is None


def test_a_prompt_is_named_by_its_version_or_by_its_content() -> None:
    assert FULL.prompt_version == f"v7@{FULL.prompt.digest()}"
    assert make().prompt_version == make(name="other").prompt_version
    assert len(make().prompt_version) == 12


@given(st.tuples(*[st.text(max_size=5).map(lambda text: "a" + text.replace("{", ""))] * 4))
def test_two_prompts_have_one_version_only_if_they_are_one(words: tuple[str, str, str, str]) -> None:
    one = Prompt(system=words[0], user=words[1])
    other = Prompt(system=words[2], user=words[3])

    assert (one.digest() == other.digest()) == (one == other)
    assert one.digest() != Prompt(embed=words[1]).digest()


@pytest.mark.parametrize("job", [FULL, make(), make(prompt=Prompt(embed="{{ x }}"))])
def test_a_sealed_copy_is_the_same_job(job: Job) -> None:
    again = Job.from_json(job.to_json())

    assert again == job
    assert again.to_json() == job.to_json()
    assert Job.from_json(job.to_json().encode()).request_spec(0) == job.request_spec(0)


def test_values_are_read_into_exact_types() -> None:
    assert FULL.budget_usd == Decimal("12.50")
    assert (FULL.warn_before, FULL.retention) == (timedelta(minutes=90), timedelta(days=14))
    assert FULL.shard == ShardSpec(max_bytes=50_000_000, max_rows=10)
    assert FULL.notify == Notify(mail=("a@b.c",), slack_connection="slack", on=("late",))
    assert make(budget_usd=0.1).budget_usd == Decimal("0.1")


def test_defaults_are_what_the_reference_says() -> None:
    job = make()

    assert (job.owner, job.tags, job.timezone, job.schedule, job.deadline) == ("nightbatch", (), "UTC", None, None)
    assert (job.rounds, job.budget_usd, job.max_dead_share, job.min_rows) == (2, None, 0.05, 0)
    assert job.answer == Answer(text=True)
    assert job.notify.on == ("at_risk", "late", "failed", "missing", "stale")
    assert (job.start, job.catch_up, job.freshness, job.source.overlap) == (None, "report", None, timedelta(0))


def test_a_job_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make().rounds = 5  # type: ignore[misc]  # that is the point


def test_a_frame_is_a_source_in_python_and_no_part_of_the_sealed_copy() -> None:
    frame = object()
    job = make(source=FrameSourceSpec(frame=frame, key="id", time_column="at"))

    again = Job.from_json(job.to_json())

    assert job.source.frame is frame  # type: ignore[union-attr]  # it was made from one
    assert again.source == FrameSourceSpec(key="id", time_column="at")
    assert "object" not in repr(job)


def test_a_frame_has_no_schedule() -> None:
    with pytest.raises(ValidationError, match="no new records to fetch"):
        make(source=FrameSourceSpec(frame=object(), key="id"), schedule="0 0 * * *")


@pytest.mark.parametrize(
    ("source", "sink", "is_fine"),
    [
        ("s3://a/in/", "s3://a/out/", True),
        ("s3://a/in", "s3://a/in", False),
        ("s3://a/in/", "s3://a/in", False),
        ("s3://a/in/", "s3://a/inner", True),
        ("s3://a/in/", "s3://b/in", True),
        ("s3://a/in/", "gs://a/in", True),
        ("s3://a/in/", "s3://a/in/out", False),
        ("s3://a/in/*.parquet", "s3://a/in/out", True),
        ("s3://a/in/*.parquet", "s3://a/in", False),
        ("s3://a/in/**/*.parquet", "s3://a/in/out", False),
        ("s3://a/in/{{ ds }}/", "s3://a/in", False),
        ("s3://a/in/{{ ds }}/", "s3://a/out", True),
        ("s3://a/in/one.parquet", "s3://a/out", True),
        ("s3://a/in/one.parquet", "s3://a/in/out", True),
        ("file:///data/in/", "/data/in", False),
        ("./in", "in/", False),
    ],
)
def test_answers_never_become_the_next_runs_records(source: str, sink: str, is_fine: bool) -> None:
    try:
        make(source=FileSourceSpec(files=source, key="id"), sink=FileSinkSpec(files=sink))
    except ValidationError as error:
        assert not is_fine, error
        assert "would read its answers" in str(error)
    else:
        assert is_fine


@pytest.mark.parametrize(
    ("query", "is_fine"),
    [
        ("select * from answers", False),
        ('select * from "Answers" a', False),
        ("select * from answers_old", True),
        ("select t.* from t left join answers a on a.id = t.id where a.id is null", True),
        ("select 1", True),
    ],
)
def test_a_query_may_look_at_the_sink_but_not_read_only_from_it(query: str, is_fine: bool) -> None:
    source = QuerySourceSpec(query=query, connection="w", key="id", whole_table=True)
    try:
        make(source=source, sink=TableSinkSpec(table="answers", connection="w"))
    except ValidationError:
        assert not is_fine
    else:
        assert is_fine
    assert make(source=source, sink=TableSinkSpec(table="answers", connection="elsewhere"))


def test_plain_values_in_python_get_the_same_sentences_as_a_file() -> None:
    with pytest.raises(JobInvalid) as caught:
        job_from({"name": "reviews", "modles": []}, file="dags/reviews.py")

    assert str(caught.value).startswith("dags/reviews.py: 5 problems\n")
    assert "modles: this key is not known. Did you mean models?" in str(caught.value)


# --- answers from pydantic models -----------------------------------------------------------------------------


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Place(BaseModel):
    city: str
    zip_code: str | None = None


class Review(BaseModel):
    """What a review says."""

    mood: Mood
    score: int = Field(3, ge=1, le=5)
    places: list[Place] = []
    note: str | None = None


def test_a_pydantic_model_gives_a_strict_schema() -> None:
    schema = Answer.from_model(Review).json_schema

    assert schema is not None
    assert schema["required"] == ["mood", "score", "places", "note"]
    assert schema["additionalProperties"] is False
    place = schema["$defs"]["Place"]  # type: ignore[index]  # it is there
    assert (place["required"], place["additionalProperties"]) == (["city", "zip_code"], False)  # type: ignore[index]
    assert '"default"' not in Answer.from_model(Review).model_dump_json()


def test_a_pydantic_model_without_a_fixed_shape_is_refused() -> None:
    class Loose(BaseModel):
        words: dict[str, int]

    with pytest.raises(ValidationError, match="an object without properties has no fixed shape"):
        Answer.from_model(Loose)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"files": "a.csv", "overlap": "2h"}, "source.overlap: the watermark has a grace for late records"),
        ({"files": "a.csv", "time_column": "at"}, "source.time_column: the watermark's column says which records"),
        ({"files": "{{ ds }}/a.csv"}, "source.watermark: the window's files are named by its start"),
        (
            {"query": "select * from t where at >= :window_start", "connection": "w"},
            "source.query: the watermark bounds the query, which uses :window_start itself",
        ),
        (
            {"query": "select * from t", "connection": "w", "whole_table": True},
            "source.whole_table: the watermark reads what is new",
        ),
        (
            {"query": "select * from t", "connection": "w", "watermark": {"column": "at", "grace": "-1h"}},
            "source.watermark.grace",
        ),
        ({"files": "a.csv", "watermark": {"column": "at"}}, "source.watermark.grace"),
    ],
)
def test_a_watermark_that_cannot_be_kept_is_told(source: dict[str, Any], said: str) -> None:
    mark = {"column": "at", "grace": "2h"}
    values = make().model_dump(by_alias=True) | {"source": {"key": "id", "watermark": mark, **source}}

    with pytest.raises(JobInvalid) as told:
        job_from(values, file="tickets.yaml")

    assert any(str(problem).startswith(said) for problem in told.value.problems), told.value.problems
