"""Asking a frozen model in words: label scores, calibration and facts.

    label_scores    the words of a verbalizer, scored after a filled template
    calibrate       what the model says to nothing at all, taken away (Zhao et al. 2021)
    recall          facts: how far up the right object stands among all objects (Petroni et al. 2019)

Prompt words found by gradient: see search.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence, Set

import torch
from torch import Tensor

from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.storage import progress
from iptkit.tasks.examples import Example
from iptkit.tasks.wordings import Slots, Template, Wording

CONTENT_FREE = ("N/A", "[MASK]", "nothing")  # Zhao et al. 2021 use "N/A", "[MASK]" and the empty string


@torch.no_grad()
def option_scores(engine: Engine, examples: Sequence[Example], label: str = "asking") -> list[Tensor]:
    """Log p(option | input) of every option of every example, without any prompt beside its input.

    Args:
      engine: with the layout "prompt-text-answer".
      examples: each with options; their number may differ.
      label: words on the progress bar.
    Returns: one tensor [options] per example, in float64 on the CPU.
    """
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
    """Scores of the labels for every (wording, slots): one tensor [labels] each, see Verbalizer.

    Args:
      shots: solved examples (slots, label) that stand before every question (in-context learning).
    """
    scores = option_scores(engine, [wording.ask(slots, shots) for wording, slots in asked], label)
    return [w.verbalizer.label_scores(s[None])[0] for (w, _), s in zip(asked, scores, strict=True)]


def content_free(
    engine: Engine, wordings: Sequence[Wording], shots: Sequence[tuple[Slots, str]] = ()
) -> list[Tensor]:
    """Log p(label | nothing) [labels] of each wording: the mean probability over CONTENT_FREE inputs."""
    asked = [(w, dict.fromkeys(w.template.slots, text)) for w in wordings for text in CONTENT_FREE]
    lines = [line.softmax(-1) for line in label_scores(engine, asked, shots, "asking about nothing")]
    size = len(CONTENT_FREE)
    return [torch.stack(lines[i : i + size]).mean(0).log() for i in range(0, len(lines), size)]


def calibrate(scores: Tensor, nothing: Tensor) -> Tensor:
    """Contextual calibration (Zhao et al. 2021, section 5): p / p(label | nothing), normalised again.

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
    """P@k: share of facts with a right object among the k likeliest of `objects` (ties: as by chance).

    Petroni et al. 2019, section 4.3, rank the words of one vocabulary and take single-token objects;
    here the candidates are the objects of the relation, of any number of tokens, ranked by the mean
    log-likelihood of their tokens.

    Args:
      facts: (slots of the subject, all right objects), at least one of them in `objects`.
      objects: the candidates.
      at: values of k.
    Raises: ValueError if a fact has no right object among the candidates.
    """
    for slots, right in facts:
        if not set(right) & set(objects):
            raise ValueError(f"none of {right}, right for {dict(slots)}, is among the candidate objects")
    candidates = tuple(objects)
    asked = [Example(template.fill(slots), candidates[:1], candidates) for slots, _ in facts]
    tokens = torch.tensor([len(answer) for answer in engine.option_row(asked[0]).answers])
    means = [(line / tokens).tolist() for line in option_scores(engine, asked)]
    right = [{candidates.index(word) for word in of if word in candidates} for _, of in facts]
    return {k: sum(map(functools.partial(_among, k), means, right)) / len(facts) for k in at}


def _among(k: int, scores: Sequence[float], right: Set[int]) -> float:
    """Is a right one among the k highest scores? 1.0 or 0.0; where ties decide, how likely by chance."""
    best = max(scores[i] for i in right)
    above = sum(score > best for score in scores)
    tied = [i for i, score in enumerate(scores) if score == best]
    drawn = min(max(k - above, 0), len(tied))
    return 1 - math.comb(len(tied) - len(right.intersection(tied)), drawn) / math.comb(len(tied), drawn)
