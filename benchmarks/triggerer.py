"""
Time a triggerer with a thousand open batches: what it takes of a core, and of memory for each batch.

    .venv/bin/python benchmarks/triggerer.py [BATCHES] [SECONDS] [AGE_MINUTES]

The triggers are the product's own, in one event loop as Airflow's triggerer runs them; each polls an emulator for a
batch that does not end, as often as the defaults say for a batch of that age (a tenth of it, 30 to 300 s). All begin at
once, which no night does. The vendor's SDK is loaded by a look before: a triggerer, which runs for weeks, pays for it
once. Calls are counted: a page of a listing is one.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from turns import Row, asked_for, finish, held_mb

MOST_SHARE, MOST_MB_A_BATCH = 0.05, 1.0


def open_batches(address: str, count: int) -> list[str]:
    """Make so many batches of one row that do not end."""
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    with httpx.Client(base_url=address, headers={"Authorization": "Bearer sk-emulator"}, trust_env=False) as client:
        sent = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", json.dumps(line))})
        values = {"input_file_id": sent.raise_for_status().json()["id"], "endpoint": "/v1/chat/completions"}
        made = (client.post("/v1/batches", json={**values, "completion_window": "24h"}) for _ in range(count))
        return [one.raise_for_status().json()["id"] for one in made]


async def wait(batches: list[str], seconds: float, age: timedelta) -> dict[str, float]:
    """Let all triggers wait for so long; gives what that took."""
    from nightbatch.orchestration.looks import shared_looks
    from nightbatch.orchestration.trigger import ShardTrigger

    now = datetime.now(UTC)
    named: dict[str, Any] = {"until": (now + timedelta(days=1)).isoformat(), "created": (now - age).isoformat()}
    named["labels"] = {"job_name": "bench", "provider": "openai", "model": "gpt-5-mini", "connection": "openai_bench"}
    with shared_looks("openai", "openai_bench", request_timeout_s=60.0) as looks:
        await looks.look(batches[0], created=now, patience_s=0.0)
    empty_mb, cpu, began = held_mb(), time.process_time(), time.perf_counter()
    triggers = [ShardTrigger(provider="openai", connection="openai_bench", batch_id=one, **named) for one in batches]
    looks = [asyncio.create_task(anext(trigger.run())) for trigger in triggers]
    await asyncio.sleep(seconds)
    took = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - began,
        "mb_a_batch": (held_mb() - empty_mb) / len(batches),
        "ended": float(sum(look.done() for look in looks)),
    }
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)
    return took


def main() -> None:
    """Start the vendor, make the batches, and wait for them."""
    count, seconds, minutes = asked_for(1_000, 300, 60)
    argv = [sys.executable, "-m", "nightbatch.cli", "emulator", "serve", "--port", "0", "--exit-with-parent"]
    with (
        TemporaryDirectory(prefix="nightbatch-bench-") as folder,
        subprocess.Popen(
            [*argv, "--batch-seconds", "80000", "--data-dir", folder], stdout=subprocess.PIPE, text=True
        ) as vendor,
    ):
        assert vendor.stdout is not None
        address = next(word for word in vendor.stdout.readline().split() if word.startswith("http")).rstrip("/.,")
        os.environ["AIRFLOW_CONN_OPENAI_BENCH"] = json.dumps(
            {"conn_type": "openai", "host": f"{address}/v1", "password": "sk-emulator"}
        )
        batches = open_batches(address, count)
        headers = {"Authorization": "Bearer sk-emulator"}

        def asked() -> int:
            """Say how often the vendor was asked for a batch, or for a list of them."""
            told = httpx.get(f"{address}/emulator/state", headers=headers, trust_env=False).json()["requests"]
            return sum(int(told.get(f"openai {call}", 0)) for call in ("retrieve_batch", "list_batches"))

        before = asked()
        took = asyncio.run(wait(batches, seconds, timedelta(minutes=minutes)))
        looks = asked() - before
        vendor.terminate()
    assert not took["ended"], f"{took['ended']:.0f} triggers ended, and none should"
    share, a_look = took["cpu_s"] / took["wall_s"], took["cpu_s"] / max(looks, 1) * 1000
    part = f"triggerer, {count:,} open batches"
    seen = f"{share:.1%} of a core, {looks / took['wall_s']:.1f} calls a second, {a_look:.1f} ms of CPU each"
    memory = f"{took['mb_a_batch']:.2f} MB"
    rows = [
        Row(part, f"≤ {MOST_SHARE:.0%} of a core", seen, share <= MOST_SHARE),
        Row(f"{part}: memory a batch", f"≤ {MOST_MB_A_BATCH:.0f} MB", memory, took["mb_a_batch"] <= MOST_MB_A_BATCH),
    ]
    finish(__file__, {"triggerer": {**took, "looks": looks}}, rows)


if __name__ == "__main__":
    main()
