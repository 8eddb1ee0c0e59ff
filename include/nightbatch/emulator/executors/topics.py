"""Finds the topics of a product review by keywords, in the words of whatever schema is asked for."""

from __future__ import annotations

import re
from typing import Any

import orjson

from nightbatch.emulator.asks import Ask
from nightbatch.emulator.executors import sentiment
from nightbatch.emulator.executors.schema import NOTHING, Schema, fill

RULES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    rule: (frozenset(names.split()), frozenset(words.split()))
    for rule, names, words in (
        (
            "picture_quality",
            "picture pictures video image photo screen display camera",
            "picture pictures image images photo photos video videos screen display lcd lens zoom focus flash"
            " resolution megapixel pixel color colors colour blurry sharp viewfinder lighting exposure shot"
            " shots dvd playback",
        ),
        (
            "sound",
            "sound audio noise",
            "sound sounds audio noise noisy loud volume bass speaker speakers headphone headphones earbuds earphones"
            " music mp3 song songs ringtone ringtones hear heard reception",
        ),
        (
            "battery",
            "battery power charging",
            "battery batteries charge charged charger charging recharge recharging power hours life",
        ),
        (
            "price",
            "price cost value money",
            "price priced prices cost costs cheap cheaper expensive money value worth bargain deal dollars bucks paid"
            " pay affordable rebate sale",
        ),
        (
            "size_design",
            "size design look looks style weight portability appearance build",
            "size sized small smaller tiny compact big bigger large weight light lightweight heavy design look looks"
            " sleek stylish feel pocket portable color plastic solid sturdy case fits thin",
        ),
        (
            "ease_of_use",
            "ease easy usability use setup controls",
            "easy easier easily simple intuitive difficult hard confusing complicated use using user setup set install"
            " instructions manual learn learning controls button buttons",
        ),
        (
            "software",
            "software menu menus interface firmware features",
            "software menu menus firmware interface computer pc mac windows driver drivers usb sync itunes musicmatch"
            " transfer program update upgrade feature features format formats",
        ),
        (
            "service",
            "service support customer warranty shipping delivery",
            "service support customer customers warranty return returned replacement refund repair shipping shipped"
            " delivery delivered amazon store company technician email phone call",
        ),
    )
}
"""For each topic the words that name it in a schema, and the words that show it in a review."""

FALLBACKS = ("other", "general", "none", "unknown", "misc")
_WORDS = re.compile(r"[a-z0-9]+")


def answer(ask: Ask) -> str:
    """Answer as JSON: enums by keywords, a sentiment by VADER, anything else filled in."""
    text = sentiment.text_of(ask.user)
    schema = ask.schema or DEFAULT_SCHEMA
    return orjson.dumps(fill(schema, text, lambda name, inner: _suggest(text, name, inner))).decode()


def _suggest(text: str, name: str, schema: Schema) -> Any:
    if name == "sentiment":
        return sentiment.suggest(sentiment.judge(text), name, schema)
    items = schema.get("items")
    if isinstance(items, dict) and items.get("enum"):
        found = ranked(text, items["enum"])
        return found[: schema.get("maxItems", len(found))]
    if schema.get("enum") and all(isinstance(option, str) for option in schema["enum"]):
        return ranked(text, schema["enum"])[0]
    return NOTHING


def ranked(text: str, options: list[str]) -> list[str]:
    """Return the options that a text is about, the clearest first; the fallback if it is about none."""
    words = _WORDS.findall(text.lower())
    hits = {option: sum(word in _keywords(option) for word in words) for option in options}
    found = sorted((option for option in options if hits[option]), key=lambda option: -hits[option])
    fallback = next((option for option in options if option.lower() in FALLBACKS), options[-1])
    return found or [fallback]


def _keywords(option: str) -> frozenset[str]:
    """Return the words that show an option: those of the rule that shares its name, or its own."""
    own = frozenset(_WORDS.findall(option.lower()))
    rules = [words for names, words in RULES.values() if own & names]
    return own.union(*rules) - set(FALLBACKS) if rules else own - set(FALLBACKS)


_TOPICS = [*RULES, "other"]
DEFAULT_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "topics": {"type": "array", "items": {"type": "string", "enum": _TOPICS}},
        "main_topic": {"type": "string", "enum": _TOPICS},
    },
    "required": ["topics", "main_topic"],
}
"""What is answered to a request without a schema."""
