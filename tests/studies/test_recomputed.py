"""Every effect, interval, p and verdict of the big studies once more, by pandas and numpy alone.

The definitions stand in `recomputed`, which uses nothing of `intervals`, `summary` or the criteria's code.
The rows are made by hand, and those stored of the studies `ipt120` and `encoders`.
"""

import functools
import json
import math

import encoded
import folded
import numpy as np
import pandas as pd
import pytest
from recomputed import (
    above_chance,
    deviations,
    framed,
    gap,
    judged,
    kept,
    means,
    mine,
    ratio_of_means,
    student,
    verdict_of,
)

from iptkit.scores import summary
from iptkit.storage import paths
from iptkit.studies import learning_curves, stored_results, verdicts_encoders, verdicts_ipt

FEW, CLS, NON_CLS = r"fold\d+_\d+", r"cls\d+", r"non_cls\d+"


def effects_of(frame):
    """(claim, number of the criterion) -> a value per task."""

    def of(*args, **kwargs):
        return mine(frame, *args, **kwargs)

    both, unseen = {}, "unseen"
    for side in ("seen", "unseen"):
        both[side] = of("IST", side), of("mean code", side), of("prompt tuning", side)
    ist, code, tuned = both["unseen"]
    ist_seen, code_seen, tuned_seen = both["seen"]
    ll, words = "log_likelihood", of("prompt tuning, same runs", unseen)
    in_cls = {is_cls: of("IST", unseen, CLS, is_cls) for is_cls in (True, False)}
    adapters = of("IST, adapters", unseen)
    return {
        ("A1", 0): gap(ist, of("random directions around the mean code", unseen), ll),
        ("A1", 1): kept(ist, tuned),
        ("A3", 0): of("MSF", "seen").groupby("task").reconstruction.mean(),
        ("A3", 1): gap(of("MSF", "seen"), code_seen, ll),
        ("A4", 0): gap(ist_seen, code_seen, ll),
        ("A4", 1): gap(ist, code, ll),
        ("A7", 0): kept(ist_seen, tuned_seen),
        ("A7", 1): kept(ist, tuned),
        ("A8", 0): gap(tuned_seen, ist_seen, "score"),
        ("A8", 1): gap(tuned, ist, "score"),
        ("A9", 0): gap(in_cls[True], of("zero-shot", unseen), "score"),
        ("A9", 1): gap(in_cls[False], of("zero-shot", unseen), "score"),
        ("A9", 2): gap(of("IST", unseen, NON_CLS, False), in_cls[False], ll),
        ("A10", 0): gap(ist, of("IST", unseen, FEW), ll),
        ("A12", 0): gap(of("stage two", unseen), words, ll),
        ("A12", 1): (deviations(words) - deviations(of("stage two", unseen))).dropna(),
        ("A13", 0): gap(adapters, ist, ll),
        ("A13", 1): gap(adapters, of("shared adapters", unseen), ll),
        ("A14", 0): gap(ist, of("Fastfood around the mean code", unseen), ll),
        ("A14", 1): gap(ist, of("DID", unseen), ll),
    }


def overall(verdicts):
    """One verdict for all criteria of a claim."""
    if len({*verdicts}) == 1:
        return verdicts[0]
    if "holds" in verdicts:
        return "holds in part"
    return next(said for said in ("does not hold here", "not testable at this scale") if said in verdicts)


CHANGED = {  # a control wins, others are within the margin
    "random directions around the mean code": (0.6, -0.1),
    "Fastfood around the mean code": (0.5, -0.205),
    "IST few": (0.5, -0.19),
    "IST cls on others": (0.23, -0.6),
    "prompt tuning": (0.70, 0.0),
}

BY_HAND = {  # groups, changed effects, noise of score and log-likelihood
    "few groups": (8, None, (0.01, 0.03)),
    "five groups": (5, None, (0.01, 0.03)),
    "more groups": (22, CHANGED, (0.03, 0.2)),
    "many groups": (44, CHANGED, (0.02, 0.1)),
    "noise": (44, {}, (0.15, 1.5)),
    "little noise": (44, CHANGED | {"IST few": (0.5, -0.23)}, (0.01, 0.01)),
}


def rows_named(name):
    if name == "stored":
        return stored_results.load_rows("ipt120")[0]
    groups, changes, noise = BY_HAND[name]
    return folded.rows(changes, groups, noise, seed=groups)


@pytest.mark.parametrize("name", [*BY_HAND, "stored"])
def test_every_number_is_found_again(name):
    rows = rows_named(name)
    frame, group = framed(rows)
    values = effects_of(frame)

    def again(claim, number, how):
        return values[claim, number], judged(values[claim, number], group, *how)

    found = {v["name"]: v for v in verdicts_ipt.verdicts(rows)}
    measured = {claim for claim, _ in values if name != "stored" or claim in found}
    assert {"A1", "A3", "A4", "A7", "A8"} <= measured
    compare("A", found, group, again, measured)


def apart_of(frame):
    """Comparison -> values per task of the whole difference, of the starts and of tuning."""

    def of(*args):
        return mine(frame, *args)

    unseen, adapters, shared = "unseen", "IST, adapters", "shared adapters"
    ist, code = of("IST", unseen), of("mean code", unseen)
    pairs = {
        "IST in a subspace of other tasks − in one of classifications, other tasks": (
            (of("IST", unseen, NON_CLS, False), of("mean code", unseen, NON_CLS, False)),
            (of("IST", unseen, CLS, False), of("mean code", unseen, CLS, False)),
        ),
        "IST with 100 seen tasks − with 20": (
            (ist, code),
            (of("IST", unseen, FEW), of("mean code", unseen, FEW)),
        ),
        "IST of adapters − IST of prompts": ((of(adapters, unseen), of(shared, unseen)), (ist, code)),
        "IST of adapters − random directions around the shared adapters": (
            (of(adapters, unseen), of(shared, unseen)),
            (of("random around shared", unseen), of(shared, unseen)),
        ),
        "IST − DID": ((ist, code), (of("DID", unseen), of("zero-shot", unseen))),
        "IST − DID around the mean code": ((ist, code), (of("DID around the mean code", unseen), code)),
    }
    found = {}
    for words, ((first, start), (second, other)) in pairs.items():
        for measure in ("score", "log_likelihood"):
            a, s, b, o = (means(rows, measure) for rows in (first, start, second, other))
            parts = {"whole": a - b}
            if words not in SAME_START:
                parts |= {"starts": s - o, "tuning": (a - s) - (b - o)}
            tasks = a.index.intersection(s.index).intersection(b.index).intersection(o.index)
            found |= {(words, part, measure): v[tasks] for part, v in parts.items() if len(tasks)}
    return found


SAME_START = {
    "IST of adapters − random directions around the shared adapters",
    "IST − DID around the mean code",
}


@pytest.mark.parametrize("name", ["few groups", "many groups", "stored"])
def test_the_parts_of_a_difference_are_found_again(name):
    rows = rows_named(name)
    frame, group = framed(rows)
    values = apart_of(frame)
    lines = {(x["comparison"], x["part"], x["measure"]): x for x in verdicts_ipt.apart(rows)}
    assert lines.keys() == values.keys() and len(lines) >= 20
    for which, line in lines.items():
        own = judged(values[which], group, "more", 0.0, 0.0)
        assert line["tasks"] == len(values[which]) and line["mean"] == pytest.approx(own["mean"], abs=1e-9), (
            which
        )
        width = max(0.005, 0.08 * (own["high"] - own["low"])) if line["groups"] >= 30 else 1e-6
        assert (line["low"], line["high"]) == pytest.approx((own["low"], own["high"]), abs=width), which
        assert line["p"] == pytest.approx(own["p"], abs=0.02 if line["groups"] > 12 else 1e-12), which
    for words, part, measure in lines:
        if part == "tuning":
            parts = [lines[words, one, measure]["mean"] for one in ("starts", "tuning", "whole")]
            assert parts[0] + parts[1] == pytest.approx(parts[2], abs=1e-9)


def test_what_is_above_chance_is_found_again():
    rows = rows_named("stored")
    frame, _ = framed(rows)
    frame["above"] = frame.score - frame.chance
    for method in ("IST", "prompt tuning"):
        chosen = verdicts_ipt.Arm(method).of(verdicts_ipt.at(rows, 5))
        found = {task: np.mean(of) for task, of in summary.above_chance(chosen).items()}
        assert found == pytest.approx(dict(means(mine(frame, method, "unseen"), "above")))
    few = kept(mine(frame, "IST", "unseen"), mine(frame, "prompt tuning", "unseen"))
    (line,) = summary.summary(
        verdicts_ipt.at(summary.of_folds(rows), 5), [("IST", 5)], ["unseen"], crossed=True
    )
    assert line["E_rel tasks"] == len(few)


def compare(letter, found, group, again, measured=None):
    """Every number of the verdicts `found`, and that of `again(claim, number, how)`: values and `judged`.

    `measured`: the claims that have to be there; None for all.
    """
    claims = json.loads((paths.data_dir() / "claims.json").read_text("utf-8"))
    wanted = [name for name, claim in claims.items() if name[0] == letter and claim.get("criteria")]
    wanted = [name for name in wanted if measured is None or name in measured]
    assert list(found) == wanted
    for claim in wanted:
        asked, effects = claims[claim]["criteria"], found[claim]["effects"]
        verdicts, tasks = [], set()
        for number, (criterion, effect) in enumerate(zip(asked, effects, strict=True)):
            how = (criterion["asks"], criterion["value"], criterion["equal"])
            of_tasks, own = again(claim, number, how)
            place = f"{claim}, {criterion['effect']}: {effect} and {own}"
            assert effect["effect"] == criterion["effect"] and effect["tasks"] == len(of_tasks), place
            assert effect["groups"] == group[of_tasks.index].nunique(), place
            assert effect["mean"] == pytest.approx(own["mean"], abs=1e-9), place
            is_drawn = effect["groups"] >= 30 and "least_groups" not in effect
            width = (
                max(0.005, 0.08 * (own["high"] - own["low"])) if is_drawn else 1e-6
            )  # quantiles of 2000 draws
            if len(of_tasks) >= 4:
                assert (effect["low"], effect["high"]) == pytest.approx(
                    (own["low"], own["high"]), abs=width
                ), place
            assert effect["smallest"] == pytest.approx(own["smallest"], rel=1e-5, abs=1e-12), place
            assert effect["p"] == pytest.approx(own["p"], abs=0.02 if effect["groups"] > 12 else 1e-12), place
            assert effect["verdict"] == own["verdict"], place
            verdicts.append(own["verdict"])
            tasks |= {*of_tasks.index}
            said = f"{effect['mean']:.2%}" if effect["measure"] == "share" else f"{effect['mean'] + 0.0:.3f}"
            assert said.lstrip("-") in found[claim]["here"] or effect.get("digits"), place
        assert found[claim]["verdict"] == overall(verdicts)
        assert found[claim]["num_tasks"] == len(tasks)


def test_the_rows_made_by_hand_give_every_verdict():
    given = {
        e["verdict"] for n in BY_HAND for v in verdicts_ipt.verdicts(rows_named(n)) for e in v["effects"]
    }
    assert given == {"holds", "holds in part", "does not hold here", "not testable at this scale"}


ENCODERS = {  # arguments of encoded.rows
    "as in the paper": {},
    "five groups": {"groups": 10},
    "seven groups of a kind": {"groups": 14, "noise": 0.02, "spread": 0.0, "seed": 2},
    "noise": {"noise": 0.2, "seed": 3, "groups": 62, "spread": 0.0},
    "other effects": {
        "changes": {"MPT-2": (0.706, 0.706), "prompt tuning": (0.6, 0.69), "length 64": (0.6, 0.7)},
        "noise": 0.005,
        "groups": 40,
        "untrained": ("t2a", "t3a", "t3b"),
    },
}


@functools.cache
def encoders_named(name):
    """Rows, and verdicts on them by claim."""
    rows = _encoders_named(name)
    return rows, {v["name"]: v for v in verdicts_encoders.verdicts(rows)}


def _encoders_named(name):
    if name != "stored":
        return encoded.rows(**ENCODERS[name])
    if not (paths.data_dir() / "results" / "encoders.jsonl").is_file():
        pytest.skip("rows of the study of encoders are not stored yet: data/results/encoders.jsonl")
    return stored_results.load_rows("encoders")[0]


@pytest.mark.parametrize("name", [*ENCODERS, "stored"])
def test_every_number_of_the_encoders_is_found_again(name):
    rows, found = encoders_named(name)
    frame = pd.DataFrame(rows)
    group = frame.drop_duplicates("task").set_index("task").group
    values = encoder_effects(frame)

    def again(claim, number, how):
        if (claim, number) != ("B3", 2):
            return values[claim, number], judged(values[claim, number], group, *how)
        return contrast(values["B3", 0], values["B3", 1], group, *how)

    compare("B", found, group, again)


def test_the_encoders_made_by_hand_give_every_verdict():
    given = {e["verdict"] for n in ENCODERS for v in encoders_named(n)[1].values() for e in v["effects"]}
    assert given == {"holds", "holds in part", "does not hold here", "not testable at this scale"}


def encoder_effects(frame):
    """(claim, number of the criterion) -> a value per task."""
    full = frame[frame.data == "full"]
    is_cut = full.backbone.str.endswith("first 3 layers")
    counts = full.is_trained.map(lambda said: said is not False)
    main = full[(full.part == "compared") & counts]
    whole, cut = main[~main.backbone.str.contains("first")], main[is_cut[main.index]]

    def of(rows, column, category=None):
        """Task -> sample -> mean score of each value in a column."""
        some = rows if category is None else rows[rows.category == category]
        return some.pivot_table(index=["task", "seed"], columns=column, values="score", aggfunc="mean")

    def minus(table, first, second):
        return (table[first] - table[second]).dropna().groupby("task").mean()

    def methods(first, second, rows=whole, category=None):
        return minus(of(rows, "method", category), first, second)

    lengths, depths, forms = (full[full.part == part] for part in ("lengths", "depths", "forms"))
    gains = of(forms, "form").pipe(lambda t: t["mlp"] - t["embedding"]).unstack("seed").dropna()
    centred = gains - gains.mean()
    products = centred.prod(axis=1) * len(gains) / (len(gains) - 1)
    assert products.mean() == pytest.approx(np.cov(gains.T.to_numpy())[0, 1])
    share = whole[whole.method == "P-Tuning v2"].groupby("task").share.mean()
    heads, deep, tuned = of(frame[frame.part == "heads"], "head"), "P-Tuning v2", "fine-tuning"
    return {
        ("B3", 0): methods(tuned, "prompt tuning", category="tag"),
        ("B3", 1): methods(tuned, "prompt tuning", category="cls"),
        ("B4", 0): share,
        ("B4", 1): share,
        ("B4", 2): methods(deep, "prompt tuning"),
        ("B5", 0): minus(of(forms, "form"), "embedding", "mlp"),
        ("B5", 1): products,
        ("B6", 0): minus(of(lengths, "length", "tag"), 64, 16),
        ("B6", 1): minus(of(lengths, "length", "cls"), 64, 16),
        ("B7", 0): methods("MPT-2", deep),
        ("B8", 0): methods(deep, "commonest answer", category="cls"),
        ("B8", 1): methods(deep, "commonest answer", category="tag"),
        ("B8", 2): minus(heads, "linear", "LM head"),
        ("B9", 0): methods(deep, tuned, category="cls"),
        ("B9", 1): methods(deep, tuned, category="tag"),
        ("B9", 2): methods(deep, tuned, cut),
        ("B10", 0): minus(of(depths[depths.layers < 6], "order"), "last", "first"),
    }


def contrast(first, second, group, asks, value, equal):
    """The mean of `first` − that of `second`, as `judged` gives it, with Welch's interval."""
    errors, freedoms, deviations = [], [], []
    for side in (first, second):
        each = (side - side.mean()).groupby(group[side.index]).sum()
        errors.append(((each**2).sum() * len(each) / (len(each) - 1)) / len(side) ** 2)
        freedoms.append(len(each) - 1)
        deviations.append((side - side.mean()) / len(side))
    mean, error = first.mean() - second.mean(), sum(errors) ** 0.5
    freedom = sum(errors) ** 2 / sum(e**2 / f for e, f in zip(errors, freedoms, strict=True))
    low, high = (mean + sign * student(0.975, freedom) * error for sign in (-1, 1))
    count = len(first) + len(second)
    each = mean + count * pd.concat([deviations[0], -deviations[1]])
    p = judged(each, group, asks, value, equal)["p"]
    verdict = verdict_of(low, high, p, min(freedoms) + 1, asks, value, equal)
    smallest = (student(0.975, freedom) + student(0.8, freedom)) * error
    names = {"mean": mean, "low": low, "high": high, "p": p, "smallest": smallest, "verdict": verdict}
    return each, names


# ---- what the results page shows besides -----------------------------------------------------------
def check(line, values, group, place, value=0.0):
    """Mean, interval and p of a line are those of values by task."""
    own = judged(values, group, "more", value, 0.0)
    is_drawn = group[values.index].nunique() >= 30
    width = max(0.005, 0.08 * (own["high"] - own["low"])) if is_drawn else 1e-6
    assert line["mean"] == pytest.approx(own["mean"], abs=1e-9), place
    assert (line["low"], line["high"]) == pytest.approx((own["low"], own["high"]), abs=width), place
    if "p" in line:
        assert line["p"] == pytest.approx(own["p"], abs=0.02 if line["groups"] > 12 else 1e-12), place
        assert line["smallest"] == pytest.approx(own["smallest"], rel=1e-5), place


SHOWN = ["more groups", "many groups", "stored"]


@pytest.mark.parametrize("name", SHOWN)
def test_gains_and_controls_are_found_again(name):
    rows = rows_named(name)
    frame, group = framed(rows)
    for line in verdicts_ipt.starts(rows):
        side = line["split"]
        arms = [mine(frame, method, side) for method in ("zero-shot", "mean code", "IST")]
        below, above = arms[:2] if line["gain"] == "start" else arms[1:]
        check(line, gap(above, below, line["measure"]), group, line)
    ist, lines = mine(frame, "IST", "unseen"), verdicts_ipt.controls(rows)
    assert len(lines) == 14
    for line in lines:
        control = mine(frame, line["control"], "unseen")
        check(line, gap(ist, control, line["measure"]), group, line)


@pytest.mark.parametrize("name", SHOWN)
def test_shares_by_category_are_found_again(name):
    rows = rows_named(name)
    frame, group = framed(rows)
    for line in verdicts_ipt.per_category(rows):
        of = frame[frame.category == line["category"]]
        own, whole = (mine(of, method, line["split"]) for method in (line["method"], "prompt tuning"))
        found = {"E_rel": kept(own, whole), "E_rel above chance": above_chance(own, whole)}
        found |= {value: means(own, value) for value in ("score", "log_likelihood")}
        for value, by_task in found.items():
            if line[value] is None:
                assert by_task.empty
            elif group[by_task.index].nunique() >= 4:
                shown = dict(zip(("mean", "low", "high"), line[value], strict=True))
                check(shown, by_task, group, (line, value))
        assert line["ratio of means"] == pytest.approx(ratio_of_means(own, whole)), line
        assert line["tasks"] == own.task.nunique() and line["groups"] == own.group.nunique()


@pytest.mark.parametrize("name", ["by hand", "stored"])
def test_shares_by_budget_are_found_again(name):
    rows = folded.curves()
    if name == "stored":
        try:
            rows, _ = stored_results.load_rows("curves")
        except FileNotFoundError:
            pytest.skip("no learning curves are stored yet")
    frame, lines = pd.DataFrame(rows), learning_curves.relative(rows)
    assert bool(lines) == ({"prompts", "ist"} <= {*frame.stage})
    for line in lines:
        full = frame[
            (frame.stage == "prompts") & (frame.budget == line["prompts"]) & (frame.lr == line["lr"])
        ]
        codes = frame[(frame.stage == "ist") & (frame.msf == line["msf"]) & (frame.budget == line["ist"])]
        both = codes.merge(full, on="task")
        groups = both.group_x.nunique()
        assert (line["tasks"], line["groups"]) == (len(both), groups)
        for value, floor in (("ratio", 0.0), ("ratio above chance", 1.0)):
            own, whole = (both[f"score_{end}"] - floor * both[f"chance_{end}"] for end in "xy")
            if whole.sum() <= 0:
                assert line[value] is None
                continue
            ratio = own.sum() / whole.sum()
            off = ((own - ratio * whole) / whole.mean()).groupby(both.group_x).sum()
            half = student(0.975, groups - 1) * math.sqrt((off**2).sum() * groups / (groups - 1)) / len(both)
            assert line[value] == pytest.approx((ratio, ratio - half, ratio + half), abs=1e-6), line
