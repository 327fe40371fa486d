import dataclasses
import math
import string
import unicodedata

import hypothesis
import pytest
from hypothesis import given

from iptkit.scores import metrics
from iptkit.scores.metrics import METRICS
from iptkit.tasks import examples, suites
from iptkit.tasks.examples import Example


def free(*targets):
    return Example("a question", targets)


def test_accuracy_counts_accepted_answers():
    examples = [free("a"), free("b", "c"), free("b", "c"), free("d")]
    assert METRICS["accuracy"](["a", "c", "a", "D"], examples) == 0.5


def test_normalise_follows_squad():
    assert metrics.normalise("  The U.S.,  a  Nation ") == "us nation"
    assert metrics.normalise("another theme") == "another theme"
    assert metrics.normalise("-.5 or .25, see p.5 ...5") == "-.5 or .25 see p5 5"


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("314", "3.14", 0.0),
        ("It is 3.14.", "it is (3.14)", 1.0),
        ("5", "-5", 0.0),
        ("\u22125", "-5", 1.0),
        ("1,000", "1000", 1.0),
        ("1,000.5", "10005", 0.0),
        ("3-5", "35", 1.0),  # a hyphen between digits is no sign: SQuAD's rule
        ("2020-05-01", "20200501", 1.0),
        ("巴黎。", "巴黎", 1.0),
        ("\u201cParis\u201d", "Paris", 1.0),
        ("l\u2019an", "lan", 0.0),
        ("U.S.", "US", 1.0),
        ("v1.2", "v12", 1.0),
    ],
)
def test_numbers_keep_their_signs_and_other_punctuation_is_removed(answer, target, score):
    assert metrics.exact_match([answer], [Example("q", (target,))]) == score
    assert (metrics.token_f1([answer], [Example("q", (target,))]) == 1.0) == (score == 1.0)


def test_exact_match_ignores_case_articles_and_punctuation():
    examples = [free("Paris"), free("ten", "10"), free("Leo saw a fox.")]
    assert METRICS["exact_match"](["the paris!", "10", "Leo saw a dog"], examples) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "targets", "score"),
    [
        ("a red fox", ("the red dog",), 0.5),  # one of two words on each side
        ("red red fox", ("red fox",), 0.8),  # a word counts as often as both have it
        ("blue", ("red", "dark blue"), 2 / 3),  # the best of the accepted answers
        ("", ("red",), 0.0),
        ("the", ("a",), 0.0),  # nothing is left on either side, and they are two words
        ("", ("",), 1.0),
        ("我有红书", ("我有蓝书",), 0.75),  # single characters where no blanks stand between words
    ],
)
def test_token_f1(answer, targets, score):
    assert METRICS["token_f1"]([answer], [free(*targets)]) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "targets", "score"),
    [
        ("the cat sat", ("the cat on the mat sat",), 2 * 1 * 0.5 / 1.5),
        ("sat cat the", ("the cat sat",), 1 / 3),  # order counts
        ("saw foxes", ("saw fox",), 0.5),  # no stemming
        ("x", ("y", "x"), 1.0),
        ("", ("y",), 0.0),
    ],
)
def test_rouge_l(answer, targets, score):
    assert METRICS["rouge_l"]([answer], [free(*targets)]) == pytest.approx(score)


@pytest.mark.parametrize("metric", ["exact_match", "token_f1", "rouge_l"])
def test_texts_that_normalise_to_nothing_are_compared_as_written(metric):
    for answer, target in [("-", "+"), ("", "A"), ("A", ""), ("an", "the"), ("?", "...")]:
        assert METRICS[metric]([answer], [free(target)]) == 0.0, (answer, target)
    for answer, target in [("+", "+"), (" a", "A"), ("THE", "the"), ("? !", "?  !"), ("☂", "☂")]:
        assert METRICS[metric]([answer], [free(target)]) == 1.0, (answer, target)
    assert METRICS[metric](["+"], [free("plus", "+")]) == 1.0, "the best of the accepted answers"


SCRIPTS = {
    "Chinese": ("我有一本红书", "我有一本蓝书", 5 / 6),
    "Japanese": ("ねこがすき", "いぬがすき", 3 / 5),
    "Thai": ("กขค", "กขง", 2 / 3),
    "Russian": ("три красных лисы", "три синих лисы", 2 / 3),
    "Arabic": ("كلب كبير", "قط كبير", 1 / 2),
    "Greek": ("Μία ΜΕΓΆΛΗ γάτα", "μία μικρή γάτα", 2 / 3),
    "Hindi": ("की बड़ी किताब", "का बड़ी किताब", 2 / 3),
    "Korean": ("큰 개", "작은 개", 1 / 2),
    "French": ("un élève âgé", "une élève âgée", 1 / 3),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_rouge_l_reads_every_script(script):
    text, other, score = SCRIPTS[script]
    assert metrics.rouge_l([text], [free(text)]) == 1.0
    assert metrics.rouge_l([text.swapcase()], [free(text)]) == 1.0
    assert metrics.rouge_l([text], [free(other)]) == pytest.approx(score)


def test_rouge_l_of_mixed_scripts_splits_at_their_border():
    assert metrics.RougeWords().tokenize("Ein USB接口, 2本!") == ["ein", "usb", "接", "口", "2", "本"]


@hypothesis.settings(deadline=None, derandomize=True, database=None)  # the same texts, however long they take
@given(hypothesis.strategies.text(string.printable))
def test_ascii_words_are_those_of_rouge_score(text):
    from rouge_score.tokenizers import DefaultTokenizer

    assert metrics.RougeWords().tokenize(text) == DefaultTokenizer().tokenize(text)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc", "exact_match", "token_f1", "rouge_l"])
def test_accents_are_the_same_however_they_are_composed(metric):
    words = ["café", "Çelik", "한글", "Ångström"]
    task = dataclasses.replace(suites.load_task("tiny-kind", suite="tiny"), labels=(), category="qa")
    for ours, theirs in (("NFC", "NFD"), ("NFD", "NFC")):
        answers = [unicodedata.normalize(ours, word) for word in words]
        examples = [free(unicodedata.normalize(theirs, word)) for word in words]
        assert METRICS[metric](answers, examples, task) == 1.0


def test_macro_f1_is_the_mean_over_the_label_set():
    task = suites.load_task("tiny-kind", suite="tiny")  # animal, food, tool
    examples = [free(t) for t in ("animal", "animal", "animal", "food")]
    answers = ["animal", "animal", "food", "food"]
    # animal: P 1, R 2/3 -> 0.8;  food: P 1/2, R 1 -> 2/3;  tool never occurs -> 0
    assert METRICS["macro_f1"](answers, examples, task) == pytest.approx((0.8 + 2 / 3) / 3)
    outside = METRICS["macro_f1"](["animal", "animal", "nonsense", "food"], examples, task)
    assert outside == pytest.approx((0.8 + 1) / 3), "a string outside the label set is a miss, not a label"


def test_mcc():
    examples = [free(t) for t in ("y", "y", "y", "n", "n", "n")]
    answers = ["y", "y", "n", "n", "n", "y"]  # tp 2, fn 1, tn 2, fp 1
    assert METRICS["mcc"](answers, examples) == pytest.approx((4 - 1) / math.sqrt(3 * 3 * 3 * 3))
    assert METRICS["mcc"](["y"] * 6, examples) == 0.0
    assert METRICS["mcc"](["n"] * 3 + ["y"] * 3, examples) == -1.0
    assert METRICS["mcc"](["y"] * 3, examples[:3]) == 0.0  # undefined, and no warning


def test_span_f1_counts_whole_spans_of_the_right_kind():
    examples = [Example("a b c d", ("B-x I-x O B-y",)), Example("a b", ("B-x B-x",))]
    assert metrics.span_f1(["B-x I-x O B-y", "B-x B-x"], examples) == 1.0
    assert metrics.span_f1(["B-x O O B-y", "B-x B-x"], examples) == pytest.approx(3 / 4), "cut short"
    assert metrics.span_f1(["B-x I-x O B-x", "B-x I-x"], examples) == pytest.approx(2 * 1 / (4 + 3))
    assert metrics.span_f1(["O O O O", "O O"], examples) == 0.0
    assert metrics.span_f1(["I-x I-x O B-y", "B-x B-x"], examples) == pytest.approx(2 * 3 / (4 + 3)), (
        "a span begins with B-"
    )


def test_tag_accuracy_counts_words():
    examples = [Example("a b c", ("x y x",)), Example("a", ("y",))]
    assert metrics.tag_accuracy(["x x x", "y"], examples) == pytest.approx(3 / 4)
    assert metrics.tag_accuracy(["x y", "y"], examples) == pytest.approx(3 / 4), "no tag is a wrong tag"


def test_every_metric_of_the_task_cards_exists():
    assert set(examples.METRICS) <= set(METRICS)


def test_weights_of_answers():
    examples, answers = [free("a"), free("a"), free("b")], ["a", "b", "b"]
    for metric in ("accuracy", "exact_match", "token_f1", "rouge_l"):
        words = ["red", "fox", "fox"], [free("red"), free("red"), free("fox")]
        assert METRICS[metric](*words, None, [0.5, 0.5, 1.0]) == pytest.approx(0.75)
    task = dataclasses.replace(suites.load_task("tiny-mood", suite="tiny"), labels=("a", "b"))
    # a: P 1, R 1/2 -> 2/3;  b: P 1/1.5, R 1 -> 0.8
    assert METRICS["macro_f1"](answers, examples, task, [0.5, 0.5, 1.0]) == pytest.approx((2 / 3 + 0.8) / 2)
    assert METRICS["mcc"](answers, examples, task, [0.5, 0.5, 1.0]) == pytest.approx(0.5 / (0.5 * 1.5) ** 0.5)
