"""Tells people of windows that have no run, also of paused and broken Dags. There is nothing to edit here."""

from pathlib import Path

from nightbatch.orchestration.watchdog import watchdog_dag  # airflow finds Dag files by this word

dag = watchdog_dag(Path(__file__).parent.parent / "include" / "jobs")
