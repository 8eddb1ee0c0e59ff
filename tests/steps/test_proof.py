"""The proof: whatever is changed behind nightbatch's back, in a file or a row of the ledger, is named."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from decimal import Decimal
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from nightbatch import flow
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_tables import attempts, money, rounds, runs, shards
from nightbatch.core.proof import LINKS, broken
from nightbatch.errors import ConnectionInvalid, DoesNotAddUp, RunIncomplete, StorageUnavailable
from nightbatch.steps.audit import audit
from nightbatch.steps.chain import rounds_of
from nightbatch.steps.outcome import Finished
from nightbatch.steps.proof import prove
from nightbatch.steps.settle import settle
from tests.memory_stack import NIGHT, Stack, job_of, later
from tests.steps.test_retry import RESULTS

JOB = job_of(rounds=1)
FATES = {
    "good": ["good"],
    "late": ["expired", "good"],
    "never": ["expired"],
    "refused": ["permanent"],
    "long": ["truncated", "good"],
    "longer": ["truncated"],
}
"""What the vendor says of a question, each time it is asked."""
RECORDS = [
    *((f"k{number}", text) for number, text in enumerate([*FATES, "good", "never", "refused", "refused"])),
    (None, "a record without a key"),
]


def night() -> Stack:
    """Give a copy of a night with every fate in it: good, sent again, dead, pending, and copies of each."""
    whole, copy = first_night(), Stack(RECORDS)
    connections = [stack.ledger._database.engine.raw_connection() for stack in (whole, copy)]
    connections[0].driver_connection.backup(connections[1].driver_connection)
    copy.ledger = SqlLedger(copy.ledger._database)
    copy.store.files = dict(whole.store.files)
    copy.sink.answers, copy.sink.dead = deepcopy(whole.sink.answers), dict(whole.sink.dead)
    return copy


@cache
def first_night() -> Stack:
    """Run the night; nobody may change what it left."""
    return new_night()


def new_night() -> Stack:
    """Run the night."""
    stack = Stack(RECORDS)

    def answer(messages, times):
        fates = FATES[messages.user.split("\n")[0]]
        return RESULTS[fates[min(times, len(fates) - 1)]]

    stack.vendor.answer = answer
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), JOB, NIGHT)
    return stack


def run_of(stack):
    return flow.find_run(stack.ports(), JOB, NIGHT)


def change(stack, table, where, **values) -> None:
    """Change rows of the ledger behind its back; at least one."""
    with stack.ledger._database.write() as connection:
        assert connection.execute(sa.update(table).where(where).values(**values)).rowcount


def first(table):
    """Find the rows of the first shard."""
    return sa.and_(table.c.round == 0, table.c.shard == 0)


def flip(stack, name) -> None:
    """Turn one bit of a file over, in its middle."""
    content = bytearray(stack.store.files[name])
    content[len(content) // 2] ^= 1
    stack.store.files[name] = bytes(content)


def rewrite(stack, name, edit) -> None:
    """Write a Parquet file again with other rows."""
    table = pq.read_table(pa.BufferReader(stack.store.files[name]))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(edit(table.to_pylist()), schema=table.schema), buffer)
    stack.store.files[name] = buffer.getvalue().to_pybytes()


def settle_again(stack) -> DoesNotAddUp:
    with pytest.raises(DoesNotAddUp) as told:
        settle(stack.ports(), JOB, run_of(stack).run)
    return told.value


def test_an_untouched_night_adds_up_in_every_link_and_settle_records_it() -> None:
    stack = night()

    links = audit(stack.ports(), JOB, run_of(stack))

    assert [str(link) for link in links if not link.holds] == []
    assert {link.name for link in links} == set(LINKS) - {"bill"}
    assert stack.ledger.proof(run_of(stack).run) == [link for link in links if link.name != "sink"]


FILES = {
    "request": lambda shard, plan: shard.plan.requests_name,
    "index": lambda shard, plan: shard.plan.index_name,
    "raw": lambda shard, plan: shard.raw_names[0],
    "verdict": lambda shard, plan: shard.verdicts_name,
    "duplicates": lambda shard, plan: plan[0].facts["duplicates_name"],
    "bad records": lambda shard, plan: plan[0].facts["dead_name"],
    "dead letters": lambda shard, plan: plan[1].facts["dead_name"],
    "pending": lambda shard, plan: plan[2].facts["pending_name"],
}


def named(stack, what) -> str:
    run = run_of(stack)
    return FILES[what](stack.ledger.shards(run.run)[0], rounds_of(stack.ports(), run.run))


@pytest.mark.parametrize("what", FILES)
def test_a_file_with_one_bit_turned_over_is_named(what) -> None:
    stack = night()
    name = named(stack, what)
    flip(stack, name)

    told = settle_again(stack)

    assert told.differences[0].startswith(f"file of {name}: expected ")
    assert f"{name}" in str(told)
    assert "Nothing was deleted." in str(told)
    recorded = stack.ledger.proof(run_of(stack).run)
    assert next(link.place for link in broken(recorded)) == name


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_gone_is_named(what) -> None:
    stack = night()
    name = named(stack, what)
    stack.store.delete(name)

    assert settle_again(stack).differences[0] == (
        f"file of {name}: expected the file that was written, found no such file"
    )


PLACES = {
    "index": "requests of r0-s000",
    "verdict": "verdicts of r0-s000",
    "duplicates": "records of reviews/",
    "bad records": "records of reviews/",
    "dead letters": "fates of round 1",
    "pending": "fates of round 2",
}


@pytest.mark.parametrize("what", PLACES)
def test_a_row_less_is_found_by_the_sums_too(what) -> None:
    """Not by the hash alone: a run from before hashes were kept is held by its sums."""
    stack = night()
    rewrite(stack, named(stack, what), lambda rows: rows[1:])

    said = "\n".join(settle_again(stack).differences)

    assert "file of" in said
    assert PLACES[what] in said


def test_a_removed_line_of_a_raw_file_is_found_by_its_row() -> None:
    stack = night()
    name = named(stack, "raw")
    lines = stack.store.files[name].splitlines(keepends=True)
    stack.store.files[name] = b"".join(lines[1:])

    said = settle_again(stack).differences

    assert said[0].startswith(f"file of {name}: ")
    assert any(text.startswith("lines of r0-s000 (batch_0): ") and "(row 0)" in text for text in said)


def test_rows_that_change_places_are_found_although_every_count_holds() -> None:
    stack = night()

    def swapped(rows):
        rows[0]["key"], rows[1]["key"] = rows[1]["key"], rows[0]["key"]
        return rows

    rewrite(stack, named(stack, "verdict"), swapped)

    assert any("keys or fingerprints are not those of the index" in text for text in settle_again(stack).differences)


ROWS = {
    "counts": (shards, {"counts": {"good": 3}}, "verdicts of r0-s000: expected 3 good, found 2 again:expired, 1 good"),
    "cost": (shards, {"batch_usd": Decimal("9.5")}, "cost of r0-s000: expected 9.500000000 USD, found 0.0000"),
    "real-time cost": (shards, {"realtime_usd": Decimal("9.5")}, "rates of r0-s000: expected .*9.500000000 in real"),
    "tokens": (shards, {"output_tokens": 77}, "tokens of r0-s000: expected 10 input_tokens, 77 output_tokens"),
    "merged": (shards, {"merged": 7}, "loaded of r0-s000: expected 2 rows in the sink, found 7 rows in the sink"),
    "never loaded": (shards, {"state": "collected"}, "loaded of r0-s000: .* collected and never loaded"),
    "open again": (shards, {"state": "open"}, "state of r0-s000: .* found open, although its attempt is ended and"),
    "held": (shards, {"state": "held", "held_reason": "budget"}, "state of r0-s000: .* found held, although its"),
    "taken": (shards, {"taken_by_round": 2}, "fates of round 1: expected"),
    "rows": (shards, {"rows": 2}, "requests of r0-s000: expected 2 lines and 2 in the index, found 3 lines"),
    "request hash": (shards, {"content_sha256": "ab" * 32}, "requests.jsonl: expected abababab"),
    "raw hash": (shards, {"raw_sha256s": ["ab" * 32]}, "results.jsonl: expected abababab"),
    "batch id": (attempts, {"batch_id": "batch_x"}, "batch of r0-s000: expected batch batch_0, .*found batch batch_x"),
    "attempt rows": (attempts, {"rows": 9}, "batch of r0-s000: .*found batch batch_0, 9 rows"),
    "attempt hash": (
        attempts,
        {"content_sha256": "ab" * 32},
        "batch of r0-s000: .*found batch batch_0, 3 rows, abab",
    ),
    "attempt state": (attempts, {"state": "lost"}, "state of r0-s000: .*found loaded, although its attempt is lost"),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_changed_row_of_the_ledger_is_named(what) -> None:
    stack = night()
    table, values, sentence = ROWS[what]
    change(stack, table, first(table), **values)

    told = settle_again(stack)

    assert _matches(sentence, told.differences)


def _matches(sentence, differences) -> bool:
    return any(re.search(sentence, text) for text in differences)


@pytest.mark.parametrize("mode", ["batch", "realtime"])
@pytest.mark.parametrize("name", ["input_usd", "output_usd"])
def test_a_changed_price_is_named(mode, name) -> None:
    stack = night()
    shard = stack.ledger.shards(run_of(stack).run)[0]
    rates = json.loads(json.dumps(shard.rates))
    rates[mode][name] = "1234"
    change(stack, shards, first(shards), rates=rates)

    assert _matches("rates of r0-s000: expected 0.0000", settle_again(stack).differences)


def test_a_price_that_is_none_is_named() -> None:
    stack = night()
    change(stack, shards, first(shards), rates={"batch": {"input_usd": "cheap"}})

    assert _matches("rates of r0-s000: expected the rates that were booked", settle_again(stack).differences)


def test_a_changed_entry_of_money_is_named() -> None:
    stack = night()
    change(stack, money, money.c.kind == "actual", usd=Decimal("0.5"))

    assert _matches(r"money of reviews/.*found 2.000000000 USD spent, 0.000000000 reserved",
                    settle_again(stack).differences)  # fmt: skip


@pytest.mark.parametrize(
    ("round_", "path", "sentence"),
    [
        (0, ("counts", "pulled"), "records of reviews/.*: expected 99 records, found 1 bad, 4 duplicates, 6 requests"),
        (0, ("counts", "unchanged"), "records of reviews/"),
        (0, ("counts", "requests"), "answers of reviews/.*: expected 99 requests, found"),
        (1, ("dead", "invalid_request"), "round of round 1: expected"),
        (2, ("pending", "expired"), "round of round 2: expected"),
        (2, ("copies_pending",), "round of round 2: expected"),
    ],
)
def test_a_changed_count_of_a_sealed_round_is_named(round_, path, sentence) -> None:
    stack = night()
    facts = dict(stack.ledger.sealed(run_of(stack).run, round_).facts)
    part = facts
    for step in path[:-1]:
        part[step] = dict(part[step])
        part = part[step]
    assert path[-1] in part
    part[path[-1]] = 99
    change(stack, rounds, rounds.c.round == round_, facts=facts)

    assert _matches(sentence, settle_again(stack).differences)


def test_a_run_that_is_mended_adds_up_again() -> None:
    stack = night()
    name = named(stack, "raw")
    whole = stack.store.files[name]
    stack.store.delete(name)
    settle_again(stack)
    stack.store.files[name] = whole

    with pytest.raises(RunIncomplete):
        settle(stack.ports(), JOB, run_of(stack).run)

    assert broken(stack.ledger.proof(run_of(stack).run)) == []


def test_a_run_from_before_hashes_and_rates_were_kept_says_what_was_not_recorded() -> None:
    stack = night()
    change(stack, shards, sa.true(), rates=None, index_sha256="", verdicts_sha256="")
    for number in range(3):
        facts = dict(stack.ledger.sealed(run_of(stack).run, number).facts)
        older = {name: value for name, value in facts.items() if not name.endswith("_sha256")}
        change(stack, rounds, rounds.c.round == number, facts=older)

    links = audit(stack.ports(), JOB, run_of(stack))

    unsure = {link.name: link.found for link in links if link.holds is None}
    assert unsure["rates"] == "the rates were not recorded then"
    assert unsure["file"].startswith("the hash was not recorded then; it is ")
    assert broken(links) == []


def test_a_run_whose_staging_was_removed_shows_what_was_proved_before() -> None:
    stack = night()
    recorded = stack.ledger.proof(run_of(stack).run)
    change(stack, runs, sa.true(), staging_removed_utc=stack.clock.now())
    stack.store.files.clear()

    links = audit(stack.ports(), JOB, run_of(stack))

    assert links[:-1] == recorded
    assert (links[-1].name, links[-1].holds) == ("file", None)
    assert links[-1].found == "its staging was removed on 2026-11-21"
    with pytest.raises(RunIncomplete):
        settle(stack.ports(), JOB, run_of(stack).run)
    assert stack.ledger.proof(run_of(stack).run) == links


def test_dead_letters_that_are_damaged_before_the_first_settle_are_named_and_not_buried_again() -> None:
    stack = Stack([("k0", "refused"), ("k1", "good")])
    stack.vendor.answer = lambda messages, times: RESULTS[FATES[messages.user][0]]
    ports, plan = stack.ports(), flow.prepare(stack.ports(), JOB, NIGHT)
    while not isinstance(flow.advance(ports, JOB, plan.shards[0].ref), Finished):
        later(stack, seconds=60)
    name = flow.close_round(ports, JOB, plan.run, 0).facts["dead_name"]
    flip(stack, name)

    with pytest.raises(DoesNotAddUp, match=r"dead_letters\.parquet: expected"):
        flow.finish(ports, JOB, plan.run)

    assert stack.ledger.run(plan.run).state == "open"


def test_what_cannot_be_read_now_is_not_taken_for_wrong() -> None:
    stack = night()

    class Away:
        def __getattr__(self, name):
            raise StorageUnavailable("the store", cause="a reset")

    run = run_of(stack)
    with pytest.raises(StorageUnavailable):
        settle(stack.ports(store=Away()), JOB, run.run)

    assert stack.ledger.run(run.run).books == run.books


def test_a_vendor_whose_connection_is_gone_leaves_its_lines_unread() -> None:
    stack = night()

    def gone(name, connection):
        raise ConnectionInvalid(connection, problem="there is none", remedy="Make it.")

    links = audit(stack.ports(provider=gone), JOB, run_of(stack))

    assert broken(links) == []
    assert any(link.name == "lines" and "connection c: there is none" in link.found for link in links)


def test_a_run_under_way_is_proved_as_far_as_it_is() -> None:
    stack = Stack([(f"k{number}", "good" + str(number)) for number in range(7)])
    plan = flow.prepare(stack.ports(), JOB, NIGHT)
    run = stack.ledger.run(plan.run)
    flow.advance(stack.ports(), JOB, plan.shards[0].ref)

    links = prove(stack.ports(), run)

    assert broken(links) == []
    (answers,) = [link for link in links if link.name == "answers"]
    assert answers.found == "3 good, 4 under way: 7 requests"


# --- the sink -------------------------------------------------------------------------------------------------


def sink_of(stack):
    return [str(link) for link in audit(stack.ports(), JOB, run_of(stack)) if link.name == "sink" and not link.holds]


def test_an_answer_that_is_gone_from_the_sink_is_named() -> None:
    stack = night()
    row = stack.sink.answers.pop("k0")

    assert sink_of(stack) == [f"sink of r0-s000: expected 2 rows, found 1 rows; none for {row['custom_id']}"]


def test_a_copy_that_is_gone_from_the_sink_is_named() -> None:
    stack = night()
    row = stack.sink.answers.pop("k6")

    assert sink_of(stack) == [f"sink of r0-s000: expected 2 rows, found 1 rows; none for a copy of {row['custom_id']}"]


@pytest.mark.parametrize("change", [{"cost_usd": Decimal(7)}, {"custom_id": "nb_x"}, {"fingerprint": "0"},
                                    {"cost_usd": None}])  # fmt: skip
def test_an_answer_that_was_changed_in_the_sink_is_named(change) -> None:
    stack = night()
    named = stack.sink.answers["k0"]["custom_id"]
    stack.sink.answers["k0"] |= change

    assert sink_of(stack) == [
        f"sink of r0-s000: expected 2 rows, found 1 rows; another custom_id, fingerprint or cost for {named}"
    ]


def test_an_answer_that_nobody_gave_is_counted() -> None:
    stack = night()
    stack.sink.answers["stranger"] = dict(stack.sink.answers["k0"])

    (told,) = sink_of(stack)

    assert told.endswith(
        "expected 0 rows of this run without a good verdict, found 1 rows of this run without a good verdict"
    )


def test_a_newer_answer_in_its_place_is_as_good() -> None:
    stack = new_night()
    later(stack, hours=1)
    stack.vendor.answer = lambda messages, times: RESULTS["good"]
    flow.run(stack.ports(), JOB, NIGHT, flow.Options(force="a person"))
    old = stack.ledger.runs(job=JOB.name)[-1]
    assert {row["run"] for row in stack.sink.answers.values()} != {old.run}

    links = audit(stack.ports(), JOB, old)

    assert [str(link) for link in broken(links)] == []
