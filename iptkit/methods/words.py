"""Discrete prompts: a frozen model is asked in words, with a template and label words (a verbalizer).

    label_scores [labels]   log p(label words | filled template)
    calibrate               p / p(label | content-free input), normalised (Zhao et al. 2021, arXiv 2102.09690)
    recall                  precision at k of facts (Petroni et al. 2019, arXiv 1909.01066)

word_search.py finds prompt words by gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.engine.calls import check_engine
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.storage import progress
from iptkit.tasks.examples import Example
from iptkit.tasks.wordings import Slots, Template, Wording

CONTENT_FREE = ("N/A", "[MASK]", "nothing")  # Zhao et al.: "N/A", "[MASK]" and the empty string


@torch.no_grad()
def option_scores(engine: Engine, examples: Sequence[Example], label: str = "asking") -> list[Tensor]:
    """The log-likelihood log p(option | input) of every option of every example, without a soft prompt.

    Args:
      engine: an engine with the layout "prompt-text-answer".
      examples: examples with options; their numbers of options may differ.
      label: words on the progress bar.
    Returns: one tensor [options] per example, in float64 on the CPU.
    """
    check_engine(engine)
    rows = engine.share([engine.option_row(example) for example in examples])
    empty = engine.backbone.embedding[:0]  # [0, d]
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    with progress.track(label, total=len(rows), unit="example") as bar:
        for batch in engine.batches(rows, 0):
            prompt = Prompt(empty.expand(len(batch), -1, -1))
            scores, _ = engine.log_likelihoods(prompt, [rows[i] for i in batch])
            for i, line in zip(batch, scores.double().cpu(), strict=True):
                out[i] = line[: len(rows[i].answers)]
            bar.update(len(batch))
    return out


def label_scores(
    engine: Engine,
    asked: Sequence[tuple[Wording, Slots]],
    shots: Sequence[tuple[Slots, str]] = (),
    label: str = "asking",
) -> list[Tensor]:
    """The scores of the labels for every question: one tensor [labels] each, see tasks.wordings.Verbalizer.

    Args:
      engine: an engine with the layout "prompt-text-answer".
      asked: the questions, each a wording and the texts of its slots.
      shots: solved examples (slots, label) before every question (in-context learning).
      label: words on the progress bar.
    """
    scores = option_scores(engine, [wording.ask(slots, shots) for wording, slots in asked], label)
    return [w.verbalizer.label_scores(s[None])[0] for (w, _), s in zip(asked, scores, strict=True)]


def content_free(
    engine: Engine, wordings: Sequence[Wording], shots: Sequence[tuple[Slots, str]] = ()
) -> list[Tensor]:
    """The log of each label's mean probability over the CONTENT_FREE inputs: one tensor [labels] per wording.

    Args:
      engine: an engine with the layout "prompt-text-answer".
      wordings: the wordings to ask with.
      shots: see `label_scores`.
    """
    asked = [(w, dict.fromkeys(w.template.slots, text)) for w in wordings for text in CONTENT_FREE]
    lines = [line.softmax(-1) for line in label_scores(engine, asked, shots, "asking about nothing")]
    size = len(CONTENT_FREE)
    return [torch.stack(lines[i : i + size]).mean(0).log() for i in range(0, len(lines), size)]


def calibrate(scores: Tensor, nothing: Tensor) -> Tensor:
    """Calibrated log-probabilities (Zhao et al. 2021, section 5): p / p(label | nothing), normalised.

    Args:
      scores: [..., labels] log-scores.
      nothing: [labels] from `content_free`.
    Returns: [..., labels] log-probabilities.

    Example:
      >>> calibrate(torch.tensor([[-1.0, -3.0]]), torch.tensor([-1.0, -3.0])).exp().tolist()
      [[0.5, 0.5]]
    """
    return (scores - nothing).log_softmax(-1)


# ---- facts ---------------------------------------------------------------------------------------
def recall(
    engine: Engine,
    template: Template,
    facts: Sequence[tuple[Slots, tuple[str, ...]]],
    objects: Sequence[str],
    at: Sequence[int] = (1, 10),
) -> dict[int, float]:
    """Precision at k: the share of facts with a right object among the k likeliest candidates.

    Petroni et al. 2019, section 4.3, rank all words of a vocabulary and take objects of a single token. Here
    the candidates are the objects of one relation, of any number of tokens, ranked by the mean log-likelihood
    of their tokens. Among tied candidates the order is random, and the expected precision counts.

    Args:
      engine: an engine with the layout "prompt-text-answer".
      template: of the question.
      facts: (slots of the subject, all right objects), at least one of them in `objects`.
      objects: the candidates.
      at: the values of k.
    Returns: k -> precision at k.
    Raises: ValueError if a fact has no right object among the candidates.
    """
    for slots, right in facts:
        if not set(right) & set(objects):
            raise ValueError(f"no candidate object is right for {dict(slots)}; right are {right}")
    candidates = tuple(objects)
    asked = [Example(template.fill(slots), candidates[:1], candidates) for slots, _ in facts]
    tokens = torch.tensor([len(answer) for answer in engine.option_row(asked[0]).answers])
    means = [(line / tokens).tolist() for line in option_scores(engine, asked)]
    places = [{candidates.index(word) for word in right if word in candidates} for _, right in facts]
    return {k: sum(map(functools.partial(_among, k), means, places)) / len(facts) for k in at}


def _among(k: int, scores: Sequence[float], right: set[int]) -> float:
    """1.0 if a right index is among the k highest scores, else 0.0; its probability where ties decide."""
    best = max(scores[i] for i in right)
    above = sum(score > best for score in scores)
    tied = [i for i, score in enumerate(scores) if score == best]
    drawn = min(max(k - above, 0), len(tied))
    return 1 - math.comb(len(tied) - len(right.intersection(tied)), drawn) / math.comb(len(tied), drawn)
