"""MSF and IST on deep prompts: the same study with keys and values at every layer."""

from collections import Counter

import pytest
import torch
from stock import backbone

from iptkit.engine.engine import Engine
from iptkit.methods import prompt_tuning, subspace
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import summary
from iptkit.storage import step_cache
from iptkit.studies import codes, scales
from iptkit.studies.costs import Costs
from iptkit.studies.study import Study
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig, Run


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})


def study(dtype="float32", **changes):
    given = {"seeds": (0, 1), "dims": (2,), "main_dim": 2, "test_examples": 4, "deep": True, **changes}
    made = Study(scales.load("smoke", **given))
    made.backbone = backbone("tiny-causal", dtype)
    return made


def test_words_as_keys_and_values_are_those_words_before_the_text():
    of = study("float64")
    n, words = of.scale.prompt_length, prompt_tuning.word_tokens(of.backbone, of.scale.prompt_length)
    P = prompt_tuning.deep_from_words(of.backbone, n)
    assert P.shape[1] == 2 and P.shape[3] == n and P.dtype == torch.float64
    task = suites.load_suite("tiny")[0]
    rows = [of.engine.option_row(e) for e in task.test[:3]]
    found, _ = of.engine.log_likelihoods(
        FixedPrompt(P[None], "keys_values")(torch.zeros(3, dtype=torch.long)), rows
    )
    plain = Engine(of.backbone, ("{prompt}", "{text}", of.backbone.tokenizer.decode(words)))
    embeds = FixedPrompt(of.backbone.embedding[words][None])(torch.zeros(3, dtype=torch.long))
    expected, _ = plain.log_likelihoods(embeds, rows)
    assert found == pytest.approx(expected, abs=1e-6), "turned by angles in float32"


def test_every_entry_of_a_deep_prompt_trains_through_the_decoder():
    of = study("float64")
    runs = [Run(t, 0) for t in of.seen_tasks(0)]
    one = prompt_tuning.deep_from_words(of.backbone, of.scale.prompt_length)
    noise = torch.randn(len(runs), *one.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    bank = (one + noise).float()
    config = subspace.SubspaceConfig(3, 16)
    autoencoder = subspace.AutoEncoder(bank, config, torch.Generator().manual_seed(0), "keys_values").double()
    assert autoencoder.decode(autoencoder.encode(bank).double()).shape == bank.shape
    source = subspace.IntrinsicPrompt(autoencoder, len(runs))
    prompt = source(torch.arange(len(runs)))
    assert prompt.embeds is None and prompt.keys_values.shape == bank.shape
    prompt.keys_values.retain_grad()
    rows = [of.engine.target_row(run.examples[0]) for run in runs]
    scores, _ = of.engine.log_likelihoods(prompt, rows)
    scores[:, 0].sum().backward()
    assert (prompt.keys_values.grad.flatten(1) != 0).all(1).all(), "every number of every task's prompt"
    assert (source.u.grad != 0).all()
    assert all(p.grad is None for p in autoencoder.parameters())


def test_a_whole_study_of_deep_prompts():
    controls = ("random", "pca", "fastfood")
    of = study(same_data=True, nearest=True, stage_two_runs=1, fewer_examples=(2,), controls=controls)
    bank = of.bank().tensors["P"]
    sites = of.engine.sites
    h, k = sites[0].num_kv_heads, sites[0].head_width
    assert bank.shape == (2, len(of.ids), len(sites), 2, h, of.scale.prompt_length, k)
    assert len({float(row.sum()) for row in bank.flatten(0, 1)}) == 2 * len(of.ids), "each run its own"
    rows = of.table()
    counts = Counter(r["method"] for r in rows)
    assert counts["IST"] == 2 * len(of.ids) and counts["MSF"] == len(of.ids) and counts["stage two"] == 2
    assert summary.summary(rows, [("IST", 2), ("prompt tuning", 0)])
    _, walked = codes.walk(of, 2, of.ids[0], of.ids[-1], points=2)
    assert all(len(scores) == 2 for scores in walked.values())


def test_costs_of_deep_prompts_count_every_row_whole():
    """Text and answers run in every pass, the prompt in none; attention sees all three."""
    of = study()
    costs, task = Costs(of), of.tasks(0)[0]
    text, answer, options, count, _ = costs._lengths(task)
    config = FitConfig(steps=10, rows_per_run=2, evaluations=3, dev_examples=4)

    def row(answers, count, passes=1):
        new = text + answers - count
        seen = new + of.scale.prompt_length
        products = 2 * (costs.layers * new + costs.head * answers)
        return products * passes + 4 * costs.sizes.attention * new * seen * (2 * passes - 1)

    assert costs.fit([task], config) == pytest.approx(20 * row(answer, 1, 2) + 12 * row(options, count))
    assert costs.fit([task], config, 2) == pytest.approx(2 * costs.fit([task], config))
    assert costs.score([task], 3) == pytest.approx(3 * 4 * row(options, count))


def test_deep_and_shallow_studies_share_no_step():
    names = [{job.make().folder for job in study(seeds=(0,), deep=deep).jobs()} for deep in (True, False)]
    assert not names[0] & names[1]
