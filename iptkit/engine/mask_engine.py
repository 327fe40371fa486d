"""Masked language models that answer with a word at [MASK]: a template, a verbalizer and the LM's own head.

P-Tuning v2 compares its linear head with this one (Liu et al. 2022, arXiv 2110.07602, section 4.4). Cloze
prompts such as "{text} It was {mask}." come from Schick & Schütze 2021 (arXiv 2001.07676, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.head_rows import HeadRow
from iptkit.engine.layouts import tokens_behind
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import Site
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device
from iptkit.tasks.examples import Example
from iptkit.tasks.wordings import Verbalizer


class MaskEngine(HeadEngine):
    """Scores classes by the words that a masked language model predicts at [MASK]; only a prompt trains.

    Args:
      backbone: an encoder with a masked-LM head (its config says ...ForMaskedLM).
      template: words with {text} and {mask}, each once, in any order.
      verbalizer: label -> words of one token each; a label's score is the mean over its words.
      sites: see HeadEngine.
      tokens_per_batch: approximate number of tokens that run at once; each is scored against the vocabulary.

    Raises:
      ValueError: the model has no masked-LM head or no mask token; the template lacks {text} or {mask}; a
        word is not one token; or words of two labels are the same token.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: str,
        verbalizer: Verbalizer,
        sites: Sequence[Site] = (),
        tokens_per_batch: int = 1024,
    ):
        super().__init__(backbone, sites, tokens_per_batch)
        self.flat = None  # the fast forward pass has no masked-LM head
        mask = backbone.tokenizer.mask_token
        if backbone.kind != "encoder" or backbone.model.get_output_embeddings() is None or mask is None:
            raise ValueError(
                f"{backbone.name} has no head that fills a [MASK]; use a model whose config says "
                "...ForMaskedLM, or read classes from [CLS] with a HeadEngine"
            )
        if template.count("{text}") != 1 or template.count("{mask}") != 1:
            raise ValueError(f"the template {template!r} must have {{text}} and {{mask}}, each once")
        self.template, self.verbalizer = template, verbalizer
        ids = {word: self._word(word) for word in verbalizer.words}
        self._check_apart(ids)
        self._words = torch.tensor(list(ids.values()), device=backbone.device)

    def _word(self, word: str) -> int:
        """The token of a word in the place of {mask}, with a blank only if the template has one there."""
        tokenizer, before = self.backbone.tokenizer, self.template.partition("{mask}")[0]
        ids = tokens_behind(tokenizer, before.replace("{text}", "x"), word)
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(ids)
            raise ValueError(
                f"{self.backbone.name} reads the word {word!r} as {pieces}, but one [MASK] takes one known "
                "token; choose another word"
            )
        return ids[0]

    def _check_apart(self, ids: Mapping[str, int]) -> None:
        """Raise ValueError if words of two labels are the same token; those of one label may be."""
        owner: dict[int, tuple[str, str]] = {}
        for label, words in self.verbalizer.of.items():
            for word in words:
                other, before = owner.setdefault(ids[word], (label, word))
                if other != label:
                    raise ValueError(
                        f"{self.backbone.name} cannot tell {before!r} of label {other!r} from {word!r} of "
                        f"label {label!r}: they are the same token; choose another word"
                    )

    def classes(self, example: Example) -> tuple[str, ...]:
        """(): labels are found by their words, and options may differ from example to example."""
        return ()

    def _row(self, example: Example, target: int) -> HeadRow:
        labels, tokenizer = self.verbalizer.labels, self.backbone.tokenizer
        if not example.options or set(example.options) - set(labels):
            raise ValueError(
                f"{example.input[:60]!r} has the options {example.options}, but the verbalizer has words for "
                f"{labels} only; use options that are labels of the verbalizer"
            )
        filled = self.template.replace("{mask}", tokenizer.mask_token).replace("{text}", example.input)
        ids = tuple(tokenizer(filled).input_ids)
        if ids.count(tokenizer.mask_token_id) != 1:
            raise ValueError(
                f"{filled[:60]!r} has more than one {tokenizer.mask_token}; remove it from the text"
            )
        position, label = ids.index(tokenizer.mask_token_id), example.options.index(example.targets[target])
        return HeadRow(ids, (position,), ((label,),), len(example.options), example.options)

    def _logits(self, prompt: Prompt, rows: Sequence[HeadRow]) -> tuple[Tensor, Tensor]:
        """Scores of each row's options [M, C] at its [MASK], -inf beyond its options; their rows [M]."""
        logits, row_of = self._picked(prompt, rows, answers=True)  # [M, V]
        logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        scores = self.verbalizer.label_scores(logs[:, self._words])  # [M, labels]
        known, most = self.verbalizer.labels, max(row.num_classes for row in rows)
        columns = [[known.index(name) for name in row.names] for row in rows]
        picked = to_device([c + [0] * (most - len(c)) for c in columns], scores.device)
        beyond = to_device([[k >= len(c) for k in range(most)] for c in columns], scores.device)
        return scores.gather(1, picked).masked_fill(beyond, -torch.inf), row_of
