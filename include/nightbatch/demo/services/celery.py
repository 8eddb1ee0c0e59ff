"""Celery workers of an Airflow: processes that share PostgreSQL, Redis and S3, and no folder to keep things in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from nightbatch.demo.services.family import descendants, kill, runs
from nightbatch.demo.services.process import Command, ServiceProcess
from nightbatch.demo.services.redis import RedisServer
from nightbatch.demo.services.waiting import wait_until

START_S = 120.0


def celery_settings(redis: RedisServer, metadata_url: str) -> dict[str, str]:
    """Give the variables by which Airflow hands its tasks to Celery; the same for all its parts and workers."""
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": metadata_url.replace("postgresql://", "db+postgresql+psycopg2://", 1),
        "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
    }


class CeleryWorker:
    """A running worker; stop it with `stop()`."""

    def __init__(self, process: ServiceProcess, *, name: str) -> None:
        self.process, self.name = process, name

    @classmethod
    def start(cls, folder: Path, *, environment: Mapping[str, str], slots: int) -> CeleryWorker:
        """
        Start a worker that is named as its folder, with a home and working folder that nobody else has.

        `environment` is Airflow's. Returns at once; `wait_until_ready` tells when it takes tasks.
        """
        name, home = folder.name, folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        words = ["celery", "worker", "--celery-hostname", name, "--concurrency", str(slots), "--skip-serve-logs"]
        command = Command(
            name=name,
            argv=[sys.executable, "-m", "airflow", *words, "--without-gossip", "--without-mingle"],
            # A default of nightbatch that kept something in the working folder would be found out by this.
            env={**environment, "AIRFLOW_HOME": str(home)},
            cwd=home,
        )
        return cls(ServiceProcess.start(command, folder / "run"), name=name)

    def wait_until_ready(self) -> None:
        """Wait until it takes tasks. Raises ServiceFailed if it ends instead."""

        def is_ready() -> bool:
            self.process.check()
            return f"{self.name} ready" in self.process.log.read_text(errors="replace")

        wait_until(is_ready, what=f"{self.name} to be ready", timeout_s=START_S)

    def tasks(self) -> list[psutil.Process]:
        """List the processes in which tasks run now."""
        return [process for process in self._family() if "worker --" in " ".join(_words(process))]

    def kill(self) -> None:
        """Kill it with all its tasks, by SIGKILL, as when its host loses power."""
        family = self._family()
        for process in family:
            kill(process)
        wait_until(lambda: not any(map(runs, family)), what=f"{self.name} to be gone", timeout_s=30)

    def stop(self) -> None:
        """End it; its tasks end with it."""
        self.process.stop()

    def _family(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *descendants(main)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
