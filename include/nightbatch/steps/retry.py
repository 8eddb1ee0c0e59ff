"""Step 9, retry: give every row that is not good its fate, and seal the next round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from nightbatch import __version__
from nightbatch.core.escape import json_string
from nightbatch.core.ids import custom_id_prefix, run_code
from nightbatch.core.money import ZERO
from nightbatch.core.request import Endpoint, Messages
from nightbatch.core.round import Choice, Fate, choose
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason, VerdictKind
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import DEAD_SCHEMA, PendingFile, Ports, RoundPlan, Shard

from .fill import WINDOW_END, Carried, Request, ShardFiller, filling, numbers
from .lanes import packing_lane
from .letters import Reckoning
from .load import Copies, context_of, duplicates_of
from .parquet import TEXTS_AT_A_TIME, RowWriter, read_batches, read_rows, row_writer
from .read_back import carried_by, reader_of
from .redact import as_rendered
from .release import decided
from .telemetry import tell_round
from .validate import lines

log = logger(__name__)

PENDING_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("system", pa.string()),
        ("user", pa.string()),
        ("reason", pa.string()),
        ("round", pa.int32()),
        ("window_end", WINDOW_END),
    ]
)
"""Rows that wait for the job's next run, as they were rendered; `window_end` is that of the window that held them."""


def retry(ports: Ports, job: Job, run: str, *, seals: int, has_rounds: bool, is_extra: bool = False) -> RoundPlan:
    """
    Seal round number `seals`: the rows to send again, and the fate of the others.

    Takes the shards of all earlier rounds whose bad rows no round has taken yet. Called again, it gives what was
    sealed. `has_rounds` says whether the round can still be sent; without it every row ends dead or pending. A row is
    sent as often as the job has rounds, whenever its shard came back. `is_extra` marks a round that settle sees
    through, since nobody else will.
    """
    sealed = ports.ledger.sealed(run, seals)
    if sealed is None:
        sealed = _seal(ports, job, run, seals, has_rounds=has_rounds, is_extra=is_extra)
    bury(ports, job, sealed)
    return sealed


def bury(ports: Ports, job: Job, plan: RoundPlan) -> None:
    """Write the dead letters of a sealed round into the sealed job's sink; a second time changes nothing."""
    if plan.facts["dead_name"]:
        part = f"retry-{plan.round}" if plan.round else "prepare"
        batches = read_batches(ports.store, str(plan.facts["dead_name"]))
        ports.sink(job).bury(context_of(ports.ledger.run(plan.run)), part, batches)


def _seal(ports: Ports, job: Job, run: str, seals: int, *, has_rounds: bool, is_extra: bool) -> RoundPlan:
    shards = [shard for shard in ports.ledger.shards(run) if shard.plan.ref.round < seals and is_untaken(job, shard)]
    # A folder of its own for each attempt: one that wakes up late, and saw fewer shards, must not write over the
    # files of the sealed round, or answers would be loaded under the keys of other rows.
    folder = f"{run}/round-{seals}/{ports.clock.now():%H%M%S%f}"
    with ExitStack() as stack:
        dead_name, pending_name = f"{folder}/dead_letters.parquet", f"{folder}/pending.parquet"
        sorting = _Sorting(
            ports,
            job,
            run,
            seals,
            folder,
            has_rounds,
            dead=stack.enter_context(row_writer(ports.store, dead_name, DEAD_SCHEMA, at_a_time=TEXTS_AT_A_TIME)),
            pending=stack.enter_context(
                row_writer(ports.store, pending_name, PENDING_SCHEMA, at_a_time=TEXTS_AT_A_TIME)
            ),
        )
        with filling(sorting.fillers.values()):
            for shard in shards:
                sorting.sort(shard)
            plans = sorting.close()
    pending_rows = sorting.pending.count
    counts = (seals, sum(sorting.sent.values()), sorting.dead.count, pending_rows)
    log.info("retry: round %d, %d rows to send again, %d dead letters, %d pending", *counts)
    plan = RoundPlan(
        run,
        seals,
        tuple(plans),
        {
            "library": __version__,
            "sent_again": dict(sorting.sent),
            "dead": dict(sorting.buried),
            "letters": [group.as_json() for group in sorting.second_chance.groups()],
            "pending": dict(sorting.waiting),
            "copies_dead": sorting.copies_dead,
            "copies_pending": sorting.copies_pending,
            "dead_name": dead_name if sorting.dead.count else "",
            "dead_sha256": sorting.dead.sha256,
            "pending_name": pending_name if pending_rows else "",
            "pending_sha256": sorting.pending.sha256,
            "extra": is_extra,
        },
    )
    leaves = PendingFile(run, pending_name, pending_rows) if pending_rows else None
    takes = [shard.plan.ref for shard in shards]
    return tell_round(ports, job, plan, ports.ledger.seal(plan, takes=takes, leaves=leaves, now=ports.clock.now()))


def is_untaken(job: Job, shard: Shard) -> bool:
    """
    Say whether a shard's rows that are not good still need their fate.

    Where a quality gate may hold good answers back, none has one before these are loaded or discarded: a shard is taken
    once, and a person may make more of its rows dead letters.
    """
    states = (ShardState.LOADED, ShardState.HELD)
    is_judged = shard.state in states or (shard.state is ShardState.COLLECTED and job.quality is None)
    return is_judged and shard.taken_by_round is None


@dataclass(frozen=True, slots=True)
class _BadRow:
    kind: VerdictKind
    reason: Reason
    detail: str
    key: str
    fingerprint: str
    sends: int


@dataclass
class _Sorting:
    """Sorts the bad rows of shards into next round's shards, dead letters and pending rows."""

    ports: Ports
    job: Job
    run: str
    seals: int
    folder: str
    has_rounds: bool
    dead: RowWriter
    pending: RowWriter
    sent: Counter[str] = field(default_factory=Counter)
    buried: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    copies_dead: int = 0
    copies_pending: int = 0

    def __post_init__(self) -> None:
        self.fillers: dict[tuple[int, int | None, str], ShardFiller] = {}
        self.second_chance = Reckoning(self.ports, self.job)
        self._numbers = numbers(self.run, self.seals)
        run = self.ports.ledger.run(self.run)
        self._own_end = run.window.end
        self._drops = run.cancelled_utc is not None and run.cancel_drops
        self._drops = self._drops or decided(self.ports.ledger, self.job, self.run) == "discarded"
        self.has_rounds = self.has_rounds and run.cancelled_utc is None

    def sort(self, shard: Shard) -> None:
        """Give every bad row of a shard its fate; memory is the shard's bad rows, without their texts."""
        bad = dict(self._bad_rows(shard))
        if not bad:
            return
        fates = {row: self._fate(shard, it) for row, it in bad.items()}
        unsent = {it.fingerprint for row, it in bad.items() if fates[row].fate is not Fate.SEND}
        copies = duplicates_of(self.ports, self.run, unsent)
        read_back = reader_of(self.ports, self.job, shard.plan)
        rows = zip(lines(self.ports.store, shard.plan.requests_name), carried_by(self.ports.store, shard), strict=True)
        for row, (line, carried) in enumerate(rows):
            if row in bad and fates[row].fate is Fate.SEND:
                self._send(shard, bad[row], fates[row], read_back(line), carried)
            elif row in bad and fates[row].fate is Fate.PENDING:
                self._set_aside(shard, bad[row], read_back(line), carried, copies)
            elif row in bad:
                its_copies = len(copies.get(bad[row].fingerprint, ()))
                self.second_chance.add(shard.plan, bad[row].reason.value, size_bytes=len(line), copies=its_copies)
        self._bury(shard, {row for row in bad if fates[row].fate is Fate.DEAD}, copies)

    def close(self) -> Iterator[Any]:
        """Finish all shards of the round, in the order of their numbers."""
        plans = [plan for filler in self.fillers.values() for plan in filler.close()]
        return iter(sorted(plans, key=lambda plan: plan.ref))

    def _bad_rows(self, shard: Shard) -> Iterator[tuple[int, _BadRow]]:
        if shard.state is ShardState.HELD:
            index = read_rows(self.ports.store, shard.plan.index_name, ("key", "fingerprint", "sends"))
            for row, (key, fingerprint, sends) in enumerate(index):
                yield row, _BadRow(VerdictKind.ACCOUNT, Reason(shard.held_reason), "", key, fingerprint, sends)
            return
        kinds = read_rows(self.ports.store, shard.verdicts_name, ("row", "kind"))
        good = {row for row, kind in kinds if kind == VerdictKind.GOOD}
        columns = ("row", "kind", "reason", "detail", "key", "fingerprint", "sends")
        for row, kind, reason, *rest in read_rows(self.ports.store, shard.verdicts_name, columns):
            if row not in good:
                yield row, _BadRow(VerdictKind(kind), Reason(reason), *rest)

    def _choose(self, shard: Shard, row: _BadRow) -> Choice:
        choice = choose(
            row.kind,
            row.reason,
            model=shard.plan.choice,
            models=len(self.job.models),
            sends=row.sends,
            has_rounds=self.has_rounds and row.sends <= self.job.rounds,
        )
        choice = self._helpful(shard, row, choice)
        # A shard that came back after its round was sealed has not had its chances yet.
        came_late = not self.has_rounds and row.kind is VerdictKind.CHANGE and row.sends <= self.job.rounds
        return Choice(Fate.PENDING) if came_late else choice

    def _fate(self, shard: Shard, row: _BadRow) -> Choice:
        """Give a row its fate; of a run that was dropped nothing is sent again, and nothing is left for another run."""
        return Choice(Fate.DEAD) if self._drops else self._choose(shard, row)

    def _helpful(self, shard: Shard, row: _BadRow, choice: Choice) -> Choice:
        """Take out of a choice what can not help this question."""
        if choice.hint and self.job.endpoint(choice.model) is Endpoint.EMBEDDINGS:
            # The vector would be that of the text and the hint.
            return replace(choice, hint="")
        if choice.double_cap and shard.plan.max_output_tokens is None:
            # The cap is the model's own and would only be hit again.
            other = choice.model + 1
            return Choice(Fate.SEND, other) if other < len(self.job.models) else Choice(Fate.DEAD)
        return choice

    def _send(self, shard: Shard, row: _BadRow, choice: Choice, messages: Messages, carried: Carried) -> None:
        filler = self._filler(shard, choice)
        user = f"{messages.user}\n\n{choice.hint}" if choice.hint else messages.user
        around, text = filler.around(messages.system), json_string(user)
        filler.add([Request(around, text, row.key, row.fingerprint, row.sends + 1, *carried)])
        self.sent[row.reason.value] += 1

    def _filler(self, shard: Shard, choice: Choice) -> ShardFiller:
        cap = shard.plan.max_output_tokens if choice.model == shard.plan.choice else None
        if choice.double_cap and cap is not None:
            cap *= 2
        kind = (choice.model, cap, choice.hint)
        if kind not in self.fillers:
            lane = packing_lane(self.ports, self.job, choice.model, max_output_tokens=cap)
            self.fillers[kind] = ShardFiller(
                self.ports.store,
                lane,
                ledger=self.ports.ledger.ledger_id,
                folder=self.folder,
                numbers=self._numbers,
                hint=choice.hint,
            )
        return self.fillers[kind]

    def _set_aside(self, shard: Shard, row: _BadRow, sent: Messages, carried: Carried, copies: Copies) -> None:
        messages = as_rendered(sent, carried.originals)
        rest = (row.fingerprint, messages.system, messages.user, row.reason.value, shard.plan.ref.round)
        self.pending.add((row.key, *rest, carried.window_end or self._own_end))
        self.waiting[row.reason.value] += 1
        for copy, its_end in copies.get(row.fingerprint, ()):
            self.pending.add((copy, *rest, its_end or self._own_end))
            self.copies_pending += 1

    def _bury(self, shard: Shard, rows: set[int], copies: Copies) -> None:
        if not rows:
            return
        for row, key, fingerprint, reason, detail, raw, model, custom_id, cost in self._verdicts(shard):
            if row not in rows:
                continue
            rest = (reason, detail, raw, model, shard.plan.ref.round, custom_id)
            self.dead.add((key, fingerprint, *rest, None, cost))
            self.buried[reason] += 1
            for copy, _ in copies.get(fingerprint, ()):
                self.dead.add((copy, fingerprint, *rest, key, cost * 0))
                self.copies_dead += 1

    def _verdicts(self, shard: Shard) -> Iterator[tuple[Any, ...]]:
        """Stream what is known of a shard's rows; those of one that was never sent have its reason alone."""
        if shard.state is not ShardState.HELD:
            names = ("row", "key", "fingerprint", "reason", "detail", "answer", "model", "custom_id", "cost_usd")
            yield from read_rows(self.ports.store, shard.verdicts_name, names)
            return
        ref = shard.plan.ref
        prefix = custom_id_prefix(self.ports.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard)
        index = read_rows(self.ports.store, shard.plan.index_name, ("key", "fingerprint"))
        for row, (key, fingerprint) in enumerate(index):
            told = (shard.held_reason, "not sent", None, shard.plan.model, f"{prefix}{row}", ZERO)
            yield (row, key, fingerprint, *told)
