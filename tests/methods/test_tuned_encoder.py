"""Fine-tuning of an encoder from a probe's head."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from iptkit.engine.head_engine import HeadEngine
from iptkit.methods import tuned_encoder
from iptkit.methods.heads import FixedHead, WithHead
from iptkit.methods.tuned_encoder import tune_encoder
from iptkit.models import backbone
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.training.adam import DivergedError
from iptkit.training.runs import FitConfig, Run, draw

CONFIG = FitConfig(steps=8, rows_per_run=4, lr=1e-3, evaluations=4, dev_examples=4)


@pytest.fixture(scope="module")
def encoder():
    return backbone.load("tiny-encoder", dtype="float32")


def task_of(name):
    return suites.load_suite("tiny3", only=[name])[0]


def head_of(encoder, task):
    return WithHead(1, encoder.width, len(task.labels), torch.Generator().manual_seed(1)).head[0].detach()


@pytest.mark.parametrize("name", ["tiny-colours", "tiny-parts"])
def test_all_weights_train_and_the_model_stays_as_it_was(encoder, name):
    task, before = task_of(name), backbone.fingerprint(encoder.model)
    made = tune_encoder(encoder, task, head_of(encoder, task), CONFIG)
    assert backbone.fingerprint(encoder.model) == before != backbone.fingerprint(made.backbone.model)
    assert made.best_step in (2, 4, 6, 8) and made.seconds > 0 and made.cpu_seconds > 0
    words = encoder.model.get_input_embeddings().weight
    assert made.num_parameters > words.numel() + made.head.head.numel()
    assert not any(p.requires_grad for p in made.backbone.model.parameters())
    engine = HeadEngine(made.backbone)
    (found,) = evaluation.outcomes(engine, made.head, [task], "dev", CONFIG.dev_examples)
    assert found.log_likelihood == pytest.approx(float(made.dev[1]), abs=1e-5), "the best state is kept"


def test_it_starts_as_the_probe(encoder):
    task = task_of("tiny-parts")
    head = head_of(encoder, task)
    made = tune_encoder(encoder, task, head, FitConfig(steps=1, lr=1e-12, evaluations=1))
    probe = evaluation.outcomes(HeadEngine(encoder), FixedHead(head[None]), [task])
    tuned = evaluation.outcomes(HeadEngine(made.backbone), made.head, [task])
    assert tuned[0].score == probe[0].score
    assert tuned[0].log_likelihood == pytest.approx(probe[0].log_likelihood, abs=1e-5)


def test_without_steps_it_is_the_probe_with_its_score_on_dev(encoder):
    task = task_of("tiny-parts")
    made = tune_encoder(encoder, task, head_of(encoder, task), FitConfig(steps=0, dev_examples=4))
    assert backbone.fingerprint(made.backbone.model) == backbone.fingerprint(encoder.model)
    (found,) = evaluation.outcomes(HeadEngine(encoder), made.head, [task], "dev", 4)
    assert made.best_step == 0 and float(made.dev[1]) == pytest.approx(found.log_likelihood, abs=1e-5)


def test_the_first_step_follows_the_gradient_of_the_mean_token_loss(encoder, monkeypatch):
    """Adam's first step is -lr * sign of the gradient, which is computed here by the model's own forward."""
    task, lr = task_of("tiny-parts"), 1e-3
    head, engine = head_of(encoder, task).requires_grad_(True), HeadEngine(encoder)
    rows = [engine.target_row(e) for e in draw(Run(task, 3), 0, 4)]
    logits, labels = [], []
    for row in rows:
        states = encoder.model.base_model(input_ids=torch.tensor([row.text])).last_hidden_state[0]
        logits.append(states[list(row.positions)] @ head[:, :-1].T + head[:, -1])
        labels += row.answers[0]
    (gradient,) = torch.autograd.grad(cross_entropy(torch.cat(logits), torch.tensor(labels)), head)
    config = FitConfig(steps=1, rows_per_run=4, lr=lr, evaluations=1)
    made = tune_encoder(encoder, task, head.detach(), config, seed=3)
    steps, is_clear = made.head.head[0] - head.detach(), gradient.abs() > 1e-4
    assert is_clear.float().mean() > 0.5
    torch.testing.assert_close(steps[is_clear], -lr * gradient.sign()[is_clear], rtol=1e-2, atol=1e-6)


def test_a_training_that_diverges_says_so(encoder, monkeypatch):
    task = task_of("tiny-colours")
    monkeypatch.setattr(tuned_encoder, "losses_of", lambda *given: torch.tensor([math.nan]))
    with pytest.raises(
        DivergedError, match=r"tiny-colours \(seed 0, lr 0.001\) diverged: its loss at step 1"
    ):
        tune_encoder(encoder, task, head_of(encoder, task), CONFIG)
