"""Adapters behind the blocks of a frozen model, and the subspace that makes them from a few numbers."""

from collections import Counter
from dataclasses import replace

import families
import pytest
import torch
from stock import MIXED_EXAMPLES, backbone, rows_of
from torch import nn

from benchmarks import learning_rates
from iptkit.engine.adapter_hooks import adapters_after, find_blocks
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.methods.adapters import HyperAdapters
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.methods.subspace import IntrinsicPrompt
from iptkit.models.backbone import fingerprint, load
from iptkit.scores import evaluation, summary
from iptkit.storage import step_cache
from iptkit.studies import adapters, scales
from iptkit.studies.costs import Costs
from iptkit.studies.scales import AdapterConfig
from iptkit.studies.study import Study
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

RANK = 3
LAYOUT = ("{prompt}", "{text}", "Answer:")


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})


def drawn(rows, dtype=torch.float64, std=0.3, seed=0):
    of = backbone("tiny-causal", "float64")
    blocks = len(find_blocks(of.model))
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(rows, blocks, 2, of.width, RANK, generator=generator, dtype=torch.float64)
    return made.to(dtype) * std


class Behind(nn.Module):
    """A block and its adapter as plain code, which the hooks are compared with."""

    def __init__(self, block, down, up):
        super().__init__()
        self.block, self.down, self.up = block, down, up

    def forward(self, *args, **kwargs):
        out = self.block(*args, **kwargs)
        h = out[0] if isinstance(out, tuple) else out
        a = h @ self.down
        h = h + (a * torch.sigmoid(a)) @ self.up
        return (h, *out[1:]) if isinstance(out, tuple) else h


def plain(name, weights, row, words):
    """Log-likelihoods of a row's answers, by a separate model whose blocks are wrapped."""
    model = load(name, dtype="float64").model
    blocks = [m for layer in model.model.layers for m in (("self_attn", layer), ("mlp", layer))]
    for (name, layer), (down, up) in zip(blocks, weights, strict=True):
        setattr(layer, name, Behind(getattr(layer, name), down, up.T))
    found = []
    for answer in row.answers:
        ids = torch.tensor([[*row.text, *words, *answer]])
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        found.append(logits.gather(1, torch.tensor(answer)[:, None]).sum())
    return torch.stack(found)


# ---- the forward -----------------------------------------------------------------------------------
def test_adapters_are_those_of_a_model_with_adapters():
    of = backbone("tiny-causal", "float64")
    engine = Engine(of, LAYOUT)
    rows, weights = rows_of(engine), drawn(len(MIXED_EXAMPLES)).requires_grad_()
    words = of.tokenizer("Answer:", add_special_tokens=False).input_ids
    found, _ = engine.log_likelihoods(Prompt(adapters=weights), rows)
    expected = [plain("tiny-causal", w, row, words) for w, row in zip(weights, rows, strict=True)]
    without, _ = engine.log_likelihoods(FixedPrompt(of.embedding[None, :0])(torch.zeros(4, dtype=int)), rows)
    for mine, theirs, none, row in zip(found, expected, without, rows, strict=True):
        count = len(row.answers)
        assert torch.allclose(mine[:count], theirs, atol=1e-9)
        assert (mine[:count] - none[:count]).abs().max() > 0.01, "they change something"
    (gradient,) = torch.autograd.grad(found.clamp_min(-1e9).sum(), weights)
    (theirs,) = torch.autograd.grad(torch.cat(expected).sum(), weights)
    assert torch.allclose(gradient, theirs, atol=1e-8) and (gradient.flatten(2) != 0).any(-1).all()


def test_nothing_of_them_stays_behind():
    of = backbone("tiny-causal", "float32")
    engine, before = Engine(of, LAYOUT), fingerprint(of.model)
    rows = rows_of(engine)
    empty = FixedPrompt(of.embedding[None, :0])(torch.zeros(len(rows), dtype=int))
    first, _ = engine.log_likelihoods(empty, rows)
    engine.log_likelihoods(Prompt(adapters=drawn(len(rows), torch.float32)), rows)
    with pytest.raises(RuntimeError), adapters_after(find_blocks(of.model), drawn(1)):
        raise RuntimeError
    assert not any(m._forward_hooks for m in of.model.modules()) and fingerprint(of.model) == before
    assert torch.equal(engine.log_likelihoods(empty, rows)[0], first)
    zero, _ = engine.log_likelihoods(Prompt(adapters=drawn(len(rows), torch.float32, 0.0)), rows)
    assert torch.allclose(zero, first, atol=1e-4), "at U = 0 the model is as it was"


def test_answers_are_generated_through_them():
    of = backbone("tiny-causal", "float64")
    engine, task = Engine(of, LAYOUT), suites.load_suite("tiny")[0]
    rows = [engine.target_row(e) for e in (*task.test[:3], *MIXED_EXAMPLES[:1])]
    weights = drawn(len(rows), std=1.0)
    limits = [5, 1, 4, 2]  # rows finish at different steps
    together = engine.greedy(Prompt(adapters=weights), rows, limits)
    one_by_one = zip(weights, rows, limits, strict=True)
    alone = [engine.greedy(Prompt(adapters=w[None]), [row], [most])[0] for w, row, most in one_by_one]
    assert together == alone
    empty = FixedPrompt(of.embedding[None, :0])(torch.zeros(len(rows), dtype=int))
    assert together[0] and together != engine.greedy(empty, rows, limits)
    model = load("tiny-causal", dtype="float64").model
    for i, (name, layer) in enumerate((n, y) for y in model.model.layers for n in ("self_attn", "mlp")):
        down, up = weights[0, i]
        setattr(layer, name, Behind(getattr(layer, name), down, up.T))
    ids = [*rows[0].text, *of.tokenizer("Answer:", add_special_tokens=False).input_ids]
    for _ in range(5):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    said = of.tokenizer.decode(ids[-5:], skip_special_tokens=True).strip()
    assert said.split("\n")[0].strip().startswith(together[0])


@pytest.mark.parametrize("layout", ["text-prompt-answer", LAYOUT])
@pytest.mark.parametrize("dtype", ["float64", "mixed"])
def test_they_reach_the_whole_text_in_every_layout(layout, dtype):
    of, examples = backbone("tiny-causal", dtype), MIXED_EXAMPLES
    engine, weights = Engine(of, layout), drawn(len(examples))
    engine.keep_contexts([examples])  # texts that were read without adapters must not be used
    rows = rows_of(engine)
    found, _ = engine.log_likelihoods(Prompt(adapters=weights), rows)
    words = [] if layout != LAYOUT else of.tokenizer("Answer:", add_special_tokens=False).input_ids
    near = 1e-9 if dtype == "float64" else 0.5
    for mine, w, row in zip(found, weights, rows, strict=True):
        assert torch.allclose(
            mine[: len(row.answers)].double(), plain("tiny-causal", w, row, words), atol=near
        )
    with pytest.raises(ValueError, match="rows from Engine.share are scored without a prompt"):
        engine.log_likelihoods(Prompt(adapters=weights[:1]), [replace(rows[0], shared=1)])


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_places_of_causal_models(name):
    model = families.model(name)
    found = find_blocks(model)
    assert len(found) == 2 * model.config.num_hidden_layers == len(set(found))


def test_wrong_uses_are_named():
    with pytest.raises(
        ValueError, match=r"BertModel has 2 layers, but 0 of its blocks .* use a Llama, Qwen or GPT-2"
    ):
        find_blocks(families.model("bert"))
    of = backbone("tiny-causal", "float64")
    blocks = find_blocks(of.model)
    with pytest.raises(ValueError, match=f"for 1 blocks were given; the model has {len(blocks)}"):
        with adapters_after(blocks, drawn(1)[:, :1]):
            pass
    with pytest.raises(ValueError, match="with adapters has no embeds or keys_values"):
        Prompt(torch.zeros(1, 2, 8), adapters=drawn(1))
    seq2seq = Engine(backbone("tiny-seq2seq", "float32"))
    with pytest.raises(ValueError, match="adapters need an Engine with a causal model"):
        seq2seq.log_likelihoods(Prompt(adapters=drawn(4)), rows_of(seq2seq))
    with pytest.raises(
        ValueError, match=r"init has shape \(2, 4, 3, 8, 2\); give \[runs, blocks, 2, width, r"
    ):
        SoftPrompt(torch.zeros(2, 4, 3, 8, 2), "adapters")
    for wrong in ({"rank": 0}, {"up": 0.0}, {"blocks": 0}):
        with pytest.raises(ValueError, match="HyperAdapters needs"):
            HyperAdapters(
                **{"intrinsic_dim": 2, "blocks": 4, "width": 8, "rank": 2, **wrong},
                generator=torch.Generator(),
            )
    with pytest.raises(ValueError, match="AdapterConfig needs rank >= 1 and up > 0, got 0 and 0.1"):
        AdapterConfig(FitConfig(), FitConfig(), rank=0)
    study = Study(scales.load("smoke"))
    with pytest.raises(ValueError, match="scale 'smoke' has no adapters; give their sizes"):
        adapters.subspace(study, 2)


# ---- the subspace ----------------------------------------------------------------------------------
def test_weights_are_z_times_the_hyper_matrices():
    """As in the paper: z^T A_l, A_l [d_I, d r]; its sizes have 589,824 parameters for each of d_I rows."""
    made = HyperAdapters(4, 6, 8, 2, torch.Generator().manual_seed(0))
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    found = made.decode(z)
    assert found.shape == (3, 6, 2, 8, 2)
    for place in range(6):
        for half in range(2):
            A = made.A[:, place, half].reshape(4, 16)
            assert torch.allclose(found[:, place, half], (z @ A).view(3, 8, 2), atol=1e-6)
    paper = HyperAdapters(1, 24, 768, 16, torch.Generator())
    assert paper.A.numel() == 589824
    spread = made.A.detach().std((0, 1, 3, 4)) * 8**0.5
    assert spread[0] == pytest.approx(1, abs=0.2) and spread[1] == pytest.approx(0.1, abs=0.02)
    assert float(made.z.detach().norm()) == pytest.approx(1)


def test_where_ist_starts_and_its_unit():
    made = HyperAdapters(4, 6, 8, 2, torch.Generator().manual_seed(0))
    source = IntrinsicPrompt(made, 3)
    assert torch.allclose(source.center, made.z[0].detach())
    assert torch.allclose(source.scale, torch.full((4,), 0.5)), "|z| / sqrt(d_I)"
    start = source(torch.tensor([0, 2])).adapters
    assert torch.allclose(start, made.decode(made.z).detach().expand_as(start), atol=1e-6)
    assert torch.equal(made(torch.tensor([2])).adapters, made(torch.tensor([0])).adapters), "one for all"


def test_training_with_one_z_changes_the_hyper_matrices_along_it():
    of = backbone("tiny-causal", "float64")
    engine, seen = Engine(of, LAYOUT), suites.load_suite("tiny")
    sizes = len(find_blocks(of.model)), of.width, RANK
    source = HyperAdapters(4, *sizes, torch.Generator().manual_seed(0)).double()
    runs = [Run(t) for t in seen]
    made = source(torch.arange(len(runs)))
    rows = [engine.target_row(run.examples[0]) for run in runs]
    leaf = made.detached()
    losses = trainer.losses_of(engine, leaf, rows, list(range(len(rows))), 1 / len(runs))
    made.backward(leaf)
    gradient = source.A.grad.flatten(1)
    z = source.z.detach()[0]
    along = z[:, None] * (z @ gradient) / z.square().sum()
    assert torch.allclose(gradient, along, atol=1e-12) and gradient.norm() > 0, "rank one, along z"
    assert (source.z.grad != 0).all() and torch.isfinite(losses).all()


def test_adapters_of_every_run_train_as_if_alone():
    of = backbone("tiny-causal", "float64")
    engine, on = Engine(of, LAYOUT), suites.load_suite("tiny")[:2]
    config = FitConfig(steps=4, rows_per_run=2, lr=0.05, evaluations=1)
    start = drawn(2, std=0.05)
    both, runs = SoftPrompt(start, "adapters"), [Run(t) for t in on]
    before = trainer.dev_scores(engine, both, runs, 8)[:, 1]
    trainer.fit(engine, both, runs, config)
    for i, run in enumerate(runs):
        one = SoftPrompt(start[i : i + 1], "adapters")
        trainer.fit(engine, one, [run], config)
        assert torch.allclose(one.P[0], both.P[i], atol=1e-9)
    assert (trainer.dev_scores(engine, both, runs, 8)[:, 1] > before).all()
    assert len(evaluation.evaluate(engine, both, on, limit=4)) == 2


# ---- the study -------------------------------------------------------------------------------------
FIT = FitConfig(steps=3, rows_per_run=2, lr=0.01, evaluations=1, dev_examples=4)


def small(**changes):
    scale = scales.load("smoke", seeds=(0,), dims=(2,), main_dim=2, test_examples=4, controls=())
    of = Study(replace(scale, adapters=AdapterConfig(FIT, FIT, rank=2), **changes))
    of.backbone = backbone("tiny-causal", "float32")
    return of


def test_a_study_with_adapters(monkeypatch):
    of, before = small(), fingerprint(backbone("tiny-causal", "float32").model)
    every = of.jobs(Costs(of))
    added = ["adapters-2", *(f"adapter-codes-{name}-2" for name in ("learned", "around", "random"))]
    assert [job.name for job in every[-4:]] == added and all(job.flops > 0 for job in every[-4:])
    assert [job.needs for job in every[-4:]] == [(), ("adapters-2",), ("adapters-2",), ()]
    read, through, known = [], [], trainer.fit

    def fit(engine, source, runs, *rest):
        read.append([(run.task.id, run.data) for run in runs])
        through.append(getattr(source, "decoder", None))
        return known(engine, source, runs, *rest)

    monkeypatch.setattr(trainer, "fit", fit)
    for job in every[-4:]:
        job.make()
    seen, unseen = ([(t, data) for t in ids] for ids, data in ((of.seen, "train"), (of.unseen, "train_new")))
    assert read == [seen, unseen, unseen, unseen]
    found, untrained = adapters.subspace(of, 2)[0], adapters.drawn(of, 2)
    _, learned, around, random = through
    assert torch.equal(learned.A, found.A) and torch.equal(random.A, untrained.A)
    assert torch.allclose(around.decode(untrained.z), found.decode(found.z), atol=1e-6)
    step = torch.tensor([[0.5, -0.25]])
    moved = around.decode(untrained.z + step) - around.decode(untrained.z)
    assert torch.allclose(moved, untrained.decode(step), atol=1e-6) and moved.abs().max() > 0
    rows = of.table()
    methods = (adapters.SHARED, *adapters.METHODS.values())
    found = [r for r in rows if r["method"] in methods]
    assert Counter((r["method"], r["d_I"], r["split"]) for r in found) == {
        (m, 2, "unseen"): len(of.unseen) for m in methods
    }
    assert fingerprint(of.backbone.model) == before
    assert len(summary.summary(rows, [(m, 2) for m in methods])) == 4
    hyper, step = adapters.subspace(of, 2)
    assert step.was_cached and adapters.codes(of, 2, "random").was_cached
    assert not torch.equal(hyper.A, untrained.A)
    other = small()
    other.scale = replace(of.scale, adapters=replace(of.scale.adapters, up=0.2))
    assert not adapters.codes(other, 2, "random").was_cached, "other sizes, another step"
    u = adapters.codes(of, 2).tensors["u"]
    assert u.shape == (len(of.unseen), 2) and (u != 0).any()
    with pytest.raises(ValueError, match="decoder 'pca' is unknown; choose one of learned, around, random"):
        adapters.codes(of, 2, "pca")


def test_rates_of_adapters_are_compared_on_dev():
    cells = learning_rates.measure(small(), 3.0, ("adapters",))
    names = [(c["method"], round(c["lr"], 4), c["tasks"]) for c in cells]
    rates, half = (0.0033, 0.01, 0.03), len(small().seen) // 2
    methods = ("adapters (MSF)", "IST, adapters", "random around shared", "random adapters")
    assert names == [(m, lr, half) for m in methods for lr in rates]
    assert all(c["dev_loss"] > 0 for c in cells)
    with pytest.raises(ValueError, match="scale 'smoke' has no adapters"):
        learning_rates.measure(Study(scales.load("smoke")), 3.0, ("adapters",))


def test_a_scale_with_adapters():
    sizes = {"rank": 4, "msf": {"steps": 2}, "ist": {"steps": 3}}
    made = scales.load("smoke", adapters=sizes).adapters
    assert made == AdapterConfig(FitConfig(steps=2), FitConfig(steps=3), rank=4)
    other = Study(replace(scales.load("smoke"), adapters=made, backbone="tiny-seq2seq"))
    with pytest.raises(ValueError, match=r"and adapters are for causal models, .* adapters=None"):
        other.jobs()
    chosen = scales.variant("smoke", split="random", dims=(2,), only_unseen=True)
    assert chosen.adapters is None
