"""The servers that other tests use are there, and each test gets something of its own."""

import os

import psycopg
import pytest
from tests.servers import PostgresForTests, S3ForTests

from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.slack import SlackSink

pytest_plugins = ["tests.servers"]


def test_databases_and_buckets_are_new(postgres_server: PostgresForTests, s3_server: S3ForTests) -> None:
    first, second = postgres_server.new_database(), postgres_server.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE t (n int)")
    with psycopg.connect(second) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM t")
    assert s3_server.new_bucket() != s3_server.new_bucket()


def test_a_bucket_takes_a_large_object_at_once(s3_server: S3ForTests) -> None:
    bucket, body = s3_server.new_bucket(), os.urandom(10_000_000)

    s3_server.client().put_object(Bucket=bucket, Key="large", Body=body)

    assert s3_server.client().get_object(Bucket=bucket, Key="large")["Body"].read() == body


def test_sinks_begin_empty(mail_sink: MailSink, slack_sink: SlackSink) -> None:
    assert (mail_sink.mails(), slack_sink.messages()) == ([], [])
