"""Metrics of answers: accuracy, F1, exact match, ROUGE-L, span F1."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from iptkit.tasks import schemes
from iptkit.tasks.examples import Example, Task, words_of

Weights = Sequence[float] | None  # of the answers, in a metric; None: all alike


# ---- metrics -------------------------------------------------------------------------------------
# Scripts that put no blanks between words: Thai, Lao, Burmese, Khmer, kana and Chinese characters.
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
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])\u2019(?=[^\W\d_])")  # a letter of its own where it is inside a word
_MINUS, _POINT, _APOSTROPHE_KEPT = "\ue000", "\ue001", "\ue002"  # stand for what stays of the punctuation
_BACK = str.maketrans({_MINUS: "-", _POINT: ".", _APOSTROPHE_KEPT: "\u2019"})


def normalise(text: str) -> str:
    """Lower case, letters composed, no punctuation of any script, no articles, single blanks.

    As SQuAD's script does, but that numbers keep their minus sign and their decimal point: else 3.14 would
    equal 314, and -5 would equal 5.

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


def accuracy(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Share of answers that equal an accepted one."""
    return _mean_best(lambda a, t: float(_composed(a) == _composed(t)), answers, examples, weights)


def macro_f1(
    answers: Sequence[str], examples: Sequence[Example], task: Task, weights: Weights = None
) -> float:
    """Mean F1 over the task's label set (never over strings outside it).

    Of a task without labels, as CrossFit's `codah` with its free choices: over all strings seen.
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
    """Matthews correlation coefficient, -1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    right, said = (list(map(_composed, texts)) for texts in (_first(examples), answers))
    return float(matthews_corrcoef(right, said, sample_weight=weights))


def exact_match(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Share of answers that equal an accepted one after `normalise`.

    Where that leaves nothing of one of them, as of "+" or "A", their own characters are compared, whatever
    their case.
    """

    def one(answer: str, target: str) -> float:
        a, t = normalise(answer), normalise(target)
        return float(a == t) if a and t else _bare(answer, target)

    return _mean_best(one, answers, examples, weights)


def token_f1(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Mean over examples of the best token F1 against an accepted answer.

    Tokens are the words that `normalise` leaves, and single characters where a script has no blanks between
    words; an answer or a target without any is compared as in `exact_match`.
    """

    def one(answer: str, target: str) -> float:
        a, t = (_apart(normalise(text)).split() for text in (answer, target))
        same = sum((Counter(a) & Counter(t)).values())
        return 2 * same / (len(a) + len(t)) if a and t else _bare(answer, target)

    return _mean_best(one, answers, examples, weights)


class RougeWords:
    """Splits texts for rouge-score: words of letters and digits of any script, in lower case.

    Of ASCII texts the words are those of rouge-score's own tokenizer without stemming, which knows no other
    letters than a to z. Chinese, Japanese, Thai and the like come character by character.
    """

    def tokenize(self, text: str) -> list[str]:
        """The words, in order."""
        kinds = ((c, unicodedata.category(c)[0]) for c in _apart(_lower(text)))
        return "".join(c if kind in "LMN" else " " for c, kind in kinds).split()


def rouge_l(
    answers: Sequence[str], examples: Sequence[Example], task: Task | None = None, weights: Weights = None
) -> float:
    """Mean over examples of the best ROUGE-L F1 against an accepted answer (rouge-score, no stemming).

    An answer or a target without a word is compared as in `exact_match`.
    """
    from rouge_score.rouge_scorer import RougeScorer

    words = RougeWords()
    scorer = RougeScorer(["rougeL"], tokenizer=words)

    def one(answer: str, target: str) -> float:
        if not words.tokenize(answer) or not words.tokenize(target):
            return _bare(answer, target)
        return scorer.score(target, answer)["rougeL"].fmeasure

    return _mean_best(one, answers, examples, weights)


def _mean_best(
    one: Callable[[str, str], float],
    answers: Sequence[str],
    examples: Sequence[Example],
    weights: Weights,
) -> float:
    """Mean over examples of the best value of one(answer, target) over the accepted answers."""
    pairs = zip(answers, examples, strict=True)
    return float(np.average([max(one(a, t) for t in e.targets) for a, e in pairs], weights=weights))


def _composed(text: str) -> str:
    """The same text with each letter and its accents as one character (Unicode's NFC)."""
    return unicodedata.normalize("NFC", text)


def _lower(text: str) -> str:
    """Composed before and after: a capital may lose its composed form with its size."""
    return _composed(_composed(text).lower())


def _bare(answer: str, target: str) -> float:
    """1.0 if two texts are equal but for case, blanks and composed letters, else 0.0."""
    return float(_lower(answer).split() == _lower(target).split())


def _apart(text: str) -> str:
    """The text with blanks around every character (with its marks) of a script without blanks."""
    return _ALONE.sub(r" \g<0> ", text)


def span_f1(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """F1 over whole spans of tags in IOB2: B- begins a span, I- goes on with it (seqeval, mode strict).

    A span counts only if its words and its kind are right. It is the CoNLL score, but for an I- in an answer
    that goes on with no span of its kind, which is no span here. Words that an answer has no tag for, and
    words whose tag is none of IOB2, are in no span.

    Raises: ValueError if the examples' own tags do not follow IOB2 (conll.read_conll converts other schemes).
    """
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    right, said = _tags(answers, examples)
    for tags, example in zip(right, examples, strict=True):
        try:
            schemes.check_iob2(tags, example.input[:60])
        except ValueError as error:
            raise ValueError(
                f"span_f1 needs tags of the scheme IOB2:\n{error}\nRead the file with its scheme "
                "(conll.read_conll converts it), or score with tag_accuracy"
            ) from error
    said = [[tag if schemes.is_iob2(tag) else schemes.OUTSIDE for tag in tags] for tags in said]
    return float(f1_score(right, said, mode="strict", scheme=IOB2, zero_division=0))


def tag_accuracy(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Share of words whose tag is right; a word that an answer has no tag for is wrong."""
    right, said = _tags(answers, examples)
    pairs = [pair for mine, of in zip(said, right, strict=True) for pair in zip(mine, of, strict=True)]
    return float(np.mean([mine == right for mine, right in pairs]))


def _tags(answers: Sequence[str], examples: Sequence[Example]) -> tuple[list[list[str]], list[list[str]]]:
    """Right tags, and as many of each answer: "" for those that it lacks, and none beyond."""
    right = [list(words_of(target)) for target in _first(examples)]
    said = [list(words_of(answer)) for answer in answers]
    pairs = zip(said, right, strict=True)
    return right, [[*mine, *[""] * len(of)][: len(of)] for mine, of in pairs]


def _first(examples: Sequence[Example]) -> list[str]:
    return [example.targets[0] for example in examples]


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
