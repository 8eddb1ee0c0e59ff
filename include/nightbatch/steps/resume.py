"""Before step 1: what was planned for a window, what a new plan goes on from, and which pending rows it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightbatch.core.window import Window
from nightbatch.errors import RunOverlaps
from nightbatch.ports import Ledger, PendingFile, Run


@dataclass(frozen=True)
class Past:
    """The generations of a window so far, oldest first, and what is asked of the next one."""

    generations: Sequence[Run]
    limit: int | None
    """Read at most so many records."""
    asker: str
    """Who asks for a new plan by force; empty for nobody."""

    @property
    def is_forced(self) -> bool:
        """Say whether somebody who was not heard yet asks for a new plan: clearing a forced task must not pay again."""
        return bool(self.asker) and all(_plan(run).get("forced_by") != self.asker for run in self.generations)

    @property
    def wants_new_plan(self) -> bool:
        """
        Say whether a closed window is planned anew.

        Also where its last generation never got a plan, or was a first look that read less than is asked for now.
        """
        if not self.generations:
            return False
        latest = self.generations[-1]
        return self.is_forced or latest.plan is None or not self._is_enough(latest)

    @property
    def forced_away(self) -> Run | None:
        """Give the open, planned generation that is in the way of a forced plan."""
        latest = self.generations[-1] if self.is_forced and self.generations else None
        return latest if latest is not None and latest.state == "open" and latest.plan is not None else None

    def goes_on_from(self, run: Run) -> Run | None:
        """Give the incomplete generation whose records were all read, and that this one only continues."""
        planned = [other for other in self.generations if other.generation < run.generation and other.plan is not None]
        if self.is_forced or not planned or planned[-1].state != "incomplete":
            return None
        return planned[-1] if self._is_enough(planned[-1]) else None

    def check_enough(self, run: Run) -> None:
        """Raise RunOverlaps where a run is a first look under way that reads less than is asked for."""
        if run.plan is not None and run.state == "open" and not self._is_enough(run):
            raise RunOverlaps(run.job, other_run=run.run, since=run.started_utc)

    def _is_enough(self, run: Run) -> bool:
        read_up_to = _plan(run).get("limit")
        return read_up_to is None or (self.limit is not None and self.limit <= read_up_to)


def past_of(ledger: Ledger, job: str, window: Window, *, limit: int | None, asker: str) -> Past:
    """Look up what was planned for a window."""
    return Past(sorted(ledger.runs(job=job, window=window, limit=1_000), key=lambda run: run.generation), limit, asker)


def pending_for(ledger: Ledger, run: Run, *, limit: int | None) -> list[PendingFile]:
    """
    List the pending rows that a run takes, those of the newest window first: of two with one key the first counts.

    Rows of later windows are left to later runs, since this run's own records are older and would take their place.
    So are rows that a window under way, between theirs and this one, may hold anew: their answers would stand above
    its newer ones. A first look takes only what its own window left.
    """
    under_way = [other.window.end for other in ledger.runs(job=run.job, limit=1_000) if other.state == "open"]
    files = [
        (left, file)
        for left, file in ((ledger.run(file.run), file) for file in ledger.pending(run.job))
        if not any(left.window.end < end < run.window.end for end in under_way)
    ]
    own = [
        (left, file)
        for left, file in files
        if left.window == run.window or (limit is None and left.window.end <= run.window.end)
    ]
    own.sort(key=lambda pair: (pair[0].window.end, pair[0].generation), reverse=True)
    return [file for _, file in own]


def _plan(run: Run) -> dict[str, Any]:
    return dict(run.plan or {})
