"""What a newcomer does in Airflow's UI, in a real browser: each test ends with a picture in `.ui/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from nightbatch.core.window import Window
from tests.e2e.stand import DAYS
from tests.ui.browser import SCREEN, Person, signed_in
from tests.ui.jobs import Night, open_night

pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    with open_night(tmp_path_factory.mktemp("ui")) as night:
        yield night


@pytest.fixture
def person(night: Night) -> Iterator[Person]:
    airflow = night.stand.installation.airflow
    with signed_in(airflow.address, user=airflow.login.user, password=airflow.login.password) as person:
        yield person


def path_of(job: str, run: str, *more: str) -> str:
    """Give the path of a run's page, or of what is below it."""
    return "/".join(["/dags", job, "runs", quote(run, safe=""), *more])


def runs_of(night: Night, job: str, kind: str) -> list[dict[str, str]]:
    """List a job's runs of a kind."""
    return [run for run in night.stand.api.dag_runs(job) if run["run_type"] == kind]


def test_the_trigger_form_tells_what_each_field_does_and_runs_a_window(night: Night, person: Person) -> None:
    before = {run["dag_run_id"] for run in runs_of(night, "feedback", "manual")}
    person.opens("/dags/feedback")
    person.presses("Trigger Dag")
    form = person.form()
    expect(form).to_contain_text("Needed: this job has no schedule that would tell it.")
    for part, fields in {
        "Another model, a dry run, or paying again": ["Model", "Deadline (SLA)", "Dry run", "Refresh", "Force"],
        "After a bad run: release, discard, retry": ["Release what was held back", "Retry dead letters: reasons"],
    }.items():
        form.get_by_text(part).click()
        for field in fields:
            expect(form.get_by_text(field, exact=True)).to_be_visible()
    form.get_by_text("Run Parameters").click()
    empty = form.get_by_text("Select date and time")
    for moment in (DAYS[1], DAYS[1] + DAY):
        # What is chosen no longer says so, so that the next field is the first one again.
        person.chooses(empty.locator("visible=true").first, moment)
    form.locator("input[name=element_limit]").fill("40")
    person.takes_picture("trigger-form", for_readme=True)
    form.get_by_test_id("trigger-dag-submit").click()
    expect(form).to_be_hidden()

    [run] = [run["dag_run_id"] for run in runs_of(night, "feedback", "manual") if run["dag_run_id"] not in before]
    assert night.stand.end("feedback", run) == "success"
    window = Window(DAYS[1], DAYS[1] + DAY)
    assert night.stand.rows("select count(*) from feedback where nb_window_start = %s", window.start) == [(40,)]


def test_a_backfill_of_three_days_is_asked_for_in_the_same_form(night: Night, person: Person) -> None:
    person.opens("/dags/nightly")
    person.presses("Trigger Dag")
    form = person.form()
    form.get_by_text("Backfill", exact=True).click()
    empty = form.get_by_text("Select date and time")
    for moment in (DAYS[1], DAYS[3]):
        person.chooses(empty.locator("visible=true").first, moment)
    expect(form).to_contain_text("3 runs will be triggered")
    person.takes_picture("backfill-form")
    form.get_by_role("button", name="Run Backfill").click()
    expect(form).to_be_hidden()

    ids = [run["dag_run_id"] for run in runs_of(night, "nightly", "backfill")]
    assert [night.stand.end("nightly", run) for run in ids] == ["success"] * 3
    days = night.stand.rows("select distinct nb_window_start from nightly order by 1")
    assert [day for (day,) in days] == DAYS[1:4]
    person.opens("/dags/nightly")
    for run in ids:
        expect(person.page.locator(f"a[href*='{run}']").first).to_be_visible()
    person.takes_picture("backfill-grid")


def test_the_grid_shows_both_retry_rounds_and_names_each_shard(night: Night, person: Person) -> None:
    person.opens(path_of("feedback", night.feedback))
    for shard in ("r0-s000 · 260 rows · gpt-5-mini", "r1-s000", "r2-s000"):
        person.sees(shard)
    person.page.get_by_label("Expand all task groups").click()
    for task in ("round_0", "round_1", "round_2", "settle"):
        person.sees(task)
    person.takes_picture("two-retry-rounds", for_readme=True)


def test_the_first_screen_of_a_failed_shards_log_tells_the_cause(night: Night, person: Person) -> None:
    """Without a scroll to any side, and without a stack of our code below it."""
    person.opens(path_of("locked_out", night.locked_out, "tasks/round_0.batch/mapped/0"))
    cause = person.sees(re.compile(r"^the account at openai cannot be used .*: the key was refused", re.DOTALL))
    expect(cause).to_contain_text("Mend the key or the credit, then clear the run, or run the window again.")
    box = cause.bounding_box()
    assert box is not None
    bottom = box["y"] + box["height"]
    assert box["x"] + box["width"] < SCREEN["width"]
    assert "calls.py" not in person.page.inner_text("body"), "the stack of what was raised on purpose buries the cause"
    # Below it is Airflow's own stack, with the paths of the machine.
    person.takes_picture("failed-shard", for_readme=True, down_to=bottom + 2)


def test_the_details_of_a_shard_lead_to_its_batch(night: Night, person: Person) -> None:
    person.opens(path_of("feedback", night.feedback, "tasks/round_0.batch/mapped/0/details"))
    link = person.sees("Batch at the vendor")
    expect(link).to_have_attribute("href", night.stand.vendors["feedback"].address)
    person.takes_picture("batch-link")


def test_the_asset_tells_what_the_run_loaded(night: Night, person: Person) -> None:
    person.opens("/assets")
    person.sees("feedback_answers").click()
    person.page.get_by_title("Click to expand the range").first.click()
    expect(person.page.locator(".view-lines").first).to_contain_text(re.compile(r'"good":\s*(756|40)\b'))
    person.takes_picture("asset")
