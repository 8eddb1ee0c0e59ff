"""
The pages that people read agree with the code. `python -m tests.test_docs` writes the README's tables anew.

What one adapter or one part of a job file promises is held to its own page by a test of its own
(`test_job_docs.py`, `adapters/test_ledger_docs.py`, `adapters/sinks/test_tables_documented.py`).
"""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
import typer

from nightbatch import cli, errors
from nightbatch.adapters import registry
from nightbatch.adapters.connections import _BARE_KEYS
from nightbatch.adapters.notifiers.wording import KINDS
from nightbatch.job import FileSinkSpec, FileSourceSpec, FrameSourceSpec, Job, QuerySourceSpec, TableSinkSpec
from nightbatch.job_file import load_job, load_jobs
from nightbatch.ports import Settings

pytest_plugins = ["tests.servers"]

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
OWN_PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
PAGES = [ROOT / name for name in OWN_PAGES] + sorted((ROOT / "docs").rglob("*.md"))


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- the README's tables --------------------------------------------------------------------------------------


def dags_table() -> str:
    jobs, problems = load_jobs(ROOT / "include" / "jobs")
    assert problems == []
    rows = [_dag_row(job, f"include/jobs/{job.name}.yaml") for job in jobs]
    rows.append(_own_row("housekeeping", "the ledger, the staging folder"))
    rows.append(_own_row("watchdog", "the ledger, the job files"))
    with python_jobs() as found:
        for file in sorted((ROOT / "dags").glob("*.py")):
            before = len(found)
            runpy.run_path(str(file))
            rows += [_dag_row(job, f"dags/{file.name}") for job in found[before:]]
    head = "| Dag | from | to | asks | when | budget a run | file |"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- |", *rows])


@contextmanager
def python_jobs() -> Iterator[list[Job]]:
    """Catch the jobs that Dag files hand to `build_dag`, without the seconds that Airflow takes to import."""
    found: list[Job] = []
    stub = ModuleType("nightbatch.orchestration.dag")
    vars(stub).update(build_dag=found.append, build_dags=lambda _: {})
    housekeeping = ModuleType("nightbatch.orchestration.housekeeping")
    vars(housekeeping).update(housekeeping_dag=lambda: None)
    watchdog = ModuleType("nightbatch.orchestration.watchdog")
    vars(watchdog).update(watchdog_dag=lambda _: None)
    stubs = {module.__name__: module for module in (stub, housekeeping, watchdog)}
    before = {name: sys.modules[name] for name in stubs if name in sys.modules}
    sys.modules.update(stubs)
    try:
        yield found
    finally:
        for name in stubs:
            del sys.modules[name]
        sys.modules.update(before)


def _own_row(name: str, reads: str) -> str:
    """Read the schedule from the source, since the module imports Airflow."""
    file = f"dags/nightbatch_{name}.py"
    [schedule] = re.findall(r'^SCHEDULE = "(.+)"$', page(f"include/nightbatch/orchestration/{name}.py"), re.M)
    [dag_id] = re.findall(r'"dag_id": "(.+)"', page(f"include/nightbatch/orchestration/{name}.py"))
    what = f"| `{dag_id}` | {reads} | – | – | `{schedule}` UTC | nothing is sent |"
    return f"{what} [{file}]({file}) |"


def _dag_row(job: Job, file: str) -> str:
    models = ", then ".join(f"{model.provider} `{model.model}`" for model in job.models)
    when = f"`{job.schedule}` {job.timezone}" if job.schedule else "by hand"
    budget = f"{job.budget_usd:.2f} USD" if job.budget_usd is not None else "none"
    return f"| `{job.name}` | {_from(job)} | {_to(job)} | {models} | {when} | {budget} | [{file}]({file}) |"


def _from(job: Job) -> str:
    match job.source:
        case FrameSourceSpec():
            return "a frame"
        case QuerySourceSpec() as query:
            return f"a query on `{query.connection}`"
        case files:
            return f"`{files.files}`"


def _to(job: Job) -> str:
    match job.sink:
        case TableSinkSpec() as table:
            return f"table `{table.table}` on `{table.connection}`"
        case FileSinkSpec() as files:
            return f"`{files.files}`"


FOUND_BY = {"label": "its label in the vendor's metadata", "count": "its time and number of rows, then its custom_ids"}


def providers_table() -> str:
    rows = []
    for name, where in sorted(registry.PROVIDERS.items()):
        provider = registry._load(where)
        endpoints = ", ".join(f"`{endpoint.value}`" for endpoint in provider.endpoints)
        limits = provider.limits
        rows.append(
            f"| `{name}` | {endpoints} | {limits.max_rows:,} | {limits.max_bytes:,} | {FOUND_BY[provider.found_by]} |"
        )
    head = "| provider | endpoints | rows a batch | bytes a batch | a lost batch is found by |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def ends_table() -> str:
    rows = [
        f"| query, table: connection type `{kind}` | {_yes(kind in registry.QUERY_SOURCES)} |"
        f" {_yes(kind in registry.TABLE_SINKS)} |"
        for kind in sorted({*registry.QUERY_SOURCES, *registry.TABLE_SINKS})
    ]
    readable, writable = (formats(spec) for spec in (FileSourceSpec, FileSinkSpec))
    rows += [
        f"| files in S3 or a local folder: `{name}` | {_yes(name in readable)} | {_yes(name in writable)} |"
        for name in sorted({*readable, *writable})
    ]
    rows.append("| a pandas DataFrame or an Arrow table, in Python | yes | – |")
    return "\n".join(["| | source | sink |", "| --- | --- | --- |", *rows])


def formats(spec: type[Any]) -> set[str]:
    """Read the formats that a part of a job file takes from its own JSON Schema."""
    schema = spec.model_json_schema()["properties"]["format"]
    choices = [schema, *schema.get("anyOf", [])]
    return {name for choice in choices for name in (*choice.get("enum", ()), *[choice.get("const")]) if name}


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "–"


TABLES: dict[str, Callable[[], str]] = {"dags": dags_table, "providers": providers_table, "ends": ends_table}


def with_tables(text: str) -> str:
    """Put the tables into a page, each between its marks."""
    for name, table in TABLES.items():
        marks = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = marks.subn(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", text)
        assert count == 1, f"README.md has {count} places for the table {name}"
    return text


def test_the_tables_of_the_readme_say_what_the_code_has() -> None:
    """Wrong? `python -m tests.test_docs` mends it."""
    assert with_tables(page("README.md")) == page("README.md")


# --- the README's snippets ------------------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_job_of_the_readme_is_a_job(tmp_path: Path) -> None:
    [text] = blocks(page("README.md"), "yaml")
    (tmp_path / "ticket_urgency.yaml").write_text(text)

    job = load_job(tmp_path / "ticket_urgency.yaml")

    assert job.columns_sent == ("body",)


def test_the_five_lines_of_the_readme_are_those_of_the_dag_file() -> None:
    [text] = blocks(page("README.md"), "python")

    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(page("dags/nightbatch_jobs.py")))


def test_the_script_for_s3_is_python() -> None:
    [script] = blocks(page("README.md"), "python s3")

    compile(script, "README.md", "exec")


def test_every_query_of_the_readme_runs(postgres_server: Any) -> None:
    """On a ledger, and on a warehouse as the demo makes them, both empty."""
    from nightbatch.demo.reviews import load_warehouse

    ledger, warehouse = postgres_server.new_database(), postgres_server.new_database()
    registry.open_ledger(Settings(ledger_url=ledger, staging_uri=""))
    load_warehouse(warehouse)
    with psycopg.connect(warehouse) as connection:
        for name, column in (("review_sentiment", "sentiment"), ("review_sentiment_dead_letters", "nb_reason")):
            connection.execute(
                f"create table {name} (sentence_id text, {column} text, nb_duplicate_of text, nb_cost_usd numeric)"
            )
    queries = [(ledger, query) for query in blocks(page("README.md"), "sql ledger")]
    queries += [(warehouse, query) for query in blocks(page("README.md"), "sql warehouse")]

    for url, query in queries:
        with psycopg.connect(url) as connection:
            connection.execute(query.encode())

    assert len(queries) >= 10


COMMAND = re.compile(r"^(?:\.venv/bin/)?nightbatch (\w+)(.*)$", re.MULTILINE)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    code = "\n".join([*blocks(text, "(?:bash|sh|)"), *re.findall(r"`([^`\n]+)`", text)])
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group has commands
    wrong = []
    for name, rest in COMMAND.findall(code):
        if name not in known:
            wrong.append(name)
        elif name != "emulator":
            options = {option for parameter in known[name].params for option in parameter.opts}
            wrong += [f"{name} {it}" for it in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest.partition("#")[0])
                      if it not in options]  # fmt: skip

    assert wrong == []


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
    named = {name for file in PAGES for name in re.findall(r"`make ([a-z]+)", file.read_text(encoding="utf-8"))}
    named |= set(re.findall(r"^make ([a-z]+)", page("README.md"), re.MULTILINE))

    assert named - targets == set()
    assert {"demo", "test", "check", "golden", "clean"} <= named


# --- links ----------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_somewhere(file: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        other = (file.parent / path).resolve() if path else file
        if not other.exists() or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            broken.append(target)

    assert broken == []


# --- pages that must be complete ------------------------------------------------------------------------------


def headings(name: str) -> list[str]:
    return re.findall(r"^### (.+)$", page(name), re.MULTILINE)


def error_classes() -> list[str]:
    """Name every error that is raised, not the classes that only group them."""
    groups = {"NightbatchError", "Transient", "Terminal"}
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind.__name__ for kind in kinds if issubclass(kind, Exception) and kind.__name__ not in groups]


def test_the_runbook_has_an_entry_for_every_error_and_every_alert() -> None:
    entries = headings("docs/runbook.md")

    assert sorted(entry for entry in entries if entry[0].isupper()) == sorted(error_classes())
    assert sorted(entry.strip("`") for entry in entries if entry.startswith("`")) == sorted(KINDS)


def test_every_alert_of_the_runbook_says_how_it_is_announced_and_shows_it() -> None:
    text = page("docs/runbook.md")
    shown = re.findall(r"^### `(\w+)`\n\n“(.+): …” \(\[picture\]\((\S+)\)\)$", text, re.MULTILINE)

    assert {kind: announced for kind, announced, _ in shown} == KINDS
    assert [file for kind, _, file in shown if not Path(file).stem.startswith(kind)] == []


def test_every_entry_of_the_runbook_says_what_to_do_and_what_happens_otherwise() -> None:
    text = page("docs/runbook.md")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    parts = ("**Means:**", "**By itself:**", "**Do:**", "**If nobody does:**")

    assert [entry.splitlines()[0] for entry in entries if any(part not in entry for part in parts)] == []


def test_every_word_of_the_glossary_is_in_the_code() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| `(.+?)` \|$", page("docs/glossary.md"), re.MULTILINE)

    missing = [f"{word}: {where}" for word, where in rows if not _exists(where)]

    assert missing == []
    assert len(rows) >= 25


def _exists(where: str) -> bool:
    """Say whether `package.module:Name.attribute` is there; attributes may be fields of a dataclass or a model."""
    module, _, name = where.partition(":")
    thing: Any = import_module(f"nightbatch.{module}")
    for part in filter(None, name.split(".")):
        annotated = {name for kind in getattr(thing, "__mro__", ()) for name in vars(kind).get("__annotations__", {})}
        if not hasattr(thing, part) and part not in annotated:
            return False
        thing = getattr(thing, part, None)
    return True


def test_every_test_that_the_promises_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page("docs/reliability.md"))

    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in _text_of(file)]

    assert missing == []
    assert len(named) >= 20


def _text_of(file: str) -> str:
    return page(file) if (ROOT / file).exists() else ""


def test_every_decision_is_told_in_full_and_listed() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    index = page("docs/adr/README.md")
    parts = ("## Context", "## Decision", "## Consequences", "## Rejected", "## Revisit when")

    assert [file.name for file in records if f"({file.name})" not in index] == []
    assert {
        file.name: [part for part in parts if part not in file.read_text(encoding="utf-8")] for file in records
    } == {file.name: [] for file in records}
    assert [int(file.name[:4]) for file in records] == list(range(1, len(records) + 1))


def test_every_page_is_in_the_index() -> None:
    index = page("docs/README.md")
    pages = [file.relative_to(ROOT / "docs").as_posix() for file in sorted((ROOT / "docs").glob("*.md"))]

    assert [name for name in pages if name != "README.md" and f"({name})" not in index] == []


def test_the_changelog_tells_of_this_version() -> None:
    version = tomllib.loads(page("pyproject.toml"))["project"]["version"]

    assert re.search(rf"^## \[{re.escape(version)}\]", page("CHANGELOG.md"), re.MULTILINE)


# --- .env.example ---------------------------------------------------------------------------------------------


def variables_of_the_code() -> set[str]:
    """Name what an installation may set: every field of Settings, two folders, and bare keys."""
    keys = {variable for _, variable in _BARE_KEYS.values()}
    return (
        {f"NIGHTBATCH_{field.name.upper()}" for field in fields(Settings)}
        | {"NIGHTBATCH_HOME", "NIGHTBATCH_JOBS"}
        | keys
    )


def example_variables() -> dict[str, str]:
    return dict(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=(.*)$", page(".env.example"), re.MULTILINE))


def test_the_example_explains_every_variable_that_the_code_reads() -> None:
    named = example_variables()

    assert variables_of_the_code() - set(named) == set()
    unknown = {name for name in named if name.startswith("NIGHTBATCH_")} - variables_of_the_code()
    assert unknown == set()
    assert {"VENDORS", "LIMIT"} <= set(named)


def test_the_defaults_in_the_example_are_those_of_the_code() -> None:
    chosen = registry.settings_from({})
    named = example_variables()
    said = {
        field.name: named[f"NIGHTBATCH_{field.name.upper()}"]
        for field in fields(Settings)
        if isinstance(getattr(chosen, field.name), float)
    }

    assert said == {name: f"{getattr(chosen, name):g}" for name in said}
    assert named["NIGHTBATCH_LEDGER_URL"] == chosen.ledger_url
    assert named["NIGHTBATCH_STAGING_URI"] == chosen.staging_uri


def test_every_connection_in_the_example_can_be_read() -> None:
    from nightbatch.adapters.connections import parse_connection

    connections = {name: value for name, value in example_variables().items() if name.startswith("AIRFLOW_CONN_")}
    types = {parse_connection(name, value.strip("'"), variable=name).conn_type for name, value in connections.items()}

    assert {*registry.PROVIDERS, *registry.TABLE_SINKS, "aws", "smtp", "slackwebhook"} <= types


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
