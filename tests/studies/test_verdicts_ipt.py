"""Verdicts of a study with folds, on rows made by hand with known effects."""

from types import SimpleNamespace

import folded
import pytest

from iptkit.scores import claims, intervals, summary
from iptkit.studies import scales, study_files, unseen
from iptkit.studies import verdicts_ipt as vf
from iptkit.studies.score_rows import DECODERS

AROUND, FASTFOOD = DECODERS["random_around"], DECODERS["fastfood_around"]
HOLDS, IN_PART, FAILS, OPEN = claims.VERDICTS


def verdict_of(name, rows):
    return next(v for v in vf.verdicts(rows) if v["name"] == name)


def test_every_criterion_has_its_measurement():
    asked = {one.effect: one.measure for claim in vf.judged().values() for one in claim.criteria}
    assert list(vf.judged()) == ["A1", "A3", "A4", "A7", "A8", "A9", "A10", "A12", "A13", "A14"]
    assert asked.keys() == vf.EFFECTS.keys(), "none is missing, none is left over"
    kinds = {"E_rel": vf.Kept, "reconstruction": vf.Level}
    for effect, measure in asked.items():
        assert isinstance(vf.EFFECTS[effect], kinds.get(measure, vf.Gap | vf.Steadier)), effect
    with pytest.raises(ValueError, match="nothing says how to measure 'a − b'; EFFECTS has IST − random"):
        vf.effect_of(folded.rows(groups=6), claims.Criterion("a − b", "score", "more", 0.0, 0.0))


def test_verdicts_find_the_effects_that_were_put_in():
    found = {v["name"]: v for v in vf.verdicts(folded.rows())}
    wanted = dict.fromkeys(vf.judged(), HOLDS) | {"A1": IN_PART}
    assert {name: v["verdict"] for name, v in found.items()} == wanted
    effects = {one["effect"]: one for v in found.values() for one in v["effects"]}
    for effect, mean in (
        ("IST − random directions around the mean code, unseen tasks", 0.3),
        ("MSF − mean code, seen tasks", 0.5),
        ("IST − mean code, seen tasks with new data", 0.5),
        ("IST − mean code, unseen tasks", 0.4),
        ("IST in a subspace of other tasks − in one of classifications, other tasks", 0.4),
        ("IST with 100 seen tasks − with 20, unseen tasks", 0.2),
        ("stage two − prompt tuning from words, unseen tasks", 0.2),
        ("IST of adapters − IST of prompts, unseen tasks", 0.15),
        ("IST − Fastfood around the mean code, unseen tasks", 0.3),
        ("IST − DID, unseen tasks", 0.5),
        ("IST, unseen tasks", 0.7),
        ("IST, seen tasks with new data", 0.9),
        ("error of a seen task's rebuilt prompt (the mean prompt has 1)", 0.3),
    ):
        one = effects[effect]
        assert one["mean"] == pytest.approx(mean, abs=0.03), effect
        assert one["low"] < one["mean"] < one["high"] and one["groups"] in (10, 20)
    assert effects["IST, unseen tasks"]["equal"] == 0.1 and effects["IST, unseen tasks"]["asks"] == "about"
    assert (found["A1"]["num_tasks"], found["A1"]["num_seeds"]) == (30, 2)
    assert (found["A4"]["num_tasks"], found["A4"]["num_seeds"]) == (30, 1)
    assert "E_rel of IST, unseen tasks (30 in 20 groups) 0.70" in found["A7"]["here"]
    assert "(0.55 is asked for)" in found["A7"]["here"] and "undecided" not in found["A7"]["here"]
    assert " nats, p < 0.001" in found["A4"]["here"]
    assert "(less than 0.03 is asked for)" in found["A9"]["here"]
    assert "other tasks (20 in 10 groups) +" in found["A9"]["here"]


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("A1", {"IST": (0.80, -0.2)}, HOLDS),
        ("A1", {AROUND: (0.6, -0.1)}, FAILS),  # the control wins, and E_rel is 0.7
        ("A1", {AROUND: (0.6, -0.1), "IST": (0.80, -0.2)}, IN_PART),
        ("A1", {AROUND: (0.56, -0.205)}, FAILS),  # no difference within the margin
        ("A3", {"MSF": (0.70, -0.61)}, IN_PART),
        ("A4", {"mean code": (0.4, -0.2)}, IN_PART),
        ("A4", {"mean code": (0.4, 0.0)}, FAILS),
        ("A7", {"IST": (0.30, -0.2)}, IN_PART),
        ("A8", {"IST": (0.80, -0.2)}, IN_PART),
        ("A9", {"IST cls on others": (0.4, -0.7)}, IN_PART),
        ("A9", {"IST cls on cls": (0.2, -0.9), "IST cls on others": (0.4, -0.2)}, FAILS),
        ("A10", {"IST few": (0.7, -0.205)}, FAILS),
        ("A10", {"IST few": (0.7, 0.1)}, FAILS),
        ("A12", {unseen.STAGE_TWO: (0.85, 0.0)}, IN_PART),
        ("A13", {"IST, adapters": (0.66, -0.4)}, IN_PART),
        ("A14", {"DID": (0.3, -0.1), FASTFOOD: (0.3, -0.1)}, FAILS),
        ("A14", {"DID": (0.3, -0.1)}, IN_PART),
    ],
)
def test_verdicts_on_other_effects(name, changes, verdict):
    assert verdict_of(name, folded.rows(changes))["verdict"] == verdict


def test_a_clear_effect_that_makes_no_difference_holds_in_part():
    rows = folded.rows({"IST few": (0.46, -0.22)}, groups=40, noise=(0.01, 0.005))
    found = verdict_of("A10", rows)
    (effect,) = found["effects"]
    assert 0 < effect["low"] and effect["high"] < 0.05 and effect["p"] <= 0.05
    assert found["verdict"] == IN_PART


def test_runs_that_vary_more_are_not_steadier():
    swapped = {unseen.STAGE_TWO: 0.05, unseen.FROM_WORDS: 0.01}
    assert verdict_of("A12", folded.rows(runs=swapped))["verdict"] == IN_PART
    (_, less) = verdict_of("A12", folded.rows(noise=(0, 0), groups=8))["effects"]
    assert less["mean"] == pytest.approx(0.04 * 5**0.5 / 3**0.5), "deviations of four even steps"


def test_five_groups_decide_nothing():
    found = vf.verdicts(folded.rows(groups=5))
    assert len(found) == 10 and {v["verdict"] for v in found} == {OPEN}
    assert all("undecided: it takes 6 groups" in v["here"] for v in found)
    assert verdict_of("A4", folded.rows(groups=6))["verdict"] == HOLDS


def test_an_undecided_effect_says_what_could_have_been_seen():
    rows = folded.rows({FASTFOOD: (0.44, -0.25)}, groups=10, noise=(0.01, 0.3))
    found = verdict_of("A14", rows)
    effect = found["effects"][0]
    assert effect["verdict"] == OPEN and effect["smallest"] > 0.15
    said = f"undecided: this design sees differences of {effect['smallest']:.3f} nats and more"
    assert said in found["here"]
    half = (effect["high"] - effect["low"]) / 2
    assert effect["smallest"] == pytest.approx(half * (2.262 + 0.883) / 2.262, rel=1e-3), (
        "9 degrees of freedom"
    )


def test_folds_do_not_mix():
    rows = folded.rows()
    wrong = {"score": 9.0, "log_likelihood": 9.0}
    absurd = [r | wrong if {"_", "c"} & {*r.get("fold", "")} else r for r in rows]  # fold1_20, cls1, non_cls1
    before, after = ({v["name"]: v for v in vf.verdicts(of)} for of in (rows, absurd))
    for name in before:
        assert (before[name] == after[name]) == (name not in ("A9", "A10")), name
    with pytest.raises(ValueError, match="on the unseen side of .* choose one kind of folds"):
        summary.difference(rows, ("IST", 5), ("zero-shot", 0), "unseen")


def test_a_claim_is_judged_where_all_it_compares_was_measured():
    rows = folded.rows(groups=8)
    kept = [r for r in rows if r["method"] not in ("DID", unseen.STAGE_TWO)]
    assert [v["name"] for v in vf.verdicts(kept)] == ["A1", "A3", "A4", "A7", "A8", "A9", "A10", "A13"]
    some = [r for r in rows if r["method"] != "IST, adapters" or r["fold"] == "fold1"]
    mine = [v for v in vf.verdicts(some) if v["name"] == "A13"]
    assert [e["groups"] for e in mine[0]["effects"]] == [3, 3] and mine[0]["verdict"] == OPEN
    at_50 = [r | {"d_I": r["d_I"] and {5: 7}.get(r["d_I"], 50)} for r in rows]
    assert "A7" not in {v["name"] for v in vf.verdicts(at_50, 7)}, "the paper's figures are for d_I = 5"


def test_a_deviation_takes_two_runs():
    one = [r for r in folded.rows() if r["method"] != unseen.STAGE_TWO or r.get("run") == 0]
    with pytest.raises(ValueError, match="fewer than two runs on .*stage_two_runs >= 2"):
        vf.run_deviations(one, unseen.STAGE_TWO)


def test_without_a_usable_reference_no_share_is_judged():
    low = [r | {"score": 0.01} if r["method"] == "prompt tuning" else r for r in folded.rows()]
    assert not {"A1", "A7"} & {v["name"] for v in vf.verdicts(low)}


def test_a_study_without_folds_is_not_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    monkeypatch.setattr(study_files.provenance, "write", lambda *_: 3)
    study = SimpleNamespace(scale=scales.load("full"), table=folded.rows)
    assert study_files.write(study, tmp_path / "rows.jsonl") == 3 and claims.found(tmp_path, "full") == []


def test_the_start_is_told_apart_from_tuning():
    lines = vf.starts(folded.rows())
    assert len(lines) == 8
    means = {(x["gain"], x["split"], x["measure"]): x["mean"] for x in lines}
    for side, directions in (("seen", 0.5), ("unseen", 0.4)):
        assert means["start", side, "log_likelihood"] == pytest.approx(0.4, abs=0.03)
        assert means["tuning", side, "log_likelihood"] == pytest.approx(directions, abs=0.03)
        assert 0.1 < means["start", side, "score"] < 0.2, "0.2 times how easy a task is"
    assert all(x["low"] < x["mean"] < x["high"] and x["p"] < 0.01 and x["groups"] == 20 for x in lines)


def test_ist_is_compared_with_every_control():
    rows = folded.rows({DECODERS["pca_around"]: (0.7, 0.0)})
    lines = vf.controls(rows)
    means = {x["control"]: x["mean"] for x in lines if x["measure"] == "log_likelihood"}
    assert list(means) == list(vf.CONTROLS) and len(lines) == 2 * len(vf.CONTROLS) == 14
    expected = dict.fromkeys(vf.CONTROLS, 0.3) | {DECODERS["pca_around"]: -0.2}
    expected |= {"mean code": 0.4, unseen.NEAREST: 0.2}
    assert means == pytest.approx(expected, abs=0.03)
    some = [r for r in rows if r["method"] != unseen.NEAREST]
    assert unseen.NEAREST not in {x["control"] for x in vf.controls(some)}


def test_every_category_has_its_own_lines():
    lines = vf.per_category(folded.rows())
    assert len(lines) == 3 * 4 * 2
    counts = {(x["category"], x["tasks"], x["groups"]) for x in lines}
    assert counts == {("cls", 10, 10), ("gen", 10, 5), ("qa", 10, 5)}
    kept = {(x["category"], x["split"]): x["E_rel"][0] for x in lines if x["method"] == "IST"}
    assert kept == pytest.approx({(c, s): {"seen": 0.9, "unseen": 0.7}[s] for c, s in kept}, abs=0.03)
    (line,) = (x for x in lines if (x["method"], x["category"], x["split"]) == ("IST", "gen", "unseen"))
    rows = [
        r
        for r in summary.of_folds(folded.rows())
        if (r["method"], r["d_I"], r["category"], r["split"]) == ("IST", 5, "gen", "unseen")
    ]
    assert line["log_likelihood"] == intervals.over_tasks(intervals.by_task(rows, "log_likelihood"), rows)


def test_writing_a_finished_study_with_folds_records_its_verdicts(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    monkeypatch.setattr(study_files.provenance, "write", lambda *_: 3)
    rows = folded.rows()
    study = SimpleNamespace(scale=scales.load("ipt120"), table=lambda: rows)
    assert study.scale.folds and study_files.write(study, tmp_path / "rows.jsonl", finished_only=True) == 3
    assert claims.found(tmp_path, "ipt120") == [], "unfinished"
    assert study_files.write(study, tmp_path / "rows.jsonl") == 3
    recorded = claims.found(tmp_path, "ipt120")
    judged = vf.verdicts(rows)
    assert [(r["claim"], r["here"], r["verdict"], r["tasks"], r["seeds"]) for r in recorded] == [
        (v["name"], v["here"], v["verdict"], v["num_tasks"], v["num_seeds"]) for v in judged
    ]
    assert "A1  HOLDS IN PART" in claims.as_text(recorded)
