"""The readers of core36, on small archives of the same layout."""

import importlib
import pickle

import pytest
import toy_sources
from toy_sources import EN_JSON

from iptkit.tasks import pools, suites
from iptkit.tasks.examples import Example
from iptkit.tasks.sources import babel_names, intents


@pytest.fixture(autouse=True)
def archives(tmp_path, monkeypatch):
    with toy_sources.made_archives(tmp_path, monkeypatch):
        yield


def rows(task_id):
    card = next(card for card in suites.list_cards("core36") if card.id == task_id)
    return list(importlib.import_module(f"iptkit.tasks.sources.{card.origin}").rows(task_id))


def examples(task_id):
    return list(pools.examples(next(card for card in suites.list_cards("core36") if card.id == task_id)))


@pytest.mark.parametrize("card", suites.list_cards("core36"), ids=lambda card: card.id)
def test_every_task_gives_examples_that_fit_its_card(card, monkeypatch):
    if card.origin == "babel_names":
        monkeypatch.setattr(babel_names, "LANGUAGES", {card.id: "fr"})
    found = list(pools.examples(card))
    assert found
    for example in found:
        assert "{" not in example.input and example.input == example.input.strip()
        assert not card.labels or set(example.targets) <= set(card.labels) == set(example.options)


def test_texts_of_classification_and_multiple_choice():
    assert examples("vader-tweets") == [
        Example(
            "fine & good\nWhat is the sentiment?\nChoices: negative, positive",
            ("positive",),
            ("negative", "positive"),
        ),
        Example(
            "a bad day\nWhat is the sentiment?\nChoices: negative, positive",
            ("negative",),
            ("negative", "positive"),
        ),
    ]
    for example in examples("wn-example-to-gloss"):
        assert example.input.endswith("".join(f"\n- {option}" for option in example.options))
    assert {(row["word"], row["target"]) for row in rows("wn-example-to-gloss")} == {
        ("bank", "a seat along a wall"),
        ("bank", "the side of a river"),
    }


def test_wordnet():
    assert [
        row["word"] for row in rows("wn-word-to-gloss")
    ] == "bank rise hound fall entity asleep bank".split()
    assert {"word": "hound", "target": "animal", "definition": "a dog that hunts"} in rows("wn-lexname")
    assert {"definition": "a dog that hunts", "targets": ["hound"]} in rows("wn-gloss-to-word")
    assert {"definition": "in a state of sleep", "target": "adjective"} in rows("wn-gloss-pos")
    assert rows("wn-hypernym")[0] == {"word": "bank", "targets": ["entity"]}
    assert rows("wn-antonym") == [{"word": "rise", "target": "fall"}, {"word": "fall", "target": "rise"}]
    assert rows("wn-synonym") == [
        {"word": "rise", "targets": ["climb"]},
        {"word": "hound", "targets": ["hunting dog"]},
    ]


def test_pattern_corpora():
    assert [row["target"] for row in rows("p3-uncertainty")] == ["certain", "uncertain"]
    assert rows("p3-spelling") == [{"misspelling": "watter", "target": "water"}]
    assert rows("p3-verb-gerund") == [{"verb": "bake", "target": "baking"}]
    assert rows("p3-adjective-polarity") == [
        {"adjective": "fine", "target": "positive"},
        {"adjective": "grim", "target": "negative"},
    ]
    assert rows("p3-commonsense-relation")[1] == {"first": "paw", "second": "fox", "target": "part of"}
    assert rows("p3-commonsense-is-property-of") == [{"concept": "red", "target": "fox"}]
    sentences = [row["sentence"] for row in rows("p3-oanc-adjectives")]
    assert sentences == ["Ben Hill saw a red fox .", "Foxes do n't like old , cold rain ."]
    assert rows("p3-oanc-adjectives")[1]["target"] == "old, cold"
    assert rows("p3-oanc-pos")[0]["target"] == "name name verb det adj noun stop"
    assert rows("p3-oanc-names") == [{"sentence": sentences[0], "target": "Ben Hill"}]


def test_small_origins():
    assert rows("country-capital")[1] == {"country": "Twoland", "target": "Twotown"}
    assert rows("country-region") == [{"country": "Oneland", "target": "Asia"}]
    assert rows("country-demonym") == [{"country": "Oneland", "target": "Onelander"}]
    assert rows("chatterbot-trivia") == [{"question": "A trivia question", "targets": ["An answer", "12"]}]
    assert len(rows("chatterbot-topic")) == 6
    assert rows("lemm-comparative") == [
        {"adjective": "fine", "targets": ["finer"]},
        {"adjective": "grey", "targets": ["greyer", "grayer"]},
    ]
    assert rows("usaddress-tagging") == [
        {
            "text": "12 Fox & Hill Rd, Ham",
            "target": "number: 12; street: Fox & Hill; street type: Rd; city: Ham",
        }
    ]
    assert rows("probablepeople-person") == [
        {"text": "Hill, Ben", "target": "surname: Hill; given name: Ben"}
    ]
    assert rows("probablepeople-company") == [{"text": "fox inc.", "target": "name: fox; legal type: inc."}]
    assert rows("babel-en-fr") == [
        {"name": "Oneland", "target": "Unelande"},
        {"name": "Onish", "target": "unois"},
    ]


def test_intent_templates():
    found = {row["target"]: row["sentence"] for row in rows("ha-intent")}
    assert len(found) == 12 and found["turn on"] in ("say turn on", "say turn on again")
    sampler = intents.Sampler(EN_JSON, ("lamp",), intents.random.Random(0))
    template = "[please] <turn> ([<the>] {name};{color}|on) to {brightness}"
    with_permutation = {sampler.sample("<turn> [<the>] {name:x} (now;{color})") for _ in range(200)}
    assert "switch my lamp light red now" in with_permutation and "turn lamp now dark red" in with_permutation
    assert all(sampler.sample(template).split()[-1] in "123" for _ in range(50))


def test_pickles_are_read_as_data_and_run_no_code(tmp_path):
    plain = {"a": [1, 2.5, ("x", "y"), {}], "b": {"c": None, "d": True}, "e": "x" * 300, "f": 70000}
    plain["again"] = plain["a"]
    for protocol in (2, 3):
        assert babel_names.read_pickled_data(pickle.dumps(plain, protocol=protocol)) == plain

    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    assert babel_names.read_pickled_data(pickle.dumps({"a": Evil(), "b": 1}, protocol=2)) == {
        "a": None,
        "b": 1,
    }
    assert not ran.exists()
    with pytest.raises(ValueError, match="operation MEMOIZE, which is not plain data"):
        babel_names.read_pickled_data(pickle.dumps(Evil(), protocol=4))
    assert not ran.exists()
