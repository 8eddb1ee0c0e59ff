"""Part of settle: prove a run from its files and the ledger's rows, row by row, not from counters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from typing import Any

from nightbatch.core.ids import custom_id_prefix, run_code
from nightbatch.core.money import Rate, Usage
from nightbatch.core.proof import Bag, Link, broken, counted, same, unknown
from nightbatch.core.proof_rows import TOKENS, Heard, Judged, shard_links
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import VerdictKind
from nightbatch.errors import DoesNotAddUp, Terminal
from nightbatch.ports import Ports, RoundPlan, Run, Shard

from .chain import rounds_of
from .parquet import columns_of, read_rows
from .proof_files import Findings, copies, hear
from .proof_ledger import JUDGED, batch_link, state_link
from .release import QUALITY, stopped


def prove(ports: Ports, run: Run) -> list[Link]:
    """
    Check every link of a run between its files and the ledger. Reads all files of the run once, and writes nothing.

    Memory is a few bytes a row of one shard; of the run only counts and sums of hashes are kept. Raises
    StorageUnavailable where the store cannot be reached: what could not be read is not taken for wrong. Of a run whose
    staging was removed it gives what was proved before.
    """
    rounds, shards = rounds_of(ports, run.run), ports.ledger.shards(run.run)
    if run.staging_removed_utc is not None:
        gone = unknown("file", run.run, f"its staging was removed on {run.staging_removed_utc:%Y-%m-%d}")
        return [*(link for link in ports.ledger.proof(run.run) if link != gone), gone]
    if not rounds:
        return []
    proving = _Proving(ports, run, rounds, shards)
    name = str(rounds[0].facts.get("duplicates_name", ""))
    with ExitStack() as stack:
        stack.callback(proving.copy.close)
        proving.copies_of = proving.read(name, lambda: stack.enter_context(copies(proving.copy, name))) or _no_copies
        for shard in shards:
            proving.shard(shard)
        for plan in rounds:
            proving.round(plan)
        proving.run_links()
    return proving.links()


def disproved(run: str, links: Sequence[Link]) -> DoesNotAddUp | None:
    """Give the error that names every link of a run which does not hold; None where all do."""
    wrong = broken(links)
    return DoesNotAddUp(run, differences=list(map(str, wrong))) if wrong else None


def _no_copies(_: str) -> int:
    return 0


class _Proving(Findings):
    """The state of one proof: links so far, and sums over the run."""

    def __init__(self, ports: Ports, run: Run, rounds: Sequence[RoundPlan], shards: Sequence[Shard]) -> None:
        super().__init__(ports.store)
        self.ports, self.run, self.rounds, self.shards = ports, run, rounds, shards
        self.copies_of: Callable[[str], int] = _no_copies
        self._bad: defaultdict[int, Bag] = defaultdict(Bag)
        """Rows that are not good, by the round that took them."""
        self._fates: defaultdict[int, Bag] = defaultdict(Bag)
        """Rows that a round sent again, buried or set aside."""
        self._sent: Counter[int] = Counter()
        self._rows: Counter[str] = Counter()

    # --- shards -----------------------------------------------------------------------------------------------

    def shard(self, shard: Shard) -> None:
        """Prove one shard."""
        plan = shard.plan
        lines = self.same_file(plan.requests_name, plan.content_sha256)
        self.same_file(plan.index_name, plan.index_sha256)
        index = self.read(plan.index_name, lambda: self._index(shard)) or Bag()
        if lines >= 0:
            what = "{:,} lines and {:,} in the index".format
            self.add(same("requests", plan.ref.name, what(plan.rows, plan.rows), what(lines, index.count)))
        self.add(state_link(self.run, shard))
        if shard.current is not None and shard.current.batch_id is not None:
            self.add(batch_link(self.store, shard))
        if shard.state in JUDGED:
            self._judged(shard, index)
        elif shard.state is not ShardState.HELD or shard.taken_by_round is None:
            self._rows["under way"] += plan.rows

    def _index(self, shard: Shard) -> Bag:
        ref, keyed = shard.plan.ref, Bag()
        taken_by = shard.taken_by_round if shard.state is ShardState.HELD else None
        for row, (key, print_) in enumerate(read_rows(self.copy, shard.plan.index_name, ("key", "fingerprint"))):
            keyed.add(row, key, print_)
            if ref.round:
                self._fates[ref.round].add(key, print_)
            if taken_by is not None:
                self._bad[taken_by].add(key, print_)
        self._sent[ref.round] += keyed.count
        return keyed

    def _judged(self, shard: Shard, index: Bag) -> None:
        place, heard = shard.plan.ref.name, self._heard(shard)
        self.same_file(shard.verdicts_name, shard.verdicts_sha256)
        read = self.read(shard.verdicts_name, lambda: self._verdicts(shard, heard))
        if read is None:
            return
        judged, copies_loaded = read
        known = {
            "batch": shard.current.batch_id if shard.current else "no batch",
            "billed": shard.current.vendor_usage if shard.current else None,
            "counts": shard.counts,
            "usage": shard.cost.usage,
            "batch_usd": shard.cost.batch_usd,
            "realtime_usd": shard.cost.realtime_usd,
            "keyed": index,
        }
        self.add(*shard_links(place, judged, known))
        good = judged.good
        self._rows["good"] += good
        self._rows["copies loaded"] += copies_loaded
        if shard.taken_by_round is None:
            self._rows["under way"] += judged.bad.count
        else:
            self._bad[shard.taken_by_round] += judged.bad
        what = "{:,} rows in the sink".format
        is_loaded = shard.state is ShardState.LOADED
        if not is_loaded and any(gate.kind == QUALITY for gate in stopped(self.ports.ledger, self.run.run)):
            self.add(unknown("loaded", place, "its answers wait at the quality gate for a person"))
            return
        if not is_loaded and self.run.state == "open":
            self.add(unknown("loaded", place, "its answers did not reach the sink yet"))
            return
        found = what(shard.merged) if is_loaded else "a shard that was collected and never loaded"
        holds = is_loaded and shard.merged == good + copies_loaded
        self.add(Link("loaded", place, what(good + copies_loaded), found, holds))

    def _heard(self, shard: Shard) -> Heard | None:
        """Read a shard's raw files; None where that is not possible, which is a link of its own."""
        ref = shard.plan.ref
        try:
            parse = self.ports.provider(shard.plan.provider, shard.plan.connection).parse
        except Terminal as error:
            self.add(unknown("lines", ref.name, f"the raw files could not be read: {error}"))
            return None
        prefix = custom_id_prefix(self.ports.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard)
        heard, is_whole = Heard(shard.plan.rows), True
        hashes = dict(zip(shard.raw_names, shard.raw_sha256s, strict=False))
        for name in shard.raw_names:
            found = self.read(name, partial(hear, self.store, name, heard, prefix=prefix, parse=parse))
            is_whole = is_whole and found is not None
            if found is not None:
                self.add(same("file", name, hashes.get(name, "a recorded hash"), found))
        return heard if is_whole else None

    def _verdicts(self, shard: Shard, heard: Heard | None) -> tuple[Judged, int]:
        """Read a shard's verdicts; gives also how many duplicates share its good answers."""
        name, copies_loaded = shard.verdicts_name, 0
        there = columns_of(self.copy, name)
        tokens = [one for one in TOKENS if one in there]
        is_whole = len(tokens) == len(TOKENS)
        judged = Judged(shard.plan.rows, heard, self._rates(shard), tokens)
        columns = ("row", "key", "fingerprint", "kind", "reason", "cost_usd", *tokens)
        for row, key, print_, kind, reason, cost, *used in read_rows(self.copy, name, columns):
            usage = Usage(*used) if is_whole else Usage(**dict(zip(tokens, used, strict=True)))
            judged.add(row, key, print_, (kind, reason), usage, cost)
            if kind == VerdictKind.GOOD:
                copies_loaded += self.copies_of(print_)
        return judged, copies_loaded

    def _rates(self, shard: Shard) -> dict[str, Rate]:
        try:
            return {kind: Rate.from_json(shard.rates[kind]) for kind in ("batch", "realtime") if shard.rates}
        except (KeyError, ArithmeticError):
            self.add(Link("rates", shard.plan.ref.name, "the rates that were booked", "rates that are none", False))
            return {}

    # --- rounds -----------------------------------------------------------------------------------------------

    def round(self, plan: RoundPlan) -> None:
        """Prove one sealed round: the fate of the rows that it took, and what it counted."""
        facts, place = plan.facts, f"round {plan.round}"
        self._round_file(plan, "duplicates")
        self._round_file(plan, "dead")
        dead = self.read(str(facts["dead_name"]), lambda: self._buried(plan)) or (0, 0, 0)
        self._round_file(plan, "pending")
        if not plan.round:
            self._rows["bad"] = dead[0]
            return
        pending = self.read(str(facts["pending_name"]), lambda: self._set_aside(plan)) or (0, 0, 0)
        self._rows["dead"] += dead[0]
        self._rows["pending"] += pending[0]
        self._rows["copies dead"] += dead[1]
        self._rows["copies pending"] += pending[1]
        told = "{:,} sent again, {:,} dead, {:,} pending, copies: {:,} dead, {:,} pending".format
        sums = [sum(facts[key].values()) for key in ("sent_again", "dead", "pending")]
        counts = told(*sums, facts["copies_dead"], facts["copies_pending"])
        found = told(self._sent[plan.round], dead[0], pending[0], dead[1], pending[1])
        self.add_sum(same("round", place, counts, found))
        bad, fates = self._bad[plan.round], self._fates[plan.round]
        self.add_sum(Link("fates", place, f"{bad} that were not good", f"{fates} with a fate", bad == fates))
        self.add_sum(same("copies", place, f"{dead[2] + pending[2]:,} copies", f"{dead[1] + pending[1]:,} copies"))

    def _round_file(self, plan: RoundPlan, what: str) -> None:
        if name := str(plan.facts.get(f"{what}_name", "")):
            self.same_file(name, str(plan.facts.get(f"{what}_sha256", "")))

    def _buried(self, plan: RoundPlan) -> tuple[int, int, int]:
        """Read dead letters; gives the requests, the copies of these, and how many copies there should be."""
        rows = copies_ = expected = 0
        for key, print_, twin in read_rows(self.copy, plan.facts["dead_name"], ("key", "fingerprint", "duplicate_of")):
            if twin is not None:
                copies_ += 1
                continue
            rows += 1
            expected += self.copies_of(print_)
            self._fates[plan.round].add(key, print_)
        return rows, copies_, expected

    def _set_aside(self, plan: RoundPlan) -> tuple[int, int, int]:
        """Read pending rows, each followed by its copies, which have its fingerprint; gives the same three counts."""
        rows = copies_ = expected = 0
        before = None
        for key, print_ in read_rows(self.copy, plan.facts["pending_name"], ("key", "fingerprint")):
            if print_ == before:
                copies_ += 1
                continue
            before = print_
            rows += 1
            expected += self.copies_of(print_)
            self._fates[plan.round].add(key, print_)
        return rows, copies_, expected

    # --- the run ----------------------------------------------------------------------------------------------

    def run_links(self) -> None:
        """Prove the sums over the whole run."""
        self._records()
        rows, run = self._rows, self.run.run
        requests = int(self.rounds[0].facts["counts"]["requests"])
        parts = {what: rows[what] for what in ("good", "dead", "pending", "under way")}
        found = f"{counted(parts)}: {sum(parts.values()):,} requests"
        self.add_sum(Link("answers", run, f"{requests:,} requests", found, sum(parts.values()) == requests))
        duplicates = int(self.rounds[0].facts["counts"]["duplicates"])
        parts = {what: rows[f"copies {what}"] for what in ("loaded", "dead", "pending")}
        if not rows["under way"]:
            found = f"{counted(parts)}: {sum(parts.values()):,} duplicates"
            self.add_sum(Link("copies", run, f"{duplicates:,} duplicates", found, sum(parts.values()) == duplicates))
        reserved, spent = self.ports.ledger.spent(run)
        doubles = self.ports.ledger.doubles(run)
        cost = sum((shard.cost.batch_usd for shard in self.shards), start=sum((usd for _, usd in doubles), Decimal(0)))
        is_over = not rows["under way"] and all(attempt.state != "double" for attempt, _ in doubles)
        still = Decimal(0) if is_over else reserved
        money = "{:.9f} USD spent, {:.9f} reserved".format
        self.add(same("money", run, money(cost, still), money(spent, reserved)))

    def _records(self) -> None:
        facts: Any = self.rounds[0].facts
        counts = facts["counts"]
        came_in = sum(counts.get(name, 0) for name in ("pulled", "from_pending", "from_dead"))
        twins = str(facts["duplicates_name"])
        parts = {
            "cannot wait": counts["not_deferrable"],
            "unchanged": counts["unchanged"],
            "superseded": counts["superseded"],
            "duplicates": self.read(twins, lambda: self.rows_in(twins)) or 0,
            "bad": self._rows["bad"],
            "requests": self._sent[0],
        }
        found = f"{counted(parts)}: {sum(parts.values()):,} records"
        link = Link("records", self.run.run, f"{came_in:,} records", found, sum(parts.values()) == came_in)
        self.add_sum(link)
