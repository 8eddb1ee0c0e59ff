"""Every job file in include/jobs becomes an Airflow Dag. There is nothing to edit here."""

from pathlib import Path

from nightbatch.orchestration.dag import build_dags

globals().update(build_dags(Path(__file__).parent.parent / "include" / "jobs"))
