"""A second chance: send the dead letters of a window again, in a new generation that settles against the old ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from nightbatch.core.escape import json_string
from nightbatch.core.ids import ShardRef, custom_id_prefix, place_of, run_code
from nightbatch.core.request import Messages
from nightbatch.core.shard import ShardPlan
from nightbatch.core.verdict import Reason
from nightbatch.job_sealed import facts_of, unsealed
from nightbatch.logs import logger
from nightbatch.ports import DEAD_SCHEMA, Ports, RoundPlan, Shard, SinkContext

from .ask_again import Plan
from .fill import DUPLICATE_SCHEMA, Carried, Request, ShardFiller, filling, numbers
from .lanes import open_lane, packing_lane
from .letters import Standing, second_cap
from .load import duplicates_of
from .parquet import RowWriter, read_rows, row_writer
from .pull import Tally
from .read_back import carried_by, reader_of
from .seen import Seen, seen
from .telemetry import tell_plan
from .validate import lines

log = logger(__name__)


def seal_retry(ports: Ports, plan: Plan, *, deadline_utc: datetime | None = None) -> RoundPlan:
    """
    Pack the dead letters anew and open their generation, sealed. Reads no source.

    Raises StaleAttempt where another generation was opened meanwhile; nothing is left behind then but files.
    """
    context = SinkContext(plan.job.name, plan.run, plan.window, plan.generation)
    ports.sink(plan.job).prepare(context)
    packed = pack_letters(ports, plan)
    counts = asdict(packed.tally)
    facts: dict[str, Any] = {
        "dead_reasons": counts.pop("dead_reasons"),
        "counts": counts,
        "duplicates_name": packed.duplicates_name,
        "duplicates_sha256": packed.duplicates_sha256,
        "dead_name": packed.dead_name,
        "dead_sha256": packed.dead_sha256,
        **facts_of(plan.job),
        "forced_by": "",
        "limit": (plan.latest.plan or {}).get("limit"),
        "goes_on": False,
        "deadline_utc": deadline_utc.isoformat() if deadline_utc else "",
        "price_note": packed.price_note,
        "retries": {
            "run": plan.latest.run,
            "reasons": list(plan.reasons),
            "asked_by": plan.ask.asked_by,
            "model": plan.ask.model,
            "max_output_tokens": plan.ask.max_output_tokens,
        },
    }
    sealed = RoundPlan(plan.run, 0, packed.shards, facts)
    found = ports.ledger.open_sealed(sealed, job=plan.job.name, window=plan.window, now=ports.clock.now())
    log.info("retry: %s dead letters of run %s are sent again", f"{packed.tally.from_dead:,}", plan.latest.run)
    return tell_plan(ports, plan.job, sealed, found)


@dataclass(frozen=True)
class Packed:
    """What packing wrote, and what became of each letter."""

    shards: tuple[ShardPlan, ...]
    tally: Tally
    duplicates_name: str
    dead_name: str
    duplicates_sha256: str
    dead_sha256: str
    price_note: str


def pack_letters(ports: Ports, plan: Plan) -> Packed:
    """Pack the letters into shards; each ends in exactly one count of the tally."""
    folder = f"{plan.run}/round-0/{ports.clock.now():%H%M%S%f}"
    duplicates_name, dead_name = f"{folder}/duplicates.parquet", f"{folder}/bad_records.parquet"
    with ExitStack() as stack:
        memory = stack.enter_context(seen())
        for rows in ports.sink(plan.job).known():
            memory.learn(rows)
        packing = _Packing(
            ports,
            plan,
            folder,
            memory,
            duplicates=stack.enter_context(row_writer(ports.store, duplicates_name, DUPLICATE_SCHEMA)),
            dead=stack.enter_context(row_writer(ports.store, dead_name, DEAD_SCHEMA)),
        )
        with filling(packing.fillers.values()):
            for letters in plan.letters:
                packing.take(letters)
            shards = sorted((one for filler in packing.fillers.values() for one in filler.close()), key=_ref)
    tally = packing.tally
    return Packed(
        tuple(shards),
        tally,
        duplicates_name if tally.duplicates else "",
        dead_name if tally.unrenderable else "",
        packing.duplicates.sha256,
        packing.dead.sha256,
        open_lane(ports, plan.job, 0).price_note,
    )


def _ref(plan: ShardPlan) -> ShardRef:
    return plan.ref


@dataclass(frozen=True, slots=True)
class _Letter:
    key: str
    fingerprint: str
    reason: str
    ref: ShardRef
    row: int


@dataclass
class _Packing:
    ports: Ports
    plan: Plan
    folder: str
    memory: Seen
    duplicates: RowWriter
    dead: RowWriter
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.fillers: dict[int | None, ShardFiller] = {}
        self._numbers = numbers(self.plan.run, 0)

    def take(self, found: Standing) -> None:
        """Take up the letters of one sealed round, shard by shard, in the order in which they were buried."""
        for ref, letters in groupby(self._letters(found), key=lambda letter: letter.ref):
            self._take_shard(found, self.ports.ledger.shard(ref), list(letters))

    def _letters(self, found: Standing) -> Iterator[_Letter]:
        run, ledger_id = found.run.run, self.ports.ledger.ledger_id
        names = ("key", "fingerprint", "reason", "custom_id")
        for key, print_, reason, custom_id in read_rows(self.ports.store, found.plan.facts["dead_name"], names):
            place = place_of(custom_id or "")
            if place is None or reason not in self.plan.reasons or reason not in found.groups:
                continue
            round_, shard, row = place
            if custom_id.startswith(custom_id_prefix(ledger_id, run_code(run), round_, shard)):
                yield _Letter(key, print_, reason, ShardRef(run, round_, shard), row)

    def _take_shard(self, found: Standing, shard: Shard, letters: list[_Letter]) -> None:
        """Find each letter's question in its shard's request file; memory is the letters of the shard."""
        store, plan = self.ports.store, shard.plan
        by_row: dict[int, list[_Letter]] = {}
        for letter in letters:
            by_row.setdefault(letter.row, []).append(letter)
        copies = duplicates_of(self.ports, found.run.run, {it[0].fingerprint for it in by_row.values() if len(it) > 1})
        ends_of_copies = {key: end for some in copies.values() for key, end in some}
        read_back = reader_of(self.ports, unsealed(found.run.plan or {}, run=found.run.run), plan)
        rows = zip(lines(store, plan.requests_name), carried_by(store, shard), strict=True)
        for row, (line, carried) in enumerate(rows):
            for letter in by_row.get(row, ()):
                end = ends_of_copies.get(letter.key, carried.window_end)
                self._place(letter, carried._replace(window_end=end), read_back(line), plan)

    def _place(self, letter: _Letter, carried: Carried, messages: Messages, was: ShardPlan) -> None:
        self.tally.from_dead += 1
        key, print_, end = letter.key, letter.fingerprint, carried.window_end
        [is_new] = self.memory.new_keys([key])
        if not is_new or self.memory.is_answered_later(key, end or self.plan.window.end):
            self.tally.superseded += 1
        elif self.memory.unchanged([(key, print_)])[0]:
            self.tally.unchanged += 1
        elif (twin := self.memory.twins([(key, print_)])[0]) is not None:
            self.tally.duplicates += 1
            self.duplicates.add((key, print_, twin, end))
        else:
            self._send(letter, carried, messages, was)

    def _send(self, letter: _Letter, carried: Carried, messages: Messages, was: ShardPlan) -> None:
        filler = self._filler(was, letter.reason)
        around, text = filler.around(messages.system), json_string(messages.user)
        body_bytes = around.body_bytes + len(text)
        if filler.is_too_large(body_bytes):
            self.tally.unrenderable += 1
            reason, detail = Reason.TOO_LARGE.value, f"the request has {body_bytes:,} bytes"
            self.tally.dead_reasons[reason] = self.tally.dead_reasons.get(reason, 0) + 1
            self.dead.add((letter.key, letter.fingerprint, reason, detail, None, None, 0, None, None, None))
            return
        self.tally.requests += 1
        # The fingerprint stays that of the question as the job asks it, so that the next night finds it answered.
        filler.add([Request(around, text, letter.key, letter.fingerprint, 1, *carried)])

    def _filler(self, was: ShardPlan, reason: str) -> ShardFiller:
        job, ask = self.plan.job, self.plan.ask
        cap = None if ask.max_output_tokens is not None else second_cap(job, was, reason)
        if cap not in self.fillers:
            self.fillers[cap] = ShardFiller(
                self.ports.store,
                packing_lane(self.ports, job, 0, max_output_tokens=cap),
                ledger=self.ports.ledger.ledger_id,
                folder=self.folder,
                numbers=self._numbers,
            )
        return self.fillers[cap]
