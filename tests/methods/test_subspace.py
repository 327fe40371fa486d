import dataclasses

import pytest
import torch
from stock import another, backbone

from iptkit.engine.engine import Engine
from iptkit.methods import subspace
from iptkit.methods.subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig
from iptkit.scores import evaluation
from iptkit.storage import tensor_files
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.adam import RunAdam
from iptkit.training.runs import FitConfig, Run, draw

NAMES = ["tiny-mood", "tiny-pick", "tiny-plural", "tiny-sum"]
SHORT = FitConfig(steps=4, rows_per_run=2, lr=0.05, evaluations=1, dev_examples=2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def bank():
    return torch.randn(4, 3, 32, generator=seeded(1)) + 2.0


@pytest.fixture(scope="module")
def runs():
    return [Run(t) for t in suites.load_suite("tiny", only=NAMES, max_test=4)]


@pytest.fixture
def engine():
    return Engine(backbone("tiny-causal", "float32"))


# ---- sizes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("intrinsic_dim", "total"),
    [
        (3, 59_292_675),
        (5, 59_447_813),
        (10, 59_835_658),
        (50, 62_938_418),
        (100, 66_816_868),
        (250, 78_452_218),
    ],
)
def test_numbers_of_the_papers_auto_encoders(intrinsic_dim, total):
    """BART-base, 100 prompt tokens of width 768, hidden 768: the sizes of the released checkpoints."""
    assert subspace.num_parameters(intrinsic_dim, 100 * 768)["total"] == total


def test_a_built_auto_encoder_has_that_many_numbers(bank):
    built = AutoEncoder(bank, SubspaceConfig(5, 7), seeded())
    counts = subspace.num_parameters(5, 3 * 32, hidden=7)
    assert sum(p.numel() for p in built.parameters()) == counts["total"]
    assert sum(p.numel() for p in built.encoder.parameters()) == counts["encoder"]
    assert sum(p.numel() for p in built.decoder.parameters()) == counts["decoder"] == 5 * 7 + 7 + 7 * 96 + 96


# ---- on disk -------------------------------------------------------------------------------------
def test_a_subspace_is_read_as_it_was_written(bank, tmp_path):
    built = AutoEncoder(bank, SubspaceConfig(2, 6), seeded())
    built.load_state_dict({name: value * 1.5 for name, value in built.state_dict().items()})
    subspace.save(built, tmp_path / "a.safetensors", {"tasks": ["x"]})
    read = subspace.load(tmp_path / "a.safetensors")
    assert read.config == built.config and read.about == {"tasks": ["x"]}
    assert not any(p.requires_grad for p in read.parameters())
    z = torch.randn(3, 2, generator=seeded())
    assert torch.equal(read.decode(z), built.decode(z)) and torch.equal(read.codes(), built.codes())
    assert torch.equal(read.encode(bank), built.encode(bank))


def test_what_is_no_subspace_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no subspace at .*none.safetensors"):
        subspace.load(tmp_path / "none.safetensors")
    tensor_files.write(tmp_path / "other.safetensors", {"u-5": torch.zeros(2)})
    with pytest.raises(ValueError, match="other.safetensors was not written by subspace.save: it holds u-5"):
        subspace.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("is_old", [False, True])
def test_a_file_says_which_kind_of_prompts_its_subspace_is_of(tmp_path, is_old):
    """Files of earlier versions do not name the kind; the shape of a deep prompt shows it."""
    file, deep = tmp_path / "a.safetensors", torch.randn(4, 3, 2, 2, 5, 8, generator=seeded())
    for bank, kind in ((deep, "keys_values"), (deep.flatten(1, 3).flatten(2), "embeds")):
        subspace.save(AutoEncoder(bank, SubspaceConfig(2, 6), seeded(), kind), file)
        tensors, about = tensor_files.read(file)
        assert about.pop("kind") == kind
        if is_old:
            tensor_files.write(file, tensors, about)
        read = subspace.load(file)
        assert read.kind == kind and "kind" not in read.about
        prompt = IntrinsicPrompt(read, 1)(torch.tensor([0]))
        assert getattr(prompt, kind).shape[1:] == bank.shape[1:]


def test_a_string_is_a_path(bank, tmp_path):
    subspace.save(AutoEncoder(bank, SubspaceConfig(2, 6), seeded()), f"{tmp_path}/a.safetensors")
    assert subspace.load(f"{tmp_path}/a.safetensors").config.hidden == 6


def header(**changes):
    return lambda tensors, about: (tensors, about | changes)


def tensor(name, change):
    return lambda tensors, about: (tensors | {name: change(tensors[name])}, about)


CONFIG = {"intrinsic_dim": 2, "hidden": 6, "recon_weight": 1.0, "task_weight": 1.0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (header(shape=[3, 10**9]), r"D 3000000000\): flat \[4, 96\], \[4, 3000000000\] needed; mean"),
        (header(shape=[3, 33]), r"flat \[4, 96\], \[4, 99\] needed"),
        (header(shape=[96]), r"does not describe a subspace: .*prompts of shape \[96\]"),
        (header(kind="words"), "does not describe a subspace: .*kind 'words'"),
        (header(kind="keys_values"), "does not describe a subspace: .*kind 'keys_values'"),
        (header(shape=[3, -32]), "does not describe a subspace"),
        (header(shape="3x32"), "does not describe a subspace"),
        (
            header(config=CONFIG | {"hidden": 10**9}),
            r"decoder.inner.weight \[6, 2\], \[1000000000, 2\] needed",
        ),
        (header(config=CONFIG | {"intrinsic_dim": 3}), r"encoder.weight \[2, 96\], \[3, 96\] needed"),
        (header(config=CONFIG | {"hidden": 6.0}), "does not describe a subspace"),
        (
            header(config=CONFIG | {"depth": 2}),
            "does not describe a subspace: .*unexpected keyword argument 'depth'",
        ),
        (header(config=CONFIG | {"task_weight": "x"}), "does not describe a subspace"),
        (header(config=[5, 256]), "does not describe a subspace"),
        (tensor("decoder.outer.bias", lambda t: t[:-1]), r"decoder.outer.bias \[95\], \[96\] needed"),
        (tensor("encoder.weight", lambda t: t.T), r"encoder.weight \[96, 2\], \[2, 96\] needed"),
        (tensor("std", lambda t: t[None]), r"std \[1\], \[\] needed"),
        (tensor("flat", lambda t: t[0]), "flat"),
        (tensor("flat", lambda t: t[:1]), "a bank of fewer than 2 prompts"),
        (tensor("mean", lambda t: t / 0), "mean not finite"),
        (lambda tensors, about: ({"flat": tensors["flat"]}, about), "encoder.weight missing"),
        (lambda tensors, about: (tensors | {"more": torch.ones(2)}, about), r"more \[2\], \[\] needed"),
    ],
)
def test_a_subspace_whose_parts_do_not_fit_is_refused(bank, tmp_path, change, told):
    """One of them is a small file that describes a subspace of gigabytes, which must not be allocated."""
    file = tmp_path / "a.safetensors"
    subspace.save(AutoEncoder(bank, SubspaceConfig(2, 6), seeded()), file)
    tensors, about = change(*tensor_files.read(file))
    tensor_files.write(file, tensors, about)
    with pytest.raises(ValueError, match=f"a.safetensors.*{told}"):
        subspace.load(file)


# ---- what it was made for ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def found(runs, tmp_path_factory):
    """The file of a subspace that was found with tiny-causal."""
    engine = Engine(backbone("tiny-causal", "float32"))
    prompts = torch.randn(4, 3, 32, generator=seeded(1))
    autoencoder, _ = subspace.find(engine, prompts, runs, SubspaceConfig(2, 6), SHORT, seeded())
    file = tmp_path_factory.mktemp("subspace") / "found.safetensors"
    subspace.save(autoencoder, file, {"tasks": NAMES})
    return file


def test_a_file_says_what_the_subspace_was_made_for(found):
    model = backbone("tiny-causal", "float32")
    about = subspace.load(found).about
    assert about.keys() >= {"method", "training", "data"}
    expected = {
        "engine": "Engine",
        "backbone": "tiny-causal",
        "fingerprint": model.fingerprint,
        "width": 32,
        "layout": "text-prompt-answer",
        "prompt_length": 3,
        "tasks": NAMES,
    }
    assert {name: about[name] for name in expected} == expected


def test_it_serves_its_model_in_another_dtype_and_under_another_name(found, runs):
    model = dataclasses.replace(backbone("tiny-causal", "float64"), name="some/folder")
    _, result = subspace.tune(Engine(model), subspace.load(found), runs, SHORT)
    assert result.losses.isfinite().all()


@pytest.mark.parametrize(
    ("engine_of", "told"),
    [
        (
            lambda: Engine(another("tiny-causal", "float32")),
            "this AutoEncoder does not fit: it was made for the model tiny-causal, this is another-tiny",
        ),
        (
            lambda: Engine(dataclasses.replace(another("tiny-causal", "float32"), name="tiny-causal")),
            "made for the model tiny-causal with other weights, this is tiny-causal",
        ),
        (
            lambda: Engine(backbone("tiny-causal", "float32"), (3, "{text}")),
            "made for the layout 'text-prompt-",
        ),
        (lambda: Engine(backbone("tiny-seq2seq", "float32")), "model tiny-causal, this is tiny-seq2seq"),
    ],
)
def test_a_subspace_of_another_model_is_refused_before_anything_runs(
    found, runs, monkeypatch, engine_of, told
):
    engine, autoencoder = engine_of(), subspace.load(found)
    monkeypatch.setattr(Engine, "keep_contexts", None)  # nothing is read
    monkeypatch.setattr(trainer, "train_step", None)
    for use in (
        lambda: subspace.tune(engine, autoencoder, runs, SHORT),
        lambda: evaluation.evaluate(engine, subspace.mean_code(autoencoder, 1), [runs[0].task]),
        lambda: evaluation.evaluate(engine, IntrinsicPrompt(autoencoder, 1), [runs[0].task]),
    ):
        with pytest.raises(ValueError, match=told.replace("this AutoEncoder", "this [A-Za-z]+")):
            use()


def test_what_an_older_file_says_is_compared(bank, engine, runs, tmp_path):
    """Files of earlier versions name their model only."""
    autoencoder = AutoEncoder(bank, SubspaceConfig(2, 6), seeded())
    subspace.save(autoencoder, tmp_path / "a.safetensors", {"backbone": "tiny-causal"})
    subspace.tune(engine, subspace.load(tmp_path / "a.safetensors"), runs, SHORT)
    subspace.save(autoencoder, tmp_path / "b.safetensors", {"backbone": "smollm2-135m"})
    with pytest.raises(ValueError, match="made for the model smollm2-135m, this is tiny-causal"):
        subspace.tune(engine, subspace.load(tmp_path / "b.safetensors"), runs, SHORT)
    assert subspace.load_stored().about["backbone"] == "smollm2-135m"


def test_another_width_or_length_is_refused_before_anything_runs(bank, engine, runs, monkeypatch):
    monkeypatch.setattr(trainer, "train_step", None)
    wide = torch.randn(4, 3, 64, generator=seeded(1))
    told = r"does not fit tiny-causal \(width of its vectors 64, 32 needed\): it was made for another model"
    with pytest.raises(ValueError, match=told):
        subspace.find(engine, wide, runs, SubspaceConfig(2, 6), SHORT, seeded())
    autoencoder = AutoEncoder(wide, SubspaceConfig(2, 6), seeded())
    with pytest.raises(ValueError, match=told):
        subspace.tune(engine, autoencoder, runs, SHORT)
    with pytest.raises(ValueError, match=r"shape \(4, 3, 32\) were given to a subspace of prompts \(3, 64\)"):
        autoencoder.encode(bank)
    fixed = Engine(engine.backbone, (2, "{text}", 2))
    with pytest.raises(ValueError, match="the prompt has 3 vectors, but the layout .* has places for 4"):
        subspace.tune(fixed, AutoEncoder(bank, SubspaceConfig(2, 6), seeded()), runs, SHORT)


# ---- the auto-encoder ------------------------------------------------------------------------------
def test_encoder_and_decoder_are_the_papers_formulas(bank):
    built = AutoEncoder(bank, SubspaceConfig(2, 6), seeded())
    weights = {k: v.double() for k, v in built.state_dict().items()}
    flat = bank.flatten(1).double()
    mean = flat.mean(0)
    std = ((flat - mean) ** 2).mean().sqrt()
    z = (flat - mean) / std @ weights["encoder.weight"].T + weights["encoder.bias"]
    inner = torch.tanh(z @ weights["decoder.inner.weight"].T + weights["decoder.inner.bias"])
    out = inner @ weights["decoder.outer.weight"].T + weights["decoder.outer.bias"]
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(built.encode(bank).double(), z, **close)
    torch.testing.assert_close(built.codes().double(), z, **close)
    torch.testing.assert_close(
        built.decode(built.encode(bank)).double(), (mean + std * out).view(4, 3, 32), **close
    )
    expected = ((out - (flat - mean) / std) ** 2).mean().item()
    assert built.reconstruction().item() == pytest.approx(expected, rel=1e-4)


def test_rows_of_one_task_share_its_prompt(bank):
    built = AutoEncoder(bank, SubspaceConfig(2, 6), seeded())
    found = built(torch.tensor([2, 0, 2])).embeds
    expected = built.decode(built.encode(bank))
    torch.testing.assert_close(found, expected[[2, 0, 2]])


def test_reconstruction_of_the_mean_prompt_is_one(bank):
    """The prompts are standardised over the bank, so an untrained auto-encoder has about 1.0."""
    built = AutoEncoder(bank * 3 - 1, SubspaceConfig(2, 6, recon_weight=0.5), seeded())
    with torch.no_grad():
        built.decoder.outer.weight.zero_()
        built.decoder.outer.bias.zero_()
    assert built.reconstruction().item() == pytest.approx(1.0, rel=1e-5)
    assert built.penalty().item() == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(built.decode(torch.zeros(1, 2))[0], (bank * 3 - 1).mean(0))


def test_weights_follow_the_generator(bank):
    first, same, other = (AutoEncoder(bank, SubspaceConfig(2, 6), seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first.encoder.weight, same.encoder.weight)
    assert torch.equal(first.decoder.outer.bias, same.decoder.outer.bias)
    assert not torch.equal(first.encoder.weight, other.encoder.weight)
    assert first.encoder.weight.abs().max() <= 96**-0.5 < 1.05 * first.encoder.weight.abs().max()


# ---- errors ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"intrinsic_dim": 0}, "intrinsic_dim >= 1 and hidden >= 1, got 0 and 256"),
        ({"hidden": 0}, "got 5 and 0"),
        ({"recon_weight": -1.0}, "must be >= 0 and not both 0, got -1.0 and 1.0"),
        ({"recon_weight": 0.0, "task_weight": 0.0}, "got 0.0 and 0.0"),
    ],
)
def test_config_errors(given, told):
    with pytest.raises(ValueError, match=told):
        SubspaceConfig(**given)


def test_a_missing_prompt_is_an_error(bank, engine, runs):
    missing = bank.clone()
    missing[1, 2, 5] = torch.nan
    missing[3] = torch.inf
    for use in (lambda b: AutoEncoder(b, SubspaceConfig(), seeded()), lambda b: subspace.mean_prompt(b, 2)):
        with pytest.raises(
            ValueError, match=r"prompts of tasks \[1, 3\] are missing.*train them with prompt tuning"
        ):
            use(missing)
        with pytest.raises(
            ValueError, match=r"bank has shape \(3, 32\); give \[runs, prompt_length, width\]"
        ):
            use(bank[0])
    with pytest.raises(
        ValueError, match="bank holds 3 prompts, but 4 tasks were given; train the missing prompts"
    ):
        subspace.find(engine, bank[:3], runs, SubspaceConfig(), SHORT, seeded())


# ---- MSF -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("recon", "task"), [(1.0, 1.0), (0.3, 2.0), (1.0, 0.0), (0.0, 1.0)])
def test_the_objective_is_the_mean_task_loss_plus_reconstruction(
    bank, engine, runs, monkeypatch, recon, task
):
    config = SubspaceConfig(2, 6, recon_weight=recon, task_weight=task)
    gradients = {}
    step = RunAdam.step

    def recorded(self, rate):
        gradients.update({k: p.grad.clone() for k, p in self.parameters.items()})
        step(self, rate)

    monkeypatch.setattr(RunAdam, "step", recorded)
    one = FitConfig(steps=1, rows_per_run=3, evaluations=1, dev_examples=1)
    _, result = subspace.find(engine, bank, runs, config, one, seeded())

    expected = AutoEncoder(bank, config, seeded())
    losses = []
    for r, run in enumerate(runs):
        rows = [engine.target_row(e) for e in draw(run, 0, 3)]
        scores, tokens = engine.log_likelihoods(expected(torch.tensor([r] * 3)), rows)
        losses.append(-scores.sum() / tokens.sum())
    mean = torch.stack(losses).mean()
    (task * mean + recon * expected.reconstruction()).backward()
    for name, p in expected.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-3, atol=1e-6)
    reported = [x.item() if task else torch.nan for x in losses]
    assert result.losses[0].tolist() == pytest.approx(reported, rel=1e-5, nan_ok=True)
    assert result.penalty[0].item() == pytest.approx(recon * expected.reconstruction().item(), rel=1e-5)


@pytest.mark.parametrize(("lr", "warmup"), [(0.05, 0.1), (0.5, 0.9)])
def test_reconstruction_alone_is_what_fit_trains_and_reads_nothing(
    bank, engine, runs, monkeypatch, lr, warmup
):
    """With the rising rate, the best of the evaluated steps is not the last one."""
    config = SubspaceConfig(2, 6, recon_weight=0.7, task_weight=0.0)
    long = FitConfig(steps=12, rows_per_run=1, lr=lr, warmup=warmup, clip=0.1, evaluations=5)
    expected = AutoEncoder(bank, config, seeded())
    theirs = trainer.fit(engine, expected, runs, long)
    monkeypatch.setattr(Engine, "log_likelihoods", None)
    found, mine = subspace.find(engine, bank, runs, config, long, seeded())
    for (name, p), (_, q) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    assert torch.equal(mine.penalty, theirs.penalty) and torch.equal(mine.best_step, theirs.best_step)
    assert found.about == expected.about and bool((mine.best_step < 12).all()) == (lr == 0.5)
    assert mine.seconds > 0 and mine.cpu_seconds > 0 and mine.resumed_at == 0
    for ours, other in ((mine.losses, theirs.losses), (mine.dev, theirs.dev)):
        assert ours.shape == other.shape and ours.dtype == other.dtype and ours.isnan().all()


def test_the_reconstruction_of_each_prompt(bank):
    """On the bank their mean is the reconstruction, and that of the mean prompt is 1."""
    built = AutoEncoder(bank, SubspaceConfig(2, 6), seeded())
    errors = subspace.reconstruction_of(built, bank)
    assert errors.shape == (4,) and not errors.requires_grad
    assert errors.mean().item() == pytest.approx(built.reconstruction().item(), rel=1e-5)
    unseen = torch.randn(2, 3, 32, generator=seeded(3)) + 2.0
    by_hand = (built.decode(built.encode(unseen)) - unseen).square().mean((1, 2)) / built.std**2
    torch.testing.assert_close(subspace.reconstruction_of(built, unseen), by_hand)
    with torch.no_grad():
        built.decoder.outer.weight.zero_()
        built.decoder.outer.bias.zero_()
    assert subspace.reconstruction_of(built, bank).mean().item() == pytest.approx(1.0, rel=1e-5)
    assert subspace.reconstruction_of(built, bank.mean(0, keepdim=True)).item() == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"prompts of shape \(4, 2, 32\) were given"):
        subspace.reconstruction_of(built, bank[:, :2])


def test_as_many_dimensions_as_prompts_keep_them_all(bank, engine, runs):
    """T <= d_I: the auto-encoder can be the identity on the bank."""
    config = SubspaceConfig(5, 32, task_weight=1e-3)
    long = FitConfig(steps=250, rows_per_run=1, lr=0.02, evaluations=1, dev_examples=1)
    found, result = subspace.find(engine, bank, runs, config, long, seeded())
    assert result.penalty[0] > 0.9
    assert found.reconstruction().item() < 1e-3
    torch.testing.assert_close(found.decode(found.encode(bank)), bank, rtol=0, atol=0.15)


def test_finding_is_repeatable(bank, engine, runs):
    first, second = (
        subspace.find(engine, bank, runs, SubspaceConfig(2, 6), SHORT, seeded())[0] for _ in "ab"
    )
    for (name, p), (_, q) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(p, q), name


# ---- IST -------------------------------------------------------------------------------------------
def test_ist_trains_exactly_d_i_numbers_per_run(bank, engine, runs):
    decoder = AutoEncoder(bank, SubspaceConfig(5, 16), seeded())
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    source, result = subspace.tune(engine, decoder, [*runs, runs[0]], SHORT)
    trainable = [(name, tuple(p.shape)) for name, p in source.named_parameters() if p.requires_grad]
    assert trainable == [("u", (5, 5))]
    assert (source.u.abs().amax(1) > 0.01).all(), "every run moved"
    assert before.keys() == decoder.state_dict().keys()
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} of the frozen decoder moved"
    assert result.losses.shape == (4, 5)


def test_codes_are_measured_from_their_mean_in_their_spread(bank):
    decoder = AutoEncoder(bank, SubspaceConfig(3, 16), seeded())
    source = IntrinsicPrompt(decoder, 2)
    runs = torch.tensor([1, 0])
    untuned = subspace.mean_code(decoder, 2)(runs).embeds
    torch.testing.assert_close(source(runs).embeds, untuned)
    with torch.no_grad():
        source.u[1] = torch.tensor([1.0, 0.0, -2.0])
    codes = decoder.codes()
    expected = codes.mean(0) + codes.std(0) * torch.tensor([1.0, 0.0, -2.0])
    torch.testing.assert_close(source.z(runs)[0], expected)
    torch.testing.assert_close(source(runs).embeds[0], decoder.decode(expected[None])[0])
    torch.testing.assert_close(source(runs).embeds[1], untuned[1])


# ---- controls --------------------------------------------------------------------------------------
def test_mean_prompt_and_mean_code(bank):
    assert torch.equal(subspace.mean_prompt(bank, 2).P, bank.mean(0).expand(2, -1, -1))
    built = AutoEncoder(bank, SubspaceConfig(2, 6), seeded())
    source = subspace.mean_code(built, 3)
    assert source.P.shape == (3, 3, 32) and list(source.parameters()) == []
    torch.testing.assert_close(source.P[2], built.decode(built.encode(bank).mean(0, keepdim=True))[0])


def test_the_random_decoder_is_centred_and_scaled_by_the_bank(bank):
    control = subspace.random_autoencoder(bank, SubspaceConfig(3, 64), seeded())
    start = IntrinsicPrompt(control, 1)(torch.tensor([0])).embeds[0]
    torch.testing.assert_close(start, bank.mean(0), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        decoded = control.decode(control.codes())
    spread = (decoded - decoded.mean(0)).square().sum(0).div(3).mean().sqrt()
    assert spread.item() == pytest.approx(control.std.item(), rel=1e-4)
    plain = AutoEncoder(bank, SubspaceConfig(3, 64), seeded())
    assert torch.equal(control.decoder.inner.weight, plain.decoder.inner.weight), "no direction was learned"


def test_a_pointer_and_a_cut_file_are_no_subspace(bank, tmp_path):
    file = tmp_path / "a.safetensors"
    subspace.save(AutoEncoder(bank, SubspaceConfig(2, 6), seeded()), file)
    whole = file.read_bytes()
    for data, told in (
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "is a Git LFS pointer.*git lfs pull"),
        (whole[:-9], "is damaged"),
        (b"", "is damaged"),
    ):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"a.safetensors {told}"):
            subspace.load(file)
