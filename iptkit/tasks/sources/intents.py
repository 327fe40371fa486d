"""Voice commands sampled from sentence templates (home-assistant-intents).

A small parser reads the templates: `[optional]`, `(one|of|these)`, `(in;any;order)`, `<rule>` and
`{list:slot}`. Lists that the package leaves open (rooms, devices, things to buy) are filled with the words
below.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from functools import cache

from iptkit.storage import archives

VERSION = 1
NUM_PER_INTENT, MAX_TRIES = 160, 4000
FILE = "home_assistant_intents/data/en.json"
INTENTS = {  # intent in the package -> label, and a pattern that a sentence must match to deserve it
    "HassShoppingListAddItem": ("add to list", r"list"),
    "HassListAddItem": ("add to list", r"list"),
    "HassCancelTimer": ("cancel timer", r"timer"),
    "HassClimateGetTemperature": ("get temperature", r"temp|how"),
    "HassMediaNext": ("next song", r"next|skip"),
    "HassMediaPause": ("pause music", r"pause|stop"),
    "HassFanSetSpeed": ("set fan", r"fan"),
    "HassLightSet": ("set light", r"light|lamp|brightness|color"),
    "HassClimateSetTemperature": ("set temperature", r"temp"),
    "HassSetVolume": ("set volume", r"volume"),
    "HassStartTimer": ("start timer", r"timer"),
    "HassTurnOff": ("turn off", r"\boff\b"),
    "HassTurnOn": ("turn on", r"\bon\b"),
}
AREAS = (
    "kitchen",
    "bedroom",
    "living room",
    "bathroom",
    "office",
    "hallway",
    "garage",
    "dining room",
    "nursery",
)
NAMES = {
    "light": ("desk lamp", "ceiling light", "night light", "floor lamp"),
    "fan": ("ceiling fan", "desk fan"),
    "climate": ("thermostat", "heater", "air conditioner"),
    "media_player": ("TV", "radio", "speaker", "stereo"),
    "todo": ("holiday", "weekend", "party", "work", "garden"),
    "switch": ("coffee machine", "heater", "printer"),
}
WORDS = {
    "area": AREAS,
    "floor": ("first", "second", "ground", "top"),
    "shopping_list_item": (
        "milk",
        "bread",
        "apples",
        "cheese",
        "coffee",
        "rice",
        "soap",
        "two lemons",
        "eggs",
    ),
    "todo_list_item": ("call the bank", "water the plants", "buy stamps", "pack a coat", "book a table"),
    "timer_name": ("pizza", "laundry", "tea", "homework", "pasta"),
    "timer_command": ("open the blinds", "turn off the lights", "play some music"),
}
SYMBOL = re.compile(r"[\[\]()|;]|<[^>]*>|\{[^}]*\}|[^\[\]()|;<{]+")


def rows(task_id: str) -> Iterator[dict]:
    """Yield sentence and target, with up to 160 different sentences per intent."""
    data = templates()
    for intent, (label, needed) in INTENTS.items():
        rng = random.Random(f"{task_id}/{intent}")
        blocks = [block for block in data["intents"][intent]["data"] if names_for(block)]
        found: dict[str, None] = {}
        for _ in range(MAX_TRIES):
            block = rng.choice(blocks)
            sentence = Sampler(data, names_for(block), rng).sample(rng.choice(block["sentences"]))
            if re.search(needed, sentence):
                found[sentence] = None
            if len(found) == NUM_PER_INTENT:
                break
        yield from ({"sentence": sentence, "target": label} for sentence in found)


def names_for(block: dict) -> tuple[str, ...]:
    """Return device names that fit a block of templates; () if none is known."""
    domains = block.get("requires_context", {}).get("domain", ["light"])
    return tuple(name for domain in domains for name in NAMES.get(domain, ()))


class Sampler:
    """Draws one sentence from a template; `slot` returns the text of a {list:slot}."""

    def __init__(self, data: dict, names: tuple[str, ...], rng: random.Random):
        self.data, self.names, self.rng = data, names, rng

    def sample(self, template: str) -> str:
        """Return a sentence of a template."""
        symbols = SYMBOL.findall(template)[::-1]
        return " ".join(self._choices(symbols, "").split())

    def _choices(self, symbols: list[str], closing: str) -> str:
        """Read up to the closing bracket and return a random one of its alternatives or permutations."""
        parts, current, is_permutation = [], "", False
        while symbols and symbols[-1] != closing:
            symbol = symbols.pop()
            if symbol in "|;":
                parts.append(current)
                current, is_permutation = "", symbol == ";"
            else:
                current += self._one(symbol, symbols)
        if symbols:
            symbols.pop()
        parts.append(current)
        if is_permutation:
            return " ".join(self.rng.sample(parts, len(parts)))
        return self.rng.choice(parts)

    def _one(self, symbol: str, symbols: list[str]) -> str:
        if symbol == "(":
            return self._choices(symbols, ")")
        if symbol == "[":
            inner = self._choices(symbols, "]")
            return inner if self.rng.random() < 0.5 else ""
        if symbol.startswith("<"):
            return self.sample_rule(symbol[1:-1])
        return self.slot(symbol[1:-1]) if symbol.startswith("{") else symbol

    def sample_rule(self, name: str) -> str:
        """Return words for a <rule>."""
        return self.sample(self.data["expansion_rules"][name])

    def slot(self, name: str) -> str:
        """Return words for the slot `name`, "list" or "list:slot"."""
        return self._word(name.split(":")[0])

    def _word(self, name: str) -> str:
        if name == "name":
            return self.rng.choice(self.names)
        if name in WORDS:
            return self.rng.choice(WORDS[name])
        values = self.data["lists"][name]
        if "range" in values:
            bounds = values["range"]
            return str(self.rng.randrange(max(1, bounds["from"]), bounds["to"] + 1, bounds.get("step", 1)))
        return self.sample(self.rng.choice(values["values"])["in"])


@cache
def templates() -> dict:
    """Return the package's templates, lists and rules."""
    return json.loads(archives.read("home-assistant-intents", FILE)[FILE])
