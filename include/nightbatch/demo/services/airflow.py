"""An Airflow on loopback: api-server, scheduler, dag-processor and triggerer under one supervisor."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from nightbatch.demo.services.airflow_api import AirflowApi
from nightbatch.demo.services.airflow_settings import AirflowSettings, airflow_environment, read_login
from nightbatch.demo.services.airflow_supervisor import COMPONENTS
from nightbatch.demo.services.family import descendants, kill
from nightbatch.demo.services.ports import LOOPBACK, ReservedPort
from nightbatch.demo.services.process import Command, ServiceFailed, ServiceProcess
from nightbatch.demo.services.waiting import monotonic_s, wait_until

__all__ = ["AirflowServer", "AirflowSettings", "airflow_environment"]

HEALTHY_WITHIN_S = 240.0
COMPONENT_START_S = 30.0
PARTS = {
    "metadatabase": "database",
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag_processor": "dag-processor",
}
"""What the health page reports -> what we call it."""


class AirflowServer:
    """A running Airflow; stop it with `stop()`."""

    def __init__(self, process: ServiceProcess, settings: AirflowSettings, *, port: ReservedPort) -> None:
        self.process, self.settings, self._port = process, settings, port
        self.login = read_login(settings)
        self.address = f"http://{LOOPBACK}:{port.number}"
        self.api = AirflowApi(self.address, user=self.login.user, password=self.login.password)
        self._started_s = monotonic_s()

    @classmethod
    def start(cls, settings: AirflowSettings) -> "AirflowServer":
        """
        Start the supervisor, which creates or migrates the metadata and starts all parts.

        Returns at once; `wait_until_healthy` tells when it can be used. A part that ends by itself is not
        started again, so that tests see it and people are told.
        """
        port = ReservedPort()  # held until the api-server listens, which is many seconds away
        folder = settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (folder / "components.json", *folder.glob("*.pid"), *folder.glob("*.log")):
            stale.unlink(missing_ok=True)
        command = Command(
            name="airflow",
            argv=[sys.executable, "-m", "nightbatch.demo.services.airflow_supervisor", str(folder)],
            env=airflow_environment(settings, port=port.number),
        )
        return cls(ServiceProcess.start(command, folder / "run"), settings, port=port)

    def wait_until_healthy(
        self, *, timeout_s: float = HEALTHY_WITHIN_S, on_progress: Callable[[str], None] = lambda text: None
    ) -> float:
        """
        Wait until all parts say that they are well and tasks can talk to Airflow; return seconds since start.

        `on_progress` is told what is still missing, whenever that changes.

        Raises:
            ServiceFailed: As soon as a part has ended, with the end of its log.
        """
        told = ""

        def healthy() -> bool:
            nonlocal told
            self.check()
            missing = self._missing()
            if missing != told:
                on_progress(f"waiting for {missing}" if missing else "all parts are well")
                told = missing
            return not missing

        wait_until(healthy, what="Airflow to be healthy", timeout_s=timeout_s, every_s=0.25)
        self.api.warm_up()
        self._port.release()
        return monotonic_s() - self._started_s

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment that all its parts have, for a worker that runs beside them."""
        return airflow_environment(self.settings, port=self._port.number)

    def components(self) -> dict[str, dict[str, Any]]:
        """Tell each part's `pid` and `exit_code` (null while it runs)."""
        try:
            state: dict[str, dict[str, Any]] = json.loads((self.settings.folder / "components.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def component_pid(self, name: str) -> int:
        """Give the process id of `api-server`, `scheduler`, `dag-processor` or `triggerer`."""
        return int(self.components()[name]["pid"])

    def check(self) -> None:
        """Raise ServiceFailed, with the end of its log, if a part has ended."""
        self.process.check()
        for name, state in self.components().items():
            code = state["exit_code"]
            if code is None or (name == "db-migrate" and code == 0):
                continue
            what = f"(Airflow's) ended with exit code {code}"
            raise ServiceFailed(name, what=what, log=self._log(name), tail=self.log_tail(name))

    def kill_component(self, name: str, *, with_children: bool = True) -> list[int]:
        """
        Kill a part with SIGKILL and return the process ids that were killed; it stays dead.

        With its children it goes as in a host's crash: the scheduler's running tasks die with it.
        """
        return self.kill_components([name], with_children=with_children)

    def kill_components(self, names: Sequence[str], *, with_children: bool = True) -> list[int]:
        """Kill several parts at one moment, as when their host loses power."""
        mains = [psutil.Process(self.component_pid(name)) for name in names]
        family = [*mains, *(child for main in mains if with_children for child in descendants(main))]
        for process in family:
            kill(process)
        for name in names:
            what = f"{name} to be seen dead"
            wait_until(lambda: self._has_ended(name), what=what, timeout_s=COMPONENT_START_S)  # noqa: B023 - at once
        return [process.pid for process in family]

    def start_ended(self) -> list[str]:
        """Start every part again that has ended, as a service manager would; gives their names."""
        ended = [name for name in COMPONENTS if self._has_ended(name)]
        for name in ended:
            self.start_component(name)
        return ended

    def _has_ended(self, name: str) -> bool:
        return self.components()[name]["exit_code"] is not None

    def start_component(self, name: str) -> int:
        """Start a part that has ended, and return its new process id."""
        before = self.component_pid(name)
        (self.settings.folder / "requests" / name).touch()

        def runs_again() -> bool:
            self.process.check()
            return self.component_pid(name) != before

        wait_until(runs_again, what=f"{name} to start again", timeout_s=COMPONENT_START_S)
        return self.component_pid(name)

    def log_tail(self, name: str, *, lines: int = 30) -> str:
        """Read the last lines of a part's own log (tasks have theirs: `api.log`)."""
        file = self._log(name)
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def stop(self) -> None:
        """End all parts and everything they started."""
        self.api.close()  # the api-server's clean end waits for open connections
        self.process.stop()
        self._port.release()

    def _missing(self) -> str:
        health = self.api.health()
        if health is None:
            return "api-server"
        return ", ".join(name for part, name in PARTS.items() if (health.get(part) or {}).get("status") != "healthy")

    def _log(self, name: str) -> Path:
        return self.settings.folder / f"{name}.log"
