"""What every provider promises; a new one is run through this file unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib import import_module

import httpx2
import pytest
from tests.benches.emulated import KEY, NEXT_KEY, EmulatedBench

from nightbatch.adapters import registry
from nightbatch.core.batch import BatchStatus
from nightbatch.core.money import Usage
from nightbatch.core.request import Messages
from nightbatch.core.result import Outcome
from nightbatch.errors import (
    AccountTrouble,
    CreateUnclear,
    NightbatchError,
    ProviderBusy,
    QueueFull,
    RequestRefused,
)
from nightbatch.steps.lanes import body_of

LOST_REPLIES = [
    "create_timeout_after_success=1, hang_seconds=5",
    "create_reset_after_success=1",
    "create_500_after_success=1",
    "create_529_after_success=1",
    "garbled=1, on=create_batch",
]
REFUSALS = [
    ("http_429=1, http_429_retry_after=7, on=create_batch", ProviderBusy),
    ("http_401=1, on=create_batch", AccountTrouble),
    ("credit_error_requests=1, on=create_batch", AccountTrouble),
    ("token_limit_at_create=1", (QueueFull, ProviderBusy)),
]


@pytest.fixture(scope="module", params=sorted(registry.PROVIDERS))
def bench(request):
    bench: EmulatedBench = import_module(f"tests.benches.{request.param}").Bench()
    yield bench
    bench.close()


@pytest.fixture
def shard(bench, request):
    """A shard of this test alone: its run, its words and its number of rows belong to no other test."""
    name = request.node.name
    return bench.shard(30 + next(bench.numbers), run=name, words=name)


def test_a_submitted_shard_is_found(bench, shard):
    provider = bench.provider()

    state = bench.create(provider, shard)

    assert state.batch_id in bench.found(provider, shard)
    assert state.status is BatchStatus.RUNNING


def test_another_attempt_is_not_taken_for_this_one(bench, shard):
    provider = bench.provider()
    bench.create(provider, shard)

    if provider.found_by == "label":
        assert bench.found(provider, shard, attempt=2) == []
        assert bench.found(provider, shard, ledger="1" * 32) == []
    assert bench.found(provider, bench.shard(777, run="never sent")) == []


@pytest.mark.parametrize("faults", LOST_REPLIES)
def test_a_lost_create_reply_is_unclear_and_the_batch_is_found(bench, shard, faults):
    hasty = bench.provider(faults=faults, request_timeout_s=0.5)

    with pytest.raises(CreateUnclear):
        bench.create(hasty, shard)

    assert len(bench.found(bench.provider(), shard)) == 1


@pytest.mark.parametrize(("faults", "error"), REFUSALS)
def test_a_refused_create_makes_nothing(bench, shard, faults, error):
    before = bench.creations()
    provider = bench.provider(faults=faults)

    with pytest.raises(error) as told:
        bench.create(provider, shard)

    assert bench.creations() == before
    assert bench.found(bench.provider(), shard) == []
    if isinstance(told.value, ProviderBusy) and "retry_after" in faults:
        assert told.value.retry_after_s == 7


def test_a_malformed_request_is_refused_for_good_and_makes_nothing(bench, shard):
    before, provider = bench.creations(), bench.provider()
    broken = type(shard)(shard.label, (b"this is no request\n",))

    with pytest.raises(RequestRefused):
        bench.create_from(provider, broken, "file-that-is-not-there" if provider.found_by == "label" else None)

    assert bench.creations() == before


def test_a_dead_address_makes_nothing_for_certain(bench, shard):
    provider = bench.provider(url="http://127.0.0.1:9")

    with pytest.raises(ProviderBusy):
        bench.create_from(provider, shard, "file-1")


def test_a_body_that_breaks_off_makes_nothing(bench, shard):
    """The store fails while a shard is being sent: the error is the store's, and no batch comes of half a body."""

    def broken():
        yield shard.lines[0]
        raise OSError("the store is gone")

    before, provider = bench.creations(), bench.provider()
    with pytest.raises(OSError, match="the store is gone"):
        file_id = provider.upload(broken(), size_bytes=shard.size_bytes, name="x.jsonl")
        provider.create(file_id=file_id, lines=broken(), endpoint=bench.spec.endpoint, label=shard.label)

    assert bench.creations() == before


def test_a_body_that_takes_too_long_is_broken_off(bench, shard):
    """After the send deadline and the timeout nothing may arrive any more: proofs of absence rest on it."""
    seen = []
    provider = bench.on(httpx2.MockTransport(seen.append), request_timeout_s=1e-9)

    with pytest.raises(ProviderBusy):
        file_id = provider.upload(iter(shard.lines), size_bytes=shard.size_bytes, name="x.jsonl")
        provider.create(file_id=file_id, lines=iter(shard.lines), endpoint=bench.spec.endpoint, label=shard.label)

    assert seen == []


def test_every_row_comes_back_once_whatever_became_of_it(bench, shard):
    provider = bench.provider(faults="permanent=0.2, transient=0.1, expired=0.2, shuffle=1, u2028=0.3")

    state = bench.ended(provider, bench.create(provider, shard).batch_id)
    rows = list(bench.rows(provider, state))

    assert Counter(result.custom_id for _, result in rows) == Counter(shard.custom_ids)
    outcomes = Counter(result.outcome for _, result in rows)
    assert set(outcomes) == {Outcome.ANSWERED, Outcome.ERRORED, Outcome.EXPIRED}
    assert all(result.error_kind is not None for _, result in rows if result.outcome is Outcome.ERRORED)
    answered = [result for _, result in rows if result.outcome is Outcome.ANSWERED]
    assert all(result.text and result.usage.output_tokens and result.model for result in answered)


def test_a_batch_s_own_total_is_the_sum_of_its_rows_where_the_vendor_gives_one(bench, shard):
    provider = bench.provider(faults="permanent=0.2, transient=0.1, expired=0.2, duplicate=0.2")

    state = bench.ended(provider, bench.create(provider, shard).batch_id)

    rows = {result.custom_id: result.usage for _, result in bench.rows(provider, state)}
    assert state.usage == (sum(rows.values(), Usage()) if provider.name == "openai" else None)


def test_both_result_files_are_read_where_there_are_two(bench, shard):
    provider = bench.provider(faults="permanent=0.3")
    state = bench.ended(provider, bench.create(provider, shard).batch_id)

    names = {name for name, _ in bench.rows(provider, state)}

    assert names == ({"output", "error"} if provider.found_by == "label" else {"results"})


def test_a_batch_of_nothing_but_errors_is_read_too(bench, shard):
    provider = bench.provider(faults="permanent=1, blank_file_id=1")
    state = bench.ended(provider, bench.create(provider, shard).batch_id)

    assert {result.custom_id for _, result in bench.rows(provider, state)} == shard.custom_ids


def test_a_download_that_breaks_off_is_told_and_never_taken_for_the_whole_file(bench, shard):
    provider = bench.provider()
    state = bench.ended(provider, bench.create(provider, shard).batch_id)

    with pytest.raises(ProviderBusy):
        list(bench.rows(bench.provider(faults="truncated_download=1"), state))


def test_an_unknown_batch_is_not_found_and_no_error(bench):
    assert bench.provider().poll("batch_that_never_was").status is BatchStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("faults", "look"),
    [
        ("http_5xx=9", "find"),
        ("reset=9", "poll"),
        ("garbled=9", "find"),
        ("garbled=9", "poll"),
        ("garbled=9", "account"),
    ],
)
def test_what_could_not_be_read_is_never_taken_for_absent(bench, shard, faults, look):
    batch_id = bench.create(bench.provider(), shard).batch_id
    provider = bench.provider(faults=faults)
    looks = {
        "find": lambda: bench.found(provider, shard),
        "poll": lambda: provider.poll(batch_id),
        "account": provider.account,
    }

    with pytest.raises(ProviderBusy):
        looks[look]()


def test_a_new_batch_that_is_not_known_yet_is_not_found(bench, shard):
    batch_id = bench.create(bench.provider(faults="not_found_seconds=60"), shard).batch_id

    assert bench.provider().poll(batch_id).status is BatchStatus.NOT_FOUND


def test_a_queue_that_is_full_after_validation_is_no_bad_data(bench, shard):
    """Only vendors that validate after the create can say it so late; the others take the batch."""
    provider = bench.provider(faults="token_limit_after_validation=1")

    state = bench.ended(provider, bench.create(provider, shard).batch_id)

    assert state.queue_full == (provider.found_by == "label")


def test_no_sdk_is_loaded_to_encode_and_parse(bench):
    """A task that only renders or judges must not pay seconds of imports for a vendor it does not call."""
    code = (
        f"import sys; from tests.benches.{bench.name} import Bench; bench = object.__new__(Bench);"
        "from nightbatch.ports import Connection;"
        f"provider = bench.opened(Connection('c', '{bench.name}', password='k'));"
        "provider.encoder(bench.spec);"
        f"sys.exit('{bench.name}' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_looks_over_one_connection_share_one_client(bench):
    one, other, elsewhere = bench.provider(), bench.provider(), bench.provider(key=NEXT_KEY)

    assert one._calls._client is other._calls._client
    assert one._calls._client is not elsewhere._calls._client


def test_an_unknown_status_counts_as_unknown(bench):
    provider = bench.on(httpx2.MockTransport(lambda _: httpx2.Response(200, json=bench.unknown_status)))

    state = provider.poll("batch_1")

    assert (state.status, state.vendor_status) == (BatchStatus.UNKNOWN, "pondering")


def test_the_account_is_the_same_under_a_rotated_key(bench):
    assert bench.provider(key=KEY).account() == bench.provider(key=NEXT_KEY).account()
    assert "org-bench" in bench.provider().account()


def test_without_a_reported_account_the_declared_name_counts(bench):
    empty = {"object": "list", "data": [], "has_more": False}
    silent = bench.on(httpx2.MockTransport(lambda _: httpx2.Response(200, json=empty)))

    assert silent.account() == "bench"


def test_a_withdrawn_file_makes_a_late_create_fail(bench, shard):
    provider = bench.provider()
    file_id = provider.upload(iter(shard.lines), size_bytes=shard.size_bytes, name="r0-s000.jsonl")
    before = bench.creations()
    if file_id is None:
        provider.withdraw("nothing")  # No files at this vendor: withdrawing is harmless, and guards nothing.
        return

    provider.withdraw(file_id)
    provider.withdraw(file_id)

    with pytest.raises(RequestRefused):
        bench.create_from(provider, shard, file_id)
    assert bench.creations() == before


def test_a_cancelled_batch_ends_and_its_rows_can_be_read(bench, shard):
    provider = bench.provider(faults="stuck=in_progress")
    batch_id = bench.create(provider, shard).batch_id

    provider.cancel(batch_id)

    state = bench.ended(provider, batch_id)
    told = {result.custom_id for _, result in bench.rows(provider, state)}
    assert told <= shard.custom_ids


def test_a_real_time_answer_reads_like_a_row(bench):
    provider = bench.provider()
    body = body_of(provider.encoder(bench.spec), Messages("", "hello"))

    result = provider.ask(body, endpoint=bench.spec.endpoint)

    assert (result.outcome, result.text) == (Outcome.ANSWERED, "hello")


def test_the_link_leads_to_the_vendor_and_holds_no_key(bench):
    assert bench.provider().batch_url("batch_1") == bench.url
    assert KEY not in bench.provider(url="https://api.example.com").batch_url("batch_1")


def test_no_error_tells_the_key(bench, shard):
    refusal = {"error": {"type": "authentication_error", "message": f"Incorrect API key provided: {KEY}"}}
    for status in (400, 401, 403, 404, 413, 429, 500):
        reply = httpx2.Response(status, json=refusal)
        provider = bench.on(httpx2.MockTransport(lambda _, reply=reply: reply))
        with pytest.raises(NightbatchError) as told:
            bench.create_from(provider, shard, "file-1")
        assert KEY not in str(told.value)


def test_a_create_is_sent_once_whatever_comes_back(bench, shard):
    """The SDKs repeat by themselves unless they are told not to; each repeat could be paid."""
    for reply in (httpx2.Response(500), httpx2.Response(429), httpx2.Response(409), httpx2.Response(307)):
        sent = []

        def vendor(request, reply=reply, sent=sent):
            sent.append(request.url.path)
            return reply

        with pytest.raises(NightbatchError):
            bench.create_from(bench.on(httpx2.MockTransport(vendor)), shard, "file-1")
        assert len(sent) == 1


def test_a_listing_that_breaks_off_is_an_error(bench, shard):
    def vendor(request):
        if any(name.startswith("after") for name in request.url.params):
            return httpx2.Response(404, json={"error": {"message": "gone"}})
        return httpx2.Response(200, json={"data": [bench.just_now], "has_more": True})

    with pytest.raises(ProviderBusy):
        bench.found(bench.on(httpx2.MockTransport(vendor)), shard)


@pytest.mark.parametrize("page", [{"data": None, "has_more": False}, {"data": []}, [], {"has_more": False}, "<html>"])
def test_a_listing_with_holes_is_an_error(bench, shard, page):
    body = page if isinstance(page, str) else json.dumps(page)
    provider = bench.on(httpx2.MockTransport(lambda _: httpx2.Response(200, text=body)))

    with pytest.raises(ProviderBusy):
        bench.found(provider, shard)


def test_what_a_batch_left_is_deleted_and_deleting_it_again_is_fine(bench, shard):
    provider = bench.provider()
    file_id = provider.upload(iter(shard.lines), size_bytes=shard.size_bytes, name="r0-s000.jsonl")
    state = bench.ended(provider, bench.create_from(provider, shard, file_id).batch_id)
    assert list(bench.rows(provider, state))

    for _ in range(2):
        provider.discard(state.batch_id, file_id=file_id, result_files=state.result_files)

    with pytest.raises(ProviderBusy, match="404"):
        list(bench.rows(provider, state))
    if file_id is not None:
        with pytest.raises(RequestRefused):
            bench.create_from(provider, shard, file_id)
    if provider.found_by == "count":
        assert provider.poll(state.batch_id).status is BatchStatus.NOT_FOUND


def test_a_batch_under_way_is_not_deleted(bench, shard):
    provider = bench.provider(faults="stuck=in_progress")
    batch_id = bench.create(provider, shard).batch_id

    if provider.found_by == "count":
        with pytest.raises(ProviderBusy):
            provider.discard(batch_id, file_id=None, result_files=())
    else:
        provider.discard(batch_id, file_id=None, result_files=())

    assert provider.poll(batch_id).status is BatchStatus.RUNNING


def test_a_delete_that_does_not_get_through_is_told(bench, shard):
    provider = bench.provider()
    state = bench.ended(provider, bench.create(provider, shard).batch_id)

    with pytest.raises(ProviderBusy):
        bench.provider(faults="http_5xx=9").discard(state.batch_id, file_id=None, result_files=state.result_files)

    assert list(bench.rows(provider, state))


def test_every_batch_of_the_account_is_listed_whoever_made_it(bench, shard):
    """Also past the first page; a label is read back whole where the vendor keeps one."""
    provider, began = bench.provider(), datetime.now(UTC) - timedelta(minutes=1)
    mine = bench.create(provider, shard).batch_id
    other = bench.create(provider, bench.shard(2, run="of another ledger")).batch_id

    found = {batch.state.batch_id: batch for batch in provider.listing(began)}

    assert {mine, other} <= set(found)
    assert found[mine].label == (shard.label if provider.found_by == "label" else None)
    assert found[mine].state.rows_total == len(shard.lines)
    assert list(provider.listing(datetime.now(UTC) + timedelta(days=1))) == []


def test_a_listing_of_everything_that_breaks_off_is_an_error(bench, shard):
    bench.create(bench.provider(), shard)

    with pytest.raises(ProviderBusy):
        list(bench.provider(faults="garbled=9").listing(datetime.now(UTC) - timedelta(days=1)))


def test_a_batch_is_listed_in_the_state_that_a_poll_gives(bench, shard):
    """Under way, ended, ended with failures: who waits must not notice which of the two was asked."""
    provider, stuck = bench.provider(), bench.provider(faults="stuck=in_progress")
    running = bench.create(stuck, shard).batch_id
    ended = bench.ended(provider, bench.create(provider, bench.shard(3, run="ended")).batch_id).batch_id
    failing = bench.provider(faults="permanent=1.0")
    failed = bench.ended(failing, bench.create(failing, bench.shard(4, run="failed")).batch_id).batch_id

    since = datetime.now(UTC) - timedelta(minutes=1)
    found = {batch.state.batch_id: batch.state for batch in provider.listing(since, page_rows=2)}

    assert [found[batch_id] for batch_id in (ended, failed)] == [provider.poll(each) for each in (ended, failed)]
    assert found[running] == stuck.poll(running)
    assert {found[running].status, found[ended].status} == {BatchStatus.RUNNING, BatchStatus.ENDED}
