"""Wrong calls get a sentence that says what was given and what to give, before anything runs."""

import pytest
import torch
from stock import backbone, random_prompts

from iptkit.engine.calls import check_engine
from iptkit.engine.compatibility import check_runs, check_source
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.limits import truncate
from iptkit.engine.mask_engine import MaskEngine
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.engine.rows import Row
from iptkit.engine.sites import find_sites
from iptkit.methods import adapters, heads, prompt_tuning, subspace, words
from iptkit.methods.p_tuning import EncodedPrompt
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.scores.evaluation import evaluate, predict
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig, Run
from iptkit.training.trainer import fit

SHORT = FitConfig(steps=1, rows_per_run=1, evaluations=1, dev_examples=1)


@pytest.fixture(scope="module")
def model():
    return backbone("tiny-causal", "float32")


@pytest.fixture(scope="module")
def two():
    return suites.load_suite("tiny", only=["tiny-mood", "tiny-plural"], max_test=2)


def generator():
    return torch.Generator().manual_seed(0)


def source_of(runs):
    return SoftPrompt(torch.zeros(runs, 3, 32))


# ---- an engine's model ---------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Engine, HeadEngine, lambda given: MaskEngine(given, "{text} {mask}", None)])
def test_an_engine_takes_a_backbone_only(model, kind):
    name = "MaskEngine" if kind not in (Engine, HeadEngine) else kind.__name__
    with pytest.raises(ValueError, match=rf"{name} needs .* {name}\(models.load\('tiny-causal'\)\)"):
        kind("tiny-causal")
    with pytest.raises(ValueError, match=rf"got a Engine; give its model: {name}\(engine.backbone\)"):
        kind(Engine(model))
    with pytest.raises(ValueError, match="got a LlamaForCausalLM; give what models.load returns"):
        kind(model.model)


# ---- an engine and a source ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "call",
    [
        lambda engine, source, tasks: check_source(engine, source),
        lambda engine, source, tasks: fit(engine, source, [Run(task) for task in tasks], SHORT),
        lambda engine, source, tasks: evaluate(engine, source, tasks),
        lambda engine, source, tasks: predict(engine, source, tasks),
    ],
)
def test_a_model_in_place_of_an_engine_and_numbers_in_place_of_a_source(model, two, call):
    wrong = r"in place of an engine; give Engine\("
    with pytest.raises(ValueError, match=rf"the model tiny-causal was given {wrong}model\), or HeadEngine"):
        call(model, source_of(2), two)
    with pytest.raises(ValueError, match=rf"the name 'tiny-causal' was given {wrong}models.load"):
        call("tiny-causal", source_of(2), two)
    for given, kind in (
        (model.model, "LlamaForCausalLM"),
        (None, "NoneType"),
        (Engine, "_ProtocolMeta|ABCMeta"),
    ):
        with pytest.raises(ValueError, match=rf"a {kind} was given {wrong}models.load\(NAME"):
            call(given, source_of(2), two)
    engine = Engine(model)
    with pytest.raises(ValueError, match=r"a Tensor was given in place of a source .* methods.SoftPrompt"):
        call(engine, torch.zeros(2, 3, 32), two)
    with pytest.raises(ValueError, match="a Prompt was given in place of a source .*give the source that"):
        call(engine, Prompt(torch.zeros(2, 3, 32)), two)
    with pytest.raises(ValueError, match="a Linear was given in place of a source of prompts; see engine.P"):
        call(engine, torch.nn.Linear(2, 3), two)


def test_a_model_is_allowed_where_one_will_do(model):
    for fine in (model, Engine(model)):
        check_engine(fine, or_model=True)
    for given, told in (("tiny-causal", "the name 'tiny-causal'"), (model.model, "a LlamaForCausalLM")):
        with pytest.raises(ValueError, match=f"{told} was given in place of an engine or a model; give Eng"):
            check_engine(given, or_model=True)


def test_methods_that_take_an_engine_take_no_model(model, two):
    runs, wrong = [Run(task) for task in two], "the model tiny-causal was given in place of an engine"
    bank = random_prompts(model, 2, 2)
    config = subspace.SubspaceConfig(1, 4)
    decoder = subspace.AutoEncoder(bank, config, generator())
    for call in (
        lambda engine: subspace.find(engine, bank, runs, config, SHORT, generator()),
        lambda engine: subspace.tune(engine, decoder, runs, SHORT),
        lambda engine: words.option_scores(engine, two[0].dev),
        lambda engine: truncate(engine, two[0], 3, "left"),
    ):
        with pytest.raises(ValueError, match=wrong):
            call(model)
    with pytest.raises(ValueError, match=r"tune got a Task as runs\[0\]; give a list of Runs"):
        subspace.tune(Engine(model), decoder, two, SHORT)
    with pytest.raises(ValueError, match=r"find got a Task as runs\[0\]; give a list of Runs"):
        subspace.find(Engine(model), bank, two, config, SHORT, generator())


def test_methods_that_take_a_model_take_no_engine(model):
    engine = Engine(model)
    for call in (
        lambda given: prompt_tuning.from_words(given, 3),
        lambda given: prompt_tuning.deep_from_words(given, 3),
        lambda given: prompt_tuning.from_normal(given, 3, 1.0, generator()),
        lambda given: prompt_tuning.nearest_words(given, torch.zeros(1, 32)),
    ):
        with pytest.raises(ValueError, match=r"needs a backbone, but got a Engine; .*\(engine.backbone\)"):
            call(engine)


# ---- rows ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["Engine", "HeadEngine"])
def test_rows_are_made_by_the_engine(model, two, kind):
    engine = Engine(model) if kind == "Engine" else HeadEngine(backbone("tiny-encoder", "float32"))
    prompt = Prompt(torch.zeros(1, 3, 32), head=torch.zeros(1, 2, 33))
    example = two[0].train[0]
    row = engine.target_row(example)
    calls = [engine.log_likelihoods, lambda prompt, rows: engine.greedy(prompt, rows, [3])]
    make = r"make rows with engine.target_row\(example\) or engine.option_row\(example\)"
    for call in calls:
        call(prompt, [row])
        with pytest.raises(ValueError, match=f"a str was given in place of a row; {make}; engine.gener"):
            call(prompt, ["ten"])
        with pytest.raises(ValueError, match=f"a single str was given in place of a list .*; {make}"):
            call(prompt, "ten")
        with pytest.raises(ValueError, match=rf"a single \w*Row was given in place of a list .*; {make}"):
            call(prompt, row)
        with pytest.raises(ValueError, match=f"a Example was given in place of a row; {make}$"):
            call(prompt, [example])
        with pytest.raises(ValueError, match=f"no rows were given; {make}"):
            call(prompt, [])
        with pytest.raises(ValueError, match=r"a SoftPrompt was given .*; give source\(runs\)"):
            call(source_of(1), [row])
        with pytest.raises(ValueError, match="1 prompts were given for 2 rows; give one per row: source"):
            call(prompt, [row, row])
        with pytest.raises(ValueError, match=r"a Tensor was given .*; give Prompt\(embeds\)"):
            call(torch.zeros(1, 3, 32), [row])


def test_rows_of_another_engine_are_refused(model, two):
    row = HeadEngine(backbone("tiny-encoder", "float32")).target_row(two[0].train[0])
    with pytest.raises(ValueError, match="a HeadRow was given in place of a row"):
        Engine(model).log_likelihoods(Prompt(torch.zeros(1, 3, 32)), [row])
    with pytest.raises(ValueError, match="a Row was given in place of a row"):
        HeadEngine(backbone("tiny-encoder", "float32")).log_likelihoods(Prompt(), [Row((5,), ((6,),))])


# ---- tasks, runs and splits ----------------------------------------------------------------------
@pytest.mark.parametrize("call", [evaluate, predict])
def test_evaluate_takes_one_task_per_run(model, two, call):
    engine, mood = Engine(model), two[0]
    engine._hidden = None  # nothing runs
    for count in (1, 3):
        told = f"2 tasks were given, but this SoftPrompt has {count} runs; give one task per run"
        with pytest.raises(ValueError, match=told):
            call(engine, source_of(count), two)
    with pytest.raises(ValueError, match=r"got a single Task for tasks; give a list, also of one: \[task\]"):
        call(engine, source_of(1), mood)
    with pytest.raises(ValueError, match=r"got a Run as tasks\[0\]; give a list of Tasks"):
        call(engine, source_of(1), [Run(mood)])
    with pytest.raises(ValueError, match="got a str for tasks; give a list of Tasks"):
        call(engine, source_of(1), mood.id)
    with pytest.raises(ValueError, match=r"got a str as tasks\[0\]; give a list of Tasks"):
        call(engine, source_of(1), [mood.id])
    with pytest.raises(
        ValueError, match="split 'validation' is unknown; choose one of train, train_new, dev"
    ):
        call(engine, source_of(1), [mood], split="validation")


def test_fit_takes_a_list_of_runs(model, two):
    engine, way = Engine(model), r"give a list of Runs: \[Run\(task\) for task in tasks\]"
    with pytest.raises(ValueError, match=rf"fit got a Task as runs\[0\]; {way}"):
        fit(engine, source_of(2), two, SHORT)
    with pytest.raises(ValueError, match=rf"fit got a Task as runs\[1\]; {way}"):
        fit(engine, source_of(2), [Run(two[0]), two[1]], SHORT)
    with pytest.raises(ValueError, match=r"fit got a single Run for runs; give a list, also of one: \[run\]"):
        fit(engine, source_of(1), Run(two[0]), SHORT)
    with pytest.raises(ValueError, match=f"fit got a Task for runs; {way}"):
        fit(engine, source_of(1), two[0], SHORT)


SOURCES = {
    "soft": lambda of: source_of(3),
    "frozen soft": lambda of: source_of(3).requires_grad_(False),
    "fixed": lambda of: FixedPrompt(torch.zeros(3, 2, 32)),
    "encoded": lambda of: EncodedPrompt(torch.zeros(3, 2, 32), "lstm", generator()),
    "deep": lambda of: DeepPrompt(3, find_sites(of.model), 2, generator()),
    "bank": lambda of: subspace.AutoEncoder(
        random_prompts(of, 3, 2), subspace.SubspaceConfig(1, 4), generator()
    ),
    "intrinsic": lambda of: subspace.IntrinsicPrompt(SOURCES["bank"](of), 3),
    "head": lambda of: heads.WithHead(3, 32, 2, generator(), source_of(3)),
    "fixed head": lambda of: heads.FixedHead(torch.zeros(3, 2, 33)),
    "shared": lambda of: heads.SharedPrompt(source_of(1), 3, 32, 2, generator()),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_knows_how_many_runs_it_has(model, name):
    source = SOURCES[name](model)
    assert source.num_runs == 3 and source(torch.arange(3)).count == 3
    check_runs(source, [0, 2])
    for run in (3, -1):
        with pytest.raises(ValueError, match=rf"run {run} does not exist: this \w+ has the runs 0 to 2 only"):
            check_runs(source, [0, run])


def test_a_source_that_gives_all_runs_the_same_takes_any_number():
    source = adapters.HyperAdapters(2, 4, 32, 2, generator())
    assert source.num_runs is None
    check_runs(source, [9])


def test_a_source_of_one_run_has_run_0_only():
    with pytest.raises(ValueError, match="run 1 does not exist: this SoftPrompt has run 0 only"):
        check_runs(source_of(1), [1])


def test_a_buffer_of_any_shape_may_stand_before_the_prompts():
    class Scaled(PromptSource):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.0))
            self.register_buffer("P", torch.zeros(3, 2, 32))

        def forward(self, runs):
            return Prompt(self.scale * self.P[runs])

    assert Scaled().num_runs == 3
