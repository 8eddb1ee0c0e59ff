"""The client logs in by itself, waits while Airflow is busy, and reads lists to their end."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from nightbatch.demo.services import airflow_api
from nightbatch.demo.services.airflow_api import AirflowApi, AirflowRefused


class FakeAirflow:
    """Answers with what it is told, after a login with the right password; counts logins."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answer, self.logins, self.expired = answer, 0, False
        self.api = AirflowApi("http://airflow.test", user="admin", password="pw", transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            self.logins += 1
            self.expired = False
            return httpx.Response(201, json={"access_token": f"token-{self.logins}"})
        if self.expired or request.headers.get("Authorization") != f"Bearer token-{self.logins}":
            return httpx.Response(401, json={"detail": "expired"})
        return self.answer(request)


def test_an_expired_token_is_renewed() -> None:
    airflow = FakeAirflow(lambda request: httpx.Response(200, json={"ok": True}))

    airflow.api.get("/version")
    airflow.expired = True

    assert airflow.api.get("/version") == {"ok": True}
    assert airflow.logins == 2


def test_busy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "pause", lambda seconds: None)
    answers = iter([httpx.Response(503), httpx.Response(503), httpx.Response(200, json={"id": 7})])

    assert FakeAirflow(lambda request: next(answers)).api.backfill(7) == {"id": 7}


def test_busy_for_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "BUSY_FOR_S", 0.0)
    monkeypatch.setattr(airflow_api, "pause", lambda seconds: None)

    with pytest.raises(AirflowRefused) as refused:
        FakeAirflow(lambda request: httpx.Response(503, text="database is locked")).api.get("/x")

    assert (refused.value.status, refused.value.detail) == (503, "database is locked")


def test_a_refusal_is_told_at_once_with_its_reason() -> None:
    airflow = FakeAirflow(lambda request: httpx.Response(409, json={"detail": "There is already a backfill"}))

    with pytest.raises(AirflowRefused, match=r"POST /api/v2/backfills with 409: .*already a backfill"):
        airflow.api.call("POST", "/backfills", body={})


def test_lists_are_read_to_their_end() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        items: list[dict[str, Any]] = [{"n": n} for n in range(offset, min(offset + 100, 250))]
        return httpx.Response(200, json={"task_instances": items, "total_entries": 250})

    assert [item["n"] for item in FakeAirflow(page).api.task_instances("d", "r")] == list(range(250))


def test_run_ids_are_quoted() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(200, json={})

    FakeAirflow(answer).api.dag_run("d", "manual__2026-01-01T00:00:00+00:00/x")

    assert asked == ["/api/v2/dags/d/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00%2Fx"]


def test_health_of_an_absent_airflow_is_none() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert AirflowApi("http://x.test", user="u", password="p", transport=httpx.MockTransport(refuse)).health() is None


def test_a_question_whose_answer_was_lost_is_asked_again_and_an_order_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "pause", lambda seconds: None)
    lost = 0

    def lose_the_first(request: httpx.Request) -> httpx.Response:
        nonlocal lost
        lost += 1
        if lost % 2:
            raise httpx.ReadTimeout("timed out", request=request)
        return httpx.Response(200, json={"ok": True})

    api = FakeAirflow(lose_the_first).api

    assert api.get("/version") == {"ok": True}
    with pytest.raises(httpx.ReadTimeout):
        api.call("POST", "/backfills", body={})
