"""Airflow, and only here: the Dag factory, its operators, trigger and deadline alerts."""
