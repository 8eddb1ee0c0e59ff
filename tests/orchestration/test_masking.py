"""Whatever a library logs in a task of ours, Airflow hides our passwords, the keys in extras and the ledger's URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from airflow.sdk.log import _secrets_masker

from nightbatch.orchestration import connections
from tests.memory_stack import job_of

SECRETS = {
    "password": "planted-Pw%-77xKq",
    "key of an extra": "planted-aws-0Zq81",
    "key deep in an extra": "planted-client-4Fv2",
    "password in a host": "planted-proxy-9Lm3",
    "ledger's password": "planted-le@dger-5Tn8",
    "ledger's password as it is quoted": "planted-le%40dger-5Tn8",
    "parameter of the ledger's URL": "planted-ssl-2Wd6",
}


@pytest.fixture
def masker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Airflow's own, knowing nothing yet, and an installation with secrets everywhere."""
    extra = {
        "aws_secret_access_key": SECRETS["key of an extra"],
        "openai_client_kwargs": {"api_key": SECRETS["key deep in an extra"]},
        "region_name": "eu-central-1",
    }
    values = {
        "conn_type": "openai",
        "host": f"https://me:{SECRETS['password in a host']}@proxy.example.com/v1",
        "password": SECRETS["password"],
        "extra": extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(values))
    quoted, parameter = SECRETS["ledger's password as it is quoted"], SECRETS["parameter of the ledger's URL"]
    monkeypatch.setenv("NIGHTBATCH_LEDGER_URL", f"postgresql://me:{quoted}@127.0.0.1:9/x?sslpassword={parameter}")
    masker = _secrets_masker()
    before = masker.patterns, masker.replacer
    masker.reset_masker()
    yield lambda text: str(masker.redact(text))
    masker.patterns, masker.replacer = before


def in_a_task() -> None:
    """Do what each task of ours begins with."""
    connections.settings()
    connections.airflow_connection("c")


def in_the_triggerer() -> None:
    """Do what a callback in the triggerer begins with."""
    with pytest.raises(Exception, match="ledger"):
        asyncio.run(connections.trigger_ports(job_of(notify={"slack_connection": "c"})))


@pytest.mark.parametrize("begin", [in_a_task, in_the_triggerer])
def test_airflow_hides_every_secret_that_is_ours_and_nothing_else(
    masker: Callable[[str], str], begin: Callable[[], None]
) -> None:
    said = {name: f"a library logs {secret} beside eu-central-1" for name, secret in SECRETS.items()}
    assert all(masker(text) == text for text in said.values())

    begin()

    assert {name: masker(text) for name, text in said.items()} == dict.fromkeys(
        SECRETS, "a library logs *** beside eu-central-1"
    )
