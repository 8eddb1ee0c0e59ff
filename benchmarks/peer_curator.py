"""
The same night by curator: `peer_curator.py DATA OUT` with the Python of that peer, and its vendor in the environment.

It renders, writes request files of 50,000, sends, waits, parses each answer into a pydantic type, prices it, and gives
a dataset, which is kept as Parquet. It loads nothing anywhere, and looks at a batch once a second here.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from peer_airflow import answer
from records import MODEL, SYSTEM


def main() -> None:
    """Run it."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    from bespokelabs import curator
    from datasets import Dataset

    class Reviews(curator.LLM):
        response_format = answer()

        def prompt(self, input: dict) -> str:
            return f"Review of {input['product']}:\n{input['text']}"

        def parse(self, input: dict, response: object) -> dict:
            return {"id": input["id"], **response.model_dump()}

    vendor = {"base_url": os.environ["BENCH_VENDOR"], "batch_check_interval": 1, "batch_size": 50_000}
    llm = Reviews(model_name=MODEL, batch=True, backend="openai", backend_params=vendor, system_prompt=SYSTEM)
    reviews = Dataset.from_parquet(f"{data}/records.parquet", cache_dir=str(out / "cache"))
    answered = llm(reviews, working_dir=str(out / "work")).dataset
    answered.to_parquet(str(out / "answers.parquet"))
    print("\n" + json.dumps({"rows": len(answered)}))


if __name__ == "__main__":
    main()
