"""The most that all jobs of an account may spend in a month: `budget_month_usd` in the connection's extra."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection

KEY = "budget_month_usd"


def month_budget(connection: Connection) -> Decimal | None:
    """Read the account's budget; None where there is none. Raises ConnectionInvalid for one that is no amount."""
    value = connection.extra.get(KEY)
    if value is None:
        return None
    try:
        # A float's shortest text is what was written: 0.1 is a tenth here.
        usd = Decimal(str(value)) if not isinstance(value, bool) else Decimal(0)
    except InvalidOperation:
        usd = Decimal(0)
    if not usd.is_finite() or usd <= 0:
        raise ConnectionInvalid(
            connection.conn_id,
            problem=f"{KEY} in its extra is no amount above 0",
            remedy=f'Write US dollars, like {{"{KEY}": 500}}, or remove it',
        )
    return usd
