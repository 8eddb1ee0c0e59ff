"""
Time `prepare` against what people write by hand: Parquet in, request files and their index on the local disk out.

    .venv/bin/python benchmarks/prepare.py [RECORDS] [PAIRS]

Records have some 2 KB of text and an answer schema of six fields. Each variant runs in a process of its own, in turn,
PAIRS times; a figure is the median of CPU seconds, imports included, and the most memory that the process held.
`loop` is the loop of a vendor's cookbook (json, Jinja2, sha256), `pandas` a DataFrame with `apply`.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
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
TALK = (
    "the a battery picture sound lens remote manual case price works broke after two weeks great awful fine loud cheap "
    'I bought this for my sister and "she" never näive used it\nagain because of the 30 € adapter'
)
WORDS = TALK.split(" ")


def make(folder: Path, records: int) -> None:
    """Write the records, by seed: row groups of 20,000."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dice = random.Random(SEED)
    schema = pa.schema([("id", pa.string()), ("product", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(folder / "records.parquet", schema, compression="zstd") as file:
        for start in range(0, records, 20_000):
            numbers = range(start, min(start + 20_000, records))
            texts = [" ".join(dice.choices(WORDS, k=max(20, int(dice.lognormvariate(5.9, 0.5))))) for _ in numbers]
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


def ours(folder: Path, out: Path) -> int:
    """Do what `nightbatch run` does before it sends anything."""
    from nightbatch import flow
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import open_ports, settings_from
    from nightbatch.core.window import Window
    from nightbatch.job import Job

    model = {"provider": "openai", "model": MODEL, "connection": "openai_default", "max_output_tokens": 300}
    job = Job.model_validate(
        {
            "name": "bench",
            "source": {"files": f"{folder}/records.parquet", "key": "id"},
            "prompt": {"system": SYSTEM, "user": USER},
            "answer": {"schema": SCHEMA},
            "models": [model],
            "sink": {"files": f"{out}/answers"},
        }
    )
    environ = {"NIGHTBATCH_HOME": str(out), "OPENAI_API_KEY": "sk-none"}
    day = datetime(2026, 3, 10, tzinfo=UTC)
    ports = open_ports(job, settings_from(environ), from_environment(environ))
    plan = flow.prepare(ports, job, Window(day, day + timedelta(days=1)))
    return sum(shard.rows for shard in plan.shards)


def loop(folder: Path, out: Path) -> int:
    """Do it as a vendor's cookbook does."""
    import hashlib

    import pyarrow.parquet as pq
    from jinja2.sandbox import SandboxedEnvironment

    template, count = SandboxedEnvironment().from_string(USER), 0
    with (out / "requests.jsonl").open("w") as requests, (out / "index.jsonl").open("w") as index:
        for batch in pq.ParquetFile(folder / "records.parquet").iter_batches(1_000):
            for record in batch.to_pylist():
                body = body_of(SYSTEM, template.render(record))
                print_ = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
                line = {"custom_id": record["id"], "method": "POST", "url": "/v1/chat/completions", "body": body}
                requests.write(json.dumps(line) + "\n")
                index.write(json.dumps({"key": record["id"], "fingerprint": print_}) + "\n")
                count += 1
    return count


def with_pandas(folder: Path, out: Path) -> int:
    """Do it with a DataFrame."""
    import hashlib

    import pandas as pd

    frame = pd.read_parquet(folder / "records.parquet")
    texts = "Review of " + frame["product"] + ":\n" + frame["text"]
    frame["body"] = [body_of(SYSTEM, text) for text in texts]
    frame["fingerprint"] = [
        hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() for body in frame["body"]
    ]
    frame["custom_id"], frame["method"], frame["url"] = frame["id"], "POST", "/v1/chat/completions"
    frame[["custom_id", "method", "url", "body"]].to_json(out / "requests.jsonl", orient="records", lines=True)
    frame[["id", "fingerprint"]].to_parquet(out / "index.parquet")
    return len(frame)


VARIANTS = {"nightbatch": ours, "loop": loop, "pandas": with_pandas}


def high_water_mb() -> float:
    """Give the most memory that this process ever held."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def main() -> None:
    """Make the records, and let the variants take turns."""
    if sys.argv[1:2] == ["--one"]:
        name, folder, out = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
        count = VARIANTS[name](folder, out)
        print(json.dumps({"rows": count, "cpu_s": time.process_time(), "mb": high_water_mb()}))
        return
    records, pairs = (int(text) for text in [*sys.argv[1:], *("100000", "5")[len(sys.argv) - 1 :]])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        make(Path(name), records)
        size = (Path(name) / "records.parquet").stat().st_size / 1e6
        print(f"{records:,} records, {size:,.0f} MB of Parquet", flush=True)
        for _ in range(pairs):
            for variant, told in found.items():
                with TemporaryDirectory(dir=name) as out:
                    argv = [sys.executable, __file__, "--one", variant, name, out]
                    told.append(json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
                assert told[-1]["rows"] == records, told[-1]
    mine = statistics.median(run["cpu_s"] for run in found["nightbatch"])
    for variant, told in found.items():
        cpu, mb = (statistics.median(run[key] for run in told) for key in ("cpu_s", "mb"))
        rate = records / cpu / 1000
        print(f"{variant:11} {cpu:6.1f} CPU s  {rate:6.1f} k records/CPU s  {mb:6.0f} MB  {cpu / mine:5.2f} x")


if __name__ == "__main__":
    main()
