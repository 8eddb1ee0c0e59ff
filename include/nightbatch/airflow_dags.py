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
from nightbatch.orchestration.watchdog import watchdog_dag

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["dags_from"]


def dags_from(folder: Path | str, *, housekeeping: bool = True) -> dict[str, DAG]:
    """
    Give a Dag for every job file of a folder, the one that tidies up after all of them, and the one that watches.

    A job file that is no good becomes a Dag that says so. Where a second Dag file reads another folder, it says
    `housekeeping=False`: one Dag tidies up and one watches for the whole ledger. The watchdog knows jobs of other
    folders from their first run on.
    """
    dags = build_dags(Path(folder))
    if housekeeping:
        for dag in (housekeeping_dag(), watchdog_dag(Path(folder))):
            dags.setdefault(dag.dag_id, dag)
    return dags
