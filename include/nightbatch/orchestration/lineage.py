"""Lineage: what OpenLineage's provider, where it is installed, is told of a job's source and sink."""

from __future__ import annotations

from typing import Any

from nightbatch.job import Job

from .connections import airflow_connection


class DatasetsOfAJob:
    """A task that reads a job's source, and writes its sink unless it says otherwise."""

    job: Job
    writes_sink = True

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Name the datasets; called by OpenLineage's listener when the task is over, and by nobody else."""
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import Dataset

        from nightbatch.adapters.registry import open_sink, open_source
        from nightbatch.core.lineage import places_of

        def datasets(identity: str) -> list[Dataset]:
            return [Dataset(namespace=place.namespace, name=place.name) for place in places_of(identity)]

        inputs = datasets(open_source(self.job, airflow_connection).identity)
        outputs = datasets(open_sink(self.job, airflow_connection).identity) if self.writes_sink else []
        return OperatorLineage(inputs=inputs, outputs=outputs)
