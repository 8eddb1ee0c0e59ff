"""Whether a canary lets the others follow."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.canary import Bounds, Sample, breaches

BOUNDS = Bounds(max_bad_share=0.1, max_length_growth=2.0, max_cost_growth=1.5)
LAST = Sample(1000, {"good": 1000}, output_tokens=20_000, cost_usd=Decimal("0.5"))


def sample(*, good: int = 100, cost: str = "0.05", tokens: int = 2_000, **counts: int) -> Sample:
    named = {name.replace("__", ":"): count for name, count in counts.items()}
    return Sample(good + sum(counts.values()), {"good": good, **named}, tokens, Decimal(cost))


def test_a_canary_like_the_last_good_run_lets_the_others_follow() -> None:
    assert breaches(sample(), BOUNDS, last=LAST) == []


def test_badly_answered_rows_hold_the_others_back_and_are_named() -> None:
    (said,) = breaches(sample(good=80, change__off_schema=15, dead__invalid_request=5), BOUNDS, last=LAST)

    assert said.startswith("20 of 100 rows were answered badly (20.0%: 15 off_schema, 5 invalid_request)")


def test_what_the_vendor_alone_is_to_blame_for_holds_nobody_back() -> None:
    assert breaches(sample(good=50, again__expired=40, again__transient_error=10, tokens=1_000, cost="0.025"), BOUNDS,
                    last=LAST) == []  # fmt: skip


def test_a_canary_without_an_answer_says_nothing_and_lets_nobody_follow() -> None:
    assert breaches(sample(good=0, again__expired=100), BOUNDS, last=None) == [
        "none of its 100 rows was answered, so nothing is known of the others"
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tokens": 4_100}, "41.0 output tokens, 2.0 times the last good run's 20.0"),
        ({"cost": "0.08"}, "0.000800 USD, 1.6 times the last good run's 0.000500"),
    ],
)
def test_longer_or_dearer_answers_than_the_last_good_run_hold_the_others_back(
    changed: dict[str, int | str], words: str
) -> None:
    (said,) = breaches(sample(**changed), BOUNDS, last=LAST)  # type: ignore[arg-type]  # one of two keywords

    assert words in said
    assert breaches(sample(**changed), BOUNDS, last=None) == []  # type: ignore[arg-type]  # the same


@given(good=st.integers(0, 500), bad=st.integers(0, 500), again=st.integers(0, 500))
def test_the_share_of_bad_rows_alone_decides_without_a_last_run(good: int, bad: int, again: int) -> None:
    found = breaches(sample(good=good, change__not_json=bad, again__expired=again), BOUNDS, last=None)

    lets_go = good + bad > 0 and bad / (good + bad) <= BOUNDS.max_bad_share
    assert (found == []) is lets_go
