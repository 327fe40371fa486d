"""The tables of the results page, read from the page and computed again by pandas from the stored rows.

`test_recomputed` does the same with effects, intervals and verdicts. Means are compared to the last printed
digit. Intervals over thirty groups and more are drawn, so they may be off by a few hundredths of their width.
"""

import functools
import re
from pathlib import Path

import pandas as pd
import pytest
from recomputed import above_chance, framed, judged, kept, means, mine, ratio_of_means, student

from iptkit.studies import stored_results

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
METHODS = {  # words of the page -> method in the rows
    "prompt of the nearest seen task, not tuned": "nearest task's prompt",
    "mean code, not tuned": "mean code",
    "random directions of all weights (DID)": "DID",
    "random directions of all weights (DID), around the mean code": "DID around the mean code",
    "MSF: the task's own prompt, encoded and decoded": "MSF",
    "IST on the examples of the task's own prompt": "IST, same data",
    "**IST**": "IST",
    "IST through a random decoder": "random decoder",
    "adapters of the seen tasks, not tuned": "shared adapters",
    "IST through random adapters": "random adapters",
    "random directions around the adapters of the seen tasks": "random around shared",
    "IST through adapters": "IST, adapters",
    "prompt tuning on IST's examples, from words": "prompt tuning, same runs",
    "prompt tuning on IST's examples, from IST's solution (stage two)": "stage two",
    "fine-tuning of all weights": "fine-tuning",
}
COLUMNS = ["score", "E_rel", "E_rel above chance", "ratio of means", "log-likelihood (nats)"]


@functools.cache
def table(first, second):
    """The lines of the page's table with these first columns: column -> cell."""
    begin = re.escape(f"| {first} | {second} |")
    (found,) = re.findall(rf"^{begin}.*\n(?:\|.*\n)+", PAGE.read_text("utf-8"), re.M)
    names, _, *lines = ([cell.strip() for cell in line[1:-1].split("|")] for line in found.splitlines())
    return [dict(zip(names, line, strict=True)) for line in lines]


def numbers(cell):
    return [float(number) for number in re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?", cell)]


def places(cell):
    return 0.5 * 10.0 ** -len(re.search(r"\d+\.(\d+)", cell)[1]) + 1e-9


def check(cell, values, group, place, count=None):
    """A cell "mean [low, high] (tasks)" is that of values by task; `count`: if it tells no tasks, so many."""
    mean, low, high, *said = numbers(cell)
    own = judged(values, group, "more", 0.0, 0.0)
    width = own["high"] - own["low"]
    drawn = max(0.005, 0.08 * width) if group[values.index].nunique() >= 30 else 0.0
    assert mean == pytest.approx(own["mean"], abs=places(cell)), place
    assert (low, high) == pytest.approx((own["low"], own["high"]), abs=drawn + 0.005 + 1e-9), place
    assert (said or [count or len(values)]) == [len(values)], place


def over_samples(rows):
    """Mean and interval over few-shot samples, as the page has them with fewer than four tasks."""
    of_task = rows.groupby("task").score
    count, mean = len(of_task), of_task.mean().mean()
    half = student(0.975, (of_task.size() - 1).sum()) * (of_task.var() / of_task.size()).sum() ** 0.5 / count
    return mean, mean - half, mean + half


def test_the_table_of_all_methods_is_found_again():
    frame, group = framed(stored_results.load_rows("ipt120")[0])
    lines, shown = table("method", "side"), set()
    for line in lines:
        words, dim = re.fullmatch(r"(.*?)(?:, d_I = (\d+))?", line["method"]).groups()
        method, side = METHODS.get(words, words), line["side"]
        own = mine(frame, method, "unseen" if side == "both" else side, dim=int(dim or 0))
        whole = mine(frame, "prompt tuning", "unseen" if side == "both" else side)
        tasks = own.task.nunique()
        assert int(line["tasks"]) == tasks > 0, line
        by_task = [means(own, "score"), kept(own, whole), above_chance(own, whole)]
        for name, values in zip(COLUMNS, by_task, strict=False):
            check(line[name], values, group, (line, name), tasks)
        check(line["log-likelihood (nats)"], means(own, "log_likelihood"), group, line, tasks)
        assert numbers(line["ratio of means"]) == pytest.approx([ratio_of_means(own, whole)], abs=0.00501), (
            line
        )
        shown.add((method, side if side != "both" else "unseen"))
    is_main = (frame.fold == "") | frame.fold.str.fullmatch(r"fold\d+")
    there = {
        (m, "unseen" if s == "both" else s)
        for m, s in zip(frame[is_main].method, frame[is_main].split, strict=True)
    }
    assert shown == there, "every method has its line"


def of_curve(curves, name):
    """The rows of a curve, by the name that the page gives it."""
    if name.startswith("rates, "):
        return curves[(curves.stage == "rates") & (curves.method == name.removeprefix("rates, "))]
    if name.startswith("IST, MSF "):
        return curves[(curves.stage == "ist") & (curves.msf == name.removeprefix("IST, MSF "))]
    return curves[curves.stage == {"prompt tuning": "prompts", "MSF": "msf"}[name]]


def test_budgets_rates_and_the_recipe_are_found_again():
    curves = pd.DataFrame(stored_results.load_rows("curves")[0])
    group = curves.drop_duplicates("task").set_index("task").group
    lines, chosen = table("curve", "budget"), {}
    for name in dict.fromkeys(line["curve"] for line in lines):
        rows = of_curve(curves, name)
        of = {(budget, f"{lr:g}"): each for (budget, lr), each in rows.groupby(["budget", "lr"])}
        losses = {which: each.set_index("task").dev_loss for which, each in of.items()}
        best = min(losses, key=lambda which: losses[which].mean())
        said = [line for line in lines if line["curve"] == name]
        assert {(line["budget"], line["learning rate"]) for line in said} == of.keys()
        good = [which for which in of if losses[which].mean() <= losses[best].mean() + 0.02]
        cheapest = min(good, key=lambda which: of[which].cpu_seconds.mean())
        picked = best if name.startswith("rates, ") else cheapest
        for line in said:
            which = line["budget"], line["learning rate"]
            assert numbers(line["loss on dev"]) == pytest.approx([losses[which].mean()], abs=0.00051), line
            if which == best:
                assert line["above the lowest"] == "+0.000 [+0.000, +0.000]"
            else:
                check(line["above the lowest"], losses[which] - losses[best], group, line)
            for column, value in (("test log-likelihood", "log_likelihood"), ("test score", "score")):
                own = of[which][value].dropna()
                assert numbers(line[column]) == pytest.approx([own.mean()] if len(own) else [], abs=0.00051)
            seconds = numbers(line["CPU seconds per run"])
            assert seconds == pytest.approx([of[which].cpu_seconds.mean()], abs=0.051), line
            assert (line["choice"] == "chosen") == (which == picked), line
            if which == picked:
                chosen[name.removeprefix("rates, ") + (": learning rate" if "rates" in name else "")] = which
    for line in table("what", "chosen"):
        name, of = line["what"].rsplit(": ", 1)
        budget, rate = chosen[line["what"] if of == "learning rate" else name]
        shown = {"budget": budget, "learning rate": rate, "budget, learning rate": f"{budget}, {rate}"}[of]
        mine_too = line["in the study"] in ("", shown)
        assert line["chosen"] == (shown if mine_too else f"**{shown}**"), line


@pytest.mark.parametrize("side", ["seen", "unseen"])
def test_the_table_of_deep_prompts_is_found_again(side):
    for name, scale in (("shallow", "lesson"), ("deep", "lesson-deep")):
        frame = pd.DataFrame(stored_results.load_rows(scale)[0])
        group = frame.drop_duplicates("task").set_index("task").group
        for line in table("method", "score, seen, shallow"):
            method = METHODS.get(line["method"], line["method"])
            own = frame[(frame.method == method) & frame.split.isin([side, "both"]) & frame.d_I.isin([0, 5])]
            if not len(own):
                assert line[f"score, {side}, {name}"] == "", line
                continue
            check(line[f"score, {side}, {name}"], means(own, "score"), group, (line, side, name))


def test_the_table_of_encoders_is_found_again():
    frame = pd.DataFrame(stored_results.load_rows("encoder9")[0])
    group = frame.drop_duplicates("task").set_index("task").group
    frame = frame[frame.part == "compared"]
    for line in table("mean score", "trainable parameters"):
        own = frame[frame.method == line["mean score"]]
        assert numbers(line["trainable parameters"].replace(",", "")) == pytest.approx(
            [own.groupby("task").numbers.mean().mean()], abs=0.51
        ), line
        for kind, category in (("classification", "cls"), ("tagging", "tag")):
            for words, data in (("all examples", "full"), ("few examples", "few-shot")):
                some, cell = own[(own.category == category) & (own.data == data)], line[f"{kind}, {words}"]
                if not len(some):
                    assert cell == "", line
                    continue
                by_task = means(some, "score")
                if len(by_task) < 4:
                    assert numbers(cell) == pytest.approx([*over_samples(some), len(by_task)], abs=0.0051)
                else:
                    check(cell, by_task, group, (line, kind, words))
