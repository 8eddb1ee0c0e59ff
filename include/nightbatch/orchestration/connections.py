"""Connections from Airflow, in the library's own words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import amask_secret, mask_secret

from nightbatch.errors import ConnectionInvalid
from nightbatch.garbage import look_seldom
from nightbatch.job import Job

from .masking import words_of_connection, words_of_settings

if TYPE_CHECKING:
    from nightbatch.ports import Connection, Connections, Ports, Settings


def airflow_connection(conn_id: str) -> Connection:
    """Look a connection up in Airflow; for tasks, where waiting is fine."""
    try:
        found = _translate(BaseHook.get_connection(conn_id))
    except AirflowNotFoundException as error:
        raise _absent(conn_id) from error
    mask_secret(words_of_connection(found))
    return found


async def airflow_connections(conn_ids: Iterable[str]) -> Connections:
    """Look connections up from inside an event loop, ahead of the thread that will want them."""
    found: dict[str, Connection] = {}
    for conn_id in conn_ids:
        try:
            found[conn_id] = _translate(await BaseHook.aget_connection(conn_id))
        except AirflowNotFoundException:
            continue
        await amask_secret(words_of_connection(found[conn_id]))

    def look_up(conn_id: str) -> Connection:
        if conn_id not in found:
            raise _absent(conn_id)
        return found[conn_id]

    return look_up


def _absent(conn_id: str) -> ConnectionInvalid:
    return ConnectionInvalid(
        conn_id,
        problem="Airflow has none with this id",
        remedy=f"Add it under Admin, Connections, or set AIRFLOW_CONN_{conn_id.upper()}.",
    )


def _translate(connection: Any) -> Connection:
    from nightbatch.ports import Connection

    return Connection(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type or "",
        host=connection.host or "",
        port=connection.port,
        login=connection.login or "",
        password=connection.password or "",
        schema=connection.schema or "",
        extra=connection.extra_dejson,
    )


def settings() -> Settings:
    """Give this installation's settings, and have Airflow hide what is secret in them; for tasks."""
    chosen = _settings()
    mask_secret(words_of_settings(chosen))
    return chosen


def _settings() -> Settings:
    """Give the settings, with Airflow's own address for links unless another is set."""
    from airflow.configuration import conf

    from nightbatch.adapters.registry import settings_from

    base_url = conf.get("api", "base_url", fallback="")
    return settings_from({"NIGHTBATCH_UI_BASE_URL": base_url, **os.environ})


def task_ports(job: Job) -> Ports:
    """Give a task everything that its job needs."""
    from nightbatch.adapters.registry import open_ports

    from .telemetry import task_telemetry

    look_seldom()
    return open_ports(job, settings(), airflow_connection, telemetry=task_telemetry())


async def trigger_ports(job: Job) -> Ports:
    """Give a callback in the triggerer everything that its job needs; the database is opened in a thread."""
    import asyncio

    from nightbatch.adapters.registry import connections_of, open_ports

    chosen = _settings()
    await amask_secret(words_of_settings(chosen))
    wanted = [*connections_of(job), chosen.staging_connection]
    connections = await airflow_connections(conn_id for conn_id in wanted if conn_id)
    return await asyncio.to_thread(open_ports, job, chosen, connections)
