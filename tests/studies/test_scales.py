import json

import pytest

from iptkit.methods.subspace import SubspaceConfig
from iptkit.storage import paths
from iptkit.studies import scales
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig

KNOWN = tuple(json.loads((paths.data_dir() / "scales.json").read_text(encoding="utf-8")))


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)


@pytest.mark.parametrize("name", KNOWN)
def test_every_scale_loads_and_names_real_tasks_without_leaks(name):
    scale = scales.load(name)
    assert scale.name == name
    assert all(isinstance(getattr(scale, key), FitConfig) for key in ("prompt", "msf", "ist"))
    assert isinstance(scale.subspace, SubspaceConfig) and isinstance(scale.seeds, tuple)
    if scale.suite not in suites.SUITES:
        return
    split = suites.split("random", scale.suite)
    seen, unseen = scale.seen or split.seen, scale.unseen or split.unseen
    cards = {card.id: card for card in suites.list_cards(scale.suite)}
    assert {*seen, *unseen} <= cards.keys() and len({*seen, *unseen}) == len(seen) + len(unseen)
    assert not {cards[i].group for i in seen} & {cards[i].group for i in unseen}
    assert len(seen) >= 2 and len(unseen) >= 2
    assert min(len(seen), max(scale.dims)) >= 2


def test_a_variant_changes_tasks_dims_and_seeds_only():
    plain, other = scales.load("full"), scales.variant("full", "ipt120", "leaky", (10, 50), 2)
    assert (other.suite, other.split, other.seen, other.unseen) == ("ipt120", "leaky", (), ())
    assert (other.dims, other.main_dim, other.seeds) == ((10, 50), 10, (0, 1))
    assert scales.variant("full", dims=(2, 5)).main_dim == plain.main_dim == 5
    assert scales.variant("full") == plain and other.prompt == plain.prompt
    assert scales.variant("lesson", split="random").seen == () != scales.load("lesson").seen


def test_smoke_is_tiny_and_lesson_is_real():
    smoke, lesson = scales.load("smoke"), scales.load()
    assert (smoke.backbone, smoke.suite, lesson.backbone, lesson.suite) == (
        "tiny-causal",
        "tiny",
        "smollm2-135m",
        "core36",
    )
    assert {2, 5, 20} <= set(lesson.dims) and lesson.main_dim == 5


def test_the_environment_replaces_the_name(monkeypatch):
    monkeypatch.setenv("IPTKIT_SCALE", "smoke")
    assert scales.load("lesson").name == "smoke"
    monkeypatch.setenv("IPTKIT_SCALE", "")
    assert scales.load("lesson").name == "lesson"


def test_changes():
    scale = scales.load("smoke", seeds=(4,), prompt=FitConfig(steps=1))
    assert scale.seeds == (4,) and scale.prompt.steps == 1 and scale.suite == "tiny"
    with pytest.raises(ValueError, match="a scale has no field 'colour'"):
        scales.load("smoke", colour="red")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_length": 0}, "scale 'smoke': prompt_length and test_examples must be >= 1"),
        ({"test_examples": 0}, "test_examples must be >= 1"),
        ({"seeds": ()}, "seeds and dims not empty"),
        ({"dims": ()}, "seeds and dims not empty"),
        ({"main_dim": 3}, r"main_dim 3 is not among its dims \(2, 5\)"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        scales.load("smoke", **changes)


def test_an_unknown_scale(monkeypatch):
    message = "scale 'huge' is unknown; choose one of smoke, lesson"
    with pytest.raises(ValueError, match=message):
        scales.load("huge")
    monkeypatch.setenv("IPTKIT_SCALE", "huge")
    with pytest.raises(ValueError, match=message + ".*IPTKIT_SCALE"):
        scales.load("lesson")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"colour": "red"},
            "data/scales.json: smoke: the field 'colour' is unknown; Scale has: name, backbone",
        ),
        ({"dims": 5}, "data/scales.json: smoke.dims is 5, allowed is: a list"),
        ({"dims": [2, "5"]}, "smoke.dims[1] is '5', allowed is: a whole number"),
        ({"dims": [2, True]}, "smoke.dims[1] is True, allowed is: a whole number"),
        ({"deep": 1}, "smoke.deep is 1, allowed is: true or false"),
        ({"context_gib": "much"}, "smoke.context_gib is 'much', allowed is: a number"),
        ({"prompt_length": 2.5}, "smoke.prompt_length is 2.5, allowed is: a whole number"),
        ({"prompt": {"stepz": 3}}, "smoke.prompt: the field 'stepz' is unknown; FitConfig has: steps"),
        ({"prompt": []}, "smoke.prompt is [], allowed is: an object with the fields of FitConfig"),
        (
            {"encoders": {"rates": {"deep": "high"}}},
            "smoke.encoders.rates.deep is 'high', allowed is: a number",
        ),
        (
            {"ptuning": {"layout": [1, 2.5]}},
            "smoke.ptuning.layout[1] is 2.5, allowed is: a whole number or a text",
        ),
        ({"adapters": 3}, "smoke.adapters is 3, allowed is: an object with the fields of AdapterConfig"),
        ({"prompt": {"lr": -1}}, "data/scales.json: smoke.prompt: "),
        ({"main_dim": 77}, "main_dim 77 is not among its dims"),
        ({"like": "smoke"}, "smoke is like smoke; one of them needs fields of its own"),
        ("big", "data/scales.json: smoke is 'big', allowed is: an object"),
    ],
)
def test_a_stored_scale_with_a_wrong_field_is_named(tmp_path, monkeypatch, change, message):
    known = json.loads((paths.data_dir() / "scales.json").read_text(encoding="utf-8"))
    if isinstance(change, dict):
        smoke = known["smoke"]
        merged = {
            key: {**smoke[key], **value} if isinstance(value, dict) and key in smoke else value
            for key, value in change.items()
        }
        known["smoke"] = {**smoke, **merged}
    else:
        known["smoke"] = change
    (tmp_path / "scales.json").write_text(json.dumps(known))
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    with pytest.raises(ValueError) as error:
        scales.load("smoke")
    assert message in str(error.value)


def test_a_change_of_an_unknown_field_or_type_is_refused():
    with pytest.raises(ValueError, match="a scale has no field 'dim'; it has: name, backbone"):
        scales.load("smoke", dim=3)
    with pytest.raises(ValueError, match=r"seeds\[0\] is '0', allowed is: a whole number"):
        scales.load("smoke", seeds=("0",))
    assert scales.load("smoke", seeds=[0, 1]).seeds == (0, 1)
