import itertools

import pytest
from seqeval.scheme import BILOU, IOB2, IOBES, Tokens

from iptkit.scores import metrics
from iptkit.tasks import fewshot, schemes
from iptkit.tasks.examples import Card, Example, TaggedExample

SPANS = [(0, 2, "name"), (2, 3, "name"), (4, 5, "place"), (5, 8, "thing")]  # of nine words
TAGS = {
    "IOB2": "B-name I-name B-name O B-place B-thing I-thing I-thing O",
    "IOB1": "I-name I-name B-name O I-place I-thing I-thing I-thing O",
    "BIOES": "B-name E-name S-name O S-place B-thing I-thing E-thing O",
    "BILOU": "B-name L-name U-name O U-place B-thing I-thing L-thing O",
}
WORDS = "Ada Lee Bo left York three old boats today"


@pytest.mark.parametrize("scheme", TAGS)
def test_every_scheme_names_the_same_spans(scheme):
    given = TAGS[scheme].split()
    for found in (schemes.convert([given]), schemes.convert([given], scheme)):
        assert found.scheme == scheme and not found.problems
        assert " ".join(found.tags[0]) == TAGS["IOB2"]
        assert bool(found.note) == (scheme != "IOB2")
    made = Tokens(list(schemes.convert([given]).tags[0]), IOB2).entities
    assert [(e.start, e.end, e.tag) for e in made] == SPANS


@pytest.mark.parametrize("scheme", TAGS)
def test_perfect_answers_score_one_and_wrong_ones_by_hand(scheme):
    tags = " ".join(schemes.convert([TAGS[scheme].split()]).tags[0])
    labels = tuple(sorted(set(tags.split())))
    example = TaggedExample(WORDS, (tags,), (), labels)
    assert metrics.span_f1([tags], [example]) == 1.0 == metrics.tag_accuracy([tags], [example])
    said = "B-name I-name O O B-thing B-thing I-thing O O"  # one of four spans found, two of three wrong
    assert metrics.span_f1([said], [example]) == pytest.approx(2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4))
    assert metrics.tag_accuracy([said], [example]) == pytest.approx(6 / 9)
    assert metrics.span_f1(["O " * 9], [example]) == 0.0


def test_tags_without_prefix_or_without_kind():
    assert schemes.convert([["PER", "PER", "O", "LOC"]]).tags == (("B-PER", "I-PER", "O", "B-LOC"),)
    assert schemes.convert([["a", "a", "b"]], "types").tags == (("B-a", "I-a", "B-b"),)
    assert schemes.convert([["B", "I", "O", "B"]]).tags == (("B-span", "I-span", "O", "B-span"),)
    assert schemes.convert([["NNP", "VBZ", "IN"]]) == schemes.Converted((("NNP", "VBZ", "IN"),), "none")
    (problem,) = schemes.convert([["O", "B_PER"]]).problems
    assert (
        problem[:2] == (0, 1) and "'B_PER' looks like a prefix and a kind in another notation" in problem[2]
    )


@pytest.mark.parametrize(
    ("tags", "scheme", "places"),
    [
        ("O I-x B-x I-y", "IOB2", {1: "follows 'O'", 3: "follows 'B-x'"}),
        ("B-x O E-x S-x I-x", "BIOES", {0: "has no end before 'O'", 2: "follows 'O'", 4: "follows 'S-x'"}),
        ("B-x L-y U-x I-x", "BILOU", {0: "has no end before 'L-y'", 1: "follows 'B-x'", 3: "follows 'U-x'"}),
        ("B-x E-x U-x", "BIOES", {2: "'U-x' is not a BIOES tag; write B-x, I-x, E-x, S-x or O"}),
        (
            "B-x NNP b-x I- I",
            "IOB2",
            {1: "'NNP' is not", 2: "'b-x' is not", 3: "'I-' is not", 4: "follows 'I-'"},
        ),
    ],
)
def test_all_bad_tags_are_found(tags, scheme, places):
    found = {place: told for _, place, told in schemes.convert([tags.split()], scheme).problems}
    assert found.keys() == places.keys()
    for place, told in places.items():
        assert told in found[place]


@pytest.mark.parametrize(("scheme", "theirs"), [("BIOES", IOBES), ("BILOU", BILOU), ("IOB2", IOB2)])
def test_seqeval_finds_the_same_spans_in_all_short_sequences(scheme, theirs):
    """Correct tags have the spans that seqeval finds; of incorrect ones, seqeval ignores some."""
    tags = ["O", *(f"{letter}-{kind}" for letter in schemes.LETTERS[scheme] for kind in "xy")]
    for given in itertools.product(tags, repeat=3):
        found, spans = schemes.convert([given], scheme), Tokens(list(given), theirs).entities
        covered = {place for e in spans for place in range(e.start, e.end)}
        assert bool(found.problems) == (covered != {i for i, tag in enumerate(given) if tag != "O"}), given
        if not found.problems:
            ours = Tokens(list(found.tags[0]), IOB2).entities
            assert [e.to_tuple() for e in ours] == [e.to_tuple() for e in spans]


def test_labels_follow_their_tags():
    assert schemes.iob2_labels(("O", "B-x", "I-x"), "IOB2") == ("O", "B-x", "I-x")
    assert schemes.iob2_labels(("I-x", "O", "I-y", "B-y"), "IOB1") == ("O", "B-x", "I-x", "B-y", "I-y")
    assert schemes.iob2_labels(("S-x", "O"), "BIOES") == ("O", "B-x", "I-x")
    assert schemes.iob2_labels(("x", "y"), "types") == ("B-x", "I-x", "B-y", "I-y")
    assert schemes.iob2_labels(("S", "E"), "none") == ("S", "E")


def test_span_f1_refuses_tags_of_no_scheme():
    verbs = TaggedExample("Ada ran", ("noun verb",), (), ("noun", "verb"))
    with pytest.raises(ValueError, match="span_f1 needs IOB2 tags:\nAda ran:1: tag 'noun' is not"):
        metrics.span_f1(["noun verb"], [verbs])
    opened = TaggedExample("Ada ran", ("I-x O",), (), ("I-x", "O"))
    with pytest.raises(ValueError, match="Ada ran:1: 'I-x' follows 'O'.*\n.*or score with tag_accuracy"):
        metrics.span_f1(["I-x O"], [opened])
    card = Card("mine", "Mine", "tag", "span_f1", "mine", "here", "own", "about", labels=("noun", "verb"))
    example = Example("Ada ran", ("noun verb",))
    sets = {name: (example,) for name in ("train", "train_new", "dev", "test")}
    with pytest.raises(ValueError, match="task 'mine': noun, verb are not IOB2 tags .* \"tag_accuracy\""):
        fewshot.make_task(card, 0, **sets)


def test_missing_and_unknown_tags_count_as_wrong():
    """A model that generates tags may write such answers."""
    example = TaggedExample("Ada Lee left York", ("B-x I-x O B-y",), (), ("B-x", "B-y", "I-x", "O"))
    assert metrics.span_f1(["B-x I-x"], [example]) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert metrics.tag_accuracy(["B-x I-x"], [example]) == 0.5
    assert metrics.span_f1(["B-x I-x oh B-y and so on"], [example]) == 1.0
    assert metrics.tag_accuracy(["B-x I-x oh B-y and so on"], [example]) == 0.75


def test_lower_case_prefixes_need_a_scheme():
    made = schemes.convert([["b-per", "i-per", "o"], ["o"]])
    assert [place[:2] for place in made.problems] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert "'b-per' has a lower-case prefix; write B-x, I-x and O" in made.problems[0][2]
    assert schemes.convert([["noun", "o"], ["verb", "b-side"]]).problems == ()  # parts of speech


def test_prefixes_without_a_kind_get_one():
    made = schemes.convert([["B", "I", "O", "B"]])
    assert made.tags == (("B-span", "I-span", "O", "B-span"),)
    assert made.note == "prefixes without a kind were read as spans of one kind, 'span' (2 spans)"


def test_a_bare_prefix_begins_a_span_after_o():
    given = ["O", "I", "I", "O", "B", "I"]
    found = schemes.convert([given])
    assert found.scheme == "IOB1" and found.note == "IOB1 was converted to IOB2: 1 of 2 spans began with I-"
    assert found.tags == (("O", "B-span", "I-span", "O", "B-span", "I-span"),)
    ((_, place, told),) = schemes.convert([given], "IOB2").problems
    assert place == 1 and told.endswith("begin the span with 'B'")


def test_labels_decide_the_scheme_if_no_o_occurs():
    """A small test set may have no O, but follows the scheme of its training set."""
    made, known = schemes.read([["x", "x"], ["y"]], ("O", "x", "y"), "auto", lambda s, i: "")
    assert made.scheme == "types" and made.tags == (("B-x", "I-x"), ("B-y",))
    assert known == ("O", "B-x", "I-x", "B-y", "I-y")
    made, known = schemes.read([["NN", "NN"]], ("NN", "VB"), "auto", lambda s, i: "")
    assert made.scheme == "none" and made.tags == (("NN", "NN"),) and known == ("NN", "VB")
