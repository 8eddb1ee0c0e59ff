"""Job files: a good one gives a job, a bad one all of its problems, each with its line and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightbatch.errors import JobInvalid
from nightbatch.job import Job
from nightbatch.job_file import job_from, load_job, load_jobs
from nightbatch.job_meanings import _own
from nightbatch.job_yaml import read_yaml

PARTS = {
    "name": "name: reviews",
    "source": "source:\n"
    "  query: select id, text from t where at >= :window_start and at < :window_end\n"
    "  connection: warehouse\n"
    "  key: id",
    "prompt": 'prompt:\n  user: "Rate {{ text }}"',
    "answer": "answer:\n  text: true",
    "models": "models:\n  - {provider: openai, model: m, connection: c, max_output_tokens: 100}",
    "sink": "sink:\n  table: answers\n  connection: warehouse",
}
SCHEMA = "answer: {schema: {type: object, properties: {a: {type: string}}, required: [a]}}"


def job_text(**changes: str) -> str:
    """Write a job file: good parts, each replaced, added, or (empty) left out as the test wants it."""
    return "\n".join(part for part in (PARTS | changes).values() if part) + "\n"


def problems_of(tmp_path: Path, text: str | bytes) -> list[str]:
    """Load a file and give its problems as people see them."""
    file = tmp_path / "job.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        load_job(file)
    except JobInvalid as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_good_file_gives_a_job(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(job_text())

    job = load_job(file)

    assert isinstance(job, Job)
    assert (job.name, job.columns) == ("reviews", ("id", "text"))


BROKEN = {
    "no name": ({"name": ""}, "name: it is missing. Add it: The job's name"),
    "a name with capitals": (
        {"name": "name: Reviews"},
        "line 1: name: 'Reviews' does not have the right form. Use small",
    ),
    "a name that is a number": ({"name": "name: 2026"}, "line 1: name: 2026 is not text. Put it in quotes."),
    "an unknown key": ({"x": 'schedul: "0 0 * * *"'}, "schedul: this key is not known. Did you mean schedule?"),
    "an unknown key inside": (
        {"prompt": "prompt:\n  user: x\n  sistem: y"},
        "line 8: prompt.sistem: this key is not known. Did you mean system?",
    ),
    "a key like no other": ({"x": "zzz: 1"}, "zzz: this key is not known. Known keys here: name, description"),
    "a part that is text": (
        {"prompt": "prompt: Rate it"},
        "prompt: 'Rate it' is not a mapping of keys. Write its keys",
    ),
    "a source that is text": ({"source": "source: s3://a/b"}, "source: it is not a mapping of keys. Write its keys"),
    "no source": ({"source": ""}, "source: it is missing. Add it: Where the records are"),
    "two sources": (
        {"source": "source: {files: s3://a/b/, query: select 1, key: id}"},
        "source: both files and query are set. Keep the one that is the source.",
    ),
    "half a source": ({"source": "source: {key: id}"}, "source: it has neither files nor query. Say where"),
    "a frame in a file": (
        {"source": "source: {frame: x, key: id}"},
        "source.frame: a table in memory can be given in Python only.",
    ),
    "a query about no window": (
        {"source": "source: {query: select * from t, connection: w, key: id}"},
        "source.query: it does not use :window_start and :window_end, so each run would read everything again. Add",
    ),
    "a query without a connection": (
        {"source": 'source: {query: "select :window_start, :window_end", key: id}'},
        "source.connection: it is missing. Add it: The connection of the database.",
    ),
    "no key": ({"source": "source: {files: s3://a/b/}"}, "source.key: it is missing. Add it: The column that names"),
    "an unknown format": (
        {"source": "source: {files: s3://a/b/, key: id, format: xml}"},
        "source.format: 'xml' is none of the known words. Write one of 'parquet', 'jsonl' or 'csv'.",
    ),
    "an unknown scheme": (
        {"source": "source: {files: s4://a/b/, key: id}"},
        "source.files: files cannot be reached by s4://. Use one of s3, gs,",
    ),
    "a secret in an address": (
        {"source": "source: {files: s3://me:secret@a/b/, key: id}"},
        "source.files: it holds a user name or a secret. Keep secrets in the connection",
    ),
    "no bucket": ({"source": "source: {files: 's3:///b', key: id}"}, "source.files: it names no bucket. Write it like"),
    "deferrable that is none": (
        {"source": "source: {files: s3://a/b/, key: id, deferrable: 'a ='}"},
        "source.deferrable: the expression cannot be read:",
    ),
    "no prompt": ({"prompt": ""}, "prompt: it is missing. Add it: What is asked about each record."),
    "no user template": (
        {"prompt": "prompt: {system: hi}"},
        "prompt: there is no user template. Set user, user_file, or",
    ),
    "an empty template": ({"prompt": "prompt: {user: ' '}"}, "prompt.user: it is empty. Write what to ask"),
    "a template error": (
        {"prompt": "prompt:\n  user: |\n    Rate\n    {{ text"},
        "line 7: prompt.user: template line 2: unexpected end of template",
    ),
    "a template that reads files": (
        {"prompt": "prompt: {user: \"{% include 'x' %}\"}"},
        "prompt.user: template line 1: a template cannot include, import or extend another file. Correct the template",
    ),
    "a system template error": (
        {"prompt": "prompt: {user: a, system: '{{ a|foo }}'}"},
        "prompt.system: template line 1: there is no filter named 'foo'.",
    ),
    "embed and user": (
        {"prompt": "prompt: {user: a, embed: b}"},
        "prompt: both embed and system or user are set. Keep embed for vectors",
    ),
    "no answer kind": ({"answer": "answer: {text: false}"}, "answer: it says neither text nor schema. Set schema,"),
    "two answer kinds": (
        {"answer": SCHEMA[:-1] + ", text: true}"},
        "answer: both text and a schema are set. Keep text",
    ),
    "a schema that is none": (
        {"answer": "answer: {schema: {type: objekt}}"},
        "answer.schema: it is no JSON Schema: at /type:",
    ),
    "a schema of an array": (
        {"answer": "answer: {schema: {type: array, items: {type: string}}}"},
        "answer.schema: the answer is not an object with properties. Write type: object",
    ),
    "a schema that is open": (
        {"answer": SCHEMA[:-2] + ", additionalProperties: true}}"},
        "answer.schema.additionalProperties: strict structured output allows no further properties. Set it to false",
    ),
    "an optional property": (
        {"answer": "answer: {schema: {type: object, properties: {a: {type: string}, b: {}}, required: [a]}}"},
        "answer.schema.required: it leaves out b. List every property",
    ),
    "a keyword that is not strict": (
        {"answer": SCHEMA.replace("{type: string}", "{oneOf: [{type: string}]}")},
        "answer.schema.properties.a.oneOf: strict structured output does not know oneOf. Use anyOf.",
    ),
    "a schema that is fetched": (
        {"answer": SCHEMA.replace("{type: string}", '{$ref: "http://127.0.0.1:9/"}')},
        "answer.schema: it is no JSON Schema: at /: Resource",
    ),
    "no models": ({"models": "models: []"}, "line 10: models: the list is empty. Name at least one."),
    "a model that is text": ({"models": "models: [gpt]"}, "models.0: 'gpt' is not a mapping of keys."),
    "models that are one": (
        {"models": "models: {provider: openai, model: m, connection: c}"},
        "models: a mapping is not a list. Write items below it, each with a dash",
    ),
    "a model without a connection": (
        {"models": "models:\n  - {provider: openai, model: m}"},
        "line 11: models.0.connection: it is missing. Add it: The connection with the key.",
    ),
    "an unknown endpoint": (
        {"models": "models:\n  - {provider: openai, model: m, connection: c, endpoint: chatt}"},
        "models.0.endpoint: 'chatt' is none of the known words. Write one of 'chat', 'responses'",
    ),
    "an endpoint for vectors": (
        {"models": "models:\n  - {provider: openai, model: m, connection: c, endpoint: embeddings}"},
        "models.0.endpoint: embeddings does not fit a prompt with user. Use embeddings with prompt.embed",
    ),
    "a parameter of ours": (
        {"models": "models:\n  - {provider: openai, model: m, connection: c, params: {max_completion_tokens: 9}}"},
        "models.0.params.max_completion_tokens: it is said elsewhere in the job file. Use max_output_tokens",
    ),
    "two equal models": (
        {"models": "models:\n" + "  - {provider: openai, model: m, connection: c}\n" * 2},
        "line 12: models.1: it is the same as model 0, which could not answer either. Remove one",
    ),
    "a cap of zero": (
        {"models": "models:\n  - {provider: openai, model: m, connection: c, max_output_tokens: 0}"},
        "models.0.max_output_tokens: 0 is not more than 0. Write a number above 0.",
    ),
    "anthropic without a cap": (
        {"models": "models:\n  - {provider: anthropic, model: m, connection: c}"},
        "models.0.max_output_tokens: this endpoint takes no request without a cap on output tokens. Set",
    ),
    "a budget without a cap": (
        {"models": "models:\n  - {provider: openai, model: m, connection: c}", "x": "budget_usd: 5"},
        "models.0.max_output_tokens: budget_usd cannot be kept without a cap on output tokens. Set max_output_tokens",
    ),
    "a budget of nothing": ({"x": "budget_usd: 0"}, "budget_usd: 0 is not more than 0. Write a number above 0."),
    "a negative budget": ({"x": "budget_usd: -5"}, "budget_usd: -5 is not more than 0. Write a number above 0."),
    "a budget with a sign": ({"x": "budget_usd: $5"}, "budget_usd: '$5' is not a number. Write an amount, like 2.50."),
    "no sink": ({"sink": "sink: {connection: w}"}, "sink: it has neither table nor files. Say where answers go"),
    "a bad table": (
        {"sink": "sink: {table: 'a;drop', connection: w}"},
        "sink.table: 'a;drop' is no name of a table. Use",
    ),
    "dead letters among answers": (
        {"sink": "sink: {table: a, connection: w, dead_letters: A}"},
        "sink: answers and dead letters go to one table. Give dead_letters a table of its own.",
    ),
    "a sink that is a pattern": (
        {"sink": "sink: {files: 's3://a/*.parquet'}"},
        "sink.files: 's3://a/*.parquet' is a pattern. Name one folder",
    ),
    "a table that feeds itself": (
        {"sink": "sink: {table: t, connection: warehouse}"},
        "sink.table: the query reads t and the answers go there too. Write the answers to a place of their own.",
    ),
    "a folder that feeds itself": (
        {"source": "source: {files: s3://a/b/, key: id}", "sink": "sink: {files: 's3://a//b'}"},
        "sink.files: the next run would read its answers from s3://a/b as records. Write",
    ),
    "a sink below the source": (
        {"source": "source: {files: s3://a/b, key: id}", "sink": "sink: {files: s3://a/b/out/}"},
        "sink.files: the next run would read its answers from s3://a/b as records. Write",
    ),
    "a cron line of four": (
        {"x": 'schedule: "0 0 * *"'},
        "schedule: '0 0 * *' has 4 fields instead of 5. Write minute",
    ),
    "a cron hour of 25": ({"x": 'schedule: "0 25 * * *"'}, "schedule: '25' is no hour. Use numbers from 0 to 23."),
    "a cron nickname": ({"x": 'schedule: "@daily"'}, "schedule: '@daily' is a nickname. Write the five fields"),
    "a day that never comes": ({"x": 'schedule: "0 0 31 2 *"'}, "schedule: '0 0 31 2 *' never comes. Choose a day"),
    "an unknown zone": (
        {"x": "timezone: Europe/Berln"},
        "timezone: there is no time zone 'Europe/Berln'. Did you mean E",
    ),
    "two deadlines": ({"x": 'deadline: {after: 6h, at: "07:00"}'}, "deadline: both after and at are set. Set one of"),
    "no deadline": ({"x": "deadline: {}"}, "deadline: neither after nor at is set. Set one of them: after: 6h"),
    "a time without quotes": ({"x": "deadline: {at: 7}"}, "deadline.at: 7 is no time of day. Write hours and minutes"),
    "a span without a unit": (
        {"x": "deadline: {after: 6}"},
        "deadline.after: 6 has no unit. Write a whole number with",
    ),
    "a warning before nothing": ({"x": "warn_before: 1h"}, "warn_before: there is no deadline to warn before. Set"),
    "a warning from the start": (
        {"x": "deadline: {after: 1h}\nwarn_before: 90m"},
        "warn_before: it is not shorter than deadline.after, so every run would be at risk from its start. Make it",
    ),
    "six rounds": ({"x": "rounds: 6"}, "rounds: 6 is more than 5. Write a number up to 5."),
    "rounds that are true": ({"x": "rounds: true"}, "rounds: True is not a whole number. Write digits only, without"),
    "a share of five": ({"x": "max_dead_share: 5"}, "max_dead_share: 5 is more than 1. Write a number up to 1."),
    "a size in words": (
        {"x": "shard: {max_bytes: lots}"},
        "shard.max_bytes: 'lots' is no size. Write bytes as a whole",
    ),
    "a mail address": (
        {"x": "notify: {mail: nobody}"},
        "notify.mail.0: 'nobody' does not have the right form. Write an",
    ),
    "a mail header": (
        {"x": 'notify: {mail: ["a@b.c\\nBcc: d@e.f"]}'},
        "notify.mail.0: 'a@b.c\\nBcc: d@e.f' does not have the right form.",
    ),
    "an unknown occasion": (
        {"x": "notify: {on: [laet]}"},
        "notify.on.0: 'laet' is none of the known words. Write one of 'at_risk', 'late', 'failed', 'missing', ",
    ),
    "a schema for vectors": (
        {
            "prompt": 'prompt: {embed: "{{ text }}"}',
            "models": "models:\n  - {provider: openai, model: m, connection: c}",
            "answer": SCHEMA,
        },
        "answer.schema: an embedding is a vector and fits no schema. Remove the schema, or ask with user.",
    ),
    "a key that stands twice": (
        {"x": "rounds: 1\nowner: me\nrounds: 2"},
        "line 17: rounds: the key stands here and in line 15. Keep one of them.",
    ),
    "YAML that executes": (
        {"x": "owner: !!python/object/apply:os.system ['echo gotcha']"},
        "line 15: owner: the tag !!python/object/apply:os.system is not allowed. Write a plain value; nothing is run.",
    ),
    "a tag of one's own": ({"x": "owner: !vault x"}, "line 15: owner: the tag !vault is not allowed."),
    "keys that are merged": ({"x": "<<: {owner: me}"}, "line 15: file: `<<` is not allowed. Write the keys out."),
    "a key that is a list": ({"x": "? [a, b]\n: 1"}, "line 15: file: a key is not a plain word."),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_file_tells_its_one_problem_and_a_remedy(tmp_path: Path, case: str) -> None:
    changes, expected = BROKEN[case]

    problems = problems_of(tmp_path, job_text(**changes))

    assert len(problems) == 1, problems
    assert expected in problems[0]
    assert problems[0].startswith("line ")
    assert problems[0].endswith((".", "?")), problems[0]


FORMS = {
    "empty": (b"", "file: it is empty. Start with name, source, prompt, models and sink."),
    "only a comment": (b"# nothing\n", "file: it is empty."),
    "a list": (b"- a\n- b\n", "line 1: file: it is not a mapping of keys. Start with name"),
    "a word": (b"hello", "line 1: file: it is not a mapping of keys."),
    "not YAML": (b"name: a\n  b: [c\n", "line 2: file: it is not YAML:"),
    "two documents": (b"name: a\n---\nname: b\n", "file: it is not YAML: expected a single document"),
    "tabs": (b"name: a\nsource:\n\tkey: b\n", "line 3: file: it is not YAML:"),
    "not UTF-8": (b"name: caf\xe9\n", "file: byte 9 is not UTF-8. Save it as UTF-8 text."),
    "UTF-16": ("name: a".encode("utf-16"), "file: byte 0 is not UTF-8."),
    "control characters": (b"name: a\x00b\n", "file: it holds what YAML does not allow"),
    "an unknown alias": (b"name: *nobody\n", "file: it is not YAML: found undefined alias"),
    "aliases without end": (
        b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 10)) for c in range(ord("b"), ord("i"))),
        "file: it holds more than 50,000 values. Write the values out",
    ),
    "an alias of itself": (b"a: &a [*a]\n", "file: it is nested deeper than 60."),
    "too long": (b"#" * 1_000_001, "file: it is longer than 1,000,000 characters."),
    "a list too deep": (b"a: " + b"[" * 400_000 + b"]" * 400_000, "file: it is nested deeper than 60. Write it flat."),
    "a mapping too deep": (b"{a: " * 200_000, "file: it is nested deeper than 60."),
    "dashes without end": (b"- " * 400_000 + b"1", "file: it is nested deeper than 60."),
}


@pytest.mark.parametrize("case", FORMS)
def test_what_is_no_job_file_at_all_is_told_in_a_sentence(tmp_path: Path, case: str) -> None:
    content, expected = FORMS[case]

    problems = problems_of(tmp_path, content)

    assert expected in problems[0]


def test_a_missing_file_is_told_with_the_name_that_is_most_like_it(tmp_path: Path) -> None:
    (tmp_path / "reviews.yaml").write_text(job_text())

    with pytest.raises(JobInvalid, match=r"it is not there. Did you mean reviews.yaml\?"):
        load_job(tmp_path / "review.yaml")
    with pytest.raises(JobInvalid, match=r"it is not there. Check the path."):
        load_job(tmp_path / "nowhere" / "x.yaml")
    with pytest.raises(JobInvalid, match="it cannot be read"):
        load_job(tmp_path)


def test_all_problems_are_told_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    """Also those that can be seen only after others are mended: two models without a cap, a query of no window."""
    text = job_text(
        name="name: A b",
        source='source: {query: "select 1", conection: w, key: 3}',
        prompt='prompt:\n  user: "{{ x"\n  user_file: nope.txt',
        answer="answer: {schema: {type: objekt}}",
        models="models:\n"
        "  - {provider: openai, model: m, connection: c, endpoint: chatt, params: {n: 2}}\n"
        "  - {provider: openai, model: m, connection: c}",
        sink='sink: {table: "a b", connection: w}',
        more="budget_usd: 5\nwarn_before: 9h\ndeadline: {at: 19:30, after: 3}\nnotify: {on: [laet], mail: x}\n"
        "rounds: 9\nrounds: 2\nshard: !!python/none ''\nzone: UTC",
    )

    found = [problem.split(": ")[:2] for problem in problems_of(tmp_path, text)]

    assert found == [
        ["line 1", "name"],
        ["line 2", "source.key"],
        ["line 2", "source.connection"],
        ["line 2", "source.conection"],
        ["line 2", "source.query"],
        ["line 4", "prompt.user"],
        ["line 5", "prompt.user_file"],
        ["line 6", "answer.schema"],
        ["line 8", "models.0.endpoint"],
        ["line 8", "models.0.params.n"],
        ["line 8", "models.0.max_output_tokens"],
        ["line 9", "models.1.max_output_tokens"],
        ["line 10", "sink.table"],
        ["line 13", "deadline.after"],
        ["line 14", "notify.mail.0"],
        ["line 14", "notify.on.0"],
        ["line 16", "rounds"],
        ["line 17", "shard"],
        ["line 18", "zone"],
    ]


def test_words_mean_what_yaml_1_2_says() -> None:
    """In YAML 1.1 `on` is a boolean, 19:30 is 1170, and a date is a date."""
    text = (
        "{on: [on, yes, No, y], at: 19:30, day: 2026-01-01, n: 007, big: 1_000, f: 1e3, x: 0x1F, t: true, e: , q: '1'}"
    )

    assert read_yaml(text).value == {
        "on": ["on", "yes", "No", "y"],
        "at": "19:30",
        "day": "2026-01-01",
        "n": "007",
        "big": 1000,
        "f": 1000.0,
        "x": "0x1F",
        "t": True,
        "e": None,
        "q": "1",
    }


@given(st.text(max_size=80) | st.text(alphabet="abc:{}[]-,&*!|> \n\t'\"#%@?~<", max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_is_read_or_told(text: str) -> None:
    document = read_yaml(text)

    assert isinstance(document.problems, list)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*Job.model_fields, "nonsense"]


@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=5))
@settings(max_examples=150, deadline=None)
def test_whatever_values_a_job_is_given_it_is_a_job_or_invalid(changes: dict[str, object]) -> None:
    good = read_yaml(job_text()).value

    try:
        job = job_from(good | changes)
    except JobInvalid as error:
        assert error.problems
    else:
        assert Job.from_json(job.to_json()) == job


# --- files that a job file names ------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder `include` with `jobs` and `prompts`, and something outside of it."""
    (tmp_path / "include" / "jobs").mkdir(parents=True)
    (tmp_path / "include" / "prompts").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "include"


def load_with(project: Path, **changes: str) -> Job:
    file = project / "jobs" / "job.yaml"
    file.write_text(job_text(**changes))
    return load_job(file)


def test_templates_and_schema_come_from_beside_the_job_file_or_from_prompts(project: Path) -> None:
    (project / "jobs" / "system.txt").write_bytes(b"\xef\xbb\xbfBe brief.\r\nBe kind.\r\n")
    (project / "prompts" / "user.txt").write_text("Rate {{ text }}\n")
    (project / "prompts" / "schema.json").write_text('{"type": "object", "properties": {"a": {}}, "required": ["a"]}')

    job = load_with(
        project,
        prompt="prompt: {system_file: system.txt, user_file: user.txt}",
        answer="answer: {schema_file: schema.json}",
    )

    assert (job.prompt.system, job.prompt.user) == ("Be brief.\nBe kind.", "Rate {{ text }}")
    assert job.answer.json_schema == {
        "type": "object",
        "properties": {"a": {}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert Job.from_json(job.to_json()) == job


def test_a_schema_may_be_written_as_yaml(project: Path) -> None:
    (project / "prompts" / "s.yaml").write_text("type: object\nproperties: {on: {enum: [yes, no]}}\nrequired: [on]\n")

    job = load_with(project, answer="answer: {schema_file: s.yaml}")

    assert job.answer.json_schema is not None
    assert job.answer.json_schema["properties"] == {"on": {"enum": ["yes", "no"]}}


def test_the_same_prompt_has_the_same_version_inline_or_from_a_file(project: Path) -> None:
    (project / "prompts" / "user.txt").write_text("Rate {{ text }}\n")

    from_file = load_with(project, prompt="prompt: {user_file: user.txt}")

    assert from_file.prompt_version == load_with(project).prompt_version


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{user_file: usr.txt}", "prompt.user_file: there is no file 'usr.txt'. Did you mean user.txt?"),
        ("{user_file: zzz}", "prompt.user_file: there is no file 'zzz'. Put it beside the job file or into prompts."),
        (
            "{user_file: ../../secret.txt}",
            "prompt.user_file: '../../secret.txt' leads out of the job's folders. Put it",
        ),
        ("{user_file: /etc/passwd}", "prompt.user_file: '/etc/passwd' leads out of the job's folders."),
        ("{user_file: link.txt}", "prompt.user_file: 'link.txt' leads out of the job's folders."),
        ("{user_file: user.txt, user: x}", "prompt.user_file: both user and user_file are set. Keep one of them."),
        ("{user_file: bad.txt}", "prompt.user_file: template line 1: unexpected end of template"),
        ("{user_file: latin.txt}", "prompt.user_file: 'latin.txt' cannot be read ("),
        ("{user_file: 3}", "prompt.user_file: 3 is not text."),
    ],
)
def test_a_file_that_cannot_be_used_is_told(project: Path, prompt: str, expected: str) -> None:
    (project / "prompts" / "user.txt").write_text("Rate {{ text }}")
    (project / "prompts" / "bad.txt").write_text("Rate {{ text")
    (project / "prompts" / "latin.txt").write_bytes(b"caf\xe9")
    (project / "prompts" / "link.txt").symlink_to(project.parent / "secret.txt")

    with pytest.raises(JobInvalid) as caught:
        load_with(project, prompt=f"prompt: {prompt}")

    assert expected in str(caught.value.problems[0])
    assert caught.value.problems[0].line == 6


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "answer.schema_file: 's.json' holds no schema (Expecting"),
        ("[]", "answer.schema_file: 's.json' holds no schema (no object). Write one JSON object."),
        ('{"type": "objekt"}', "answer.schema_file: it is no JSON Schema: at /type"),
        ("[" * 100_000, "answer.schema_file: 's.json' holds no schema ("),
    ],
)
def test_a_schema_file_that_holds_none_is_told(project: Path, content: str, expected: str) -> None:
    (project / "prompts" / "s.json").write_text(content)

    with pytest.raises(JobInvalid) as caught:
        load_with(project, answer="answer: {schema_file: s.json}")

    assert [expected in str(problem) for problem in caught.value.problems] == [True]


# --- folders of job files -------------------------------------------------------------------------------------


def test_a_folder_gives_its_good_jobs_and_the_problems_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(job_text(name="name: second", sink="sink: {files: s3://a/b}"))
    (tmp_path / "a.yml").write_text(job_text(name="name: first"))
    (tmp_path / "c.yaml").write_text("nonsense: 1")
    (tmp_path / "README.md").write_text("no job")

    jobs, invalid = load_jobs(tmp_path)

    assert [job.name for job in jobs] == ["first", "second"]
    assert [Path(error.file).name for error in invalid] == ["c.yaml"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"sink": "sink: {table: x, connection: w}"},
            "name: reviews belongs to a.yaml already. Give this job another name.",
        ),
        ({"name": "name: other"}, "sink: table answers in warehouse belongs to a.yaml already."),
        ({"name": "name: other", "sink": "sink: {table: ANSWERS, connection: warehouse}"}, "sink: table answers in"),
        (
            {"name": "name: other", "sink": "sink: {table: answers_dead_letters, connection: warehouse}"},
            "table answers_dead_letters in",
        ),
    ],
)
def test_two_jobs_with_one_name_or_one_sink_are_told(tmp_path: Path, changes: dict[str, str], expected: str) -> None:
    (tmp_path / "a.yaml").write_text(job_text())
    (tmp_path / "b.yaml").write_text(job_text(**changes))

    jobs, [error] = load_jobs(tmp_path)

    assert [job.name for job in jobs] == ["reviews"]
    assert Path(error.file).name == "b.yaml"
    assert expected in str(error)


def test_two_jobs_with_one_folder_are_told_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job_text(sink="sink: {files: s3://a/b/}"))
    (tmp_path / "b.yaml").write_text(job_text(name="name: other", sink="sink: {files: 'S3://a//b'}"))

    _, [error] = load_jobs(tmp_path)

    assert "sink: folder s3://a/b belongs to a.yaml already." in str(error)


def test_tables_of_one_name_in_two_databases_are_two_sinks(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(job_text())
    (tmp_path / "b.yaml").write_text(job_text(name="name: other", sink="sink: {table: answers, connection: lake}"))

    jobs, invalid = load_jobs(tmp_path)

    assert (len(jobs), invalid) == (2, [])


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    jobs, [error] = load_jobs(tmp_path / "absent")

    assert jobs == []
    assert "folder: it is not there. Make it" in str(error)


def test_reading_job_files_imports_nothing_heavy() -> None:
    """Dag files read job files every few seconds."""
    code = (
        "import sys, nightbatch.job_file\n"
        "print([name for name in ('pyarrow', 'airflow', 'pandas', 'sqlalchemy', 'openai', 'anthropic', 'boto3',"
        " 'nightbatch.core.verdict', 'nightbatch.core.money', 'nightbatch.core.profile') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.strip() == "[]"


def test_problems_are_told_without_their_meanings_where_only_what_was_compiled_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_there(part: type) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr("nightbatch.job_meanings.inspect.getsource", not_there)
    _own.cache_clear()
    try:
        assert problems_of(tmp_path, job_text(name="")) == ["line 1: name: it is missing. Add it."]
    finally:
        _own.cache_clear()
