"""
What Airflow's LLMBatchOperator does before it uploads: normalise, hash, validate and serialise its requests.

Runs with the Python of that peer: `peer_airflow.py DATA OUT`. The upload is a file on the local disk. An instance of
the task takes at most 50,000 requests and 200 MB, so a source of more is done in pieces, in this one process; what
Airflow itself imports is thus paid once, and would be for each task.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from records import MODEL, SYSTEM, USER

A_TASK = 50_000
NAME = "0123456789abcdef"


def prompts(data: Path) -> Iterator[str]:
    """Read and render, as whoever gives the operator its requests has to."""
    import pyarrow.parquet as pq
    from jinja2.sandbox import SandboxedEnvironment

    template = SandboxedEnvironment().from_string(USER)
    for batch in pq.ParquetFile(data / "records.parquet").iter_batches(1_000):
        for record in batch.to_pylist():
            yield template.render(record)


def task(requests: Any, out: Path, number: int) -> int:
    """Do what one task does, up to the upload."""
    from airflow.providers.common.ai.batch.openai import OpenAIBatchAdapter
    from airflow.providers.common.ai.batch.output_schema import build_output_spec
    from airflow.providers.common.ai.batch.state import compute_fingerprint
    from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator

    def upload(*, file: tuple[str, bytes], purpose: str) -> Any:
        (out / f"{number}.jsonl").write_bytes(file[1])
        return SimpleNamespace(id=purpose)

    batches = SimpleNamespace(create=lambda **_: SimpleNamespace(id="batch"))
    client = SimpleNamespace(files=SimpleNamespace(create=upload), batches=batches)
    adapter, spec = OpenAIBatchAdapter(client=client), build_output_spec(answer())
    asked = LLMBatchOperator._normalize_requests(requests)
    common: dict[str, Any] = {"system_prompt": SYSTEM, "max_tokens": 300, "request_params": None}
    hashed = compute_fingerprint(
        requests=asked, llm_conn_id="llm", model_id=f"openai:{MODEL}", output_schema=spec.json_schema, **common
    )
    told: dict[str, Any] = {"model": MODEL, "output_spec": spec, "idempotency_key": NAME, **common}
    adapter.validate_requests(asked, **told)
    adapter.submit(asked, input_fingerprint=hashed, **told)
    return len(asked)


def answer() -> Any:
    """Give the answer's six fields as a type."""
    from pydantic import create_model

    fields: dict[str, Any] = {
        "sentiment": (Literal["positive", "neutral", "negative"], ...),
        "topics": (list[str], ...),
        "language": (str, ...),
        "urgency": (int, ...),
        "is_complaint": (bool, ...),
        "summary": (str, ...),
    }
    return create_model("Answer", **fields)


def main() -> None:
    """Do all records."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ |= {"AIRFLOW_HOME": str(out), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    from airflow.providers.common.ai.batch import openai  # noqa: F401
    from airflow.providers.common.ai.operators import llm_batch  # noqa: F401

    imports_s, rows, texts = time.process_time(), 0, prompts(data)
    for number in itertools.count():
        if not (requests := list(itertools.islice(texts, A_TASK))):
            break
        rows += task(requests, out, number)
        del requests  # a task of its own would not hold those of the one before
    print(json.dumps({"rows": rows, "imports_s": imports_s}))


if __name__ == "__main__":
    main()
