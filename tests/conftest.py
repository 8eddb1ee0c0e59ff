"""Gives Airflow a home of its own before any test module imports it: it reads its settings once, at import."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="nightbatch-airflow-"))

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW", "NIGHTBATCH_"))]:
    # A developer's own Airflow and ledger are not what is tested.
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_HOME / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(Path(__file__).parent.parent / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "0",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME / 'airflow.db'}",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(AIRFLOW_HOME / "logs"),
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "AIRFLOW__API__BASE_URL": "http://airflow.test:8080",
}


def _leave_nothing_behind(owner: int) -> None:
    if os.getpid() == owner:  # not a forked child
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


atexit.register(_leave_nothing_behind, os.getpid())

# A shell that starts the tests in the background has SIGINT ignored, and every process of theirs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, and no property here is about speed.
settings.register_profile("nightbatch", deadline=None)
settings.load_profile("nightbatch")
