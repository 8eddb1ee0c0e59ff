"""Slack messages say all they must, survive hostile words, and fail without telling the webhook's address."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nightbatch.adapters.notifiers.slack import SlackNotifier, payload
from nightbatch.adapters.notifiers.wording import safe_link
from nightbatch.demo.services.slack import SlackSink
from nightbatch.errors import ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection, Message

TOKEN = "T000/B000/s3cret"
MESSAGE = Message(
    event_id="late/reviews/20261122",
    kind="late",
    title="review_sentiment is 45 minutes late",
    facts=[(f"Fact {number}", f"value {number}") for number in range(12)],
    happens_next="nightbatch goes on waiting.",
    to_do="Nothing, unless it is still late at 09:00.",
    link="http://airflow.example.com/dags/review_sentiment?run=1&x=2",
)
HOSTILE = "<!channel> <@U1> <https://evil.example.com|click> *bold* @here & https://evil.example.com"


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
    assert message.text == "Deadline (SLA) missed: review_sentiment is 45 minutes late"
    shown = json.dumps(message.payload["blocks"])
    for words in ("value 11", "goes on waiting", "unless it is still late", MESSAGE.event_id):
        assert words in shown
    assert "<http://airflow.example.com/dags/review_sentiment?run=1&amp;x=2|Look here>" in shown


@pytest.mark.parametrize("split", [("{url}/services", TOKEN), ("", "{url}/services/" + TOKEN)])
def test_the_connection_is_read_as_airflow_reads_it(sink, split):
    host, password = (part.format(url=sink.url) for part in split)

    SlackNotifier(Connection("slack", "slackwebhook", host=host, password=password)).send(MESSAGE)

    assert sink.messages()[0].path == f"/services/{TOKEN}"


def test_hostile_words_reach_no_one_and_lead_nowhere():
    hostile = Message(HOSTILE, "failed", HOSTILE, [(HOSTILE, HOSTILE)], HOSTILE, HOSTILE, "javascript:alert(1)")

    sent = payload(hostile)

    assert "<" not in json.dumps(sent)
    assert "https://evil" not in json.dumps(sent)
    assert {text["type"] for text in _texts(sent["blocks"])} == {"plain_text"}


def test_a_link_cannot_close_itself_early():
    link = safe_link("https://airflow.example.com/x|click>  <!channel>\n")

    assert link.startswith("https://airflow.example.com/x")
    assert not set(link) & set('<>| \n"')


def test_slacks_limits_are_kept():
    long = Message("e", "late", "t" * 5_000, [("l" * 5_000, "v" * 5_000)] * 200, "h" * 9_000, "d" * 9_000)

    blocks = payload(long)["blocks"]

    assert len(blocks) <= 50
    assert len(blocks[0]["text"]["text"]) <= 150
    assert all(len(block.get("fields", ())) <= 10 for block in blocks)
    assert all(len(text["text"]) <= 2_000 + 100 for text in _texts(blocks))


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_refusal_is_transient_and_does_not_tell_the_address(status):
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
        with pytest.raises(StorageUnavailable, match=f"HTTP {status}") as told:
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


def _texts(blocks):
    for block in blocks:
        for text in (block.get("text"), *block.get("fields", ()), *block.get("elements", ())):
            if text:
                yield text
