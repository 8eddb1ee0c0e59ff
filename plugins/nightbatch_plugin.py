"""What Airflow must find by itself: the deadline reference and the link from a shard to its batch."""

from airflow.plugins_manager import AirflowPlugin

from nightbatch.orchestration.deadlines import JobDeadline
from nightbatch.orchestration.tasks import BatchLink


class NightbatchPlugin(AirflowPlugin):
    """Registers nightbatch with Airflow."""

    name = "nightbatch"
    deadline_references = (JobDeadline,)
    operator_extra_links = (BatchLink(),)
