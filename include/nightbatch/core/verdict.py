"""A verdict: whether a result is usable, and what the row needs if it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from .reason import Reason
from .result import ErrorKind, Finish, Outcome, Result

__all__ = ["CUT_OFF", "GOOD", "MISSING", "Check", "Reason", "Verdict", "VerdictKind", "judge", "judge_without_answer"]


class VerdictKind(StrEnum):
    """What to do with a row."""

    GOOD = "good"
    AGAIN = "again"
    """Nothing is wrong with the row: send it again as it is."""
    CHANGE = "change"
    """It was answered badly: send it again with something changed."""
    DEAD = "dead"
    """No retry can help."""
    ACCOUNT = "account"
    """The account stops the run; the row stays pending."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a row is usable, and why not. `detail` is short and holds no answer text."""

    kind: VerdictKind
    reason: Reason = Reason.NONE
    detail: str = ""


GOOD = Verdict(VerdictKind.GOOD)
"""The only good verdict there is, so a look at whether one is this one tells."""
MISSING = Verdict(VerdictKind.AGAIN, Reason.MISSING, "sent, and in no result file; possibly billed")
CUT_OFF = Verdict(VerdictKind.AGAIN, Reason.CANCELLED, "sent, and in no result file of a run that was cancelled")

Check = Callable[[str], Verdict]
"""Judges an answer's text against the job's schema."""

_UNANSWERED = {
    Outcome.EXPIRED: Verdict(VerdictKind.AGAIN, Reason.EXPIRED),
    Outcome.CANCELLED: Verdict(VerdictKind.AGAIN, Reason.CANCELLED),
}
_UNFINISHED = {
    Finish.TRUNCATED: Reason.TRUNCATED,
    Finish.REFUSED: Reason.REFUSED,
    Finish.PAUSED: Reason.PAUSED,
}


_ERRORED, _ANSWERED, _DONE = Outcome.ERRORED, Outcome.ANSWERED, Finish.DONE
"""For what is done for every row: to find an enum's member takes longer than to find a name of this module."""


def judge(result: Result, check: Check) -> Verdict:
    """Say whether a result is usable; `check` sees only whole, unrefused, non-empty answers."""
    without = judge_without_answer(result)
    return check(result.text or "") if without is None else without


def judge_without_answer(result: Result) -> Verdict | None:
    """Say why a result is not usable, whatever it answered; None where there is a whole answer to look at."""
    if result.outcome is _ERRORED:
        return _judge_error(result)
    if result.outcome is not _ANSWERED:
        return _UNANSWERED[result.outcome]
    if result.finish is not _DONE:
        return Verdict(VerdictKind.CHANGE, _UNFINISHED[result.finish])
    if result.text is None or not result.text or result.text.isspace():
        return Verdict(VerdictKind.CHANGE, Reason.EMPTY)
    return None


def _judge_error(result: Result) -> Verdict:
    match result.error_kind:
        case ErrorKind.ACCOUNT:
            return Verdict(VerdictKind.ACCOUNT, Reason.ACCOUNT, result.error_code)
        case ErrorKind.PERMANENT:
            return Verdict(VerdictKind.DEAD, Reason.INVALID_REQUEST, result.error_code)
    return Verdict(VerdictKind.AGAIN, Reason.TRANSIENT, result.error_code)
