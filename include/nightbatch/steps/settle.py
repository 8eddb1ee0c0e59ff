"""Step 10, settle: add everything up, write the books, tell people, and give the run its colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from nightbatch.core.money import Cost, total
from nightbatch.core.proof import broken
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.errors import DoesNotAddUp, NightbatchError, RunFailed, RunHeldBack, RunIncomplete, RunUnloaded
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Gate, Ports, Run, Shard

from .chain import earlier_of, left_pending, rounds_of
from .letters import by_reason, standing
from .limits import over_limits
from .proof import disproved, prove
from .release import stands_still, stopped
from .retry import bury, is_untaken, retry
from .telemetry import tell_run

log = logger(__name__)


@dataclass
class Books:
    """Where every record of a run is. All counts are rows; money is USD."""

    run: str
    job: str
    window: str
    pulled: int = 0
    from_pending: int = 0
    from_dead: int = 0
    superseded: int = 0
    not_deferrable: int = 0
    unchanged: int = 0
    duplicates: int = 0
    unrenderable: int = 0
    requests: int = 0
    good: int = 0
    dead: dict[str, int] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    held_back: int = 0
    """Rows that came back and wait, not loaded, at the quality gate for a person."""
    copies_dead: int = 0
    copies_pending: int = 0
    sent_again: dict[str, int] = field(default_factory=dict)
    odd: dict[str, int] = field(default_factory=dict)
    merged: int = 0
    batches: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    doubles: int = 0
    """Batches that were made beside another one for the same rows, and cancelled."""
    doubles_usd: Decimal = Decimal(0)
    """What these were billed; not in `cost_usd`, which is what the answers cost."""
    reserved_usd: Decimal = Decimal(0)
    above_reserve: int = 0
    """Shards that cost more than was reserved for them."""
    above_reserve_usd: Decimal = Decimal(0)
    """How much more, together."""
    turned_up: int = 0
    """Batches that were thought absent and turned up, so that their worst case was reserved again."""
    cost_usd: Decimal = Decimal(0)
    realtime_usd: Decimal = Decimal(0)
    letters: list[dict[str, Any]] = field(default_factory=list)
    """Dead letters that stand, by reason, with those of the runs that this one goes on from; see `steps/letters.py`."""
    state: str = "open"
    seconds: float = 0.0

    @property
    def copies_loaded(self) -> int:
        """Duplicates whose twin has a good answer, or will have one."""
        return self.duplicates - self.copies_dead - self.copies_pending

    @property
    def dead_rows(self) -> int:
        """All dead letters: bad records, bad answers and copies of bad answers."""
        return self.unrenderable + sum(self.dead.values()) + self.copies_dead

    @property
    def rows(self) -> int:
        """
        All rows that the run is about: the unchanged ones too, and not those that cannot wait.

        Dead letters that are sent again count in the run that buried them.
        """
        return self.pulled + self.from_pending - self.not_deferrable

    @property
    def pending_rows(self) -> int:
        """All rows that wait for another run."""
        return sum(self.pending.values()) + self.copies_pending

    def as_json(self) -> dict[str, Any]:
        """Give the books as JSON values; money as text, exact."""
        return {key: str(value) if isinstance(value, Decimal) else value for key, value in asdict(self).items()}


def books_of(run: Run) -> Books | None:
    """Give the books that the last settle of a run wrote; None before it."""
    if not run.books:
        return None
    values: dict[str, Any] = {
        key: Decimal(str(value)) if key.endswith("_usd") else value for key, value in run.books.items()
    }
    # A newer version may have counted what this one knows nothing of.
    return Books(**{key: value for key, value in values.items() if key in Books.__dataclass_fields__})


def settle(ports: Ports, job: Job, run_name: str) -> Books:
    """
    Close a run, or leave it open where shards are still with the vendor.

    Raises DoesNotAddUp, RunFailed or RunIncomplete, always after the books are written, so that whoever runs this
    fails for the reader to see.
    """
    run = ports.ledger.run(run_name)
    _sort_leftovers(ports, job, run)
    proof = prove(ports, run)
    if run.state == "open" and not broken(proof):
        # The task that sealed a round may have died, or failed for good, before the sink had its dead letters.
        for plan in rounds_of(ports, run.run):
            bury(ports, job, plan)
    books, before = add_up(ports, run), earlier_of(ports.ledger, run)
    books.letters = [group.as_json() for group in by_reason(standing(ports, run))]
    waiting = left_pending(ports, run, before)
    shards = ports.ledger.shards(run_name)
    gates = stopped(ports.ledger, run_name) if stands_still(ports.ledger, job, run_name) else []
    if gates:
        books.held_back = sum(shard.plan.rows for shard in _unloaded(shards))
    problem = disproved(run.run, proof) or _judge(job, run, books, shards, before=before, waiting=waiting, gates=gates)
    books.state = _state(books, problem)
    # A complete run that is looked at again took no longer than it did.
    told = run.books if run.state == "complete" else None
    books.seconds = told["seconds"] if told else max(0.0, (ports.clock.now() - run.started_utc).total_seconds())
    ports.ledger.settle(run_name, state=books.state, books=books.as_json(), proof=proof, now=ports.clock.now())
    tell_run(ports, run, state=books.state, seconds=books.seconds)
    log.info("settle: %s, %s answers loaded, %s USD", books.state, f"{books.merged:,}", f"{books.cost_usd:.4f}")
    if problem is not None:
        raise problem
    return books


def _sort_leftovers(ports: Ports, job: Job, run: Run) -> None:
    """Give a fate to the rows of shards that came back after the last round was sealed."""
    if stands_still(ports.ledger, job, run.run):
        return
    shards = ports.ledger.shards(run.run)
    untaken = [shard for shard in shards if is_untaken(job, shard)]
    if any(shard.held_reason == Reason.ACCOUNT for shard in untaken) and not all(map(is_done, shards)):
        # The run stays open anyway. Run again with the account mended, these shards go with the others.
        return
    if untaken:
        retry(ports, job, run.run, seals=len(rounds_of(ports, run.run)), has_rounds=False)


def add_up(ports: Ports, run: Run) -> Books:
    """Add a run up from its sealed plans and its shards in the ledger."""
    books = Books(run.run, run.job, str(run.window))
    rounds = rounds_of(ports, run.run)
    shards = ports.ledger.shards(run.run)
    if rounds:
        for name, count in rounds[0].facts["counts"].items():
            setattr(books, name, count)
    again, dead, pending = Counter[str](), Counter[str](), Counter[str]()
    for plan in rounds[1:]:
        again.update(plan.facts["sent_again"])
        dead.update(plan.facts["dead"])
        pending.update(plan.facts["pending"])
        books.copies_dead += plan.facts["copies_dead"]
        books.copies_pending += plan.facts["copies_pending"]
    books.sent_again, books.dead, books.pending = dict(again), dict(dead), dict(pending)
    _add_shards(books, shards)
    doubles = ports.ledger.doubles(run.run)
    books.doubles, books.doubles_usd = len(doubles), sum((usd for _, usd in doubles), Decimal(0))
    reserved, _ = ports.ledger.spent(run.run)
    books.reserved_usd = reserved
    return books


def _add_shards(books: Books, shards: Sequence[Shard]) -> None:
    odd: Counter[str] = Counter()
    for shard in shards:
        counts = shard.counts
        books.good += counts.get("good", 0)
        odd.update({key.removeprefix("odd:"): n for key, n in counts.items() if key.startswith("odd:")})
        books.merged += shard.merged
        if shard.current is not None and shard.current.batch_id is not None:
            books.batches += 1
        _add_surprises(books, shard)
        if not is_done(shard):
            books.in_flight += shard.plan.rows
        elif shard.taken_by_round is None:
            books.in_flight += shard.plan.rows - counts.get("good", 0)
    cost = total(shard.cost for shard in shards)
    books.odd = dict(odd)
    _add_cost(books, cost)


def _add_surprises(books: Books, shard: Shard) -> None:
    """Note what went past a budget."""
    if shard.current is not None:
        over_usd = shard.cost.batch_usd - shard.current.reserved_usd
        if over_usd > 0:
            books.above_reserve += 1
            books.above_reserve_usd += over_usd
        books.turned_up += shard.current.turned_up_utc is not None


def _add_cost(books: Books, cost: Cost) -> None:
    books.input_tokens, books.output_tokens = cost.usage.input_tokens, cost.usage.output_tokens
    books.cached_tokens = cost.usage.cached_tokens
    books.cost_usd, books.realtime_usd = cost.batch_usd, cost.realtime_usd


def is_done(shard: Shard) -> bool:
    """Say whether every row of a shard has a verdict or a reason to be pending."""
    return shard.state in (ShardState.COLLECTED, ShardState.LOADED, ShardState.HELD)


def differences(books: Books, shards: Sequence[Shard]) -> list[str]:
    """Name every sum that does not hold."""
    found = []
    placed = books.not_deferrable + books.unchanged + books.duplicates + books.superseded
    placed += books.unrenderable + books.requests
    came_in = books.pulled + books.from_pending + books.from_dead
    if came_in != placed:
        found.append(f"{came_in:,} records came in, {placed:,} are placed")
    dead, pending = sum(books.dead.values()), sum(books.pending.values())
    fates = books.good + dead + pending + books.in_flight
    if books.requests != fates:
        found.append(
            f"{books.requests:,} requests, but {books.good:,} good + {dead:,} dead + {pending:,} pending + "
            f"{books.in_flight:,} in flight = {fates:,}"
        )
    if not books.in_flight and not _unloaded(shards) and books.merged != books.good + books.copies_loaded:
        found.append(f"{books.good + books.copies_loaded:,} answers are good, {books.merged:,} reached the sink")
    return found


def _unloaded(shards: Sequence[Shard]) -> list[Shard]:
    return [shard for shard in shards if shard.state is ShardState.COLLECTED]


def _why(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Give what is known to be wrong with these shards, each sentence once, and three at most."""
    return tuple(dict.fromkeys(shard.problem for shard in shards if shard.problem))[:3]


def _judge(
    job: Job,
    run: Run,
    books: Books,
    shards: Sequence[Shard],
    *,
    before: Sequence[Run],
    waiting: int,
    gates: Sequence[Gate],
) -> NightbatchError | None:
    wrong = differences(books, shards)
    if wrong:
        return DoesNotAddUp(books.run, differences=wrong)
    if gates:
        breaches = gates[0].facts["breaches"]
        return RunHeldBack(books.run, held_back=books.held_back, loaded=books.merged, breaches=breaches)
    if unloaded := _unloaded(shards):
        return RunUnloaded(books.run, unloaded=sum(shard.plan.rows for shard in unloaded), why=_why(unloaded))
    pending = books.pending_rows + waiting
    if books.in_flight or pending:
        reasons = Counter(books.pending)
        reasons["left by an earlier generation"] = waiting
        reasons["with the vendor or not sent"] = books.in_flight
        said = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common() if count)
        return RunIncomplete(books.run, pending=pending + books.in_flight, reasons=said, why=_why(shards))
    return over_limits(job, run, books, [told for one in before if (told := books_of(one)) is not None])


def _state(books: Books, problem: NightbatchError | None) -> str:
    if problem is None:
        return "complete"
    if isinstance(problem, RunFailed):
        return "failed"
    if isinstance(problem, DoesNotAddUp | RunHeldBack | RunUnloaded) or books.in_flight:
        # Left open: whoever runs it again goes on where it stands, and nobody else takes its window.
        return "open"
    return "incomplete"
