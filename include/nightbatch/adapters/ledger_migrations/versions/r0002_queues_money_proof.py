"""Queues and budgets shared by all jobs of an account, gates, the proof of a run, and what is tidied up."""

import sqlalchemy as sa
from alembic import op

from nightbatch.adapters.ledger_migrations.versions.r0001_first_tables import COSTS, count_sum, usd_total
from nightbatch.adapters.ledger_types import UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is new; every column that an older library does not know has a default, so that it may go on."""
    _add_queues()
    _add_budgets()
    _add_gates()
    _add_proof()
    _add_tidying()
    _add_lanes_to_costs()
    _add_problems()


def downgrade() -> None:
    """Refuse: a ledger only goes forward; restore a backup instead."""
    raise NotImplementedError("a ledger only goes forward; restore a backup instead")


def _add_queues() -> None:
    op.create_table(
        "nb_accounts",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, primary_key=True),
    )
    op.add_column("nb_attempts", sa.Column("model", sa.Text, nullable=False, server_default=""))
    op.add_column("nb_attempts", sa.Column("queue_tokens", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("nb_attempts_account_idx", "nb_attempts", ["provider", "account", "state"])
    op.create_index("nb_attempts_begun_idx", "nb_attempts", ["provider", "account", "intent_utc"])
    op.add_column("nb_shards", sa.Column("queue_tokens", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "nb_queue",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("since_utc", UtcTime, nullable=False),
        sa.Column("seen_utc", UtcTime, nullable=False),
        sa.Column("gone_utc", UtcTime, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["run", "round", "shard"],
            ["nb_shards.run", "nb_shards.round", "nb_shards.shard"],
            name="nb_queue_shard_fkey",
        ),
    )
    op.create_index("nb_queue_account_idx", "nb_queue", ["provider", "account"])
    op.create_table(
        "nb_limits",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("most", sa.BigInteger),
        sa.Column("learned_utc", UtcTime, nullable=False),
        sa.Column("closed_until_utc", UtcTime),
    )


def _add_budgets() -> None:
    op.add_column("nb_attempts", sa.Column("turned_up_utc", UtcTime))
    op.add_column("nb_shards", sa.Column("waits_for", sa.Text, nullable=False, server_default=""))
    op.create_index("nb_money_account_idx", "nb_money", ["provider", "account", "day"])


def _add_gates() -> None:
    op.create_table(
        "nb_gates",
        sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False, server_default=""),
        sa.Column("decided_utc", UtcTime, nullable=False),
    )


def _add_proof() -> None:
    op.create_table(
        "nb_proofs",
        sa.Column("run", sa.Text, sa.ForeignKey("nb_runs.run"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("link", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("expected", sa.Text, nullable=False),
        sa.Column("found", sa.Text, nullable=False),
        sa.Column("holds", sa.Boolean),
        sa.Column("proved_utc", UtcTime, nullable=False),
    )
    op.add_column("nb_attempts", sa.Column("vendor_usage", sa.JSON))
    op.add_column("nb_shards", sa.Column("rates", sa.JSON))
    op.add_column("nb_shards", sa.Column("index_sha256", sa.Text, nullable=False, server_default=""))
    op.add_column("nb_shards", sa.Column("verdicts_sha256", sa.Text, nullable=False, server_default=""))


def _add_tidying() -> None:
    op.add_column("nb_attempts", sa.Column("result_files", sa.JSON))
    op.add_column("nb_attempts", sa.Column("vendor_files_deleted_utc", UtcTime))
    op.add_column("nb_runs", sa.Column("cancelled_utc", UtcTime))
    op.add_column("nb_runs", sa.Column("cancel_drops", sa.Boolean))
    op.add_column("nb_runs", sa.Column("staging_removed_utc", UtcTime))
    op.add_column("nb_runs", sa.Column("staging_emptied_utc", UtcTime))


def _add_lanes_to_costs() -> None:
    op.add_column("nb_shards", sa.Column("prompt_version", sa.Text, nullable=False, server_default=""))
    tokens = ", ".join(f"{count_sum(f's.{name}')} AS {name}" for name in COSTS)
    op.execute("DROP VIEW nb_v_costs")
    op.execute(f"""
        CREATE VIEW nb_v_costs AS
        SELECT m.day, m.job, m.provider, m.model, s.connection, CAST('batch' AS TEXT) AS mode, s.prompt_version,
            {count_sum("s.rows")} AS rows, {tokens}, {usd_total("m.usd")} AS batch_usd,
            {usd_total("s.realtime_usd")} AS realtime_usd
        FROM nb_money m JOIN nb_attempts a ON a.attempt_id = m.attempt_id
            JOIN nb_shards s ON s.run = a.run AND s.round = a.round AND s.shard = a.shard
        WHERE m.kind = 'actual'
        GROUP BY m.day, m.job, m.provider, m.model, s.connection, s.prompt_version
    """)  # noqa: S608 - constants of this file


def _add_problems() -> None:
    op.add_column("nb_shards", sa.Column("problem_kind", sa.Text, nullable=False, server_default=""))
    op.add_column("nb_shards", sa.Column("problem", sa.Text, nullable=False, server_default=""))
    op.add_column("nb_attempts", sa.Column("gone_since_utc", UtcTime))
    op.add_column("nb_attempts", sa.Column("looked_utc", UtcTime))
    op.add_column("nb_attempts", sa.Column("looked_ms", sa.BigInteger, nullable=False, server_default="0"))
