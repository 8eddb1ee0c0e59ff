"""The ledger's tables (see `docs/ledger.md`)."""

from __future__ import annotations

import sqlalchemy as sa

from nightbatch.adapters.ledger_types import BIG_ID, Usd, UtcTime

REVISIONS = ("0001", "0002", "0003")
"""Every version of the tables, oldest first. The last one is what this library works with."""

WORKS_FROM = "0002"
"""
Whoever works with this version of the tables, or a later one, may go on beside the newest.

A migration that only adds tables, and columns with a default, leaves it as it is. One that an older library could not
go on beside raises it to its own version; it is refused while runs are open.
"""

metadata = sa.MetaData()

_SHARD_KEY = ["nb_shards.run", "nb_shards.round", "nb_shards.shard"]


def _text(name: str, *, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=default)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


meta = sa.Table("nb_meta", metadata, sa.Column("name", sa.Text, primary_key=True), _text("value"))

jobs = sa.Table("nb_jobs", metadata, sa.Column("job", sa.Text, primary_key=True))

runs = sa.Table(
    "nb_runs",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, sa.ForeignKey("nb_jobs.job"), nullable=False),
    sa.Column("window_start_utc", UtcTime, nullable=False),
    sa.Column("window_end_utc", UtcTime, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    _text("state"),
    sa.Column("started_utc", UtcTime, nullable=False),
    sa.Column("settled_utc", UtcTime),
    sa.Column("books", sa.JSON(none_as_null=True)),
    sa.Column("cancelled_utc", UtcTime),
    sa.Column("cancel_drops", sa.Boolean),
    sa.Column("staging_removed_utc", UtcTime),
    sa.Column("staging_emptied_utc", UtcTime),
    sa.UniqueConstraint("job", "window_start_utc", "window_end_utc", "generation", name="nb_runs_window_key"),
    sa.Index("nb_runs_started_idx", "started_utc"),
)

rounds = sa.Table(
    "nb_rounds",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("sealed_utc", UtcTime, nullable=False),
)

shards = sa.Table(
    "nb_shards",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("choice", sa.Integer, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    _text("content_sha256"),
    _text("requests_name"),
    _text("index_name"),
    sa.Column("input_tokens_bound", sa.BigInteger, nullable=False),
    sa.Column("output_tokens_cap", sa.BigInteger, nullable=False),
    sa.Column("worst_usd", Usd, nullable=False),
    sa.Column("expected_usd", Usd, nullable=False),
    _text("model"),
    _text("provider"),
    _text("connection"),
    sa.Column("max_output_tokens", sa.Integer),
    _text("hint"),
    _text("state"),
    sa.Column("state_utc", UtcTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("current_attempt", sa.Integer),
    sa.Column("not_before_utc", UtcTime),
    sa.Column("raw_names", sa.JSON(none_as_null=True)),
    sa.Column("raw_sha256s", sa.JSON(none_as_null=True)),
    _text("verdicts_name", default=""),
    sa.Column("counts", sa.JSON(none_as_null=True)),
    _count("input_tokens"),
    _count("cached_tokens"),
    _count("cache_write_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    sa.Column("batch_usd", Usd, nullable=False, server_default="0.000000000"),
    sa.Column("realtime_usd", Usd, nullable=False, server_default="0.000000000"),
    _count("merged"),
    _text("held_reason", default=""),
    sa.Column("taken_by_round", sa.Integer),
    sa.Column("rates", sa.JSON(none_as_null=True)),
    _text("index_sha256", default=""),
    _text("verdicts_sha256", default=""),
    _text("prompt_version", default=""),
    _text("problem_kind", default=""),
    _text("problem", default=""),
    _text("waits_for", default=""),
    _count("queue_tokens"),
    sa.Column("profile", sa.JSON(none_as_null=True)),
    sa.ForeignKeyConstraint(["run", "round"], ["nb_rounds.run", "nb_rounds.round"], name="nb_shards_round_fkey"),
)

attempts = sa.Table(
    "nb_attempts",
    metadata,
    sa.Column("attempt_id", BIG_ID, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("shard", sa.Integer, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    _text("state"),
    _text("provider"),
    _text("account"),
    _text("content_sha256"),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("distinct_rows", sa.Boolean, nullable=False),
    sa.Column("intent_utc", UtcTime, nullable=False),
    sa.Column("send_deadline_utc", UtcTime, nullable=False),
    sa.Column("certain_utc", UtcTime, nullable=False),
    sa.Column("reserved_usd", Usd, nullable=False),
    sa.Column("file_id", sa.Text),
    sa.Column("batch_id", sa.Text),
    sa.Column("created_utc", UtcTime),
    sa.Column("last_seen_utc", UtcTime),
    _text("vendor_status", default=""),
    sa.Column("rows_done", sa.BigInteger),
    sa.Column("ended_utc", UtcTime),
    _text("end_reason", default=""),
    _text("model", default=""),
    _count("queue_tokens"),
    sa.Column("turned_up_utc", UtcTime),
    sa.Column("vendor_usage", sa.JSON(none_as_null=True)),
    sa.Column("result_files", sa.JSON(none_as_null=True)),
    sa.Column("vendor_files_deleted_utc", UtcTime),
    sa.Column("gone_since_utc", UtcTime),
    sa.Column("looked_utc", UtcTime),
    _count("looked_ms"),
    sa.ForeignKeyConstraint(["run", "round", "shard"], _SHARD_KEY, name="nb_attempts_shard_fkey"),
    sa.UniqueConstraint("run", "round", "shard", "number", name="nb_attempts_number_key"),
    sa.UniqueConstraint("provider", "batch_id", name="nb_attempts_batch_key"),
    sa.Index("nb_attempts_account_idx", "provider", "account", "state"),
    sa.Index("nb_attempts_begun_idx", "provider", "account", "intent_utc"),
)

UNRESOLVED = sa.and_(attempts.c.distinct_rows, attempts.c.state.in_(("intent", "sending")))
sa.Index(
    "nb_attempts_distinct_rows_key",
    attempts.c.provider,
    attempts.c.account,
    attempts.c.rows,
    unique=True,
    postgresql_where=UNRESOLVED,
    sqlite_where=UNRESOLVED,
)

money = sa.Table(
    "nb_money",
    metadata,
    sa.Column("entry_id", BIG_ID, primary_key=True),
    sa.Column("attempt_id", BIG_ID, sa.ForeignKey("nb_attempts.attempt_id"), nullable=False),
    _text("kind"),
    sa.Column("usd", Usd, nullable=False),
    sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), nullable=False),
    _text("job"),
    _text("provider"),
    _text("account"),
    _text("model"),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("booked_utc", UtcTime, nullable=False),
    sa.UniqueConstraint("attempt_id", "kind", name="nb_money_kind_key"),
    sa.Index("nb_money_run_idx", "run"),
    sa.Index("nb_money_day_idx", "day", "job"),
    sa.Index("nb_money_account_idx", "provider", "account", "day"),
)

pending = sa.Table(
    "nb_pending",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    _text("job"),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("left_utc", UtcTime, nullable=False),
    sa.Column("taken_by_run", sa.Text, sa.ForeignKey("nb_runs.run")),
    sa.Column("taken_utc", UtcTime),
    sa.Index("nb_pending_job_idx", "job", "taken_by_run"),
)

events = sa.Table(
    "nb_events",
    metadata,
    sa.Column("event_id", sa.Text, primary_key=True),
    _text("kind"),
    _text("run"),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("recorded_utc", UtcTime, nullable=False),
    sa.Index("nb_events_run_idx", "run"),
)

deliveries = sa.Table(
    "nb_deliveries",
    metadata,
    sa.Column("event_id", sa.Text, sa.ForeignKey("nb_events.event_id"), primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("claims", sa.Integer, nullable=False),
    sa.Column("claimed_utc", UtcTime, nullable=False),
    sa.Column("delivered_utc", UtcTime),
)

accounts = sa.Table(
    "nb_accounts",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
)

queue = sa.Table(
    "nb_queue",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    _text("provider"),
    _text("account"),
    _text("model"),
    _text("job"),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("since_utc", UtcTime, nullable=False),
    sa.Column("seen_utc", UtcTime, nullable=False),
    sa.Column("gone_utc", UtcTime, nullable=False),
    _text("reason"),
    sa.ForeignKeyConstraint(["run", "round", "shard"], _SHARD_KEY, name="nb_queue_shard_fkey"),
    sa.Index("nb_queue_account_idx", "provider", "account"),
)

limits = sa.Table(
    "nb_limits",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("most", sa.BigInteger),
    sa.Column("learned_utc", UtcTime, nullable=False),
    sa.Column("closed_until_utc", UtcTime),
)

gates = sa.Table(
    "nb_gates",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    _text("state"),
    sa.Column("facts", sa.JSON, nullable=False),
    _text("decided_by", default=""),
    sa.Column("decided_utc", UtcTime, nullable=False),
)

proofs = sa.Table(
    "nb_proofs",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    _text("link"),
    _text("place"),
    _text("expected"),
    _text("found"),
    sa.Column("holds", sa.Boolean),
    sa.Column("proved_utc", UtcTime, nullable=False),
)
