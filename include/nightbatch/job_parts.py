"""The parts of a job between source and sink: prompt, answer, models, and the small ones; each checks itself."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from .core.request import Endpoint
from .core.schema import compiled
from .core.template import BadTemplateError, PromptTemplate, check_template
from .job_schema import closed, required, strict_problems
from .job_values import ClockTime, Duration, Size, fault, raise_faults

Text = Annotated[str, StringConstraints(min_length=1)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]

RESERVED_PARAMS = {
    "model": "Use model",
    "messages": "Use prompt",
    "input": "Use prompt",
    "system": "Use prompt.system",
    "instructions": "Use prompt.system",
    "max_tokens": "Use max_output_tokens, which the budget counts with",
    "max_completion_tokens": "Use max_output_tokens, which the budget counts with",
    "max_output_tokens": "Write it beside params, where the budget counts with it",
    "temperature": "Write it beside params",
    "response_format": "Use answer.schema",
    "output_config": "Use answer.schema",
    "stream": "Leave it out; a batch has nothing to stream",
    "n": "Leave it out; a record has one answer",
}
"""Parameters that a job says elsewhere. Passed on, they would go behind the back of the budget or the checker."""


class Part(BaseModel):
    """What all parts share: nothing unknown is accepted, and nothing changes after it was checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


def _template(text: str, *, as_system: bool = False) -> str:
    try:
        check_template(text, as_system=as_system)
    except BadTemplateError as error:
        raise fault(str(error), "Correct the template; it is Jinja2, with a record's columns as variables") from error
    return text


class Prompt(Part):
    """What is asked about each record. Only the columns that the templates name ever leave."""

    system: str = ""
    """Template of the system message; the same for every record where it can be, which is cheaper to cache."""
    user: str | None = None
    """Template of the user message."""
    system_file: str | None = None
    """A file with the system template, beside the job file or in the folder `prompts` next to it."""
    user_file: str | None = None
    """A file with the user template, beside the job file or in the folder `prompts` next to it."""
    embed: str | None = None
    """Template of the text to embed, instead of `system` and `user`."""
    cache_prefix: bool = False
    """Ask the vendor to cache the system message where it wants to be asked."""
    version: str = Field(default="", max_length=100)
    """What to call this prompt; stored with each answer as `version@hash`, the hash being the first 12 hex digits of the templates' SHA-256."""  # noqa: E501 - one sentence is one line in docs/job-file.md

    @field_validator("user", "embed")
    @classmethod
    def _is_template(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise fault("it is empty", "Write what to ask about a record, like: Rate this review: {{ text }}")
        return text if text is None else _template(text)

    @field_validator("system")
    @classmethod
    def _is_system_template(cls, text: str) -> str:
        return _template(text, as_system=True)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Prompt:
        if self.embed is not None and (self.system or self.user is not None):
            raise fault(
                "both embed and system or user are set", "Keep embed for vectors, or system and user for answers"
            )
        if self.embed is None and self.user is None:
            unread = " (a file is read by load_job only)" if self.user_file else ""
            raise fault(f"there is no user template{unread}", "Set user, user_file, or embed")
        return self

    def template(self) -> PromptTemplate:
        """Compile the templates; for embeddings the text to embed stands in the place of the user's."""
        return PromptTemplate(self.system, self.embed if self.embed is not None else self.user or "")

    @property
    def named(self) -> str:
        """Name it by its version, where it has one, and by its content: an edit that keeps the version shows."""
        return f"{self.version}@{self.digest()}" if self.version else self.digest()

    def digest(self) -> str:
        """Name the templates by their content: 12 hex digits."""
        content = json.dumps([self.system, self.user, self.embed], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        compiled(schema)
    except ValueError as error:
        raise fault(f"it is no JSON Schema: {error}", "Correct it; https://json-schema.org shows how") from error
    schema = closed(schema)
    raise_faults("schema", strict_problems(schema))
    return schema


class Answer(Part):
    """Which answer is acceptable: free text, or JSON that fits a schema."""

    json_schema: Annotated[dict[str, JsonValue], AfterValidator(_json_schema)] | None = Field(
        default=None, alias="schema"
    )
    """A JSON Schema; sent as the vendor's strict structured output, and checked again on return."""
    schema_file: str | None = None
    """A file with the JSON Schema, beside the job file or in the folder `prompts` next to it."""
    text: bool = False
    """Say `true` for free text."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Answer:
        if self.text and (self.json_schema is not None or self.schema_file):
            raise fault("both text and a schema are set", "Keep text: true for free text, or the schema for JSON")
        if not self.text and self.json_schema is None:
            unread = " (a file is read by load_job only)" if self.schema_file else ""
            raise fault(f"it says neither text nor schema{unread}", "Set schema, schema_file, or text: true")
        return self

    @classmethod
    def from_model(cls, model: type[BaseModel]) -> Answer:
        """Take the schema of a pydantic model. Every field becomes required: a model always writes all of them."""
        return cls(schema=required(model.model_json_schema()))


class ModelChoice(Part):
    """One model, and how it is reached and asked."""

    provider: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
    """Who runs the model: `openai` or `anthropic`."""
    model: Text
    """The model, in the vendor's words."""
    connection: Text
    """The connection with the key."""
    endpoint: Endpoint | None = None
    """What is asked of the model: `chat`, `responses`, `messages` or `embeddings`; by default what fits provider and prompt."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    max_output_tokens: Annotated[int, Field(strict=True, gt=0, le=1_000_000)] | None = None
    """Cap on the output tokens of one answer, reasoning included; needed for a budget."""
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    """Sampling temperature; leave it out for models that take none."""
    params: dict[str, JsonValue] = Field(default_factory=dict)
    """Further parameters in the vendor's own words, passed on as they are."""

    @field_validator("params")
    @classmethod
    def _leaves_ours_alone(cls, params: dict[str, JsonValue]) -> dict[str, JsonValue]:
        raise_faults(
            "params",
            (
                ((name,), "it is said elsewhere in the job file", RESERVED_PARAMS[name])
                for name in params.keys() & RESERVED_PARAMS.keys()
            ),
        )
        return params


class DeadlineSpec(Part):
    """When answers stop being useful: a span after the window's end, or a local time of day."""

    after: Duration | None = None
    """A span after the end of the window, like `6h`."""
    at: ClockTime | None = None
    """The next such time of day after the end of the window, in the job's time zone, like `"07:00"`."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> DeadlineSpec:
        if (self.after is None) == (self.at is None):
            problem = "neither after nor at is set" if self.after is None else "both after and at are set"
            raise fault(problem, 'Set one of them: after: 6h, or at: "07:00"')
        if self.after is not None and not self.after:
            raise fault("a deadline at the window's end has passed before the run starts", "Leave time, like after: 6h")
        return self


class ShardSpec(Part):
    """How much one batch may hold, below what the vendor allows."""

    max_rows: Annotated[int, Field(strict=True, gt=0)] | None = None
    """Most rows of one batch."""
    max_bytes: Size | None = None
    """Most bytes of one batch, like `50MB`."""


class CanarySpec(Part):
    """A few requests that go first; the others follow only if these came back well."""

    rows: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 100
    """How many requests go first, in a batch of their own."""
    max_bad_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """The others stay back if a larger share of the canary's rows is answered badly or refused; 0 to 1."""
    max_length_growth: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """The others stay back if an answer has more output tokens than so many times the last good run's."""
    max_cost_growth: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    """The others stay back if a row costs more than so many times the last good run's."""


MailAddress = Annotated[str, StringConstraints(pattern=r"^[^@\s,;<>\"]+@[^@\s,;<>\"]+$", max_length=254)]
Occasion = Literal["at_risk", "late", "failed", "missing", "stale", "report"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _one_or_many(kind: Any) -> BeforeValidator:
    return BeforeValidator(_as_list, json_schema_input_type=kind | tuple[kind, ...])


class Notify(Part):
    """Whom to tell, and of what."""

    mail: Annotated[tuple[MailAddress, ...], _one_or_many(MailAddress)] = ()
    """Mail addresses."""
    mail_connection: Text = "smtp_default"
    """The connection of the mail server."""
    slack_connection: Text | None = None
    """The connection of a Slack webhook."""
    on: Annotated[tuple[Occasion, ...], _one_or_many(Occasion)] = (
        "at_risk",
        "late",
        "failed",
        "missing",
        "stale",
    )
    """What to tell of: the deadline is at risk, was missed, the run failed or is incomplete or its vendor does not answer, a window has no run, answers are older than `freshness`, or all went well."""  # noqa: E501 - one sentence is one line in docs/job-file.md


Usd = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
