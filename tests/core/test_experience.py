"""What bills teach the next estimate."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.experience import Experience, PastEstimate
from nightbatch.core.money import tokens_bound


def test_before_the_first_bill_four_bytes_are_a_token_and_an_answer_takes_a_third_of_its_cap() -> None:
    new = Experience()

    assert new.input_tokens_expected(4_001) == 1_001
    assert new.output_tokens_expected(rows=10, cap=3_000) == 1_000
    assert new.output_tokens_a_row is None


def test_what_was_billed_is_what_is_expected_next() -> None:
    known = Experience(rows=1_000, output_tokens=21_900, size_bytes=500_000, input_tokens=146_000)

    assert known.input_tokens_expected(5_000) == 1_460
    assert known.output_tokens_expected(rows=100, cap=20_000) == 2_190


def test_an_answer_is_never_expected_to_be_longer_than_its_cap() -> None:
    known = Experience(rows=10, output_tokens=10_000)

    assert known.output_tokens_expected(rows=10, cap=500) == 500
    assert known.output_tokens_expected(rows=10, cap=0) == 10_000


@given(st.integers(0, 10**12))
def test_a_guess_is_never_above_the_bound(size: int) -> None:
    assert Experience().input_tokens_expected(size) <= tokens_bound(size)


def test_a_past_estimate_says_how_near_it_was() -> None:
    assert PastEstimate("r", Decimal(2), Decimal(5), Decimal("1.5")).share == 0.75
    assert PastEstimate("r", Decimal(0), Decimal(5), Decimal("1.5")).share is None
