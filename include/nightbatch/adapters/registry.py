"""Which adapters there are; each is loaded when it is asked for, so that a task imports only the SDK it uses."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa

from nightbatch.adapters.clock import SystemClock
from nightbatch.adapters.extras import EXTRAS, extras_told, is_absent
from nightbatch.adapters.functions import open_function
from nightbatch.errors import ConnectionInvalid, NightbatchError, PackageMissing
from nightbatch.job import FileSinkSpec, FileSourceSpec, FrameSourceSpec, Job, QuerySourceSpec
from nightbatch.ports import (
    Clock,
    Connection,
    Connections,
    Ledger,
    NoTelemetry,
    Notifier,
    Ports,
    Prices,
    Provider,
    Settings,
    Sink,
    Source,
    Store,
    Telemetry,
)

log = logging.getLogger(__name__)

PROVIDERS = {
    "openai": "nightbatch.adapters.providers.openai:OpenAIProvider",
    "anthropic": "nightbatch.adapters.providers.anthropic:AnthropicProvider",
}
"""Provider names of job files, and where each lives."""

QUERY_SOURCES = {
    "postgres": "nightbatch.adapters.sources.postgres:PostgresSource",
    "duckdb": "nightbatch.adapters.sources.duckdb:DuckDBSource",
}
TABLE_SINKS = {
    "postgres": "nightbatch.adapters.sinks.postgres:PostgresSink",
    "duckdb": "nightbatch.adapters.sinks.duckdb:DuckDBSink",
}
"""Warehouses by the type of their Airflow connection."""

DEFAULT_FOLDER = ".nightbatch"
"""Where ledger and staging are when nothing else is said; relative to the working folder."""


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    with extras_told():
        return getattr(import_module(module), name)


def settings_from(environ: Mapping[str, str]) -> Settings:
    """
    Read an installation's settings from `NIGHTBATCH_*` variables (listed in `.env.example`).

    Without any, the ledger is SQLite and the staging folder local, both below `.nightbatch`.
    """
    folder = Path(environ.get("NIGHTBATCH_HOME", DEFAULT_FOLDER))
    defaults = {
        "ledger_url": f"sqlite:///{folder / 'ledger.sqlite'}",
        "staging_uri": str(folder / "staging"),
    }
    types = get_type_hints(Settings)
    chosen: dict[str, Any] = {}
    for field in fields(Settings):
        value = environ.get(f"NIGHTBATCH_{field.name.upper()}", defaults.get(field.name))
        if value is None:
            continue
        try:
            chosen[field.name] = types[field.name](value)
        except ValueError as error:
            remedy = "Give seconds." if field.name.endswith("_s") else "Give a whole number."
            raise ConnectionInvalid(
                f"NIGHTBATCH_{field.name.upper()}", problem=f"{value!r} is not a number", remedy=remedy
            ) from error
    return Settings(**chosen)


def open_ledger(settings: Settings, *, anyway: bool = False) -> Ledger:
    """Open the ledger, making or upgrading its tables where they are absent or older (see `open_or_migrate`)."""
    ledger: Ledger = _load("nightbatch.adapters.ledger_sql:SqlLedger").open_or_migrate(
        settings.ledger_url, anyway=anyway
    )
    return ledger


def open_store(settings: Settings, connections: Connections) -> Store:
    """Open the staging folder."""
    staging = connections(settings.staging_connection) if settings.staging_connection else None
    store: Store = _load("nightbatch.adapters.object_store:ObjectStore")(settings.staging_uri, staging)
    return store


def open_prices(settings: Settings) -> Prices:
    """Open the prices. Raises JobInvalid where a file of one's own is absent or wrong."""
    prices: Prices = _load("nightbatch.adapters.prices:GenaiPrices")(settings.prices)
    return prices


def open_ports(
    job: Job,
    settings: Settings,
    connections: Connections,
    *,
    clock: Clock | None = None,
    ledger: Ledger | None = None,
    telemetry: Telemetry | None = None,
) -> Ports:
    """Give a job everything it needs from outside. Sources, sinks and vendors are opened when first used."""
    if os.environ.get("ARROW_DEFAULT_MEMORY_POOL", "system") == "system":
        pa.set_memory_pool(pa.system_memory_pool())  # where somebody had imported Arrow before us
    # Python would look for garbage among the records that are on their way: 1.5 µs a record, and there is none.
    gc.set_threshold(max(gc.get_threshold()[0], 50_000), *gc.get_threshold()[1:])
    return Ports(
        settings=settings,
        clock=clock or SystemClock(),
        store=open_store(settings, connections),
        ledger=ledger or open_ledger(settings),
        prices=open_prices(settings),
        provider=cache(_providers(settings, connections)),
        source=cache(lambda: open_source(job, connections)),
        sink=_sinks(connections),
        notifiers=cache(lambda: open_notifiers(job, connections)),
        function=lambda name: open_function(name, allowed=settings.redact_modules, job=job),
        telemetry=telemetry or NoTelemetry(),
    )


def _sinks(connections: Connections) -> Callable[[Job], Sink]:
    opened: dict[str, Sink] = {}

    def sink(job: Job) -> Sink:
        name = job.to_json()
        if name not in opened:
            opened[name] = open_sink(job, connections)
        return opened[name]

    return sink


def _providers(settings: Settings, connections: Connections) -> Callable[[str, str], Provider]:
    def provider(name: str, connection: str) -> Provider:
        return open_provider(name, connections(connection), request_timeout_s=settings.request_timeout_s)

    return provider


def open_provider(name: str, connection: Connection, *, request_timeout_s: float) -> Provider:
    """Open one account of a vendor. Raises PackageMissing where its SDK is not installed."""
    if is_absent(name):
        raise PackageMissing(name, extra=EXTRAS[name])
    provider: Provider = _load(PROVIDERS[name])(connection, request_timeout_s=request_timeout_s)
    return provider


def open_source(job: Job, connections: Connections, *, also: Iterable[str] = ()) -> Source:
    """Open what a job reads; with more columns than it asks about, where others need them."""
    spec, columns = job.source, tuple(dict.fromkeys((*job.columns, *also)))
    source: Source
    if isinstance(spec, FrameSourceSpec):
        source = _load("nightbatch.adapters.sources.frames:FrameSource")(
            spec.frame,
            columns=columns,
            time_column=spec.time_in,
            timezone=spec.timezone,
            name=spec.frame_name,
        )
        return source
    connection = connections(spec.connection) if spec.connection else None
    if isinstance(spec, FileSourceSpec):
        source = _load("nightbatch.adapters.sources.files:FileSource")(
            spec.files,
            connection=connection,
            format=spec.format,
            columns=columns,
            time_column=spec.time_in,
            timezone=spec.timezone,
        )
        return source
    return _open_query(spec, columns, connection)


def open_files(uri: str, connection: Connection | None) -> Source:
    """Open files that no job describes yet: all columns, whatever the window."""
    source: Source = _load("nightbatch.adapters.sources.files:FileSource")(uri, connection=connection)
    return source


def open_query(connection: Connection, sql: str) -> Source:
    """Open a query that no job describes yet: all columns, whatever the window, times without a zone taken as UTC."""
    where = _by_type(QUERY_SOURCES, connection, connection.conn_id, use="a query source")
    source: Source = _load(where)(connection, sql, timezone="UTC", columns=None, whole_table=True)
    return source


def _open_query(spec: QuerySourceSpec, columns: tuple[str, ...], connection: Connection | None) -> Source:
    where = _by_type(QUERY_SOURCES, connection, spec.connection, use="a query source")
    sql = spec.query
    if spec.watermark is not None:
        sql = _load("nightbatch.adapters.sources.query:bounded")(sql, column=spec.watermark.column, key=spec.key)
        columns = tuple(dict.fromkeys((*columns, spec.watermark.column)))
    named = {"timezone": spec.timezone, "columns": columns, "whole_table": spec.whole_table}
    source: Source = _load(where)(connection, sql, **named, key_ranges=spec.parts_by == "key_range")
    return source


def open_sink(job: Job, connections: Connections) -> Sink:
    """Open what a job writes."""
    spec = job.sink
    sink: Sink
    connection = connections(spec.connection) if spec.connection else None
    if isinstance(spec, FileSinkSpec):
        sink = _load("nightbatch.adapters.sinks.files:FileSink")(
            spec.files,
            connection=connection,
            format=spec.format,
            answer_schema=job.answer.json_schema,
            key_column=job.source.key,
        )
        return sink
    where = _by_type(TABLE_SINKS, connection, spec.connection, use="a table sink")
    sink = _load(where)(
        connection,
        spec.table,
        key_column=job.source.key,
        answer_schema=job.answer.json_schema,
        dead_letters_table=spec.dead_letters,
    )
    return sink


def _by_type(adapters: Mapping[str, str], connection: Connection | None, conn_id: str | None, *, use: str) -> str:
    if connection is None:
        raise ConnectionInvalid(conn_id or "(none)", problem=f"{use} needs a connection", remedy="Name one in the job.")
    if connection.conn_type not in adapters:
        known = ", ".join(sorted(adapters))
        raise ConnectionInvalid(
            connection.conn_id,
            problem=f"its type is {connection.conn_type!r}, which {use} cannot use",
            remedy=f"Use a connection of one of the types: {known}.",
        )
    return adapters[connection.conn_type]


def open_notifiers(job: Job, connections: Connections) -> Sequence[Notifier]:
    """
    Open the channels on which a job tells people.

    A channel that cannot be opened is logged and left out: no run fails because a message could not be sent.
    """
    openers: list[Callable[[], Notifier]] = []
    if job.notify.mail:
        openers.append(lambda: _open_mail(job, connections))
    if job.notify.slack_connection:
        openers.append(lambda: _open_slack(job, connections))
    notifiers: list[Notifier] = []
    for opener in openers:
        try:
            notifiers.append(opener())
        except NightbatchError as error:
            log.warning("%s: people are not told on this channel: %s", job.name, error)
    return tuple(notifiers)


def _open_mail(job: Job, connections: Connections) -> Notifier:
    mail = _load("nightbatch.adapters.notifiers.mail:MailNotifier")
    notifier: Notifier = mail(connections(job.notify.mail_connection), to=job.notify.mail)
    return notifier


def _open_slack(job: Job, connections: Connections) -> Notifier:
    slack = _load("nightbatch.adapters.notifiers.slack:SlackNotifier")
    notifier: Notifier = slack(connections(job.notify.slack_connection or ""))
    return notifier


def connections_of(job: Job) -> list[str]:
    """Name every connection that a job uses, sorted."""
    named: list[str | None] = [model.connection for model in job.models]
    named += [None if isinstance(job.source, FrameSourceSpec) else job.source.connection, job.sink.connection]
    named += [job.notify.mail_connection if job.notify.mail else None, job.notify.slack_connection]
    return sorted({conn_id for conn_id in named if conn_id})
