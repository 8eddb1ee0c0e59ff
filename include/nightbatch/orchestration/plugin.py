"""What Airflow must find by itself: the deadline reference and the link from a shard to its batch."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from .deadlines import JobDeadline
from .tasks import BatchLink


class NightbatchPlugin(AirflowPlugin):
    """Registers nightbatch with Airflow; found by the entry point of the installed package."""

    name = "nightbatch"
    deadline_references: list[Any] = [JobDeadline]  # noqa: RUF012  Airflow declares it so
    operator_extra_links: list[Any] = [BatchLink()]  # noqa: RUF012  Airflow declares it so
