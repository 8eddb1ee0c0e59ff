"""Whether the processes of an Airflow run one version of nightbatch: a triggerer is easily forgotten."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nightbatch import __version__

log = logging.getLogger(__name__)


def triggerer_problem(task_version: str) -> str:
    """Say, in a triggerer, that it runs other code than the task that waits, or than is installed; else empty."""
    if task_version != __version__:
        return (
            f"a task of nightbatch {task_version} waits here, and this triggerer runs {__version__}. It goes on "
            "as well as it can. Restart what was not restarted after the deploy."
        )
    installed = _installed()
    if installed != __version__:
        return (
            f"nightbatch {installed} is installed, and this triggerer still runs {__version__}. It goes on as well "
            "as it can. Restart it."
        )
    return ""


def warn_of_triggerer(event: Mapping[str, Any]) -> None:
    """Say, in a task's log, where people look, that the triggerer which woke it runs another version."""
    theirs = event.get("triggerer", __version__)
    if theirs != __version__:
        log.warning(
            "the triggerer runs nightbatch %s, and this task %s. Nothing is lost by it. Restart what was not restarted "
            "after the deploy (docs/deploy.md).",
            theirs,
            __version__,
        )


def _installed() -> str:
    """Read from the disk which version is installed; ours where the library is on PYTHONPATH only."""
    try:
        return version("nightbatch")
    except PackageNotFoundError:
        return __version__
