"""Events, and who was told of them: written down before anybody is, at most one repeat."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import insert_absent
from nightbatch.adapters.ledger_tables import deliveries, events
from nightbatch.ports import Event


def record(
    connection: sa.Connection, event_id: str, kind: str, run: str, payload: Mapping[str, Any], *, now: datetime
) -> None:
    """Write an event down; the same id twice changes nothing."""
    insert_absent(connection, events, event_id=event_id, kind=kind, run=run, payload=dict(payload), recorded_utc=now)


def forget(connection: sa.Connection, event_id: str) -> None:
    """Remove an event that only counted; see the port."""
    told = sa.exists().where(deliveries.c.event_id == event_id)
    connection.execute(sa.delete(events).where(events.c.event_id == event_id, sa.not_(told)))


def may_deliver(
    connection: sa.Connection, event_id: str, channel: str, *, again_after: timedelta, now: datetime
) -> bool:
    """Claim one delivery; see the port. Raises LookupError for an event that was not recorded."""
    _check(connection, event_id)
    if insert_absent(connection, deliveries, event_id=event_id, channel=channel, claims=1, claimed_utc=now):
        return True
    another = (
        sa.update(deliveries)
        .where(
            deliveries.c.event_id == event_id,
            deliveries.c.channel == channel,
            deliveries.c.claims < 2,
            deliveries.c.delivered_utc.is_(None),
            # Neither claimed just now nor, by a clock that is a little ahead, in a moment.
            sa.not_(
                sa.and_(deliveries.c.claimed_utc > now - again_after, deliveries.c.claimed_utc < now + again_after)
            ),
        )
        .values(claims=deliveries.c.claims + 1, claimed_utc=now)
        .returning(deliveries.c.claims)
    )
    return connection.execute(another).first() is not None


def note_undelivered(connection: sa.Connection, event_id: str, channel: str, *, now: datetime) -> None:
    """Give a claim back, since nothing was delivered; see the port."""
    here = sa.and_(deliveries.c.event_id == event_id, deliveries.c.channel == channel)
    is_claimed = sa.and_(here, deliveries.c.delivered_utc.is_(None), deliveries.c.claims > 0)
    values = {"claims": deliveries.c.claims - 1, "claimed_utc": now}
    connection.execute(sa.update(deliveries).where(is_claimed).values(**values))


def undelivered(connection: sa.Connection, job: str, channel: str) -> list[Event]:
    """List what a channel did not take; see the port."""
    is_jobs = events.c.run.startswith(f"{job}/", autoescape=True)
    statement = (
        sa.select(events)
        .join(deliveries, deliveries.c.event_id == events.c.event_id)
        .where(is_jobs, deliveries.c.channel == channel, deliveries.c.delivered_utc.is_(None), deliveries.c.claims < 2)
        .order_by(events.c.recorded_utc, events.c.event_id)
    )
    return [_event(row) for row in connection.execute(statement)]


def listed(connection: sa.Connection, subject: str) -> list[Event]:
    """List the events about a run, or another subject, in order."""
    statement = sa.select(events).where(events.c.run == subject).order_by(events.c.recorded_utc, events.c.event_id)
    return [_event(row) for row in connection.execute(statement)]


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.event_id, row.kind, row.run, row.payload, row.recorded_utc)


def claimed(connection: sa.Connection, event_id: str, channel: str) -> datetime | None:
    """Say since when a delivery has been under way that may be claimed once more."""
    statement = sa.select(deliveries.c.claimed_utc).where(
        deliveries.c.event_id == event_id,
        deliveries.c.channel == channel,
        deliveries.c.claims == 1,
        deliveries.c.delivered_utc.is_(None),
    )
    since: datetime | None = connection.execute(statement).scalar()
    return since


def note_delivered(connection: sa.Connection, event_id: str, channel: str, *, now: datetime) -> None:
    """Record that people were told; the first time counts."""
    _check(connection, event_id)
    if insert_absent(
        connection, deliveries, event_id=event_id, channel=channel, claims=1, claimed_utc=now, delivered_utc=now
    ):
        return
    here = sa.and_(deliveries.c.event_id == event_id, deliveries.c.channel == channel)
    is_first = sa.and_(here, deliveries.c.delivered_utc.is_(None))
    connection.execute(sa.update(deliveries).where(is_first).values(delivered_utc=now))


def delivered(connection: sa.Connection, run: str) -> list[tuple[str, str, str]]:
    """List (event id, kind, channel) of what was delivered about a run, in order."""
    statement = (
        sa.select(events.c.event_id, events.c.kind, deliveries.c.channel)
        .join(deliveries, deliveries.c.event_id == events.c.event_id)
        .where(events.c.run == run, deliveries.c.delivered_utc.is_not(None))
        .order_by(deliveries.c.delivered_utc, events.c.event_id, deliveries.c.channel)
    )
    return [(event_id, kind, channel) for event_id, kind, channel in connection.execute(statement)]


def _check(connection: sa.Connection, event_id: str) -> None:
    if connection.execute(sa.select(events.c.event_id).where(events.c.event_id == event_id)).first() is None:
        raise LookupError(f"there is no event {event_id} in this ledger; it must be recorded before it is told")
