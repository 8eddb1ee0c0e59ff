"""Links and bags: equal only for the same rows, and a sentence for each thing that does not hold."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.money import Usage
from nightbatch.core.proof import LINKS, Bag, Link, broken, same, told, unknown
from nightbatch.core.proof_rows import Heard, Judged
from nightbatch.core.result import Outcome
from nightbatch.core.verdict import Reason, VerdictKind

rows = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=8)


def bag_of(items) -> Bag:
    bag = Bag()
    for item in items:
        bag.add(*item)
    return bag


@given(rows, rows)
def test_two_bags_are_equal_only_if_they_hold_the_same_rows(one, other) -> None:
    assert (bag_of(one) == bag_of(other)) is (Counter(one) == Counter(other))


@given(rows, st.randoms(use_true_random=False))
def test_a_bag_does_not_depend_on_the_order(items, random) -> None:
    mixed = list(items)
    random.shuffle(mixed)

    assert bag_of(mixed) == bag_of(items)


@given(rows, rows)
def test_what_is_taken_out_was_never_in(stay, go) -> None:
    bag = bag_of([*go, *stay])
    for item in go:
        bag.add(*item, times=-1)
    together = bag_of(stay)
    together += bag_of(go)

    assert bag == bag_of(stay)
    assert together == bag_of([*stay, *go])


def test_a_file_that_is_not_what_it_was_comes_first() -> None:
    links = [same("cost", "r0-s000", 1, 2), unknown("rates", "r0-s000", "not then"), same("file", "a", "x", "y")]

    assert [str(link) for link in broken(links)] == [
        "file of a: expected x, found y",
        "cost of r0-s000: expected 1, found 2",
    ]
    assert told(links) == ("0 files have their SHA-256, 0 sums hold, 2 links do not hold, 1 could not be looked at")
    assert told([]) == "nothing to add up"
    assert told([Link("file", "a", "", "", True)]) == "1 files have their SHA-256, 0 sums hold"


def test_every_reason_that_a_row_can_have_fits_what_a_vendor_can_say() -> None:
    """A new reason must say which outcome it is about, or rows that have it would be taken for answered."""
    unanswered = {"expired", "cancelled", "transient_error", "account_trouble", "invalid_request"}
    outcomes = {
        "expired": Outcome.EXPIRED,
        "cancelled": Outcome.CANCELLED,
        **dict.fromkeys(("transient_error", "account_trouble", "invalid_request"), Outcome.ERRORED),
    }
    answered = {"", "truncated", "refused", "paused", "empty_answer", "not_json", "off_schema", "unreadable_result"}
    answered |= {"discarded"}
    never_judged = {"budget", "not_sent", "bad_key", "duplicate_key", "bad_record", "too_large", "request_refused"}
    never_judged |= {"canary", "missing", "queue_too_small"}
    outcomes |= dict.fromkeys(answered, Outcome.ANSWERED)

    assert {reason.value for reason in Reason} - never_judged - answered - unanswered == set()
    for reason, outcome in outcomes.items():
        heard = Heard(1)
        heard.add(0, outcome, Usage())
        judged = Judged(1, heard, {})
        judged.add(0, "k", "f", (VerdictKind.CHANGE.value, reason), Usage(), judged.cost_usd)

        assert judged.lines() == ({outcome.value: 1}, {outcome.value: 1}, [])


def test_a_row_that_has_two_verdicts_or_none_is_named() -> None:
    judged = Judged(3, Heard(3), {})
    for row in (0, 0, 7):
        judged.add(row, "k", "f", ("dead", "refused"), Usage(), judged.cost_usd)

    assert judged.counts() == {"dead:refused": 1, "no verdict": 2}
    assert judged.odd("no such row", "a second verdict") == "no such row in row 7; a second verdict in row 0"


def test_a_bad_verdict_gives_way_to_a_good_one_of_the_same_row() -> None:
    judged = Judged(1, None, {})
    judged.add(0, "k", "f", ("again", "expired"), Usage(), judged.cost_usd)
    judged.add(0, "k", "f", ("good", ""), Usage(), judged.cost_usd)

    assert (judged.good, judged.bad, judged.counts(), judged.odd("a second verdict")) == (1, Bag(), {"good": 1}, "")


def test_every_link_says_what_it_means_when_it_holds() -> None:
    assert all(meaning and not meaning.endswith(".") for meaning in LINKS.values())
