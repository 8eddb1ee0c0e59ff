"""What a monitor is told: the same numbers as the ledger's, once a fact, and nothing of what records say."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from nightbatch import flow
from nightbatch.adapters.memory_telemetry import MemoryTelemetry
from nightbatch.core import metrics
from nightbatch.core.queue import Kind, Limit, QueueRules
from nightbatch.core.result import ErrorKind, Outcome, Result
from nightbatch.errors import ProviderBusy, RunIncomplete
from nightbatch.steps.absence import Sighting
from nightbatch.steps.settle import Books
from nightbatch.steps.telemetry import tell_standing
from nightbatch.steps.wait import wait
from tests.memory_stack import NIGHT, KillAt, Killed, Stack, job_of
from tests.steps.shards import answered, opened, stack_of

RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
LANE = {"job_name": "reviews", "provider": "openai", "model": "echo-1", "lane": "c/batch"}


def mixed(messages, times):
    """Answer well but for one row that expires once, one that fails for good, and one that is not sent at all."""
    if messages.user == "text 1" and times == 0:
        return Result("", Outcome.EXPIRED)
    if messages.user == "text 2":
        return Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="400")
    return answered(messages.user)


def told_of(stack: Stack, telemetry: MemoryTelemetry) -> Books:
    return flow.run(stack.ports(telemetry=telemetry), job_of(), NIGHT)


def check_against_books(telemetry: MemoryTelemetry, books: Books) -> None:
    """Compare every figure that the books know too."""
    told = telemetry.sums
    records = {name: getattr(books, name) for (name,) in told(metrics.RECORDS, "what")}
    assert told(metrics.RECORDS, "what") == {(name,): count for name, count in records.items()}
    assert told(metrics.BATCHES) == {(): books.batches}
    assert told(metrics.VERDICTS, "kind")["good",] == books.good
    assert told(metrics.ROWS_LOADED) == {(): books.merged}
    assert told(metrics.ROWS_AGAIN, "reason") == {(reason,): count for reason, count in books.sent_again.items()}
    assert sum(told(metrics.ROWS_DEAD).values()) == books.dead_rows
    assert sum(told(metrics.ROWS_PENDING).values()) == books.pending_rows
    tokens = {("input",): books.input_tokens, ("output",): books.output_tokens}
    assert told(metrics.TOKENS, "what") == tokens
    assert Decimal(str(told(metrics.COST)[()])) == books.cost_usd
    assert Decimal(str(told(metrics.REALTIME)[()])) == books.realtime_usd


def test_every_figure_is_the_ledgers_own() -> None:
    stack, telemetry = Stack([*RECORDS, ("twin", "text 3"), ("twin of a dead one", "text 2")]), MemoryTelemetry()
    stack.vendor.answer = mixed

    books = told_of(stack, telemetry)

    check_against_books(telemetry, books)
    assert (books.dead_rows, books.merged, books.requests) == (2, 8, 8)
    assert telemetry.sums(metrics.RUNS, "state") == {("complete",): 1}
    assert telemetry.sums(metrics.ROWS_DEAD, "reason") == {("invalid_request",): 1, ("copy",): 1}
    lanes = [labels for name, _, labels in telemetry.figures if name == "nightbatch.cost_usd"]
    assert all(labels == LANE for labels in lanes)
    assert set(telemetry.steps) == {f"nightbatch.{step}" for step in STEPS}


STEPS = ("prepare", "submit", "collect", "validate", "load", "retry", "settle")


def test_a_run_again_tells_nothing_again() -> None:
    stack, telemetry = Stack(RECORDS), MemoryTelemetry()
    told_of(stack, telemetry)
    again = MemoryTelemetry()

    told_of(stack, again)

    assert again.figures == []
    assert again.spans == []


SHORT = {
    "seal": {"nightbatch.records"},
    "note_open": {"nightbatch.batches", "nightbatch.rows_sent"},
    "note_collected": {
        "nightbatch.verdicts",
        "nightbatch.tokens",
        "nightbatch.cost_usd",
        "nightbatch.cost_realtime_usd",
    },
    "note_loaded": {"nightbatch.rows_loaded"},
    "settle": {"nightbatch.runs", "nightbatch.run_duration"},
}
"""What stays untold where a process dies right after this commit; the shard's later figures are told all the same."""


def sums_of(telemetry: MemoryTelemetry) -> dict[str, float]:
    """Add all counters up."""
    counters = [metric for metric in metrics.METRICS if metric.kind is not metrics.Kind.GAUGE]
    times = (metrics.TURNAROUND, metrics.QUEUE_WAIT)
    return {metric.name: sum(telemetry.sums(metric).values()) for metric in counters if metric not in times}


@pytest.mark.parametrize("call", SHORT)
def test_a_run_that_is_killed_and_run_again_tells_nothing_twice_and_only_the_fact_it_died_of_never(call: str) -> None:
    """A process may die between a commit and the telling: a figure may be short of the ledger, never above it."""
    calm, whole = Stack(RECORDS[:2]), MemoryTelemetry()
    stack, telemetry = Stack(RECORDS[:2]), MemoryTelemetry()
    calm.vendor.answer = stack.vendor.answer = mixed
    counting = KillAt(calm.ledger, 0, "after")
    flow.run(calm.ports(telemetry=whole, ledger=counting), job_of(), NIGHT)
    dying = KillAt(stack.ledger, 1 + counting.names.index(call), "after")
    with pytest.raises(Killed):
        flow.run(stack.ports(telemetry=telemetry, ledger=dying), job_of(), NIGHT)

    told_of(stack, telemetry)

    told, expected = sums_of(telemetry), sums_of(whole)
    assert {name for name, total in expected.items() if told[name] < total} <= SHORT[call]
    assert [name for name, total in expected.items() if told[name] > total] == []
    assert told != expected


def test_a_batch_is_one_span_from_its_creation_to_its_end_in_the_words_of_the_conventions() -> None:
    stack, telemetry = Stack(RECORDS[:2]), MemoryTelemetry()
    stack.provider.ends_at_once = False
    ports, job = stack.ports(telemetry=telemetry), job_of()
    plan = flow.prepare(ports, job, NIGHT)
    flow.advance(ports, job, plan.shards[0].ref)
    made = stack.clock.now()
    stack.clock.advance(timedelta(hours=3))
    stack.vendor.end("batch_0")

    flow.advance(ports, job, plan.shards[0].ref)

    ((name, start, end, attributes),) = telemetry.spans
    assert (name, start, end) == ("chat echo-1", made, made + timedelta(hours=3))
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["gen_ai.request.model"] == "echo-1"
    assert attributes["gen_ai.request.max_tokens"] == 100
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (20, 10)
    assert (attributes["nightbatch.batch.id"], attributes["nightbatch.rows"]) == ("batch_0", 2)
    assert "text 0" not in str(telemetry.spans) + str(telemetry.figures)
    ((_, taken_s, _),) = [figure for figure in telemetry.figures if figure[0] == "nightbatch.batch_turnaround"]
    assert taken_s == 3 * 3600


def test_names_of_genai_attributes_are_those_of_the_conventions() -> None:
    """The package calls all of them deprecated since they moved to a repository of their own; the names stand."""
    stack, telemetry = Stack(RECORDS[:1]), MemoryTelemetry()
    told_of(stack, telemetry)

    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ((_, _, _, attributes),) = telemetry.spans
    assert {name for name in attributes if name.startswith("gen_ai.")} <= known


def test_a_shard_that_waits_in_line_tells_for_how_long() -> None:
    stack, telemetry = stack_of(6), MemoryTelemetry()
    stack.provider.ends_at_once = False
    stack.provider.queue = QueueRules((Limit(Kind.BATCHES, 1),))
    ports, job = stack.ports(telemetry=telemetry), job_of()
    first, second = flow.prepare(ports, job, NIGHT).shards
    flow.advance(ports, job, first.ref)
    flow.advance(ports, job, second.ref)
    stack.clock.advance(timedelta(minutes=7))
    stack.vendor.end("batch_0")
    flow.advance(ports, job, first.ref)

    flow.advance(ports, job, second.ref)

    waits = [value for name, value, _ in telemetry.figures if name == "nightbatch.queue_wait"]
    assert waits == [0, 7 * 60]


def test_a_look_that_fails_is_told_by_the_name_of_its_error() -> None:
    stack, telemetry = stack_of(1), MemoryTelemetry()
    shard = opened(stack)

    def busy(_batch_id):
        raise ProviderBusy("openai", "polling", cause="503")

    stack.provider.poll = busy

    with pytest.raises(ProviderBusy):
        wait(stack.ports(telemetry=telemetry), shard)

    assert telemetry.figures == [("nightbatch.poll_errors", 1, {**LANE, "error": "ProviderBusy"})]


def test_one_process_tells_the_age_of_its_oldest_batch_and_nought_when_all_are_done() -> None:
    stack, telemetry = stack_of(6), MemoryTelemetry()
    stack.provider.ends_at_once = False
    started = stack.clock.now()
    real = stack.clock.sleep

    def sleep(seconds):
        real(seconds)
        if stack.clock.now() - started > timedelta(minutes=10):
            stack.provider.ends_at_once = True

    stack.clock.sleep = sleep

    told_of(stack, telemetry)

    ages = [value for name, value, _ in telemetry.figures if name == "nightbatch.batch_age"]
    assert 500 < max(ages) < 700
    assert ages[-1] == 0


def test_a_row_that_was_left_pending_is_told_and_so_is_the_run() -> None:
    stack, telemetry = Stack(RECORDS[:2]), MemoryTelemetry()
    stack.vendor.answer = lambda messages, times: Result("", Outcome.EXPIRED)

    with pytest.raises(RunIncomplete):
        told_of(stack, telemetry)

    assert telemetry.sums(metrics.ROWS_PENDING, "reason") == {("expired",): 2}
    assert telemetry.sums(metrics.RUNS, "state") == {("incomplete",): 1}
    assert [name for name, _, _ in telemetry.figures if name == "nightbatch.run_duration"] == []


def test_the_watchdogs_figures_say_what_it_sees() -> None:
    telemetry = MemoryTelemetry()
    sighting = Sighting(job_of(schedule="0 0 * * *"), fresh_until=NIGHT.end)

    tell_standing(telemetry, [sighting], now=NIGHT.end + timedelta(hours=5))

    labels = {"job_name": "reviews"}
    assert telemetry.figures == [
        ("nightbatch.windows_missing", 0, labels),
        ("nightbatch.answers_age", 5 * 3600, labels),
    ]
