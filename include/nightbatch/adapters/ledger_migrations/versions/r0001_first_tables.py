"""The first tables and views."""

import uuid

import sqlalchemy as sa
from alembic import op

from nightbatch.adapters.ledger_types import BIG_ID, Usd, UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

COSTS = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)


def upgrade() -> None:
    """Create the tables and views, and give the ledger its name."""
    _create_runs()
    _create_shards()
    _create_attempts()
    _create_money()
    _create_pending_and_events()
    _create_views()
    meta = sa.table("nb_meta", sa.column("name", sa.Text), sa.column("value", sa.Text))
    op.bulk_insert(meta, [{"name": "ledger_id", "value": uuid.uuid4().hex}])


def downgrade() -> None:
    """Refuse: a ledger only goes forward; restore a backup instead."""
    raise NotImplementedError("a ledger only goes forward; restore a backup instead")


def _create_runs() -> None:
    op.create_table(
        "nb_meta", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
    op.create_table("nb_jobs", sa.Column("job", sa.Text, primary_key=True))
    op.create_table(
        "nb_runs",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, sa.ForeignKey("nb_jobs.job"), nullable=False),
        sa.Column("window_start_utc", UtcTime, nullable=False),
        sa.Column("window_end_utc", UtcTime, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("started_utc", UtcTime, nullable=False),
        sa.Column("settled_utc", UtcTime),
        sa.Column("books", sa.JSON),
        sa.UniqueConstraint("job", "window_start_utc", "window_end_utc", "generation", name="nb_runs_window_key"),
    )
    op.create_index("nb_runs_started_idx", "nb_runs", ["started_utc"])
    op.create_table(
        "nb_rounds",
        sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("sealed_utc", UtcTime, nullable=False),
    )


def _create_shards() -> None:
    op.create_table(
        "nb_shards",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("choice", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("content_sha256", sa.Text, nullable=False),
        sa.Column("requests_name", sa.Text, nullable=False),
        sa.Column("index_name", sa.Text, nullable=False),
        sa.Column("input_tokens_bound", sa.BigInteger, nullable=False),
        sa.Column("output_tokens_cap", sa.BigInteger, nullable=False),
        sa.Column("worst_usd", Usd, nullable=False),
        sa.Column("expected_usd", Usd, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("max_output_tokens", sa.Integer),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_utc", UtcTime, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("current_attempt", sa.Integer),
        sa.Column("not_before_utc", UtcTime),
        sa.Column("raw_names", sa.JSON),
        sa.Column("raw_sha256s", sa.JSON),
        sa.Column("verdicts_name", sa.Text, nullable=False, server_default=""),
        sa.Column("counts", sa.JSON),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in COSTS),
        sa.Column("batch_usd", Usd, nullable=False, server_default="0.000000000"),
        sa.Column("realtime_usd", Usd, nullable=False, server_default="0.000000000"),
        sa.Column("merged", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("held_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("taken_by_round", sa.Integer),
        sa.ForeignKeyConstraint(["run", "round"], ["nb_rounds.run", "nb_rounds.round"], name="nb_shards_round_fkey"),
    )


def _create_attempts() -> None:
    op.create_table(
        "nb_attempts",
        sa.Column("attempt_id", BIG_ID, primary_key=True),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("content_sha256", sa.Text, nullable=False),
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
        sa.Column("vendor_status", sa.Text, nullable=False, server_default=""),
        sa.Column("rows_done", sa.BigInteger),
        sa.Column("ended_utc", UtcTime),
        sa.Column("end_reason", sa.Text, nullable=False, server_default=""),
        sa.ForeignKeyConstraint(
            ["run", "round", "shard"],
            ["nb_shards.run", "nb_shards.round", "nb_shards.shard"],
            name="nb_attempts_shard_fkey",
        ),
        sa.UniqueConstraint("run", "round", "shard", "number", name="nb_attempts_number_key"),
        sa.UniqueConstraint("provider", "batch_id", name="nb_attempts_batch_key"),
    )
    unresolved = sa.text("distinct_rows AND state IN ('intent', 'sending')")
    op.create_index(
        "nb_attempts_distinct_rows_key",
        "nb_attempts",
        ["provider", "account", "rows"],
        unique=True,
        postgresql_where=unresolved,
        sqlite_where=unresolved,
    )


def _create_money() -> None:
    op.create_table(
        "nb_money",
        sa.Column("entry_id", BIG_ID, primary_key=True),
        sa.Column("attempt_id", BIG_ID, sa.ForeignKey("nb_attempts.attempt_id"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("usd", Usd, nullable=False),
        sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("booked_utc", UtcTime, nullable=False),
        sa.UniqueConstraint("attempt_id", "kind", name="nb_money_kind_key"),
    )
    op.create_index("nb_money_run_idx", "nb_money", ["run"])
    op.create_index("nb_money_day_idx", "nb_money", ["day", "job"])


def _create_pending_and_events() -> None:
    op.create_table(
        "nb_pending",
        sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("left_utc", UtcTime, nullable=False),
        sa.Column("taken_by_run", sa.Text, sa.ForeignKey("nb_runs.run")),
        sa.Column("taken_utc", UtcTime),
    )
    op.create_index("nb_pending_job_idx", "nb_pending", ["job", "taken_by_run"])
    op.create_table(
        "nb_events",
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("recorded_utc", UtcTime, nullable=False),
    )
    op.create_index("nb_events_run_idx", "nb_events", ["run"])
    op.create_table(
        "nb_deliveries",
        sa.Column("event_id", sa.Text, sa.ForeignKey("nb_events.event_id"), primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("claimed_utc", UtcTime, nullable=False),
        sa.Column("delivered_utc", UtcTime),
    )


def usd_total(column: str, *, only: str = "TRUE") -> str:
    """Write the exact sum of a money column; SQLite adds nano-dollars as whole numbers and puts the point back."""
    if op.get_context().dialect.name != "sqlite":
        return f"COALESCE(SUM({column}) FILTER (WHERE {only}), 0)"
    nano = f"COALESCE(SUM(CAST(REPLACE({column}, '.', '') AS INTEGER)) FILTER (WHERE {only}), 0)"
    return f"printf('%d.%09d', {nano} / 1000000000, {nano} % 1000000000)"


def count_sum(expression: str) -> str:
    """Write a sum of whole numbers, which PostgreSQL would make a NUMERIC of."""
    return f"CAST(SUM({expression}) AS BIGINT)"


def _create_views() -> None:
    nothing = "'0.000000000'" if op.get_context().dialect.name == "sqlite" else "0.000000000"
    tokens = ", ".join(f"{count_sum(f's.{name}')} AS {name}" for name in COSTS)
    held = "m.kind IN ('reserve', 'release')"
    op.execute(f"""
        CREATE VIEW nb_v_runs AS
        WITH costs AS (
            SELECT m.run, {usd_total("m.usd", only=held)} AS reserved_usd,
                {usd_total("m.usd", only="m.kind = 'actual'")} AS actual_usd
            FROM nb_money m GROUP BY m.run
        ), progress AS (
            SELECT s.run, MAX(s.round) + 1 AS rounds, COUNT(*) AS shards,
                SUM(CASE WHEN s.state IN ('sealed', 'submitting', 'open', 'stored') THEN 1 ELSE 0 END) AS shards_open,
                SUM(CASE WHEN s.state = 'held' THEN 1 ELSE 0 END) AS shards_held,
                SUM(CASE WHEN s.state = 'loaded' THEN 1 ELSE 0 END) AS shards_loaded,
                {count_sum("CASE WHEN s.round = 0 THEN s.rows ELSE 0 END")} AS rows,
                {count_sum("s.merged")} AS merged
            FROM nb_shards s GROUP BY s.run
        )
        SELECT r.run, r.job, r.window_start_utc, r.window_end_utc, r.generation, r.state, r.started_utc, r.settled_utc,
            COALESCE(p.rounds, 0) AS rounds, COALESCE(p.shards, 0) AS shards,
            COALESCE(p.shards_open, 0) AS shards_open, COALESCE(p.shards_held, 0) AS shards_held,
            COALESCE(p.shards_loaded, 0) AS shards_loaded, COALESCE(p.rows, 0) AS rows,
            COALESCE(p.merged, 0) AS merged, COALESCE(c.reserved_usd, {nothing}) AS reserved_usd,
            COALESCE(c.actual_usd, {nothing}) AS actual_usd
        FROM nb_runs r LEFT JOIN progress p ON p.run = r.run LEFT JOIN costs c ON c.run = r.run
    """)  # noqa: S608 - constants of this file
    op.execute(f"""
        CREATE VIEW nb_v_costs AS
        SELECT m.day, m.job, m.provider, m.model, {count_sum("s.rows")} AS rows, {tokens},
            {usd_total("m.usd")} AS batch_usd, {usd_total("s.realtime_usd")} AS realtime_usd
        FROM nb_money m JOIN nb_attempts a ON a.attempt_id = m.attempt_id
            JOIN nb_shards s ON s.run = a.run AND s.round = a.round AND s.shard = a.shard
        WHERE m.kind = 'actual'
        GROUP BY m.day, m.job, m.provider, m.model
    """)  # noqa: S608 - constants of this file
    op.execute("""
        CREATE VIEW nb_v_batches AS
        SELECT a.provider, a.account, a.batch_id, a.state, a.vendor_status, r.job, a.run, a.round, a.shard,
            a.number AS attempt, s.model, a.rows, a.rows_done, a.intent_utc, a.created_utc, a.last_seen_utc,
            a.ended_utc, a.end_reason, a.reserved_usd,
            CASE WHEN s.current_attempt = a.number AND s.state IN ('collected', 'loaded') THEN s.batch_usd
                END AS actual_usd
        FROM nb_attempts a JOIN nb_runs r ON r.run = a.run
            JOIN nb_shards s ON s.run = a.run AND s.round = a.round AND s.shard = a.shard
    """)
