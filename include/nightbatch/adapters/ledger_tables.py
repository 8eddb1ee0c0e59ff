"""The ledger's tables, and the column types that keep money exact and times in UTC (see `docs/ledger.md`)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

REVISIONS = ("0001",)
"""Every version of the tables, oldest first. The last one is what this library works with."""

NANO = Decimal("0.000000001")
MAX_USD = Decimal(1_000_000_000)
_EXACT = Context(prec=60)


def rounded_up(usd: Decimal) -> Decimal:
    """Round to what a column holds, 9 decimals, never down: a reserve must not be less than the worst case."""
    return usd.quantize(NANO, rounding=ROUND_CEILING, context=_EXACT)


class Usd(sa.types.TypeDecorator[Decimal]):
    """
    US dollars, exact, with 9 decimals: NUMERIC(18,9), and in SQLite, whose numbers are floats, text.

    The text always has 9 decimals, so that without its point it is a whole number of nano-dollars.
    Further decimals are rounded half to even.
    """

    impl = sa.Numeric(18, 9)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Choose the database's type."""
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else sa.Numeric(18, 9))

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        """Refuse floats and what does not fit."""
        if value is None:
            return None
        if not isinstance(value, Decimal):
            raise TypeError(f"money is a Decimal, not {type(value).__name__}")
        if not value.is_finite() or abs(value) >= MAX_USD:
            raise ValueError(f"the ledger holds amounts below {MAX_USD:,} USD, not {value}")
        exact = value.quantize(NANO, rounding=ROUND_HALF_EVEN, context=_EXACT)
        return f"{exact:f}" if dialect.name == "sqlite" else exact

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        """Give back the same Decimal."""
        return None if value is None else Decimal(value)


class UtcTime(sa.types.TypeDecorator[datetime]):
    """An instant: TIMESTAMP WITH TIME ZONE, and in SQLite, which knows no zones, UTC without saying so."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuse times without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the ledger takes times with a zone, not {value}")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Give the instant in UTC, aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _UsdSum(sa.types.TypeDecorator[Decimal]):
    """What a sum of `Usd` comes back as: nano-dollars from SQLite, NULL for no rows."""

    impl = sa.Numeric(38, 9)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Integer() if dialect.name == "sqlite" else sa.Numeric(38, 9))

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal:
        if value is None:
            return Decimal(0)
        return Decimal(value).scaleb(-9) if dialect.name == "sqlite" else Decimal(value)


class usd_sum(FunctionElement[Decimal]):  # noqa: N801 - written like the SQL function it becomes
    """Add a `Usd` column up, exactly, inside the database."""

    type = _UsdSum()
    inherit_cache = True


@compiles(usd_sum)
def _sum(element: usd_sum, compiler: Any, **options: Any) -> str:
    return f"SUM({compiler.process(element.clauses, **options)})"


@compiles(usd_sum, "sqlite")
def _sum_sqlite(element: usd_sum, compiler: Any, **options: Any) -> str:
    return f"SUM(CAST(REPLACE({compiler.process(element.clauses, **options)}, '.', '') AS INTEGER))"


AnyRow: TypeAlias = Any
"""A row with its columns as attributes. SQLAlchemy 2.0 and 2.1 disagree on how such a type is written."""

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A number the database hands out; SQLite does so only for a plain INTEGER."""

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
    sa.ForeignKeyConstraint(["run", "round", "shard"], _SHARD_KEY, name="nb_attempts_shard_fkey"),
    sa.UniqueConstraint("run", "round", "shard", "number", name="nb_attempts_number_key"),
    sa.UniqueConstraint("provider", "batch_id", name="nb_attempts_batch_key"),
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
