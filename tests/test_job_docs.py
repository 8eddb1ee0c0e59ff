"""The reference of job files says what the models say. `python tests/test_job_docs.py` writes its tables anew."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nightbatch.job import (
    Answer,
    CanarySpec,
    DeadlineSpec,
    FileSinkSpec,
    FileSourceSpec,
    Job,
    ModelChoice,
    Notify,
    Prompt,
    QualitySpec,
    QuerySourceSpec,
    RedactSpec,
    ShardSpec,
    TableSinkSpec,
    Watermark,
)
from nightbatch.job_file import load_job
from nightbatch.job_meanings import meanings
from nightbatch.job_parts import RESERVED_PARAMS, Part
from nightbatch.job_quality import RangeSpec

PAGE = Path(__file__).parent.parent / "docs" / "job-file.md"
SECTIONS: dict[str, type[Part]] = {
    "job": Job,
    "source-files": FileSourceSpec,
    "source-query": QuerySourceSpec,
    "watermark": Watermark,
    "prompt": Prompt,
    "redact": RedactSpec,
    "answer": Answer,
    "models": ModelChoice,
    "sink-table": TableSinkSpec,
    "sink-files": FileSinkSpec,
    "deadline": DeadlineSpec,
    "shard": ShardSpec,
    "canary": CanarySpec,
    "quality": QualitySpec,
    "quality-range": RangeSpec,
    "notify": Notify,
}


def table(model: type[Part]) -> str:
    """Write the table of one section."""
    rows = [
        f"| `{field.alias or name}` | {default_of(field)} | {meanings(model)[name].replace('|', chr(92) + '|')} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| key | default | what it says |", "| --- | --- | --- |", *rows])


def default_of(field: FieldInfo) -> str:
    """Write a default as one would write it in a job file."""
    if field.is_required():
        return "**needed**"
    value: Any = field.get_default(call_default_factory=True)
    match value:
        case timedelta():
            return f"`{value.days}d`" if value else "`0`"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple() if value:
            return f"`[{', '.join(value)}]`"
        case BaseModel() | None | "" | () | {}:
            return "–"
    return f"`{value}`"


def with_tables(page: str) -> str:
    """Put the tables of the models into a page, each between its marks."""
    for section, model in SECTIONS.items():
        marks = re.compile(rf"(<!-- keys: {section} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = marks.subn(lambda found, model=model: f"{found[1]}{table(model)}\n{found[2]}", page)
        assert count == 1, f"docs/job-file.md has {count} places for {section}"
    return page


def test_the_reference_lists_every_key_with_its_default_and_meaning() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert with_tables(page) == page


def test_the_reference_names_every_parameter_that_is_said_elsewhere() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name in RESERVED_PARAMS if f"`{name}`" not in page] == []


def test_every_model_has_a_sentence_for_every_key() -> None:
    silent = [
        f"{section}.{name}"
        for section, model in SECTIONS.items()
        for name in model.model_fields
        if not meanings(model).get(name, "").endswith(".")
    ]

    assert silent == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_job_file_of_the_reference_is_a_job(number: int, tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(name: .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "job.yaml"
    file.write_text(examples[number])

    assert load_job(file).name
    assert len(examples) == 3


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
