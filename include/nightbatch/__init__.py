"""Batch LLM jobs on Airflow."""
