"""At no instant is reserved plus spent above a budget, whatever happens in whatever order."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from tests.adapters.ledger_builders import NOW, batch, intent, night, round_plan

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_types import Usd, rounded_up, usd_sum
from nightbatch.core.budget import Budget, BudgetKind
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost
from nightbatch.errors import BudgetExceeded, BudgetTaken, StaleAttempt

pytest_plugins = ["tests.servers"]

amounts = st.sampled_from(list(map(Decimal, ("0", "0.000000001", "1", "1.999999999", "2", "2.5", "3.333333333"))))
walls = st.none() | st.sampled_from(list(map(Decimal, ("3", "4.999999999", "6", "9.000000001"))))
signed = st.decimals(min_value=-999_999_999, max_value=999_999_999, places=9)
numbers = count()
accounts, days = st.sampled_from("xxxy"), st.sampled_from([0, 0, 1, 20])
TODAY = date(2026, 11, 15)
"""20 days later it is December."""


@cache
def shared_ledger() -> SqlLedger:
    """One ledger for all examples, which are runs of their own in it."""
    return SqlLedger.open_or_migrate("sqlite://")


@dataclass
class Charge:
    """What one attempt holds or has cost, and to which run, account and day it belongs."""

    run: str
    job: str
    account: str
    day: date
    usd: Decimal
    debt: Decimal = Decimal(0)
    """How much of it nobody was asked about: a batch that turned up late, or a cost above its reserve."""


class MoneyMachine(RuleBasedStateMachine):
    """Two jobs with two runs each, two accounts, four days, every kind of budget, and any order of steps."""

    sealed: Bundle[Any] = Bundle("sealed")
    begun: Bundle[Any] = Bundle("begun")
    stored: Bundle[Any] = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = shared_ledger()
        self.number = next(numbers)
        self.jobs = [f"job-{self.number}-{name}" for name in "ab"]
        self.runs = {self.ledger.open_run(job, night(day), now=NOW).run: job for job in self.jobs for day in (0, 1)}
        self.rounds = Counter[str]()
        self.charges: dict[int, Charge] = {}
        self.settled: set[int] = set()
        self.amounts: dict[BudgetKind, Decimal] = {}

    @initialize(walls=st.fixed_dictionaries(dict.fromkeys(BudgetKind, walls)))
    def start(self, walls: dict[BudgetKind, Decimal | None]) -> None:
        self.amounts = {kind: usd for kind, usd in walls.items() if usd is not None}

    @property
    def budgets(self) -> tuple[Budget, ...]:
        return tuple(Budget(kind, usd) for kind, usd in self.amounts.items())

    @rule(target=begun, number=st.integers(0, 3), usd=amounts, account=accounts, days=days)
    def send(self, number: int, usd: Decimal, account: str, days: int) -> Any:
        return self.begin_shard(self.seal_shard(number), usd, account, days)

    @rule(target=sealed, number=st.integers(0, 3))
    def seal(self, number: int) -> Any:
        return self.seal_shard(number)

    @rule(target=begun, ref=sealed, usd=amounts, account=accounts, days=days)
    def begin(self, ref: ShardRef, usd: Decimal, account: str, days: int) -> Any:
        """Also a shard that was begun before."""
        return self.begin_shard(ref, usd, account, days)

    def seal_shard(self, number: int) -> ShardRef:
        run = list(self.runs)[number]
        plan = self.ledger.seal(round_plan(run, round_=self.rounds[run]), now=NOW)
        self.rounds[run] += 1
        return plan.shards[0].ref

    def begin_shard(self, ref: ShardRef, usd: Decimal, account: str, days: int) -> Any:
        shard = self.ledger.shard(ref)
        charge = Charge(ref.run, self.runs[ref.run], f"{account}-{self.number}", TODAY + timedelta(days=days), usd)
        wanted = intent(
            ref,
            expected_attempts=shard.attempts,
            reserve_usd=usd,
            account=charge.account,
            day=charge.day,
            budgets=self.budgets,
        )
        try:
            attempt = self.ledger.begin(wanted, now=NOW)
        except BudgetExceeded:
            assert any(self.billed(budget, charge) + usd > budget.usd for budget in self.budgets)
            return None
        except BudgetTaken:
            assert all(self.billed(budget, charge) + usd <= budget.usd for budget in self.budgets)
            assert any(self.exposure(budget, charge) + usd > budget.usd for budget in self.budgets)
            return None
        except StaleAttempt:
            assert shard.state != "sealed"
            return None
        assert all(self.exposure(budget, charge) + usd <= budget.usd for budget in self.budgets)
        self.charges[attempt.attempt_id] = charge
        return attempt, charge

    @rule(begun=begun, outcome=st.sampled_from(["absent", "refused", "lost"]))
    def end(self, begun: Any, outcome: Any) -> None:
        if begun is None:
            return
        attempt, _ = begun
        try:
            self.ledger.end_attempt(attempt.attempt_id, outcome, reason="", retry_at=None, now=NOW)
        except StaleAttempt:
            return
        self.charges.pop(attempt.attempt_id, None)

    @rule(target=stored, begun=begun)
    def open_and_store(self, begun: Any) -> Any:
        """Also of an attempt that was taken for absent: its reserve is a debt then."""
        if begun is None:
            return None
        attempt, charge = begun
        try:
            turned_up = self.ledger.note_open(attempt.attempt_id, batch(f"batch-{attempt.attempt_id}"), now=NOW)
            if turned_up:
                self.charges[attempt.attempt_id] = replace(charge, debt=charge.usd)
            self.ledger.note_stored(attempt.attempt_id, ["a"], ["b"], now=NOW)
        except StaleAttempt:
            return None
        return attempt

    @rule(attempt=stored, share=st.decimals(min_value=0, max_value="1.2", places=3), times=st.integers(1, 2))
    def collect(self, attempt: Any, share: Decimal, times: int) -> None:
        if attempt is None:
            return
        usd = (attempt.reserved_usd * share).quantize(Decimal("1e-9"))
        for _ in range(times):
            self.ledger.note_collected(attempt.ref, verdicts_name="v", counts={}, cost=Cost(batch_usd=usd), now=NOW)
        if attempt.attempt_id not in self.settled:
            self.settled.add(attempt.attempt_id)
            charge = self.charges[attempt.attempt_id]
            charge.debt += max(usd - charge.usd, Decimal(0))
            charge.usd = usd

    def counted(self, budget: Budget, like: Charge) -> list[tuple[int, Charge]]:
        """Give the charges that a budget counts together with this one."""
        days = budget.days(like.day)
        names = {BudgetKind.RUN: "run", BudgetKind.ACCOUNT_MONTH: "account"}
        name = names.get(budget.kind, "job")
        return [
            (attempt_id, charge)
            for attempt_id, charge in self.charges.items()
            if getattr(charge, name) == getattr(like, name) and (days is None or days[0] <= charge.day < days[1])
        ]

    def exposure(self, budget: Budget, like: Charge) -> Decimal:
        return sum((charge.usd for _, charge in self.counted(budget, like)), Decimal(0))

    def billed(self, budget: Budget, like: Charge) -> Decimal:
        counted = self.counted(budget, like)
        return sum((charge.usd for attempt_id, charge in counted if attempt_id in self.settled), Decimal(0))

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        for run in self.runs:
            held = [(i in self.settled, charge.usd) for i, charge in self.charges.items() if charge.run == run]
            reserved = sum((usd for is_settled, usd in held if not is_settled), Decimal(0))
            actual = sum((usd for is_settled, usd in held if is_settled), Decimal(0))
            assert self.ledger.spent(run) == (reserved, actual)

    @invariant()
    def the_wall_stands(self) -> None:
        """Only what nobody was asked about may be above it."""
        for budget in self.budgets:
            for charge in self.charges.values():
                debts = sum((one.debt for _, one in self.counted(budget, charge)), Decimal(0))
                assert self.exposure(budget, charge) <= budget.usd + debts


TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(
    max_examples=50, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


prices = sa.Table("prices", sa.MetaData(), sa.Column("usd", Usd))


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def connection(request: pytest.FixtureRequest) -> Any:
    url = "sqlite://"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database().replace("://", "+psycopg://")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        prices.create(connection)
        yield connection
    engine.dispose()


@settings(deadline=None, max_examples=100)
@given(amounts=st.lists(signed, max_size=20))
def test_amounts_come_back_as_they_were_and_add_up_exactly(connection: sa.Connection, amounts: list[Decimal]) -> None:
    connection.execute(sa.delete(prices))
    if amounts:
        connection.execute(sa.insert(prices), [{"usd": usd} for usd in amounts])

    found = connection.execute(sa.select(prices.c.usd)).scalars().all()

    assert sorted(found) == sorted(amounts)
    assert all(isinstance(usd, Decimal) for usd in found)
    assert connection.execute(sa.select(usd_sum(prices.c.usd))).scalar_one() == sum(amounts)


@given(usd=st.decimals(min_value=0, max_value=10**8, places=15))
def test_a_reserve_is_rounded_up_by_less_than_a_nano_dollar(usd: Decimal) -> None:
    assert 0 <= rounded_up(usd) - usd < Decimal("1e-9")
