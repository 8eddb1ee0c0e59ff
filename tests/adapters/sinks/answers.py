"""Answers and dead letters for tests of sinks."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from nightbatch.core.ids import run_id
from nightbatch.core.window import Window
from nightbatch.ports import ANSWER_SCHEMA, DEAD_SCHEMA, SinkContext

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)


def about(*, job: str = "reviews", day: int = 0, generation: int = 1) -> SinkContext:
    """Give a load of a daily window, `day` days after the first."""
    start = MIDNIGHT + timedelta(days=day)
    window = Window(start, start + timedelta(days=1))
    return SinkContext(job, run_id(job, window, generation), window, generation)


def answers(texts: dict[str, str]) -> pa.RecordBatch:
    """Give a batch with an answer for each key."""
    rows = [
        {"key": key, "fingerprint": f"f-{text}"[:100], "answer": text, "round": 0, "custom_id": f"nb_{key}"}
        for key, text in texts.items()
    ]
    return pa.RecordBatch.from_pylist(rows, schema=ANSWER_SCHEMA)


def dead_letters(reasons: dict[str, str]) -> pa.RecordBatch:
    """Give a batch with a reason for each key."""
    rows = [{"key": key, "fingerprint": "f", "reason": reason, "round": 2} for key, reason in reasons.items()]
    return pa.RecordBatch.from_pylist(rows, schema=DEAD_SCHEMA)
