"""Learning curves: what is trained on which tasks, and what is chosen from the rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from stock import backbone, timeless

from iptkit.methods import subspace
from iptkit.storage import result_files, step_cache
from iptkit.studies import curve_steps, learning_curves, scales
from iptkit.studies import steps as study_steps
from iptkit.studies.learning_curves import CurveConfig
from iptkit.studies.score_rows import DECODERS
from iptkit.studies.study import Study
from iptkit.tasks import suites
from iptkit.training import trainer

FEW = CurveConfig(
    prompts=((4, 2), (9, 1)), prompt_rates=(0.05,), weights=((2, 2), (3, 2)), msf=((4, 2), (12, 4)),
    ist=((3, 2), (6, 2)), num_weights=1, rates=(0.1, 0.3), steps_per_evaluation=2,
)  # fmt: skip
CONTROLS = ("pca_around", "random")


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})
    return tmp_path / "steps"


def small(**changes):
    given = {"folds": ("fold1", "fold2"), "seeds": (0, 1), "dims": (2,), "main_dim": 2, "test_examples": 4}
    study = Study(scales.load("smoke", **{**given, "controls": CONTROLS, **changes}))
    study.backbone = backbone("tiny-causal", "float32")
    return study


def rows_of(study, stages=learning_curves.STAGES, config=FEW):
    return learning_curves.rows_of(learning_curves.make(study, stages, config))


# ---- what is measured ------------------------------------------------------------------------------
def test_all_stages_on_the_chosen_tasks_and_the_second_time_from_the_cache():
    study, tasks = small(), learning_curves.tasks_of("tiny", "fold1", FEW)
    rows = rows_of(study)
    by_stage = {stage: [r for r in rows if r["stage"] == stage] for stage in learning_curves.STAGES}
    assert [r["stage"] for r in rows] == [s for s, mine in by_stage.items() for _ in mine], "in their order"
    counts = {stage: len(mine) for stage, mine in by_stage.items()}
    assert counts == {"prompts": 3 * 4, "weights": 2 * 2, "msf": 2 * 4, "ist": 4 * 4, "rates": 3 * 2 * 4}
    for stage, mine in by_stage.items():
        held_out = suites.split("fold1", "tiny")
        of = {"msf": held_out.seen, "weights": tasks[:1]}.get(stage, tasks)
        assert {r["task"] for r in mine} == set(of), stage
        for row in mine:
            assert {
                "category",
                "group",
                "metric",
                "chance",
                "processor",
                "seconds",
                "cpu_seconds",
            } <= row.keys()
            assert row["budget"] == f"{row['steps']}x{row['rows_per_run']}" and row["seed"] == 0
            assert row["n_test"] == 4 and row["dtype"] == "float32" and row["lr"] > 0
            assert 0 < row["best_step"] <= row["steps"]
            is_scored = stage != "msf"
            assert (row["score"] is not None) == (row["log_likelihood"] is not None) == is_scored
    assert {(r["msf"], r["budget"]) for r in by_stage["ist"]} == {
        (msf, ist) for msf in ("4x2", "12x4") for ist in ("3x2", "6x2")
    }
    assert {(r["decoder"], r["lr"]) for r in by_stage["rates"]} == {
        (decoder, lr) for decoder in ("learned", *CONTROLS) for lr in FEW.rates
    }
    assert {r["method"] for r in by_stage["rates"]} == {DECODERS[d] for d in ("learned", *CONTROLS)}
    assert {r["msf"] for r in by_stage["rates"]} == {"12x4"}, "the scale's own"

    step_cache.HITS.clear()
    again = small()
    assert rows_of(again) == rows and all(step_cache.HITS.values()) and "engine" not in vars(again)


def test_dev_is_read_all_along_and_the_lowest_loss_is_kept(steps):
    (step,) = learning_curves.make(small(), ("prompts",), replace(FEW, prompts=((9, 1),), prompt_rates=()))
    dev = step.tensors["dev"]
    assert dev.shape == (4, 4), "evaluations (9 // 2) and tasks"
    for i, row in enumerate(step.values["rows"]):
        assert row["dev_losses"] == pytest.approx(dev[:, i].tolist(), abs=1e-4)
        assert row["dev_loss"] == pytest.approx(float(dev[:, i].min()), abs=1e-6)
    fit = scales.load("smoke").ist
    counted = {n: CurveConfig().fit(fit, (n, 2)).evaluations for n in (16, 40, 120, 360, 3600)}
    assert counted == {16: 2, 40: 2, 120: 6, 360: 18, 3600: 18}
    rows = rows_of(small(), ("msf",))[:4]
    losses = np.array([r["dev_losses"] for r in rows])
    shared = losses[:, losses.mean(0).argmin()]
    assert [r["dev_loss"] for r in rows] == pytest.approx(shared.tolist(), abs=1e-4), "one auto-encoder"


def test_curves_are_trained_and_scored_as_the_study_does_it():
    """With the budgets of the scale, the scores are those of the study's own rows."""
    study = small()
    (part, *_), tasks = study.parts, learning_curves.tasks_of("tiny", "fold1", FEW)
    scale = study.scale
    table = [
        *part.bank().values["rows"],
        *part.codes(2).values["rows"],
        *part.codes(2, "random").values["rows"],
    ]
    first = {(r["method"], r["task"]): r for r in table if r["seed"] == 0}
    mine = curve_steps.prompts(part, tasks, scale.prompt).values["rows"]
    for decoder in ("learned", "random"):
        mine += curve_steps.ist(part, tasks, scale.ist, decoder, (scale.ist.lr, 2.0)).values["rows"][:4]
    for row in mine:
        known = first[row["method"], row["task"]]
        assert row["log_likelihood"] == pytest.approx(known["log_likelihood"], abs=1e-4), row["method"]
        assert (row["score"], row["best_step"]) == (known["score"], known["best_step"])


def test_the_msf_of_the_scale_is_found_once(steps):
    study = small()
    learning_curves.make(study, ("msf",), FEW)
    assert len([*steps.glob("subspace-2-fold1-*")]) == 2
    step_cache.HITS.clear()
    assert study.parts[0].found(2)[1].was_cached


def test_a_scale_without_folds_has_the_same_curves():
    config = replace(FEW, prompts=((4, 2),), msf=((4, 2),))
    with_folds = rows_of(small(), ("prompts", "msf"), config)
    plain = rows_of(small(folds=()), ("prompts", "msf"), config)
    assert plain == with_folds, "even their times: the steps are the same"


def test_killed_anywhere_ends_with_the_same_rows(tmp_path, monkeypatch):
    stages, config = ("prompts", "msf", "ist", "rates"), replace(FEW, ist=((6, 2),), rates=(0.3,))
    expected = timeless(rows_of(small(), stages, config))
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "other"))
    step, budget, kills = trainer.train_step, [0], 0

    def killed(*args):
        if not budget[0]:
            raise KeyboardInterrupt
        budget[0] -= 1
        return step(*args)

    fit = trainer.fit
    for module in (curve_steps, study_steps, subspace):
        monkeypatch.setattr(module, "fit", lambda *args: fit(*args, checkpoint_seconds=-1))
    monkeypatch.setattr(trainer, "train_step", killed)
    while kills < 100:
        budget[0] = 5
        try:
            rows = rows_of(small(), stages, config)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 5 and timeless(rows) == expected


def test_the_twelve_tasks_of_ipt120():
    """Every category, twelve groups, all unseen in one fold; the first six are of all categories, too."""
    study = Study(scales.load("ipt120"))
    fold = learning_curves.fold_of(study)
    tasks = learning_curves.tasks_of("ipt120", fold)
    cards = {card.id: card for card in suites.list_cards("ipt120")}
    assert len({cards[name].group for name in tasks}) == len(tasks) == 12
    assert set(tasks) <= set(suites.split(fold, "ipt120").unseen) and fold in study.scale.folds
    kinds = [cards[name].category for name in tasks]
    assert {kind: kinds.count(kind) for kind in kinds} == dict(CurveConfig().kinds)
    assert kinds[:6] == ["cls", "mcqa", "qa", "gen", "seq", "cls"]
    assert (fold, tasks) == (
        "fold4",
        (
            "p3-adjective-polarity", "bb-elementary_math_qa-question_only",
            "ni-004-mctaco_answer_generation_event_duration", "bb-linguistic_mappings-past_tense_json",
            "usaddress-tagging", "bb-intent_recognition", "bb-movie_recommendation",
            "ni-024-cosmosqa_answer_generation", "bb-international_phonetic_alphabet_transliterate",
            "ni-044-essential-words", "bb-multiemo-hotels_sentence_en",
            "ni-046-miscellaenous_question_typing",
        ),
    )  # fmt: skip


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="stages name 'prompt'; known are prompts, weights, msf, ist, rates"):
        learning_curves.jobs(small(), ("prompt",))


# ---- what is chosen --------------------------------------------------------------------------------
def made(stage="prompts", method="prompt tuning", budget="40x2", loss=(), cpu=1.0, **more):
    """Rows of the tasks a, b, ... with these dev losses."""
    given = {"stage": stage, "method": method, "budget": budget, "msf": "", "decoder": "", "lr": 0.1}
    given |= {"cpu_seconds": cpu, "log_likelihood": -1.0, "score": 0.5, "chance": 0.0} | more
    return [{"task": t, "group": t, "dev_loss": x, **given} for t, x in zip("abcdef", loss, strict=False)]


def test_the_cheapest_budget_within_the_margin_is_chosen():
    rows = [
        *made(budget="40x2", loss=(1.1, 2.0), cpu=1.0),
        *made(budget="120x2", loss=(1.0, 1.53), cpu=3.0),  # mean 1.265: 0.015 above the best
        *made(budget="60x4", loss=(1.06, 1.48), cpu=2.5),  # mean 1.27: just within 0.02, and cheaper
        *made(budget="360x2", loss=(1.1, 1.4), cpu=9.0),  # mean 1.25: the best
    ]
    found = learning_curves.choose(rows, margin=0.02000001)
    assert found["budgets"] == {"prompt tuning": "60x4"}
    assert learning_curves.choose(rows, margin=0.016)["budgets"] == {"prompt tuning": "120x2"}
    assert learning_curves.choose(rows, margin=0.0)["budgets"] == {"prompt tuning": "360x2"}
    lines = {line["budget"]: line for line in found["lines"]}
    assert lines["120x2"]["dev_loss"] == pytest.approx(1.265) and lines["120x2"]["cpu_seconds"] == 3.0
    assert lines["120x2"]["above_best"][0] == pytest.approx(0.015)
    assert lines["360x2"]["above_best"][0] == 0.0
    assert [b for b, line in lines.items() if line["is_chosen"]] == ["60x4"]


def test_each_curve_and_decoder_has_its_own_choice():
    rows = [
        *made("ist", "IST", "16x2", (1.0, 1.0), 1.0, msf="40x2", decoder="learned"),
        *made("ist", "IST", "48x2", (0.9, 0.9), 3.0, msf="40x2", decoder="learned"),
        *made("ist", "IST", "16x2", (0.8, 0.8), 1.0, msf="120x2", decoder="learned"),
        *made("ist", "IST", "48x2", (0.79, 0.79), 3.0, msf="120x2", decoder="learned"),
        *made("rates", "IST", "48x2", (0.9, 0.9), msf="120x2", decoder="learned", lr=0.1),
        *made("rates", "IST", "48x2", (0.8, 0.9), msf="120x2", decoder="learned", lr=0.3),
        *made("rates", "random decoder", "48x2", (0.9, 0.8), msf="120x2", decoder="random", lr=1.0),
        *made("rates", "random decoder", "48x2", (0.9, 0.9), msf="120x2", decoder="random", lr=0.3),
    ]
    found = learning_curves.choose(rows)
    assert found["budgets"] == {"IST, MSF 40x2": "48x2", "IST, MSF 120x2": "16x2"}
    assert found["rates"] == {"learned": 0.3, "random": 1.0}


def test_budgets_are_compared_on_the_tasks_that_all_have():
    rows = [*made(loss=(1.0, 1.0, 0.1)), *made(budget="120x2", loss=(0.9, 0.9), cpu=2.0)]
    found = learning_curves.choose(rows)
    assert found["budgets"] == {"prompt tuning": "120x2"} and {line["tasks"] for line in found["lines"]} == {
        2
    }
    apart = [*made(loss=(1.0,)), *[r | {"task": "z"} for r in made(budget="120x2", loss=(0.9,))]]
    assert learning_curves.choose(apart) == {"budgets": {}, "rates": {}, "lines": []}


def test_relative_is_a_ratio_of_means_with_an_interval_over_groups():
    full, tuned = np.array([0.9, 0.5, 0.7, 0.6, 0.8, 0.4]), np.array([0.6, 0.4, 0.5, 0.2, 0.8, 0.1])
    rows = [r | {"score": s} for r, s in zip(made(loss=[1.0] * 6, chance=0.25), full, strict=True)]
    ist = made("ist", "IST", "48x2", [1.0] * 6, msf="120x2", decoder="learned", chance=0.25)
    rows += [r | {"score": s} for r, s in zip(ist, tuned, strict=True)]
    (line,) = learning_curves.relative(rows)
    assert (line["prompts"], line["msf"], line["ist"]) == ("40x2", "120x2", "48x2")
    assert (line["tasks"], line["groups"]) == (6, 6)
    ratio = tuned.sum() / full.sum()
    half = stats.t.ppf(0.975, 5) * (tuned - ratio * full).std(ddof=1) / np.sqrt(6) / full.mean()
    assert line["ratio"] == pytest.approx((ratio, ratio - half, ratio + half))
    assert line["ratio above chance"][0] == pytest.approx((tuned - 0.25).sum() / (full - 0.25).sum())
    same = learning_curves.relative([r | {"group": "abc"[i % 3]} for i, r in enumerate(rows)])
    assert same[0]["groups"] == 3 and same[0]["ratio"][0] == pytest.approx(ratio)
    worthless = [r | {"score": 0.25} if r["stage"] == "prompts" else r for r in rows]
    assert learning_curves.relative(worthless)[0]["ratio above chance"] is None


# ---- files -------------------------------------------------------------------------
def test_finished_only_writes_what_is_there_and_names_the_rest(tmp_path):
    out, study = tmp_path / "curves.jsonl", small()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curves, "CONFIG", FEW)
        with pytest.raises(ValueError, match="only 0 rows are finished"):
            learning_curves.write(study, out, finished_only=True)
        learning_curves.make(study, ("prompts",))
        assert learning_curves.write(study, out, finished_only=True) == 12 == len(result_files.read(out))
        about = json.loads(out.with_suffix(".about.json").read_text(encoding="utf-8"))
        assert about["command"] == "iptkit study --scale smoke --part curves"
        assert about["not finished"] == list(learning_curves.jobs(study))[3:]
        result_files.write(out, [*result_files.read(out)] * 2)
        with pytest.raises(ValueError, match="only 12 rows are finished in .* has 24"):
            learning_curves.write(study, out, finished_only=True)
