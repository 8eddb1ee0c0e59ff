"""Connections mean the same here as in Airflow, and a bad one is told without its secrets."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.definitions.connection import Connection as AirflowConnection

from nightbatch.adapters.connections import from_environment
from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection


def read(value: str, conn_id: str = "c") -> Connection:
    return from_environment({f"AIRFLOW_CONN_{conn_id.upper()}": value})(conn_id)


URIS = [
    "postgresql://us%40er:p%2Fw@db.example.com:5432/ware%2Fhouse",
    "openai://:sk-1@https%3A%2F%2FApi.example.com%2Fv1/?account=blue",
    "openai://http://:sk-1@127.0.0.1:8080/v1",
    "aws://KEY%2F1:secret@/?region_name=eu-central-1",
    "google-cloud-platform://?project=p",
    "smtp://mail.example.com:25",
    "x://h/?__extra__=%7B%22a%22%3A+%7B%22b%22%3A+1%7D%7D",
    "slackwebhook://:T000%2FB000%2Fxyz@hooks.slack.com%2Fservices",
]


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_is_read_as_airflow_reads_it(uri):
    airflow = AirflowConnection.from_uri(uri, "c")

    ours = read(uri)

    assert (ours.conn_type, ours.host, ours.port) == (airflow.conn_type, airflow.host or "", airflow.port)
    assert (ours.login, ours.password, ours.schema) == (
        airflow.login or "",
        airflow.password or "",
        airflow.schema or "",
    )
    assert dict(ours.extra) == json.loads(airflow.extra or "{}")


def test_json_is_read_whole():
    fields = {"conn_type": "postgresql", "host": "h", "port": "5432", "login": "l", "password": "p", "schema": "s"}

    assert read(json.dumps({**fields, "extra": {"a": 1}})) == Connection(
        "c", "postgres", "h", 5432, "l", "p", "s", {"a": 1}
    )
    assert read(json.dumps({**fields, "extra": '{"a": 1}'})).extra == {"a": 1}


def test_values_in_a_uri_keep_their_types():
    assert read("smtp://h/?disable_ssl=true&timeout=5&from_email=a@b.c").extra == {
        "disable_ssl": True,
        "timeout": 5,
        "from_email": "a@b.c",
    }


@pytest.mark.parametrize(
    ("conn_id", "variable"), [("openai_default", "OPENAI_API_KEY"), ("anthropic_default", "ANTHROPIC_API_KEY")]
)
def test_a_bare_key_is_a_connection(conn_id, variable):
    found = from_environment({variable: "sk-1"})(conn_id)

    assert (found.conn_type, found.password) == (conn_id.removesuffix("_default"), "sk-1")
    with pytest.raises(ConnectionInvalid, match=variable):
        from_environment({})(conn_id)


def test_a_full_connection_wins_over_a_bare_key():
    environ = {"OPENAI_API_KEY": "sk-1", "AIRFLOW_CONN_OPENAI_DEFAULT": "openai://:sk-2@"}

    assert from_environment(environ)("openai_default").password == "sk-2"


def test_an_absent_connection_names_the_variable_to_set():
    with pytest.raises(ConnectionInvalid, match="AIRFLOW_CONN_WAREHOUSE"):
        from_environment({})("warehouse")


@pytest.mark.parametrize(
    "value",
    [
        "just words hunter2",
        '{"conn_type": "x", "password": "hunter2"',
        '{"conn_type": "x", "password": "hunter2", "extra": [1]}',
        '{"conn_type": "x", "password": "hunter2", "pasword": "y"}',
        '{"conn_type": "x", "password": "hunter2", "port": "many"}',
        "x://l:hunter2@h:many/",
        "x://l:hunter2@http://h/",
        "x://l:hunter2@[h/",
    ],
)
def test_a_bad_value_is_told_without_its_secrets(value):
    with pytest.raises(ConnectionInvalid) as told:
        read(value)

    assert "AIRFLOW_CONN_C" in str(told.value)
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None


def test_a_connection_does_not_print_its_secrets():
    assert "hunter2" not in repr(read('{"conn_type": "x", "password": "hunter2", "extra": {"token": "hunter2"}}'))
