import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from stock import another, backbone, plain_log_likelihoods

from iptkit.engine.compatibility import made_for
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.prompt import Prompt
from iptkit.methods import prompt_tuning, subspace
from iptkit.methods.heads import WithHead
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.models.backbone import fingerprint, load
from iptkit.scores import evaluation
from iptkit.storage import tensor_files
from iptkit.tasks import examples, suites
from iptkit.training import adam, trainer
from iptkit.training.adam import DivergedError, RunAdam
from iptkit.training.runs import Fit, FitConfig, Run, draw
from iptkit.training.state import State
from iptkit.training.trainer import fit

NAMES = ["tiny-mood", "tiny-pick", "tiny-plural"]
SHORT = FitConfig(steps=6, rows_per_run=3, lr=0.05, evaluations=3, dev_examples=4)


@pytest.fixture(scope="module")
def three():
    return suites.load_suite("tiny", only=NAMES, max_test=8)


def words(model, runs, length=3):
    return SoftPrompt(prompt_tuning.from_words(model, length).expand(runs, -1, -1))


def shared(model, runs, **config):
    """An auto-encoder over random prompts."""
    generator = torch.Generator().manual_seed(3)
    bank = torch.randn(runs, 3, model.width, generator=generator)
    return subspace.AutoEncoder(bank, subspace.SubspaceConfig(2, 8, **config), generator)


# ---- configuration ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": -1}, "FitConfig.steps is -1; it must be at least 0"),
        ({"rows_per_run": 0}, "FitConfig.rows_per_run is 0; it must be at least 1"),
        ({"evaluations": 0}, "FitConfig.evaluations is 0; it must be at least 1"),
        ({"dev_examples": 0}, "FitConfig.dev_examples is 0; it must be at least 1"),
        ({"lr": 0.0}, "lr > 0, clip > 0 and 0 <= warmup < 1, got lr=0.0"),
        ({"clip": -1.0}, "got lr=0.02, clip=-1.0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"lr": float("nan")}, "got lr=nan"),
        ({"lr": float("inf")}, "got lr=inf"),
    ],
)
def test_fit_config_errors(given, told):
    with pytest.raises(ValueError, match=told):
        FitConfig(**given)


def test_run_errors(three):
    with pytest.raises(ValueError, match="Run.task is 'support', a str; give a Task"):
        Run("support")
    with pytest.raises(ValueError, match=r"a list; give a Task, as in Run\(tasks"):
        Run(three)
    with pytest.raises(ValueError, match="Run.data is 'test'; choose one of .*train_new"):
        Run(three[0], data="test")
    for lr in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"Run.lr is {lr}; give a number > 0 that is finite, or None"):
            Run(three[0], lr=lr)
    assert Run(three[0], data="train_new").examples == three[0].train_new
    with pytest.raises(ValueError, match=f"task {three[0].id} has no example in train_new; train on another"):
        Run(dataclasses.replace(three[0], train_new=()), data="train_new")


def test_a_fit_prints_in_one_line():
    curves = (torch.full((3, 2), 1.5), torch.zeros(3), torch.zeros(1, 2, 2), torch.zeros(2))
    assert repr(Fit(*curves, seconds=12.3)) == "Fit(3 steps of 2 runs, last loss 1.500, 12 s)"
    assert repr(Fit(torch.zeros(0, 1), *curves[1:])) == "Fit(0 steps of 1 run, 0 s)"


def test_learning_rate_warms_up_and_decays():
    config = FitConfig(steps=10, warmup=0.2)
    expected = [0.5, 1.0, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]
    assert [config.rate(step) for step in range(10)] == pytest.approx(expected)
    assert FitConfig(steps=1, warmup=0.0).rate(0) == 1.0


def test_examples_are_drawn_in_shuffled_epochs(three):
    run = Run(three[2], seed=1)
    size = len(run.examples)
    drawn = [e for step in range(size) for e in draw(run, step, 3)]
    epochs = [drawn[i * size : (i + 1) * size] for i in range(3)]
    assert all(sorted(e.input for e in epoch) == sorted(e.input for e in run.examples) for epoch in epochs)
    assert epochs[0] != epochs[1] and epochs[0] != list(run.examples)
    assert draw(run, 4, 3) == drawn[12:15]
    assert [draw(Run(three[2], seed=2), s, 3) for s in range(3)] != [draw(run, s, 3) for s in range(3)]


# ---- the optimizer ---------------------------------------------------------------------------------
@pytest.mark.parametrize("block", [1, 10, 1 << 18])
def test_run_adam_equals_torchs_adam_run_by_run(block, monkeypatch):
    """With torch's own clipping and one learning rate per run; some gradients exceed the limit."""
    monkeypatch.setattr(adam, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    rates, clip = [0.1, 0.02, 0.5], 1.0
    start = {"a": torch.randn(3, 2, 4, generator=generator), "b": torch.randn(3, 5, generator=generator)}
    ours = {k: torch.nn.Parameter(v.clone()) for k, v in start.items()}
    optimizer = RunAdam(ours, torch.tensor(rates), clip, per_run=True)
    theirs = [{k: torch.nn.Parameter(v[r].clone()) for k, v in start.items()} for r in range(3)]
    adams = [torch.optim.Adam(p.values(), lr=rate) for p, rate in zip(theirs, rates, strict=True)]
    norms = set()
    for share in (0.5, 1.0, 0.8, 0.3):
        gradients = {k: torch.randn(v.shape, generator=generator) * 0.3 for k, v in start.items()}
        for k, p in ours.items():
            p.grad = gradients[k].clone()
        optimizer.step(share)
        for r, (parameters, one) in enumerate(zip(theirs, adams, strict=True)):
            for k, p in parameters.items():
                p.grad = gradients[k][r].clone()
            norms.add(bool(torch.nn.utils.clip_grad_norm_(parameters.values(), clip) > clip))
            one.param_groups[0]["lr"] = rates[r] * share
            one.step()
    assert norms == {True, False}
    for k, p in ours.items():
        torch.testing.assert_close(p.data, torch.stack([t[k].data for t in theirs]), rtol=1e-5, atol=1e-6)
        assert p.grad is None


@pytest.mark.parametrize("block", [1, 1 << 18])
def test_run_adam_of_a_shared_source_clips_all_tensors_as_one(block, monkeypatch):
    monkeypatch.setattr(adam, "BLOCK", block)
    ours = {"a": torch.nn.Parameter(torch.zeros(2)), "b": torch.nn.Parameter(torch.zeros(1))}
    optimizer = RunAdam(ours, torch.tensor(0.1), clip=1.0, per_run=False)
    ours["a"].grad, ours["b"].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    optimizer.step(1.0)
    torch.testing.assert_close(optimizer.first["a"], torch.tensor([0.06, 0.0]))
    torch.testing.assert_close(optimizer.first["b"], torch.tensor([0.08]))
    torch.testing.assert_close(ours["b"].data, torch.tensor([-0.1]), rtol=1e-6, atol=0)


def test_run_adam_refuses_scattered_parameters():
    scattered = torch.nn.Parameter(torch.zeros(2, 3, 4).transpose(1, 2))
    with pytest.raises(ValueError, match="P: not contiguous in memory"):
        RunAdam({"P": scattered}, torch.tensor([0.1, 0.1]), clip=1.0, per_run=True)
    assert prompt_tuning.SoftPrompt(scattered).P.is_contiguous()


def test_a_head_is_not_trained_by_an_engine_that_scores_words(three):
    model, generator = backbone("tiny-causal", "float32"), torch.Generator().manual_seed(0)
    source = WithHead(1, model.width, 2, generator, words(model, 1))
    with pytest.raises(
        ValueError, match=r"the prompt has a head, which an Engine does not read.*needs an engine\.HeadEngine"
    ):
        fit(Engine(model), source, [Run(three[0])], SHORT)


# ---- fit -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 1e-4)])
def test_many_runs_together_equal_one_by_one(three, dtype, rtol):
    """Different tasks, seeds, data and learning rates in one batch; each ends as if it had trained alone."""
    model = backbone("tiny-causal", dtype)
    runs = [
        Run(three[0], 0),
        Run(three[0], 1, lr=0.2),
        Run(three[1], 0, "train_new"),
        Run(three[2], 2, lr=0.01),
    ]
    source = words(model, 4)
    together = fit(Engine(model), source, runs, SHORT)
    assert len({round(float(x), 4) for x in together.losses[-1]}) == 4
    for r, run in enumerate(runs):
        one = words(model, 1)
        alone = fit(Engine(model), one, [run], SHORT)
        assert together.best_step[r] == alone.best_step[0]
        torch.testing.assert_close(together.losses[:, r], alone.losses[:, 0], rtol=rtol, atol=0)
        torch.testing.assert_close(together.dev[:, r], alone.dev[:, 0], rtol=rtol, atol=1e-12)
        torch.testing.assert_close(source.P[r], one.P[0], rtol=rtol, atol=rtol)
        assert (source.P[r] - words(model, 1).P[0]).abs().max() > 5e-3, "it did train"


def test_small_batches_train_as_large_ones(three):
    model = backbone("tiny-causal", "float64")
    sources = [words(model, 3) for _ in range(2)]
    for source, size in zip(sources, (30, 5000), strict=True):
        fit(Engine(model, tokens_per_batch=size), source, [Run(t) for t in three], SHORT)
    torch.testing.assert_close(sources[0].P, sources[1].P, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layout", ["text-prompt-answer", "prompt-text-answer"])
def test_the_loss_is_the_mean_over_answer_tokens_of_each_run(three, layout):
    model = backbone("tiny-causal", "float64")
    engine, runs = Engine(model, layout), [Run(three[1]), Run(three[2], lr=0.3)]
    result = fit(engine, words(model, 2), runs, SHORT)
    for r, run in enumerate(runs):
        rows = [engine.target_row(e) for e in draw(run, 0, 3)]
        start = prompt_tuning.from_words(model, 3).expand(3, -1, -1)
        scores = plain_log_likelihoods(model, layout, start, rows)
        expected = -sum(s.sum() for s in scores) / sum(len(row.answers[0]) for row in rows)
        assert result.losses[0, r].item() == pytest.approx(expected.item(), rel=1e-9)


def test_training_lowers_the_loss_and_leaves_the_model_alone(three):
    model = load("tiny-causal")
    before = fingerprint(model.model)
    source = words(model, 3)
    result = fit(Engine(model), source, [Run(t) for t in three], FitConfig(30, 8, lr=0.1, dev_examples=4))
    assert (result.losses[-3:].mean(0) < result.losses[:3].mean(0) - 0.1).all()
    assert result.losses.shape == (30, 3) and result.dev.shape == (4, 3, 2) and result.seconds > 0
    assert fingerprint(model.model) == before
    assert all(p.grad is None and not p.requires_grad for p in model.model.parameters())


def test_dev_scores_are_accuracy_and_loss(three):
    model = backbone("tiny-causal", "float64")
    engine = Engine(model)
    source = FixedPrompt(prompt_tuning.from_words(model, 3).expand(3, -1, -1))
    found = trainer.dev_scores(engine, source, [Run(t) for t in three], limit=5)
    for r, task in enumerate(three):
        hits, losses = [], []
        for example in task.dev[:5]:
            row = engine.option_row(example) if example.options else engine.target_row(example)
            (scores,) = plain_log_likelihoods(model, engine.layout, source.P[:1], [row])
            right = example.options.index(example.targets[0]) if example.options else 0
            hits.append(bool(example.options) and scores.argmax().item() == right)
            losses.append(scores[right].item() / len(row.answers[right]))
        assert found[r].tolist() == pytest.approx([sum(hits) / 5, sum(losses) / 5])
    assert 0 < found[0, 0] < 1 and found[2, 0] == 0


def scripted(monkeypatch, scores):
    """A dev_scores that returns these scores [evaluations][runs] = (accuracy, minus loss) one by one."""
    remaining = [torch.tensor(s, dtype=torch.float64) for s in scores]
    monkeypatch.setattr(trainer, "dev_scores", lambda *args: remaining.pop(0))


def states_after(monkeypatch, source):
    """The parameters after every step, in a list that grows while `fit` runs."""
    seen, step = [], RunAdam.step

    def recorded(self, rate):
        step(self, rate)
        seen.append({k: p.detach().clone() for k, p in source.named_parameters()})

    monkeypatch.setattr(RunAdam, "step", recorded)
    return seen


def test_each_run_ends_in_its_own_best_state(three, monkeypatch):
    model = backbone("tiny-causal", "float32")
    source = words(model, 3)
    seen = states_after(monkeypatch, source)
    best_first, best_second, tie = [(0.9, -1.0), (0.1, -0.5)], [(0.5, -2.0), (0.5, -1.0)], [(0.5, -1.0)] * 2
    scripted(monkeypatch, [*zip(best_first, best_second, tie, strict=True), [(0.2, -0.1)] * 3])
    result = fit(Engine(model), source, [Run(t) for t in three], SHORT)
    assert result.best_step.tolist() == [2, 4, 2]
    assert torch.equal(source.P[0], seen[1]["P"][0]), "accuracy counts before the loss"
    assert torch.equal(source.P[1], seen[3]["P"][1]), "the loss decides between equal accuracies"
    assert torch.equal(source.P[2], seen[1]["P"][2]), "the earlier of two equal states"
    assert result.dev[1, 1].tolist() == [0.5, -1.0]


def test_a_shared_source_ends_in_the_state_of_least_mean_loss(three, monkeypatch):
    model = backbone("tiny-causal", "float32")
    source = shared(model, 3)
    seen = states_after(monkeypatch, source)
    scripted(monkeypatch, [[(0.9, -2.0)] * 3, [(0.0, -1.0), (0.0, -1.0), (0.0, -3.0)], [(1.0, -1.9)] * 3])
    result = fit(Engine(model), source, [Run(t) for t in three], SHORT)
    assert result.best_step.tolist() == [4, 4, 4]
    for name, p in source.named_parameters():
        assert torch.equal(p, seen[3][name])


def test_pure_reconstruction_is_selected_by_reconstruction(three, monkeypatch):
    """If no task loss trains the source, its dev loss must not choose the best state."""
    model = backbone("tiny-causal", "float32")
    source = shared(model, 3, task_weight=0.0)
    seen = states_after(monkeypatch, source)
    penalties = iter([0.5, 0.2, 0.3])
    scripted(monkeypatch, [[(0.0, -3.0)] * 3, [(0.0, -2.0)] * 3, [(1.0, -1.0)] * 3])
    dev_scores = trainer.dev_scores

    def with_penalty(*args):
        value = next(penalties)
        patch.setattr(source, "penalty", lambda: torch.tensor(value, requires_grad=True))
        return dev_scores(*args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "dev_scores", with_penalty)
        patch.setattr(trainer, "train_step", only_reconstruct)
        result = fit(Engine(model), source, [Run(t) for t in three], SHORT)
    assert result.best_step.tolist() == [4, 4, 4]
    for name, p in source.named_parameters():
        assert torch.equal(p, seen[3][name])
    assert result.dev[:, 0, 1].tolist() == [-3.0, -2.0, -1.0], "what dev said is still told"


def only_reconstruct(engine, state):
    """A step on the reconstruction loss alone."""
    state.source.reconstruction().backward()
    state.optimizer.step(1.0)
    return torch.zeros(len(state.runs))


def test_no_steps_only_evaluate(three):
    model = backbone("tiny-causal", "float32")
    source = words(model, 1)
    result = fit(Engine(model), source, [Run(three[0])], FitConfig(steps=0, dev_examples=4))
    assert result.losses.shape == (0, 1) and result.dev.shape == (1, 1, 2)
    assert torch.equal(source.P, words(model, 1).P)


class Seldom(State):
    """A state that reads its losses every third step, as on a GPU."""

    most = 0

    def __init__(self, *given):
        super().__init__(*given)
        assert self.flush_every == 1, "on a CPU"
        self.flush_every = 3

    def record(self, *given):
        super().record(*given)
        Seldom.most = max(Seldom.most, len(self.pending))


def test_losses_read_seldom_are_the_same(three, monkeypatch):
    config, found = dataclasses.replace(SHORT, evaluations=1), []
    for state in (State, Seldom):
        monkeypatch.setattr(trainer, "State", state)
        model = backbone("tiny-causal", "float32")
        found.append(fit(Engine(model), shared(model, 3), [Run(task) for task in three], config))
    assert Seldom.most == 2, "two steps wait while the third is read with them"
    assert found[0].losses.isfinite().all() and torch.equal(found[0].losses, found[1].losses)
    assert found[0].penalty.abs().min() > 0 and torch.equal(found[0].penalty, found[1].penalty)


def test_a_checkpoint_holds_losses_that_were_not_read_yet(three, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "State", Seldom)
    config, file = dataclasses.replace(SHORT, evaluations=1), tmp_path / "seldom.safetensors"
    model, saved = backbone("tiny-causal", "float32"), []
    save = State.save
    monkeypatch.setattr(
        Seldom, "save", lambda self, path: saved.append(self.losses.clone()) or save(self, path)
    )
    source = words(model, 3)
    fit(Engine(model), source, [Run(task) for task in three], config, file, checkpoint_seconds=0.0)
    assert [int(losses.isfinite().all(1).sum()) for losses in saved] == list(range(1, config.steps + 1))


def test_a_loss_that_is_not_finite_is_told_with_its_own_step(three):
    model = backbone("tiny-causal", "float32")
    state = State(Engine(model), words(model, 2), [Run(task) for task in three[:2]], SHORT)
    state.flush_every = 3
    for state.step in range(2):
        state.record(torch.tensor([1.0, torch.inf if state.step == 1 else 1.0]), None)
    state.step = 2
    told = r"run 1 \(task tiny-pick, seed 0, lr 0.05\) is inf at step 1 of 6"
    with pytest.raises(DivergedError, match=told):
        state.record(torch.ones(2), None)


def test_fit_errors(three):
    model = backbone("tiny-causal", "float32")
    engine = Engine(model)
    with pytest.raises(ValueError, match="fit got no runs"):
        fit(engine, words(model, 1), [], SHORT)
    with pytest.raises(ValueError, match="rows for 2 runs, but 3 runs were given"):
        fit(engine, words(model, 2), [Run(t) for t in three], SHORT)
    source = words(model, 3)
    with torch.no_grad():
        source.P[1, 0, 0] = torch.nan
    told = r"loss of run 1 \(task tiny-pick, seed 3, lr 0.7\) is nan at step 0 of 6.*lower the learning rate"
    with pytest.raises(ValueError, match=told):
        fit(engine, source, [Run(three[0]), Run(three[1], 3, lr=0.7), Run(three[2])], SHORT)
    without = dataclasses.replace(three[0], dev=())
    with pytest.raises(ValueError, match=f"task {three[0].id} has no dev examples"):
        fit(engine, words(model, 1), [Run(without)], SHORT)


def test_a_prompt_that_diverges_in_the_last_step_is_no_result(three, monkeypatch):
    """Its last training loss is finite. Without a check the start would be returned as the best state."""
    model = backbone("tiny-causal", "float32")

    def last_step_diverges(self, rate):
        step(self, rate)
        if self.count == SHORT.steps:
            self.parameters["P"][1] = torch.nan

    step = RunAdam.step
    monkeypatch.setattr(RunAdam, "step", torch.no_grad()(last_step_diverges))
    config = dataclasses.replace(SHORT, evaluations=1)
    told = r"loss on dev of run 1 \(task tiny-pick, seed 0, lr 0.05\) is nan at step 6 of 6"
    with pytest.raises(DivergedError, match=told):
        fit(Engine(model), words(model, 2), [Run(task) for task in three[:2]], config)


def test_a_penalty_that_is_not_finite_is_told(three, monkeypatch):
    model = backbone("tiny-causal", "float32")
    source = shared(model, 2, task_weight=0.0)
    monkeypatch.setattr(source, "penalty", lambda: sum(p.sum() for p in source.parameters()) * torch.nan)
    with pytest.raises(DivergedError, match=r"penalty of run 0 .* is nan at step 0"):
        fit(Engine(model), source, [Run(task) for task in three[:2]], SHORT)


# ---- resume ----------------------------------------------------------------------------------------
def assert_same_fit(source, result, other_source, other_result):
    for (name, a), (_, b) in zip(source.named_parameters(), other_source.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    for field in ("losses", "penalty", "dev", "best_step"):
        assert torch.equal(getattr(result, field), getattr(other_result, field)), field


def whole_and_resumed(engine, make, runs, config, stop, checkpoint):
    """The same training twice: uninterrupted, and killed after `stop` steps and resumed."""
    model = engine.backbone
    whole, resumed = make(model, len(runs)), make(model, len(runs))
    expected = fit(engine, whole, runs, config)
    step, done = trainer.train_step, []

    def killed(*args):
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(None)
        return step(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "train_step", killed)
        fit(Engine(model), make(model, len(runs)), runs, config, checkpoint, checkpoint_seconds=-1)
    result = fit(Engine(model), resumed, runs, config, checkpoint, checkpoint_seconds=-1)
    assert result.resumed_at == stop and expected.resumed_at == 0
    assert_same_fit(resumed, result, whole, expected)


@pytest.mark.parametrize("make", [words, shared])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_killed_fit_resumed_equals_an_uninterrupted_one(three, tmp_path, make, stop):
    runs = [Run(three[0], lr=0.1), Run(three[1], 5), Run(three[2])]
    engine = Engine(backbone("tiny-causal", "float32"))
    whole_and_resumed(engine, make, runs, SHORT, stop, tmp_path / "fit.safetensors")


@pytest.mark.model
def test_a_resumed_fit_of_the_real_model_is_the_same_to_the_last_bit(three, tmp_path):
    """Its products round differently in batches of another width, and a new process has no cached texts."""
    texts = tuple(examples.Example("so " * size + "on", ("on",)) for size in (2, 5, 9, 14, 20, 27, 35, 44))
    run = Run(dataclasses.replace(three[2], train=texts), seed=3)
    first, second = ({len(e.input) for e in draw(run, step, 5)} for step in (0, 1))
    assert max(second & first) > max(second - first), (
        "the second step has old texts, longer than its new ones"
    )
    config = FitConfig(steps=2, rows_per_run=5, lr=0.05, evaluations=1, dev_examples=1)
    engine = Engine(backbone("smollm2-135m", "mixed"))
    whole_and_resumed(engine, words, [run], config, 1, tmp_path / "fit.safetensors")


CHILD = """
import sys, time
from pathlib import Path
from iptkit import Engine, Run, models, tasks
from iptkit.training import trainer
sys.path[:0] = {tests!r}
from test_trainer import NAMES, LONG, words
step = trainer.train_step
def slow(engine, state):
    time.sleep(0.1 if state.step < 5 else 600)  # the test kills it before it ends
    return step(engine, state)
trainer.train_step = slow
model = models.load("tiny-causal")
runs = [Run(t) for t in tasks.load_suite("tiny", only=NAMES, max_test=8)]
trainer.fit(Engine(model), words(model, 3), runs, LONG, Path({checkpoint!r}), checkpoint_seconds=-1)
"""
LONG = FitConfig(steps=40, rows_per_run=2, lr=0.05, evaluations=4, dev_examples=4)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a thing of POSIX systems")
def test_kill_minus_9_and_resume(three, tmp_path):
    checkpoint, tests = tmp_path / "fit.safetensors", Path(__file__).parent
    code = CHILD.format(tests=[str(tests), str(tests.parent / "support")], checkpoint=str(checkpoint))
    environment = {**os.environ, "IPTKIT_QUIET": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.time() + 600
        while not checkpoint.exists() and child.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        time.sleep(0.25)
    finally:
        child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, child.stderr.read()
    child.stderr.close()

    model = backbone("tiny-causal", "float32")
    runs = [Run(t) for t in three]
    whole, resumed = words(model, 3), words(model, 3)
    expected = fit(Engine(model), whole, runs, LONG)
    result = fit(Engine(model), resumed, runs, LONG, checkpoint)
    assert 0 < result.resumed_at < LONG.steps
    assert_same_fit(resumed, result, whole, expected)


class Watch:
    """Both clocks of a computer on which each training step takes 10 s and 25 CPU seconds."""

    def __init__(self, patch, monotonic=1000.0, process_time=3.0, stop=None):
        self.steps, self.start, step = 0, (monotonic, process_time), trainer.train_step

        def counted(*args):
            if self.steps == stop:
                raise KeyboardInterrupt
            self.steps += 1
            return step(*args)

        patch.setattr(trainer, "train_step", counted)
        patch.setattr(time, "monotonic", lambda: self.start[0] + 10 * self.steps)
        patch.setattr(time, "process_time", lambda: self.start[1] + 25 * self.steps)


def killed_at(stop, three, file, **clocks):
    """A training that writes a checkpoint after each step and is killed after `stop` steps of its own."""
    with pytest.MonkeyPatch.context() as patch:
        Watch(patch, stop=stop, **clocks)
        model = backbone("tiny-causal", "float32")
        return fit(Engine(model), words(model, 1), [Run(three[0])], SHORT, file, checkpoint_seconds=-1)


def test_the_times_of_all_processes_that_resumed_a_training_add_up(three, tmp_path):
    file = tmp_path / "fit.safetensors"
    whole = killed_at(None, three, tmp_path / "whole.safetensors")
    assert (whole.seconds, whole.cpu_seconds, whole.resumed_at) == (60.0, 150.0, 0)
    for clocks in (
        {},
        {"monotonic": 7.0, "process_time": 0.0},
    ):  # two processes, after a restart of the machine
        with pytest.raises(KeyboardInterrupt):
            killed_at(2, three, file, **clocks)
    last = killed_at(None, three, file, monotonic=0.0, process_time=0.5)
    assert (last.seconds, last.cpu_seconds, last.resumed_at) == (60.0, 150.0, 4)
    again = killed_at(None, three, file)
    assert (again.seconds, again.cpu_seconds, again.resumed_at) == (60.0, 150.0, 6), "nothing was left to do"


def test_steps_after_the_last_checkpoint_are_trained_and_counted_again(three, tmp_path, monkeypatch):
    file, save = tmp_path / "fit.safetensors", State.save
    monkeypatch.setattr(State, "save", lambda self, path: self.step == 2 and save(self, path))
    with pytest.raises(KeyboardInterrupt):
        killed_at(5, three, file)
    last = killed_at(None, three, file)
    assert (last.seconds, last.cpu_seconds, last.resumed_at) == (60.0, 150.0, 2)


def test_a_checkpoint_without_times_resumes_and_counts_none(three, tmp_path):
    file = tmp_path / "fit.safetensors"
    with pytest.raises(KeyboardInterrupt):
        killed_at(2, three, file)
    tensors, about = tensor_files.read(file)
    assert (about.pop("seconds"), about.pop("cpu_seconds")) == (20.0, 50.0)
    tensor_files.write(file, tensors, about)
    rest = killed_at(None, three, file)
    assert (rest.seconds, rest.cpu_seconds, rest.resumed_at) == (40.0, 100.0, 2)


def test_a_fit_without_a_checkpoint_tells_its_times(three):
    model = backbone("tiny-causal", "float32")
    result = fit(Engine(model), words(model, 1), [Run(three[0])], SHORT)
    assert result.seconds > 0 and result.cpu_seconds > 0


def test_a_checkpoint_is_whole_at_any_moment(three, tmp_path, monkeypatch):
    model = backbone("tiny-causal", "float32")
    checkpoint = tmp_path / "fit.safetensors"
    fit(Engine(model), words(model, 1), [Run(three[0])], SHORT, checkpoint, checkpoint_seconds=-1)
    before = checkpoint.read_bytes()
    assert tensor_files.read(checkpoint)[1]["step"] == 6 and os.listdir(tmp_path) == ["fit.safetensors"]

    def torn(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        fit(Engine(model), words(model, 1), [Run(three[0])], LONG, tmp_path / "other", checkpoint_seconds=-1)
    assert checkpoint.read_bytes() == before and os.listdir(tmp_path) == ["fit.safetensors"]


def test_progress_is_told(three, tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STATUS", str(tmp_path / "status.json"))
    model = backbone("tiny-causal", "float32")
    fit(Engine(model), words(model, 1), [Run(three[0])], SHORT, label="a short fit")
    state = json.loads((tmp_path / "status.json").read_text())
    assert (state["label"], state["done"], state["total"], state["unit"]) == ("a short fit", 6, 6, "step")
    assert state["note"].startswith("loss ")


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    model = backbone("tiny-causal", "float32")
    runs = [Run(suites.load_task("tiny-mood", suite="tiny"))]
    words = prompt_tuning.from_words(model, 2)[None]
    file = tmp_path / "checkpoint.safetensors"
    config = FitConfig(steps=2, rows_per_run=1, evaluations=1)
    fit(Engine(model), prompt_tuning.SoftPrompt(words), runs, config, file, checkpoint_seconds=0.0)
    before = file.read_bytes()

    def again(told, engine=None, start=words, runs=runs, **changes):
        with pytest.raises(ValueError, match=rf"checkpoint of another training \({told}.*delete it"):
            given = dataclasses.replace(config, **changes)
            fit(engine or Engine(model), prompt_tuning.SoftPrompt(start), runs, given, str(file))
        assert file.read_bytes() == before

    again("lr 0.02 there, 0.5 here", lr=0.5)
    again("steps 2 there, 4 here", steps=4)
    told = "the model tiny-causal there, another-tiny-causal here, with other weights"
    again(told, Engine(another("tiny-causal", "float32")))
    again("dtype 'float32' there, 'float64' here", Engine(backbone("tiny-causal", "float64")))
    again("layout 'text-prompt-answer' there, 'prompt-text-answer' here", Engine(model, "prompt-text-answer"))
    again(
        r"prompt_length 2 there, 3 here; shapes \{'P': \[1, 2, 32\]\} there",
        start=prompt_tuning.from_words(model, 3)[None],
    )
    again(r"run 0 \(.*'tiny-mood', 0, .*'tiny-mood', 7", runs=[dataclasses.replace(runs[0], seed=7)])
    task = runs[0].task
    same_id = dataclasses.replace(task, train=tuple(reversed(task.train)))
    again("run 0 .*examples", runs=[Run(same_id)])
    two = torch.cat([words, words])
    again("shapes .*run 1 .* None there", start=two, runs=[*runs, Run(task, 1)])
    result = fit(Engine(model), prompt_tuning.SoftPrompt(words), runs, config, str(file))
    assert result.resumed_at == 2 and file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t, a: ({k: v for k, v in t.items() if k != "first.P"}, a),
            "first.P is missing or of another",
        ),
        (lambda t, a: (t | {"now.P": t["now.P"][:, :1]}, a), "now.P is missing or of another shape"),
        (lambda t, a: (t | {"dev.0000": torch.zeros(3, 2)}, a), "dev.0000 is missing or of another shape"),
        (lambda t, a: (t, a | {"step": 9}), "step 9"),
        (lambda t, a: (t, a | {"step": "two"}), "step 'two'"),
        (lambda t, a: (t, a | {"seconds": -1.0}), "seconds -1.0"),
        (lambda t, a: (t, a | {"cpu_seconds": None}), "cpu_seconds None"),
        (lambda t, a: (t, {"training": a["training"]}), "step None"),
        (
            lambda t, a: (t, a | {"training": "1a2b3c4d"}),
            "does not say of which one, like those of earlier versions",
        ),
        (lambda t, a: (t, {}), "does not say of which"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(three, tmp_path, change, told):
    model, file = backbone("tiny-causal", "float32"), tmp_path / "fit.safetensors"
    config = FitConfig(steps=2, rows_per_run=1, evaluations=1)
    fit(Engine(model), words(model, 1), [Run(three[0])], config, file, checkpoint_seconds=0.0)
    tensor_files.write(file, *change(*tensor_files.read(file)))
    source = words(model, 1)
    with pytest.raises(ValueError, match=rf"fit.safetensors .*{told}.*delete it"):
        fit(Engine(model), source, [Run(three[0])], config, file)
    assert torch.equal(source.P, words(model, 1).P)


@pytest.mark.parametrize("kind", [SoftPrompt, FixedPrompt])
def test_a_stored_prompt_of_another_model_is_refused_by_name(three, kind):
    model, other = (make("tiny-causal", "float32") for make in (backbone, another))
    start, about = prompt_tuning.from_words(model, 3)[None], made_for(Engine(model), 3)
    assert 0 <= evaluation.evaluate(Engine(model), kind(start, about=about), three[:1])[0] <= 1
    with pytest.raises(
        ValueError, match=rf"this {kind.__name__} does not fit: it was made for the model tiny-"
    ):
        evaluation.evaluate(Engine(other), kind(start, about=about), three[:1])


def test_vectors_of_another_width_are_refused_in_every_engine(three):
    models = [backbone(name, "float32") for name in ("tiny-causal", "tiny-seq2seq", "tiny-encoder")]
    engines = [Engine(models[0]), Engine(models[0], "prompt-text-answer"), Engine(models[1])]
    for engine in (*engines, HeadEngine(models[2])):
        told = f"does not fit {engine.backbone.name} .width of its vectors 16, 32 needed"
        row = engine.target_row(three[0].train[0])
        calls = [lambda prompt, row, e=engine: e.log_likelihoods(prompt, [row])]
        calls += [lambda prompt, row, e=engine: e.greedy(prompt, [row], [2])]
        for call in calls:
            with pytest.raises(ValueError, match=told):
                call(Prompt(torch.zeros(1, 2, 16), head=torch.zeros(1, 2, 33)), row)
    with pytest.raises(ValueError, match="width of its head, with the bias 32, 33 needed"):
        HeadEngine(models[2]).log_likelihoods(Prompt(head=torch.zeros(1, 2, 32)), [row])
    with pytest.raises(ValueError, match="width of its adapters 16, 32 needed"):
        fit(engines[0], SoftPrompt(torch.zeros(1, 4, 2, 16, 2), "adapters"), [Run(three[0])], SHORT)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_checkpoint_is_set_aside_and_training_begins_anew(three, tmp_path, damage):
    file, runs = tmp_path / "fit.safetensors", [Run(task) for task in three]
    model = backbone("tiny-causal", "float32")
    whole, again = words(model, 3), words(model, 3)
    expected = fit(Engine(model), whole, runs, SHORT, file, checkpoint_seconds=-1)
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data[:-100] if damage == "cut" else data)
    with pytest.warns(
        UserWarning, match=r"fit.safetensors is damaged .*set aside as fit.safetensors.damaged"
    ):
        result = fit(Engine(model), again, runs, SHORT, file)
    assert result.resumed_at == 0 and (tmp_path / "fit.safetensors.damaged").exists()
    assert_same_fit(again, result, whole, expected)
