import itertools

import pytest
import torch
from stock import backbone

from iptkit import tasks
from iptkit.engine.engine import Engine
from iptkit.methods import subspace
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import evaluation
from iptkit.studies import codes, task_map
from iptkit.tasks.examples import Example

IDS = ("tiny-mood", "tiny-past", "tiny-kind")


@pytest.fixture(scope="module")
def made():
    engine = Engine(backbone("tiny-causal", "float32"))
    bank = torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(0))
    decoder = subspace.AutoEncoder(bank, subspace.SubspaceConfig(3, 8), torch.Generator().manual_seed(1))
    on = {name: tasks.load_task(name, suite="tiny") for name in IDS}
    code_of = {name: torch.full((3,), float(i)) for i, name in enumerate(IDS)}
    own = {name: Example("What is it?", ("a",), on[name].test[0].options) for name in IDS}
    return engine, decoder, code_of, on, task_map.walks(engine, decoder, code_of, on, own, 4)


def test_every_pair_has_its_walk(made):
    walks = made[-1]
    assert [(walk["first"], walk["second"]) for walk in walks] == list(itertools.combinations(IDS, 2))
    assert all(len(walk["steps"]) == task_map.POINTS for walk in walks)


def test_a_step_has_the_scores_of_its_prompt_on_both_tasks(made):
    engine, decoder, code_of, on, walks = made
    first, second = IDS[1:]
    _, prompts = codes.line(decoder, code_of[first], code_of[second], task_map.POINTS)
    step = walks[-1]["steps"][1]
    both = evaluation.outcomes(engine, FixedPrompt(prompts[[1, 1]]), [on[first], on[second]], limit=4)
    assert step["score"] == pytest.approx([one.score for one in both], abs=1e-3)
    assert step["log_likelihood"] == pytest.approx([one.log_likelihood for one in both], abs=2e-3)
    assert step["answer"][1] in on[second].test[0].options


def test_own_examples_have_the_form_of_the_tasks_examples():
    own = task_map.own_examples()
    cards = {card.id: card for card in tasks.list_cards("ipt120")}
    assert len(own) == 12 and {cards[name].category for name in own} == {"cls", "qa", "gen", "seq"}
    for name, one in own.items():
        assert bool(one.options) == (cards[name].category == "cls") and (
            not one.options or one.targets[0] in one.options
        )


def test_the_places_of_tasks_are_the_codes_of_their_own_prompts():
    found, autoencoder = task_map.encoded("ipt120")
    kept = codes.load_stored("ipt120", autoencoder.config.intrinsic_dim)
    mine = [found.tasks.index(task) for task in kept.tasks]
    assert found.u[0, mine] == pytest.approx(kept.msf, abs=1e-5)
    assert [found.labels["side"][i] for i in mine] == list(kept.labels["side"]) and len(found.tasks) == 120
