"""The ledger's column types: money that stays exact, and times that stay in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from nightbatch.core.money import NANO

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
