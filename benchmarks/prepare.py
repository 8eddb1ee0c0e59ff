"""
Time `prepare` against what people write by hand: Parquet in, request files and their index on the local disk out.

    .venv/bin/python benchmarks/prepare.py [RECORDS] [PAIRS]

Records have some 2 KB of text and an answer schema of six fields. `loop` is the loop of a vendor's cookbook (json,
Jinja2, sha256), `pandas` a DataFrame, `airflow` what Airflow's LLMBatchOperator does before it uploads
(`peer_airflow.py`), and `floor` the least that any of them must do: decode, escape, hash and write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peers import played, python_of
from records import DAY, NEXT_DAY, SYSTEM, USER, body_of, job_values, make
from turns import Found, Row, Variant, compare, ratio


def ours(data: Path, out: Path) -> Mapping[str, Any]:
    """Do what `nightbatch run` does before it sends anything."""
    return prepared({"files": f"{data}/records.parquet"}, out)


def prepared(source: dict[str, Any], out: Path, **connections: str) -> Mapping[str, Any]:
    """Prepare a source; connections are variables of the environment."""
    from nightbatch import flow
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import open_ports, settings_from
    from nightbatch.core.window import Window
    from nightbatch.job import Job

    job = Job.model_validate(job_values(source, {"files": f"{out}/answers"}))
    environ = {"NIGHTBATCH_HOME": str(out), "OPENAI_API_KEY": "sk-none", **connections}
    ports = open_ports(job, settings_from(environ), from_environment(environ))
    plan = flow.prepare(ports, job, Window(DAY, NEXT_DAY))
    return {"rows": sum(shard.rows for shard in plan.shards), "bytes": sum(shard.size_bytes for shard in plan.shards)}


def records_of(data: Path) -> Iterator[dict[str, Any]]:
    """Read the records as anybody would."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(data / "records.parquet").iter_batches(1_000):
        yield from batch.to_pylist()


def loop(data: Path, out: Path) -> Mapping[str, Any]:
    """Do it as a vendor's cookbook does."""
    from jinja2.sandbox import SandboxedEnvironment

    template, count = SandboxedEnvironment().from_string(USER), 0
    with (out / "requests.jsonl").open("w") as requests, (out / "index.jsonl").open("w") as index:
        for record in records_of(data):
            body = body_of(SYSTEM, template.render(record))
            print_ = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
            line = {"custom_id": record["id"], "method": "POST", "url": "/v1/chat/completions", "body": body}
            requests.write(json.dumps(line) + "\n")
            index.write(json.dumps({"key": record["id"], "fingerprint": print_}) + "\n")
            count += 1
    return {"rows": count}


def with_pandas(data: Path, out: Path) -> Mapping[str, Any]:
    """Do it with a DataFrame."""
    import pandas as pd

    frame = pd.read_parquet(data / "records.parquet")
    texts = "Review of " + frame["product"] + ":\n" + frame["text"]
    frame["body"] = [body_of(SYSTEM, text) for text in texts]
    frame["fingerprint"] = [
        hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() for body in frame["body"]
    ]
    frame["custom_id"], frame["method"], frame["url"] = frame["id"], "POST", "/v1/chat/completions"
    frame[["custom_id", "method", "url", "body"]].to_json(out / "requests.jsonl", orient="records", lines=True)
    frame[["id", "fingerprint"]].to_parquet(out / "index.parquet")
    return {"rows": len(frame)}


def floor(data: Path, out: Path) -> Mapping[str, Any]:
    """Decode, escape, hash and write, and nothing else."""
    import orjson
    import pyarrow.parquet as pq

    count, around = 0, json.dumps(body_of(SYSTEM, "")).encode()
    with (out / "requests.jsonl").open("wb", buffering=1 << 20) as requests:
        for batch in pq.ParquetFile(data / "records.parquet").iter_batches(500, use_threads=False):
            for text in batch.column("text").to_pylist():
                line = around + orjson.dumps(text)
                hashlib.sha256(line).digest()
                requests.write(line)
                count += 1
    return {"rows": count}


def airflow(data: Path, out: Path) -> Mapping[str, Any]:
    """Do it as Airflow's own operator does."""
    return played("airflow", data, out)


VARIANTS: dict[str, Variant] = {
    "nightbatch": ours,
    "loop": loop,
    "pandas": with_pandas,
    "airflow": airflow,
    "floor": floor,
}


def operator(part: str, found: Found) -> Iterator[Row]:
    """Compare with Airflow's operator, where it could be installed; what it imports is told apart."""
    if theirs := found.get("airflow"):
        whole = ratio(f"{part}: Airflow's LLMBatchOperator takes", found, "nightbatch", "airflow", at_least=5)
        bare = (theirs["cpu_s"] - theirs["imports_s"]) / found["nightbatch"]["cpu_s"]
        yield replace(whole, seen=f"{whole.seen} ({bare:.2f} × without its imports), {theirs['mb']:.0f} MB")


def rows(found: Found) -> list[Row]:
    """Compare with what was asked for."""
    part = "prepare, one process, Parquet to shards"
    share = found["floor"]["cpu_s"] / found["nightbatch"]["cpu_s"]
    return [
        *operator(part, found),
        ratio(f"{part}: a plain loop takes", found, "nightbatch", "loop", at_least=3.5),
        ratio(f"{part}: pandas takes", found, "nightbatch", "pandas", at_least=6),
        Row(f"{part}: of the floor's rate", "≥ 45 %", f"{share:.0%}", share >= 0.45),
    ]


def main() -> None:
    """Compare, also with Airflow's operator where it can be installed."""
    if python_of("airflow") is None:
        VARIANTS.pop("airflow")
    compare(__file__, VARIANTS, make, rows)


if __name__ == "__main__":
    main()
