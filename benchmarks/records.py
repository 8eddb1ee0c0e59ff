"""The records that benchmarks are about, by seed, and the request that a vendor's cookbook makes of one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SEED = 7
FIELDS = {
    "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
    "topics": {"type": "array", "items": {"type": "string"}},
    "language": {"type": "string"},
    "urgency": {"type": "integer"},
    "is_complaint": {"type": "boolean"},
    "summary": {"type": "string"},
}
SCHEMA = {"type": "object", "properties": FIELDS, "required": list(FIELDS), "additionalProperties": False}
SYSTEM = "Read the review and describe it."
USER = "Review of {{ product }}:\n{{ text }}"
MODEL = "gpt-5-mini"
DAY = datetime(2026, 3, 10, tzinfo=UTC)
NEXT_DAY = DAY + timedelta(days=1)
TALK = (
    "the a battery picture sound lens remote manual case price works broke after two weeks great awful fine loud cheap "
    'I bought this for my sister and "she" never näive used it\nagain because of the 30 € adapter'
)
WORDS = TALK.split(" ")
LONG, SHORT = 5.9, 4.6
"""Logarithm of the median number of words: some 2 KB of text, and some 0.5 KB."""


def make(folder: Path, records: int, *, size: float = LONG, name: str = "records.parquet") -> None:
    """Write the records: id, product, text; row groups of 20,000."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dice = random.Random(SEED)
    schema = pa.schema([("id", pa.string()), ("product", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(folder / name, schema, compression="zstd") as file:
        for start in range(0, records, 20_000):
            numbers = range(start, min(start + 20_000, records))
            texts = [" ".join(dice.choices(WORDS, k=max(20, int(dice.lognormvariate(size, 0.5))))) for _ in numbers]
            columns = [
                [f"r{number:08d}" for number in numbers],
                [f"product {number % 97}" for number in numbers],
                texts,
            ]
            file.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=schema))


def body_of(system: str, user: str) -> dict[str, Any]:
    """Give a request as a cookbook builds it."""
    answer = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"model": MODEL, "messages": messages, "max_completion_tokens": 300, "response_format": answer}


def job_values(source: dict[str, Any], sink: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Describe the job that asks about these records."""
    model = {"provider": "openai", "model": MODEL, "connection": "openai_default", "max_output_tokens": 300}
    return {
        "name": "bench",
        "source": {"key": "id", **source},
        "prompt": {"system": SYSTEM, "user": USER},
        "answer": {"schema": SCHEMA},
        "models": [model],
        "sink": sink,
        **more,
    }
