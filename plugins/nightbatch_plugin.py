"""
For an Airflow that has nightbatch on its PYTHONPATH only.

Where it is installed, its entry point registers the plugin, and Airflow would complain about a second one.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="nightbatch"):
    from nightbatch.orchestration.plugin import NightbatchPlugin  # noqa: F401 - Airflow finds it by looking
