"""Dead letters by reason: how many rows, and what it would cost to send them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from nightbatch.core import money
from nightbatch.core.shard import ShardPlan
from nightbatch.core.verdict import Reason
from nightbatch.job import Job
from nightbatch.ports import Ports, RoundPlan, Run

from .chain import earlier_of, retried_reasons, rounds_of
from .fill import ENVELOPE_BYTES
from .lanes import FREE, packing_lane


@dataclass(frozen=True)
class Group:
    """Dead letters with one reason. Money is USD; None where a price is not known."""

    reason: str
    rows: int
    """All of them, duplicates' copies too."""
    requests: int
    """How many requests would be sent again; none for records that were never rendered."""
    expected_usd: Decimal | None = money.ZERO
    worst_usd: Decimal | None = money.ZERO

    def __add__(self, other: Group) -> Group:
        return Group(
            self.reason,
            self.rows + other.rows,
            self.requests + other.requests,
            _sum(self.expected_usd, other.expected_usd),
            _sum(self.worst_usd, other.worst_usd),
        )

    @property
    def can_be_sent(self) -> bool:
        """Say whether these were asked once, so that they can be asked again."""
        return self.requests > 0

    def as_json(self) -> dict[str, Any]:
        """Give the group as JSON values; money as text, exact."""
        return {key: str(value) if isinstance(value, Decimal) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Group:
        """Read what `as_json` wrote."""
        money_of = {name: _usd(values[name]) for name in ("expected_usd", "worst_usd")}
        return cls(values["reason"], values["rows"], values["requests"], **money_of)


@dataclass(frozen=True)
class Standing:
    """The dead letters of one sealed round that no later generation has taken up."""

    run: Run
    plan: RoundPlan
    groups: Mapping[str, Group]


def standing(ports: Ports, run: Run) -> list[Standing]:
    """Give the dead letters that a run and the generations it goes on from left, newest generation first."""
    found: list[Standing] = []
    taken: set[str] = set()
    for one in (run, *earlier_of(ports.ledger, run)):
        for plan in rounds_of(ports, one.run):
            groups = {group.reason: group for group in _groups(plan) if _is_left(group, taken)}
            if groups:
                found.append(Standing(one, plan, groups))
        taken |= retried_reasons(one.plan)
    return found


def _is_left(group: Group, taken: set[str]) -> bool:
    return not (group.can_be_sent and group.reason in taken)


def _groups(plan: RoundPlan) -> Iterator[Group]:
    for reason, rows in plan.facts.get("dead_reasons", {}).items():
        yield Group(reason, rows, 0)
    told = {one["reason"]: Group.from_json(one) for one in plan.facts.get("letters", ())}
    for reason, requests in plan.facts.get("dead", {}).items():
        # A round that was sealed by an older version says only how many.
        yield told.get(reason) or Group(reason, requests, requests, None, None)


def by_reason(found: Sequence[Standing]) -> list[Group]:
    """Add the groups of all rounds up, most rows first; what can be sent again stands before what can not."""
    totals: dict[tuple[str, bool], Group] = {}
    for one in found:
        for group in one.groups.values():
            kind = (group.reason, group.can_be_sent)
            totals[kind] = totals[kind] + group if kind in totals else group
    return sorted(totals.values(), key=lambda group: (not group.can_be_sent, -group.rows, group.reason))


def second_cap(job: Job, plan: ShardPlan, reason: str) -> int | None:
    """
    Give the cap on output tokens under which a dead letter is asked again; None for the job's own.

    The same model gets at least the cap that it had last, and twice that where the answer was cut off.
    """
    is_same = (plan.model, plan.provider) == (job.models[0].model, job.models[0].provider)
    if plan.max_output_tokens is None or not is_same:
        return None
    return plan.max_output_tokens * 2 if reason == Reason.TRUNCATED else plan.max_output_tokens


@dataclass
class Reckoning:
    """Adds up, while the dead letters of a round are written, what it would cost to send them again."""

    ports: Ports
    job: Job

    def __post_init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._sizes: dict[tuple[str, int | None], tuple[int, int]] = {}

    def add(self, plan: ShardPlan, reason: str, *, size_bytes: int, copies: int) -> None:
        """Count one dead row of a shard, with its duplicates' copies; they are asked with it."""
        kind = (reason, second_cap(self.job, plan, reason))
        requests, total = self._sizes.get(kind, (0, 0))
        self._sizes[kind] = (requests + 1, total + size_bytes)
        self._rows[reason] += 1 + copies

    def groups(self) -> list[Group]:
        """Give what was added, at the prices in force."""
        found: dict[str, Group] = {}
        for (reason, cap), (requests, size_bytes) in self._sizes.items():
            group = self._price(reason, cap, requests, size_bytes)
            found[reason] = found[reason] + group if reason in found else group
        return [replace(group, rows=self._rows[reason]) for reason, group in found.items()]

    def _price(self, reason: str, cap: int | None, requests: int, size_bytes: int) -> Group:
        lane = packing_lane(self.ports, self.job, 0, max_output_tokens=cap)
        if lane.rate is FREE:
            return Group(reason, requests, requests, None, None)
        output = (lane.spec.max_output_tokens or 0) * requests
        bound = money.tokens_bound(size_bytes + ENVELOPE_BYTES * requests)
        likely_in = lane.experience.input_tokens_expected(size_bytes)
        likely_out = lane.experience.output_tokens_expected(rows=requests, cap=output)
        return Group(
            reason,
            requests,
            requests,
            lane.rate.worst_usd(input_tokens=likely_in, output_tokens=likely_out),
            lane.rate.worst_usd(input_tokens=bound, output_tokens=output),
        )


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def _usd(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
