"""Step 7, validate: give every row that was sent exactly one verdict, and book what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from nightbatch.core.answer import AnswerChecker, Read
from nightbatch.core.arrow import decimal_array, number_array, repeated_text_array, text_array
from nightbatch.core.ids import custom_id_prefix, row_of, run_code
from nightbatch.core.money import Cost, NanoRate, Usage, usd_of
from nightbatch.core.profile import Profiler
from nightbatch.core.request import Endpoint
from nightbatch.core.result import Result
from nightbatch.core.verdict import CUT_OFF, GOOD, MISSING, Verdict, VerdictKind, judge_without_answer
from nightbatch.errors import AccountTrouble
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Ports, Shard, Store

from .lanes import OpenLane, open_lane
from .outcome import Moved, Outcome
from .parquet import ROWS_AT_A_TIME, RowWriter, read_batches, row_writer, to_batch
from .telemetry import tell_collected

log = logger(__name__)

VERDICT_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("sends", pa.int32()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("answer", pa.string()),
        ("model", pa.string()),
        ("custom_id", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("cost_usd", pa.decimal128(18, 9)),
    ]
)
"""
One row a request, in the order of the answers. `answer` is untrusted; for bad rows it is cut.

Where a vendor sent a row twice, first bad and then good, both stand here, and the good one counts.
"""

_ASKED = pa.schema([VERDICT_SCHEMA.field(name) for name in ("key", "fingerprint", "sends")])
"""What a verdict takes over from the row of its request."""
_TOKENS = tuple(name for name in VERDICT_SCHEMA.names if name.endswith("_tokens"))

MAX_RAW_CHARS = 20_000
NOT_BILLED = Usage()


def validate(ports: Ports, job: Job, shard: Shard) -> Outcome:
    """Judge the stored raw results of a shard; doing it again gives the same verdicts."""
    lane = open_lane(ports, job, shard.plan.choice, max_output_tokens=shard.plan.max_output_tokens)
    # A name of its own for each reading: one that wakes up late may know another day's prices, and must not write
    # over the verdicts that were booked.
    name = f"{shard.plan.ref.folder}/verdicts-{ports.clock.now():%Y%m%dT%H%M%S%f}.parquet"
    with row_writer(ports.store, name, VERDICT_SCHEMA) as out:
        verdicts = _Verdicts(ports.store, shard, lane, out)
        reading = _Reading(ports, job, shard, lane, verdicts)
        reading.read()
    counts, cost = reading.tally(), verdicts.cost
    if reading.trouble:
        told = AccountTrouble(shard.plan.provider, code=reading.trouble, message="said of rows of a batch")
        ports.ledger.note_problem(shard.plan.ref, type(told).__name__, str(told))
    is_booked = ports.ledger.note_collected(
        shard.plan.ref,
        verdicts_name=name,
        verdicts_sha256=out.sha256,
        counts=counts,
        cost=cost,
        rates={"batch": lane.rate.as_json(), "realtime": lane.realtime.as_json()},
        profile=reading.profiler.profile.as_json() if reading.profiler else None,
        now=ports.clock.now(),
    )
    if is_booked:
        tell_collected(ports, job, shard, counts, cost)
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    log.info("validate: %s; %s USD", said, f"{cost.batch_usd:.4f}")
    return Moved()


class _Reading:
    """One reading of a shard's raw files; its memory is the shard's index, never its answers."""

    def __init__(self, ports: Ports, job: Job, shard: Shard, lane: OpenLane, out: _Verdicts) -> None:
        self.store, self.shard, self.lane, self.out = ports.store, shard, lane, out
        ref = shard.plan.ref
        self.prefix = custom_id_prefix(ports.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard)
        # Vendors do not list what a cancelled batch did not get to.
        self.unheard_of = MISSING if ports.ledger.run(ref.run).cancelled_utc is None else CUT_OFF
        is_vector = lane.endpoint is Endpoint.EMBEDDINGS
        self.check = AnswerChecker(job.answer.json_schema, embeddings=is_vector)
        # Counted whether the job has a quality gate or not: one that gets it tomorrow has a night to compare with.
        bands = job.quality.bands() if job.quality else {}
        self.profiler = None if is_vector else Profiler(job.answer.json_schema, bands)
        self.verdicts: list[Verdict | None] = [None] * shard.plan.rows
        self.billed = bytearray(shard.plan.rows)
        self.odd: Counter[str] = Counter()
        self.trouble = ""
        """The first code that says the account is in trouble."""

    def read(self) -> None:
        """Judge every line, then every row that no line was about."""
        for name in self.shard.raw_names:
            for line in lines(self.store, name):
                self._take(line)
        for row, verdict in enumerate(self.verdicts):
            if verdict is None:
                self.verdicts[row] = self.unheard_of
                self.out.add(row, f"{self.prefix}{row}", self.unheard_of, None, self.shard.plan.model)
        self.out.flush()

    def _take(self, line: bytes) -> None:
        try:
            result = self.lane.provider.parse(line)
        except ValueError:
            # Whichever row it was about is missing from the files now, and is sent again.
            self.odd["unreadable lines"] += 1
            return
        row = row_of(result.custom_id, self.prefix)
        if row is None or row >= len(self.verdicts):
            self.odd["unknown custom_ids"] += 1
            return
        verdict, text, value = self._judge(result)
        if self._gives_way(row, verdict):
            return
        if verdict is GOOD and self.profiler is not None:
            self.profiler.add(value)
        usage = NOT_BILLED if self.billed[row] else result.usage
        if usage.input_tokens or usage != NOT_BILLED:
            self.billed[row] = True
        self.verdicts[row] = verdict
        self.out.add(row, result.custom_id, verdict, text, result.model or self.shard.plan.model, usage)

    def _gives_way(self, row: int, verdict: Verdict) -> bool:
        """Note what a line says beside its row, and say whether an earlier line of its row counts instead."""
        if verdict.kind is VerdictKind.ACCOUNT:
            self.trouble = self.trouble or verdict.detail or "unknown"
        earlier = self.verdicts[row]
        if earlier is None:
            return False
        self.odd["repeated rows"] += 1
        return earlier is GOOD or verdict is not GOOD

    def _judge(self, result: Result) -> Read:
        verdict = judge_without_answer(result)
        if verdict is None:
            read = self.check.read(result.text or "")
            if read.verdict is GOOD:
                return read
            verdict = read.verdict
        return Read(verdict, None if result.text is None else result.text[:MAX_RAW_CHARS])

    def tally(self) -> dict[str, int]:
        """Count rows by verdict and reason, and the odd lines beside them."""
        counts = Counter("good" if verdict is GOOD else _named(verdict) for verdict in self.verdicts if verdict)
        return {**counts, **{f"odd:{what}": count for what, count in self.odd.items()}}


def _named(verdict: Verdict) -> str:
    return f"{verdict.kind}:{verdict.reason}" if verdict.reason else verdict.kind.value


class _Verdicts:
    """Prices verdicts, adds their costs up and writes them, a thousand at a time; its memory is those and the index."""

    def __init__(self, store: Store, shard: Shard, lane: OpenLane, out: RowWriter) -> None:
        self._out = out
        self._batch, self._realtime = NanoRate(lane.rate), NanoRate(lane.realtime)
        index = (batch.select(_ASKED.names) for batch in read_batches(store, shard.plan.index_name, _ASKED.names))
        self._index = pa.concat_batches([to_batch([], _ASKED), *index])
        self._rows: list[tuple[Any, ...]] = []
        self._tokens, self._batch_nanos, self._realtime_nanos = [0] * 5, 0, 0

    def add(
        self, row: int, custom_id: str, verdict: Verdict, text: str | None, model: str, usage: Usage = NOT_BILLED
    ) -> None:
        """Add the verdict of a row, and what was billed for it."""
        # Rounded here, once, so that the rows add up to the ledger's figure to the last digit.
        batch, realtime = self._batch.cost_nanos(usage), self._realtime.cost_nanos(usage)
        self._rows.append((
            row, custom_id, verdict, text, model, usage.input_tokens, usage.output_tokens, usage.cached_tokens,
            usage.cache_write_tokens, usage.reasoning_tokens, batch, realtime,
        ))  # fmt: skip
        if len(self._rows) >= ROWS_AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        """Write what was added since, whole columns at a time."""
        if not self._rows:
            return
        rows, ids, verdicts, texts, models, *tokens, batch, realtime = zip(*self._rows, strict=True)
        self._rows = []
        self._batch_nanos += sum(batch)
        self._realtime_nanos += sum(realtime)
        self._tokens = [before + sum(column) for before, column in zip(self._tokens, tokens, strict=True)]
        numbers = number_array(rows, pa.int32())
        columns = [
            numbers,
            *self._index.take(numbers).columns,
            repeated_text_array([verdict.kind for verdict in verdicts]),
            repeated_text_array([verdict.reason for verdict in verdicts]),
            repeated_text_array([verdict.detail for verdict in verdicts]),
            text_array(texts),
            repeated_text_array(models),
            text_array(ids),
            *(number_array(column, pa.int64()) for column in tokens),
            decimal_array(batch, VERDICT_SCHEMA.field("cost_usd").type),
        ]
        self._out.write(pa.record_batch(columns, schema=VERDICT_SCHEMA))

    @property
    def cost(self) -> Cost:
        """Give the cost of what was written."""
        return Cost(
            Usage(**dict(zip(_TOKENS, self._tokens, strict=True))),
            usd_of(self._batch_nanos),
            usd_of(self._realtime_nanos),
        )


def lines(store: Store, name: str) -> Iterator[bytes]:
    """Stream the lines of a JSONL file, split at newlines alone: U+2028 may stand inside an answer."""
    with store.reader(name) as file:
        rest = b""
        while piece := file.read(1 << 20):
            *whole, rest = (rest + piece).split(b"\n")
            yield from filter(bytes.strip, whole)
        if rest.strip():
            yield rest
