"""What models cost: genai-prices as it was installed, and a table of overrides on top. The network is never asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from nightbatch.core.lane import Mode
from nightbatch.core.money import Price, Rate
from nightbatch.errors import JobInvalid, Problem

OVERRIDES = Path(__file__).with_name("price_overrides.yaml")

BATCH = {"processing": "batch"}
"""The context for which genai-prices gives batch rates; bundled from 2026-10-14 on (its README, read 2026-11-22)."""


@dataclass(frozen=True)
class Override:
    """One row of the override table: a price somebody vouches for, with its source."""

    provider: str
    model: str
    mode: Mode
    rate: Rate
    valid_from: date

    def fits(self, provider: str, model: str, mode: Mode, day: date) -> bool:
        """Say whether the row speaks of this model, in this mode, on this day."""
        is_named = self.provider == provider and fnmatchcase(model, self.model)
        return is_named and self.mode is mode and self.valid_from <= day


class GenaiPrices:
    """Implements `Prices`; thread-safe, one calculation per model and day."""

    def __init__(self, own: Path | str = "", *, bundled: Path = OVERRIDES) -> None:
        """Read the tables; `own` is a file of rows that win over the package's. Raises JobInvalid, also for no file."""
        self._own = read_overrides(Path(own)) if own else ()
        self._overrides = read_overrides(bundled)
        self._known: dict[tuple[str, str, date], Price] = {}

    def price(self, provider: str, model: str, *, at: datetime) -> Price:
        """
        Give the rates in force on the day of `at`, in UTC; an unknown one is None, and the note says why.

        A batch rate counts as known only where an override gives it, or where it differs from the real-time rate:
        for a model without batch prices genai-prices answers the full price, without a word.
        """
        day = at.astimezone(UTC).date()
        key = (provider, model, day)
        if key not in self._known:
            self._known[key] = self._price(provider, model, day)
        return self._known[key]

    def _price(self, provider: str, model: str, day: date) -> Price:
        listed = _listed(provider, model, day)
        batch = self._overridden(provider, model, Mode.BATCH, day) or listed.batch
        realtime = self._overridden(provider, model, Mode.REALTIME, day) or listed.realtime
        return Price(batch, realtime, listed.note if batch is None or realtime is None else "")

    def _overridden(self, provider: str, model: str, mode: Mode, day: date) -> Rate | None:
        for table in (self._own, self._overrides):
            fitting = [row for row in table if row.fits(provider, model, mode, day)]
            if fitting:
                return max(fitting, key=lambda row: (row.model == model, len(row.model), row.valid_from)).rate
        return None


def read_overrides(path: Path) -> Sequence[Override]:
    """Read the table. Raises JobInvalid with everything that is wrong with it."""
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no YAML"
        problem = Problem("", f"the prices cannot be read: {why}", "Mend NIGHTBATCH_PRICES, or the file it names")
        raise JobInvalid(str(path), [problem]) from error
    problems: list[Problem] = []
    overrides: list[Override] = []
    if not isinstance(rows, list):
        problems.append(Problem("", "the file is no list of rows", "Begin each row with '- provider: …'"))
        rows = []
    for number, row in enumerate(rows):
        try:
            overrides.append(_override(row))
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            remedy = "See the example at the top of the file; quote every price"
            problems.append(Problem(f"[{number}]", _told(error), remedy))
    if problems:
        raise JobInvalid(path.name, problems)
    return overrides


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return "a price is no number" if isinstance(error, InvalidOperation) else str(error)


_COLUMNS = frozenset({"provider", "model", "mode", "input", "output", "cached", "cache_write", "valid_from", "source"})


def _override(row: Mapping[str, Any]) -> Override:
    unknown = set(row) - _COLUMNS
    if unknown:
        raise ValueError(f"there is no {', '.join(sorted(unknown))}")
    valid_from = row["valid_from"]
    if not isinstance(valid_from, date):
        raise ValueError("valid_from is no date")
    plain = _amount(row["input"])
    rate = Rate(
        input_usd=plain,
        output_usd=_amount(row["output"]),
        cached_usd=_amount(row.get("cached", row["input"])),
        cache_write_usd=_amount(row.get("cache_write", row["input"])),
        source=f"{row['source']} (override from {valid_from})",
    )
    return Override(str(row["provider"]), str(row["model"]), Mode(row["mode"]), rate, valid_from)


def _amount(value: object) -> Decimal:
    # A float has already lost digits when it arrives here.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("a price must be quoted")
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0:
        raise ValueError("a price is below zero or endless")
    return amount


def _listed(provider: str, model: str, day: date) -> Price:
    """Ask genai-prices, at the day's beginning."""
    import genai_prices

    edition = f"genai-prices {genai_prices.__version__}"
    at = datetime.combine(day, time(), tzinfo=UTC)
    plain = _mtok(provider, model, at, None)
    if plain is None:
        return Price(None, None, f"{edition} knows no price of {provider} model {model}. {_REMEDY}")
    realtime = _rate(plain, f"{edition}, {day}")
    batch = _mtok(provider, model, at, BATCH) or plain
    if any(batch[name] == plain[name] for name in ("input", "output") if plain[name]):
        return Price(None, realtime, f"{edition} has no batch rate of {provider} model {model} on {day}. {_REMEDY}")
    return Price(_rate(batch, f"{edition}, {day}, batch"), realtime)


_REMEDY = "Add a row with its source to the file that NIGHTBATCH_PRICES names."
_NAMES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}


def _mtok(provider: str, model: str, at: datetime, context: Mapping[str, str] | None) -> dict[str, Decimal] | None:
    """Look up what genai-prices says of a million tokens, in our names; None for a model it cannot price."""
    import genai_prices

    usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
    try:
        found = genai_prices.calc_price(
            usage, model, provider_id=provider, genai_request_timestamp=at, price_context=context
        )
    except LookupError:
        return None
    said = {name: getattr(found.model_price, theirs, None) for name, theirs in _NAMES.items()}
    if said["input"] is None:
        return None
    # Prices in tiers: the first one. The others begin at 200,000 input tokens and more in one request.
    return {name: Decimal(getattr(price, "base", price) or 0) for name, price in said.items()}


def _rate(mtok: Mapping[str, Decimal], source: str) -> Rate:
    """Make a rate; the hour-long cache write is the one nightbatch asks for, and the dearer one."""
    plain = mtok["input"]
    cache_write = mtok["cache_write_1h"] or mtok["cache_write"] or plain
    return Rate(plain, mtok["output"], mtok["cached"] or plain, cache_write, source)
