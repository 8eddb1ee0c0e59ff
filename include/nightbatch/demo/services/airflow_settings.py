"""Says how Airflow is set up for the demo and the tests: everything is an environment variable."""

import base64
import json
import os
import secrets
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nightbatch.demo.services.ports import LOOPBACK


@dataclass(frozen=True)
class AirflowSettings:
    """What the caller decides about an Airflow."""

    folder: Path
    """Its home: logs, login, secrets."""
    database_url: str
    """libpq URL of an empty or earlier metadata database."""
    dags_folder: Path
    plugins_folder: Path | None = None
    connections: Mapping[str, str] = field(default_factory=dict)
    """Connection id -> what an `AIRFLOW_CONN_*` variable may hold: a URI or JSON."""
    user: str = "admin"
    password: str | None = None
    """None: made up once for the folder."""
    parallelism: int = 8
    """Tasks at once; each is a process that is forked beforehand."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """More environment variables; they win over ours."""


@dataclass(frozen=True)
class Login:
    """Who may log in, and what signs what Airflow's parts tell each other."""

    user: str
    password: str
    fernet_key: str
    jwt_secret: str
    api_secret: str


def airflow_environment(settings: AirflowSettings, *, port: int) -> dict[str, str]:
    """
    Give the whole environment of an Airflow that serves on `port`.

    Ours without any AIRFLOW variable, so that a developer's own Airflow does not shine through, plus what
    `_loopback`, `_core`, `_speed` and `_safety` say, the connections and the caller's extra variables.
    """
    login = read_login(settings)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling everything anew at each start takes half a minute
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    connections = {f"AIRFLOW_CONN_{name.upper()}": value for name, value in settings.connections.items()}
    return {
        **inherited,
        "PATH": path,
        **_loopback(inherited),
        **_core(settings, port=port),
        **_speed(settings),
        **_safety(settings, login),
        **connections,
        **settings.extra,
    }


def read_login(settings: AirflowSettings) -> Login:
    """Read the folder's login and secrets, or make them up; only their owner may read the files."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    file = settings.folder / "secrets.json"
    known = json.loads(file.read_text()) if file.exists() else _new_secrets()
    login = Login(user=settings.user, **{**known, "password": settings.password or known["password"]})
    keep = {name: value for name, value in vars(login).items() if name != "user"}
    _write_private(file, keep)
    _write_private(passwords_file(settings), {login.user: login.password})
    return login


def passwords_file(settings: AirflowSettings) -> Path:
    """Name the file in which Airflow's SimpleAuthManager looks for passwords."""
    return settings.folder / "passwords.json"


def _loopback(inherited: Mapping[str, str]) -> dict[str, str]:
    """Keep what Airflow's parts tell each other away from a company's proxy; let macOS fork."""
    exceptions = ",".join(filter(None, [inherited.get("NO_PROXY") or inherited.get("no_proxy"), LOOPBACK, "localhost"]))
    return {"NO_PROXY": exceptions, "no_proxy": exceptions, "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}


def _core(settings: AirflowSettings, *, port: int) -> dict[str, str]:
    address = f"http://{LOOPBACK}:{port}"
    return {
        "AIRFLOW_HOME": str(settings.folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.dags_folder),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(settings.plugins_folder or settings.folder / "no-plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(settings.parallelism),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": settings.database_url.replace(
            "postgresql://", "postgresql+psycopg2://", 1
        ),
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(settings.folder / "logs"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _speed(settings: AirflowSettings) -> dict[str, str]:
    """Shorter pauses than Airflow's own, which are made for a large installation; seconds."""
    return {
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
        # The first task would else give up on an api-server that is still loading (default 5 s).
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    }


def _safety(settings: AirflowSettings, login: Login) -> dict[str, str]:
    """Loopback only, a login, new Dags paused, and keys that outlive a restart."""
    return {
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{login.user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(settings)),
        "AIRFLOW__CORE__FERNET_KEY": login.fernet_key,
        "AIRFLOW__API__SECRET_KEY": login.api_secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": login.jwt_secret,
    }


def _new_secrets() -> dict[str, str]:
    return {
        "password": secrets.token_urlsafe(12),
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "jwt_secret": secrets.token_hex(64),
        "api_secret": secrets.token_hex(32),
    }


def _write_private(file: Path, content: Mapping[str, str]) -> None:
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        json.dump(dict(content), new)
    part.replace(file)
