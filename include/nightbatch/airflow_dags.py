"""
All Dags of an installation, in two lines of a Dag file.

    from nightbatch.airflow_dags import dags_from
    globals().update(dags_from("/opt/airflow/jobs"))

Airflow reads only files in which it finds the words "dag" and "airflow": the name of this module has both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nightbatch.orchestration.dag import build_dags
from nightbatch.orchestration.housekeeping import housekeeping_dag

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["dags_from"]


def dags_from(folder: Path | str, *, housekeeping: bool = True) -> dict[str, DAG]:
    """
    Give a Dag for every job file of a folder, and the one that tidies up after all of them.

    A job file that is no good becomes a Dag that says so. Where a second Dag file reads another folder, it says
    `housekeeping=False`: one such Dag looks after the whole ledger.
    """
    dags = build_dags(Path(folder))
    if housekeeping:
        tidies = housekeeping_dag()
        dags.setdefault(tidies.dag_id, tidies)
    return dags
