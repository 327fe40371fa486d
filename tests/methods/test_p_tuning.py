import pytest
import torch
from stock import backbone
from torch import nn

from iptkit.engine.engine import Engine
from iptkit.methods import p_tuning
from iptkit.methods.p_tuning import ENCODERS, EncodedPrompt, RunLSTM
from iptkit.methods.prompt_tuning import from_words
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

LAYOUT = ("{text}", 2, " Answer", 1)
SHORT = FitConfig(steps=4, rows_per_run=2, lr=0.01, evaluations=1, dev_examples=4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_numbers_of_the_papers_code():
    assert p_tuning.num_parameters(9, 768) == 8_278_272
    assert p_tuning.num_parameters(9, 1024) == 14_707_712


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_built_encoder_has_that_many_numbers(encoder):
    built = EncodedPrompt(torch.zeros(3, 9, 32), encoder, seeded())
    expected = 3 * p_tuning.num_parameters(9, 32, encoder)
    assert sum(p.numel() for p in built.parameters()) == expected
    assert all(len(p) == 3 for p in built.parameters()), "each run has its own"


def test_it_trains_in_the_number_type_of_its_start():
    for dtype in (torch.float32, torch.float64):
        made = EncodedPrompt(torch.zeros(2, 3, 32, dtype=dtype), "lstm", seeded())
        assert {p.dtype for p in made.parameters()} == {dtype}
        assert made(torch.tensor([1])).embeds.dtype == dtype


def test_the_lstm_is_torchs_lstm():
    ours = RunLSTM(3, 10, 6, seeded())
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded(1)) * 0.5)  # different for every run
    x, used = torch.randn(2, 5, 10, generator=seeded(2)), torch.tensor([2, 0])
    found = ours(x, used)
    for row, run in enumerate(used.tolist()):
        theirs = nn.LSTM(10, 6, num_layers=2, bidirectional=True, batch_first=True)
        theirs.load_state_dict({name: p[run] for name, p in ours.named_parameters()})
        torch.testing.assert_close(found[row], theirs(x[row])[0])


def test_without_encoder_is_the_same_prompt():
    source = EncodedPrompt(torch.randn(2, 3, 8, generator=seeded()), "lstm", seeded(1))
    runs = torch.tensor([1, 1, 0])
    torch.testing.assert_close(source.without_encoder()(runs).embeds, source(runs).embeds)
    assert not list(source.without_encoder().parameters())


def test_no_encoder_is_prompt_tuning():
    init = torch.randn(2, 3, 8, generator=seeded())
    assert torch.equal(EncodedPrompt(init, "none", seeded())(torch.tensor([1])).embeds[0], init[1])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_runs_trained_together_are_the_runs_trained_alone(encoder):
    engine = Engine(backbone("tiny-causal", "float32"), LAYOUT)
    start = from_words(engine.backbone, 3)[None]
    runs = [Run(suites.load_task(name, suite="tiny")) for name in ("tiny-mood", "tiny-sum")]
    both = EncodedPrompt(start.expand(2, -1, -1), encoder, seeded())
    trainer.fit(engine, both, runs, SHORT)
    for r, run in enumerate(runs):
        alone = EncodedPrompt(start, encoder, seeded())
        before = alone.input.detach().clone()
        trainer.fit(engine, alone, [run], SHORT)
        assert not torch.equal(alone.input, before)
        for (name, p), q in zip(both.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p[r], q[0], rtol=1e-3, atol=2e-5, msg=name)


def test_wrong_wishes_are_refused():
    with pytest.raises(ValueError, match="encoder 'gru' is unknown; choose one of lstm, mlp, none"):
        EncodedPrompt(torch.zeros(1, 3, 8), "gru", seeded())
    with pytest.raises(ValueError, match=r"shape \(3, 8\)"):
        EncodedPrompt(torch.zeros(3, 8), "mlp", seeded())
    with pytest.raises(ValueError, match="needs an even one"):
        EncodedPrompt(torch.zeros(1, 3, 7), "lstm", seeded())
