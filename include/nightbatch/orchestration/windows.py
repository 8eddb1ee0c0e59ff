"""Which window an Airflow run is about, and what its params ask for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from nightbatch.core.reason import Reason
from nightbatch.errors import JobInvalid, Problem

if TYPE_CHECKING:
    from nightbatch.core.window import Window
    from nightbatch.flow import Ask, Options

RETRIED = (
    Reason.CANCELLED,
    Reason.EMPTY,
    Reason.INVALID_REQUEST,
    Reason.NOT_JSON,
    Reason.OFF_SCHEMA,
    Reason.PAUSED,
    Reason.REFUSED,
    Reason.TRUNCATED,
)
"""Reasons of dead letters that the trigger form offers; others can be typed."""


ANOTHER_WAY = "Another model, a dry run, or paying again"
AFTER_A_BAD_RUN = "After a bad run: release, discard, retry"
"""The folded parts of the trigger form: their names must tell what is in them."""
SWITCH: dict[str, Any] = {"type": ["boolean", "null"]}
"""A switch; without the null the form marks it as one that must be set."""


def params(*, has_schedule: bool = True) -> dict[str, Param]:
    """Give the fields of the trigger form; all may be left as they are, but for the window where nothing tells it."""
    moment: dict[str, Any] = {"type": ["null", "string"], "format": "date-time"}
    empty = "Empty: the run's interval." if has_schedule else "Needed: this job has no schedule that would tell it."
    return {
        "window_start": Param(
            None, title="Window start", description=f"Take records from this instant on. {empty}", **moment
        ),
        "window_end": Param(
            None, title="Window end", description=f"Take records before this instant. {empty}", **moment
        ),
        "limit": Param(
            None, type=["null", "integer"], minimum=1, title="Limit", description="Read at most so many records."
        ),
        "model": Param(
            None, type=["null", "string"], title="Model",
            description="Use this model in the place of the job's first one.", section=ANOTHER_WAY,
        ),
        "deadline": Param(
            None, title="Deadline (SLA)", description="Replaces the job's deadline for this run.", section=ANOTHER_WAY,
            **moment,
        ),
        "dry_run": Param(
            False, **SWITCH, title="Dry run", description="Say what would be sent and cost, then stop.",
            section=ANOTHER_WAY,
        ),
        "refresh": Param(
            False, **SWITCH, title="Refresh", description="Send unchanged records too.", section=ANOTHER_WAY
        ),
        "force": Param(
            False, **SWITCH, title="Force",
            description="Make a new plan for a window that was run before. It pays for the window again.",
            section=ANOTHER_WAY,
        ),
        "release": Param(
            False, **SWITCH, title="Release what was held back",
            description="Load what the quality gate of this window's last run held back, and send what its canary did.",
            section=AFTER_A_BAD_RUN,
        ),
        "discard": Param(
            False, **SWITCH, title="Discard what was held back",
            description="Make dead letters of what the quality gate of this window's last run held back. With Force,"
            " the window is then planned anew.",
            section=AFTER_A_BAD_RUN,
        ),
        **_retry_params(),
    }  # fmt: skip


def _retry_params() -> dict[str, Param]:
    return {
        "retry": Param(
            [], type=["null", "array"], items={"type": "string"}, title="Retry dead letters: reasons",
            description="Send the window's dead letters of these reasons again, and nothing else; `all` for every one.",
            examples=["all", *sorted(RETRIED)], section=AFTER_A_BAD_RUN,
        ),
        "max_output_tokens": Param(
            None, type=["null", "integer"], minimum=1, title="Max output tokens",
            description="With Retry dead letters: the cap on each answer. Empty: as before, twice that where it was cut"
            " off.",
            section=AFTER_A_BAD_RUN,
        ),
    }  # fmt: skip


def window_of(context: Mapping[str, Any]) -> Window:
    """
    Give a run's window: its params, else its data interval.

    A backfill and a manual run that name the same window are the same run in the ledger.
    """
    chosen = context["params"]
    start, end = chosen.get("window_start"), chosen.get("window_end")
    if start and end:
        return _window(_time(chosen, "window_start"), _time(chosen, "window_end"))
    first, last = context.get("data_interval_start"), context.get("data_interval_end")
    if start or end or first is None or last is None or first == last:
        problem = Problem(
            "window",
            "only one end of the window is given" if start or end else "this run has no data interval",
            "Give both Window start and Window end. (A job with a schedule takes its window from the logical date.)",
        )
        raise JobInvalid("the trigger form", [problem])
    return _window(plain(first), plain(last))


def _window(start: datetime, end: datetime) -> Window:
    from nightbatch.core.window import Window

    try:
        return Window(start, end)
    except ValueError as error:
        raise JobInvalid("the trigger form", [Problem("window", str(error), "Swap the two ends.")]) from error


def _time(chosen: Mapping[str, Any], name: str) -> datetime:
    try:
        return instant(chosen[name])
    except (TypeError, ValueError) as error:
        remedy = "Write it like 2026-11-21T07:00:00Z."
        raise JobInvalid("the trigger form", [Problem(name, f"{chosen[name]!r} is no time", remedy)]) from error


def instant(text: str) -> datetime:
    """Read a time of the trigger form, in UTC where it names no zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def plain(moment: datetime) -> datetime:
    """
    Turn one of Airflow's times into Python's own.

    They are pendulum's: not every database driver knows these, and in `datetime.UTC` they lose their zone when a span
    is added to them.
    """
    return instant(moment.isoformat())


def options_of(context: Mapping[str, Any]) -> Options:
    """Give what the trigger form asks for besides the window."""
    from nightbatch.flow import Options

    chosen = context["params"]
    retry = _retry_of(context)
    if retry is not None and chosen.get("force"):
        problem = Problem("force", "Force and Retry dead letters are both chosen", "Choose one of them.")
        raise JobInvalid("the trigger form", [problem])
    return Options(
        retry=retry,
        limit=chosen.get("limit"),
        model=chosen.get("model") or "",
        refresh=bool(chosen.get("refresh")),
        force=f"airflow {context['dag_run'].run_id}" if chosen.get("force") else "",
        discard=f"airflow {context['dag_run'].run_id}" if chosen.get("discard") else "",
        release=f"airflow {context['dag_run'].run_id}" if chosen.get("release") else "",
        deadline_utc=_time(chosen, "deadline") if chosen.get("deadline") else None,
    )


def _retry_of(context: Mapping[str, Any]) -> Ask | None:
    from nightbatch.flow import Ask

    chosen = context["params"]
    reasons = tuple(chosen.get("retry") or ())
    if not reasons:
        return None
    asker = f"airflow {context['dag_run'].run_id}"
    return Ask(reasons, asker, chosen.get("model") or "", chosen.get("max_output_tokens"))
