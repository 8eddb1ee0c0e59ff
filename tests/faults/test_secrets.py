"""
Secrets and texts are planted, everything goes wrong, and all that anybody can read afterwards is searched.

Keys and passwords may stand nowhere. Records' texts and answers may stand in the files between the steps, in the sink
and with the vendor, and never in logs, exceptions, messages or the ledger.
"""

from __future__ import annotations

import contextlib
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from nightbatch import cli, cli_frame
from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_tables import metadata
from nightbatch.adapters.notifiers.mail import MailNotifier
from nightbatch.adapters.notifiers.slack import SlackNotifier
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.providers.anthropic import AnthropicProvider
from nightbatch.adapters.providers.openai import OpenAIProvider
from nightbatch.adapters.registry import open_sink, open_source
from nightbatch.core.ids import Label
from nightbatch.core.request import Endpoint
from nightbatch.core.window import Window
from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.slack import SlackSink
from nightbatch.emulator import Account, EmulatorSettings, Faults, running
from nightbatch.errors import NightbatchError
from nightbatch.job import Job
from nightbatch.ports import ANSWER_SCHEMA, Connection, SinkContext, Source
from tests.messages import message_of
from tests.servers import PostgresForTests, S3ForTests

KEY = "sk-planted-Zq81kTn5vV"
PASSWORD = "planted-Pw-77xKq"
TOKEN = "T000/B000/planted-hook-3cD"
TEXT = "Zebrafinch complains about invoice 4711"
WINDOW = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
CONTEXT = SinkContext("planted", "planted/w/g1", WINDOW, 1)


def told(error: BaseException) -> str:
    """Give all that a log would show of an exception: its chain with every message."""
    return "".join(traceback.format_exception(error))


# --- each adapter's exceptions --------------------------------------------------------------------------------


REFUSALS = [
    httpx2.Response(
        status, json={"error": {"type": kind, "code": kind, "message": f"requests.0.params: {TEXT!r}, key {KEY}"}}
    )
    for status, kind in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "conflict"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
    ]
]


def provider_of(vendor: str, transport: httpx2.BaseTransport) -> Any:
    connection = Connection("vendor", vendor, host="http://127.0.0.1:9/v1", password=KEY)
    kind = {"openai": OpenAIProvider, "anthropic": AnthropicProvider}[vendor]
    provider = kind(connection, request_timeout_s=5)
    provider.__dict__["_calls"] = import_module(f"nightbatch.adapters.providers.{vendor}_client").open_calls(
        connection,
        base_url="http://127.0.0.1:9/v1",
        key=KEY,
        request_timeout_s=5,
        http_client=httpx2.Client(transport=transport),
    )
    return provider


LABEL = Label("a" * 32, "b" * 12, 0, 0, 1, "c" * 64)
LINE = json.dumps({"custom_id": "nb", "body": {"messages": [{"role": "user", "content": TEXT}]}}).encode() + b"\n"
CALLS: dict[str, Callable[[Any], object]] = {
    "account": lambda provider: provider.account(),
    "upload": lambda provider: provider.upload(iter([LINE]), size_bytes=len(LINE), name="x.jsonl"),
    "create": lambda provider: provider.create(
        file_id="file-1", lines=iter([LINE]), endpoint=Endpoint.CHAT, label=LABEL
    ),
    "find": lambda provider: provider.find(LABEL, rows=1, since=WINDOW.start, until=WINDOW.end),
    "listing": lambda provider: list(provider.listing(WINDOW.start)),
    "poll": lambda provider: provider.poll("batch_1"),
    "discard": lambda provider: provider.discard("batch_1", file_id="file-1", result_files=("output:file-2",)),
    "cancel": lambda provider: provider.cancel("batch_1"),
    "ask": lambda provider: provider.ask(LINE, endpoint=Endpoint.CHAT),
}


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
@pytest.mark.parametrize("call", sorted(CALLS))
def test_no_exception_of_a_vendors_call_holds_the_key_or_what_the_vendor_quotes(vendor: str, call: str) -> None:
    def broken(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError(f"broke while reading {TEXT} with {KEY}")

    replies: list[Callable[[httpx2.Request], httpx2.Response]] = [lambda _, it=reply: it for reply in REFUSALS]
    garbled = httpx2.Response(200, text=f"<html>{TEXT} {KEY}</html>")
    for reply in [*replies, lambda _: garbled, broken]:
        try:
            CALLS[call](provider_of(vendor, httpx2.MockTransport(reply)))
        except NightbatchError as error:
            assert KEY not in told(error)
            assert TEXT not in told(error)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_no_log_of_a_vendors_call_shows_what_is_sent(vendor: str, caplog: pytest.LogCaptureFixture) -> None:
    """The SDKs log every request at the level DEBUG."""
    caplog.set_level(logging.DEBUG)
    provider = provider_of(vendor, httpx2.MockTransport(lambda _: httpx2.Response(500)))

    for call in CALLS.values():
        with contextlib.suppress(NightbatchError):
            call(provider)

    assert "_base_client" in caplog.text
    assert TEXT not in caplog.text
    assert KEY not in caplog.text


def source_job(**source: Any) -> Job:
    values = {
        "name": "planted",
        "source": {"key": "id", **source},
        "prompt": {"user": "{{ text }}"},
        "models": [{"provider": "openai", "model": "gpt-5-mini", "connection": "vendor", "max_output_tokens": 9}],
        "sink": {"files": "answers/"},
    }
    return Job.model_validate(values)


BAD_FILES = {
    "rows.csv": f'id,text\n1,fine\n2,"{TEXT}",{TEXT},{TEXT}\n',
    "half.csv": f'id,text\n1,"{TEXT}\n',
    "rows.jsonl": f'{{"id": 1, "text": "{TEXT}"}}\n{{"id": 2, "text": "{TEXT}" oh no}}\n',
    "list.jsonl": f'["{TEXT}"]\n',
    "rows.parquet": f"PAR1 {TEXT}",
}


def said_of(source: Source) -> str:
    """Read a source in which something is wrong, and give all that is said of it."""
    try:
        said = "".join(str(one) for chunk in source.read(WINDOW) for one in chunk.unreadable)
    except NightbatchError as error:
        said = told(error)
    assert said, "nothing was wrong with it"
    return said


@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_nothing_that_is_said_of_a_bad_file_quotes_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(BAD_FILES[name])

    source = open_source(source_job(files=str(tmp_path / name)), lambda _: Connection("c", "fs"))

    assert TEXT not in said_of(source)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_nothing_that_is_said_of_a_bad_time_quotes_it(suffix: str, tmp_path: Path) -> None:
    row = {"csv": f"id,text,at\n1,a,{TEXT}\n", "jsonl": json.dumps({"id": 1, "text": "a", "at": TEXT})}[suffix]
    (tmp_path / f"rows.{suffix}").write_text(row)
    job = source_job(files=str(tmp_path / f"rows.{suffix}"), time_column="at")

    assert TEXT not in said_of(open_source(job, lambda _: Connection("c", "fs")))


def postgres(url: str, **changes: Any) -> Connection:
    parts = urlsplit(url)
    values: dict[str, Any] = {
        "host": parts.hostname,
        "port": parts.port,
        "login": parts.username,
        "password": parts.password,
        "schema": parts.path.strip("/"),
    }
    return Connection("warehouse", "postgres", **{**values, **changes})


QUERIES = (
    f"select 1 as id, '{TEXT}'::int as text",
    "select id, text::int as text from texts",
    "select id, (1 / (length(text) - length(text)))::text as text from texts",
    "select id, txet as text from texts",
)


@pytest.mark.parametrize("query", QUERIES[1:])
def test_no_exception_of_a_query_quotes_a_record_or_the_password(query: str, postgres_server: PostgresForTests) -> None:
    url = postgres_server.new_database()
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("create table texts (id int, text text)")
        database.execute("insert into texts values (1, %s)", (TEXT,))
    job = source_job(query=query, connection="warehouse", whole_table=True)

    with pytest.raises(NightbatchError) as error:
        list(open_source(job, lambda _: postgres(url)).read(WINDOW))

    assert TEXT not in told(error.value)
    assert str(urlsplit(url).password) not in told(error.value)


@pytest.mark.parametrize(
    "changes", [{"password": PASSWORD}, {"port": 9, "password": PASSWORD}, {"schema": "none", "password": PASSWORD}]
)
def test_no_exception_of_a_refused_database_holds_its_password(
    changes: dict[str, Any], postgres_server: PostgresForTests
) -> None:
    connection = postgres(postgres_server.new_database(), **changes)
    job = source_job(query="select 1 as id, 'x' as text", connection="warehouse", whole_table=True)

    try:
        list(open_source(job, lambda _: connection).read(WINDOW))
    except NightbatchError as error:
        assert PASSWORD not in told(error)


@pytest.mark.parametrize("query", ["select 1 as id, text::int as text from texts", QUERIES[0]])
def test_no_exception_of_duckdb_quotes_a_record(query: str, tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "w.duckdb")) as database:
        database.execute("create table texts (text varchar)")
        database.execute("insert into texts values (?)", [TEXT])
    job = source_job(query=query, connection="warehouse", whole_table=True)

    with pytest.raises(NightbatchError) as error:
        list(open_source(job, lambda _: Connection("w", "duckdb", host=str(tmp_path / "w.duckdb"))).read(WINDOW))

    assert TEXT not in told(error.value).replace(query, "")


def answers() -> pa.RecordBatch:
    row = dict.fromkeys(ANSWER_SCHEMA.names)
    row |= {"key": "k1", "fingerprint": "f", "answer": TEXT, "provider": "p", "model": "m", "prompt_version": "v"}
    return pa.RecordBatch.from_pylist([row | {"round": 0, "custom_id": "nb"}], schema=ANSWER_SCHEMA)


def test_no_exception_of_a_table_that_refuses_an_answer_quotes_it(postgres_server: PostgresForTests) -> None:
    url = postgres_server.new_database()
    values = source_job(files="x").model_dump(by_alias=True, exclude={"sink", "source"})
    job = Job.model_validate(
        {**values, "source": {"files": "x", "key": "id"}, "sink": {"table": "answers", "connection": "warehouse"}}
    )
    sink = open_sink(job, lambda _: postgres(url))
    sink.prepare(CONTEXT)
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("alter table answers add constraint short check (length(answer) < 3)")

    with pytest.raises(NightbatchError) as error:
        sink.merge(CONTEXT, "r0-s000", [answers()])

    assert TEXT not in told(error.value)


def test_no_exception_of_a_store_holds_its_secret(s3_server: S3ForTests) -> None:
    connection = Connection(
        "lake", "aws", login=s3_server.key, password=PASSWORD, extra={"endpoint_url": s3_server.endpoint}
    )

    with pytest.raises(NightbatchError) as error:
        ObjectStore(f"s3://{s3_server.new_bucket()}/staging", connection).write("a/b", b"x")

    assert PASSWORD not in told(error.value)


def test_no_exception_of_a_ledger_holds_its_password() -> None:
    for url in (f"postgresql://me:{PASSWORD}@127.0.0.1:9/ledger", f"nonsense://me:{PASSWORD}@host/x"):
        with pytest.raises(NightbatchError) as error:
            SqlLedger.open_or_migrate(url)
        assert PASSWORD not in told(error.value)


def test_no_exception_of_a_channel_holds_its_secret() -> None:
    message = message_of()
    mail = Connection(
        "smtp", "smtp", host="127.0.0.1", port=9, login="me", password=PASSWORD, extra={"from_email": "b@c.de"}
    )
    slack = Connection("slack", "slackwebhook", host="http://127.0.0.1:9", password=TOKEN)
    for notifier in (MailNotifier(mail, to=("a@example.com",)), SlackNotifier(slack)):
        with pytest.raises(NightbatchError) as error:
            notifier.send(message)
        assert PASSWORD not in told(error.value)
        assert TOKEN not in told(error.value)


# --- whole nights ---------------------------------------------------------------------------------------------


JOB = """
name: planted
source:
  query: select id, text from texts where at >= :window_start and at < :window_end order by id
  connection: warehouse
  key: id
prompt: {system: "Sort it.", user: "{{ text }}"}
models: [{provider: VENDOR, model: MODEL, connection: vendor, max_output_tokens: 100}]
sink: {table: answers, connection: warehouse}
shard: {max_rows: 4}
rounds: 1
budget_usd: 5
max_dead_share: 1.0
notify: {mail: [a@example.com], mail_connection: smtp, slack_connection: slack, on: [failed, report, late, at_risk]}
"""
MODELS = {"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5"}
BAD_ROWS = "permanent=0.3, truncated=0.3, refusal=0.2, missing=0.2, transient=0.2, duplicate=0.2, unknown=0.2"
BAD_CALLS = "http_5xx=2, http_429=2, reset=2, garbled=2, truncated_download=1, garbled_download=1"
STRANGERS = ("uvicorn", "asyncio", "nightbatch.emulator", "mail.log")
"""Loggers of the servers that this process plays."""


class Stand:
    """An installation with secrets in every connection, and all that can be read of it."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        postgres_server: PostgresForTests,
        s3_server: S3ForTests,
        channels: tuple[MailSink, SlackSink],
        vendor: tuple[str, str],
    ) -> None:
        self.folder, self._monkeypatch, self._s3 = folder, monkeypatch, s3_server
        self.mail, self.slack = channels
        self.warehouse, self.ledger, self.bucket = (
            postgres_server.new_database(),
            postgres_server.new_database(),
            s3_server.new_bucket(),
        )
        self.said: list[str] = []
        name, self.url = vendor
        path = "/v1" if name == "openai" else ""
        lake = {"conn_type": "aws", "login": s3_server.key, "password": s3_server.secret}
        hook = {"conn_type": "slackwebhook", "host": self.slack.url, "password": TOKEN}
        self.environ = {
            "NIGHTBATCH_LEDGER_URL": self.ledger,
            "NIGHTBATCH_STAGING_URI": f"s3://{self.bucket}/staging",
            "NIGHTBATCH_STAGING_CONNECTION": "lake",
            "NIGHTBATCH_POLL_FROM_S": "0.1",
            "NIGHTBATCH_POLL_TO_S": "0.3",
            "NIGHTBATCH_QUEUE_WAIT_S": "0.1",
            "AIRFLOW_CONN_LAKE": json.dumps({**lake, "extra": {"endpoint_url": s3_server.endpoint}}),
            "AIRFLOW_CONN_WAREHOUSE": self.warehouse.replace("postgresql://", "postgres://", 1),
            "AIRFLOW_CONN_VENDOR": json.dumps({"conn_type": name, "host": self.url + path, "password": KEY}),
            "AIRFLOW_CONN_SMTP": self.mail.airflow_connection(),
            "AIRFLOW_CONN_SLACK": json.dumps(hook),
        }
        self.set(**self.environ)
        (folder / "planted.yaml").write_text(JOB.replace("VENDOR", name).replace("MODEL", MODELS[name]))
        with psycopg.connect(self.warehouse, autocommit=True) as database:
            database.execute("create table texts (id text primary key, text text, at timestamptz)")
            for day in range(1, 29):
                rows = [(f"d{day}k{row}", f"{TEXT} ({day}, {row})", f"2026-10-{day:02d}T12:00Z") for row in range(9)]
                database.cursor().executemany("insert into texts values (%s, %s, %s)", rows)

    def set(self, **environ: str) -> None:
        """Change the environment."""
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)

    def type(self, *words: str) -> int:
        """Type a command, and keep all that it says."""
        ended = CliRunner().invoke(cli.app, words)
        if ended.exc_info is not None and ended.exit_code:
            self.said.append("".join(traceback.format_exception(*ended.exc_info)))
        # `try` is there to show a few texts to whoever typed it.
        self.said.append(ended.stderr if words[0] == "try" else ended.output)
        return ended.exit_code

    def run(self, day: int, *words: str) -> int:
        """Run a day's window."""
        return self.type("run", "planted.yaml", "--from", f"2026-10-{day:02d}", *words)

    def faults(self, faults: str) -> None:
        """Put these faults, and no others, in force at the vendor."""
        reply = httpx2.put(
            f"{self.url}/emulator/faults",
            json=Faults.parse(faults).as_dict(),
            headers={"Authorization": f"Bearer {KEY}"},
        )
        reply.raise_for_status()

    @property
    def secrets(self) -> list[str]:
        """Everything that may stand nowhere."""
        return [KEY, TOKEN, PASSWORD, self._s3.secret, str(urlsplit(self.warehouse).password)]

    def ledger_dump(self) -> str:
        """Give every value of every table of the ledger."""
        with Database(self.ledger).read() as connection:
            return "\n".join(
                str(dict(row))
                for table in metadata.sorted_tables
                for row in connection.execute(sa.select(table)).mappings()
            )

    def files(self) -> Iterator[tuple[str, str]]:
        """Give every file between the steps, as text."""
        for item in self._s3.client().list_objects_v2(Bucket=self.bucket).get("Contents", ()):
            content = self._s3.client().get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
            if item["Key"].endswith(".parquet"):
                yield item["Key"], str(pq.read_table(pa.BufferReader(content)).to_pylist())
            else:
                yield item["Key"], content.decode()

    def messages(self) -> str:
        """Give all that people were told."""
        return f"{self.mail.mails()} {[message.payload for message in self.slack.messages()]}"


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_nights_in_which_everything_fails_tell_no_secret_and_no_text(
    vendor: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    postgres_server: PostgresForTests,
    s3_server: S3ForTests,
    mail_sink: MailSink,
    slack_sink: SlackSink,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_frame.progress, "log_lines", lambda **_: None)
    logging.getLogger("nightbatch").setLevel(logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    settings = EmulatorSettings(accounts=(Account(KEY, "org-planted", "night"),), batch_seconds=0.2)
    with running(settings) as url:
        stand = Stand(tmp_path, monkeypatch, postgres_server, s3_server, (mail_sink, slack_sink), (vendor, url))
        _everything_fails(stand)

    logs = "\n".join(
        f"{record.name} {record.getMessage()} {caplog.handler.format(record)}"
        for record in caplog.records
        if not record.name.startswith(STRANGERS)
    )
    files = list(stand.files())
    assert any(TEXT in content for _, content in files), "the texts were never planted"
    assert "planted" in stand.ledger_dump()
    assert mail_sink.mails()
    assert slack_sink.messages()
    places = {
        "logs": logs,
        "output": "\n".join(stand.said),
        "ledger": stand.ledger_dump(),
        "messages": stand.messages(),
    }
    for place, content in places.items():
        assert TEXT not in content, f"a record's text or an answer in the {place}: {_around(content, TEXT)}"
    for place, content in [*places.items(), *files]:
        for secret in stand.secrets:
            assert secret not in content, f"a secret in {place}: {_around(content, secret)}"


def _around(content: str, found: str) -> str:
    at = content.find(found)
    return content[max(0, at - 300) : at + 100]


def _everything_fails(stand: Stand) -> None:
    """Run nights that end in every way there is."""
    assert stand.run(1) == 0
    assert stand.type("try", "planted.yaml", "--from", "2026-10-02", "-n", "1") == 0
    assert stand.type("plan", "planted.yaml", "--from", "2026-10-02") == 0
    stand.faults(BAD_ROWS)
    stand.run(2)
    stand.faults(BAD_CALLS)
    stand.run(3)
    for faults in ("http_401=9999", "credit_error_requests=9999", "credit_error=1"):
        stand.faults(faults)
        assert stand.run(4) != 0
        stand.type("try", "planted.yaml", "--from", "2026-10-04", "-n", "1")
        stand.type("orphans")
    stand.faults("")
    with psycopg.connect(stand.warehouse, autocommit=True) as database:
        database.execute("alter table answers add constraint short check (length(answer) < 3) not valid")
    assert stand.run(5) != 0
    with psycopg.connect(stand.warehouse, autocommit=True) as database:
        database.execute("alter table answers drop constraint short")
        database.execute("update texts set text = null where id = 'd6k1'")
    stand.run(6)
    _connections_fail(stand)
    for words in (("status",), ("costs",), ("tidy",), ("orphans",), ("check", "planted.yaml")):
        stand.type(*words)


def _connections_fail(stand: Stand) -> None:
    """Run nights in which one connection after the other is wrong or leads nowhere."""
    job = (stand.folder / "planted.yaml").read_text()
    (stand.folder / "planted.yaml").write_text(job.replace("select id, text from", "select id, text::int as text from"))
    assert stand.run(7) != 0
    (stand.folder / "planted.yaml").write_text(job)
    lake = json.loads(stand.environ["AIRFLOW_CONN_LAKE"])
    wrong = {
        "NIGHTBATCH_LEDGER_URL": f"postgresql://me:{PASSWORD}@127.0.0.1:9/ledger",
        "AIRFLOW_CONN_WAREHOUSE": f"postgres://me:{PASSWORD}@127.0.0.1:9/warehouse",
        "AIRFLOW_CONN_LAKE": json.dumps({**lake, "password": PASSWORD}),
        "AIRFLOW_CONN_VENDOR": stand.environ["AIRFLOW_CONN_VENDOR"].replace(KEY, f"sk-{PASSWORD}"),
    }
    for name, value in wrong.items():
        stand.set(**{name: value})
        assert stand.run(8) != 0
        stand.set(**{name: stand.environ[name]})
    stand.set(
        AIRFLOW_CONN_SLACK=json.dumps({"conn_type": "slackwebhook", "host": "http://127.0.0.1:9", "password": TOKEN}),
        AIRFLOW_CONN_SMTP=json.dumps(
            {"conn_type": "smtp", "host": "127.0.0.1", "port": 9, "login": "me", "password": PASSWORD}
        ),
    )
    stand.run(9)
    stand.set(
        AIRFLOW_CONN_SLACK=stand.environ["AIRFLOW_CONN_SLACK"], AIRFLOW_CONN_SMTP=stand.environ["AIRFLOW_CONN_SMTP"]
    )
