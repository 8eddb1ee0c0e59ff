"""
Time `collect` and `validate` against what people write by hand: result files in, checked answers and their cost out.

    .venv/bin/python benchmarks/collect.py [RECORDS] [PAIRS]

A result has about 1 KB and an answer of six fields, one in a hundred is of no use. `jsonschema` is the loop of a
cookbook (json, jsonschema), which writes good answers as CSV and the others as JSON lines. Ours keeps the raw file,
hashes it, and writes the verdicts as Parquet.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from records import SCHEMA, SHORT, job_values, make
from turns import Row, Variant, compare, ratio

IN_USD, OUT_USD = 0.125e-6, 1e-6
"""Of a token, half of the price in real time."""


def ours(data: Path, out: Path) -> Mapping[str, Any]:
    """Do what a run does with a batch that has ended."""
    from vendor import copied, ports_of

    from nightbatch.job import Job
    from nightbatch.steps.collect import collect
    from nightbatch.steps.validate import validate

    job = Job.model_validate(job_of(data))
    ports = ports_of(job, copied(data / "home", out), data / "answers")
    vendor, (run,) = ports.provider("openai", "openai_default"), ports.ledger.runs()
    for shard in ports.ledger.shards(run.run):
        assert shard.current is not None
        collect(ports, shard, vendor.poll(str(shard.current.batch_id)))
        validate(ports, job, ports.ledger.shard(shard.plan.ref))
    counts = [shard.counts for shard in ports.ledger.shards(run.run)]
    good, rows = sum(count["good"] for count in counts), sum(sum(count.values()) for count in counts)
    return {"rows": rows, "good": good}


def with_jsonschema(data: Path, out: Path) -> Mapping[str, Any]:
    """Do it as a vendor's cookbook does."""
    from jsonschema import Draft202012Validator

    validator, good, rows, usd = Draft202012Validator(SCHEMA), 0, 0, 0.0
    keys = dict(json.loads(line) for line in (data / "keys.jsonl").open())
    with (out / "answers.csv").open("w", newline="") as answers, (out / "bad.jsonl").open("w") as bad:
        table = csv.DictWriter(answers, ["key", "model", "input_tokens", "output_tokens", "usd", *SCHEMA["properties"]])
        table.writeheader()
        for file in (data / "answers").iterdir():
            for line in file.open():
                result, rows = json.loads(line), rows + 1
                body, key = result["response"]["body"], keys.pop(result["custom_id"])
                try:
                    answer = json.loads(body["choices"][0]["message"]["content"])
                    problem = next((error.message for error in validator.iter_errors(answer)), None)
                except (KeyError, ValueError) as error:
                    problem = str(error)
                tokens = body.get("usage", {"prompt_tokens": 0, "completion_tokens": 0})
                cost = tokens["prompt_tokens"] * IN_USD + tokens["completion_tokens"] * OUT_USD
                usd += cost
                if problem is not None:
                    bad.write(json.dumps({"key": key, "problem": problem, "usd": cost}) + "\n")
                    continue
                good += 1
                about = {"key": key, "model": body["model"], "usd": cost}
                used = {"input_tokens": tokens["prompt_tokens"], "output_tokens": tokens["completion_tokens"]}
                table.writerow(about | used | answer)
    return {"rows": rows, "good": good}


def job_of(data: Path) -> dict[str, Any]:
    """Describe the job."""
    return job_values({"files": f"{data}/records.parquet"}, {"files": f"{data}/sink"})


def answered(data: Path, records: int) -> None:
    """Leave a run whose batches have ended, and the keys of its requests as a cookbook keeps them."""
    from vendor import WINDOW, ports_of, send

    from nightbatch import flow
    from nightbatch.core.ids import custom_id_prefix, run_code
    from nightbatch.job import Job
    from nightbatch.steps.parquet import read_rows

    make(data, records, size=SHORT)
    job = Job.model_validate(job_of(data))
    ports = ports_of(job, data / "home", data / "answers")
    plan = flow.prepare(ports, job, WINDOW)
    send(ports, job, plan.run, data / "answers")
    with (data / "keys.jsonl").open("w") as keys:
        for shard in plan.shards:
            ref = shard.ref
            prefix = custom_id_prefix(ports.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard)
            for row, (key,) in enumerate(read_rows(ports.store, shard.index_name, ["key"])):
                keys.write(json.dumps([f"{prefix}{row}", key]) + "\n")


VARIANTS: dict[str, Variant] = {"nightbatch": ours, "jsonschema": with_jsonschema}


def rows(found: dict[str, dict[str, float]]) -> list[Row]:
    """Compare with what was asked for."""
    assert found["nightbatch"]["good"] == found["jsonschema"]["good"], f"other answers are good: {found}"
    part = "collect, validate, cost and Parquet: json and jsonschema take"
    return [ratio(part, found, "nightbatch", "jsonschema", at_least=6)]


if __name__ == "__main__":
    compare(__file__, VARIANTS, answered, rows)
