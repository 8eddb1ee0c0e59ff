"""Mails and Slack messages arrive, are kept in order, and can be read."""

import smtplib
from email.message import EmailMessage
from pathlib import Path

import httpx

from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.slack import SlackSink


def send(sink: MailSink, subject: str) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "batch@x.test", "ops@x.test"
    mail.set_content("späte Zeilen\n")
    mail.add_alternative("<b>late</b>", subtype="html")
    with smtplib.SMTP(sink.host, sink.port) as client:
        client.send_message(mail, to_addrs=["ops@x.test", "boss@x.test"])


def test_mails_are_kept_with_their_real_recipients(tmp_path: Path) -> None:
    sink = MailSink.start(tmp_path)
    send(sink, "über die Frist")
    send(sink, "second")
    sink.stop()

    first, second = sink.mails()
    assert (first.subject, second.subject) == ("über die Frist", "second")
    assert (first.sender, first.recipients) == ("batch@x.test", ["ops@x.test", "boss@x.test"])
    assert first.text == "späte Zeilen\n"
    assert first.html.strip() == "<b>late</b>"


def test_mails_of_earlier_days_stay_until_they_are_cleared(tmp_path: Path) -> None:
    for subject in ("yesterday", "today"):
        sink = MailSink.start(tmp_path)
        send(sink, subject)
        sink.stop()

    assert [mail.subject for mail in sink.mails()] == ["yesterday", "today"]
    sink.clear()
    assert sink.mails() == []


def test_slack_messages_are_kept_in_order(tmp_path: Path) -> None:
    sink = SlackSink.start(tmp_path)
    answers = [httpx.post(f"{sink.url}/T/B/x", json={"text": text}) for text in ("one", "two")]
    refused = httpx.post(sink.url, content=b"not json")
    sink.stop()

    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "ok"), (200, "ok")]
    assert refused.status_code == 400
    assert [(message.path, message.text) for message in sink.messages()] == [("/T/B/x", "one"), ("/T/B/x", "two")]


def test_airflows_own_hooks_reach_both(tmp_path: Path) -> None:
    from airflow.sdk import Connection

    mail, slack = MailSink.start(tmp_path / "mail"), SlackSink.start(tmp_path / "slack")
    try:
        smtp = Connection.from_json(mail.airflow_connection(), conn_id="smtp")
        hook = Connection.from_json(slack.airflow_connection(), conn_id="slack")
        assert (smtp.host, smtp.port, smtp.extra_dejson["disable_ssl"]) == (mail.host, mail.port, True)
        assert httpx.post(f"{hook.host}/{hook.password}", json={"text": "hi"}).text == "ok"
    finally:
        mail.stop()
        slack.stop()
