"""A small client of Airflow's REST API: what a demo and a test ask of a running Airflow."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from nightbatch.demo.services.waiting import monotonic_s, pause, wait_until

Json = dict[str, Any]

BUSY = frozenset({429, 502, 503, 504})
BUSY_FOR_S = 60.0
TIMEOUT_S = 30.0
FINISHED = frozenset({"success", "failed"})
PAGE = 100


class AirflowRefused(RuntimeError):
    """Airflow answered a request with an error that trying again will not change."""

    def __init__(self, method: str, path: str, *, status: int, detail: str) -> None:
        self.method, self.path, self.status, self.detail = method, path, status, detail
        super().__init__(f"Airflow answered {method} {path} with {status}: {detail}")


class AirflowApi:
    """Asks Airflow as one user; logs in by itself, again when the token has expired."""

    def __init__(self, address: str, *, user: str, password: str, transport: httpx.BaseTransport | None = None) -> None:
        self.address = address
        self._login = {"username": user, "password": password}
        self._http = httpx.Client(base_url=address, timeout=TIMEOUT_S, trust_env=False, transport=transport)
        self._token: str | None = None

    def health(self) -> Json | None:
        """Give what each part says of itself, or None when the api-server does not answer (yet)."""
        try:
            response = self._http.get("/api/v2/monitor/health")
        except httpx.TransportError:
            return None
        return dict(response.json()) if response.is_success else None

    def warm_up(self) -> None:
        """Make the execution API load its code, which takes seconds that the first task would wait for."""
        self._send("GET", "/execution/health", headers={})

    def get(self, path: str, **params: Any) -> Json:
        """GET `/api/v2` + path."""
        return self.call("GET", path, params=params)

    def call(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Json:
        """
        Call `/api/v2` + path and return the JSON answer (empty for none).

        Waits up to a minute while Airflow is busy or cannot be reached.

        Raises:
            AirflowRefused: For any other answer than 2xx.
        """
        response = self._authorized(method, f"/api/v2{path}", params=params, json=body)
        return dict(response.json()) if response.content else {}

    def pages(self, path: str, key: str, **params: Any) -> list[Json]:
        """GET all items of a list, page by page."""
        items: list[Json] = []
        while True:
            page = self.get(path, limit=PAGE, offset=len(items), **params)
            items += page[key]
            if not page[key] or len(items) >= page.get("total_entries", 0):
                return items

    def close(self) -> None:
        """Close the connections; the client is of no use afterwards."""
        self._http.close()

    # Dags

    def has_dag(self, dag_id: str) -> bool:
        """Tell whether the dag-processor has delivered the Dag."""
        try:
            self.get(f"/dags/{dag_id}")
        except AirflowRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def wait_for_dag(self, dag_id: str, *, timeout_s: float = 60.0) -> None:
        """Wait until the dag-processor has delivered the Dag."""
        wait_until(lambda: self.has_dag(dag_id), what=f"Dag {dag_id!r} to be parsed", timeout_s=timeout_s)

    def unpause(self, dag_id: str) -> None:
        """Let the Dag's runs start."""
        self.call("PATCH", f"/dags/{dag_id}", params={"update_mask": "is_paused"}, body={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Let none of the Dag's runs start."""
        self.call("PATCH", f"/dags/{dag_id}", params={"update_mask": "is_paused"}, body={"is_paused": True})

    def import_errors(self) -> list[Json]:
        """List Dag files that could not be imported, with `filename` and `stack_trace`."""
        return self.pages("/importErrors", "import_errors")

    # Runs

    def trigger(
        self, dag_id: str, *, conf: Json | None = None, logical_date: datetime | None = None, run_id: str | None = None
    ) -> Json:
        """Start a run; without a logical date it has no data interval."""
        date = None if logical_date is None else logical_date.isoformat()
        body: Json = {"logical_date": date, "conf": conf or {}}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return self.call("POST", f"/dags/{dag_id}/dagRuns", body=body)

    def dag_run(self, dag_id: str, run_id: str) -> Json:
        """Give one run, with its `state`."""
        return self.get(self._run_path(dag_id, run_id))

    def dag_runs(self, dag_id: str) -> list[Json]:
        """List all runs of a Dag, oldest first."""
        return self.pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="run_after")

    def wait_for_run(
        self, dag_id: str, run_id: str, *, timeout_s: float, on_progress: Callable[[Json], None] = lambda run: None
    ) -> Json:
        """Wait until a run has succeeded or failed, and return it; `on_progress` gets it at every look."""

        def finished() -> Json | None:
            run = self.dag_run(dag_id, run_id)
            on_progress(run)
            return run if run["state"] in FINISHED else None

        what = f"run {run_id!r} of {dag_id!r} to end"
        return wait_until(finished, what=what, timeout_s=timeout_s, every_s=1.0) or {}

    def clear_run(self, dag_id: str, run_id: str, *, only_failed: bool = False) -> Json:
        """Clear a run's tasks, so that they run again; the run id stays."""
        body = {"dry_run": False, "only_failed": only_failed}
        return self.call("POST", f"{self._run_path(dag_id, run_id)}/clear", body=body)

    # Tasks

    def clear_task(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int | None = None, downstream: bool = False
    ) -> Json:
        """Clear one task of a run, or one index of a mapped one, with what follows it where asked."""
        body = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": run_id,
            "task_ids": [task_id if map_index is None else [task_id, map_index]],
            "include_downstream": downstream,
            "reset_dag_runs": True,
        }
        return self.call("POST", f"/dags/{dag_id}/clearTaskInstances", body=body)

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """List all task instances of a run, mapped ones by index."""
        return self.pages(f"{self._run_path(dag_id, run_id)}/taskInstances", "task_instances")

    def mapped_instances(self, dag_id: str, run_id: str, task_id: str) -> list[Json]:
        """List the instances of one mapped task."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/listMapped"
        return self.pages(path, "task_instances")

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """Read the log of one try as text, a line an event."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/logs/{try_number}"
        answer = self.get(path, map_index=map_index, full_content=True)
        content = answer.get("content", "")
        if isinstance(content, str):
            return content
        return "\n".join(str(event.get("event", event)) if isinstance(event, dict) else str(event) for event in content)

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Read what a task handed on."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/xcomEntries/{key}"
        return self.get(path, map_index=map_index)["value"]

    # Backfills

    def create_backfill(
        self, dag_id: str, *, from_date: datetime, to_date: datetime, reprocess: str = "none", max_active_runs: int = 1
    ) -> Json:
        """Start the backfill that the UI's button starts; `reprocess` is none, failed or completed."""
        body = {
            "dag_id": dag_id,
            "from_date": from_date.isoformat(),
            "to_date": to_date.isoformat(),
            "reprocess_behavior": reprocess,
            "max_active_runs": max_active_runs,
        }
        return self.call("POST", "/backfills", body=body)

    def backfill(self, backfill_id: int) -> Json:
        """Give one backfill; `completed_at` stays null up to 30 s after its last run has ended."""
        return self.get(f"/backfills/{backfill_id}")

    # How it is sent

    def _run_path(self, dag_id: str, run_id: str) -> str:
        return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    def _authorized(self, method: str, path: str, **request: Any) -> httpx.Response:
        for renewed in (False, True):
            if self._token is None or renewed:
                self._token = str(self._send("POST", "/auth/token", json=self._login).json()["access_token"])
            try:
                return self._send(method, path, headers={"Authorization": f"Bearer {self._token}"}, **request)
            except AirflowRefused as refused:
                if refused.status != 401 or renewed:
                    raise
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send until the answer is not "busy"; a POST whose answer was lost is not sent again."""
        deadline = monotonic_s() + BUSY_FOR_S
        while True:
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                never_arrived = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                if monotonic_s() > deadline or not (never_arrived or method == "GET"):
                    raise
            else:
                if response.status_code not in BUSY or monotonic_s() > deadline:
                    return _accepted(method, path, response)
            pause(0.5)


def _accepted(method: str, path: str, response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    # An answer may repeat what was sent, and a login must not end up in a log.
    detail = "login refused" if path == "/auth/token" else re.sub(r"\s+", " ", response.text)[:500]
    raise AirflowRefused(method, path, status=response.status_code, detail=detail)
