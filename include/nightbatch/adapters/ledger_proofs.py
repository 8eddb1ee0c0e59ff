"""The proof of a run as rows: what settle found of each link."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from nightbatch.adapters.ledger_tables import proofs
from nightbatch.core.proof import Link


def replace(connection: sa.Connection, run: str, links: Sequence[Link], *, now: datetime) -> None:
    """Record the links of a run in the place of those that were recorded before. The run is locked."""
    connection.execute(sa.delete(proofs).where(proofs.c.run == run))
    values = [
        {
            "run": run,
            "position": position,
            "link": link.name,
            "place": link.place,
            "expected": link.expected,
            "found": link.found,
            "holds": link.holds,
            "proved_utc": now,
        }
        for position, link in enumerate(links)
    ]
    if values:
        connection.execute(sa.insert(proofs), values)


def list_links(connection: sa.Connection, run: str) -> list[Link]:
    """Give the recorded links of a run in order."""
    statement = sa.select(proofs).where(proofs.c.run == run).order_by(proofs.c.position)
    return [Link(row.link, row.place, row.expected, row.found, row.holds) for row in connection.execute(statement)]
