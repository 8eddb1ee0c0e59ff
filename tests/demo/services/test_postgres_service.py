"""PostgreSQL starts anywhere, asks for its password, and comes back after a crash."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from nightbatch.demo.services.postgres import PostgresServer, airflow_connection
from nightbatch.demo.services.waiting import wait_until


@contextmanager
def running(folder: Path) -> Iterator[PostgresServer]:
    server = PostgresServer.start(folder)
    try:
        yield server
    finally:
        server.stop()


def add_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (n int)")
        connection.execute("INSERT INTO t VALUES (1)")


def count_rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM t").fetchone()
    return 0 if row is None else int(row[0])


def test_data_survive_a_restart_and_the_password_stays(tmp_path: Path) -> None:
    with running(tmp_path / "pg") as server:
        add_row(server.create_database("books"))
        password = server.password
    with running(tmp_path / "pg") as server:
        assert count_rows(server.create_database("books")) == 1
        assert server.password == password
    assert not any(psutil.pid_exists(pid) for pid in server.process.pids)


def test_data_survive_a_crash_whose_lock_file_names_a_living_process(tmp_path: Path) -> None:
    """As after a container's restart, where process numbers come again."""
    with running(tmp_path / "pg") as server:
        url = server.create_database("books")
        add_row(url)
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: not server.process.is_running, what="the crash", timeout_s=10)
    lock = tmp_path / "pg" / "cluster" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:], ""]))

    with running(tmp_path / "pg") as server:
        assert count_rows(server.url("books")) == 1


def test_a_start_that_died_half_way_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "pg" / "cluster.new" / "base").mkdir(parents=True)

    with running(tmp_path / "pg") as server:
        add_row(server.create_database("books"))


def test_a_folder_deeper_than_a_socket_path_may_be_is_fine(tmp_path: Path) -> None:
    with running(tmp_path / ("deep" * 20) / ("deeper" * 10)) as server:
        add_row(server.create_database("books"))


def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    with running(tmp_path / "pg") as server:
        for url in (server.url().replace(server.password, "guess"), server.url().replace(f":{server.password}", "")):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(url)
    assert (tmp_path / "pg" / "password").stat().st_mode & 0o077 == 0


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with running(tmp_path / "pg") as server:
        heard = psutil.Process(server.process.pid).net_connections(kind="all")
    listening = {connection.laddr for connection in heard if connection.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", server.port)}


def test_urls_fit_sqlalchemy_and_airflow(tmp_path: Path) -> None:
    with running(tmp_path / "pg") as server:
        url = server.create_database("books")
        assert server.url("books", driver="psycopg2") == url.replace("postgresql:", "postgresql+psycopg2:")
        assert airflow_connection(url) == url.replace("postgresql:", "postgres:")
        server.drop_database("books")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)


def test_it_comes_back_where_it_was_with_what_was_committed(tmp_path: Path) -> None:
    with running(tmp_path / "pg") as server:
        url = server.create_database("books")
        add_row(url)
        server.crash()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=5)
        server.start_again()

        assert count_rows(url) == 1
