"""Tidies up once a day after all jobs. There is nothing to edit here."""

from nightbatch.orchestration.housekeeping import housekeeping_dag  # airflow finds Dag files by this word

dag = housekeeping_dag()
