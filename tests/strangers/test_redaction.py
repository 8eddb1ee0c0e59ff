"""Originals are planted, a job redacts them, and all that leaves, is logged or is kept is searched."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from tests.strangers.desk import Desk, desk, parrot

__all__ = ["desk", "parrot"]

FUNCTION = """
def names(text):
    at = text.find("Zebrafinch McQuill")
    return [(at, at + 18)] if at >= 0 else []
"""
REDACT = r"""
redact:
  patterns: {email: '[\w.+-]+@[\w-]+(\.[\w-]+)+', phone: '\+\d[\d ]{7,}\d'}
  functions: {person: planted_privacy.names}
delete_vendor_files: false
retention: 0
"""
KEY = {"Authorization": "Bearer sk-emulator"}
PLANTED = ("Zebrafinch", "McQuill", "@planted.example", "+49 30 5551234")
TEXTS = [f'{n}: Zebrafinch McQuill <z{n}@planted.example>, "+49 30 5551234{n}",\nasks' for n in range(9)]


@pytest.fixture
def private(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose job redacts, with a function of the deployer's own."""
    desk.put("lib/planted_privacy.py", FUNCTION)
    monkeypatch.syspath_prepend(str(desk.folder / "lib"))
    monkeypatch.setenv("NIGHTBATCH_REDACT_MODULES", "planted_privacy, another")
    desk.job(more=REDACT)
    return desk


def uploads(url: str) -> Iterator[str]:
    """Give every request and result file that the vendor holds, as it stands there."""
    with httpx.Client(base_url=f"{url}/v1", headers=KEY) as vendor:
        for file in vendor.get("/files", params={"limit": 10_000}).json()["data"]:
            yield vendor.get(f"/files/{file['id']}/content").text


def faults(url: str, **shares: float) -> None:
    """Put these faults, and no others, in force at the vendor."""
    httpx.put(f"{url}/emulator/faults", json=shares, headers=KEY).raise_for_status()


def holders(folder: Path) -> set[str]:
    """Name the kinds of files below a folder that hold something planted."""
    found = set()
    for file in (file for file in folder.rglob("*") if file.is_file()):
        content = file.read_bytes().decode(errors="replace")
        if file.suffix == ".parquet":
            content = str(pq.read_table(file).to_pylist())
        if any(planted in content for planted in PLANTED):
            found.add("staging/" + file.name if ".nightbatch/staging" in str(file) else str(file.relative_to(folder)))
    return found


def test_originals_stay_at_home_through_failures_retries_and_the_next_run(
    private: Desk, parrot: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    nights = [{f"k{number}": text for number, text in enumerate(TEXTS) if number % 3 == night} for night in range(3)]
    ended = []
    for night, spoilt in enumerate([{"permanent": 1.0}, {"expired": 1.0}, {}]):
        lines = [json.dumps({"id": key, "text": text}) for key, text in nights[night].items()]
        private.put("records.jsonl", "\n".join(lines) + "\n")
        when = ("tickets.yaml", "--from", f"2026-10-0{night + 1}")
        faults(parrot, **spoilt)
        ended.append(private.type("run", *when))
        faults(parrot)
    ended += [private.type("plan", *when), private.type("try", *when)]

    assert [one.code for one in ended] == [0, 1, 0, 0, 0], ended
    assert private.reasons() == dict.fromkeys(nights[0], "invalid_request")
    assert private.answers() == nights[1] | nights[2], "the pending rows of the second night come with the third"
    at_the_vendor = list(uploads(parrot))
    assert sum(file.count("person_") for file in at_the_vendor) >= len(TEXTS), "the requests were not looked at"
    told = "\n".join([*map(str, ended), caplog.text, *at_the_vendor])
    assert [planted for planted in PLANTED if planted in told] == []
    home = {file for file in holders(private.folder) if not file.startswith(("answers/answers/", "lib/"))}
    assert home == {"records.jsonl", "staging/index.parquet", "staging/pending.parquet"}
    assert private.type("tidy").code == 0
    assert not any(file.startswith("staging/") for file in holders(private.folder)), "they go with the retention"


def test_only_the_columns_that_a_template_names_leave(desk: Desk, parrot: str) -> None:
    """Neither a column beside them, nor the key, nor what `deferrable` looks at."""
    leaks = {"id": "leak-of-key", "note": "leak-of-note", "channel": "leak-of-channel"}
    desk.put("records.jsonl", json.dumps({**leaks, "text": "hello"}) + "\n")
    desk.job(more="delete_vendor_files: false")
    job = (desk.folder / "tickets.yaml").read_text()
    (desk.folder / "tickets.yaml").write_text(job.replace("key: id", "key: id, deferrable: channel != 'urgent'"))

    ended = desk.run()

    assert (ended.code, ended.books["good"]) == (0, 1), ended
    at_the_vendor = list(uploads(parrot))
    assert any("hello" in file for file in at_the_vendor)
    assert not any("leak-of" in file for file in at_the_vendor)


REFUSED = {
    "{patterns: {email: '(?=x)'}}": "it is no pattern: invalid perl operator",
    "{patterns: {email: '.*'}}": "it matches where there is nothing",
    "{patterns: {E-Mail: x}}": "redact.patterns",
    "{pattern: {email: x}}": "Did you mean patterns?",
    "{}": "neither patterns nor functions are set",
    "{functions: {person: names}}": "redact.functions.person",
    "{functions: {person: os.system}}": "redact.functions.person: module os is not one that this installation lets",
}


def test_what_a_job_file_may_not_say_is_told_before_anything_is_read(private: Desk) -> None:
    files = [f"job{number}.yaml" for number in range(len(REFUSED))]
    for file, line in zip(files, REFUSED, strict=True):
        private.job(more=f"redact: {line}")
        (private.folder / "tickets.yaml").rename(private.folder / file)
    private.job(more="redact: {functions: {person: os.system}}")

    checked, ran = private.type("check", *files), private.run()

    assert (checked.code, ran.code) == (2, 2)
    for file, said in zip(files, REFUSED.values(), strict=True):
        assert said in str(checked.answer["jobs"][file]), checked.answer
    assert "redact.functions.person: module os is not one" in str(ran)
