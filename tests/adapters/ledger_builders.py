"""Windows, plans and intents for the tests of the ledger, and short ways to a shard in a state."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.budget import Budget, BudgetKind
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost, Usage
from nightbatch.core.shard import ShardPlan
from nightbatch.core.window import Window
from nightbatch.ports import Attempt, Intent, RoundPlan, Run

NOW = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
NIGHT = Window(datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))
USD = Decimal


def night(number: int) -> Window:
    """Give the window that is `number` days after `NIGHT`."""
    return Window(NIGHT.start + timedelta(days=number), NIGHT.end + timedelta(days=number))


def shard_plan(ref: ShardRef, **changes: Any) -> ShardPlan:
    """Give a shard with a value of its own in every field."""
    values: dict[str, Any] = {
        "choice": 1,
        "rows": 100 + ref.shard,
        "size_bytes": 5_000_000_000,
        "content_sha256": f"{ref.shard:064x}",
        "requests_name": f"{ref.folder}/requests.jsonl",
        "index_name": f"{ref.folder}/index.parquet",
        "input_tokens_bound": 3_000_000_000,
        "output_tokens_cap": 4_000_000_000,
        "worst_usd": USD("1.000000001"),
        "expected_usd": USD("0.100000000"),
        "model": "model-a",
        "provider": "openai",
        "connection": "openai_default",
        "max_output_tokens": 256,
        "prompt_version": "v1",
        "index_sha256": f"{ref.shard + 1:064x}",
        "queue_tokens": 2_000_000_000,
        "hint": "Answer with one JSON object — “nothing else”.",
    }
    return ShardPlan(ref=ref, **(values | changes))


def round_plan(run: str, *, shards: int = 1, round_: int = 0, **changes: Any) -> RoundPlan:
    """Give a round of so many shards."""
    plans = tuple(shard_plan(ShardRef(run, round_, number), **changes) for number in range(shards))
    return RoundPlan(run, round_, plans, {"counts": {"requests": 100}, "job": "job: x", "ratio": None})


def sealed_run(ledger: SqlLedger, *, job: str = "job", shards: int = 1, window: Window = NIGHT, **changes: Any) -> Run:
    """Open a run and seal its first round."""
    run = ledger.open_run(job, window, now=NOW)
    ledger.seal(round_plan(run.run, shards=shards, **changes), now=NOW)
    return ledger.run(run.run)


def intent(ref: ShardRef, **changes: Any) -> Intent:
    """Give the intent of a first attempt; `budget_usd` is short for a budget of the run."""
    if "budget_usd" in changes:
        changes["budgets"] = (Budget(BudgetKind.RUN, changes.pop("budget_usd")),)
    values: dict[str, Any] = {
        "expected_attempts": 0,
        "provider": "openai",
        "account": "org-1",
        "reserve_usd": USD("1"),
        "day": NOW.date(),
        "send_for": timedelta(seconds=120),
        "certain_after": timedelta(seconds=1200),
        "distinct_rows": False,
    }
    return Intent(ref=ref, **(values | changes))


def batch(batch_id: str = "batch-1", **changes: Any) -> BatchState:
    """Give what a vendor says of a running batch."""
    values: dict[str, Any] = {"status": BatchStatus.RUNNING, "vendor_status": "in_progress"}
    return BatchState(batch_id, **(values | changes))


COST = Cost(Usage(1000, 200, 30, 400, 50), USD("0.250000001"), USD("0.500000002"))


def opened(ledger: SqlLedger, ref: ShardRef, batch_id: str = "batch-1", **changes: Any) -> Attempt:
    """Bring a sealed shard to the vendor."""
    attempt = ledger.begin(intent(ref, **changes), now=NOW)
    ledger.note_sending(attempt.attempt_id)
    ledger.note_open(attempt.attempt_id, batch(batch_id), now=NOW)
    return attempt


def collected(ledger: SqlLedger, ref: ShardRef, batch_id: str = "batch-1", *, cost: Cost = COST) -> Attempt:
    """Bring a sealed shard to its verdicts."""
    attempt = opened(ledger, ref, batch_id)
    ledger.note_stored(attempt.attempt_id, ["output.jsonl"], ["ab" * 32], now=NOW)
    ledger.note_collected(ref, verdicts_name="verdicts.parquet", counts={"good": 99}, cost=cost, now=NOW)
    return attempt
