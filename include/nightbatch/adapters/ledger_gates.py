"""Gates: where a run waits for a person, or was let through."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import insert_absent
from nightbatch.adapters.ledger_runs import lock_run
from nightbatch.adapters.ledger_shards import lock_shard, move
from nightbatch.adapters.ledger_tables import gates
from nightbatch.core.ids import ShardRef
from nightbatch.core.shard import ShardState
from nightbatch.errors import StaleAttempt
from nightbatch.ports import Gate


def gate(connection: sa.Connection, run: str, kind: str) -> Gate | None:
    """Give what was decided about a run at a gate; None before."""
    row = connection.execute(sa.select(gates).where(_is(run, kind))).first()
    return None if row is None else Gate(**row._mapping)


def decide(
    connection: sa.Connection, run: str, kind: str, state: str, facts: Mapping[str, Any], *, by: str, now: datetime
) -> Gate:
    """Decide once; see the port."""
    lock_run(connection, run)
    values = {"state": state, "facts": dict(facts), "decided_by": by, "decided_utc": now}
    if not insert_absent(connection, gates, run=run, kind=kind, **values) and state in ("released", "discarded"):
        # What it was stopped by stays readable beside who decided.
        before = gate(connection, run, kind)
        values["facts"] = {**(before.facts if before else {}), **facts}
        connection.execute(sa.update(gates).where(_is(run, kind), gates.c.state == "stopped").values(**values))
    found = gate(connection, run, kind)
    if found is None:
        raise LookupError(f"there is no gate {kind} of run {run} in this ledger")
    return found


def note_discarded(
    connection: sa.Connection,
    ref: ShardRef,
    *,
    instead_of: str,
    verdicts_name: str,
    verdicts_sha256: str,
    counts: Mapping[str, int],
    now: datetime,
) -> None:
    """Replace the verdicts of a shard whose answers a person discarded; see the port."""
    lock_run(connection, ref.run)
    shard = lock_shard(connection, ref)
    if (shard.state, shard.verdicts_name) != (ShardState.COLLECTED, instead_of):
        raise StaleAttempt(str(ref), expected=f"collected, with {instead_of}", found=shard.state)
    judged = {"verdicts_name": verdicts_name, "verdicts_sha256": verdicts_sha256, "counts": dict(counts)}
    move(connection, ref, ShardState.COLLECTED, now=now, **judged)


def _is(run: str, kind: str) -> sa.ColumnElement[bool]:
    return sa.and_(gates.c.run == run, gates.c.kind == kind)
