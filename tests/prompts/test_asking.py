"""`ask` answers with options, tags or text, as the task of the prompt says."""

import pytest
import torch

from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.prompt import Prompt
from iptkit.methods.heads import WithHead
from iptkit.methods.prompt_tuning import SoftPrompt, from_words
from iptkit.models.backbone import load
from iptkit.prompts.asking import Sampling, ask
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.tasks.examples import Example
from iptkit.training.runs import FitConfig, Run
from iptkit.training.trainer import fit

CAUSAL, ENCODER = load("tiny-causal"), load("tiny-encoder")
MOOD, PICK, PLURAL = suites.load_suite("tiny", only=["tiny-mood", "tiny-pick", "tiny-plural"], max_test=8)
(PARTS,) = suites.load_suite("tiny3", only=["tiny-parts"], max_test=8)


def trained(tasks, steps=4):
    engine = Engine(CAUSAL)
    source = SoftPrompt(from_words(CAUSAL, 3).expand(len(tasks), -1, -1))
    fit(engine, source, [Run(task) for task in tasks], FitConfig(steps=steps, rows_per_run=4, lr=0.1))
    return engine, source


def headed(tasks):
    engine, generator = HeadEngine(ENCODER), torch.Generator().manual_seed(0)
    classes = max(len(task.labels) for task in tasks)
    source = WithHead(len(tasks), ENCODER.width, classes, generator)
    fit(engine, source, [Run(task) for task in tasks], FitConfig(steps=20, rows_per_run=4, lr=0.05))
    return engine, source


def test_probabilities_are_the_likelihoods_renormalised_over_the_options():
    engine, source = trained([PLURAL, MOOD])
    example = MOOD.test[0]
    (answer,) = ask(engine, source, [example.input], run=1)
    prompt: Prompt = source(torch.tensor([1]))
    row = engine.option_row(Example(example.input, MOOD.labels[:1], MOOD.labels))
    likelihoods, _ = engine.log_likelihoods(prompt, [row])
    expected = likelihoods[0].detach().double().exp()
    expected /= expected.sum()
    assert [answer.options[label] for label in MOOD.labels] == pytest.approx(expected.tolist())
    assert answer.answer == MOOD.labels[expected.argmax()] and answer.probability == max(
        answer.options.values()
    )


def test_answers_are_those_of_evaluate_whatever_the_order():
    engine, source = trained([MOOD])
    (predicted,) = evaluation.predict(engine, source, [MOOD])
    texts = [example.input for example in MOOD.test]
    assert [one.answer for one in ask(engine, source, texts)] == predicted
    assert [one.answer for one in ask(engine, source, texts[::-1])] == predicted[::-1]
    engine, source = headed([PARTS, MOOD])
    (_, predicted) = evaluation.predict(engine, source, [PARTS, MOOD])
    assert [one.answer for one in ask(engine, source, texts, run=1)] == predicted
    (predicted, _) = evaluation.predict(engine, source, [PARTS, MOOD])
    texts = [example.input for example in PARTS.test]
    assert [one.answer for one in ask(engine, source, texts)] == predicted


def test_multiple_choice_needs_options_and_a_head_names_unknown_classes():
    engine, source = trained([PICK])
    with pytest.raises(ValueError, match="options differ from question to question; give them: --options"):
        ask(engine, source, ["Which?"])
    assert ask(engine, source, ["Which?"], options=["bear", "file"])[0].answer in ("bear", "file")
    engine, source = headed([MOOD])
    source.about = {}
    assert set(ask(engine, source, ["I had a sad trip"])[0].options) == {"class 0", "class 1"}
    with pytest.raises(ValueError, match="3 options were given, but the head has 2 classes"):
        ask(engine, source, ["I had a sad trip"], options=["a", "b", "c"])


def test_the_options_of_a_head_go_by_name_not_by_place():
    engine, source = headed([MOOD])
    (usual,) = ask(engine, source, ["I had a sad trip"])
    assert ask(engine, source, ["I had a sad trip"], options=MOOD.labels[::-1]) == [usual]
    with pytest.raises(
        ValueError, match="options are foo, bar, but the head of this prompt chooses from nega"
    ):
        ask(engine, source, ["I had a sad trip"], options=["foo", "bar"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 10**23}, "the seed is 1000.*; give a whole number from 0 to"),
        ({"temperature": 0.5}, "have no effect"),
        ({"max_new_tokens": "2"}, "max_new_tokens is '2'"),
    ],
)
def test_settings_of_free_answers_are_checked_at_once(given, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**given)


@pytest.mark.parametrize(
    ("texts", "given", "message"),
    [
        (["fine", "  "], {}, "a text is empty"),
        (["fine", "bad \udcff"], {}, r"texts\[1\] has the character '\\udcff', half of a pair"),
        ("fine", {}, r"the text 'fine' was given in place of a list of texts"),
        (["fine"], {"options": ["a", "a"]}, "options are a, a; give at least two different ones"),
        (["fine"], {"options": ["a", ""]}, "give at least two different ones"),
        (
            ["fine"],
            {"sampling": Sampling(do_sample=True)},
            "one of its options .negative, positive.; leave",
        ),
    ],
)
def test_wrong_questions(texts, given, message):
    engine, source = trained([MOOD], steps=1)
    with pytest.raises(ValueError, match=message):
        ask(engine, source, texts, **given)


@pytest.mark.parametrize("options", [None, ["good", "bad"]])
@pytest.mark.parametrize("run", [2, -1])
def test_a_run_that_the_prompts_do_not_have_is_named(run, options):
    engine, source = trained([MOOD, PLURAL], steps=1)
    with pytest.raises(
        ValueError, match=f"run {run} does not exist: this SoftPrompt has the runs 0 to 1 only"
    ):
        ask(engine, source, ["fine"], run=run, options=options)


def test_a_model_in_place_of_an_engine_is_named():
    _, source = trained([PLURAL], steps=1)
    with pytest.raises(ValueError, match="the model tiny-causal was given in place of an engine"):
        ask(CAUSAL, source, ["fine"])
