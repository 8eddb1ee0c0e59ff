"""Money: exact, additive, and never more than the worst case."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.money import ZERO, Cost, NanoRate, Rate, Usage, tokens_bound, total, usd_of

tokens = st.integers(0, 10**9)
rates = st.integers(0, 200_000).map(lambda cents: Decimal(cents) / 1000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage as vendors report it: what was cached is part of the input."""
    input_tokens = draw(tokens)
    cached = draw(st.integers(0, input_tokens))
    written = draw(st.integers(0, input_tokens - cached))
    return Usage(input_tokens, cached, written, draw(tokens), draw(tokens))


@st.composite
def prices(draw: st.DrawFn) -> Rate:
    """Rates as vendors set them: reading a cache is never dearer than plain input."""
    plain = draw(rates)
    cached = plain * draw(st.sampled_from([Decimal("0.1"), Decimal("0.5"), Decimal(1)]))
    return Rate(plain, draw(rates), cached, plain * draw(st.sampled_from([Decimal(1), Decimal("1.25")])), "test")


@given(prices(), st.lists(usages(), max_size=20))
def test_the_cost_of_rows_is_the_cost_of_their_tokens_together(rate: Rate, rows: list[Usage]) -> None:
    together = sum(rows, Usage())

    assert rate.cost_usd(together) == sum((rate.cost_usd(row) for row in rows), ZERO)


@given(prices())
def test_a_rate_comes_back_as_it_was_written_down(rate: Rate) -> None:
    assert Rate.from_json(rate.as_json()) == rate


@given(prices(), usages())
def test_nothing_costs_more_than_its_worst_case(rate: Rate, usage: Usage) -> None:
    worst = rate.worst_usd(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)

    assert ZERO <= rate.cost_usd(usage) <= worst


@given(prices(), tokens, tokens, tokens)
def test_a_larger_cap_never_has_a_smaller_worst_case(rate: Rate, input_tokens: int, cap: int, more: int) -> None:
    small = rate.worst_usd(input_tokens=input_tokens, output_tokens=cap)

    assert small <= rate.worst_usd(input_tokens=input_tokens, output_tokens=cap + more)


def test_each_kind_of_token_has_its_own_rate() -> None:
    rate = Rate(Decimal(3), Decimal(15), Decimal("0.30"), Decimal("3.75"), "test")
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, cache_write_tokens=100_000, output_tokens=200_000)

    # 0.5 M plain, 0.4 M read from the cache, 0.1 M written to it, 0.2 M output
    assert rate.cost_usd(usage) == Decimal("1.5") + Decimal("0.12") + Decimal("0.375") + Decimal(3)


def test_reasoning_is_billed_once_as_part_of_the_output() -> None:
    rate = Rate(ZERO, Decimal(10), ZERO, ZERO, "test")

    assert rate.cost_usd(Usage(output_tokens=1_000_000, reasoning_tokens=900_000)) == 10


costs = st.builds(Cost, usages(), st.integers(0, 10**9).map(lambda n: Decimal(n) / 10**6), st.just(Decimal("0.000001")))


@given(st.lists(costs, max_size=10), st.randoms())
def test_costs_add_up_in_any_order(rows: list[Cost], random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)

    assert total(rows) == total(shuffled) == sum(rows, Cost())
    assert total(rows).usage.output_tokens == sum(row.usage.output_tokens for row in rows)


def test_nothing_costs_nothing() -> None:
    assert total([]) == Cost(Usage(), ZERO, ZERO)


@given(st.binary(max_size=300))
def test_a_vocabulary_of_bytes_never_makes_more_tokens_than_the_bound(text: bytes) -> None:
    """The worst that one can do is a token for each byte; rare characters come to 0.99 (ADR 13)."""
    assert tokens_bound(len(text)) >= len(list(text))


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_longer_text_never_has_a_smaller_bound(one: int, other: int) -> None:
    assert tokens_bound(min(one, other)) <= tokens_bound(max(one, other))


any_usd = (
    st.decimals(0, 1000, places=3)
    | st.decimals(0, 1000, places=9)
    | st.floats(0, 1000).map(lambda usd: Decimal(str(usd)))
)


@given(st.builds(Rate, any_usd, any_usd, any_usd, any_usd, st.just("test")), usages())
def test_whole_numbers_price_a_row_as_decimals_do(rate: Rate, usage: Usage) -> None:
    assert usd_of(NanoRate(rate).cost_nanos(usage)) == rate.cost_usd(usage).quantize(Decimal("1e-9"))


def test_half_a_billionth_goes_to_the_even_one() -> None:
    rate = NanoRate(Rate(Decimal("0.0005"), ZERO, ZERO, ZERO, "test"))

    assert [rate.cost_nanos(Usage(input_tokens=tokens)) for tokens in (1, 2, 3, 4, 5)] == [0, 1, 2, 2, 2]
