"""The operators before `prepare`, for a job whose source is read in parts by several workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, get_current_context

from nightbatch.errors import RunOverlaps
from nightbatch.job import Job

from .connections import task_ports
from .failures import airflow_failures
from .progress import log_progress
from .tasks import SPREAD_KEY
from .waking import wait_for_window
from .windows import options_of, window_of

if TYPE_CHECKING:
    from nightbatch import flow


class PartsOperator(BaseOperator):
    """Before step 1, for a job that is read in parts: cuts the source, and gives what each worker is to read."""

    def __init__(self, *, job: Job, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job

    def execute(self, context: Any, event: Any = None) -> list[dict[str, Any]]:
        """Take the window, and name its parts; none where there is nothing to share out: `prepare` does it all."""
        if context["params"].get("dry_run"):
            return []
        from nightbatch import flow

        with airflow_failures():
            ports = task_ports(self.job)
            try:
                errands = flow.split(ports, self.job, window_of(context), options_of(context))
            except RunOverlaps as overlap:
                wait_for_window(self, ports, overlap)
        context["ti"].xcom_push(key=SPREAD_KEY, value=errands[0].spread if errands else "")
        self.log.info("the source is read in %s", f"{len(errands)} parts" if errands else "one part")
        return shares(errands, "part")


class PartOperator(BaseOperator):
    """One worker's share of steps 1 to 3; cleared or killed, it gives what it gave, or does what it had not."""

    template_fields = ("part",)

    def __init__(self, *, job: Job, part: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job, self.part = job, part

    def execute(self, context: Any) -> None:
        """Read, render and pack one part; or pack some shards anew."""
        from nightbatch import flow

        get_current_context()["part_name"] = self.part["name"]  # type: ignore[typeddict-unknown-key]  # for labels
        errand = flow.Errand(self.part["spread"], self.part["kind"], self.part["number"])
        with airflow_failures():
            flow.read_part(task_ports(self.job), self.job, errand, task_ports, watch=log_progress(self.log))


class SortOperator(BaseOperator):
    """Once all parts are read: decides which of their records are asked, and gives what is to be packed anew."""

    def __init__(self, *, job: Job, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Sort; gives nothing where there are no parts, or where `prepare` does what is left to do."""
        spread = context["ti"].xcom_pull(task_ids="parts", key=SPREAD_KEY)
        if not spread:
            return []
        from nightbatch import flow

        with airflow_failures():
            return shares(flow.sort_parts(task_ports(self.job), self.job, spread, task_ports), "group")


def shares(errands: Sequence[flow.Errand], what: str) -> list[dict[str, Any]]:
    """Give errands as XCom takes them."""
    return [{**asdict(one), "name": f"{what} {one.number + 1} of {len(errands)}"} for one in errands]
