"""At no instant is reserved plus spent above a budget, whatever happens in whatever order."""

from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from tests.adapters.ledger_builders import NIGHT, NOW, batch, intent, round_plan

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_types import Usd, rounded_up, usd_sum
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost
from nightbatch.errors import BudgetExceeded, StaleAttempt

pytest_plugins = ["tests.servers"]

amounts = st.decimals(min_value=0, max_value=20, places=9)
signed = st.decimals(min_value=-999_999_999, max_value=999_999_999, places=9)
numbers = count()


@cache
def shared_ledger() -> SqlLedger:
    """One ledger for all examples, which are runs of their own in it."""
    return SqlLedger.open_or_migrate("sqlite://")


class MoneyMachine(RuleBasedStateMachine):
    """One run, one budget, any order of steps; the model is a dict of what each attempt holds or has cost."""

    sealed: Bundle[Any] = Bundle("sealed")
    begun: Bundle[Any] = Bundle("begun")
    stored: Bundle[Any] = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = shared_ledger()
        self.run = self.ledger.open_run(f"job-{next(numbers)}", NIGHT, now=NOW).run
        self.rounds = 0
        self.reserved: dict[int, Decimal] = {}
        self.actual: dict[ShardRef, Decimal] = {}

    @initialize(budget=amounts)
    def start(self, budget: Decimal) -> None:
        self.budget = budget

    @rule(target=sealed)
    def seal(self) -> Any:
        plan = self.ledger.seal(round_plan(self.run, round_=self.rounds), now=NOW)
        self.rounds += 1
        return plan.shards[0].ref

    @rule(ref=sealed, usd=amounts)
    def begin_blindly(self, ref: ShardRef, usd: Decimal) -> None:
        """Without a look: refused unless the shard happens to be sealed and new."""
        shard = self.ledger.shard(ref)
        if shard.state != "sealed" or shard.attempts:
            try:
                self.ledger.begin(intent(ref, reserve_usd=usd, budget_usd=self.budget), now=NOW)
            except StaleAttempt:
                return
            raise AssertionError("began a shard that somebody else had begun")

    @rule(target=begun, ref=sealed, usd=amounts)
    def begin(self, ref: ShardRef, usd: Decimal) -> Any:
        shard = self.ledger.shard(ref)
        wanted = intent(ref, expected_attempts=shard.attempts, reserve_usd=usd, budget_usd=self.budget)
        fits = self.exposure + usd <= self.budget
        try:
            attempt = self.ledger.begin(wanted, now=NOW)
        except BudgetExceeded:
            assert not fits
            return None
        except StaleAttempt:
            assert shard.state != "sealed"
            return None
        assert fits
        self.reserved[attempt.attempt_id] = usd
        return attempt

    @rule(attempt=begun, outcome=st.sampled_from(["absent", "refused", "lost"]))
    def end(self, attempt: Any, outcome: Any) -> None:
        if attempt is None:
            return
        try:
            self.ledger.end_attempt(attempt.attempt_id, outcome, reason="", retry_at=None, now=NOW)
        except StaleAttempt:
            return
        self.reserved.pop(attempt.attempt_id, None)

    @rule(target=stored, attempt=begun)
    def open_and_store(self, attempt: Any) -> Any:
        """Only what is reserved: a batch that turns up after its end is reserved again, and tested elsewhere."""
        if attempt is None or attempt.attempt_id not in self.reserved:
            return None
        try:
            self.ledger.note_open(attempt.attempt_id, batch(f"batch-{attempt.attempt_id}"), now=NOW)
            self.ledger.note_stored(attempt.attempt_id, ["a"], ["b"], now=NOW)
        except StaleAttempt:
            return None
        return attempt

    @rule(attempt=stored, share=st.decimals(min_value=0, max_value=1, places=3), times=st.integers(1, 2))
    def collect(self, attempt: Any, share: Decimal, times: int) -> None:
        if attempt is None:
            return
        usd = (attempt.reserved_usd * share).quantize(Decimal("1e-9"))
        for _ in range(times):
            self.ledger.note_collected(attempt.ref, verdicts_name="v", counts={}, cost=Cost(batch_usd=usd), now=NOW)
        if self.reserved.pop(attempt.attempt_id, None) is not None:
            self.actual[attempt.ref] = usd

    @property
    def exposure(self) -> Decimal:
        return sum([*self.reserved.values(), *self.actual.values()], Decimal(0))

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        assert self.ledger.spent(self.run) == (
            sum(self.reserved.values(), Decimal(0)),
            sum(self.actual.values(), Decimal(0)),
        )

    @invariant()
    def the_wall_stands(self) -> None:
        assert sum(self.ledger.spent(self.run)) <= getattr(self, "budget", Decimal(0))


TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
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
