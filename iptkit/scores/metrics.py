"""Metrics that compare answers with examples: accuracy, F1, exact match, ROUGE-L, span F1.

METRICS lists them by name. Each takes answers, their examples and the task; all but those of tags also take
weights, so that several answers to one example can share the weight of one.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from iptkit.tasks import schemes
from iptkit.tasks.examples import Example, Task, words_of

Weights = Sequence[float] | None  # one per answer; None: equal weights


def accuracy(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Return the share of answers that equal an accepted one."""
    return _mean_best(lambda a, t: float(_composed(a) == _composed(t)), answers, examples, weights)


def macro_f1(
    answers: Sequence[str], examples: Sequence[Example], task: Task, weights: Weights = None
) -> float:
    """Return the mean F1 over the task's labels; answers outside them are wrong, but not labels of their own.

    For a task without labels (such as CrossFit's `codah`, whose options differ per example), the mean is over
    all strings that occur.
    """
    from sklearn.metrics import f1_score

    return float(
        f1_score(
            list(map(_composed, _first(examples))),
            list(map(_composed, answers)),
            labels=list(map(_composed, task.labels)) or None,
            average="macro",
            zero_division=0,
            sample_weight=weights,
        )
    )


def mcc(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Return Matthews' correlation coefficient, from -1 to 1; 0 if only a single label occurs."""
    from sklearn.metrics import matthews_corrcoef

    right, said = (list(map(_composed, texts)) for texts in (_first(examples), answers))
    if len({*right, *said}) < 2:  # it is undefined
        return 0.0
    return float(matthews_corrcoef(right, said, sample_weight=weights))


def exact_match(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Return the share of answers that equal an accepted one after `normalise`.

    If `normalise` leaves nothing of one of them, as for "+" or "A", they are compared as written, ignoring
    case.
    """

    def one(answer: str, target: str) -> float:
        a, t = normalise(answer), normalise(target)
        return float(a == t) if a and t else _bare(answer, target)

    return _mean_best(one, answers, examples, weights)


def token_f1(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Return the mean over examples of the best token F1 against an accepted answer.

    Tokens are the words that `normalise` leaves, or single characters in scripts without spaces between
    words. If an answer or target has no tokens, the two are compared as in `exact_match`.
    """

    def one(answer: str, target: str) -> float:
        a, t = (_apart(normalise(text)).split() for text in (answer, target))
        same = sum((Counter(a) & Counter(t)).values())
        return 2 * same / (len(a) + len(t)) if a and t else _bare(answer, target)

    return _mean_best(one, answers, examples, weights)


def rouge_l(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Return the mean over examples of the best ROUGE-L F1 against an accepted answer (no stemming).

    If an answer or target has no words, the two are compared as in `exact_match`.
    """
    from rouge_score.rouge_scorer import RougeScorer

    words = RougeWords()
    scorer = RougeScorer(["rougeL"], tokenizer=words)

    def one(answer: str, target: str) -> float:
        if not words.tokenize(answer) or not words.tokenize(target):
            return _bare(answer, target)
        return scorer.score(target, answer)["rougeL"].fmeasure

    return _mean_best(one, answers, examples, weights)


def span_f1(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Return the F1 over whole spans of IOB2 tags: B- begins a span, I- continues it (seqeval, mode strict).

    A span counts only if all its words and its kind are right. This is the CoNLL score with one exception: an
    I- in an answer that continues no span of its kind is not a span here. Words without a tag in the answer,
    and words with a tag that is not IOB2, are outside all spans.

    Raises: ValueError if the examples' own tags are not IOB2 (`conll.read_conll` converts other schemes).
    """
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    right, said = _tags(answers, examples)
    for tags, example in zip(right, examples, strict=True):
        try:
            schemes.check_iob2(tags, example.input[:60])
        except ValueError as error:
            raise ValueError(
                f"span_f1 needs IOB2 tags:\n{error}\nRead the file with its scheme (tasks.read_conll "
                "converts it to IOB2), or score with tag_accuracy"
            ) from error
    said = [[tag if schemes.is_iob2(tag) else schemes.OUTSIDE for tag in tags] for tags in said]
    return float(f1_score(right, said, mode="strict", scheme=IOB2, zero_division=0))


def tag_accuracy(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Return the share of words with the right tag; a word without a tag in the answer counts as wrong."""
    right, said = _tags(answers, examples)
    pairs = [pair for mine, of in zip(said, right, strict=True) for pair in zip(mine, of, strict=True)]
    return float(np.mean([mine == right for mine, right in pairs]))


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "span_f1": span_f1,
    "tag_accuracy": tag_accuracy,
}


# ---- helpers -------------------------------------------------------------------------------------
def _mean_best(
    one: Callable[[str, str], float],
    answers: Sequence[str],
    examples: Sequence[Example],
    weights: Weights,
) -> float:
    """Return the mean over examples of the best one(answer, target) over the accepted answers."""
    pairs = zip(answers, examples, strict=True)
    return float(np.average([max(one(a, t) for t in e.targets) for a, e in pairs], weights=weights))


def _tags(answers: Sequence[str], examples: Sequence[Example]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the right tags and the answers' tags, padded with "" or cut to the same number."""
    right = [list(words_of(target)) for target in _first(examples)]
    said = [list(words_of(answer)) for answer in answers]
    pairs = zip(said, right, strict=True)
    return right, [[*mine, *[""] * len(of)][: len(of)] for mine, of in pairs]


def _first(examples: Sequence[Example]) -> list[str]:
    return [example.targets[0] for example in examples]


# ---- words of a text -----------------------------------------------------------------------------
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Chinese characters.
_UNSPACED = (
    (0x0E01, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17D3),
    (0x3005, 0x3007),
    (0x3041, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_RANGES = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSPACED)
_MARKS = "".join(c for c in map(chr, range(0x0E01, 0x30FF)) if unicodedata.category(c)[0] == "M")
_ALONE = re.compile(f"[{_RANGES}][{_MARKS}]*")


_NUMBER = re.compile(r"(?<![\w.,\-\u2212])([-\u2212]?)(\d+(?:,\d{3})*|(?=\.\d))(\.\d+)?(?![\w.,]*\d)")
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])\u2019(?=[^\W\d_])")  # inside a word it counts as a letter
_MINUS, _POINT, _APOSTROPHE_KEPT = "\ue000", "\ue001", "\ue002"  # placeholders for punctuation that stays
_BACK = str.maketrans({_MINUS: "-", _POINT: ".", _APOSTROPHE_KEPT: "\u2019"})


def normalise(text: str) -> str:
    """Return the text in lower case and NFC, without punctuation and articles, with single spaces.

    This follows SQuAD's script, except that numbers keep their minus sign and decimal point: otherwise 3.14
    would equal 314, and -5 would equal 5.

    Example:
      >>> normalise("The answer: -3.14!"), normalise("1,000 \u00abmiles\u00bb")
      ('answer -3.14', '1000 miles')
    """

    def kept(found: re.Match[str]) -> str:
        sign, whole, rest = found.groups("")
        return f"{_MINUS if sign else ''}{whole}{rest.replace('.', _POINT)}"

    text = _NUMBER.sub(kept, _lower(text))
    text = _APOSTROPHE.sub(_APOSTROPHE_KEPT, text)
    text = "".join(c for c in text if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.translate(_BACK).split())


class RougeWords:
    """A tokenizer for rouge-score: lower-case words of letters and digits of any script.

    For ASCII texts the words are those of rouge-score's own tokenizer without stemming, which knows only the
    letters a to z. Scripts without spaces, such as Chinese, Japanese and Thai, are split into characters.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of the text, in order."""
        kinds = ((c, unicodedata.category(c)[0]) for c in _apart(_lower(text)))
        return "".join(c if kind in "LMN" else " " for c, kind in kinds).split()


def _composed(text: str) -> str:
    """Return the text in Unicode's NFC: each letter with its accents as one character."""
    return unicodedata.normalize("NFC", text)


def _lower(text: str) -> str:
    """Return the text in lower case and NFC; `lower` can undo the composition of a capital."""
    return _composed(_composed(text).lower())


def _bare(answer: str, target: str) -> float:
    """Return 1.0 if two texts are equal up to case, spaces and composed letters, else 0.0."""
    return float(_lower(answer).split() == _lower(target).split())


def _apart(text: str) -> str:
    """Return the text with spaces around every character (with its marks) of a script without spaces."""
    return _ALONE.sub(r" \g<0> ", text)
