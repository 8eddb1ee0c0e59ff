"""Quality: whether what came back is near enough to what is usual, so that it may be loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .profile import EACH, Band, Profile
from .verdict import Reason, VerdictKind

_JUDGED = (VerdictKind.GOOD, VerdictKind.CHANGE, VerdictKind.DEAD)


@dataclass(frozen=True)
class Bounds:
    """What a job allows its answers. Shares are 0 to 1."""

    min_rows: int
    """Fewer rows, or answers, than these are not held to a bound: their shares would be chance."""
    max_dead_share: float
    max_refused_share: float
    max_truncated_share: float
    max_empty_share: float
    max_shift: float
    max_length_change: float
    max_outside_share: float
    ranges: Mapping[str, Band] = field(default_factory=dict)


@dataclass(frozen=True)
class Heard:
    """What became of some rows."""

    counts: Mapping[str, int]
    """First answers by verdict kind and reason, as a shard counts them."""
    dead: int
    """Dead letters, of the same rows."""
    profile: Profile

    @property
    def rows(self) -> int:
        """All rows that came back, whatever with."""
        return sum(number for name, number in self.counts.items() if not name.startswith("odd:"))

    @property
    def judged(self) -> int:
        """Rows that were answered, or refused for good; a vendor's own trouble says nothing of the answers."""
        return sum(number for name, number in self.counts.items() if name.partition(":")[0] in _JUDGED)

    def with_reason(self, reason: Reason) -> int:
        """Count rows with a reason."""
        return sum(number for name, number in self.counts.items() if name.partition(":")[2] == reason)


@dataclass(frozen=True)
class Breach:
    """One bound that something is outside of, with what a person compares."""

    what: str
    """What is bounded, like `refused` or `rating = good`."""
    found: str
    usual: str
    """The same in the last good run; empty where that is not asked."""
    allowed: str
    kind: str
    """Which rows show it: those with a `reason`, a `value`, or a `measure` outside `least` and `most`."""
    name: str
    """The reason, or the field."""
    value: str = ""
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        """Say it in a sentence's part."""
        usual = f", {self.usual} in the last good run" if self.usual else ""
        return f"{self.what}: {self.found}{usual}; {self.allowed}"

    @property
    def band(self) -> Band:
        """Give what a `measure` should be inside of."""
        return Band(self.least, self.most)

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Breach:
        """Read what `as_json` wrote."""
        return cls(**values)


def breaches(heard: Heard, bounds: Bounds, *, last: Profile | None) -> list[Breach]:
    """
    Name every bound that rows are outside of; empty lets them be loaded.

    `last` is the profile of the job's last good run; without one nothing is compared with it. Pure.
    """
    found: list[Breach] = []
    if heard.judged >= bounds.min_rows:
        found += _shares(heard, bounds)
    if heard.profile.answers >= bounds.min_rows:
        found += _outside(heard.profile, bounds)
        if last is not None and last.answers >= bounds.min_rows:
            found += _shifts(heard.profile, bounds, last)
            found += _lengths(heard.profile, bounds, last)
    return found


def _shares(heard: Heard, bounds: Bounds) -> Iterator[Breach]:
    told = (
        (Reason.REFUSED, bounds.max_refused_share),
        (Reason.TRUNCATED, bounds.max_truncated_share),
        (Reason.EMPTY, bounds.max_empty_share),
    )
    parts = [(reason.value, heard.with_reason(reason), heard.judged, most) for reason, most in told]
    for name, number, rows, most in [("dead", heard.dead, heard.rows, bounds.max_dead_share), *parts]:
        if number / rows > most:
            what = "dead letters" if name == "dead" else name
            found = f"{number:,} of {rows:,} rows ({number / rows:.1%})"
            yield Breach(what, found, "", f"the job allows {most:.1%}", "reason", name)


def _outside(profile: Profile, bounds: Bounds) -> Iterator[Breach]:
    for name, band in bounds.ranges.items():
        share = profile.outside.get(name, 0) / profile.answers
        if share > bounds.max_outside_share:
            yield Breach(
                f"{name} outside {band}",
                f"{profile.outside[name]:,} of {profile.answers:,} answers ({share:.1%})",
                "",
                f"the job allows {bounds.max_outside_share:.1%}",
                "measure",
                name,
                least=band.least,
                most=band.most,
            )


def _shifts(profile: Profile, bounds: Bounds, last: Profile) -> Iterator[Breach]:
    """Compare, of each field, the value whose share changed most; what grew most is what examples are of."""
    for name in sorted(profile.values.keys() & last.values.keys()):
        words = sorted(profile.values[name].keys() | last.values[name].keys())
        shifts = {word: profile.share(name, word) - last.share(name, word) for word in words}
        word = max(words, key=lambda word: (round(abs(shifts[word]), 9), shifts[word]))
        if abs(shifts[word]) > bounds.max_shift:
            of = "the items in " if EACH in name else ""
            yield Breach(
                f"{name} = {word}",
                f"{profile.share(name, word):.1%} of {of}{profile.answers:,} answers",
                f"{last.share(name, word):.1%} of {last.answers:,}",
                f"the job allows a change of {bounds.max_shift * 100:g} points",
                "value",
                name,
                value=max(words, key=lambda word: shifts[word]),
            )


def _lengths(profile: Profile, bounds: Bounds, last: Profile) -> Iterator[Breach]:
    times = bounds.max_length_change
    for name in sorted(last.chars):
        usual, found = last.length(name), profile.length(name)
        if usual and not usual / times <= found <= usual * times:
            yield Breach(
                f"length of {name}",
                f"{found:,.1f} characters on average",
                f"{usual:,.1f}",
                f"the job allows {times:g} times as long or as short",
                "measure",
                name,
                least=usual / times,
                most=usual * times,
            )
