"""
Real servers for tests, each started once a session and gone with it, even after a kill -9.

Use them by `pytest_plugins = ["tests.servers"]`, or import the fixtures you need.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.postgres import PostgresServer
from nightbatch.demo.services.s3 import S3Server
from nightbatch.demo.services.slack import SlackSink

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

    def new_bucket(self) -> str:
        """Create an empty bucket and give its name."""
        return self.server.create_bucket(f"test-{next(_numbers)}")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresForTests]:
    """A PostgreSQL server; ask it for `new_database()`."""
    server = PostgresServer.start(_folder(tmp_path_factory, "postgres"))
    yield PostgresForTests(server)
    server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3ForTests]:
    """An S3 server; ask it for `new_bucket()`."""
    server = S3Server.start(_folder(tmp_path_factory, "s3"))
    yield S3ForTests(server)
    server.stop()


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


def _folder(factory: pytest.TempPathFactory, name: str) -> Path:
    return factory.mktemp(name, numbered=True)
