"""The watchdog: each outage is told once and its end once, whatever jobs and windows it is of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nightbatch import flow
from nightbatch import patrol as patrols
from nightbatch.adapters.memory import MemoryNotifier, MemorySink
from nightbatch.core.window import Window
from nightbatch.errors import ProviderBusy
from nightbatch.job import Job
from nightbatch.patrol import Told, patrol
from nightbatch.ports import Message, Ports
from nightbatch.steps.tell import TRIES
from nightbatch.watchdog import Watch, look, skip
from tests.memory_stack import Stack, job_of

HOUR = timedelta(hours=1)
JOB = """
name: {name}
source: {{files: memory/{name}.jsonl, key: id, time_column: at}}
prompt: {{user: "{{{{ text }}}}"}}
models: [{{provider: openai, model: echo-1, connection: c, max_output_tokens: 100}}]
sink: {{files: memory/answers/{name}}}
schedule: "0 0 * * *"
notify: {{mail: {mail}}}
"""


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def night(day: int) -> Window:
    return Window(at(day), at(day + 1))


@dataclass
class Paused:
    """Airflow, as a test says it is."""

    busy: set[tuple[str, Window]] = field(default_factory=set)

    def is_under_way(self, job: str, window: Window) -> bool:
        return (job, window) in self.busy

    def why(self, job: str, window: Window) -> str:
        return f"{job} is paused"


class Post:
    """An installation with job files, whose people are known by their address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = Stack([("k1", "text")])
        self.stack.clock.set(at(1))
        self.mail: dict[str, MemoryNotifier] = {}
        self.sinks = defaultdict[str, MemorySink](MemorySink)
        self.scheduler = Paused()

    def write(self, name: str, *, mail: str = "team@example.com", more: str = "") -> None:
        (self.folder / f"{name}.yaml").write_text(JOB.format(name=name, mail=mail) + more)

    def ran(self, name: str, *days: int) -> None:
        for day in days:
            self.stack.clock.set(max(self.stack.clock.now(), at(day + 1)))
            job = job_of(name=name, sink={"files": f"memory/answers/{name}"}, schedule="0 0 * * *")
            flow.run(self.stack.ports(sink=lambda job: self.sinks[job.name]), job, night(day))

    def ports_of(self, job: Job) -> Ports:
        notifiers = tuple(self.mail.setdefault(to, MemoryNotifier()) for to in job.notify.mail)
        return self.stack.ports(notifiers=lambda: notifiers)

    def watch(self, now: datetime) -> Watch:
        self.stack.clock.set(now)
        return Watch(self.stack.ledger, self.ports_of, now, HOUR, self.scheduler)

    def patrol(self, now: datetime) -> Told:
        return patrol(self.watch(now), self.folder)

    def heard(self, to: str = "team@example.com") -> list[Message]:
        return self.mail[to].messages if to in self.mail else []

    def titles(self, to: str = "team@example.com") -> list[str]:
        return [message.title for message in self.heard(to)]


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


def facts(message: Message) -> dict[str, str]:
    return dict(message.facts)


def test_an_outage_is_told_once_and_so_is_its_end(post: Post) -> None:
    post.write("one")
    post.ran("one", 10)

    for now in (at(12, 0), at(12, 2), at(12, 3), at(13, 2), at(14, 2)):
        post.patrol(now)

    (message,) = post.heard()
    assert message.title == "one: 1 window has no run"
    assert facts(message)["one"] == "2026-11-11 00:00 to 2026-11-12 00:00 UTC (1 window)"
    assert "one: one is paused" in message.happened
    assert message.commands[1].endswith("--from-date 2026-11-11T00:00Z --to-date 2026-11-11T00:00Z")
    assert message.event_id == "missing:one:20261111T000000Z"
    post.ran("one", 14)
    for now in (at(15, 2), at(15, 3)):
        post.patrol(now)
    assert post.titles() == ["one: 1 window has no run", "one: runs come again"]
    assert facts(post.heard()[1])["one"].startswith(
        "still without a run: 2026-11-11 00:00 to 2026-11-14 00:00 UTC (3 windows)"
    )
    assert post.heard()[1].thread == message.event_id
    # Filled from its front, nothing is told anew; and the next outage is one of its own.
    post.ran("one", 11)
    post.patrol(at(15, 4))
    post.ran("one", 12, 13)
    post.patrol(at(15, 5))
    assert len(post.heard()) == 2
    post.patrol(at(16, 2))
    assert post.titles()[2:] == ["one: 1 window has no run"]


def test_one_outage_of_many_jobs_is_one_message_for_each_group_of_people(post: Post) -> None:
    for name in ("one", "two"):
        post.write(name)
        post.ran(name, 10)
    post.write("other", mail="other@example.com")
    post.ran("other", 10)

    post.patrol(at(14, 2))

    assert post.titles() == ["2 jobs: 6 windows have no run"]
    assert post.titles("other@example.com") == ["other: 3 windows have no run"]
    post.ran("one", 11, 12, 13, 14)
    post.patrol(at(15, 2))
    assert len(post.heard()) == 1, "it is not over for the second job"
    post.ran("two", 14)
    post.patrol(at(15, 3))
    assert post.titles()[1:] == ["2 jobs: runs come again"]


def test_a_job_that_goes_out_while_another_is_out_is_told(post: Post) -> None:
    for name in ("one", "two"):
        post.write(name)
        post.ran(name, 10)
    post.ran("two", 11)

    post.patrol(at(12, 2))
    post.patrol(at(13, 2))

    assert post.titles() == ["one: 1 window has no run", "two: 1 window has no run"]


def test_a_gap_that_is_over_when_it_is_seen_is_one_message(post: Post) -> None:
    """The scheduler was down for two nights, and the watchdog with it."""
    post.write("one")
    post.ran("one", 10, 13)

    post.patrol(at(14, 2))
    post.patrol(at(14, 3))

    (message,) = post.heard()
    assert message.title == "one: 2 windows have no run"
    assert message.happens_next == "Windows that went by are not run by themselves."
    assert message.commands[1].endswith("--from-date 2026-11-11T00:00Z --to-date 2026-11-12T00:00Z")


def test_what_airflow_has_in_hand_is_not_missing(post: Post) -> None:
    post.write("one")
    post.ran("one", 10)
    post.scheduler.busy = {("one", night(11))}

    assert post.patrol(at(12, 5)).messages == []
    post.scheduler.busy.clear()
    assert len(post.patrol(at(12, 6)).messages) == 1


def test_a_job_whose_file_no_longer_checks_is_watched_as_it_was_and_told_why(post: Post) -> None:
    post.ran("one", 10)
    (post.folder / "renamed.yaml").write_text("name: one\nmodels: [")

    (sighting,) = look(post.watch(at(12, 2)), post.folder)

    assert sighting.windows == 1
    assert sighting.why.startswith("its job file renamed.yaml cannot be used: ")


def test_a_job_whose_file_is_gone_is_watched_until_somebody_says_that_it_is_over(post: Post) -> None:
    post.ran("one", 10)
    (sighting,) = look(post.watch(at(12, 2)), post.folder)
    assert sighting.why == f"one is paused; no job file in {post.folder} has its name"

    skip(post.stack.ledger, "one", at(11), None, now=at(12, 2))

    (sighting,) = look(post.watch(at(20, 2)), post.folder)
    assert sighting.gaps == ()
    post.ran("one", 20)
    (sighting,) = look(post.watch(at(23, 2)), post.folder)
    assert [gap.span.start for gap in sighting.gaps] == [at(21)]


def test_skipped_windows_end_an_outage(post: Post) -> None:
    post.write("one")
    post.ran("one", 10)
    post.patrol(at(12, 2))

    skip(post.stack.ledger, "one", at(11), at(12), now=at(12, 3))
    post.patrol(at(12, 4))

    assert "every window has its run, or was said to need none" in post.heard()[1].happened


def test_a_start_in_the_job_file_expects_windows_before_any_run(post: Post) -> None:
    post.write("one", more="start: 2026-11-10\ncatch_up: run\n")

    told = post.patrol(at(12, 2))

    assert told.sightings[0].windows == 2
    (message,) = post.heard()
    assert message.happens_next.startswith("Airflow runs what one missed by itself once it can (catch_up: run).")
    assert message.commands == ("nightbatch status one", "nightbatch skip one")


def test_a_hole_before_the_last_run_is_left_to_people_also_where_the_job_catches_up(post: Post) -> None:
    """Airflow only goes forward from its last scheduled run."""
    post.write("one", more="start: 2026-11-10\ncatch_up: run\n")
    post.ran("one", 10, 12)

    post.patrol(at(13, 2))

    (message,) = post.heard()
    assert message.happens_next == "Windows that went by are not run by themselves."
    assert message.commands[1].endswith("--from-date 2026-11-11T00:00Z --to-date 2026-11-11T00:00Z")


def test_old_answers_are_told_once_where_the_job_says_how_old_they_may_be(post: Post) -> None:
    quiet = "notify: {mail: team@example.com, on: stale}\n"
    (post.folder / "one.yaml").write_text(JOB.format(name="one", mail="x").split("notify")[0] + quiet)
    post.ran("one", 10)
    post.patrol(at(12, 20))
    assert post.heard() == [], "nobody asked to hear of missing runs, or said how old answers may be"
    text = (post.folder / "one.yaml").read_text()
    (post.folder / "one.yaml").write_text(text + "freshness: 36h\n")

    post.patrol(at(12, 11))
    for now in (at(12, 20), at(13, 20)):
        post.patrol(now)

    (message,) = post.heard()
    assert (message.kind, message.title) == ("stale", "one: answers in use are too old")
    assert (
        facts(message)["one"] == "44 h 0 min (all windows up to 2026-11-11 00:00 UTC are answered, 36 h 0 min allowed)"
    )
    post.ran("one", 11, 12, 13)
    post.patrol(at(14, 2))
    post.patrol(at(14, 3))
    assert post.titles()[1:] == ["one: answers in use are fresh again"]


def test_a_pass_that_died_after_it_wrote_down_is_made_good_by_the_next(post: Post) -> None:
    post.write("one")
    post.ran("one", 10)

    def dies(job: Job) -> Ports:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patrol(replace(post.watch(at(12, 2)), ports_of=dies), post.folder)
    for now in (at(12, 3), at(12, 4)):
        post.patrol(now)

    assert post.titles() == ["one: 1 window has no run"]


def test_what_reached_nobody_is_said(post: Post) -> None:
    post.write("one")
    post.ran("one", 10)
    post.mail["team@example.com"] = MemoryNotifier()
    post.mail["team@example.com"].failures += [ProviderBusy("mail", "sending", cause="refused")] * TRIES

    told = post.patrol(at(12, 2))

    assert [message.kind for message in told.unheard] == ["missing"]
    assert post.stack.ledger.deliveries(patrols.ABOUT) == []
