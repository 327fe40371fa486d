"""docs/results.md: the results of the course in tables and sentences, written from the stored rows.

`python -m iptkit.course.results_page` writes the page, its first figure (see `results_figure`) and those in
docs/figures/ (see `results_folds`). With `--check` it writes nothing and exits with 1 if a file differs from
the rows. Every value in the text is computed from
data/results/. Where a sentence depends on a sign, or on whether an interval contains 0, the code chooses its
words (see `sentences.verb`), so the sentences always agree with the rows.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iptkit.course import results_folds
from iptkit.course.folds_figures import pictures
from iptkit.course.folds_study import Folds
from iptkit.course.folds_tables import claims_table
from iptkit.course.results_figure import SIDES, alt, figure, in_words, num_tasks
from iptkit.course.sentences import Gap, against, bullets, folded, listed, table, than, with_interval
from iptkit.scores import claims, intervals, summary
from iptkit.storage import files
from iptkit.studies import stored_results, verdicts_ipt, verdicts_ptuning_v2

Rows = Sequence[dict[str, Any]]
Method = tuple[str, int]  # its name and d_I; 0 for a method without d_I
STUDIES = ("ipt120", "lesson", "lesson-deep", "encoder9")  # files of data/results
CURVES = "curves"  # the same of the learning curves
MEAN_CODE = "the mean code of deep prompts"
DECISIVE = ("ipt120", "full-encoders", "full", "lesson")  # the verdict at the first of these scales counts
NEAR = 0.001  # a score; an interval that ends this close to 0 decides little
TUNED = ("prompt tuning", 0)
SHALLOW_AND_DEEP = {  # (method, has a d_I) -> its name in the table of deep prompts
    ("zero-shot", 0): "zero-shot",
    ("mean code", 1): "mean code, not tuned",
    ("random decoder", 1): "IST through a random decoder",
    ("IST", 1): "**IST**",
    TUNED: "prompt tuning",
}
KINDS = {"cls": "classification", "tag": "tagging"}  # kinds of encoder9's tasks
DATA = {"full": "all examples", "few-shot": "few examples"}  # what its methods were trained on
PAPER_ANSWERS = (
    "E_rel of the first paper and of this page differ in one more way: the paper's model generates every "
    "answer ([what that changes](#how-large-are-the-effects-that-the-claims-are-judged-by))."
)
RECALLED = {"[recalled]": "quoted from memory", "[second-hand]": "second-hand"}  # marks in a claim's source


@dataclass(frozen=True)
class Stored:
    """Everything that the page is made from.

    Attributes:
      rows: result rows of each of STUDIES, perhaps also CURVES (see `stored_results.load_rows`).
      about: how each of them was made.
      verdicts: the verdicts on claims (see `claims.load_stored`).
      prompt_size: trainable parameters of one prompt.
      folds: the study ipt120.
    """

    rows: Mapping[str, Rows]
    about: Mapping[str, Mapping[str, Any]]
    verdicts: Rows
    prompt_size: int
    folds: Folds


def read() -> Stored:
    """Read everything that the page is made from, out of data/results/."""
    found = {name: stored_results.load_rows(name) for name in (*STUDIES, CURVES)}
    prompts, _ = stored_results.load_prompts("ipt120")
    return of_rows(found, claims.load_stored(), prompts[0, 0].numel(), found[CURVES][0])


def of_rows(
    found: Mapping[str, tuple[Rows, Mapping[str, Any]]],
    verdicts: Rows,
    prompt_size: int,
    curves: Rows,
) -> Stored:
    """What the page is made from, given the rows of studies; the verdicts of ipt120 are those of its rows.

    Args:
      found: study -> its rows and how they were made (see `stored_results.load_rows`).
      verdicts: see Stored.
      prompt_size: see Stored.
      curves: rows of the learning curves of ipt120.
    """
    rows, about = {name: of for name, (of, _) in found.items()}, {name: of for name, (_, of) in found.items()}
    study = Folds(rows["ipt120"], about["ipt120"], curves)
    return Stored(rows, about, [*study.stored_verdicts(), *verdicts], prompt_size, study)


def page(stored: Stored) -> str:
    """The text of docs/results.md, in Markdown."""
    parts = [
        "# What came out?",
        f"<!-- Written by `{_command()}` from the rows in data/results/. Do not edit. -->",
        f"All results of the course, from the rows that come with it. `{_command()}` writes this page and "
        "its figures; nothing on it is typed in by hand.",
        f"![{alt(_main(stored), _dim(stored, 'ipt120'))}](figure.svg)",
        *_reading(stored),
        "## The 120-task study",
        *results_folds.section(stored.folds),
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
    metrics = sorted({row["metric"].replace("_", " ") for row in stored.rows["ipt120"]})
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
            "Controls tune as many parameters as IST. *Random directions around the mean code* are drawn "
            "instead of found; *Fastfood* draws them by fast transforms; *principal components* are the main "
            "directions of the seen tasks' prompts. These three start at the mean code, as IST does. *Random "
            "decoder* is IST through an untrained decoder that starts about the mean prompt; *reconstruction "
            "alone* is IST through an auto-encoder that was trained without the tasks.",
            "*Mean prompt* is the average prompt of the seen tasks; *nearest task's prompt* is the seen "
            "task's prompt that does best on eight examples of the new task. Neither is tuned.",
            f"*Score* is a task's own metric ({listed(metrics)}) on its test examples; 1 is best. "
            "*Log-likelihood* is the mean log probability of the tokens of right answers, in nats per answer "
            "token; higher is better. It shows differences that are too small for the score.",
            "*E_rel* is a task's score divided by its prompt tuning score, averaged over tasks. Tasks with "
            f"a prompt tuning score below {least:.2f} are left out. In the study of 120 tasks the divisor is "
            "the prompt tuning score of the *other* few-shot sample, so that the luck of one sample does not "
            "stand on both sides; prompt tuning itself then has a little more than 1. The paper (Qin et al. "
            f"2021, arXiv 2110.07867; BART-base) reports {paper['seen']:.2f} on seen and "
            f"{paper['unseen']:.2f} on unseen tasks at d_I = {verdicts_ipt.PAPER_DIM}.",
            "*E_rel above chance* subtracts the score of guessing from both scores first. The *ratio of "
            "means* divides the mean score by the mean prompt tuning score.",
            "A *leakage group* holds tasks that are made of the same texts or facts. Such tasks are not "
            "independent. Unseen tasks share no group with seen tasks.",
            f"*Intervals* are 95 % intervals over leakage groups: bootstrap from {many} groups on, Student's "
            f"t below, which may go beyond the ends of a score. With fewer than {few} tasks they are over "
            "few-shot samples only and say nothing about other tasks.",
            "A *difference* is paired by task. It is called *no significant difference* where its interval "
            "holds 0. That is no proof of equality. Intervals are not corrected for multiple comparisons.",
        ),
    ]


def _deep(stored: Stored) -> list[str]:
    shallow, deep = (stored.rows[name] for name in ("lesson", "lesson-deep"))
    dim, ist = _dim(stored, "lesson-deep"), ("IST", _dim(stored, "lesson-deep"))
    own = {MEAN_CODE: ("mean code", dim), "deep prompt tuning": TUNED}
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
            "Deep IST on seen tasks "
            + than(
                summary.difference(deep, ist, own[MEAN_CODE], "seen", "log_likelihood"),
                MEAN_CODE,
                "log_likelihood",
            )
            + ".",
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
        of = f"{gap[3]} tasks" + (", over samples only" if gap[3] < intervals.FEW_TASKS else "")
        gaps[f"{'a ' * (other == verdicts_ptuning_v2.PROBE)}{other} on {of}"] = gap
    return against(f"On {KINDS[kind]}, trained on {DATA[data]}, P-Tuning v2", gaps)


def _of_claims(stored: Stored) -> list[str]:
    known = claims.known()
    last = {name: _decisive(stored.verdicts, name) for name in known}
    measured = {name: row for name, row in last.items() if row}
    counts = [f"{sum(r['verdict'] == v for r in measured.values())} *{v}*" for v in claims.VERDICTS]
    waiting = [name for name, claim in known.items() if claim.criteria and name not in measured]
    left = f"The measurements for {listed(waiting)} are not finished. " if waiting else ""
    return [
        "## Claims of the two papers",
        "A: Qin et al. 2021 (arXiv 2110.07867), Intrinsic Prompt Tuning. B: Liu et al. 2022 (arXiv "
        f"2110.07602), P-Tuning v2. {len(measured)} of {len(known)} claims were judged: {listed(counts)}. "
        f"{left}The others describe a design or a set-up. Models and tasks here are much smaller than the "
        "papers', so no verdict refutes a paper.",
        "*> a ± b* asks for an effect above a; one closer to a than b is too small to matter. The scale "
        "`ipt120` is the study of 120 tasks, `full` the encoders above, `lesson` the notebooks.",
        claims_table(known, measured, stored.folds.effects_so_far, _reports),
        PAPER_ANSWERS,
        "### How a verdict is chosen",
        _rules(stored),
        "### What each verdict rests on",
        *_rests_on(stored),
    ]


def _reports(claim: claims.Claim) -> str:
    """What the paper reports on a claim, and how reliable our source is."""
    mark = [words for sign, words in RECALLED.items() if sign in claim.source]
    return " ".join([claim.paper, *(f"({words})" for words in mark)])


def _rests_on(stored: Stored) -> list[str]:
    """The measurements behind the verdicts."""
    intro = (
        "Counts of tasks are in parentheses. *Samples* are the fewest few-shot samples of a method in the "
        "row."
    )
    name = stored.about["ipt120"]["scale"]["name"]
    others = [row for row in stored.verdicts if row["scale"] != name]
    return [
        folded(f"Scale `{name}`, effect by effect", results_folds.details(stored.folds)),
        folded("The other scales", intro, _measurements(others)),
    ]


def _again(stored: Stored) -> list[str]:
    commands = {
        "ipt120": "make study-ipt120",
        CURVES: "iptkit study --scale ipt120 --part curves --overwrite --out data/results/curves.jsonl",
        "encoder9": "make study-deep",
        "lesson": "iptkit study --scale lesson --dims 5 --seeds 3 --overwrite "
        "--out data/results/lesson.jsonl",
        "lesson-deep": "iptkit study --scale lesson-deep --seeds 3 --overwrite "
        "--out data/results/lesson-deep.jsonl",
    }
    lines = []
    for name, command in commands.items():
        if name not in stored.about:
            continue
        about = stored.about[name]
        where = listed(sorted({made["processor"] for made in about["made"]}))
        minutes = about["seconds"] / 60
        took = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
        lines.append([f"`{name}`", f"`{command}`", took, where])
    return [
        "## How to make the rows again",
        table(["rows", "command", "these rows took", "on"], lines),
        "`make regen` runs the lessons and writes the verdicts of scale `lesson`. "
        "[data/results/README.md](../data/results/README.md) describes every file.",
        f"Then `{_command()}` writes this page; with `--check` it only compares.",
    ]


# ---- tables --------------------------------------------------------------------------------------------
def _side_by_side(studies: Mapping[str, Rows], dim: int) -> str:
    """Scores of the same methods in several studies, on seen and unseen tasks."""
    lines = []
    for (name, has), title in SHALLOW_AND_DEEP.items():
        method = (name, has and dim)
        cells = [title]
        for side in SIDES:
            for rows in studies.values():
                line = summary.summary(rows, [method], [side])
                cells.append(with_interval(line[0]["score"], 3) if line else "")
        lines.append(cells)
    return table(["method", *(f"score, {side}, {name}" for side in SIDES for name in studies)], lines)


def _of_encoders(made: Rows) -> str:
    """Mean scores on the encoder by kind of task and data, with the number of tasks in parentheses."""
    heads, lines = [f"{kind}, {words}" for words in DATA.values() for kind in KINDS.values()], []
    for method in dict.fromkeys(row["method"] for row in made):
        mine, cells = [row for row in made if row["method"] == method], []
        for data in DATA:
            for kind in KINDS:
                part = [r for r in mine if r["data"] == data and r["category"] == kind]
                values = intervals.by_task(part)
                mean = intervals.over_tasks(values, part) if part else None
                cells.append(f"{with_interval(mean, 3)} ({len(values)})" if mean else "")
        size = _mean_size(made, method, {row["task"] for row in mine})
        lines.append([method, f"{size:,.0f}", *cells])
    return table(["mean score", "trainable parameters", *heads], lines)


def _measurements(verdicts: Rows) -> str:
    fields = ("claim", "scale", "here", "tasks", "seeds", "verdict")
    heads = ["claim", "scale", "measured", "tasks", "samples", "verdict"]
    return table(heads, [[row[field] for field in fields] for row in verdicts])


def _rules(stored: Stored) -> str:
    score = verdicts_ptuning_v2.MARGIN
    judged = {row["scale"] for row in stored.verdicts}
    scales = [f"`{scale}`" for scale in DECISIVE if scale in judged]
    near = [f"{row['claim']} (`{row['scale']}`)" for row in stored.verdicts if _is_near(row["here"])]
    holds, in_part, fails, is_open = (f"*{word}*" for word in claims.VERDICTS)
    return bullets(
        *results_folds.rules(stored.folds),
        f"At the other scales, {holds}: the whole 95 % interval speaks for the claim. "
        f"{fails}: the whole interval speaks against it. {is_open}: the interval does not decide.",
        f"A claim of several parts gets {in_part} if one part holds and another does not or is open. It gets "
        f"{fails} if one part fails and none holds.",
        f"*About as good* (B8, B9) allows {score} of a score. *Far behind* (B3) means more than {score} on "
        "tagging, and more there than on classification.",
        "Where a claim was measured at several scales, the verdict in the table is that of "
        f"{listed(scales, 'or')}, in this order.",
        "B5 and B10 are judged task by task. Their intervals, and all intervals of fewer than "
        f"{intervals.FEW_TASKS} tasks, are over few-shot samples and say nothing about other tasks.",
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
    figures = {f"figures/{name}.svg": picture.svg() for name, picture in pictures(stored.folds).items()}
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
