"""docs/observability.md, the dashboard and the mapping say what the code tells; run as a script, it writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from nightbatch.adapters.telemetry import BUCKETS_S
from nightbatch.core.metrics import METRICS, Kind, Metric

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "observability.md"
DASHBOARD = DOCS / "grafana" / "nightbatch.json"
MAPPING = DOCS / "grafana" / "statsd-exporter.yaml"

SAMPLE = {"job_name": "reviews", "provider": "openai", "model": "gpt-5.4-mini", "lane": "openai_default/batch"}


def table() -> str:
    """Write the table of figures."""
    rows = [
        f"| `{it.name}` | {it.kind} | {', '.join(f'`{label}`' for label in it.labels)} | {it.says} |" for it in METRICS
    ]
    return "\n".join(["| name | kind | labels | what it says |", "| --- | --- | --- | --- |", *rows])


def with_table(text: str) -> str:
    """Put the table into the page, between its marks."""
    marks = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


def mapping() -> str:
    """Write the rules by which Prometheus's statsd_exporter reads names: plain ones, and the timers of both kinds."""
    rules = [_rule(metric, has_labels=has_labels) for metric in METRICS for has_labels in (False, True)]
    rules = [rule for rule in rules if {"labels", "observer_type", "ttl"} & set(rule)]
    head = "# Rules for Prometheus's statsd_exporter: labels from plain StatsD names, and histograms for timers.\n"
    head += "# Written by tests/test_observability_docs.py; is `statsd_prefix` another one? Replace `airflow`.\n"
    return head + yaml.safe_dump({"mappings": rules}, sort_keys=False, width=1000)


def _rule(metric: Metric, *, has_labels: bool) -> dict[str, Any]:
    name = f"airflow.{metric.name}"
    rule: dict[str, Any] = {"match": name if has_labels else ".".join([name, *("*" for _ in metric.labels)])}
    rule["name"] = name.replace(".", "_")
    if not has_labels:
        rule["labels"] = {label: f"${number}" for number, label in enumerate(metric.labels, 1)}
    if metric.kind is Kind.TIMER:
        rule |= {"observer_type": "histogram", "histogram_options": {"buckets": list(BUCKETS_S)}}
    if metric.kind is Kind.GAUGE:
        rule["ttl"] = "3h"  # else what a dead process told last would stand for ever
    return rule


def test_the_page_lists_every_figure() -> None:
    """Wrong? `python tests/test_observability_docs.py` mends it."""
    text = PAGE.read_text(encoding="utf-8")

    assert with_table(text) == text
    assert all(f"`{metric.name}`" in text for metric in METRICS)


def queries() -> list[str]:
    """Give every query of every panel."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def test_every_query_of_the_dashboard_asks_for_a_figure_that_is_told_and_every_figure_is_asked_for() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    all_queries = [*queries(), *(it["query"]["query"] for it in board["templating"]["list"] if it["type"] == "query")]
    asked = [re.findall(r'__name__=~"\(airflow_\)\?(nightbatch_[a-z_]+?)(\(\S+)?"', query) for query in all_queries]
    suffix = {Kind.COUNTER: "(_total)?", Kind.TIMER: "(_seconds)?_bucket", Kind.GAUGE: ""}
    known = {(metric.name.replace(".", "_"), suffix[metric.kind]) for metric in METRICS}

    assert all(asked), "a query asks for nothing of ours"
    assert {one for names in asked for one in names} == known


def test_every_label_that_the_dashboard_uses_is_one_of_its_figure() -> None:
    labels = {metric.name.replace(".", "_"): {*metric.labels} for metric in METRICS}
    selector = re.compile(r'\{__name__=~"\(airflow_\)\?(nightbatch_\w+?)(?:\(\S+)?", ([^}]*)\}')
    grouped = re.compile(r"by \(([^)]*)\)")

    for query in queries():
        found = selector.findall(query)
        used = set(re.findall(r"(\w+)(?:=~|!=|=)", " ".join(matchers for _, matchers in found)))
        used |= {label for names in grouped.findall(query) for label in names.split(", ")} - {"le"}
        assert found, query
        assert all(used <= labels[name] for name, _ in found), query


def test_the_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(places)) == len(places)


def test_the_mapping_reads_labels_out_of_plain_names() -> None:
    """Wrong? `python tests/test_observability_docs.py` mends it."""
    assert MAPPING.read_text(encoding="utf-8") == mapping()

    for metric in METRICS:
        sent = f"airflow.{metric.dotted({**SAMPLE, 'what': 'input', 'kind': 'again', 'reason': 'expired'})}"
        [rule] = [rule for rule in yaml.safe_load(mapping())["mappings"] if _matches(rule["match"], sent)]
        assert list(rule["labels"]) == list(metric.labels)


def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern.replace(".", r"\.").replace("*", r"([^.]+)"), name) is not None


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    MAPPING.write_text(mapping(), encoding="utf-8")
