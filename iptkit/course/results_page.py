"""docs/results.md: the results of the course in tables and sentences, written from the stored rows.

`python -m iptkit.course.results_page` writes the page, its first figure (see `results_figure`) and, if the
rows of `ipt120` have folds, those in docs/figures/ (see `results_folds`). With `--check` it writes nothing
and exits with 1 if a file differs from the rows. Every value in the text is computed from
data/results/. Where a sentence depends on a sign, or on whether an interval contains 0, the code chooses its
words (see `verb`), so the sentences always agree with the rows.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iptkit.course import results_folds, sentences
from iptkit.course.folds_figures import pictures
from iptkit.course.folds_study import Folds, have_folds
from iptkit.course.folds_tables import claims_table
from iptkit.course.results_figure import SIDES, alt, figure, in_words, num_tasks
from iptkit.course.sentences import SAME, Gap, against, bullets, folded, listed, than, verb, with_interval
from iptkit.methods import shares, subspace
from iptkit.scores import claims, intervals, summary
from iptkit.scores.intervals import difference_text
from iptkit.storage import files
from iptkit.studies import stored_results, unseen, verdicts_ipt, verdicts_ptuning_v2, verdicts_splits

Rows = Sequence[dict[str, Any]]
Method = tuple[str, int]  # its name and d_I; 0 for a method without d_I
STUDIES = ("core36", "ipt120", "lesson", "lesson-deep", "encoder9")  # files of data/results
BEFORE_FOLDS = ("ipt120-long",)  # and these, as long as the rows of ipt120 have no folds
DECISIVE = ("ipt120", "full", "lesson")  # the verdict at the first of these scales counts
NEAR = 0.001  # a score; an interval that ends this close to 0 decides little
ZERO, TUNED, FINE = ("zero-shot", 0), ("prompt tuning", 0), ("fine-tuning", 0)
NEAREST = ("nearest task's prompt", 0)
METHODS = {  # (method, has a d_I) -> its name here, what it trains per task ("": d_I parameters)
    ("zero-shot", 0): ("zero-shot", "0"),
    ("mean prompt", 0): ("mean prompt of the seen tasks, not tuned", "0"),
    ("nearest task's prompt", 0): ("prompt of the nearest seen task, not tuned", "0"),
    ("mean code", 1): ("mean code, not tuned", "0"),
    ("random decoder", 1): ("IST through a random decoder", ""),
    ("PCA of the prompts", 1): ("IST through the prompts' principal components", ""),
    ("Fastfood over the prompt", 1): ("IST in a random subspace of the prompt (Fastfood)", ""),
    ("DID", 1): ("random directions of all weights (DID)", ""),
    ("IST", 1): ("**IST**", ""),
    ("shared adapters", 1): ("adapters of the seen tasks, not tuned", "0"),
    ("IST, adapters", 1): ("IST through adapters", ""),
    ("prompt tuning", 0): ("prompt tuning", "prompt"),
    ("fine-tuning", 0): ("fine-tuning", "all weights"),
}
NEWER = (  # as long as the rows of ipt120 have no folds
    "A newer study of the same tasks takes turns at which of them are unseen (six folds), trains longer, and "
    "has controls that start where IST starts. [Lesson 07](../notebooks/07_generalisation.ipynb) shows what "
    "it has measured so far, [lesson 90](../notebooks/90_scoreboard.ipynb) its verdicts so far."
)
CONTROLS = {  # controls of IST on unseen tasks
    "random decoder": "IST through a random decoder",
    "PCA of the prompts": "IST through the principal components",
    "Fastfood over the prompt": "IST in a random subspace of the prompt (Fastfood)",
    "DID": "random directions of all weights (DID)",
}
PAIRS = (  # rows of the tables of differences; d_I as in METHODS
    (TUNED, ZERO),
    (("IST", 1), ZERO),
    (("IST", 1), ("mean code", 1)),
    (("IST", 1), ("random decoder", 1)),
    (("IST", 1), ("PCA of the prompts", 1)),
    (("IST", 1), ("Fastfood over the prompt", 1)),
    (("IST", 1), ("DID", 1)),
    (("IST", 1), NEAREST),
    (("IST", 1), TUNED),
    (FINE, TUNED),
)
KINDS = {"cls": "classification", "tag": "tagging"}  # kinds of encoder9's tasks
DATA = {"full": "all examples", "few-shot": "few examples"}  # what its methods were trained on
PLAIN = {  # words of the stored verdicts -> the field's terms
    "spread": "standard deviation",
    "is asked for": "is required",
    "are asked for": "are required",
}
PAPER_ANSWERS = (
    "E_rel of the first paper and of this page differ in one more way: the paper's model generates every "
    "answer ([what that changes](#how-large-are-the-effects-that-the-claims-are-judged-by))."
)
RECALLED = {"[recalled]": "quoted from memory", "[second-hand]": "second-hand"}  # marks in a claim's source


@dataclass(frozen=True)
class Stored:
    """Everything that the page is made from.

    Attributes:
      rows: result rows of each of STUDIES (see `stored_results.load_rows`).
      about: how each of STUDIES was made.
      verdicts: the verdicts on claims (see `claims.load_stored`).
      prompt_size: trainable parameters of one prompt.
      folds: the study ipt120, if its rows have folds; then splits and error are not used.
      splits: rows of every split of ipt120 (see `verdicts_splits.load_studies`).
      error: |p* - p|^2 / |p - mean|^2, averaged over the prompts p of the seen tasks; p* is MSF's
        reconstruction of p.
    """

    rows: Mapping[str, Rows]
    about: Mapping[str, Mapping[str, Any]]
    verdicts: Rows
    prompt_size: int
    folds: Folds | None = None
    splits: Mapping[str, Rows] = field(default_factory=dict)
    error: float = float("nan")


def read() -> Stored:
    """Read everything that the page is made from, out of data/results/."""
    found = {name: stored_results.load_rows(name) for name in STUDIES}
    prompts, about = stored_results.load_prompts("ipt120")
    stored = of_rows(found, claims.load_stored(), prompts[0, 0].numel())
    if stored.folds:
        return stored
    found |= {name: stored_results.load_rows(name) for name in BEFORE_FOLDS}
    seen = subspace.load_stored("ipt120")
    mine = [about["tasks"].index(task) for task in seen.about["tasks"]]
    return replace(
        of_rows(found, stored.verdicts, stored.prompt_size),
        splits=verdicts_splits.load_studies(),
        error=1 - float(shares.rebuilt(seen, prompts[0, mine]).mean()),
    )


def of_rows(
    found: Mapping[str, tuple[Rows, Mapping[str, Any]]],
    verdicts: Rows,
    prompt_size: int,
    curves: Rows | None = None,
) -> Stored:
    """What the page is made from, given the rows of studies; with folds the verdicts of ipt120 are its rows'.

    Args:
      found: study -> its rows and how they were made (see `stored_results.load_rows`).
      verdicts: see Stored.
      prompt_size: see Stored.
      curves: rows of the learning curves of ipt120; None: the stored ones, if its rows have folds.
    """
    rows, about = {name: of for name, (of, _) in found.items()}, {name: of for name, (_, of) in found.items()}
    stored = Stored(rows, about, verdicts, prompt_size)
    if not have_folds(rows["ipt120"]):
        return stored
    if curves is None:
        curves, _ = stored_results.load_rows("curves")
    study = Folds(rows["ipt120"], about["ipt120"], curves)
    others = [row for row in verdicts if not row["scale"].startswith("ipt120")]
    return replace(stored, verdicts=[*others, *study.stored_verdicts()], folds=study)


def page(stored: Stored) -> str:
    """The text of docs/results.md, in Markdown."""
    parts = [
        "# What came out?",
        f"<!-- Written by `{_command()}` from the rows in data/results/. Do not edit. -->",
        f"All results of the course, from the rows that come with it. `{_command()}` writes this page and "
        "its figures; nothing on it is typed in by hand.",
        f"![{alt(_main(stored), _dim(stored, 'ipt120'))}](figure.svg)",
        *_reading(stored),
        *_of_36(stored),
        "## The 120-task study",
        *(results_folds.section(stored.folds) if stored.folds else _of_120(stored)),
        *_deep(stored),
        *_encoders(stored),
        *_of_claims(stored),
        *_again(stored),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# ---- sections ------------------------------------------------------------------------------------------
def _reading(stored: Stored) -> list[str]:
    paper, least = verdicts_ipt.PAPER, inspect.signature(summary.relative).parameters["least"].default
    dim, few, many = _dim(stored, "ipt120"), intervals.FEW_TASKS, intervals.MANY_TASKS
    metrics = sorted(
        {row["metric"].replace("_", " ") for name in ("core36", "ipt120") for row in stored.rows[name]}
    )
    return [
        "## How to read this page",
        bullets(
            f"*Prompt tuning* trains a few vectors per task ({stored.prompt_size:,} parameters here). The "
            "model stays frozen.",
            "*MSF* (multi-task subspace finding) trains an auto-encoder on the prompts of the *seen* tasks. "
            "It maps a prompt to a code of d_I dimensions and back. The *unseen* tasks take no part in it.",
            "*IST* (intrinsic subspace tuning) keeps the decoder, freezes it and trains a code per task: "
            f"d_I parameters, here {dim}. On seen tasks it trains on new examples, which neither the prompts "
            "nor the auto-encoder were trained on.",
            "*Mean code* is the average code of the seen tasks, decoded. IST starts there. Nothing is tuned "
            "for the task.",
            "*Random decoder* is IST through an untrained decoder, centred and scaled by the trained "
            "prompts. It starts at the mean prompt. It is a stronger control than the paper's, which does "
            "not use the trained prompts.",
            f"*Score* is a task's own metric ({listed(metrics)}) on its test examples; 1 is best.",
            "*E_rel* is a task's score divided by its prompt tuning score, averaged over tasks. Tasks with "
            f"a prompt tuning score below {least:.2f} are left out. Its intervals take the prompt tuning "
            "scores as given. The paper (Qin et al. 2021, arXiv 2110.07867; BART-base) reports "
            f"{paper['seen']:.2f} on seen and {paper['unseen']:.2f} on unseen tasks at d_I = "
            f"{verdicts_ipt.PAPER_DIM}.",
            "A *leakage group* holds tasks that are made of the same texts or facts. Such tasks are not "
            "independent. Unseen tasks share no group with seen "
            f"tasks{'' if stored.folds else ', except in the split `leaky`'}.",
            f"*Intervals* are 95 % intervals over leakage groups: bootstrap from {many} groups on, Student's "
            f"t below. With fewer than {few} tasks they are over few-shot samples only and say nothing about "
            "other tasks.",
            "A *difference* is paired by task. It is called *no significant difference* where its interval "
            "holds 0. That is no proof of equality. Intervals are not corrected for multiple comparisons.",
        ),
    ]


def _of_36(stored: Stored) -> list[str]:
    rows, dim = stored.rows["core36"], _dim(stored, "core36")
    controls = {"the mean code": ("mean code", dim), "a random decoder": ("random decoder", dim)}
    return [
        "## The 36-task study",
        _set_up(stored, "core36"),
        _methods(rows, dim, stored.prompt_size),
        _pairs(rows, dim),
        bullets(
            f"**What IST keeps.** {_shares(rows, dim)}",
            f"**Beside its controls.** {_both_sides('IST', rows, ('IST', dim), controls)}",
            f"**Beside prompt tuning.** {_both_sides('IST', rows, ('IST', dim), {'prompt tuning': TUNED})}",
        ),
    ]


def _of_120(stored: Stored) -> list[str]:
    rows, dim = stored.rows["ipt120"], _dim(stored, "ipt120")
    return [
        _set_up(stored, "ipt120"),
        NEWER,
        _methods(rows, dim, stored.prompt_size),
        _pairs(rows, dim),
        bullets(
            f"**What IST keeps.** {_shares(rows, dim)}",
            "**Tuning the code.** "
            f"{_both_sides('IST', rows, ('IST', dim), {'the mean code': ('mean code', dim)})}",
            f"**Other subspaces.** {_controls(rows, dim)}",
            f"**More parameters.** {_more_parameters(rows, stored.about['ipt120']['scale']['dims'])}",
            f"**Where the score is lost.** {_where_lost(stored, dim)}",
            f"**Kinds of tasks.** {_kinds_of_answers(rows, dim)}",
            f"**Fewer examples.** {_fewer_examples(rows, dim)}",
            f"**Fine-tuning.** {_fine_tuning(rows, dim)}",
            f"**Adapters, stage two.** {_adapters_and_stage_two(rows, dim)}",
            f"**Which tasks were seen.** {_siblings(stored, dim)}",
            f"**Longer training.** {_longer(stored)}",
        ),
    ]


def _deep(stored: Stored) -> list[str]:
    shallow, deep = (stored.rows[name] for name in ("lesson", "lesson-deep"))
    dim, ist = _dim(stored, "lesson-deep"), ("IST", _dim(stored, "lesson-deep"))
    own = {"the mean code of deep prompts": ("mean code", dim), "deep prompt tuning": TUNED}
    tuned = {side: _between(deep, shallow, TUNED, side) for side in SIDES}
    studies = {"shallow": shallow, "deep": deep}
    kept = {name: with_interval(_kept(rows, ist, "seen")) for name, rows in studies.items()}
    return [
        "## Deep prompts",
        "A deep prompt is trained keys and values at every layer (P-Tuning v2). MSF and IST work on it "
        "unchanged. The papers do not report this combination; notebook 08 shows it. "
        + _set_up(stored, "lesson-deep"),
        _side_by_side(studies, dim),
        bullets(
            f"On seen tasks IST keeps E_rel {kept['deep']} with deep prompts and {kept['shallow']} with "
            "shallow ones. The mean code of deep prompts, which is not tuned, keeps "
            f"{with_interval(_kept(deep, ('mean code', dim), 'seen'))}.",
            *(_compared(f"On {side} tasks, deep IST", deep, ist, own, side) for side in SIDES),
            " ".join(
                f"On {side} tasks, deep prompt tuning {than(gap, 'shallow prompt tuning')}."
                for side, gap in tuned.items()
            ),
            f"Only {num_tasks(deep, 'unseen')} tasks are unseen, so the intervals there are wide.",
        ),
    ]


def _encoders(stored: Stored) -> list[str]:
    rows, scale = stored.rows["encoder9"], stored.about["encoder9"]["scale"]["encoders"]
    made = verdicts_ptuning_v2.part(rows, "compared")
    steps = {name: scale["fits"][name]["steps"] for name in DATA}
    tuned = set(scale["tuned"])
    deep, all_weights = (
        _mean_size(made, m, tuned) for m in (verdicts_ptuning_v2.DEEP, verdicts_ptuning_v2.TUNED)
    )
    return [
        "## Encoders",
        f"{in_words(len(scale['tasks']))} tasks (suite `{scale['suite']}`) on the encoder "
        f"`{scale['backbone']}`: sentences to classify and words to tag. {scale['test_examples']} test "
        f"examples per task, {_samples(made)}, prompts of {scale['prompt_length']} vectors (per layer for "
        f"P-Tuning v2), {steps['full']} steps on all examples and {steps['few-shot']} on few. Counts of "
        "tasks are in parentheses. Notebook 04 explains the methods.",
        _of_encoders(made),
        bullets(
            f"On the {len(tuned)} tasks that were fine-tuned, P-Tuning v2 trains {deep:,.0f} parameters per "
            f"task on average, heads included. Fine-tuning trains {all_weights / deep:,.0f} times as many.",
            *(_on_encoders(made, data, kind) for data in DATA for kind in KINDS),
        ),
        "Prompt length, depth, reparameterisation and heads: see claims B5, B6, B8 and B10 below.",
    ]


def _on_encoders(made: Rows, data: str, kind: str) -> str:
    """P-Tuning v2 compared with the other methods on tasks of one kind."""
    mine, gaps = [row for row in made if row["data"] == data and row["category"] == kind], {}
    for other in (verdicts_ptuning_v2.PROBE, verdicts_ptuning_v2.SHALLOW, verdicts_ptuning_v2.TUNED):
        both = (
            [row for row in mine if row["method"] == method] for method in (verdicts_ptuning_v2.DEEP, other)
        )
        gap = verdicts_ptuning_v2.difference(*both)
        gaps[f"{'a ' * (other == verdicts_ptuning_v2.PROBE)}{other} on {gap[3]} tasks"] = gap
    return against(f"On {KINDS[kind]}, trained on {DATA[data]}, P-Tuning v2", gaps)


def _of_claims(stored: Stored) -> list[str]:
    known = claims.known()
    last = {name: _decisive(stored.verdicts, name) for name in known}
    measured = {name: row | {"here": _reworded(row["here"])} for name, row in last.items() if row}
    counts = [f"{sum(r['verdict'] == v for r in measured.values())} *{v}*" for v in claims.VERDICTS]
    return [
        "## Claims of the two papers",
        "A: Qin et al. 2021 (arXiv 2110.07867), Intrinsic Prompt Tuning. B: Liu et al. 2022 (arXiv "
        f"2110.07602), P-Tuning v2. {len(measured)} of {len(known)} claims were measured: {listed(counts)}. "
        "The others describe a design or a set-up. Models and tasks here are much smaller than the papers', "
        "so no verdict refutes a paper.",
        claims_table(known, measured, stored.folds.effects, _reports)
        if stored.folds
        else _overview(known, measured),
        PAPER_ANSWERS if stored.folds else NEWER,
        "### How a verdict is chosen",
        _rules(stored),
        "### What each verdict rests on",
        *_rests_on(stored),
    ]


def _reports(claim: claims.Claim) -> str:
    """What the paper reports on a claim, and how reliable our source is."""
    mark = [words for sign, words in RECALLED.items() if sign in claim.source]
    return " ".join([claim.paper, *(f"({words})" for words in mark)])


def _overview(known: Mapping[str, claims.Claim], measured: Mapping[str, Mapping[str, Any]]) -> str:
    """All claims with their verdicts, before ipt120 has folds."""
    lines = []
    for name, claim in known.items():
        row = measured.get(name)
        verdict = (f"**{row['verdict']}**", f"`{row['scale']}`") if row else ("not measured", "")
        lines.append([name, claim.claim, _reports(claim), *verdict])
    return sentences.table(["claim", "", "the paper reports", "verdict", "scale"], lines)


def _rests_on(stored: Stored) -> list[str]:
    """The measurements behind the verdicts."""
    intro = (
        "Counts of tasks are in parentheses. *Samples* are the fewest few-shot samples of a method in the "
        "row."
    )
    if stored.folds is None:
        return [intro, _measurements(stored.verdicts)]
    name = stored.about["ipt120"]["scale"]["name"]
    others = [row for row in stored.verdicts if row["scale"] != name]
    return [
        folded(f"Scale `{name}`, effect by effect", results_folds.details(stored.folds)),
        folded("The other scales", intro, _measurements(others)),
    ]


def _again(stored: Stored) -> list[str]:
    commands = {
        "core36": "make study",
        "encoder9": "make study-deep",
        "lesson": "iptkit study --scale lesson --dims 5 --overwrite --out data/results/lesson.jsonl",
        "lesson-deep": "iptkit study --scale lesson-deep --overwrite --out data/results/lesson-deep.jsonl",
    }
    before = (
        f"The rows of `ipt120` took {stored.about['ipt120']['seconds'] / 3600:.1f} hours at the commit that "
        "their `.about.json` names: the scale `ipt120` has other settings now. "
    )
    if stored.folds:
        commands, before = {"ipt120": "make study-ipt120", **commands}, ""
    table = ["| rows | command | these rows took | on |", "|---|---|---|---|"]
    for name, command in commands.items():
        about = stored.about[name]
        where = listed(sorted({made["processor"] for made in about["made"]}))
        minutes = about["seconds"] / 60
        took = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
        table.append(f"| `{name}` | `{command}` | {took} | {where} |")
    return [
        "## How to make the rows again",
        "\n".join(table),
        f"{before}`make regen` runs the lessons and writes the verdicts of scale `lesson`. "
        "[data/results/README.md](../data/results/README.md) describes every file.",
        f"Then `{_command()}` writes this page; with `--check` it only compares.",
    ]


# ---- sentences of the 120-task study --------------------------------------------------------------------
def _controls(rows: Rows, dim: int) -> str:
    """IST on unseen tasks compared with other subspaces and with its own starting point."""
    gaps = {title: _gap(rows, ("IST", dim), (name, dim), "unseen") for name, title in CONTROLS.items()}
    chosen = {"the prompt of the nearest seen task, which is chosen and not tuned": NEAREST}
    start = _gap(rows, ("mean code", dim), ("random decoder", dim), "unseen")
    return (
        f"{against('On unseen tasks, IST', gaps)} These controls start from other prompts than IST does. The "
        f"mean code, where IST starts, {than(start, 'the tuned random decoder')}. "
        f"{_compared('IST', rows, ('IST', dim), chosen, 'unseen')}"
    )


def _more_parameters(rows: Rows, dims: Sequence[int]) -> str:
    kept = []
    for side in SIDES:
        shares = [f"{_kept(rows, ('IST', dim), side)[0]:.2f}" for dim in dims]
        kept.append(f"{listed(shares)} on {side} tasks")
    more = {side: _gap(rows, ("IST", dims[-1]), ("IST", dims[0]), side) for side in SIDES}
    codes = {dim: _gap(rows, ("IST", dim), ("mean code", dim), "unseen") for dim in dims}
    return (
        f"With {listed(dims)} parameters per task IST keeps E_rel {' and '.join(kept)}. "
        + " ".join(
            f"On {side} tasks, IST with {dims[-1]} parameters {than(gap, f'IST with {dims[0]}')}."
            for side, gap in more.items()
        )
        + " On unseen tasks, "
        + listed(
            [f"IST with {dim} {than(gap, 'the mean code of its subspace')}" for dim, gap in codes.items()]
        )
        + "."
    )


def _where_lost(stored: Stored, dim: int) -> str:
    rows = stored.rows["ipt120"]
    first, second = _gap(rows, ("MSF", dim), TUNED, "seen"), _gap(rows, ("IST", dim), ("MSF", dim), "seen")
    is_worse = stored.error > 1
    return (
        f"On seen tasks, a task's own prompt through the auto-encoder (MSF) {than(first, 'prompt tuning')}, "
        f"and IST {than(second, 'MSF')}. The prompt vectors themselves are "
        f"{'not ' if is_worse else ''}rebuilt: on the prompts that MSF was trained on, its relative squared "
        f"error is {stored.error:.2f}, where the mean prompt has 1. In score, MSF keeps E_rel "
        f"{with_interval(_kept(rows, ('MSF', dim), 'seen'))}."
    )


def _kinds_of_answers(rows: Rows, dim: int) -> str:
    kinds = {"with answer options": ("cls", "mcqa"), "with free answers": ("qa", "gen", "seq")}
    sentences = []
    for name, categories in kinds.items():
        mine = [row for row in rows if row["category"] in categories]
        ist, tuned = (_gap(mine, method, ZERO, "seen") for method in (("IST", dim), TUNED))
        both = f"IST {than(ist, 'zero-shot')} and prompt tuning {than(tuned, 'zero-shot')}"
        sentences.append(f"On seen tasks {name}, {both}.")
    return " ".join(sentences)


def _fewer_examples(rows: Rows, dim: int) -> str:
    names = [f"{name}, fewer examples" for name in ("prompt tuning", "IST")]
    sentences = []
    for k in sorted({row["examples"] for row in rows if "examples" in row}):
        mine = [row for row in rows if row.get("examples") == k]
        gap = _gap(mine, (names[0], 0), (names[1], dim), "unseen")
        sentences.append(f"Trained on {k} examples of an unseen task, prompt tuning {than(gap, 'IST')}.")
    return " ".join(sentences)


def _fine_tuning(rows: Rows, dim: int) -> str:
    gap = _gap(rows, FINE, TUNED, "unseen")
    lines = summary.summary(rows, [("IST", dim), TUNED], ["unseen"], reference="fine-tuning")
    ist, tuned = (with_interval(line["E_rel"]) for line in lines)
    return (
        f"On unseen tasks, fine-tuning of all weights {than(gap, 'prompt tuning')}. With fine-tuning as the "
        f"reference, IST keeps {ist} and prompt tuning {tuned}."
    )


def _adapters_and_stage_two(rows: Rows, dim: int) -> str:
    adapters, shared = ("IST, adapters", dim), ("shared adapters", dim)
    tuned = {"the same adapters before tuning": shared, "IST of prompts": ("IST", dim)}
    words, second = unseen.FROM_WORDS, unseen.STAGE_TWO
    gap = _gap(rows, (second, dim), (words, 0), "unseen")
    steadier = verdicts_ipt.run_deviation_gap(rows, words, second)
    is_clear = steadier[1] > 0 or steadier[2] < 0
    deviation = ("smaller" if steadier[0] > 0 else "larger") if is_clear else "not significantly different"
    return (
        f"{_compared('On unseen tasks, IST through adapters', rows, adapters, tuned, 'unseen')} Prompt "
        f"tuning that starts from IST's solution (stage two) {than(gap, 'prompt tuning from words')}; its "
        f"standard deviation over runs is {deviation} ({difference_text(intervals.opposite(steadier))})."
    )


def _siblings(stored: Stored, dim: int) -> str:
    gap = verdicts_splits.leakage(stored.splits, dim)["siblings seen"]
    few, many = (verdicts_splits.BY_NUMBER[i] for i in (0, -1))
    both = {name: stored.splits[name] for name in (few, many)}
    counts = {name: num_tasks(rows, "seen") for name, rows in both.items()}
    more = summary.difference(verdicts_splits.side_by_side(both, dim), (many, dim), (few, dim))
    return (
        "On unseen tasks with relatives among the seen tasks, IST in a subspace found with these relatives "
        f"{than(gap, 'IST in one found without them')}. IST in a subspace of {counts[many]} seen tasks "
        f"{than(more, f'IST in one of {counts[few]}')}."
    )


def _longer(stored: Stored) -> str:
    rows, dim = stored.rows["ipt120-long"], _dim(stored, "ipt120-long")
    about = stored.about["ipt120-long"]
    scale, is_part = about["scale"], bool(about.get("not finished"))
    kept = [f"{with_interval(_kept(rows, ('IST', dim), side))} on {side} tasks" for side in SIDES]
    there = {row["method"] for row in rows}
    others = {"the mean code": ("mean code", dim)}
    others |= {title: (name, dim) for name, title in CONTROLS.items() if name in there}
    others |= {"the prompt of the nearest seen task": NEAREST}
    return (
        f"With {scale['ist']['rows_per_run']} examples per step instead of "
        f"{stored.about['ipt120']['scale']['ist']['rows_per_run']} (study `ipt120-long` in "
        f"`{about['dtype']}`, {scale['test_examples']} test examples per task, "
        f"{_samples(rows)}{', not all jobs finished' * is_part}), IST keeps E_rel {' and '.join(kept)}. "
        + _compared("There, on unseen tasks, IST", rows, ("IST", dim), others, "unseen")
    )


# ---- tables --------------------------------------------------------------------------------------------
def _methods(rows: Rows, dim: int, prompt_size: int) -> str:
    """Mean scores and E_rel of all methods of a study."""
    methods = {(name, has and dim): named for (name, has), named in METHODS.items()}
    lines = {(x["method"], x["split"]): x for x in summary.summary(rows, list(methods))}
    seen, unseen = (num_tasks(rows, side) for side in SIDES)
    table = [
        f"| method | trainable parameters per task | few-shot samples | score, seen ({seen}) | score, unseen "
        f"({unseen}) | E_rel, seen | E_rel, unseen |",
        "|---|---|---|---|---|---|---|",
    ]
    for (method, of), (title, trains) in methods.items():
        both = [lines.get((method, side)) for side in SIDES]
        if any(both):
            size = f"{prompt_size:,}" if trains == "prompt" else trains or str(dim)
            samples = _seeds([r for r in rows if (r["method"], r["d_I"]) == (method, of)])
            shown = [line and line[name] for name in ("score", "E_rel") for line in both]
            cells = [with_interval(value) if value else "" for value in shown]
            table.append(f"| {' | '.join([title, size, str(samples), *cells])} |")
    return "\n".join(table)


def _pairs(rows: Rows, dim: int) -> str:
    """Paired differences; bold where the interval excludes 0."""
    table = ["| paired difference in score | seen tasks | unseen tasks |", "|---|---|---|"]
    there = {(row["method"], row["d_I"], row["split"]) for row in rows}
    for pair in PAIRS:
        first, second = ((name, has and dim) for name, has in pair)
        cells = []
        for side in SIDES:
            is_there = {(*first, side), (*second, side)} <= there
            gap = _gap(rows, first, second, side) if is_there else None
            text = difference_text(gap) if gap else ""
            cells.append(f"**{text}**" if gap and verb(gap) != SAME else text)
        if any(cells):
            table.append(f"| {first[0]} − {second[0]} | {' | '.join(cells)} |")
    return "\n".join(["Bold: the interval excludes 0.", "", *table])


def _side_by_side(studies: Mapping[str, Rows], dim: int) -> str:
    """Scores of the same methods in several studies, on seen and unseen tasks."""
    names = list(studies)
    table = [
        f"| method | {' | '.join(f'score, {side}, {name}' for side in SIDES for name in names)} |",
        "|---|" + "---|" * (2 * len(names)),
    ]
    shown = [ZERO, ("mean code", 1), ("random decoder", 1), ("IST", 1), TUNED]
    for key in shown:
        method = (key[0], key[1] and dim)
        cells = []
        for side in SIDES:
            for rows in studies.values():
                line = summary.summary(rows, [method], [side])
                cells.append(with_interval(line[0]["score"], 3) if line else "")
        table.append(f"| {METHODS[key][0]} | {' | '.join(cells)} |")
    return "\n".join(table)


def _of_encoders(made: Rows) -> str:
    """Mean scores on the encoder by kind of task and data, with the number of tasks in parentheses."""
    heads = [f"{kind}, {words}" for words in DATA.values() for kind in KINDS.values()]
    table = [
        f"| mean score | trainable parameters | {' | '.join(heads)} |",
        "|---|---|" + "---|" * len(heads),
    ]
    for method in dict.fromkeys(row["method"] for row in made):
        mine, cells = [row for row in made if row["method"] == method], []
        for data in DATA:
            for kind in KINDS:
                part = [r for r in mine if r["data"] == data and r["category"] == kind]
                values = intervals.by_task(part)
                mean = intervals.over_tasks(values, part) if part else None
                cells.append(f"{with_interval(mean, 3)} ({len(values)})" if mean else "")
        size = _mean_size(made, method, {row["task"] for row in mine})
        table.append(f"| {method} | {size:,.0f} | {' | '.join(cells)} |")
    return "\n".join(table)


def _measurements(verdicts: Rows) -> str:
    table = ["| claim | scale | measured | tasks | samples | verdict |", "|---|---|---|---|---|---|"]
    for row in verdicts:
        cells = (
            row["claim"],
            row["scale"],
            _reworded(row["here"]),
            row["tasks"],
            row["seeds"],
            row["verdict"],
        )
        table.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(table)


def _rules(stored: Stored) -> str:
    score, kept = verdicts_ptuning_v2.MARGIN, verdicts_ipt.MARGIN
    near = [f"{row['claim']} (`{row['scale']}`)" for row in stored.verdicts if _is_near(row["here"])]
    holds, in_part, fails, is_open = (f"*{word}*" for word in claims.VERDICTS)
    of_folds = results_folds.rules(stored.folds) if stored.folds else ()
    before = (  # the rows of ipt120 have folds
        f"*Fails* (A9) means at most {verdicts_splits.MARGIN} above zero-shot. `ipt120-long` is shown for "
        "comparison only.",
        "The controls of A1 and A14 start from another prompt than IST does, so the start may account for a "
        "part of their differences. A3 asks only whether a task's own code scores higher than the mean "
        "code, not whether MSF rebuilds the prompt vectors.",
    )
    return bullets(
        *of_folds,
        f"{'At the other scales, ' * bool(of_folds)}{holds}: the whole 95 % interval speaks for the claim. "
        f"{fails}: the whole interval speaks against it. {is_open}: the interval does not decide.",
        f"A claim of several parts gets {in_part} if one part holds and another does not or is open. It gets "
        f"{fails} if one part fails and none holds.",
        f"*About as good* allows {kept} of E_rel (A1, A7) or {score} of a score (B8, B9). *Far behind* (B3) "
        f"means more than {score} on tagging, and more there than on classification.",
        "Where a claim was measured at several scales, the verdict in the table is that of "
        f"{listed([f'`{scale}`' for scale in DECISIVE], 'or')}, in this order.",
        "B5 and B10 are judged task by task. Their intervals, and all intervals of fewer than "
        f"{intervals.FEW_TASKS} tasks, are over few-shot samples and say nothing about other tasks.",
        *(() if stored.folds else before),
        f"An interval ends within {NEAR} of 0 in {listed(near)}. A small change of the scores would move it "
        "across 0."
        if near
        else f"No interval ends within {NEAR} of 0.",
    )


# ---- parts ---------------------------------------------------------------------------------------------
def _gap(rows: Rows, first: Method, second: Method, side: str) -> Gap:
    return summary.difference(rows, first, second, side)


def _between(first: Rows, second: Rows, method: Method, side: str) -> Gap:
    """Difference of a method's scores in two studies of the same tasks."""
    both = [r | {"method": name} for name, rows in (("1", first), ("2", second)) for r in _only(rows, method)]
    return summary.difference(both, ("1", method[1]), ("2", method[1]), side)


def _only(rows: Rows, method: Method) -> Rows:
    return [row for row in rows if (row["method"], row["d_I"]) == method]


def _kept(rows: Rows, method: Method, side: str) -> Gap:
    """E_rel of a method on one side, with its interval."""
    (line,) = summary.summary(rows, [method], [side])
    return line["E_rel"] or (float("nan"),) * 3


def _compared(subject: str, rows: Rows, first: Method, others: Mapping[str, Method], side: str) -> str:
    """`against` for methods of one study."""
    return against(subject, {name: _gap(rows, first, other, side) for name, other in others.items()})


def _both_sides(subject: str, rows: Rows, first: Method, others: Mapping[str, Method]) -> str:
    return " ".join(_compared(f"On {side} tasks, {subject}", rows, first, others, side) for side in SIDES)


def _shares(rows: Rows, dim: int) -> str:
    """E_rel of IST, of the untuned mean code and of zero-shot."""
    sentences = []
    for side in SIDES:
        ist, code, zero = (_kept(rows, method, side) for method in (("IST", dim), ("mean code", dim), ZERO))
        sentences.append(
            f"On {side} tasks IST keeps {with_interval(ist)} of prompt tuning (E_rel); the untuned mean code "
            f"keeps {code[0]:.2f} and zero-shot {zero[0]:.2f}."
        )
    return " ".join(sentences)


def _set_up(stored: Stored, name: str) -> str:
    """A sentence on how a study was made."""
    rows, about = stored.rows[name], stored.about[name]
    scale, first = about["scale"], rows[0]
    counts = {side: num_tasks(rows, side) for side in SIDES}
    groups = {side: len({row["group"] for row in rows if row["split"] == side}) for side in SIDES}
    sides = " and ".join(f"{counts[side]} {side} ones in {groups[side]} leakage groups" for side in SIDES)
    return (
        f"Scale `{scale['name']}`: {sum(counts.values())} tasks ({sides}), model `{first['backbone']}`, "
        f"number type `{about['dtype']}`, prompts of {scale['prompt_length']} vectors, "
        f"{scale['test_examples']} test examples per task, {scale['prompt']['steps']} steps of "
        f"{scale['prompt']['rows_per_run']} examples for prompt tuning and {scale['ist']['steps']} for IST."
    )


def _decisive(verdicts: Rows, claim: str) -> dict[str, Any] | None:
    """The verdict on a claim that counts (see DECISIVE), or None."""
    mine = {row["scale"]: row for row in verdicts if row["claim"] == claim}
    return next((mine[scale] for scale in DECISIVE if scale in mine), None)


def _is_near(here: str) -> bool:
    """Whether an interval in this text, its ends written with signs, ends within NEAR of 0."""
    ends = re.findall(r"\[([+-][\d.]+), ([+-][\d.]+)\]", here)
    return any(abs(float(end)) <= NEAR for pair in ends for end in pair)


def _mean_size(rows: Rows, method: str, tasks: set[str]) -> float:
    """Trainable parameters of a method, averaged over these tasks."""
    sizes = {row["task"]: row["numbers"] for row in rows if row["method"] == method and row["task"] in tasks}
    return sum(sizes.values()) / len(sizes)


def _reworded(text: str) -> str:
    for words, plain in PLAIN.items():
        text = text.replace(words, plain)
    return text


def _dim(stored: Stored, name: str) -> int:
    """The d_I of a study's controls."""
    scale = stored.about[name]["scale"]
    return scale.get("main_dim", scale["subspace"]["intrinsic_dim"])


def _seeds(rows: Rows) -> int:
    return len({row["seed"] for row in rows})


def _samples(rows: Rows) -> str:
    return f"{_seeds(rows)} few-shot sample{'s' * (_seeds(rows) > 1)}"


def _figure(stored: Stored) -> str:
    return figure(_main(stored), _dim(stored, "ipt120"), stored.prompt_size)


def _main(stored: Stored) -> Rows:
    """The rows of ipt120 in its main folds."""
    return summary.of_folds(stored.rows["ipt120"])


def _command() -> str:
    """The command that runs this module."""
    return f"python -m {__spec__.name}"


def written(stored: Stored) -> dict[str, str]:
    """The text of each file, by its path in docs/: the page and its figures."""
    found = pictures(stored.folds) if stored.folds else {}
    figures = {f"figures/{name}.svg": picture.svg() for name, picture in found.items()}
    return {"results.md": page(stored), "figure.svg": _figure(stored), **figures}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its figures, or compare them with the files; return the exit status."""
    parser = argparse.ArgumentParser(description="Write results.md and its figures from the stored rows.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file differs")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="their folder; default: docs")
    options, stored = parser.parse_args(arguments), read()
    made = {options.out / name: text for name, text in written(stored).items()}
    if not options.check:
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic(path) as new:
                new.write_text(text, encoding="utf-8", newline="\n")
        return 0
    stale = [p for p, text in made.items() if not p.is_file() or p.read_bytes() != text.encode()]
    for path in stale:
        print(f"{path} differs from the stored rows; run `{_command()}` to write it again", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
