import json

import pytest
import torch

from iptkit.storage import paths
from iptkit.tasks import suites, wordings
from iptkit.tasks.examples import Card, Example
from iptkit.tasks.wordings import Template, Verbalizer, Wording


def test_a_template_is_filled_up_to_its_answer():
    template = Template("{word}: {definition}\nKind: {answer}")
    assert template.slots == ("word", "definition")
    assert template.fill({"word": "oak", "definition": "a {tree}"}) == "oak: a {tree}\nKind:"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("{text} is good", "has 0 answer slots"),
        ("{text} {answer} {answer}", "has 2 answer slots"),
        ("It is {answer}", "has no text slot"),
        ("{text} is {answer}.", "has words after {answer}"),
        ("{text} {text} {answer}", "different names"),
        ("{} is {answer}", "different names"),
        ("{text is {answer}", "not well-formed"),
    ],
)
def test_errors_say_why_a_template_cannot_be_used(words, told):
    with pytest.raises(ValueError, match="template") as error:
        Template(words)
    assert told in str(error.value)


def test_the_error_names_missing_slots():
    with pytest.raises(ValueError, match="needs text; given: word, note"):
        Template("{text} is {answer}").fill({"word": "oak", "note": ""})


def test_label_scores_are_means_over_words():
    verbalizer = Verbalizer({"neg": ("bad", "sad"), "pos": ("good",), "none": ("so so", "meh", "hm")})
    assert verbalizer.labels == ("neg", "pos", "none")
    assert verbalizer.words == ("bad", "sad", "good", "so so", "meh", "hm")
    scores = verbalizer.label_scores(torch.tensor([[-1.0, -3.0, -4.0, -1.0, -2.0, -6.0]]))
    assert scores.tolist() == [[-2.0, -4.0, -3.0]]


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ({"a": ("x",)}, "needs at least two"),
        ({"a": ("x",), "b": ()}, "label 'b' has the words"),
        ({"a": ("x",), "b": "y"}, "give a tuple"),
        ({"a": ("x",), "b": (" ",)}, "not empty"),
        ({"a": ("x",), "b": ("y ",)}, "no blanks"),
        ({"a": ("x", "y"), "b": ("z", "y")}, "'y' stands for 'a' and for 'b'"),
    ],
)
def test_errors_say_why_a_verbalizer_cannot_be_used(of, told):
    with pytest.raises(ValueError) as error:
        Verbalizer(of)
    assert told in str(error.value)


def test_solved_examples_come_before_the_question():
    wording = Wording(Template("{text} It is {answer}"), Verbalizer({"n": ("bad", "sad"), "p": ("good",)}))
    asked = wording.ask({"text": "Rain."}, [({"text": "Sun."}, "p"), ({"text": "Mud."}, "n")])
    assert asked.input == "Sun. It is good\n\nMud. It is bad\n\nRain. It is"
    assert asked.options == ("bad", "sad", "good")


def card(template=""):
    return Card(*"abcdefgh", template=template)


def test_slots_are_read_back_from_the_cards_template():
    example = Example("a tree: it (grows)?\nTopic?\nChoices: x, y", ("x",), ("x", "y"))
    found = wordings.slots_of(card("{word}: {definition}\nTopic?"), example)
    assert found == {"word": "a tree", "definition": "it (grows)?"}
    assert wordings.slots_of(card(), example) == {"text": "a tree: it (grows)?\nTopic?"}
    free = Example("Two lines\nChoices: none", ("x",))
    assert wordings.slots_of(card(), free) == {"text": "Two lines\nChoices: none"}
    with pytest.raises(ValueError, match="was not made with its template"):
        wordings.slots_of(card("Is {x} odd?"), example)


def test_the_course_has_eight_wordings_for_each_of_six_tasks():
    known = json.loads((paths.data_dir() / "wordings.json").read_text(encoding="utf-8"))
    cards = {c.id: c for suite in suites.SUITES for c in suites.list_cards(suite)}
    for name in known["tasks"]:
        given = wordings.of_task(name)
        assert all(set(w.verbalizer.labels) == set(cards[name].labels) for w in given)
        slots = set(w.template.slots[0] for w in given)
        assert slots <= ({"text"} if not cards[name].template else set(template_slots(cards[name])))
        assert name.startswith("tiny") or len({w.template.words for w in given}) >= 8
    assert sum(not name.startswith("tiny") for name in known["tasks"]) >= 6


def test_every_fact_template_asks_for_its_relations_subject():
    cards = {c.id: c for suite in suites.SUITES for c in suites.list_cards(suite)}
    known = json.loads((paths.data_dir() / "wordings.json").read_text(encoding="utf-8"))["facts"]
    for name in (name for name in known if not name.startswith("tiny")):
        for template in wordings.of_relation(name):
            assert template.slots == tuple(template_slots(cards[name]))


def template_slots(of):
    return Template(of.template + " {answer}").slots


def test_the_error_names_the_tasks_with_wordings():
    with pytest.raises(ValueError, match="no wordings for 'x', only for vader-tweets"):
        wordings.of_task("x")
    with pytest.raises(ValueError, match="no fact templates for 'x', only for country-capital"):
        wordings.of_relation("x")
