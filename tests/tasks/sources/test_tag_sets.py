"""The tagging tasks of the suite encoders: spans found in texts of BIG-bench, slots of voice commands."""

import pytest
import toy_sources

from iptkit.storage import downloads
from iptkit.tasks import pools, suites
from iptkit.tasks.sources import intents, spans, voice_slots

CARDS = {card.id: card for card in suites.list_cards("encoders") if card.origin in ("spans", "voice_slots")}
needs_archives = pytest.mark.skipif(
    not all(map(downloads.is_cached, ("bigbench", "home-assistant-intents"))), reason="needs both archives"
)
PASSAGE = "A fox lived in a den. It was red (or brown) all year, and red is its name."


def asked(question, answer):
    return {"question": question, "answers": [{"text": answer, "answer_start": PASSAGE.index(answer)}]}


def test_spans_are_found_whole_without_case_and_marks_and_longer_ones_first():
    text = "The Eagle, near Eagle Inn, is a pub."
    found = spans.tagged(text, [("eagle", "name"), ("Eagle Inn", "near"), ("pub", "type")])
    assert found == "O B-name O B-near I-near O O B-type"
    assert spans.tagged(text, [("pub", "type"), ("Eagl", "name")]) == "", "a part of a word is no span"
    assert spans.tagged("It costs $5.00.", [("$5.00", "price")]) == "O O B-price"
    assert spans.tagged("a - b", [("-", "sign")]) == "O B-sign O"


def test_restaurants_and_dialogues_leave_out_what_is_said_in_other_words():
    def described(text):
        return {"input": "name: Zizzi, eatType: pub, priceRange: cheap", "target": text}

    rows = list(
        spans.restaurants({"examples": [described("Zizzi is a  pub."), described("Zizzi is a bar.")]})
    )
    assert rows == [{"text": "Zizzi is a pub.", "target": "B-name O O B-type"}]

    def told(text):
        values = (
            'The assistant signals "offer" with the values "5 pm" for "show_time". The assistant signals '
        )
        return {"input": f'{values}"offer" with the values "True" for "is_nonstop". ...', "target": text}

    rows = list(spans.dialogues({"examples": [told("At 5 pm then?"), told("At five then?")]}))
    assert rows == [{"text": "At 5 pm then?", "target": "O B-time I-time O"}]


def test_facts_take_the_first_text_with_all_names_and_subjects_win():
    fact = "(Ana_Lee | child | Bo), (Bo | city | Rome)"
    data = {
        "examples": [{"input": fact, "target": ["Bo is in Rome.", "Ana Lee has Bo in Rome.", "Not this."]}]
    }
    assert list(spans.facts(data)) == [
        {"text": "Ana Lee has Bo in Rome.", "target": "B-subject I-subject O B-subject O B-object"}
    ]


def test_answers_stand_once_in_question_and_sentence():
    asked_of = [
        asked("Where did it live?", "a den"),
        asked("Which colour?", "red"),
        asked("Is it brown?", "brown"),
    ]
    data = {"data": [{"paragraphs": [{"context": PASSAGE, "qas": asked_of}]}]}
    rows = list(spans.answers(data))
    assert [row["text"] for row in rows] == ["Where did it live? A fox lived in a den."]
    assert rows[0]["target"] == "O O O O O O O O B-answer I-answer"


def test_essential_words_are_spans_of_their_own():
    record = {
        "input": "Question: What is the main source of light? (A) sun(B) moon?",
        "target": ["source, light?"],
    }
    assert list(spans.essential_words({"examples": [record]})) == [
        {"text": "What is the main source of light?", "target": "O O O O B-essential O B-essential"}
    ]


def test_slots_of_voice_commands(tmp_path, monkeypatch):
    with toy_sources.made_archives(tmp_path, monkeypatch):
        assert list(voice_slots.rows("voice-tags")) == [], "the toy templates have no slot"
        sampler = voice_slots._Tagging(intents.templates(), ("desk lamp",), intents.random.Random(0))
        assert voice_slots._split(sampler.sample("{name}s off")) == ("desk lamps off", "B-device I-device O")
        amounts = {voice_slots._split(sampler.sample("to {brightness}-percent"))[1] for _ in range(5)}
        assert amounts == {"O B-amount"}
        lists = voice_slots._Tagging(intents.templates(), ("party", "work"), intents.random.Random(0))
        assert voice_slots._split(lists.sample("the {name:x} list"))[1] == "O B-list O"


@needs_archives
def test_every_tag_of_a_card_occurs_and_an_i_tag_continues_a_span():
    for task in suites.load_suite("encoders", only=list(CARDS), full=True):
        assert len(task.test) >= 200 and len(task.train) > 2 * len(task.dev)
        every = [*task.train, *task.dev, *task.test]
        assert {tag for e in every for tag in e.tags} == set(task.labels), task.id
        for example in every:
            for before, tag in zip(("O", *example.tags), example.tags, strict=False):
                assert tag[0] != "I" or before[2:] == tag[2:], (task.id, example)


def test_cards_name_their_file_and_their_groups_siblings():
    groups = {card.group for card in suites.list_cards("ipt120")}
    assert len({card.group for card in suites.list_cards("encoders") if card.category == "tag"}) == 11
    for name, card in CARDS.items():
        assert card.metric == "span_f1" and card.shots == 32 and card.licence and card.about.endswith(".")
        assert list(card.labels) == [*sorted(set(card.labels) - {"O"}), "O"]
        assert (card.group in groups) == (name != "dialogue-tags")
        if card.origin == "spans":
            assert card.source.endswith(spans.TASKS[name][0]) and pools.cache_file(card)
