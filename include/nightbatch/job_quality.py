"""The part of a job that says which answers are near enough to what is usual to be loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from .job_parts import Part
from .job_values import fault

if TYPE_CHECKING:
    from .core.profile import Band
    from .core.quality import Bounds

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class RangeSpec(Part):
    """Where a field's numbers, or the characters of its texts, should be."""

    min: Number | None = None
    """The least that is as it should be; absent for no bound."""
    max: Number | None = None
    """The most that is as it should be; absent for no bound."""

    @model_validator(mode="after")
    def _holds_something(self) -> RangeSpec:
        if self.min is None and self.max is None:
            raise fault("neither min nor max is set", "Set one of them or both, like {min: 0.2, max: 1}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault("min is above max, so every answer would be outside", "Swap them")
        return self

    def band(self) -> Band:
        """Give it as `core` reckons with it."""
        from .core.profile import Band  # here, since only a run reckons: a parse of Dag files is spared 4 ms

        return Band(self.min, self.max)


class QualitySpec(Part):
    """Bounds that a batch's answers, and all of the run so far, must be inside of to be loaded."""

    min_rows: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 200
    """Fewer rows than these are not held to a bound, since their shares are chance; set it below what a run has."""
    max_dead_share: Share = 0.05
    """Largest share of dead letters among the rows that came back; 0 to 1, and so are all shares here."""
    max_refused_share: Share = 0.05
    """Largest share of refusals among first answers."""
    max_truncated_share: Share = 0.05
    """Largest share of first answers that were cut off at the cap on output tokens."""
    max_empty_share: Share = 0.02
    """Largest share of first answers that were empty."""
    max_shift: Share = 0.15
    """How far the share of any one value of an enum or boolean field may be from the last good run's: 0.15 lets 20 % become 35 % or 5 %."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    max_length_change: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """How many times longer or shorter than in the last good run a text may be on average, in characters."""
    ranges: dict[str, RangeSpec] = Field(default_factory=dict)
    """Field of the answer → `{min: …, max: …}`: where its numbers, or the characters of a text, should be; `price.amount` for a field inside an object, `answer` for free text."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    max_outside_share: Share = 0.01
    """Largest share of answers outside any one of `ranges`."""

    def bands(self) -> dict[str, Band]:
        """Give the ranges as `core` reckons with them."""
        return {name: one.band() for name, one in self.ranges.items()}

    def bounds(self) -> Bounds:
        """Give all of it as `core` reckons with it."""
        from .core.quality import Bounds

        plain = {name: getattr(self, name) for name in type(self).model_fields if name != "ranges"}
        return Bounds(**plain, ranges=self.bands())
