"""Prompts by name: versions, hashes and files, and a sentence where a name says nothing, or too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightbatch.errors import JobInvalid
from nightbatch.job import Prompt
from nightbatch.job_prompts import prompt_named
from tests.memory_stack import job_of

V3, V4 = Prompt(user="Old: {{ text }}", version="v3"), Prompt(user="New: {{ text }}", version="v4", system="Be brief")
EDITED, NAMELESS = Prompt(user="Edited: {{ text }}", version="v3"), Prompt(user="Other: {{ text }}")
JOB = job_of(prompt=V4.model_dump())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("v4", V4),
        ("v3", V3),
        (V3.named, V3),
        (V3.digest(), V3),
        (NAMELESS.digest()[:6], NAMELESS),
    ],
)
def test_a_prompt_is_named_by_its_version_its_hash_or_both(name: str, meant: Prompt) -> None:
    assert prompt_named(JOB, name, [NAMELESS, V3, V4]) == meant


def test_a_version_that_was_edited_is_named_by_its_hash() -> None:
    with pytest.raises(JobInvalid, match=f"2 prompts are named 'v3'. Name one by its hash: {EDITED.named}, {V3.named}"):
        prompt_named(JOB, "v3", [EDITED, V3])

    assert prompt_named(JOB, EDITED.named, [EDITED, V3]) == EDITED


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(JobInvalid, match=f"has had no prompt 'v9', and there is no such file.*{V3.named}, {V4.named}"):
        prompt_named(JOB, "v9", [V3])


def test_a_file_is_a_template_or_the_keys_of_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "short.j2").write_text("Short: {{ text }}\r\n", encoding="utf-8")
    (tmp_path / "whole.yaml").write_text('system: You are terse.\nuser: "{{ text }}?"\n', encoding="utf-8")

    short = prompt_named(JOB, str(tmp_path / "short.j2"), [])
    whole = prompt_named(JOB, str(tmp_path / "whole.yaml"), [])

    assert (short.system, short.user, short.named) == ("Be brief", "Short: {{ text }}", f"short@{short.digest()}")
    assert (whole.system, whole.user, whole.version) == ("You are terse.", "{{ text }}?", "whole")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.j2", b"{{ text ", "is no prompt: "),
        ("a.j2", b"\xff", "cannot be read"),
        ("a.yaml", b"- a list", "holds no keys of a prompt"),
        ("a.yaml", b"user: x\ncolour: red", "is no prompt: "),
    ],
)
def test_a_file_that_is_no_prompt_is_a_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(JobInvalid, match=said):
        prompt_named(JOB, str(tmp_path / name), [])
