"""A job: what a job file says, checked, and what the steps ask of it."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from .core.deadline import DeadlineRule
from .core.request import Endpoint, RequestSpec
from .core.template import Deferrable
from .job_checks import cross_problems, endpoint_of
from .job_ends import (
    FileSinkSpec,
    FileSourceSpec,
    FrameSourceSpec,
    QuerySourceSpec,
    SourceSpec,
    TableSinkSpec,
    Watermark,
    pick_sink,
    pick_source,
)
from .job_parts import Answer, CanarySpec, DeadlineSpec, ModelChoice, Notify, Part, Prompt, ShardSpec, Text, Usd
from .job_quality import QualitySpec
from .job_redact import RedactSpec
from .job_values import Cron, Day, Duration, Zone, raise_faults

__all__ = [
    "Answer",
    "CanarySpec",
    "DeadlineSpec",
    "FileSinkSpec",
    "FileSourceSpec",
    "FrameSourceSpec",
    "Job",
    "ModelChoice",
    "Notify",
    "Prompt",
    "QualitySpec",
    "QuerySourceSpec",
    "RedactSpec",
    "ShardSpec",
    "SourceSpec",
    "TableSinkSpec",
    "Watermark",
]


class Job(Part):
    """
    Where records are, what to ask about each, which answer is acceptable, where it goes, by when, for how much.

    Immutable. Made by `job_file.load_job`, or in Python by naming the same keys; a wrong value raises pydantic's
    ValidationError (`job_file.job_from` gives JobInvalid instead).
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    """The job's name: small letters, digits and `_`, a letter first, at most 40; the Dag and the runs are named after it."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    description: str = ""
    """One line for the Airflow UI."""
    owner: str = "nightbatch"
    """Who answers for it, shown in the Airflow UI."""
    tags: tuple[Text, ...] = ()
    """Tags in the Airflow UI."""
    source: Annotated[FileSourceSpec | QuerySourceSpec | FrameSourceSpec, BeforeValidator(pick_source)]
    """Where the records are: `files:` or `query:`."""
    prompt: Prompt
    """What is asked about each record."""
    answer: Answer = Answer(text=True)
    """Which answer is acceptable; free text where it is absent."""
    redact: RedactSpec | None = None
    """What becomes a pseudonym in all that is sent, and is put back in the answers; absent: records go as they are."""
    models: Annotated[tuple[ModelChoice, ...], Field(min_length=1)]
    """The models, first choice first; the later ones take what an earlier one cannot answer."""
    sink: Annotated[TableSinkSpec | FileSinkSpec, BeforeValidator(pick_sink)]
    """Where answers go: `table:` or `files:`."""
    schedule: Cron | None = None
    """When a run starts, as a cron line in the job's time zone; absent for runs by hand only. It also cuts the windows."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    timezone: Zone = "UTC"
    """The zone of `schedule` and `deadline.at`, and of the days and months of budgets."""
    start: Day | None = None
    """The first day, in the job's time zone, whose windows must have a run; by default the window of the job's first run."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    catch_up: Literal["report", "run"] = "report"
    """What becomes of windows whose time went by without a run (Dag paused, scheduler down): `report` tells people, with the command that runs them; `run` runs them, from `start` on."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    freshness: Annotated[Duration, Field(gt=timedelta(0))] | None = None
    """How old the oldest answer in use may be before people are told, like `36h`; absent: nobody is told."""
    deadline: DeadlineSpec | None = None
    """When answers stop being useful."""
    warn_before: Duration = timedelta(0)
    """How long before the deadline people hear that it is at risk."""
    rounds: Annotated[int, Field(strict=True, ge=0, le=5)] = 2
    """How many retry rounds follow the first one, 0 to 5."""
    budget_usd: Usd | None = None
    """The most one run may cost at worst, in USD; the worst case is reserved before anything is sent."""
    budget_day_usd: Usd | None = None
    """The most all runs of the job may cost together in what they reserve on one day of the job's time zone."""
    budget_month_usd: Usd | None = None
    """The most all runs of the job may cost together in what they reserve in one calendar month of its time zone."""
    priority: Annotated[int, Field(strict=True, ge=-100, le=100)] = 0
    """Who goes first where shards of several jobs wait for a place in a vendor's queue: the higher number, −100 to 100."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    shard: ShardSpec = ShardSpec()
    """How much one batch may hold."""
    canary: CanarySpec | None = None
    """Send a few requests first, and the others only if these came back well; absent: all go at once."""
    quality: QualitySpec | None = None
    """Load answers only while they are near enough to what is usual; absent: whatever fits the schema is loaded."""
    notify: Notify = Notify()
    """Whom to tell, and of what."""
    retention: Duration = timedelta(days=30)
    """How long files between the steps are kept after a run has ended."""
    delete_vendor_files: Annotated[bool, Field(strict=True)] = True
    """Delete request and result files at the vendor once a shard is loaded; at Anthropic the batch itself, since its results are a part of it."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    max_dead_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    """A run fails if a larger share of its rows, unchanged ones included, ends as dead letters; 0 to 1."""
    min_rows: Annotated[int, Field(strict=True, ge=0)] = 0
    """A run with fewer records fails."""

    @model_validator(mode="after")
    def _fits_together(self) -> Job:
        raise_faults("job", cross_problems(self))
        return self

    @property
    def prompt_version(self) -> str:
        """Name the prompt, as it is stored with each answer: `triage-3@1f0c22a9be47`, or the hash alone."""
        return self.prompt.named

    @property
    def budget_keys(self) -> tuple[str, ...]:
        """Name the budgets that the job has."""
        keys = ("budget_usd", "budget_day_usd", "budget_month_usd")
        return tuple(key for key in keys if getattr(self, key) is not None)

    @property
    def columns_sent(self) -> tuple[str, ...]:
        """Name the columns that leave, in the templates; sorted."""
        return tuple(sorted(self.prompt.template().columns))

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that are read: the key first, then what templates and `deferrable` use, sorted."""
        used = set(self.columns_sent)
        if self.source.deferrable is not None:
            used |= Deferrable(self.source.deferrable).columns
        return (self.source.key, *sorted(used - {self.source.key}))

    @property
    def start_utc(self) -> datetime | None:
        """Give the instant from which on windows must have a run, where the job says it."""
        if self.start is None:
            return None
        return datetime.combine(self.start, time(), ZoneInfo(self.timezone)).astimezone(UTC)

    def deadline_rule(self) -> DeadlineRule | None:
        """Give the deadline as `core` reckons with it; None where the job has none."""
        if self.deadline is None:
            return None
        return DeadlineRule(self.deadline.after, self.deadline.at, self.timezone, self.warn_before)

    def endpoint(self, choice: int) -> Endpoint:
        """Say what is asked of a model: what the job says, else what fits its provider and the prompt."""
        return endpoint_of(self.models[choice], self.prompt)

    def request_spec(self, choice: int, *, max_output_tokens: int | None = None) -> RequestSpec:
        """Give all that shapes an answer besides the messages; `max_output_tokens` replaces the model's own cap."""
        model = self.models[choice]
        endpoint = self.endpoint(choice)
        is_vector = endpoint is Endpoint.EMBEDDINGS
        return RequestSpec(
            endpoint=endpoint,
            model=model.model,
            max_output_tokens=None if is_vector else max_output_tokens or model.max_output_tokens,
            temperature=None if is_vector else model.temperature,
            params=dict(model.params),
            schema=self.answer.json_schema,
            cache_prefix=self.prompt.cache_prefix,
        )

    def to_json(self) -> str:
        """
        Write the whole job, templates and schema included, so that a sealed plan needs no file; equal jobs, equal text.

        A frame that is the source is left out.
        """
        return self.model_dump_json(by_alias=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Job:
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)
