"""The readers of ipt120, on a small archive with BIG-bench's layout and our own texts."""

import hashlib
import json
import tarfile
from collections import Counter, defaultdict

import pyarrow.parquet as pq
import pytest
from toy_archives import write_sdist

from iptkit.storage import archives, downloads, files, paths
from iptkit.tasks import pools, suites
from iptkit.tasks.examples import Example
from iptkit.tasks.sources import bigbench, passages, recast, records
from iptkit.tasks.sources.bigbench_tasks import TASKS

CANARY = "made-up data, not for training; canary made-up-1"
CARDS = {card.id: card for card in suites.list_cards("ipt120") if card.origin == "bigbench"}
needs_archive = pytest.mark.skipif(
    not downloads.is_cached("bigbench"), reason="needs the archive of BIG-bench (358 MB)"
)


def scored(text, *options, best=0):
    return {"input": text, "target_scores": {option: int(i == best) for i, option in enumerate(options)}}


def asked(text, *targets):
    return {"input": text, "target": targets[0] if len(targets) == 1 else list(targets)}


YES = scored("A dog of the year 3000 met a king.", "Yes", "No")
QUESTION = asked("Sentence: The  fox ran home!. \nQuestion: Who ran?", "The fox.")
PASSAGE = "A fox lived in a den. It was brown (or red) all year. \nThe den had 2 doors."
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": PASSAGE,
                    "qas": [
                        {
                            "question": f"What colour was the fox of day {i}?",
                            "answers": [
                                {"text": "brown", "answer_start": 29},
                                {"text": "brown (or red)", "answer_start": 29},
                                {"text": "fox", "answer_start": 2},
                                {"text": "red", "answer_start": 30},
                            ],
                        }
                        for i in range(8)
                    ],
                }
            ]
        }
    ]
}
GROUP = {
    "candidates": [
        {
            "synset_name": f"thing.n.0{i}",
            "definition": f"gloss {i}",
            "contexts": [f"Here  is thing {i} ."],
            "words_in_contexts": ["thing"],
        }
        for i in range(4)
    ]
}
RESTAURANT = asked("name: The Fox, eatType: pub, near: Hill", "The Fox is a pub near Hill.")
TRIPLES = asked("(Fox_(animal) | eats | 3.0), (Hen | home | Barn)", "The fox eats 3; a hen lives in a barn.")
RECORDS = {
    "analogical_similarity": [scored("A ran. <-> B ran off. So they show ", "an analogy.", "no similarity.")],
    "epistemic_reasoning": [
        scored("Premise: A knows B. Hypothesis: B is. ", "entailment", "non-entailment", best=1)
    ],
    "fact_checker/fever": [scored("In 1999, some said this: Foxes fly: far.\nQ: Is it so?", "true", "false")],
    "fact_checker/politifact": [
        scored("On May 3 1999, some said this: Foxes fly.\nQ: Is it so?", "true", "false")
    ],
    "formal_fallacies_syllogisms_negation": [
        scored('"All is one. So it is."\n Is this so?', "valid", "invalid")
    ],
    "hyperbaton": [scored('Which one: a " red old fox " b " old red fox " ?', "a", "b", best=1)],
    "implicatures": [scored("Speaker 1: 'Well?' Speaker 2: 'Hm.'", "yes", "no")],
    "intent_recognition": [scored("Request: Play it.", "play_music", "rate_book")],
    "logical_fallacy_detection": [
        scored("Look here. Say 'Valid' or 'Invalid', please. All is one. So it is.", "Valid", "Invalid")
    ],
    "metaphor_boolean": [scored("He is a fox. <--> He is sly.\n", "True", "False")],
    "misconceptions": [scored("Foxes fly.", "T", "F", best=1)],
    "movie_dialog_same_or_different": [
        scored('Hi. Bye. ----- Above, were "Hi." and "Bye." ', "same", "different")
    ],
    "navigate": [scored("Take 1 step.", "True", "False", best=1)],
    "presuppositions_as_nli": [
        scored("Sentence 1: A stopped. \nSentence 2: A began.\n\nSo: ", "entailment", "neutral")
    ],
    "social_support": [scored("Well done!", "supportive", "neutral")],
    "sports_understanding": [scored("A fox scored", "plausible", "implausible", best=1)],
    "vitaminc_fact_verification": [scored("Fox: it is red.\nClaim: It is blue.", "True", "False", best=1)],
    "winowhy": [scored("A saw B, for he fell. The 'he' refers to B because B fell.", "correct", "incorrect")],
    "cs_algorithms/valid_parentheses": [scored("( )", "Valid", "Invalid")],
    "natural_instructions/subtask046_miscellaenous_question_typing": [
        asked("Question: Who ran? (Answer: Ann).", "Humans."),
        asked("Question: Who came? (Answer: a fox).", "Humans.", "Entity."),
        asked("Question: Whose is it? (Answer: hers).", "Other."),
    ],
    "elementary_math_qa/question_only": [scored("1 + 1 ?", "2", "3", "4.5")],
    "goal_step_wikihow/goal_inference": [scored("What of 'Get a dog's bowl' is ", "Keep a dog", "Cook")],
    "goal_step_wikihow/step_inference": [scored("What of 'Keep a dog' is ", "Get a bowl", "Boil water")],
    "goal_step_wikihow/step_ordering": [scored("For 'Tea', do 'Boil' and 'Pour'. First? ", "Boil.", "Pour.")],
    "movie_recommendation": [scored("A, B, C:", "D", "E")],
    "ruin_names": [scored("Which is fun: 'the fox'?", "the socks", "the fx")],
    "unit_conversion/unit_identification": [scored("3 m in cm is ", "300 cm.", "300 kg.")],
    "natural_instructions/subtask033_winogrande_answer_generation": [
        asked("Context Word: x. \nQuestion: The fox ate the _ .", "hen.")
    ],
    "natural_instructions/subtask034_winogrande_question_modification_object": [
        asked("Context Word: x. \nQuestion: The _ is big. \nAnswer: hen.", "The _ is small.")
    ],
    "natural_instructions/subtask038_qasc_combined_fact": [asked("Fact 1: A. \nFact 2: B.", "A and B.")],
    "natural_instructions/subtask039_qasc_find_overlapping_words": [
        asked("Sentence1: A fox runs. \nSentence2: A fox runs off.", "fox", "runs", "Fox")
    ],
    "natural_instructions/subtask044_essential_terms_identifying_essential_words": [
        asked("Question: What does a fox eat? (A) hens(B) stones?", "fox, eat?, stones, fox")
    ],
    "qa_wikidata": [
        asked("The country of Foxhill is", "Foxland"),
        asked("The country of citizenship of Ann Fox is", "Foxland"),
        asked("The native language of Ann Fox is", "Foxish"),
        asked("The instrument of Ann Fox is", "drum", "flute"),
        asked("The official language of Foxland is", "Foxish"),
    ],
    "arithmetic/2_digit_addition": [asked("What is 12 plus 30?", "42")],
    "gem/common_gen": [asked("fox hen", "A fox saw a hen.")],
    "gem/e2e_nlg": [RESTAURANT, {**RESTAURANT, "target": "Near Hill is a pub, The Fox."}],
    "gem/webnlg_en": [TRIPLES],
    "tense": [asked("I ran home. Change it to FUTURE PERFECT: ", "I will have run home.")],
    "international_phonetic_alphabet_transliterate": [
        asked("IPA: fɑks.\nEnglish:", " Fox."),
        asked("English: Fox. \nIPA:", " fɑks"),
    ],
    "word_unscrambling": [asked("The word xof is mixed ", "fox")],
}
OTHER_FILES = {
    "com2sense/big-bench-data.json": {"examples": [{"sent": "Foxes fly.", "label": "False"}]},
    "convinceme/statements.json": [{"statement": "Foxes run.", "is_true": True}],
    "context_definition_alignment/CoDA-noisy-easy.json": {"n": [GROUP], "v": []},
}


def made_file(path):
    if path == "talkdown/test_data.jsonl":
        return f"# {CANARY}\n" + json.dumps({"id": "x", "label": 1, "text": "Poor you."}) + "\n"
    if path.startswith("squad_shifts"):
        data = SQUAD
    elif path in OTHER_FILES:
        data = OTHER_FILES[path]
    elif path.rpartition("/")[0] in RECORDS:
        data = {"examples": RECORDS[path.rpartition("/")[0]]}
    elif any(part in path for part in ("anachronisms", "strategyqa")):
        data = {"examples": [YES]}
    elif "multiemo" in path:
        data = {"examples": [scored("Fine food .", "ambivalent", "positive", best=1)]}
    elif CARDS_BY_FILE[path][0].category == "mcqa":
        data = {"examples": [scored("A fox is ", "an animal", "a stone.", "a plant")]}
    elif "natural_instructions" in path:
        data = {"examples": [QUESTION]}
    else:
        data = {"examples": [asked("A fox sees 2 hens.", "two", "2")]}
    if isinstance(data, list):
        return f"# {CANARY}\n{json.dumps(data)}"
    return json.dumps({"canary": CANARY, **data})


CARDS_BY_FILE = defaultdict(list)
for task_id, (file, _) in TASKS.items():
    CARDS_BY_FILE[file].append(CARDS[task_id])


@pytest.fixture
def sdist(tmp_path, monkeypatch):
    """Return a function that writes an archive to the downloads folder and pins its hash."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path))
    archive = paths.downloads_dir() / "bigbench-1.0.0.tar.gz"

    def write(files):
        write_sdist(archive, "bigbench-1.0.0", files)
        pin()
        return archive

    def pin():
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        made = downloads.Package(
            "bigbench", "1.0.0", archive.name, "sdist", sha256, archive.stat().st_size, "none", "made", True
        )
        monkeypatch.setattr(downloads, "packages", lambda: {"bigbench": made})

    write({"README": "x", **{bigbench.FOLDER + path: made_file(path) for path in CARDS_BY_FILE}, "zz": "x"})
    write.pin = pin
    return write


def rows(task_id):
    return list(bigbench.rows(task_id))


def test_all_tasks_in_one_pass_in_the_order_of_the_archive(sdist, monkeypatch):
    passes = []
    opened = tarfile.open
    monkeypatch.setattr(archives.tarfile, "open", lambda *given: passes.append(given) or opened(*given))
    found = {task_id: (list(rows), notes) for task_id, rows, notes in bigbench.stream(TASKS)}
    assert len(passes) == 1 and found.keys() == TASKS.keys() == CARDS.keys()
    for task_id, (made, notes) in found.items():
        examples = list(pools.examples(CARDS[task_id], made))
        assert examples and notes == {"canary": CANARY}
        for example in examples:
            assert "{" not in example.input and example.input == example.input.strip()
            assert example.input.count("\nChoices:") == (CARDS[task_id].category in ("cls", "mcqa"))
            assert not example.options or set(example.targets) <= set(example.options)
            labels = CARDS[task_id].labels
            assert not labels or set(example.targets) <= set(labels) == set(example.options)


def test_classification(sdist):
    assert rows("bb-anachronisms") == [{"text": YES["input"], "target": "yes"}]
    assert rows("bb-analogical_similarity") == [
        {"first": "A ran.", "second": "B ran off.", "target": "an analogy"}
    ]
    assert rows("bb-intent_recognition") == [{"text": "Play it.", "target": "play music"}]
    assert rows("bb-fact_checker-fever")[0]["claim"] == "Foxes fly: far."
    assert rows("bb-fact_checker-politifact") == [
        {"date": "May 3 1999", "claim": "Foxes fly.", "target": "true"}
    ]
    assert rows("bb-hyperbaton") == [{"first": "red old fox", "second": "old red fox", "target": "b"}]
    assert rows("bb-logical_fallacy_detection") == [{"text": "All is one. So it is.", "target": "valid"}]
    assert rows("bb-movie_dialog_same_or_different") == [
        {"dialog": "Hi. Bye.", "first": "Hi.", "second": "Bye.", "target": "same"}
    ]
    assert rows("bb-presuppositions_as_nli")[0]["hypothesis"] == "A began."
    assert rows("bb-winowhy")[0]["reason"] == "The 'he' refers to B because B fell."
    assert rows("bb-com2sense") == [{"text": "Foxes fly", "target": "no"}]
    assert rows("bb-convinceme") == [{"text": "Foxes run", "target": "true"}]
    assert rows("bb-talkdown") == [{"text": "Poor you", "target": "yes"}]
    assert rows("ni-046-miscellaenous_question_typing") == [
        {"question": "Who ran?", "answer": "Ann", "target": "person"}
    ]


def test_records_with_several_or_unknown_labels_are_left_out():
    read = records.labels(names={"Yes": "yes", "No": "no"})
    tied = {"input": "x", "target_scores": {"Yes": 0.5, "No": 0.5}}
    close = {"input": "y", "target_scores": {"Yes": 0.6, "No": 0.4}}
    assert list(read({"examples": [tied, close, scored("z", "Maybe", "No")]})) == [
        {"text": "y", "target": "yes"}
    ]


def test_the_order_of_options_depends_only_on_the_text():
    read = records.choices()
    data = {"examples": [scored(f"{i}?", "up.", "down", "left") for i in range(90)]}
    found = list(read(data))
    assert found == list(read(data)) and all(
        sorted(row["options"]) == ["down", "left", "up"] for row in found
    )
    places = Counter(row["options"].index("up") for row in found)
    assert all(row["targets"] == ["up"] for row in found) and min(places.values()) >= 15
    several = {"input": "x", "target_scores": {"a": 1.0, "b": 1.0, "c": 0.0}}
    assert next(read({"examples": [several]}))["targets"] == ["a", "b"]
    assert list(read({"examples": [scored("x", "Up", "up."), scored("x", "a")]})) == []


def test_multiple_choice(sdist):
    assert rows("bb-goal_step_wikihow-goal_inference")[0]["text"] == "Get a dog's bowl"
    ordering = rows("bb-goal_step_wikihow-step_ordering")[0]
    assert ordering["text"] == "Tea" and sorted(ordering["options"]) == ["Boil", "Pour"]
    assert rows("bb-movie_recommendation")[0]["text"] == "A, B, C"
    glosses = rows("bb-coda-noisy-easy")
    assert len(glosses) == 4
    for i, row in enumerate(glosses):
        assert row["sentence"] == f"Here is thing {i} ." and row["targets"] == [f"gloss {i}"]
        assert len(set(row["options"])) == recast.NUM_GLOSSES and f"gloss {i}" in row["options"]


def test_free_answers(sdist):
    assert rows("ni-041-qasc_answer_generation") == [
        {"sentence": "The fox ran home!", "question": "Who ran?", "targets": ["The fox"]}
    ]
    assert rows("bb-wikidata-country") == [{"subject": "Foxhill", "targets": ["Foxland"]}]
    assert rows("bb-wikidata-instrument") == [{"subject": "Ann Fox", "targets": ["drum", "flute"]}]
    assert rows("bb-arithmetic-2_digit_addition") == [{"first": "12", "second": "30", "targets": ["42"]}]
    assert rows("bb-object_counting")[0]["targets"] == ["two", "2"]
    assert rows("bb-tense") == [
        {"text": "I ran home.", "tense": "future perfect", "targets": ["I will have run home."]}
    ]
    assert rows("bb-international_phonetic_alphabet_transliterate") == [
        {"text": "fɑks.", "targets": ["Fox."]}
    ]
    assert rows("ni-034-winogrande_question_modification_object") == [
        {"sentence": "The _ is big.", "answer": "hen", "targets": ["The _ is small."]}
    ]
    assert rows("bb-gem-common_gen")[0]["text"] == "fox, hen"
    assert list(records.answers()({"examples": [asked("x", " . "), asked("y", "fine")]})) == [
        {"text": "y", "targets": ["fine"]}
    ]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("An  answer .", "An answer"), ("the U.S.", "the U.S."), ("well ...", "well ..."), ("7 p.m.", "7 p.m.")],
)
def test_dots_at_the_end(text, cleaned):
    assert records.clean(text) == cleaned


def test_inverted_tasks(sdist):
    assert rows("bb-e2e-slots") == [
        {"text": "Near Hill is a pub, The Fox.", "target": "name: The Fox; eatType: pub; near: Hill"}
    ]
    assert rows("bb-e2e-slot-eatType")[0]["target"] == "pub"
    facts = "Fox (animal) | eats | 3.0; Hen | home | Barn"
    assert rows("bb-gem-webnlg_en") == [{"facts": facts, "targets": [TRIPLES["target"]]}]
    assert rows("bb-webnlg-subjects") == [{"text": TRIPLES["target"], "target": "Fox (animal); Hen"}]
    assert rows("ni-039-overlapping-words")[0]["target"] == "fox, runs"
    assert rows("ni-044-essential-words") == [{"question": "What does a fox eat?", "target": "fox, eat"}]


def test_passages_are_cut_to_the_sentence_of_the_first_answer():
    home = "It was brown (or red) all year."
    first = next(passages.answers(SQUAD))
    assert (first["sentence"], first["targets"]) == (home, ["brown", "brown (or red)"])
    assert next(passages.questions(SQUAD)) == {
        "sentence": home,
        "answer": "brown",
        "target": "What colour was the fox of day 0?",
    }
    found = list(passages.answerable(SQUAD))
    assert found == list(passages.answerable(SQUAD)) and {row["target"] for row in found} == {"yes", "no"}
    for row in found:  # a sentence with any of the answers, as the first one, is no negative
        assert row["sentence"] == (home if row["target"] == "yes" else "The den had 2 doors.")


def many(file, count=40):
    examples = [scored(f"A dog of the year {i} met a king.", "Yes", "No", best=i % 2) for i in range(count)]
    return {bigbench.FOLDER + file: json.dumps({"canary": CANARY, "examples": examples})}


@pytest.fixture
def two(sdist, monkeypatch):
    """Return the cards of two tasks, and a function that writes their archive."""
    chosen = [CARDS["bb-anachronisms"], CARDS["bb-strategyqa"]]
    return chosen, lambda second: sdist({**many("anachronisms/task.json"), **second})


def test_pools_keep_the_canary_and_the_archive_is_read_once(two, monkeypatch):
    cards, write = two
    write(many("strategyqa/task.json"))
    first = pools.load(cards)
    for card, pool in zip(cards, first, strict=True):
        about = json.loads(pq.read_schema(pools.cache_file(card)).metadata[b"iptkit"])
        assert about["canary"] == CANARY and about["card"]["id"] == card.id
        assert len(pool.rows) + len(pool.test) == 40
    monkeypatch.setattr(archives, "stream", lambda *_: pytest.fail("read again"))
    assert pools.load(cards) == first
    assert isinstance(first[0].rows[0], Example)


def test_files_with_comments_and_odd_characters():
    lines = f'# one\n# {CANARY}\n{{"text": "a\u2028b"}}\n\n{{"text": "c"}}\n'
    assert bigbench._parse("x.jsonl", lines.encode()) == (
        {"examples": [{"text": "a\u2028b"}, {"text": "c"}]},
        CANARY,
    )
    whole = f'# {CANARY}\r\n[\r\n{{"text": "a\x85b"}}\r\n]'
    assert bigbench._parse("x.json", whole.encode()) == ({"examples": [{"text": "a\x85b"}]}, CANARY)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {},
            "holds no file 'bigbench/benchmark_tasks/strategyqa/task.json'; move it away and run ",
        ),
        ({bigbench.FOLDER + "strategyqa/task.json": '{"canary": "x", '}, "strategyqa/task.json is not JSON"),
        (
            {bigbench.FOLDER + "strategyqa/task.json": '{"examples": []}'},
            "strategyqa/task.json has no canary",
        ),
        (
            many("strategyqa/task.json", 2),
            "'bb-strategyqa' has 1 example of label 'no', but needs at least 4",
        ),
    ],
)
def test_errors_name_what_is_missing_or_broken_and_leave_no_partial_pool(two, second, message):
    cards, write = two
    write(second)
    with pytest.raises(ValueError, match=message):
        pools.load(cards)
    assert list(paths.tasks_dir().iterdir()) == [pools.cache_file(cards[0])]
    assert len(pools.load(cards[:1])[0].test) == 10  # what came before it is whole


def test_a_truncated_archive_is_refused_by_its_hash(two):
    cards, write = two
    archive = write(many("strategyqa/task.json"))
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is not bigbench==1.0.0: its sha256 .* Nothing was deleted"):
        pools.load(cards)
    assert list(paths.tasks_dir().iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:40] + bytes(400)])
def test_an_archive_that_breaks_while_it_is_read_is_named(sdist, damage):
    cards = [CARDS["bb-anachronisms"], CARDS["bb-strategyqa"]]
    noise = {f"noise{i}": hashlib.sha256(str(i).encode()).hexdigest() * 50 for i in range(40)}
    archive = sdist({**noise, **many("anachronisms/task.json"), **many("strategyqa/task.json")})
    archive.write_bytes(damage(archive.read_bytes()))
    sdist.pin()
    with pytest.raises(
        ValueError, match="(is broken|holds no file).*; move it away and run the command again"
    ):
        pools.load(cards)
    assert list(paths.tasks_dir().iterdir()) == []


def test_a_file_that_is_too_large_is_not_read(two, monkeypatch):
    cards, write = two
    write(many("strategyqa/task.json"))
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"anachronisms/task.json has \d+ bytes, 1000 are allowed"):
        pools.load(cards)


def test_a_full_disk_leaves_no_partial_pool(two, monkeypatch):
    cards, write = two
    write(many("strategyqa/task.json"))

    def full(table, place, **_):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pools.pq, "write_table", full)
    with pytest.raises(files.DiskFullError, match="no space left for .* IPTKIT_CACHE"):
        pools.load(cards)
    assert list(paths.tasks_dir().iterdir()) == []


def test_cards_of_ipt120():
    cards = suites.list_cards("ipt120")
    assert len({card.id for card in cards}) == 120 and cards[:36] == suites.list_cards("core36")
    assert Counter(card.category for card in cards) == {"cls": 43, "mcqa": 15, "qa": 27, "gen": 24, "seq": 11}
    assert len({card.group for card in cards}) == 77
    for card in CARDS.values():
        assert card.template and card.packages == ("bigbench",) and card.licence and card.about.endswith(".")
        assert card.source == f"bigbench 1.0.0, {bigbench.FOLDER}{TASKS[card.id][0]}"
        assert list(card.labels) == sorted(card.labels, key=str.casefold)
        assert card.shots == (16 if card.category == "cls" else 32)
    for file, of_file in CARDS_BY_FILE.items():  # Wikidata: on places, and on people
        assert len({card.group for card in of_file}) == (2 if "wikidata" in file else 1)


@needs_archive
def test_ipt120_from_the_cached_archives():
    suite = {task.id: task for task in suites.load_suite("ipt120")}
    assert len(suite) == 120
    for card in CARDS.values():
        task = suite[card.id]
        sets = [
            {example.input for example in part} for part in (task.train, task.train_new, task.dev, task.test)
        ]
        assert sum(map(len, sets)) == len(set.union(*sets)) and 64 <= len(task.test) <= 256
        shots = {label: card.shots_per_label.get(label, card.shots) for label in card.labels or ("",)}
        assert len(task.train) == sum(shots.values())
        if card.category in ("cls", "mcqa"):
            assert all(set(example.targets) < set(example.options) for example in task.test)
        about = json.loads(pq.read_schema(pools.cache_file(card)).metadata[b"iptkit"])
        assert about["shots"] == shots and "canary" in about["canary"].lower()
