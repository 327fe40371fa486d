"""Every method on a pretended GPU: what it computes, where its tensors lie, how often the host waits."""

import itertools
from collections import Counter

import methods
import pretend
import pytest
import torch
from stock import MIXED_EXAMPLES

from iptkit.engine.engine import Engine
from iptkit.engine.layouts import LAYOUTS
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import find_sites
from iptkit.methods import (
    adapters,
    baselines,
    fine_tuning,
    p_tuning,
    p_tuning_v2,
    prompt_tuning,
    subspace,
    word_search,
)
from iptkit.methods.baselines import FastfoodPrompt
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.methods.shares import rebuilt, without_family
from iptkit.models import backbone
from iptkit.models.devices import resolve_device
from iptkit.prompts import interchange
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, read_by
from iptkit.training.state import State
from iptkit.training.trainer import fit

SHORT = FitConfig(steps=4, rows_per_run=2, lr=0.02, evaluations=2, dev_examples=4)
DEVICES = ("cuda", "cuda:1")
EVERY = pytest.mark.parametrize(("model", "name", "make"), methods.ALL, ids=methods.IDS)


def tensors_of(source):
    return itertools.chain(source.parameters(), source.buffers())


def device_of(name):
    return torch.zeros(0, device=name).device


# ---- sources ---------------------------------------------------------------------------------------------
@EVERY
def test_a_source_lies_where_the_things_lie_that_it_is_made_from(model, name, make):
    _, source, _ = make(methods.load(model, "cuda:1"))
    assert {tensor.device for tensor in tensors_of(source)} == {device_of("cuda:1")}


BY_HAND = {  # sources of which no method of the list above asks for the device of every part
    "head": lambda b, model: WithHead(3, 4, 2, methods.seeded(), SoftPrompt(b)),
    "head, frozen prompt": lambda b, model: WithHead(3, 4, 2, methods.seeded(), prompt_tuning.FixedPrompt(b)),
    "shared": lambda b, model: SharedPrompt(SoftPrompt(b[:1]), 3, 4, 2, methods.seeded()),
    "none": lambda b, model: p_tuning.EncodedPrompt(b, "none", methods.seeded()),
    "without encoder": lambda b, model: p_tuning.EncodedPrompt(b, "mlp", methods.seeded()).without_encoder(),
    "mean code": lambda b, model: subspace.mean_code(methods._found(model), 3),
    "mean prompt": lambda b, model: subspace.mean_prompt(b, 3),
    "fastfood": lambda b, model: FastfoodPrompt(b[0], 0.1, 3, methods.seeded()),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_sources_and_controls_made_by_hand_do_too(name):
    model = methods.load("tiny-causal", "cuda:1")
    source = BY_HAND[name](methods.bank_of(model), model)
    assert {tensor.device for tensor in tensors_of(source)} == {device_of("cuda:1")}


def test_a_generator_of_a_gpu_serves_as_well():
    """Sources draw where the generator is, and lie where the model is."""
    model = methods.load("tiny-causal", "cuda:1")
    bank, sites = methods.bank_of(model), find_sites(model.model)
    for where in ("cpu", "cuda:0", "cuda:1"):
        generator = torch.Generator(where).manual_seed(0)
        made = [
            prompt_tuning.from_normal(model, 2, 0.02, generator),
            *tensors_of(p_tuning.EncodedPrompt(bank, "lstm", generator)),
            *tensors_of(p_tuning_v2.DeepPrompt(2, sites, 3, generator)),
            *tensors_of(subspace.AutoEncoder(bank, subspace.SubspaceConfig(2, 4), generator)),
            *tensors_of(FastfoodPrompt(bank[0], 0.1, 3, generator)),
            *tensors_of(baselines.random_around(methods._found(model), generator)),
            *tensors_of(baselines.fastfood_around(methods._found(model), generator)),
            *tensors_of(WithHead(3, 4, 2, generator, SoftPrompt(bank))),
        ]
        assert {tensor.device for tensor in made} == {device_of("cuda:1")}
        alone = [WithHead(3, 4, 2, generator), adapters.HyperAdapters(2, 2, 4, 1, generator)]
        assert {t.device for source in alone for t in tensors_of(source)} == {device_of(where)}


def test_shares_of_prompts_on_a_gpu():
    """methods/shares.py: planes and auto-encoders over a bank that lies on a GPU."""
    model = methods.load("tiny-causal", "cuda:1")
    bank = torch.cat([methods.bank_of(model), methods.bank_of(model) * 2])
    shares = without_family(bank, list("aabbcc"), [1, 2])
    on_cpu = without_family(bank.cpu(), list("aabbcc"), [1, 2])
    torch.testing.assert_close(shares.cpu(), on_cpu)
    assert rebuilt(methods._found(model), bank).device == shares.device == device_of("cuda:1")


# ---- training -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", DEVICES)
@EVERY
def test_training_gives_what_it_gives_on_a_cpu(model, name, make, device):
    """In float64: losses, scores and log-likelihoods, and everything that was trained."""
    found = {}
    for place in ("cpu", device):
        engine, source, runs = make(methods.load(model, place, "float64"))
        if "lengths" in name:
            source.dropout = 0.0  # whose random numbers are the device's own
        result = fit(engine, source.double(), runs, SHORT)
        outcomes = evaluation.outcomes(engine, source, [run.task for run in runs], limit=3)
        found[place] = [
            result.losses,
            result.penalty,
            result.dev,
            torch.tensor([(one.score, one.log_likelihood) for one in outcomes]),
            *source.state_dict().values(),
        ]
        assert {p.device for p in source.parameters()} == {device_of(place)}
    for expected, mine in zip(found["cpu"], found[device], strict=True):
        torch.testing.assert_close(mine.cpu(), expected, rtol=1e-5, atol=1e-6)


@EVERY
def test_a_step_waits_for_nothing_and_sixteen_wait_once(model, name, make):
    engine, source, runs = make(methods.load(model, "cuda"))
    config, steps = FitConfig(steps=40, rows_per_run=2), 32
    state = State(engine, source, runs, config)
    engine.keep_contexts(read_by(run, config) for run in runs)
    while state.step < 16:
        trainer.train_step(engine, state)
        state.step += 1
    with pretend.waits() as found:
        for _ in range(steps):
            state.step = state.step % config.steps
            trainer.train_step(engine, state)
            state.step += 1
    assert pretend.reads(found) <= steps // 16, found
    assert set(found) <= {"copy to cpu"}, found  # nothing sent is waited for either


def test_reconstruction_alone_gives_what_it_gives_on_a_cpu():
    config, found = subspace.SubspaceConfig(2, 8, task_weight=0.0), []
    for place in ("cpu", "cuda:1"):
        model = methods.load("tiny-causal", place)
        bank, runs = methods.bank_of(model), methods.runs_of(methods.WORDY)
        built, result = subspace.find(Engine(model), bank, runs, config, SHORT, methods.seeded())
        errors = subspace.reconstruction_of(built, bank)
        assert errors.device == device_of(place)
        found.append([result.penalty, errors.cpu(), *(p.detach().cpu() for p in built.parameters())])
    for expected, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_an_evaluation_on_dev_waits_once():
    engine, source, runs = methods.CAUSAL["IST"](methods.load("tiny-causal", "cuda"))
    engine.tokens_per_batch = 64
    engine.keep_contexts(run.task.dev for run in runs)
    with pretend.waits() as found:
        trainer.dev_scores(engine, source, runs, 8)
    assert pretend.reads(found) == 1, found


def test_a_search_for_words_waits_at_evaluations_only():
    model = methods.load("tiny-causal", "cuda")
    engine, runs = Engine(model), methods.runs_of(methods.WORDY)
    start = prompt_tuning.word_tokens(model, 3).expand(len(runs), -1).cpu()
    counts = []
    for steps in (4, 20):
        with pretend.waits() as found:
            word_search.search(
                engine, start, runs, word_search.SearchConfig(steps, 2, 3, evaluations=1, dev_examples=2)
            )
        counts.append(pretend.reads(found))
    assert counts[0] == counts[1], counts


@pytest.mark.parametrize("method", fine_tuning.METHODS)
def test_references_train_on_the_first_gpu_and_do_not_wait_at_each_step(method):
    """LoRA, fine-tuning and DID: transformers' Trainer and accelerate, PEFT."""
    task, counts, found = suites.load_task("tiny-mood", suite="tiny"), [], {}
    for place in ("cpu", "cuda"):
        model = methods.load("tiny-causal", place)
        more = {"intrinsic_dim": 2} if method == "DID" else {}
        found[place] = fine_tuning.fine_tune(model, task, method, 3, 2, 1e-2, 0, 8, split="dev", **more)
    assert found["cuda"].score == found["cpu"].score
    assert found["cuda"].dev_loss == pytest.approx(found["cpu"].dev_loss, rel=1e-3)
    for steps in (4, 20):
        with pretend.waits() as waits:
            fine_tuning.fine_tune(model, task, method, steps, 2, 1e-2, 0, 8, **more)
        counts.append(Counter(waits))
    assert pretend.reads(counts[1] - counts[0]) <= 1, counts  # of 16 steps


def test_a_reference_of_an_encoder_trains():
    model, task = methods.load("tiny-encoder", "cuda"), suites.load_task("tiny-mood", suite="tiny")
    assert 0 <= fine_tuning.fine_tune_encoder(model, task, 2, 2, 1e-2, 0, 8).score <= 1


def test_trainer_takes_the_first_gpu_only():
    model, task = methods.load("tiny-causal", "cuda:1"), suites.load_task("tiny-mood", suite="tiny")
    with pytest.raises(
        ValueError, match="the device is cuda:1, but transformers' Trainer .* takes the first visible GPU"
    ):
        fine_tuning.fine_tune(model, task, "LoRA", 2, 2, 1e-2, 0, 8)


@pytest.mark.parametrize("device", DEVICES)
def test_peft_agrees(device):
    model = methods.load("tiny-causal", device, "float64")
    ours, theirs = fine_tuning.compare_with_peft(model, MIXED_EXAMPLES, 3)
    torch.testing.assert_close(ours["loss"], theirs["loss"])
    torch.testing.assert_close(ours["gradient"], theirs["gradient"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_resumed_training_gives_what_an_uninterrupted_one_gives(device, tmp_path, monkeypatch):
    """A checkpoint is read back to the device; one of a CPU goes on on a GPU."""

    def parts(place):
        return methods.CAUSAL["P-Tuning v2, lengths"](methods.load("tiny-causal", place, "float64"))

    def stopped(place, path):
        engine, source, runs = parts(place)
        known, done = trainer.train_step, itertools.count(1)

        def one(*given):
            if next(done) > 2:
                raise KeyboardInterrupt
            return known(*given)

        monkeypatch.setattr(trainer, "train_step", one)
        with pytest.raises(KeyboardInterrupt):
            fit(engine, source.double(), runs, SHORT, path, checkpoint_seconds=-1.0)
        monkeypatch.setattr(trainer, "train_step", known)

    engine, source, runs = parts(device)
    whole = fit(engine, source.double(), runs, SHORT)
    for begun in (device, "cpu"):
        stopped(begun, tmp_path / f"{begun}.safetensors")
        engine, again, runs = parts(device)
        resumed = fit(engine, again.double(), runs, SHORT, tmp_path / f"{begun}.safetensors")
        assert resumed.resumed_at == 2 and {p.device for p in again.parameters()} == {device_of(device)}
        if begun == device:
            assert torch.equal(resumed.losses, whole.losses) and torch.equal(again.P, source.P)


# ---- models and scores ----------------------------------------------------------------------------------
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize("layout", [*LAYOUTS, ("{text}", 2, " Answer:", 1)])
def test_scores_and_answers_are_those_of_a_cpu(layout, dtype, device):
    scores, answers = {}, {}
    for place in ("cpu", device):
        model = methods.load("tiny-causal", place, dtype)
        engine = Engine(model, layout)
        rows = [engine.option_row(e) if e.options else engine.target_row(e) for e in MIXED_EXAMPLES]
        prompt = SoftPrompt(prompt_tuning.from_words(model, 3)[None])(
            torch.zeros(len(rows), dtype=torch.long, device=place)
        )
        scores[place] = engine.log_likelihoods(prompt, rows)[0].detach().cpu()
        answers[place] = engine.greedy(prompt, rows, [3, 4, 5, 6])
        if layout in LAYOUTS:
            nothing = Prompt(model.embedding[None, :0].expand(len(rows), 0, -1))
            torch.testing.assert_close(
                engine.log_likelihoods(nothing, engine.share(rows))[0],
                engine.log_likelihoods(nothing, rows)[0],
                rtol=0.05,
                atol=0.3 if dtype == "mixed" else 1e-3,
            )
    close = {"rtol": 0.05, "atol": 0.3} if dtype == "mixed" else {}
    torch.testing.assert_close(scores[device], scores["cpu"], **close)
    if dtype != "mixed":
        assert answers[device] == answers["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_texts_are_continued_as_on_a_cpu(name, device):
    """Drawn tokens too: the random numbers come from the generator, on its own device."""
    texts, runs = [e.input for e in MIXED_EXAMPLES], [1, 0, 1, 0]
    found = {}
    for place in ("cpu", device):
        model = methods.load(name, place)
        start = torch.stack(
            [prompt_tuning.from_words(model, 3, words) for words in ("a red fox", "ten tools")]
        )
        engine, source = Engine(model), SoftPrompt(start)
        given = {"runs": runs, "max_new_tokens": 5, "stop": "zzz"}
        drawn = {"do_sample": True, "top_p": 0.9, "generator": torch.Generator().manual_seed(0)}
        found[place] = [
            engine.generate(source, texts, **given),
            engine.generate(source, texts, **given, **drawn),
        ]
    assert found[device] == found["cpu"] and found["cpu"][0] != found["cpu"][1]


@pytest.mark.parametrize("device", DEVICES)
def test_a_kept_subspace_is_read_and_tuned_on_a_gpu(device, tmp_path):
    model = methods.load("tiny-causal", device)
    subspace.save(methods._found(model), tmp_path / "x.subspace.safetensors")
    found = subspace.load(tmp_path / "x.subspace.safetensors")
    source, _ = subspace.tune(Engine(model), found, methods.runs_of(methods.WORDY), SHORT)
    assert {t.device for t in tensors_of(source)} == {device_of(device)}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_a_prompt_goes_from_a_gpu_to_pefts_files_and_back(device, deep, tmp_path):
    model = methods.load("tiny-causal", device)
    sites = find_sites(model.model) if deep else []
    source = methods._own(model, sites, 2) if deep else methods._soft(model, sites, 2)
    engine = Engine(model, "prompt-text-answer", sites=sites)
    interchange.to_peft(source, tmp_path, engine, run=1)
    found = interchange.from_peft(tmp_path, engine)
    assert {t.device for t in tensors_of(found)} == {device_of(device)}
    for name, part in source.finished().tensors().items():
        torch.testing.assert_close(found.finished().tensors()[name], part[1:])


def test_the_fast_forwards_are_used_on_a_gpu():
    """What is tested here is the kit's own code, not transformers' in its place."""
    from iptkit.engine.fast.llama_forward import FlatForward
    from iptkit.engine.head_engine import HeadEngine

    assert isinstance(Engine(methods.load("tiny-causal", "cuda")).forward, FlatForward)
    assert HeadEngine(methods.load("tiny-encoder", "cuda")).flat is not None


def test_auto_takes_the_gpu():
    assert resolve_device("auto") == torch.device("cuda")
    assert backbone.load("tiny-causal", "auto").embedding.device == device_of("cuda:0")
    with pytest.raises(ValueError, match=r"device 'cuda:2' was asked for, but torch .* sees 2 GPU\(s\)"):
        resolve_device("cuda:2")
