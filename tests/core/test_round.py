"""Rounds: what becomes of a row that is not good, for every kind of verdict and every reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.round import Choice, Fate, choose
from nightbatch.core.verdict import Reason, VerdictKind

BAD = [kind for kind in VerdictKind if kind is not VerdictKind.GOOD]
kinds = st.sampled_from(BAD)
reasons = st.sampled_from(list(Reason))


@st.composite
def situations(draw: st.DrawFn) -> dict[str, int | bool]:
    """Where a row can stand: the model it was sent to, of how many, how often it was sent, and what is left."""
    models = draw(st.integers(1, 4))
    return {
        "model": draw(st.integers(0, models - 1)),
        "models": models,
        "sends": draw(st.integers(1, 6)),
        "has_rounds": draw(st.booleans()),
    }


@given(kinds, reasons, situations())
def test_a_row_is_sent_only_where_a_round_and_a_model_are_left(kind, reason, situation) -> None:
    choice = choose(kind, reason, **situation)

    if choice.fate is Fate.SEND:
        assert situation["has_rounds"]
        assert situation["model"] <= choice.model < situation["models"]


@given(kinds, reasons, situations())
def test_without_rounds_the_unanswered_wait_and_the_badly_answered_are_dead(kind, reason, situation) -> None:
    choice = choose(kind, reason, **situation | {"has_rounds": False})

    waits = kind in (VerdictKind.AGAIN, VerdictKind.ACCOUNT)
    assert choice == Choice(Fate.PENDING if waits else Fate.DEAD)


@given(reasons, situations())
def test_account_trouble_sends_nothing_and_buries_nothing(reason, situation) -> None:
    assert choose(VerdictKind.ACCOUNT, reason, **situation) == Choice(Fate.PENDING)


@given(reasons, situations())
def test_a_row_with_nothing_wrong_is_sent_again_unchanged(reason, situation) -> None:
    situation["has_rounds"] = True

    assert choose(VerdictKind.AGAIN, reason, **situation) == Choice(Fate.SEND, situation["model"])


@given(reasons, situations())
def test_what_is_sent_again_after_a_bad_answer_is_never_quite_the_same(reason, situation) -> None:
    """The same question with the same cap would get the same answer, and be paid again."""
    situation["has_rounds"] = True
    choice = choose(VerdictKind.CHANGE, reason, **situation)
    told = {Reason.NOT_JSON, Reason.OFF_SCHEMA, Reason.EMPTY}

    if choice.fate is Fate.SEND and reason in told | {Reason.TRUNCATED, Reason.REFUSED}:
        assert choice.double_cap or choice.hint or choice.model > situation["model"]


def test_a_truncated_answer_gets_a_larger_cap_on_the_same_model() -> None:
    choice = choose(VerdictKind.CHANGE, Reason.TRUNCATED, model=0, models=2, sends=3, has_rounds=True)

    assert choice == Choice(Fate.SEND, 0, double_cap=True)


@pytest.mark.parametrize(("models", "fate"), [(1, Fate.DEAD), (2, Fate.SEND)])
@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.INVALID_REQUEST])
def test_what_a_model_refuses_goes_to_the_next_one_if_there_is_one(models: int, fate: Fate, reason: Reason) -> None:
    kind = VerdictKind.CHANGE if reason is Reason.REFUSED else VerdictKind.DEAD

    choice = choose(kind, reason, model=0, models=models, sends=1, has_rounds=True)

    assert choice == Choice(fate, models - 1)


def test_an_answer_off_the_schema_is_first_asked_to_be_repaired_and_then_goes_to_the_next_model() -> None:
    first = choose(VerdictKind.CHANGE, Reason.OFF_SCHEMA, model=0, models=2, sends=1, has_rounds=True)
    second = choose(VerdictKind.CHANGE, Reason.OFF_SCHEMA, model=0, models=2, sends=2, has_rounds=True)

    assert (first.model, "schema" in first.hint) == (0, True)
    assert (second.model, "schema" in second.hint) == (1, True)
