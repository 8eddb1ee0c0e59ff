"""Airflow's environment is complete, private, and not a developer's own."""

from pathlib import Path

import pytest

from nightbatch.demo.services.airflow_settings import AirflowSettings, airflow_environment, passwords_file, read_login


def settings(folder: Path, password: str | None = None) -> AirflowSettings:
    return AirflowSettings(
        folder=folder,
        database_url="postgresql://u:p@127.0.0.1:1/airflow",
        dags_folder=Path("dags"),
        password=password,
        connections={"warehouse": "postgres://u:p@127.0.0.1:1/warehouse"},
        extra={"AIRFLOW__CORE__PARALLELISM": "3"},
    )


def test_a_developers_own_airflow_does_not_shine_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY_CMD", "cat secret")
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI", "openai://real-key@")
    monkeypatch.setenv("OPENAI_API_KEY", "stays")

    environment = airflow_environment(settings(tmp_path), port=1234)

    assert "AIRFLOW__CORE__FERNET_KEY_CMD" not in environment
    assert "AIRFLOW_CONN_OPENAI" not in environment
    assert environment["OPENAI_API_KEY"] == "stays"


def test_a_proxy_is_not_asked_for_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.test")

    assert airflow_environment(settings(tmp_path), port=1)["NO_PROXY"] == "example.test,127.0.0.1,localhost"


def test_connections_and_extra_variables_arrive(tmp_path: Path) -> None:
    environment = airflow_environment(settings(tmp_path), port=1234)

    assert environment["AIRFLOW_CONN_WAREHOUSE"] == "postgres://u:p@127.0.0.1:1/warehouse"
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "3"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:1234/execution/"
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://u:p@127.0.0.1:1/airflow"


def test_login_and_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    first, again = read_login(settings(tmp_path)), read_login(settings(tmp_path))

    assert first == again
    assert first.password != read_login(settings(tmp_path / "other")).password
    assert all(
        file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "secrets.json", passwords_file(settings(tmp_path)))
    )


def test_a_given_password_replaces_the_one_made_up(tmp_path: Path) -> None:
    before = read_login(settings(tmp_path))

    after = read_login(settings(tmp_path, password="chosen"))

    assert after.password == "chosen"
    assert after.fernet_key == before.fernet_key
