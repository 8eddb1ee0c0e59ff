"""Slack messages say all they must, survive hostile words, and fail without telling the webhook's address."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.messages import hostile_message, message_of

from nightbatch.adapters.notifiers.slack import SlackNotifier, payload
from nightbatch.adapters.notifiers.wording import safe_link
from nightbatch.demo.services.slack import SlackSink
from nightbatch.errors import ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection

TOKEN = "T000/B000/s3cret"
MESSAGE = message_of()


@pytest.fixture
def sink(tmp_path):
    sink = SlackSink.start(tmp_path)
    yield sink
    sink.stop()


def test_a_message_says_what_happened_what_comes_next_and_what_to_do(sink):
    connection = Connection("slack", "slackwebhook", host=f"{sink.url}/services", password=TOKEN)

    SlackNotifier(connection).send(MESSAGE)

    (message,) = sink.messages()
    assert message.path == f"/services/{TOKEN}"
    assert message.text == "Deadline (SLA) missed: reviews: 45 min late"
    shown = json.dumps(message.payload["blocks"])
    for words in (text for text in asdict(MESSAGE).values() if isinstance(text, str) and text not in ("late", "")):
        assert words.replace("&", "&amp;") in shown
    assert "<http://airflow.example.com/dags/reviews?run=1&amp;x=2|Open in Airflow>" in shown


@pytest.mark.parametrize("split", [("{url}/services", TOKEN), ("", "{url}/services/" + TOKEN)])
def test_the_connection_is_read_as_airflow_reads_it(sink, split):
    host, password = (part.format(url=sink.url) for part in split)

    SlackNotifier(Connection("slack", "slackwebhook", host=host, password=password)).send(MESSAGE)

    assert sink.messages()[0].path == f"/services/{TOKEN}"


def test_hostile_words_reach_no_one_and_lead_nowhere():
    sent = payload(hostile_message())

    assert "<" not in json.dumps(sent)
    assert "https://evil" not in json.dumps(sent)
    assert {text["type"] for text in _texts(sent["blocks"])} == {"plain_text", "text"}


def test_a_link_cannot_close_itself_early():
    link = safe_link("https://airflow.example.com/x|click>  <!channel>\n")

    assert link.startswith("https://airflow.example.com/x")
    assert not set(link) & set('<>| \n"')


def test_slacks_limits_are_kept():
    long = replace(hostile_message("v" * 9_000), facts=[("l" * 5_000, "v" * 5_000)] * 200, commands=["c" * 9_000] * 50)

    blocks = payload(long)["blocks"]

    assert len(blocks) <= 50
    assert len(blocks[0]["text"]["text"]) <= 150
    assert all(len(block.get("fields", ())) <= 10 for block in blocks)
    assert all(len(text["text"]) <= 2_000 + 100 for text in _texts(blocks))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, ConnectionInvalid), (404, ConnectionInvalid), (429, StorageUnavailable), (500, StorageUnavailable)],
)
def test_a_refusal_says_whether_to_try_again_and_does_not_tell_the_address(status, kind):
    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/services/{TOKEN}"
    try:
        with pytest.raises(kind, match=f"HTTP {status}") as told:
            SlackNotifier(Connection("slack", "slackwebhook", password=url)).send(MESSAGE)
    finally:
        server.shutdown()
        server.server_close()

    assert TOKEN not in str(told.value)
    assert told.value.__cause__ is None


def test_a_dead_address_is_transient():
    with pytest.raises(StorageUnavailable) as told:
        SlackNotifier(Connection("slack", "slackwebhook", password=f"http://127.0.0.1:9/{TOKEN}")).send(MESSAGE)

    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("password", ["", "file:///etc/passwd"])
def test_a_connection_that_makes_no_web_address_is_refused_early(password):
    with pytest.raises(ConnectionInvalid):
        SlackNotifier(Connection("slack", "slackwebhook", password=password))


def _texts(part):
    """Give every text object, however deep it stands."""
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):
            yield part
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from _texts(each)
