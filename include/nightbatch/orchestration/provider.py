"""What `airflow providers list` and the UI say about nightbatch; Airflow reads it by the package's entry point."""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """Give the package's metadata in Airflow's words; imports nothing, since every start of Airflow calls it."""
    return {
        "package-name": "nightbatch",
        "name": "nightbatch",
        "description": "Batch LLM jobs: half the price, every row accounted for, nothing paid twice.",
        "operators": [{"integration-name": "nightbatch", "python-modules": ["nightbatch.orchestration.tasks"]}],
        "triggers": [{"integration-name": "nightbatch", "python-modules": ["nightbatch.orchestration.trigger"]}],
    }
