"""Estimated FLOPs of the jobs of a study.

Counted are the products of the frozen model, for all tokens that a job trains on, reads and scores: 2 FLOPs
per weight of a linear layer and token in the forward pass, and 2 in the backward pass to the input (frozen
weights get no gradient); 4 FLOPs per number of a query and token that it attends to, and twice as many
backward. What prompt methods add of their own is left out: one decoding of all prompts in each step.

    causal           text once, where its keys and values are cached; prompt and answers in every pass
    encoder-decoder  prompt and text in the encoder in every pass, once for all answers of an example; in the
                     decoder each answer, and the keys and values of all encoder states for each answer

Generating an answer costs as much as a pass over it. Divided by the speed of this machine's matrix products,
FLOPs give seconds. Texts whose keys and values one job leaves in memory for the next are counted twice, so
the estimate tends to be too high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from iptkit.engine.layouts import LAYOUTS
from iptkit.methods import prompt_tuning
from iptkit.models.devices import bf16_gain
from iptkit.studies.base import StudyInputs
from iptkit.tasks.examples import Task
from iptkit.training.runs import FitConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 16  # examples of a set whose mean lengths are taken for those of all
OF_PEAK = 0.5  # share of the speed of large matrix products that a whole job reaches (benchmarks/README.md)
CROSSING = ("encoder_attn", "EncDecAttention")  # attentions of BART's and T5's decoders to encoder states
KEYS_VALUES = ("k_proj", "v_proj", "k", "v")


@dataclass(frozen=True)
class Sizes:
    """What a token costs in a model: weights of linear layers that it is multiplied with.

    Attributes:
      layers: of all layers of a causal model, or of the encoder.
      decoder: of the decoder, without `crossing`; 0 for a causal model.
      crossing: of the decoder, which make keys and values of an encoder state.
      head: of the language-model head.
      attention: numbers of its queries in all layers of a causal model or of the encoder.
      decoder_attention: those of the decoder's attention to its own tokens, or to encoder states.
    """

    layers: int
    decoder: int
    crossing: int
    head: int
    attention: int
    decoder_attention: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Sizes:
        """The sizes of a model with a language-model head (its weights may be on torch's device "meta")."""
        config = model.config
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
        queries = heads * (head_width or config.hidden_size // heads)
        head = model.get_output_embeddings().weight.numel()
        own = config.num_hidden_layers * queries
        if not config.is_encoder_decoder:
            return cls(_weights(model.base_model), 0, 0, head, own, 0)
        decoder = model.get_decoder()
        depth = getattr(config, "decoder_layers", None) or config.num_decoder_layers
        crossing = sum(
            module.weight.numel()
            for name, module in decoder.named_modules()
            if any(part in name for part in CROSSING) and name.rpartition(".")[2] in KEYS_VALUES
        )
        return cls(
            layers=_weights(model.get_encoder()),
            decoder=_weights(decoder) - crossing,
            crossing=crossing,
            head=head,
            attention=own,
            decoder_attention=depth * queries,
        )


class Lengths(NamedTuple):
    """Mean tokens of a task's examples.

    Attributes:
      text: of a text.
      answer: of the first right answer, with its end token if it is free.
      options: of all options together; of the answer, if there are none.
      choices: number of options, 1 if there are none.
      free: share of examples without options.
    """

    text: float
    answer: float
    options: float
    choices: float
    free: float


class Costs:
    """Estimates FLOPs of training and scoring in one study.

    Args:
      study: whose model and sizes count; its model is loaded.
    """

    def __init__(self, study: StudyInputs):
        self.scale, backbone = study.scale, study.backbone
        self.tokenizer, self.sizes = backbone.tokenizer, Sizes.of(backbone.model)
        self.layers, self.head = self.sizes.layers, self.sizes.head
        is_first = self.scale.layout == LAYOUTS[0]  # the text, so that it does not depend on the prompt
        self.is_cached = backbone.kind == "causal" and is_first and not self.scale.deep
        is_mixed = backbone.dtype == "mixed" and backbone.device.type == "cpu"
        self.slower = bf16_gain() if is_mixed else 1.0  # what float32 is slower, see `weights`
        self.lengths: dict[tuple[str, int], Lengths] = {}

    def fit(self, on: Sequence[Task], config: FitConfig, runs: int = 1, is_whole: bool = False) -> float:
        """FLOPs of training `runs` prompts on each task: texts, training steps and evaluations on dev.

        Args:
          on: the tasks.
          config: how to train.
          runs: prompts per task.
          is_whole: nothing is cached, as with adapters.
        """
        total, is_cached = 0.0, self.is_cached and not is_whole
        for task in on:
            of = self._lengths(task)
            rows = config.steps * config.rows_per_run
            dev = min(config.dev_examples, len(task.dev))
            if is_cached:
                total += (min(rows, len(task.train)) + dev) * self._text(of)
            total += runs * rows * self._row(of, of.answer, 1, is_cached, is_training=True)
            total += runs * config.evaluations * dev * self._row(of, of.options, of.choices, is_cached)
        return total

    def weights(self, task: Task, config: FitConfig) -> float:
        """FLOPs of fine-tuning all weights: 6 per weight and token, times the slow-down by float32."""
        of = self._lengths(task)
        words = len(self.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids)
        tokens = config.steps * config.rows_per_run * (of.text + words + of.answer)
        return 6 * (self.layers + self.head) * tokens * self.slower

    def score(self, on: Sequence[Task], prompts: int = 1) -> float:
        """FLOPs of scoring the test examples of each task under `prompts` prompts.

        Free answers take two passes: one generates, the other one measures the log-likelihood.
        """
        total = 0.0
        for task in on:
            of, count = self._lengths(task), min(self.scale.test_examples, len(task.test))
            one = (1 + of.free) * self._row(of, of.options, of.choices, self.is_cached)
            total += count * (prompts * one + self.is_cached * self._text(of))
        return total

    def _text(self, of: Lengths) -> float:
        """FLOPs of reading a text whose keys and values are cached."""
        return 2 * self.layers * of.text + 4 * self.sizes.attention * of.text**2

    def _row(
        self, of: Lengths, answers: float, count: float, is_cached: bool, is_training: bool = False
    ) -> float:
        """FLOPs of a pass over one example.

        Args:
          of: of its task.
          answers: tokens of all answers that are scored.
          count: how many answers these are.
          is_cached: the keys and values of the text are there already.
          is_training: count the backward pass, too.
        """
        sizes, n = self.sizes, self.scale.prompt_length
        prompt = 0 if self.scale.deep else n  # a deep prompt consists of keys and values
        read = prompt + (0 if is_cached else of.text)
        if sizes.decoder:
            products = (sizes.layers + count * sizes.crossing) * read + (sizes.decoder + sizes.head) * answers
            pairs = sizes.attention * read * (of.text + n)
            pairs += sizes.decoder_attention * answers * (answers / count + read)
        else:
            new = read + answers - count  # nothing is read after the last token of an answer
            products = sizes.layers * new + sizes.head * answers
            pairs = sizes.attention * new * (of.text + n + answers - count)
        return 2 * products * (1 + is_training) + 4 * pairs * (1 + 2 * is_training)

    def _lengths(self, task: Task) -> Lengths:
        """Mean tokens of the task's first training examples."""
        key = task.id, task.seed
        if key not in self.lengths:
            sample = task.train[:SAMPLED]
            free = mean(not e.options for e in sample)
            self.lengths[key] = Lengths(
                text=self._mean([[e.input] for e in sample]),
                answer=self._mean([e.targets[:1] for e in sample]) + free,
                options=self._mean([e.options or e.targets[:1] for e in sample]) + free,
                choices=mean(len(e.options) or 1 for e in sample),
                free=free,
            )
        return self.lengths[key]

    def _mean(self, texts: Sequence[Sequence[str]]) -> float:
        flat = self.tokenizer([t for group in texts for t in group], add_special_tokens=False).input_ids
        return mean(map(len, flat)) * sum(map(len, texts)) / len(texts)


def _weights(part: nn.Module) -> int:
    """Number of weights of the linear layers of a part of a model (GPT-2 has layers of its own for them)."""
    layers = (module for module in part.modules() if not isinstance(module, nn.Embedding))
    weights = (getattr(module, "weight", None) for module in layers)
    return sum({id(w): w.numel() for w in weights if isinstance(w, Tensor) and w.dim() == 2}.values())
