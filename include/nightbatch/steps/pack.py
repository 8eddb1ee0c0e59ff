"""Step 3, pack: encode requests, leave out what is unchanged or asked twice, and fill shards within the limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nightbatch.core.escape import json_string
from nightbatch.core.shard import ShardPlan
from nightbatch.core.verdict import Reason
from nightbatch.ports import DEAD_SCHEMA, Store

from .fill import DUPLICATE_SCHEMA, Around, Request, ShardFiller, filling
from .parquet import RowWriter, row_writer
from .pull import Question, Tally
from .seen import Seen


@dataclass(frozen=True)
class Packed:
    """What packing wrote: the shards, and the names of the two other files (empty where there is nothing)."""

    shards: tuple[ShardPlan, ...]
    duplicates_name: str
    dead_name: str
    duplicates_sha256: str = ""
    dead_sha256: str = ""


def pack(
    questions: Iterable[list[Question]], filler: ShardFiller, store: Store, folder: str, *, seen: Seen, tally: Tally
) -> Packed:
    """Pack a round 0; every question ends in exactly one count of the tally."""
    duplicates_name, dead_name = f"{folder}/duplicates.parquet", f"{folder}/bad_records.parquet"
    with (
        row_writer(store, duplicates_name, DUPLICATE_SCHEMA) as duplicates,
        row_writer(store, dead_name, DEAD_SCHEMA) as dead,
        filling([filler]),
    ):
        packing = _Packing(filler, duplicates, dead, seen, tally)
        for part in questions:
            packing.take(part)
        plans = filler.close()
    return Packed(
        tuple(plans),
        duplicates_name if tally.duplicates else "",
        dead_name if tally.unrenderable else "",
        duplicates.sha256,
        dead.sha256,
    )


@dataclass(slots=True)
class Asked:
    """A question as it is sent."""

    question: Question
    around: Around
    text: bytes
    fingerprint: str

    def request(self) -> Request:
        """Give it as it is written."""
        question = self.question
        return Request(self.around, self.text, question.key, self.fingerprint, 1, question.window_end, question.kept)


def encode(question: Question, filler: ShardFiller) -> Asked | None:
    """Encode a question; None, with the reason in it, for one that cannot be asked."""
    messages, text = question.messages, question.text
    if messages is None:
        return None
    if text is None:
        text = json_string(messages.user)
    around = filler.around(messages.system)
    body_bytes = around.body_bytes + len(text)
    if filler.is_too_large(body_bytes):
        question.reason, question.detail = Reason.TOO_LARGE, f"the request has {body_bytes:,} bytes"
        return None
    return Asked(question, around, text, around.fingerprint(text))


@dataclass(frozen=True)
class _Packing:
    """Places questions, a chunk at a time: what is looked up on disk is looked up for many at once."""

    filler: ShardFiller
    duplicates: RowWriter
    dead: RowWriter
    seen: Seen
    tally: Tally

    def take(self, part: Sequence[Question]) -> None:
        asked = [encode(question, self.filler) for question in part]
        # A bad key owns nothing; of all others the first record of a run does, also if it cannot be asked.
        owners = [question for question in part if question.reason is not Reason.BAD_KEY]
        is_new = iter(self.seen.new_keys([question.key for question in owners]))
        fresh = []
        for question, one in zip(part, asked, strict=True):
            owns_key = question.reason is not Reason.BAD_KEY and next(is_new)
            if one is None:
                self._bury(question, question.reason, question.detail, owns_key=owns_key)
            elif owns_key:
                fresh.append(one)
            elif question.was_pending:
                # The window holds a newer record of this key, and that one is asked about.
                self.tally.superseded += 1
            else:
                detail = "an earlier record of this run has the key"
                self._bury(question, Reason.DUPLICATE_KEY, detail, owns_key=False)
        self._send(self._wanted(fresh))

    def _wanted(self, fresh: list[Asked]) -> list[Asked]:
        """Leave out what is answered already."""
        current = [one for one in fresh if not self._is_superseded(one.question)]
        self.tally.superseded += len(fresh) - len(current)
        unchanged = self.seen.unchanged([(one.question.key, one.fingerprint) for one in current])
        self.tally.unchanged += sum(unchanged)
        return [one for one, is_unchanged in zip(current, unchanged, strict=True) if not is_unchanged]

    def _is_superseded(self, question: Question) -> bool:
        """Say whether another window's run has answered a newer record: the older one's answer would replace that."""
        end = question.window_end
        return end is not None and self.seen.is_answered_later(question.key, end)

    def _send(self, wanted: list[Asked]) -> None:
        twins = self.seen.twins([(one.question.key, one.fingerprint) for one in wanted])
        requests = [one.request() for one, twin in zip(wanted, twins, strict=True) if twin is None]
        if len(requests) < len(wanted):
            for one, twin in zip(wanted, twins, strict=True):
                if twin is not None:
                    self.duplicates.add((one.question.key, one.fingerprint, twin, one.question.window_end))
        self.tally.requests += len(requests)
        self.tally.duplicates += len(wanted) - len(requests)
        self.filler.add(requests)

    def _bury(self, question: Question, reason: Reason, detail: str, *, owns_key: bool) -> None:
        self.tally.unrenderable += 1
        key = question.key
        if not owns_key:
            # Dead letters are found by key, and this one has none of its own: the first record of a run owns a key, so
            # that one whose answer is bad, rounds later, does not take the place of this one's letter.
            key = f"{key or '(no key)'} (bad record {self.tally.unrenderable})"
        self.tally.dead_reasons[reason.value] = self.tally.dead_reasons.get(reason.value, 0) + 1
        self.dead.add((key, "", reason.value, detail, None, None, 0, None, None, None))
