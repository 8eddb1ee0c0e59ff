"""Tests of what runs inside Airflow."""
