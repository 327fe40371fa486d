"""Every prompt method of the kit as a training on a device: engine, source, runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from iptkit.engine.adapter_hooks import find_blocks
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.layouts import LAYOUTS
from iptkit.engine.sites import find_sites
from iptkit.methods import adapters, baselines, p_tuning, p_tuning_v2, prompt_tuning, subspace
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.methods.subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig
from iptkit.models import backbone
from iptkit.models.backbone import Backbone
from iptkit.tasks import suites
from iptkit.training.runs import Run

LENGTH = 3
WORDY = ("tiny-mood", "tiny-pick", "tiny-plural")  # two with options, one with free answers
CLASSES = ("tiny-mood", "tiny-kind")
TAGS = ("tiny-parts", "tiny-words")  # of the suite tiny3
Training = tuple[Any, torch.nn.Module, list[Run]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def runs_of(names: Sequence[str]) -> list[Run]:
    suite = "tiny3" if names == TAGS else "tiny"
    return [
        Run(task, seed=seed) for seed, task in enumerate(suites.load_suite(suite, only=names, max_test=8))
    ]


def bank_of(model: Backbone) -> torch.Tensor:
    """Three prompts on the model's device, by hand."""
    words = prompt_tuning.from_words(model, LENGTH)
    noise = torch.randn(3, *words.shape, generator=seeded(5), dtype=words.dtype).to(words.device)
    return words + 0.1 * noise


def words_of(model: Backbone) -> torch.Tensor:
    return prompt_tuning.from_words(model, LENGTH).expand(3, -1, -1)


# ---- language models ------------------------------------------------------------------------------------
def _plain(
    source: Callable[[Backbone], torch.nn.Module], layout: Any = LAYOUTS[0]
) -> Callable[[Backbone], Training]:
    return lambda model: (Engine(model, layout), source(model), runs_of(WORDY))


def _found(model: Backbone) -> AutoEncoder:
    return AutoEncoder(bank_of(model), SubspaceConfig(2, 8), seeded())


def _fastfood(model: Backbone) -> IntrinsicPrompt:
    return IntrinsicPrompt(baselines.FastfoodPrompt(bank_of(model)[0], 0.1, 4, seeded()), 3)


def _hyper(model: Backbone) -> adapters.HyperAdapters:
    places = len(find_blocks(model.model))
    return adapters.HyperAdapters(2, places, model.width, 2, seeded()).to(model.device)


def _around(model: Backbone) -> IntrinsicPrompt:
    drawn = _hyper(model).cpu()
    return IntrinsicPrompt(adapters.RandomAround(_hyper(model), drawn), 3)


def _deep(lengths: Any = LENGTH, **more: Any) -> Callable[[Backbone], Training]:
    def make(model: Backbone) -> Training:
        sites = find_sites(model.model)
        source = p_tuning_v2.DeepPrompt(3, sites, lengths, seeded(), **more)
        return Engine(model, sites=sites), source, runs_of(WORDY)

    return make


CAUSAL = {
    "prompt tuning": _plain(lambda model: SoftPrompt(words_of(model))),
    "prompt tuning before the text": _plain(lambda model: SoftPrompt(words_of(model)), LAYOUTS[1]),
    "prompt tuning among words": _plain(
        lambda model: SoftPrompt(words_of(model)), ("{text}", 1, " Answer:", 2)
    ),
    "P-tuning": _plain(lambda model: p_tuning.EncodedPrompt(words_of(model), "lstm", seeded())),
    "P-tuning, MLP": _plain(lambda model: p_tuning.EncodedPrompt(words_of(model), "mlp", seeded())),
    "P-Tuning v2": _deep(),
    "P-Tuning v2, MLP": _deep(form="mlp", width=32, inner=8),
    "P-Tuning v2, lengths": _deep([1, 2, 3], dropout=0.1),
    "MSF": _plain(_found),
    "IST": _plain(lambda model: IntrinsicPrompt(_found(model), 3)),
    "IST, random decoder": _plain(
        lambda model: IntrinsicPrompt(
            subspace.random_autoencoder(bank_of(model), SubspaceConfig(2, 8), seeded()), 3
        )
    ),
    "IST, PCA": _plain(lambda model: IntrinsicPrompt(baselines.PrincipalComponents(bank_of(model), 2), 3)),
    "IST, Fastfood": _plain(_fastfood),
    "IST, random directions around": _plain(
        lambda model: IntrinsicPrompt(baselines.random_around(_found(model), seeded()), 3)
    ),
    "IST, PCA around": _plain(
        lambda model: IntrinsicPrompt(baselines.components_around(_found(model), bank_of(model)), 3)
    ),
    "IST, Fastfood around": _plain(
        lambda model: IntrinsicPrompt(baselines.fastfood_around(_found(model), seeded()), 3)
    ),
    "adapters, MSF": _plain(_hyper),
    "adapters, IST": _plain(lambda model: IntrinsicPrompt(_hyper(model), 3)),
    "adapters, random": _plain(_around),
}
SEQ2SEQ = {
    name: CAUSAL[name] for name in ("prompt tuning", "P-Tuning v2", "P-Tuning v2, lengths", "MSF", "IST")
}


# ---- encoders -------------------------------------------------------------------------------------------
def _head(
    names: Sequence[str], prompt: Callable[[Backbone, list[Any], int], Any]
) -> Callable[[Backbone], Training]:
    def make(model: Backbone) -> Training:
        sites, runs = find_sites(model.model), runs_of(names)
        inner = prompt(model, sites, len(runs))
        source = (
            inner if isinstance(inner, SharedPrompt) else WithHead(len(runs), model.width, 8, seeded(), inner)
        )
        is_deep = not isinstance(inner, SoftPrompt | None)
        return HeadEngine(model, sites if is_deep else ()), source.to(model.device), runs

    return make


def _soft(model: Backbone, _sites: list[Any], runs: int) -> SoftPrompt:
    return SoftPrompt(prompt_tuning.from_words(model, LENGTH).expand(runs, -1, -1))


def _own(_model: Backbone, sites: list[Any], runs: int) -> p_tuning_v2.DeepPrompt:
    return p_tuning_v2.DeepPrompt(runs, sites, LENGTH, seeded())


def _shared(model: Backbone, sites: list[Any], runs: int) -> SharedPrompt:
    return SharedPrompt(p_tuning_v2.DeepPrompt(1, sites, LENGTH, seeded()), runs, model.width, 8, seeded())


ENCODER = {
    "linear probe": _head(CLASSES, lambda *_: None),
    "prompt tuning, head": _head(CLASSES, _soft),
    "P-Tuning v2, classes": _head(CLASSES, _own),
    "P-Tuning v2, tags": _head(TAGS, _own),
    "MPT-2": _head(CLASSES, _shared),
}

ALL = (
    [("tiny-causal", name, make) for name, make in CAUSAL.items()]
    + [("tiny-seq2seq", name, make) for name, make in SEQ2SEQ.items()]
    + [("tiny-encoder", name, make) for name, make in ENCODER.items()]
)
IDS = [f"{model}-{name}" for model, name, _ in ALL]


def load(name: str, device: str, dtype: str = "float32") -> Backbone:
    return backbone.load(name, device, dtype)
