"""Every alert, made by the code that tells it, sent to a real mail server and a webhook: readable, and never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from tests.alerts import ALERTS
from tests.golden.alerts import FOLDER, rendered
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of, later
from tests.messages import KINDS

from nightbatch import flow
from nightbatch.adapters.notifiers.mail import MailNotifier
from nightbatch.adapters.notifiers.slack import SlackNotifier
from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.slack import SlackSink
from nightbatch.ports import Connection, Message, Notifier
from nightbatch.steps.tell import TRIES, tell
from nightbatch.steps.untold import tell_again

alert = cache(lambda name: ALERTS[name]())


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailSink]:
    sink = MailSink.start(tmp_path / "mail")
    yield sink
    sink.stop()


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[SlackSink]:
    sink = SlackSink.start(tmp_path / "slack")
    yield sink
    sink.stop()


def channels(mail: MailSink, slack: SlackSink) -> tuple[Notifier, Notifier]:
    """Open both channels, without much patience."""
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "night@example.com", "timeout": 0.5}
    smtp = Connection("smtp_default", "smtp", mail.host, mail.port, extra=extra)
    webhook = Connection("slack", "slackwebhook", host=slack.url, password="T0/B0/secret", extra={"timeout": 0.5})
    return MailNotifier(smtp, to=("a@example.com",)), SlackNotifier(webhook)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_answers_what_people_ask_at_night(name: str) -> None:
    message: Message = alert(name)

    asked = ("title", "happened", "since", "rows", "money", "happens_next", "to_do", "if_nobody")
    assert [field for field in asked if not getattr(message, field).strip()] == []
    assert message.commands
    assert all(command.startswith(("nightbatch ", "airflow ")) for command in message.commands)
    assert message.link.startswith("https://airflow.example.com")
    assert message.title.startswith(("reviews", "openai"))


def test_there_is_an_alert_of_every_kind() -> None:
    assert {alert(name).kind for name in ALERTS} == set(KINDS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_as_it_was_approved(name: str) -> None:
    """Wrong? `make golden` writes the files anew; look at the pictures beside them."""
    for end, content in rendered(alert(name)).items():
        assert content == (FOLDER / f"{name}.{end}").read_text(encoding="utf-8"), f"{name}.{end}"
    assert (FOLDER / f"{name}.png").stat().st_size < 150_000


def test_no_golden_file_is_left_of_an_alert_that_is_gone() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(ALERTS)


def test_every_alert_arrives_by_mail_and_slack_as_it_was_approved(mail: MailSink, slack: SlackSink) -> None:
    for name in ALERTS:
        ports = Stack([]).ports(notifiers=lambda: channels(mail, slack))
        assert tell(ports, f"reviews/{name}", alert(name)) == 2

    got = zip(ALERTS, mail.mails(), slack.messages(), strict=True)
    for name, letter, post in got:
        golden = rendered(alert(name))
        assert (letter.text, letter.html) == (golden["txt"], golden["html"])
        assert post.payload == json.loads(golden["json"])


TROUBLES = ["mail refuses for good", "mail refuses for now", "mail is slow", "slack refuses for good", "slack is busy",
            "slack is slow", "both are gone"]  # fmt: skip


def break_(trouble: str, mail: MailSink, slack: SlackSink) -> None:
    match trouble:
        case "mail refuses for good":
            mail.refuses = "554 no"
        case "mail refuses for now":
            mail.refuses = "451 later"
        case "mail is slow":
            mail.delay_s = 1.0
        case "slack refuses for good":
            slack.refuses = 404
        case "slack is busy":
            slack.refuses = 429
        case "slack is slow":
            slack.delay_s = 1.0
        case "both are gone":
            mail.refuses, slack.refuses = "421 gone", 503


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_channel_in_trouble_fails_no_run_and_tells_later(trouble: str, mail: MailSink, slack: SlackSink) -> None:
    stack = Stack([("k0", "text 0")])
    job = job_of(notify={"mail": ["a@example.com"], "on": ["report"]})
    ports = stack.ports(notifiers=lambda: channels(mail, slack))
    break_(trouble, mail, slack)

    assert flow.run(ports, job, NIGHT).state == "complete"
    if trouble != "slack is slow":
        assert len(mail.mails()) + len(slack.messages()) == (0 if trouble.startswith("both") else 1)

    mail.refuses, mail.delay_s, slack.refuses, slack.delay_s = "", 0.0, 0, 0.0
    later(stack, hours=24)
    stack.records = [("k1", "text 1")]
    flow.run(ports, job, NEXT_NIGHT)
    subjects = sorted(letter.subject for letter in mail.mails())
    assert subjects == ["Run report: reviews: 1 answers loaded for 0.0000 USD"] * 2
    # What Slack answered too late it had taken all the same; a repeat has the same event.
    assert len({post.payload["blocks"][-1]["elements"][0]["text"] for post in slack.messages()}) == 2
    assert trouble == "slack is slow" or len(slack.messages()) == 2
    assert tell_again(ports, job) == 0


def test_trying_is_bounded(mail: MailSink, slack: SlackSink) -> None:
    stack = Stack([])
    mail.refuses, slack.refuses = "451 later", 503
    before = stack.clock.now()

    assert tell(stack.ports(notifiers=lambda: channels(mail, slack)), "reviews/x", alert("late")) == 0
    assert stack.clock.now() - before < 2 * TRIES * timedelta(seconds=5)
