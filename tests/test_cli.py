"""The command line as its user meets it: tables or one JSON object, a sentence for every error, and an exit code."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nightbatch import logs
from nightbatch.cli import app, window_of
from nightbatch.emulator import EmulatorSettings, Faults, running
from nightbatch.errors import JobInvalid

GOOD = """
name: tickets
source: {files: records.jsonl, key: id}
prompt: {user: "{{ text }}"}
models: [{provider: openai, model: gpt-5-mini, connection: openai_default, max_output_tokens: 100}]
sink: {files: answers/}
"""
BAD = """
name: Tickets!
source: {files: records.jsonl, colour: red}
prompt: {user: "{{ text "}
rounds: -1
"""
COMMANDS = ("check", "plan", "try", "run", "diff", "status", "audit", "costs", "release", "migrate", "emulator")
HEAVY = ("airflow", "pandas", "openai", "anthropic", "boto3", "duckdb", "obstore", "pyarrow.parquet", "fastapi")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, without any connection."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN", "NIGHTBATCH", "OPENAI", "ANTHROPIC"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    records = [{"id": f"k{number}", "text": f"text {number}"} for number in range(5)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "tickets.yaml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def vendor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have OpenAI at hand."""
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        yield url


def reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "openai", "host": f"{url}/v1", "password": "sk-emulator"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("NIGHTBATCH_POLL_FROM_S", "0.1")
    monkeypatch.setenv("NIGHTBATCH_POLL_TO_S", "0.2")


def typed(*words: str) -> Result:
    """Type a command."""
    return CliRunner().invoke(app, words)


def subprocess_of(*words: str, **environ: str) -> subprocess.Popen[str]:
    """Type a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nightbatch.cli", *words],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str) -> None:
    assert command in typed("--help").stdout
    process = subprocess_of(command, "--help", COLUMNS="100")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.search(rf"Usage: .*{command}", out)


@pytest.mark.parametrize("words", [("--help",), ("check",), ("status",)])
def test_looking_is_quick_because_nothing_heavy_is_loaded(folder: Path, words: tuple[str, ...]) -> None:
    """What takes seconds to import is imported by the commands that need it."""
    jobs = folder / "include" / "jobs"
    jobs.mkdir(parents=True)
    (folder / "tickets.yaml").rename(jobs / "tickets.yaml")
    never = [*HEAVY, "pyarrow"] if words == ("--help",) else HEAVY
    script = f"""
import sys, time
began = time.process_time()
from nightbatch.cli import app
try:
    app({list(words)!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = [name for name in {never!r} if name in sys.modules]
print(f"{{time.process_time() - began:.2f}} CPU seconds", file=sys.stderr)
sys.exit(f"loaded: {{heavy}}" if heavy else 0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stderr
    print(words, ended.stderr)


# --- check ----------------------------------------------------------------------------------------------------


def test_a_good_job_is_good_although_its_connections_are_elsewhere(folder: Path) -> None:
    ended = typed("check", "tickets.yaml")

    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[0] == "✓ tickets.yaml"
    assert "! connection openai_default: there is none" in ended.stdout


def test_all_problems_of_a_file_are_told_at_once_with_their_lines(folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)

    ended = typed("check", "bad.yaml", "tickets.yaml")

    assert ended.exit_code == 2
    told = re.findall(r"line (\d+): ([\w.]+):", ended.stdout)
    assert {("2", "name"), ("3", "source.colour"), ("4", "prompt.user"), ("5", "rounds")} <= set(told)
    assert "✗ bad.yaml" in ended.stdout
    assert "✓ tickets.yaml" in ended.stdout


def test_a_check_for_machines_is_one_object(folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)

    ended = typed("check", "tickets.yaml", "bad.yaml", "--json")

    told = json.loads(ended.stdout)
    assert (ended.exit_code, told["valid"]) == (2, False)
    assert told["jobs"]["tickets.yaml"]["problems"] == []
    assert len(told["jobs"]["bad.yaml"]["problems"]) >= 4


def test_a_provider_or_price_that_nobody_knows_is_a_problem(folder: Path) -> None:
    (folder / "tickets.yaml").write_text(GOOD.replace("openai,", "opnai,", 1))
    (folder / "dear.yaml").write_text(GOOD.replace("gpt-5-mini", "gpt-99") + "budget_usd: 1\n")

    told = json.loads(typed("check", "tickets.yaml", "dear.yaml", "--json").stdout)["jobs"]

    assert "'opnai' is not known. Use one of: anthropic, openai." in told["tickets.yaml"]["problems"][0]
    assert "gpt-99 is not known" in told["dear.yaml"]["problems"][0]


def test_jobs_that_are_in_each_others_way_are_found(folder: Path) -> None:
    jobs = folder / "include" / "jobs"
    jobs.mkdir(parents=True)
    for name in ("one", "two"):
        (jobs / f"{name}.yaml").write_text(GOOD)

    ended = typed("check")

    assert ended.exit_code == 2
    assert "✓ include/jobs/one.yaml" in ended.stdout
    assert "name: tickets belongs to one.yaml already" in ended.stdout


@pytest.mark.parametrize("command", ["check", "plan", "try", "run"])
def test_a_file_that_is_not_there_is_said_to_be_and_a_near_one_named(folder: Path, command: str) -> None:
    ended = typed(command, "tickts.yaml")

    assert ended.exit_code == 2
    assert "Did you mean tickets.yaml?" in ended.output


@pytest.mark.parametrize("command", ["check", "plan", "try", "run"])
def test_a_job_may_be_named_and_an_unknown_name_says_which_there_are(folder: Path, command: str) -> None:
    jobs = folder / "include" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "tickets.yaml").write_text(GOOD)
    (jobs / "mails.yaml").write_text(GOOD.replace("tickets", "mails"))

    ended = typed(command, "ticket")

    assert ended.exit_code == 2
    assert "Did you mean tickets? There are: mails, tickets." in ended.output
    assert typed("check", "tickets").exit_code == 0


def test_a_project_without_jobs_asks_for_one(folder: Path) -> None:
    ended = typed("check")

    assert ended.exit_code == 2
    assert "there are no job files in include/jobs" in ended.output


# --- plan, try, run, status -----------------------------------------------------------------------------------


def test_a_plan_says_what_a_run_would_cost(vendor: str) -> None:
    ended = typed("plan", "tickets.yaml")
    told = json.loads(typed("plan", "tickets.yaml", "--json").stdout)

    assert ended.exit_code == 0
    assert "5 in 1 shard, " in ended.stdout
    assert (told["counts"]["requests"], told["shards"], told["price_source"][:12]) == (5, 1, "genai-prices")
    assert 0 < float(told["expected_usd"]) <= float(told["worst_usd"]) < float(told["realtime_worst_usd"])


def test_a_try_shows_prompt_answer_verdict_and_cost(vendor: str) -> None:
    ended = typed("try", "tickets.yaml", "-n", "2")
    told = json.loads(typed("try", "tickets.yaml", "-n", "2", "--json").stdout)

    assert ended.exit_code == 0
    assert [line in ended.stdout for line in ("1. k0", "text 0", "→ text 0", "good")] == [True] * 4
    assert [(it["key"], it["user"], it["answer"], it["verdict"]) for it in told["trials"]] == [
        ("k0", "text 0", "text 0", "good"),
        ("k1", "text 1", "text 1", "good"),
    ]


def test_a_run_shows_its_books_and_status_tells_them_again(vendor: str) -> None:
    ended = typed("run", "tickets.yaml")
    books = json.loads(typed("run", "tickets.yaml", "--json").stdout)
    status = typed("status")
    told = json.loads(typed("status", "tickets", "--json").stdout)

    assert ended.exit_code == 0
    assert re.search(r"^tickets/\S+/g1: complete$", ended.stdout, re.MULTILINE)
    assert re.search(r"Loaded\s*│ 5 ", ended.stdout)
    assert "prepare: 5 records, 5 requests" in ended.stderr
    assert "round 0: 1/1 shards" in ended.stderr
    assert (books["state"], books["merged"], books["batches"]) == ("complete", 5, 1)
    assert "5 pulled, 5 loaded" in status.stdout
    assert books.pop("closed_before")["state"] == "complete"
    assert told["runs"][0]["books"] == books


def test_a_window_that_is_complete_says_that_nothing_was_sent_and_whether_the_job_is_another_one(
    folder: Path, vendor: str
) -> None:
    first = json.loads(typed("run", "tickets.yaml", "--json").stdout)
    same, same_plan = typed("run", "tickets.yaml"), typed("plan", "tickets.yaml")
    (folder / "tickets.yaml").write_text(GOOD.replace("{{ text }}", "Now: {{ text }}").replace("answers/", "others/"))
    other, plan = typed("run", "tickets.yaml"), typed("plan", "tickets.yaml")
    told, planned = (json.loads(typed(word, "tickets.yaml", "--json").stdout) for word in ("run", "plan"))
    model = json.loads(typed("plan", "tickets.yaml", "--model", "gpt-5-nano", "--json").stdout)
    forced = json.loads(typed("run", "tickets.yaml", "--force", "--json").stdout)

    assert first["closed_before"] is None
    sentence = r"this window has been complete since 20\d\d-\d\d-\d\d \d\d:\d\d UTC; nothing was sent\."
    assert re.search(f"^{sentence}$", same.stdout, re.MULTILINE)
    assert re.search(r"complete since .* UTC; `nightbatch run` sends nothing\.$", same_plan.stdout, re.MULTILINE)
    changed = r" The job file has changed since \(prompt, sink\): `--force` plans it anew\."
    assert re.search(f"^{sentence}{changed}$", other.stdout, re.MULTILINE)
    assert re.search(f"`nightbatch run` sends nothing\\.{changed}$", plan.stdout, re.MULTILINE)
    assert (other.exit_code, told["merged"], told["closed_before"]["job_changed"]) == (0, 5, ["prompt", "sink"])
    assert told["closed_before"] == planned["closed_before"]
    assert model["closed_before"]["job_changed"] == ["prompt", "models", "sink"]
    assert (forced["closed_before"], forced["requests"]) == (None, 5)


def test_a_window_that_failed_says_that_the_changed_job_was_not_used(folder: Path, vendor: str) -> None:
    (folder / "records.jsonl").write_text('{"id": null, "text": "none"}\n{"id": "k1", "text": "hello"}\n')
    (folder / "tickets.yaml").write_text(GOOD + "max_dead_share: 0.1\n")
    first = typed("run", "tickets.yaml")
    (folder / "tickets.yaml").write_text(GOOD + "max_dead_share: 0.9\n")
    again, told = typed("run", "tickets.yaml"), typed("run", "tickets.yaml", "--json")

    assert (first.exit_code, again.exit_code, "this window has been" in first.stdout) == (1, 1, False)
    assert re.search(
        r"failed since .*; nothing was sent\. The job file has changed since \(max_dead_share\)", again.stdout
    )
    assert json.loads(told.stdout)["closed_before"]["job_changed"] == ["max_dead_share"]


def test_a_run_imports_only_what_it_uses(vendor: str) -> None:
    """pandas alone is a second of CPU and 45 MB, and pyarrow imports it where a list becomes an array."""
    script = """
import sys
from nightbatch.cli import app
try:
    app(["run", "tickets.yaml"])
except SystemExit as ended:
    print(ended.code, sorted({"airflow", "anthropic", "boto3", "duckdb", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_first_look_is_bounded(vendor: str) -> None:
    assert json.loads(typed("run", "tickets.yaml", "--limit", "2", "--json").stdout)["pulled"] == 2


def test_a_forced_run_sends_again_only_with_refresh(vendor: str) -> None:
    typed("run", "tickets.yaml")

    forced = json.loads(typed("run", "tickets.yaml", "--force", "--json").stdout)
    refreshed = json.loads(typed("run", "tickets.yaml", "--force", "--refresh", "--json").stdout)

    assert (forced["unchanged"], forced["requests"]) == (5, 0)
    assert (refreshed["unchanged"], refreshed["requests"]) == (0, 5)


def test_a_run_that_is_not_complete_shows_its_books_and_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tickets.yaml").write_text(GOOD + "rounds: 0\n")
    with running(EmulatorSettings(faults=Faults.parse("transient=1, fault_attempts=0"))) as url:
        reach(url, monkeypatch)
        ended = typed("run", "tickets.yaml")
        status = typed("status")
        told = typed("run", "tickets.yaml", "--json")

    assert (ended.exit_code, told.exit_code) == (1, 1)
    assert re.search(r"Pending\s*│ 5 ", ended.stdout)
    assert "RunIncomplete run tickets/" in ended.stderr
    assert "pending rows go with the job's next run" in status.stdout
    error = json.loads(told.stdout)
    assert (error["error"], error["books"]["pending"]) == ("RunIncomplete", {"transient_error": 5})


def test_a_job_that_never_ran_is_told_from_an_empty_ledger(vendor: str) -> None:
    empty = typed("status")
    typed("run", "tickets.yaml")
    unknown = typed("status", "ticket")
    for_machines = typed("status", "ticket", "--json")
    (run,) = json.loads(typed("status", "tickets", "--json").stdout)["runs"]
    by_name = typed("status", run["run"])

    assert (empty.exit_code, "no runs in this ledger yet" in empty.stdout) == (0, True)
    assert (unknown.exit_code, for_machines.exit_code, by_name.exit_code) == (2, 2, 0)
    assert "there is no run or job 'ticket' in this ledger" in unknown.stderr
    assert "Jobs with runs: tickets." in json.loads(for_machines.stdout)["message"]
    assert run["run"] in by_name.stdout


def test_migrate_makes_the_ledger(folder: Path) -> None:
    ended = typed("migrate")

    assert re.fullmatch(r"ledger [0-9a-f]{32} is up to date\n", ended.stdout)
    assert (folder / ".nightbatch" / "ledger.sqlite").exists()


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "words", "code", "said"),
    [
        ({}, ("run", "tickets.yaml"), 2, "connection openai_default: there is none"),
        ({"OPENAI_API_KEY": "k"}, ("run", "tickets.yaml", "--from", "soon"), 2, "'soon' is no ISO 8601 time"),
        (
            {"OPENAI_API_KEY": "k"},
            ("plan", "tickets.yaml", "--from", "2026-02-02", "--to", "2026-02-01"),
            2,
            "Give a --to that is after --from.",
        ),
        ({"NIGHTBATCH_LEDGER_URL": "postgresql://u:secret@127.0.0.1:1/x"}, ("status",), 75, "cannot be reached"),
        ({"NIGHTBATCH_LEDGER_URL": "mysql://u:secret@h/x"}, ("status",), 2, "ledger"),
        ({"NIGHTBATCH_POLL_FROM_S": "often"}, ("status",), 2, "'often' is not a number"),
    ],
)
def test_every_error_is_a_sentence_and_an_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: tuple[str, ...], code: int, said: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    ended, machine = typed(*words), typed(*words, "--json")

    assert (ended.exit_code, machine.exit_code) == (code, code)
    assert said in ended.stderr
    assert ended.stdout == ""
    assert said in json.loads(machine.stdout)["message"]
    for text in (ended.output, machine.output):
        assert "Traceback" not in text
        assert "secret" not in text


def test_what_nobody_foresaw_is_a_sentence_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightbatch.cli.find_job", lambda _: 1 / 0)

    ended = typed("run", "tickets.yaml")

    assert ended.exit_code == 70
    assert ended.stderr.startswith("Unexpected ZeroDivisionError: division by zero.")
    assert isinstance(typed("run", "tickets.yaml", "--verbose").exception, ZeroDivisionError)


def test_ctrl_c_says_that_nothing_is_lost_and_the_next_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(EmulatorSettings(batch_seconds=3)) as url:
        reach(url, monkeypatch)
        process = subprocess_of("run", "tickets.yaml", "-v")
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "looks again at" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        status = typed("status")
        books = json.loads(typed("run", "tickets.yaml", "--json").stdout)

    assert process.returncode == 130, lines
    assert err.endswith(
        "Stopped Batches that were sent go on at the vendor; run the same command again to collect them.\n"
    )
    assert "Traceback" not in err
    assert re.search(r"waits for\s+openai batch_\w+ for \d+ s", status.stdout)
    assert (books["state"], books["batches"]) == ("complete", 1)


def test_ctrl_c_does_not_speak_of_batches_where_none_was_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach("http://127.0.0.1:9", monkeypatch)
    process = subprocess_of("run", "tickets.yaml")
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "no connection to http://127.0.0.1:9 (connection openai_default): is it up?" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, lines
    assert err.splitlines()[-1].startswith("Stopped No batch of this window is at the vendor; run the same command")


# --- what is written ------------------------------------------------------------------------------------------


def test_without_a_terminal_no_control_character_is_written(vendor: str) -> None:
    for words in (("check", "tickets.yaml"), ("plan", "tickets.yaml"), ("run", "tickets.yaml", "-v"), ("status",)):
        out, err = subprocess_of(*words).communicate(timeout=60)
        assert not set(re.findall(r"[^\n\t\x20-\U0010ffff]", out + err)), words


def test_every_log_line_of_a_run_says_what_it_is_about(vendor: str) -> None:
    ended = typed("run", "tickets.yaml", "-v")

    lines = [line for line in ended.stderr.splitlines() if re.match(r"\d\d:\d\d:\d\d INFO", line)]
    run = r"\[job=tickets run=tickets/\w+-\w+/g1"
    assert lines
    assert [line for line in lines if not re.search(run, line)] == []
    steps = {step: line for line in lines if (step := line.split(maxsplit=2)[2].partition(":")[0])}
    assert list(steps) == ["prepare", "submit", *(["wait"] if "wait" in steps else []), *LATER_STEPS]
    for step in ("submit", "collect", "validate", "load"):
        assert re.search(rf"{run} shard=r0-s000 batch=batch_\w+\]", steps[step]), steps[step]


LATER_STEPS = ["collect", "validate", "load", "discard", "retry", "settle"]


def test_without_verbose_only_warnings_are_shown(vendor: str) -> None:
    assert "INFO" not in typed("run", "tickets.yaml").stderr


def test_ids_stand_last_and_end_with_their_block_and_a_percent_sign_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logs.logger("nightbatch.test")
    with caplog.at_level(logging.INFO, "nightbatch.test"):
        with logs.about(job="j", run=None), logs.about(batch="100%d"):
            log.info("inside %d", 1)
        log.info("outside")

    assert caplog.messages == ["inside 1 [job=j batch=100d]", "outside"]


def test_long_names_are_shown_whole_on_a_narrow_terminal(vendor: str, folder: Path) -> None:
    """As on a terminal of 80 columns: what is cut there cannot be copied."""
    name = "a_job_whose_name_has_forty_characters_xx"
    (folder / "long.yaml").write_text(GOOD.replace("tickets", name))
    environ = {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1"}
    out, _ = subprocess_of("run", "long.yaml", **environ).communicate(timeout=60)
    shown, _ = subprocess_of("status", **environ).communicate(timeout=60)

    plain = re.sub(r"\x1b\[[0-9;]*m", "", out + shown)
    assert len(re.findall(rf"{name}/\w+-\w+/g1", plain)) == 2
    assert "…" not in plain


# --- windows --------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        (None, None, "2026-11-21 00:00 to 2026-11-22 00:00 UTC"),
        ("2026-11-01", None, "2026-11-01 00:00 to 2026-11-02 00:00 UTC"),
        (None, "2026-11-03", "2026-11-02 00:00 to 2026-11-03 00:00 UTC"),
        ("2026-11-01T02:00+02:00", "2026-11-01T06:00", "2026-11-01 00:00 to 2026-11-01 06:00 UTC"),
    ],
)
def test_a_window_is_yesterday_or_what_was_asked_for(start: str | None, end: str | None, window: str) -> None:
    assert str(window_of(start, end, now=NOW)) == window


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(JobInvalid, match="Give a --to that is after --from"):
        window_of("2026-11-02", "2026-11-01", now=NOW)


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_what_http_clients_say_of_each_call_does_not_bury_the_log_of_a_run(
    client: str, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = logging.getLogger(client)
    with caplog.at_level(logging.INFO, client):
        theirs.info("somebody else's call")
        with logs.about(job="j"):
            theirs.info("our call")
            theirs.warning("our trouble")
            with caplog.at_level(logging.DEBUG, client):
                theirs.info("our call, asked for")

    assert caplog.messages == ["somebody else's call", "our trouble", "our call, asked for"]
