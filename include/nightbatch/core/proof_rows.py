"""A shard's rows for the proof: what the raw files say of each, what the verdicts do, and whether the two agree."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from .money import NANO, ZERO, Cost, CostSum, Rate, Usage
from .proof import Bag, Link, counted, same, unknown
from .result import Outcome
from .verdict import Reason, VerdictKind

_BIT = {Outcome.ANSWERED: 1, Outcome.ERRORED: 2, Outcome.EXPIRED: 4, Outcome.CANCELLED: 8}
_MISSING = 16
_WORDS = {1: "answered", 2: "errored", 4: "expired", 8: "cancelled", _MISSING: "missing"}
_UNANSWERED = {
    Reason.EXPIRED.value: 4,
    Reason.CANCELLED.value: 8,
    Reason.TRANSIENT.value: 2,
    Reason.ACCOUNT.value: 2,
    Reason.INVALID_REQUEST.value: 2,
    Reason.MISSING.value: _MISSING,
}
"""What a vendor must have said of a row with such a verdict; every other reason is about an answer."""

TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
"""In the order of `Usage`."""


class Heard:
    """What a shard's raw files say of each row; a few bytes a row."""

    def __init__(self, rows: int) -> None:
        self.outcomes, self.times = bytearray(rows), bytearray(rows)
        self._tokens = [array("q", bytes(8 * rows)) for _ in TOKENS]

    def add(self, row: int, outcome: Outcome, usage: Usage) -> None:
        """Take in one line."""
        self.outcomes[row] |= _BIT[outcome]
        if not self.times[row]:
            plain, cached, written, output, reasoning = self._tokens
            plain[row], cached[row], written[row] = usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens
            output[row], reasoning[row] = usage.output_tokens, usage.reasoning_tokens
        self.times[row] = min(self.times[row] + 1, 255)

    def usage(self, row: int) -> Usage:
        """Give the tokens of the first line about a row."""
        plain, cached, written, output, reasoning = self._tokens
        return Usage(plain[row], cached[row], written[row], output[row], reasoning[row])


@dataclass
class Judged:
    """What a shard's verdicts say, row by row, beside what was heard; `heard` None leaves the raw files out."""

    rows: int
    heard: Heard | None
    rates: Mapping[str, Rate]
    kept: Sequence[str] = TOKENS
    """The kinds of tokens that the verdicts hold; what older ones lack is taken from the raw files."""
    kinds: Counter[str] = field(default_factory=Counter)
    costs: CostSum = field(default_factory=CostSum)
    """At the rates that were booked; without rates only what the verdicts say in `cost_usd`."""
    cost_usd: Decimal = ZERO
    keyed: Bag = field(default_factory=Bag)
    """(row, key, fingerprint) of every row."""
    bad: Bag = field(default_factory=Bag)
    """(key, fingerprint) of the rows that are not good."""

    def __post_init__(self) -> None:
        self._seen = bytearray(self.rows)
        self._words: list[str] = [""] * self.rows
        self._odd: dict[str, list[int]] = {}

    def add(self, row: int, key: str, fingerprint: str, verdict: tuple[str, str], usage: Usage, cost: Decimal) -> None:
        """Take in one verdict: its kind and reason, and what the row was billed for."""
        if not 0 <= row < self.rows:
            self._note("no such row", row)
            return
        kind, reason = verdict
        is_good = kind == VerdictKind.GOOD
        if self._seen[row] and (self._seen[row] == 2 or not is_good):
            self._note("a second verdict", row)
        if not self._seen[row]:
            self.keyed.add(row, key, fingerprint)
        if not self._seen[row] and not is_good:
            self.bad.add(key, fingerprint)
        elif self._seen[row] == 1 and is_good:
            self.bad.add(key, fingerprint, times=-1)
        self._seen[row] = 2 if is_good else 1
        self._words[row] = f"{kind}:{reason}" if reason else kind
        self._bill(row, self._filled(row, usage), cost)

    def _filled(self, row: int, usage: Usage) -> Usage:
        if self.heard is None or self.heard.times[row] != 1 or len(self.kept) == len(TOKENS):
            return usage
        first = self.heard.usage(row)
        return replace(usage, **{name: getattr(first, name) for name in TOKENS if name not in self.kept})

    def _bill(self, row: int, usage: Usage, cost: Decimal) -> None:
        self.cost_usd += cost
        if self.heard is not None and self.heard.times[row] == 1 and self.heard.usage(row) != usage:
            self._note("other tokens than the raw file", row)
        if not self.rates:
            self.costs.add(Cost(usage))
            return
        again = Cost(usage, _at(self.rates["batch"], usage), _at(self.rates["realtime"], usage))
        self.costs.add(again)
        if again.batch_usd != cost:
            self._note("another cost than its tokens have", row)

    def _note(self, what: str, row: int) -> None:
        self._odd.setdefault(what, []).append(row)

    @property
    def good(self) -> int:
        """Rows with a good answer."""
        return sum(state == 2 for state in self._seen)

    def counts(self) -> dict[str, int]:
        """Count rows by kind and reason; what has no verdict is counted as such."""
        return dict(Counter(word or "no verdict" for word in self._words))

    def odd(self, *what: str) -> str:
        """Say which rows are not as they should be, in these respects; the first three of each by number."""
        said = []
        for name in what:
            rows = self._odd.get(name, [])
            if rows:
                more = f" and {len(rows) - 3:,} more" if len(rows) > 3 else ""
                said.append(f"{name} in row {', '.join(map(str, rows[:3]))}{more}")
        return "; ".join(said)

    def lines(self) -> tuple[Counter[str], Counter[str], list[int]]:
        """Give what the raw files say of the rows, what the verdicts do, and the rows where the two disagree."""
        said, meant, apart = Counter[str](), Counter[str](), []
        outcomes = self.heard.outcomes if self.heard is not None else b""
        for row, (word, heard) in enumerate(zip(self._words, outcomes, strict=True)):
            judged = _UNANSWERED.get(word.partition(":")[2], 1) if word else 0
            known = heard or _MISSING
            agrees = bool(judged & known)
            said[_WORDS[judged if agrees else known & -known]] += 1
            meant[_WORDS.get(judged, "without a verdict")] += 1
            if not agrees:
                apart.append(row)
        return said, meant, apart


def _at(rate: Rate, usage: Usage) -> Decimal:
    return rate.cost_usd(usage).quantize(NANO)


def shard_links(place: str, judged: Judged, known: Mapping[str, Any]) -> list[Link]:
    """
    Compare a shard's verdicts with its raw files, its index and the ledger.

    `known` has `batch` (its name for people), `counts`, `usage`, `batch_usd` and `realtime_usd` of the ledger,
    `billed`, what the vendor said that the whole batch used, and `keyed`, the bag of the index.
    """
    counts = {what: number for what, number in known["counts"].items() if not what.startswith("odd:")}
    odd = judged.odd("no such row", "a second verdict")
    keys = "" if judged.keyed == known["keyed"] else "; keys or fingerprints are not those of the index"
    found = counted(judged.counts())
    is_whole = judged.counts() == counts and not odd and not keys
    links = [Link("verdicts", place, counted(counts), f"{found}{'; ' if odd else ''}{odd}{keys}", is_whole)]
    if judged.heard is not None:
        said, meant, apart = judged.lines()
        where = f" (row {', '.join(map(str, apart[:3]))})" if apart else ""
        batch = f"{place} ({known['batch']})"
        links.append(Link("lines", batch, counted(said), f"{counted(meant)}{where}", not apart))
        links += _bill_links(batch, said, known)
    links += _token_links(place, judged, known)
    return [*links, same("cost", place, f"{known['batch_usd']:.9f} USD", f"{judged.cost_usd:.9f} USD")]


def _bill_links(place: str, said: Counter[str], known: Mapping[str, Any]) -> list[Link]:
    """Compare a batch's own total with that of its rows; what was not answered may have been billed all the same."""
    billed = known["billed"]
    if billed is None:
        return []
    ours, theirs = (
        f"{used.input_tokens:,} input tokens ({used.cached_tokens:,} cached) and {used.output_tokens:,} output tokens"
        for used in (known["usage"], billed)
    )
    odd = {what.removeprefix("odd:"): number for what, number in known["counts"].items() if what.startswith("odd:")}
    unanswered = {f"{what} rows": number for what, number in said.items() if what != "answered"}
    if ours != theirs and (unanswered or odd):
        lost = counted(unanswered | odd)
        return [unknown("bill", place, f"the batch's own total is {theirs}, that of its rows {ours}, with {lost}")]
    return [same("bill", place, theirs, ours)]


def _token_links(place: str, judged: Judged, known: Mapping[str, Any]) -> list[Link]:
    expected = {name: getattr(known["usage"], name) for name in TOKENS}
    odd = judged.odd("other tokens than the raw file")
    cost = judged.costs.cost
    found = {name: getattr(cost.usage, name) for name in TOKENS}
    text = f"{counted(found)}{'; ' if odd else ''}{odd}"
    links = [Link("tokens", place, counted(expected), text, expected == found and not odd)]
    if not judged.rates:
        return [*links, unknown("rates", place, "the rates were not recorded then")]
    odd = judged.odd("another cost than its tokens have")
    booked = f"{known['batch_usd']:.9f} USD ({known['realtime_usd']:.9f} in real time)"
    again = f"{cost.batch_usd:.9f} USD ({cost.realtime_usd:.9f} in real time)"
    return [*links, Link("rates", place, booked, f"{again}{'; ' if odd else ''}{odd}", booked == again and not odd)]
