"""Verdicts: every outcome, finish and error of a vendor leads to exactly one."""

import pytest

from nightbatch.core.result import ErrorKind, Finish, Outcome, Result
from nightbatch.core.verdict import GOOD, MISSING, Reason, Verdict, VerdictKind, judge

OFF = Verdict(VerdictKind.CHANGE, Reason.OFF_SCHEMA, "at /a: breaks `type`")


def never(text: str) -> Verdict:
    """Stand for a check that must not be asked."""
    raise AssertionError(f"asked about {text!r}")


def answered(text: str | None, finish: Finish = Finish.DONE) -> Result:
    return Result("id", Outcome.ANSWERED, text=text, finish=finish)


def test_a_whole_answer_is_what_the_check_says_of_it() -> None:
    assert judge(answered("yes"), lambda text: GOOD if text == "yes" else OFF) == GOOD
    assert judge(answered("no"), lambda text: GOOD if text == "yes" else OFF) == OFF


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_no_text_is_an_empty_answer(text: str | None) -> None:
    assert judge(answered(text), never) == Verdict(VerdictKind.CHANGE, Reason.EMPTY)


@pytest.mark.parametrize("text", [None, "{", "{}"])
@pytest.mark.parametrize("finish", [finish for finish in Finish if finish is not Finish.DONE])
def test_an_answer_that_was_cut_off_is_never_taken_for_whole(finish: Finish, text: str | None) -> None:
    """A truncated answer may by accident be valid JSON."""
    verdict = judge(answered(text, finish), never)

    assert verdict == Verdict(VerdictKind.CHANGE, Reason(finish.value))


@pytest.mark.parametrize(
    ("outcome", "reason"), [(Outcome.EXPIRED, Reason.EXPIRED), (Outcome.CANCELLED, Reason.CANCELLED)]
)
def test_a_row_that_never_ran_is_sent_again_as_it_is(outcome: Outcome, reason: Reason) -> None:
    assert judge(Result("id", outcome), never) == Verdict(VerdictKind.AGAIN, reason)


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (ErrorKind.TRANSIENT, Verdict(VerdictKind.AGAIN, Reason.TRANSIENT, "code")),
        (ErrorKind.PERMANENT, Verdict(VerdictKind.DEAD, Reason.INVALID_REQUEST, "code")),
        (ErrorKind.ACCOUNT, Verdict(VerdictKind.ACCOUNT, Reason.ACCOUNT, "code")),
        (None, Verdict(VerdictKind.AGAIN, Reason.TRANSIENT, "code")),
    ],
)
def test_an_error_is_what_its_kind_says_and_an_unknown_kind_loses_no_row(
    kind: ErrorKind | None, verdict: Verdict
) -> None:
    assert judge(Result("id", Outcome.ERRORED, error_kind=kind, error_code="code"), never) == verdict


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("finish", list(Finish))
@pytest.mark.parametrize("kind", [*ErrorKind, None])
def test_every_result_gets_a_verdict(outcome: Outcome, finish: Finish, kind: ErrorKind | None) -> None:
    result = Result("id", outcome, text="text", finish=finish, error_kind=kind)

    verdict = judge(result, lambda text: GOOD)

    assert (verdict == GOOD) == (outcome is Outcome.ANSWERED and finish is Finish.DONE)
    assert (verdict.reason is Reason.NONE) == (verdict == GOOD)


def test_a_missing_row_is_sent_again_and_says_that_it_may_have_been_billed() -> None:
    assert (MISSING.kind, MISSING.reason) == (VerdictKind.AGAIN, Reason.MISSING)
    assert "possibly billed" in MISSING.detail
