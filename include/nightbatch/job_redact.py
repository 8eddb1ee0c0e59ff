"""The part of a job that says what must not leave."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from .job_parts import Part
from .job_values import fault

Kind = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,20}$")]


def _pattern(text: str) -> str:
    from .core.redaction import pattern_problem  # here, so that only jobs that redact pay for it

    problem = pattern_problem(text)
    if problem:
        raise fault(
            f"it is no pattern: {problem}",
            "Write it in the syntax of RE2 (https://github.com/google/re2/wiki/Syntax), without lookaround and "
            "backreferences",
        )
    return text


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=2_000), AfterValidator(_pattern)]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", max_length=200)]


class RedactSpec(Part):
    """What becomes a pseudonym in all that is sent, and is put back in the answers."""

    patterns: dict[Kind, Pattern] = Field(default_factory=dict)
    """Kind → regular expression (RE2), like `email: '[\\w.+-]+@[\\w-]+(\\.[\\w-]+)+'`; a kind is small letters, and begins the pseudonym."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    functions: dict[Kind, FunctionName] = Field(default_factory=dict)
    """Kind → `module.function` of your own that gives the spans to hide in a text; the module must be named in `NIGHTBATCH_REDACT_MODULES`."""  # noqa: E501 - one sentence is one line in docs/job-file.md

    @model_validator(mode="after")
    def _hides_something(self) -> RedactSpec:
        if not self.patterns and not self.functions:
            raise fault("neither patterns nor functions are set", "Set one of them, or leave redact out")
        return self
