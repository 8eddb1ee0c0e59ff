"""Templates: many records in one loop give what each gives alone, and nothing in a record or template gets out."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nightbatch.core.request import Messages
from nightbatch.core.template import BadTemplateError, Deferrable, PromptTemplate, RenderError

COLUMNS = ("id", "text", "n", "items", "other column", "loop")

TEMPLATES = [
    "{{ text }}",
    "  {{ text }}\n\n{{ n }}\n\n",
    "{% if n %}{{ text }}{% else %}nothing: {{ n }}{% endif %}",
    "{% for item in items %}{{ loop.index }}/{{ loop.length }} {{ item }};{% endfor %}end",
    "{% for item in items %}{{ item }}{% if loop.first %} of {{ text }}{% endif %}{% else %}none{% endfor %}!",
    "{% set best = text %}{{ best }}",
    "{% if n %}{% set seen = n %}{% endif %}a{{ seen }}",
    "{% set total = namespace(n=0) %}{% for item in items %}{% set total.n = total.n + 1 %}{% endfor %}{{ total.n }}",
    "{% macro twice(word) %}{{ word }}{{ word }}{% endmacro %}{{ twice(text) }}",
    "{% with word = text %}{{ word }}{% endwith %}{{ word }}",
    "{% with word = text %}{{ word }}{% endwith %}",
    "{% filter upper %}{{ text }}{% endfilter %}",
    "{% call(x) m() %}{% endcall %}",
    "x{{ 10 // n }}",
    "{{ text|upper|replace('A', 'b')|trim }}.",
    "{{ items|join(', ') }}.",
    "{{ text[:3] }}|{{ n is none }}|{{ 'a' in text }}",
    "{{ text.nothing }}",
    "{{ absent }}",
    "{% if absent is defined %}{{ absent }}{% else %}not there{% endif %}",
    "{{ absent|default('dash') }}",
    "{{ loop }}.",
    "{{ items[n] }}!",
    "{% raw %}{{ text }}{% endraw %}{# {{ text }} #}",
    "{% for text in items %}{{ text }}{% endfor %}{{ text }}",
    "{% autoescape true %}{{ text }}{% endautoescape %}<{{ text }}>",
    "{% block part %}{{ text }}{% endblock %}",
    "{{ range(3)|list }}{{ dict(a=text) }}",
    "{{ text is string }}{{ n is number }}",
    "just words",
]

texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["nb__end/", "{{ text }}", "{% endfor %}", "{{ nb__end }}", "{#", "<b>&amp;</b>", "\u2028\x00\u202e", "🌙", " "]
    ),
)
records = st.tuples(
    st.integers(0, 9),
    texts,
    st.one_of(st.none(), st.integers(-2, 3)),
    st.one_of(st.none(), st.lists(texts, max_size=3).map(tuple)),
    texts,
    st.integers(0, 3),
)


def alone(source: str, record: tuple[Any, ...]) -> Messages | None:
    """Render one record with plain Jinja2; None where that fails or gives no text."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        text = environment.from_string(source).render(dict(zip(COLUMNS, record, strict=True)))
    except Exception:  # noqa: BLE001 - whatever it raises, there is no message
        return None
    return Messages("", text) if text.strip() else None


@pytest.mark.parametrize("source", TEMPLATES)
@given(rows=st.lists(records, max_size=6))
@settings(max_examples=25, deadline=None)
def test_records_in_a_loop_give_what_each_gives_alone(source: str, rows: list[tuple[Any, ...]]) -> None:
    rendered = PromptTemplate("", source).render(COLUMNS, rows)

    assert [item if isinstance(item, Messages) else None for item in rendered] == [alone(source, row) for row in rows]


@given(texts, texts)
def test_text_reaches_the_message_letter_for_letter(text: str, other: str) -> None:
    [message] = PromptTemplate("About {{ other }}", "<{{ text }}>").render(("text", "other"), [(text, other)])

    assert message == Messages(f"About {other}", f"<{text}>")


def test_a_record_that_fails_does_not_hurt_the_others() -> None:
    template = PromptTemplate("", "{{ 6 // n }}")

    assert template.render(("n",), [(1,), (0,), (0,), (2,), ("x",), (3,)]) == [
        Messages("", "6"),
        RenderError("user template, line 1: ZeroDivisionError"),
        RenderError("user template, line 1: ZeroDivisionError"),
        Messages("", "3"),
        RenderError("user template, line 1: TypeError"),
        Messages("", "2"),
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ text }}\n{{ absent }}", "line 2: `absent` is not there"),
        ("\n\n{{ text.parts }}", "line 3: it uses a part of a value that is not there"),
        ("{{ {}[text] }}", "line 1: it uses a part of a value that is not there"),
        ("{{ text + 1 }}", "line 1: TypeError"),
        ("{{ text.__class__ }}", "line 1: it does what a template must not do"),
        ("{{ text|list|join|float + [] }}", "line 1: TypeError"),
    ],
)
def test_a_reason_names_the_line_and_never_the_record(source: str, reason: str) -> None:
    [error] = PromptTemplate("", source).render(("text",), [("secret",)])

    assert error == RenderError(f"user template, {reason}")


def test_a_system_template_that_fails_is_told_as_such() -> None:
    template = PromptTemplate("For {{ who.name }}", "{{ text }}")

    assert template.render(("text", "who"), [("a", {"name": "b"}), ("a", {})]) == [
        Messages("For b", "a"),
        RenderError("system template, line 1: it uses a part of a value that is not there"),
    ]


def test_a_system_template_without_variables_is_one_text_for_all_records() -> None:
    rendered = PromptTemplate("Three is {{ 1 + 2 }}", "{{ text }}").render(("text",), [("a",), ("b",)])

    assert rendered == [Messages("Three is 3", "a"), Messages("Three is 3", "b")]
    assert rendered[0].system is rendered[1].system


@pytest.mark.parametrize("text", ["", " \n\t", "\u2003"])
def test_a_prompt_without_text_is_not_sent(text: str) -> None:
    assert PromptTemplate("hi", "{{ text }}").render(("text",), [(text,)]) == [
        RenderError("user template: gives no text")
    ]


def test_half_a_surrogate_pair_is_no_text_for_a_system_message() -> None:
    rendered = PromptTemplate("{{ who }}", "{{ text }}").render(
        ("text", "who"), [("a\ud800", "x"), ("a", "\udfff"), ("😀", "x")]
    )

    assert rendered == [
        Messages("x", "a\ud800"),  # found where it is encoded
        RenderError("system template: gives half a surrogate pair, which is no text"),
        Messages("x", "😀"),
    ]


def test_columns_are_what_the_templates_take_from_a_record() -> None:
    template = PromptTemplate(
        "{{ tone }}",
        "{% for item in items %}{{ loop.index }}{{ item }}{% endfor %}{% set x = n %}{{ x }}{{ range(2) }}{{ dict() }}",
    )

    assert template.columns == {"tone", "items", "n"}


def test_columns_may_come_in_any_order_and_in_greater_number() -> None:
    template = PromptTemplate("", "{{ a }}-{{ b }}")

    assert template.render(("a", "b"), [(1, 2)]) == template.render(("x", "b", "a", "not a name"), [(0, 2, 1, 0)])


def test_a_missing_column_is_told_for_every_record() -> None:
    rendered = PromptTemplate("", "{{ a }}{{ b }}").render(("a",), [(1,), (2,)])

    assert rendered == [RenderError("user template, line 1: `b` is not there")] * 2


def test_many_bad_records_stay_cheap() -> None:
    """A loop that ended in an error is taken up behind it; all of a chunk may fail."""
    rows = [(0,)] * 2_000 + [(1,)]

    rendered = PromptTemplate("", "{{ 1 // n }}").render(("n",), rows)

    assert len(rendered) == 2_001
    assert rendered[-1] == Messages("", "1")


def test_no_records_give_no_messages() -> None:
    assert PromptTemplate("a", "{{ b }}").render(("b",), []) == []


@pytest.mark.parametrize("text", ["x" * 101, "€" * 101])
def test_a_record_that_renders_too_long_is_told_and_the_others_go_on(text: str) -> None:
    template = PromptTemplate("", "{{ text }}", max_chars=100)

    assert template.render(("text",), [("a",), (text,), ("b",)]) == [
        Messages("", "a"),
        RenderError("user template: gives more than 100 characters"),
        Messages("", "b"),
    ]


HOSTILE = [
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [text] * 10**10 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 'a'|center(10**10) }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.rjust(10**10) }}",
    "{{ '\t'.expandtabs(10**10) }}",
    "{{ '%010000000000d'|format(1) }}",
    "{{ '%*d' % (10**10, 1) }}",
    "{{ '%010000000000d' % 1 }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}",
    "{{ 'a\nb'|indent(10**10) }}",
    "{{ [1]|tojson(indent=10**10) }}",
    "{{ [1]|batch(10**10, 'x')|list }}",
    "{{ [1]|slice(10**10)|list }}",
    "{% for a in range(10**10) %}x{% endfor %}",
    "{% for a in range(9000) %}{% for b in range(9000) %}x{% endfor %}{% endfor %}",
    "{% macro again() %}x{{ again() }}{% endmacro %}{{ again() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ text|attr('__class__') }}",
    "{{ [text]|map(attribute='__class__')|list|first }}{{ items.append(1) }}",
    "{{ dict.__init__.__globals__ }}",
    "{{ range.__self__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_a_hostile_template_gives_an_error_and_no_flood(source: str) -> None:
    [error] = PromptTemplate("", source, max_chars=2_000_000).render(("text", "items"), [("secret", [])])

    assert isinstance(error, RenderError)
    assert "secret" not in error.reason
    assert len(error.reason) < 120


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a\n{{ text", "template line 2: unexpected end of template"),
        ("{% if a %}", "template line 1: unexpected end of template"),
        ("{% endfor %}{% for a in b %}", "template line 1: encountered unknown tag 'endfor'"),
        ("{{ a|nothing }}", "there is no filter named 'nothing'"),
        ("{% if a %}\n{{ a|nothing }}{% endif %}", "template line 2: there is no filter named 'nothing'"),
        ("{{ a is nothing }}", "there is no test named 'nothing'"),
        ("{{ [1, 2]|random }}", "there is no filter named 'random'"),
        ("{% include 'x' %}", "cannot include, import or extend"),
        ("{% import 'x' as y %}", "cannot include, import or extend"),
        ("{% from 'x' import y %}", "cannot include, import or extend"),
        ("{% extends 'x' %}", "cannot include, import or extend"),
        ("{{ nb__end }}", "names that begin with `nb__`"),
        ("{% for a in b %}{% break %}{% endfor %}", "unknown tag 'break'"),
        ("{{" + "(" * 5_000, "nested too deep"),
        ("{% for a in b %}" * 30 + "{{ a }}" + "{% endfor %}" * 30, "nested too deep"),
        ("{% block a %}{% endblock %}{% block a %}{% endblock %}", "block 'a' defined twice"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_before_any_record(source: str, problem: str) -> None:
    with pytest.raises(BadTemplateError, match=problem.replace("(", "\\(")):
        PromptTemplate("", source)


@pytest.mark.parametrize("depth", [18, 19, 20])
def test_a_template_may_be_nested_as_deep_as_python_takes(depth: int) -> None:
    """One loop more is too much for Python at some depth, and then records are rendered one by one."""
    source = "{% for a in b %}" * depth + "{{ a }}" + "{% endfor %}" * depth

    assert PromptTemplate("", source).render(("b",), [("x",), ("y",)]) == [Messages("", "x"), Messages("", "y")]


def test_a_constant_system_template_that_fails_is_refused_at_once() -> None:
    with pytest.raises(BadTemplateError, match="ZeroDivisionError"):
        PromptTemplate("{{ 1 // 0 }}", "{{ text }}")


@given(st.text(alphabet="{%}#-+ abn|()[]\"'0.:=\n", max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_as_a_template_is_refused_or_renders(source: str) -> None:
    try:
        template = PromptTemplate("", source)
    except BadTemplateError:
        return

    [item] = template.render(("a", "b"), [("x", 1)])

    assert isinstance(item, Messages | RenderError)


def test_json_in_a_prompt_is_plain_json() -> None:
    """Jinja2's own filter would write `<` as an escape, which is for web pages."""
    [message] = PromptTemplate("", "{{ row|tojson }}").render(("row",), [({"b": "<ä>'", "a": None},)])

    assert message == Messages("", '{"a": null, "b": "<ä>\'"}')


def test_ordinary_widths_and_formats_work() -> None:
    source = "{{ 'a'|center(5) }}|{{ 'a' * 3 }}|{{ '%.2f'|format(n) }}|{{ '%03d' % 7 }}|{{ 'a-b'.replace('-', '+') }}"

    assert PromptTemplate("", source).render(("n",), [(1.5,)]) == [Messages("", "  a  |aaa|1.50|007|a+b")]


# --- deferrable -----------------------------------------------------------------------------------------------


def test_an_expression_says_which_records_can_wait() -> None:
    rule = Deferrable("priority != 'urgent' and n > 3")

    assert rule.columns == {"priority", "n"}
    assert rule.keep(("n", "priority"), [(5, "low"), (5, "urgent"), (1, "low")]) == [True, False, False]


def test_what_cannot_be_decided_is_an_error_and_never_a_no() -> None:
    kept = Deferrable("n > 3").keep(("n",), [(None,), (4,), ("x",)])

    assert kept == [
        RenderError("`deferrable`, line 1: TypeError"),
        True,
        RenderError("`deferrable`, line 1: TypeError"),
    ]
    assert Deferrable("absent").keep(("n",), [(1,)]) == [RenderError("`deferrable`, line 1: `absent` is not there")]


def test_an_expression_over_no_column_holds_for_all_records() -> None:
    assert Deferrable("true").keep(("n",), [(1,), (2,)]) == [True, True]


@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)), max_size=8))
def test_an_expression_is_true_as_python_says(values: list[Any]) -> None:
    assert Deferrable("value").keep(("value",), [(value,) for value in values]) == [bool(value) for value in values]


@pytest.mark.parametrize(
    "expression", ["", "a ==", "a b", "a }} b {{ c", "a; b", "{{ a }}", "a = 1", "import os", "a|no"]
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(BadTemplateError):
        Deferrable(expression)
