"""Mails say all they must, survive hostile words, and fail without telling secrets."""

from __future__ import annotations

import socket
from dataclasses import asdict, replace
from email import message_from_bytes

import pytest
from tests.messages import hostile_message, message_of

from nightbatch.adapters.notifiers.mail import MailNotifier
from nightbatch.demo.services.mail import MailSink
from nightbatch.errors import ConnectionInvalid, StorageUnavailable, Transient
from nightbatch.ports import Connection

MESSAGE = message_of()


@pytest.fixture
def sink(tmp_path):
    sink = MailSink.start(tmp_path)
    yield sink
    sink.stop()


SAID = [text for text in asdict(MESSAGE).values() if isinstance(text, str) and text not in ("late", MESSAGE.link, "")]


def notifier(port: int, **fields) -> MailNotifier:
    extra = {"disable_ssl": "true", "disable_tls": True, "from_email": "night@example.com", "timeout": 5}
    return MailNotifier(
        Connection("smtp_default", "smtp", "127.0.0.1", port, extra=extra, **fields), to=("a@example.com", "b@x.com")
    )


def test_a_mail_says_what_happened_what_comes_next_and_what_to_do(sink):
    notifier(sink.port).send(MESSAGE)

    (mail,) = sink.mails()
    assert mail.subject == "Deadline (SLA) missed: reviews: 45 min late"
    assert (mail.sender, mail.recipients) == ("night@example.com", ["a@example.com", "b@x.com"])
    for part in (mail.text, mail.html):
        for words in SAID:
            assert words in part
    assert MESSAGE.link in mail.text
    assert 'href="http://airflow.example.com/dags/reviews?run=1&amp;x=2"' in mail.html


def test_a_repeat_can_be_recognised(sink):
    for _ in range(2):
        notifier(sink.port).send(MESSAGE)
    notifier(sink.port).send(replace(MESSAGE, event_id="another"))

    ids = [line for mail in sink.mails() for line in mail.file.read_text().splitlines() if "Message-ID" in line]
    assert (ids[0] == ids[1], ids[0] == ids[2]) == (True, False)


def test_hostile_words_become_harmless_words(sink):
    notifier(sink.port).send(hostile_message())

    (mail,) = sink.mails()
    assert mail.recipients == ["a@example.com", "b@x.com"]
    assert "bcc" not in message_from_bytes(mail.file.read_bytes())
    assert "<script" not in mail.html
    assert "<a" not in mail.html
    for part in (mail.subject, mail.text, mail.html):
        assert "https://evil" not in part
        assert "www.evil" not in part
        assert "\u202e" not in part
    assert "javascript" not in mail.text
    # Each fact stands on one line, so that hostile words cannot add facts of their own.
    assert not any(line.startswith("Bcc") for line in mail.text.splitlines())


def test_a_server_that_is_gone_is_a_transient_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = notifier(taken.getsockname()[1], login="night", password="hunter2")
        with pytest.raises(StorageUnavailable) as told:
            gone.send(MESSAGE)

    assert isinstance(told.value, Transient)
    assert "hunter2" not in str(told.value)


def test_a_server_that_takes_no_login_is_not_asked_again(sink):
    with pytest.raises(ConnectionInvalid) as told:
        notifier(sink.port, login="night", password="hunter2").send(MESSAGE)

    assert "hunter2" not in str(told.value)
    assert sink.mails() == []


def test_a_connection_without_a_sender_is_refused_early():
    with pytest.raises(ConnectionInvalid, match="from_email"):
        MailNotifier(Connection("smtp_default", "smtp", "h"), to=("a@example.com",))
