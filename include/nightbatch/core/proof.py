"""The proof of a run: each sum and each hash that must hold, as a value that says what was found, and where."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LINKS = {
    "records": "every record that came in was placed once: left alone, unchanged, duplicate, bad, or a request",
    "file": "a file is byte for byte what was sealed or stored (SHA-256)",
    "requests": "a shard's request file and its index have as many rows as were sealed",
    "batch": "what was sent is what was sealed, and the batch is the one that was noted beside the ledger",
    "state": "a shard's state fits what is known of it",
    "lines": "each line of a batch was answered, errored, expired, cancelled or is missing, as the raw files say",
    "verdicts": "each row of a shard has exactly one verdict, under its own key, and the ledger counts the same",
    "tokens": "the tokens of the raw files, of the verdicts and of the ledger are the same",
    "rates": "each row costs its tokens at the rates that were booked",
    "cost": "the rows' costs add up to the shard's in the ledger",
    "bill": "the batch's own total, where the vendor gives one, is that of its rows",
    "loaded": "the load counted, inside its transaction, the good rows and their copies",
    "fates": "each row that was not good is sent again, a dead letter, or pending: exactly one of them",
    "round": "a sealed round counts the rows that its files hold",
    "answers": "each request is good, dead, pending, or under way",
    "copies": "each duplicate shares the fate of its twin",
    "money": "the ledger's entries add up to the shards' costs, and nothing stays reserved",
    "sink": "the sink has each good row and copy, from this run or a newer one, with its custom_id and cost",
}
"""Every kind of link, and what it says when it holds."""


@dataclass(frozen=True)
class Link:
    """One sum or hash: what it must be, what it is, and whether the two agree."""

    name: str
    """One of `LINKS`."""
    place: str
    """What it is about: a run, a round, a shard, or a file."""
    expected: str
    found: str
    holds: bool | None
    """None where it could not be looked at; `found` then says why."""

    def __str__(self) -> str:
        return f"{self.name} of {self.place}: expected {self.expected}, found {self.found}"


def same(name: str, place: str, expected: object, found: object) -> Link:
    """Make a link that holds where both sides are equal."""
    return Link(name, place, str(expected), str(found), expected == found)


def unknown(name: str, place: str, why: str) -> Link:
    """Make a link that nobody can look at."""
    return Link(name, place, "", why, None)


def broken(links: Sequence[Link]) -> list[Link]:
    """Give the links that do not hold; files first, since they explain the sums."""
    wrong = [link for link in links if link.holds is False]
    return sorted(wrong, key=lambda link: link.name != "file")


def told(links: Sequence[Link]) -> str:
    """Say in one line how many links hold, for a report."""
    files = sum(link.name == "file" and link.holds is True for link in links)
    sums = sum(link.name != "file" and link.holds is True for link in links)
    wrong, unsure = len(broken(links)), sum(link.holds is None for link in links)
    parts = [f"{files:,} files have their SHA-256", f"{sums:,} sums hold"]
    parts += [f"{wrong:,} links do not hold"] * bool(wrong) + [f"{unsure:,} could not be looked at"] * bool(unsure)
    return ", ".join(parts) if links else "nothing to add up"


_MOST = (1 << 128) - 1


class Bag:
    """
    A multiset of rows, in a few bytes: two of them are equal only if they hold the same rows, in whatever order.

    The sum of a hash of each row, modulo 2^128: no two different bags are equal by accident.
    """

    def __init__(self) -> None:
        self.count = self._sum = 0

    def add(self, *row: object, times: int = 1) -> None:
        """Put a row in; `times` -1 takes it out again."""
        text = "\x1f".join([str(value) for value in row])
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._sum = (self._sum + times * int.from_bytes(digest)) & _MOST
        self.count += times

    def __iadd__(self, other: Bag) -> Bag:
        self._sum = (self._sum + other._sum) & _MOST
        self.count += other.count
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bag) and (self.count, self._sum) == (other.count, other._sum)

    def __hash__(self) -> int:
        return self._sum

    def __str__(self) -> str:
        return f"{self.count:,} rows ({self._sum:032x}"[:-24] + ")"


def counted(counts: Mapping[str, int]) -> str:
    """Write counts in one order, without those that are nought."""
    return ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()) if number) or "none"
