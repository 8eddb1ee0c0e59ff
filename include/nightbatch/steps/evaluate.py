"""Beside the steps: compare a job's answers in its sink with what people say of the same records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nightbatch.core.evaluation import MAX_LABELS, Evaluation, label_of
from nightbatch.errors import BadSource
from nightbatch.ports import Chunk, Sink


@dataclass
class Compared:
    """Every prompt and model that has labelled answers, most rows first."""

    groups: list[Evaluation] = field(default_factory=list)
    unanswered: int = 0
    """Labelled records without an answer in the sink."""
    unlabelled: int = 0
    """Answers without a label."""


def read_labels(chunks: Iterable[Chunk], *, key: str, label: str, what: str) -> dict[str, str]:
    """
    Read labels by key; of a key that comes twice the last one counts, and a null is no label.

    Memory: the labelled records, some 200 bytes each. Raises BadSource where a column is absent, or holds no labels.
    """
    labels: dict[str, str] = {}
    for chunk in chunks:
        for column in (key, label):
            if column not in chunk.columns:
                columns = ", ".join(chunk.columns)
                raise BadSource(what, problem=f"it has no column {column}", remedy=f"Use --key and --label: {columns}")
        at_key, at_label = chunk.columns.index(key), chunk.columns.index(label)
        found = ((row[at_key], label_of(row[at_label])) for row in chunk.rows)
        labels.update((str(name), text) for name, text in found if name is not None and text)
    kinds = len(set(labels.values()))
    if kinds > MAX_LABELS:
        remedy = "Name a column with few different values, or write a query that makes labels of it"
        raise BadSource(what, problem=f"column {label} has {kinds:,} different values", remedy=remedy)
    return labels


def evaluate(sink: Sink, field: str, labels: dict[str, str]) -> Compared:
    """Compare one field of the answers in a sink with labels; streams the sink."""
    left, kinds = dict(labels), frozenset(labels.values())
    groups: dict[tuple[str, str], Evaluation] = {}
    compared = Compared()
    for chunk in sink.given(field):
        for given in chunk:
            label = left.pop(given.key, None)
            if label is None:
                # Without a label, or an older answer of a file sink, whose newer one has been here.
                compared.unlabelled += given.key not in labels
                continue
            version, model = given.prompt_version or "", given.model or ""
            group = groups.setdefault((version, model), Evaluation(version, model))
            group.add(label, label_of(given.value), given.cost_usd, labels=kinds)
    compared.groups = sorted(groups.values(), key=lambda one: (-one.rows, one.prompt_version, one.model))
    compared.unanswered = len(left)
    return compared
