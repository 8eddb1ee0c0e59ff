"""The admin surface: what tests ask after the fact, and faults at run time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import httpx
import pytest

from nightbatch.emulator import Account, Faults, UnknownFault


def test_a_person_who_follows_the_button_of_a_shard_is_told_where_they_are(calm):
    page = httpx.get(calm.url)

    assert (page.status_code, "Batch at the vendor" in page.text) == (200, True)


def test_health_needs_no_key(calm):
    assert httpx.get(f"{calm.url}/emulator/health").json() == {"status": "ok"}


def test_state_tells_how_many_batches_there_are_and_what_they_cost(rehearse, chats, letters):
    stage = rehearse("permanent=0.4")
    stage.run(chats(20), metadata={"run": "r1"})
    stage.run_messages(letters(10))
    first, second = stage.state()["batches"]

    assert (first["vendor"], first["rows"], first["metadata"]) == ("openai", 20, {"run": "r1"})
    assert first["billed_rows"] == first["good_rows"] == 20 - first["rows_by_ending"]["permanent"]
    assert (second["vendor"], second["account"], second["models"]) == (
        "anthropic",
        "org-emulator/default",
        ["claude-sonnet-4-6"],
    )
    assert stage.state()["creations"] == {"openai": 1, "anthropic": 1}
    assert stage.state()["requests"]["openai create_batch"] == 1


def test_state_tells_a_good_answer_that_was_paid_for_twice(calm, chats):
    calm.run(chats(3))
    assert calm.state()["rows"]["good_twice"] == 0

    calm.run(chats(1))
    rows = calm.state()["rows"]
    assert (rows["questions"], rows["billed"], rows["good_twice"], rows["billed_twice"]) == (3, 4, 1, 1)
    assert [(row["billed"], row["good"]) for row in rows["repeated"]] == [(2, 2)]


def test_state_tells_a_truncated_answer_that_was_asked_for_again_apart_from_waste(rehearse, chats):
    stage = rehearse("truncated=1")
    stage.run(chats(1))
    stage.run(chats(1, max_completion_tokens=900))
    rows = stage.state()["rows"]

    assert (rows["billed_twice"], rows["good_twice"]) == (1, 0)


def test_the_same_question_of_another_workspace_is_another_question(rehearse, chats):
    stage = rehearse(accounts=(Account("sk-emulator"), Account("sk-other", workspace="other")))
    other, _ = stage.clients("sk-other")
    stage.run(chats(1))
    stage.create(chats(1), client=other)

    assert stage.state()["rows"]["good_twice"] == 0


def test_faults_can_be_set_changed_and_ended_at_run_time(calm, chats):
    url = "/emulator/faults"

    assert calm.http.put(url, json={"permanent": 1}).json()["permanent"] == 1
    assert calm.run(chats(1)).request_counts.failed == 1
    assert calm.http.patch(url, json={"http_429": 1}).json()["permanent"] == 1
    assert calm.http.get("/v1/batches").status_code == 429
    assert calm.http.get(url).json()["http_429"] == 1
    assert calm.http.delete(url).json() == Faults().as_dict()
    assert calm.run(chats(1)).request_counts.failed == 0


def test_setting_faults_again_gives_their_counts_back(calm):
    statuses = []
    for _ in range(2):
        calm.http.put("/emulator/faults", json={"http_429": 1})
        statuses += [calm.http.get("/v1/batches").status_code for _ in range(2)]

    assert statuses == [429, 200, 429, 200]


@pytest.mark.parametrize("faults", [{"nope": 1}, {"permanent": 2}, {"permanent": "much"}, {"stuck": "ended"}, [1]])
def test_faults_that_make_no_sense_are_refused(calm, faults):
    assert calm.http.put("/emulator/faults", json=faults).status_code == 400


def test_faults_are_read_from_text():
    faults = Faults.parse("transient=0.1, shuffle, http_429=2,stuck=validating")

    assert (faults.transient, faults.shuffle, faults.http_429, faults.stuck) == (0.1, True, 2, "validating")
    with pytest.raises(UnknownFault, match="no such fault: typo"):
        Faults.parse("typo=1")


def test_every_fault_stands_in_the_documentation_with_its_default():
    text = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    missing = [one.name for one in dataclasses.fields(Faults) if f"| `{one.name}` |" not in text]

    assert missing == []
