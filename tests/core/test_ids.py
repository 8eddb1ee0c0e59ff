"""Names: the same at every attempt, safe for vendors, and read back without a map."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.ids import (
    Label,
    Origin,
    ShardRef,
    custom_id_prefix,
    is_custom_id,
    origin_of,
    row_of,
    run_code,
    run_id,
)
from nightbatch.core.window import Window

NIGHT = Window(datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))
LEDGER = "0123456789abcdef0123456789abcdef"
RUN = "review_sentiment/20261121T000000Z-20261122T000000Z/g1"

rounds = st.integers(0, 5)
shards = st.integers(0, 9_999)
rows = st.integers(0, 999_999)
names = st.text(min_size=1, max_size=40)


def test_a_run_is_named_by_job_window_and_generation() -> None:
    assert run_id("review_sentiment", NIGHT, 1) == RUN


def test_names_never_change_between_releases() -> None:
    """Batches that are with a vendor while we are upgraded must still be found."""
    assert run_code(RUN) == "9da39307a129"
    assert custom_id_prefix(LEDGER, "9da39307a129", 1, 12) == "nb_01234567_9da39307a129_1_12_"
    assert ShardRef(RUN, 1, 12).name == "r1-s012"
    assert ShardRef(RUN, 1, 12).folder == f"{RUN}/round-1/s012"
    assert str(ShardRef(RUN, 1, 12)) == f"{RUN} r1-s012"


@given(names, rounds, shards, rows)
def test_the_row_is_read_back_from_its_custom_id(run: str, round_: int, shard: int, row: int) -> None:
    prefix = custom_id_prefix(LEDGER, run_code(run), round_, shard)

    assert row_of(f"{prefix}{row}", prefix) == row


@given(names, rounds, shards, rows)
def test_custom_ids_are_what_vendors_take(run: str, round_: int, shard: int, row: int) -> None:
    custom_id = f"{custom_id_prefix(LEDGER, run_code(run), round_, shard)}{row}"

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", custom_id)
    assert is_custom_id(custom_id)


places = st.tuples(st.sampled_from(["run a", "run b"]), rounds, shards)


@given(places, places, rows)
def test_a_row_of_one_shard_is_no_row_of_another(
    one: tuple[str, int, int], other: tuple[str, int, int], row: int
) -> None:
    mine, theirs = (custom_id_prefix(LEDGER, run_code(run), round_, shard) for run, round_, shard in (one, other))

    assert (row_of(f"{mine}{row}", theirs) == row) == (one == other)


@pytest.mark.parametrize("end", ["", "07", "00", "-1", "+1", "1_0", " 1", "1 ", "１", "²", "1.0", "x", "0x1"])
def test_a_row_has_one_name_only(end: str) -> None:
    prefix = custom_id_prefix(LEDGER, run_code(RUN), 0, 3)

    assert row_of(prefix + end, prefix) is None


@given(st.text(max_size=80))
def test_reading_a_strangers_name_never_raises(text: str) -> None:
    prefix = custom_id_prefix(LEDGER, run_code(RUN), 0, 3)

    assert row_of(text, prefix) is None
    assert is_custom_id(text) in (True, False)


@given(rounds, shards, st.integers(1, 99))
def test_a_label_fits_into_a_vendors_metadata(round_: int, shard: int, attempt: int) -> None:
    """At most 16 pairs, keys of 64 and values of 512 characters. Source: OpenAI's API reference, read 2026-11."""
    label = Label(LEDGER, run_code(RUN), round_, shard, attempt, "f" * 64)

    metadata = label.metadata()

    assert len(metadata) <= 16
    assert all(len(key) <= 64 and 0 < len(value) <= 512 for key, value in metadata.items())
    assert label.prefix == custom_id_prefix(LEDGER, run_code(RUN), round_, shard)


@given(st.lists(st.builds(ShardRef, st.sampled_from(["a/g1", "a/g2"]), rounds, shards), unique=True))
def test_two_shards_never_share_a_folder(refs: list[ShardRef]) -> None:
    assert len({ref.folder for ref in refs}) == len(refs)


def test_a_label_is_read_back_from_what_the_vendor_keeps():
    label = Label("a" * 32, "b" * 12, 2, 34, 5, "c" * 64)

    assert Label.read(label.metadata()) == label


@pytest.mark.parametrize("spoilt", ["nightbatch_ledger", "nightbatch_run", "nightbatch_shard", "nightbatch_attempt"])
def test_metadata_of_somebody_else_is_no_label(spoilt):
    whole = Label("a" * 32, "b" * 12, 0, 0, 1, "c" * 64).metadata()

    assert Label.read({}) is None
    assert Label.read({name: value for name, value in whole.items() if name != spoilt}) is None
    assert Label.read({**whole, "nightbatch_shard": "third"}) is None


def test_a_custom_id_says_where_it_comes_from():
    prefix = custom_id_prefix("a" * 32, "b" * 12, 2, 34)

    assert origin_of(f"{prefix}7") == Origin("a" * 8, "b" * 12, 2, 34)
    assert origin_of("request-7") is None
