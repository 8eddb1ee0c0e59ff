"""
Real servers for tests, each started once a session and gone with it, even after a kill -9.

Use them by `pytest_plugins = ["tests.servers"]`, or import the fixtures you need: it is one server either way.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.postgres import PostgresServer
from nightbatch.demo.services.s3 import S3Server
from nightbatch.demo.services.slack import SlackSink

Server = TypeVar("Server", PostgresServer, S3Server)

_SERVERS: pytest.StashKey[dict[type, PostgresServer | S3Server]] = pytest.StashKey()
_numbers = itertools.count(1)


@dataclass(frozen=True)
class PostgresForTests:
    """A PostgreSQL server, and empty databases on it."""

    server: PostgresServer

    def new_database(self) -> str:
        """Create an empty database and give its URL: `postgresql://user:password@127.0.0.1:port/name`."""
        return self.server.create_database(f"test_{next(_numbers)}")


@dataclass(frozen=True)
class S3ForTests:
    """An S3 server, and empty buckets on it."""

    server: S3Server

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port`."""
        return self.server.endpoint

    @property
    def key(self) -> str:
        """The access key id."""
        return self.server.key

    @property
    def secret(self) -> str:
        """The secret access key."""
        return self.server.secret

    @property
    def region(self) -> str:
        """The region to sign for."""
        return self.server.region

    def client(self) -> Any:
        """Open a boto3 client."""
        return self.server.client()

    def new_folder(self) -> str:
        """Give the URI of an empty folder; cheaper than a bucket, which takes a volume of the disk."""
        return f"s3://{self.server.create_bucket('tests')}/{next(_numbers)}"

    def new_bucket(self) -> str:
        """Create an empty bucket and give its name."""
        return self.server.create_bucket(f"test-{next(_numbers)}")


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> PostgresForTests:
    """A PostgreSQL server; ask it for `new_database()`."""
    return PostgresForTests(_once(pytestconfig, tmp_path_factory, PostgresServer))


@pytest.fixture(scope="session")
def s3_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> S3ForTests:
    """An S3 server; ask it for `new_bucket()`."""
    return S3ForTests(_once(pytestconfig, tmp_path_factory, S3Server))


@pytest.fixture
def mail_sink(tmp_path: Path) -> Iterator[MailSink]:
    """An SMTP server with no mails yet."""
    sink = MailSink.start(tmp_path / "mail")
    yield sink
    sink.stop()


@pytest.fixture
def slack_sink(tmp_path: Path) -> Iterator[SlackSink]:
    """A Slack webhook with no messages yet."""
    sink = SlackSink.start(tmp_path / "slack")
    yield sink
    sink.stop()


def _once(config: pytest.Config, folders: pytest.TempPathFactory, kind: type[Server]) -> Server:
    """Start a server of this kind unless the session has one, though several files import its fixture."""
    servers = config.stash.setdefault(_SERVERS, {})
    if kind not in servers:
        servers[kind] = server = kind.start(folders.mktemp(kind.__name__))
        config.add_cleanup(server.stop)
    return cast("Server", servers[kind])
