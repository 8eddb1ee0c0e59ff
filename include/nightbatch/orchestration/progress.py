"""How far reading is, in the log of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nightbatch.flow import Progress, Watch


def log_progress(log: Any) -> Watch:
    """Log now and then how far reading is."""

    def watch(step: Progress) -> None:
        if step.done % 50_000 < 500:
            log.info("%s: %s records, %s", step.phase, f"{step.done:,}", step.note)

    return watch
