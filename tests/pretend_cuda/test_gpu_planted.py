"""Does the pretended GPU find a tensor that was left on the CPU? One is planted in each of several places."""

import dataclasses

import methods
import pytest
import torch
from torch import nn

from iptkit.engine import engine, head_engine, rows, seq2seq
from iptkit.engine.fast import attention
from iptkit.methods import prompt_tuning, subspace
from iptkit.models.devices import to_device
from iptkit.scores import evaluation
from iptkit.training import adam
from iptkit.training.runs import FitConfig
from iptkit.training.trainer import fit

SHORT = FitConfig(steps=1, rows_per_run=2, evaluations=1, dev_examples=2)
APART = "two devices|same device"


def start_of_a_source(monkeypatch):
    """prompt_tuning.py: the words that prompts start from."""
    known = prompt_tuning.from_words
    monkeypatch.setattr(prompt_tuning, "from_words", lambda *given: known(*given).cpu())


def numbers_of_ist(monkeypatch):
    """subspace.py: u, as it was before it took the device of the codes."""
    known = subspace.IntrinsicPrompt.__init__

    def init(self, autoencoder, runs):
        known(self, autoencoder, runs)
        self.u = nn.Parameter(torch.zeros(runs, len(self.center)))

    monkeypatch.setattr(subspace.IntrinsicPrompt, "__init__", init)


def answers_of_a_batch(monkeypatch):
    """engine.py: which sum each answer token belongs to."""
    known = rows.pack

    def pack(*given):
        packed = known(*given)
        return dataclasses.replace(packed, target_answer=packed.target_answer.cpu())

    monkeypatch.setattr(engine, "pack", pack)


def indices_of_tokens(monkeypatch):
    """attention.py: the indices of an encoder's tokens in their padded rows."""
    known = to_device

    def without_indices(values, device):
        return known(values, torch.device("cpu") if values.dtype == torch.long else device)

    monkeypatch.setattr(attention, "to_device", without_indices)


def mask_of_an_encoder(monkeypatch):
    """seq2seq.py: which tokens of a text are real."""
    known = seq2seq._padded

    def padded(lists, device):
        ids, present = known(lists, device)
        return ids, present.cpu()

    monkeypatch.setattr(seq2seq, "_padded", padded)


def classes_of_a_task(monkeypatch):
    """head_engine.py: the number of classes of each row."""
    known = to_device
    monkeypatch.setattr(
        head_engine,
        "to_device",
        lambda values, device: known(values, "cpu" if isinstance(values[0], int) else device),
    )


def means_of_adam(monkeypatch):
    """adam.py: the state of an optimizer."""
    known = adam.RunAdam.__init__

    def init(self, *given):
        known(self, *given)
        self.first = {name: mean.cpu() for name, mean in self.first.items()}

    monkeypatch.setattr(adam.RunAdam, "__init__", init)


PLANTED = {
    start_of_a_source: ("tiny-causal", methods.CAUSAL["prompt tuning"]),
    numbers_of_ist: ("tiny-causal", methods.CAUSAL["IST"]),
    answers_of_a_batch: ("tiny-causal", methods.CAUSAL["P-tuning"]),
    indices_of_tokens: ("tiny-encoder", methods.ENCODER["P-Tuning v2, tags"]),
    mask_of_an_encoder: ("tiny-seq2seq", methods.SEQ2SEQ["P-Tuning v2"]),
    classes_of_a_task: ("tiny-encoder", methods.ENCODER["linear probe"]),
    means_of_adam: ("tiny-causal", methods.CAUSAL["MSF"]),
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_tensor_is_found(plant, monkeypatch):
    name, make = PLANTED[plant]

    def work(device):
        engine, source, runs = make(methods.load(name, device))
        fit(engine, source, runs, SHORT)
        evaluation.evaluate(engine, source, [run.task for run in runs], limit=2)

    work("cuda")
    plant(monkeypatch)
    work("cpu")  # where nobody would notice
    for device in ("cuda", "cuda:1"):
        with pytest.raises(RuntimeError, match=APART):
            work(device)
