"""Which answers are too far from what is usual."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.profile import Band, Profile
from nightbatch.core.quality import Bounds, Breach, Heard, breaches

BOUNDS = Bounds(
    min_rows=100,
    max_dead_share=0.05,
    max_refused_share=0.05,
    max_truncated_share=0.05,
    max_empty_share=0.02,
    max_shift=0.15,
    max_length_change=2.0,
    max_outside_share=0.01,
    ranges={"sure": Band(0.2, 1)},
)


def profile_of(good: int, bad: int, *, length: float = 20, outside: int = 0) -> Profile:
    answers = good + bad
    chars = {"reason": int(length * answers)}
    return Profile(answers, {"rating": {"good": good, "bad": bad}}, chars, {"sure": outside})


LAST = profile_of(600, 400)
USUAL = Heard({"good": 1000, "again:expired": 50, "odd:repeated rows": 3}, 0, LAST)


def said(heard: Heard, last: Profile | None = LAST) -> list[str]:
    return [str(breach) for breach in breaches(heard, BOUNDS, last=last)]


def test_what_is_as_usual_breaks_nothing() -> None:
    assert said(USUAL) == []
    assert USUAL.rows == 1050


def test_each_share_is_bounded_by_itself_and_rows_that_were_not_judged_do_not_count() -> None:
    counts = {
        "good": 900,
        "change:refused": 60,
        "change:truncated": 20,
        "change:empty_answer": 21,
        "again:expired": 999,
    }

    assert said(Heard(counts, 0, LAST)) == [
        "refused: 60 of 1,001 rows (6.0%); the job allows 5.0%",
        "empty_answer: 21 of 1,001 rows (2.1%); the job allows 2.0%",
    ]
    assert said(replace(USUAL, dead=53)) == ["dead letters: 53 of 1,050 rows (5.0%); the job allows 5.0%"]


def test_the_value_whose_share_changed_most_is_named_and_what_grew_is_shown() -> None:
    heard = replace(USUAL, profile=profile_of(440, 560))

    (breach,) = breaches(heard, BOUNDS, last=LAST)

    assert str(breach) == (
        "rating = bad: 56.0% of 1,000 answers, 40.0% of 1,000 in the last good run; "
        "the job allows a change of 15 points"
    )
    assert (breach.kind, breach.name, breach.value) == ("value", "rating", "bad")


def test_texts_that_became_long_or_short_are_told() -> None:
    assert said(replace(USUAL, profile=profile_of(600, 400, length=41))) == [
        "length of reason: 41.0 characters on average, 20.0 in the last good run; "
        "the job allows 2 times as long or as short"
    ]
    assert len(said(replace(USUAL, profile=profile_of(600, 400, length=9.9)))) == 1
    assert said(replace(USUAL, profile=profile_of(600, 400, length=40))) == []


def test_a_range_needs_no_earlier_run() -> None:
    found = breaches(replace(USUAL, profile=profile_of(600, 400, outside=11)), BOUNDS, last=None)

    assert list(map(str, found)) == ["sure outside 0.2 to 1: 11 of 1,000 answers (1.1%); the job allows 1.0%"]
    assert found[0].band == Band(0.2, 1)
    assert Breach.from_json(found[0].as_json()) == found[0]


def test_without_a_good_run_nothing_is_compared() -> None:
    assert said(replace(USUAL, profile=profile_of(0, 1000, length=900)), None) == []
    assert said(replace(USUAL, profile=profile_of(0, 1000, length=900)), profile_of(60, 39)) == []


@given(st.integers(0, 99), st.integers(0, 99))
def test_few_rows_are_held_to_nothing(good: int, refused: int) -> None:
    few = Heard({"good": good, "change:refused": refused}, refused, profile_of(0, good, length=999, outside=good))

    assert said(few) == [] or good + refused >= 100
