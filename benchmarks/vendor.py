"""A night without a vendor: OpenAI's batches, ended as soon as they are made, with answers by seed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from records import DAY, MODEL, NEXT_DAY, SEED, WORDS

from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.providers.openai import OpenAIProvider
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import Label
from nightbatch.core.queue import QueueRules
from nightbatch.core.request import Endpoint
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Connection, Ports, RawFile
from nightbatch.steps.submit import submit

WINDOW = Window(DAY, NEXT_DAY)
PIECE_BYTES = 64 << 10
BAD = 0.01
"""The share of answers that are of no use: a third each is cut off, breaks the schema, or is an error."""


class AnsweredVendor(OpenAIProvider):
    """The vendor's adapter without its network: a batch is a file, whose name says how many rows it has."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Connection("openai_default", "openai", password="sk-none"), request_timeout_s=600)
        self.folder, self.queue = folder, QueueRules()

    def account(self) -> str:
        """Name the account."""
        return "bench"

    def upload(self, lines: Iterator[bytes], *, size_bytes: int, name: str) -> str | None:
        """Take a request file; its id is the number of its rows."""
        return str(sum(piece.count(b"\n") for piece in lines))

    def create(self, *, file_id: str | None, lines: Iterator[bytes], endpoint: Endpoint, label: Label) -> BatchState:
        """Make a batch."""
        return self.poll(f"{label.prefix}{file_id}")

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch, which has ended."""
        return BatchState(batch_id, BatchStatus.ENDED, "completed", result_files=(batch_id,))

    def results(self, state: BatchState) -> Iterator[RawFile]:
        """Stream its answers."""
        yield RawFile("output", _pieces(self.folder / f"{state.batch_id}.jsonl"))


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece


def ports_of(job: Job, home: Path, answers: Path, **connections: str) -> Ports:
    """Open what a night of this job needs, all of it below a folder; connections are variables of the environment."""
    environ = {"NIGHTBATCH_HOME": str(home), "OPENAI_API_KEY": "sk-none", **connections}
    ports = open_ports(job, settings_from(environ), from_environment(environ))
    return replace(ports, provider=cache(lambda _name, _connection: AnsweredVendor(answers)))


def send(ports: Ports, job: Job, run: str, answers: Path) -> None:
    """Send all shards of a run, and write what the vendor answers."""
    for shard in ports.ledger.shards(run):
        submit(ports, job, shard)
    answer(ports, run, answers)


def answer(ports: Ports, run: str, answers: Path) -> None:
    """Write what the vendor answers to all shards of a run."""
    for shard in ports.ledger.shards(run):
        assert shard.current is not None and shard.current.batch_id is not None
        write_answers(answers, shard.current.batch_id)


def write_answers(folder: Path, batch_id: str) -> None:
    """Write the result file of a batch, about 1 KB a line."""
    prefix, _, rows = batch_id.rpartition("_")
    dice = random.Random(f"{SEED} {prefix.split('_', 3)[3]}")
    folder.mkdir(exist_ok=True)
    with (folder / f"{batch_id}.jsonl").open("w") as file:
        for row in range(int(rows)):
            file.write(json.dumps(_line(dice, f"{prefix}_{row}")) + "\n")


def _line(dice: random.Random, custom_id: str) -> dict[str, Any]:
    code = f"{dice.getrandbits(96):024x}"
    line: dict[str, Any] = {"id": f"batch_req_{code}", "custom_id": custom_id, "response": None, "error": None}
    fate = dice.random() / BAD
    if fate < 1 / 3:
        error = {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}
        return line | {"response": {"status_code": 500, "request_id": code, "body": {"error": error}}}
    answer = {
        "sentiment": dice.choice(["positive", "neutral", "negative"]),
        "topics": dice.choices(WORDS, k=4),
        "language": "en",
        "urgency": "high" if 1 / 3 <= fate < 2 / 3 else dice.randrange(6),
        "is_complaint": dice.random() < 0.3,
        "summary": " ".join(dice.choices(WORDS, k=55)),
    }
    text = json.dumps(answer, ensure_ascii=False)
    message = {"role": "assistant", "content": text[:200] if 2 / 3 <= fate < 1 else text, "refusal": None}
    asked, said = dice.randrange(400, 700), dice.randrange(80, 140)
    body = {
        "id": f"chatcmpl-{code}",
        "object": "chat.completion",
        "created": 1_773_100_800,
        "model": f"{MODEL}-2025-08-07",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": said,
            "total_tokens": asked + said,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "system_fingerprint": None,
    }
    return line | {"response": {"status_code": 200, "request_id": f"req_{code}", "body": body}}


def copied(home: Path, to: Path) -> Path:
    """Copy what a run has left, so that each turn does the same; files of the store, which never change, are linked."""
    shutil.copytree(home / "staging", to / "staging", copy_function=os.link)
    for file in home.glob("ledger.sqlite*"):
        shutil.copy(file, to)
    return to
