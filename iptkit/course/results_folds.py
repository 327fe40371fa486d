"""The part of docs/results.md on a study with folds: its text, tables and figures, from its rows.

    rows of `ipt120`, rows of its learning curves -> Folds -> section() and pictures(), claims_table()

`results_page` puts the parts on the page and writes the figures to docs/figures/. Every value is computed
from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iptkit.course.folds_figures import pictures
from iptkit.course.folds_study import (
    WITH_OPTIONS,
    Folds,
    budget_text,
    by_ist,
    by_prompts,
    control_name,
    gap_of,
    kind_of,
    name_of,
    one_of,
    share,
)
from iptkit.course.folds_tables import METHODS, apart_table, category_table, curve_table, method_table, recipe
from iptkit.course.sentences import (
    SAME,
    against,
    bullets,
    folded,
    gap_text,
    listed,
    than,
    verb,
    with_interval,
)
from iptkit.scores import claims, intervals, summary
from iptkit.studies import effects, learning_curves, verdicts_ipt
from iptkit.studies.adapters import METHODS as ADAPTERS
from iptkit.studies.score_rows import AROUND, DECODERS
from iptkit.studies.verdicts_ipt import MEAN_CODE, PROMPT_TUNING, SIDES, ZERO_SHOT, Arm

SHORT = {  # claim -> what it says, in a few words
    "A1": "all tasks share one small subspace",
    "A3": "an auto-encoder maps prompts to codes and back",
    "A4": "IST improves on its start",
    "A7": "IST keeps no less than about the paper's share",
    "A8": "IST does not reach prompt tuning",
    "A9": "a subspace serves only its kind of tasks",
    "A10": "more seen tasks help",
    "A12": "IST's solution is a good start",
    "A13": "adapters have such a subspace, too",
    "A14": "found directions beat random ones",
}


SHARES_NOTE = (
    "A number in parentheses after E_rel says on how many of the tasks prompt tuning is at least "
    f"{summary.LEAST} above 0, or above chance. The others have no E_rel."
)


def section(study: Folds, folder: str = "figures") -> list[str]:
    """The parts of the page on the study, in Markdown, without its heading.

    Args:
      study: to be shown.
      folder: of the figures, from the page.
    """
    found = pictures(study)

    def shown(name: str) -> str:
        return f"![{found[name].alt}]({folder}/{name}.svg)" if name in found else ""

    parts = [
        _set_up(study),
        bullets(*_in_short(study)),
        "### How large are the effects that the claims are judged by?",
        shown("forest"),
        "Each line is one effect with its 95 % interval; its colour and words judge this effect alone. An "
        "effect inside the shaded margin is too small to matter; for E_rel, the margin counts as about as "
        "much as the value asked for. The triangle points to the side that the claim asks for. The margins "
        "were written down before the study; they are shaded in the next figures, too. [The "
        "claims](#claims-of-the-two-papers) are below.",
        paper_note(study),
        "### What does the start gain, and what does tuning add?",
        _gains(study),
        shown("gains"),
        "### Do other directions from the same start do as well?",
        _controls(study),
        shown("controls"),
        *_apart(study),
        "### Which kinds of tasks keep most?",
        _kinds(study),
        shown("categories"),
        folded("Scores by category", SHARES_NOTE, category_table(study)),
        *_seen_tasks(study, shown("seen_tasks")),
        *_stage_two(study, shown("stage_two")),
        *_budgets(study, shown("budgets")),
        "### All methods",
        folded("Scores, shares and log-likelihoods of all methods", SHARES_NOTE, method_table(study)),
    ]
    return [part for part in parts if part]


def details(study: Folds) -> str:
    """Every effect with its p and, where it is undecided, the smallest one that the study sees; a list."""
    lines = []
    for verdict in study.verdicts:
        few = f"{verdict['num_seeds']} few-shot sample{'s' * (verdict['num_seeds'] > 1)}"
        texts = [f"{effects.as_text(e)}: *{e['verdict']}*" for e in verdict["effects"]]
        lines.append(f"{verdict['name']} ({verdict['num_tasks']} tasks, {few}): {'; '.join(texts)}.")
    return bullets(*lines)


def rules(study: Folds) -> list[str]:
    """How a verdict is chosen in a study with folds, one sentence or a few each."""
    holds, in_part, fails, is_open = (f"*{word}*" for word in claims.VERDICTS)
    return [
        f"Claims at scale `{study.scale['name']}` are judged by criteria that were written down before the "
        "study (data/claims.json). An effect is *significant* if its whole 95 % interval is above or below "
        f"the value asked for, and the sign-flip test over leakage groups gives p ≤ {claims.LEVEL}. {holds}: "
        f"it is significant on the side that the claim asks for. {in_part}: the same, but the interval lies "
        f"wholly inside the margin. {fails}: it is significant on the other side, or its interval lies "
        f"wholly inside the margin. {is_open}: anything else, and any effect with fewer than "
        f"{intervals.LEAST_GROUPS} leakage groups.",
        "An effect in E_rel has no p. It holds if its whole interval is above the value minus the margin, "
        "and fails if it is below.",
        "An undecided effect is shown with the smallest one that the study would see with a power of 80 %.",
    ]


# ---- sentences ------------------------------------------------------------------------------------
def _set_up(study: Folds) -> str:
    scale, rows = study.scale, study.main
    tasks, groups = {r["task"] for r in rows}, {r["group"] for r in rows}
    folds = sorted({r["fold"] for r in rows if r.get("fold")})
    samples = len({r["seed"] for r in rows})
    unseen, both = len({row["task"] for row in study.tasks_of("unseen")}), _on_both_sides(study)
    also = "all" if both == unseen else f"{both}"
    missing = f" Not finished: {listed(study.left)}." if study.left else ""
    return (
        f"Scale `{scale['name']}`: {len(tasks)} tasks in {len(groups)} leakage groups, model "
        f"`{rows[0]['backbone']}`, number type `{study.about['dtype']}`, prompts of {scale['prompt_length']} "
        f"vectors, {scale['test_examples']} test examples per task, {_samples(study, samples)}. Prompts are "
        f"trained for {budget_text(scale['prompt'])}, IST for {budget_text(scale['ist'])}. The study is "
        f"cross-fitted: each of {len(folds)} folds holds out some tasks and finds a subspace of the others. "
        f"So {unseen} tasks are unseen once, and {also} of them are also scored once as seen ones.{missing}"
    )


def _samples(study: Folds, samples: int) -> str:
    """The number of few-shot samples, and the methods that were trained on all of them."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for row in verdicts_ipt.at(study.main, study.dim):
        seeds.setdefault(row["method"], {}).setdefault(row["task"], set()).add(row["seed"])
    counts = {method: {len(of) for of in of_task.values()} for method, of_task in seeds.items()}
    whole = [control_name(method) for method, of in counts.items() if of == {samples}]
    text = f"{samples} few-shot sample{'s' * (samples > 1)}"
    if samples < 2 or len(whole) == len(counts):
        return text
    some = ", some of them two on a part of the tasks" * any(len(of) > 1 for of in counts.values())
    return f"{text} ({listed(whole)}; other methods have one{some})"


def _on_both_sides(study: Folds) -> int:
    """How many tasks IST was scored on both as seen and as unseen ones."""
    return len(set.intersection(*({row["task"] for row in study.tasks_of(side)} for side in SIDES)))


def _in_short(study: Folds) -> list[str]:
    dim, kept = study.dim, []
    for side in SIDES:
        rows = study.tasks_of(side)
        ist, code, tuned = (
            study.line(m, side, d, rows) for m, d in (("IST", dim), (MEAN_CODE, dim), (PROMPT_TUNING, 0))
        )
        if not ist or not code:
            continue
        kept.append(
            f"On {side} tasks IST scores {with_interval(ist['score'])} and prompt tuning "
            f"{with_interval(tuned['score'])}: E_rel {share(ist['E_rel'])}, ratio of means "
            f"{ist['ratio of means']:.2f}. {_above_chance(study, side, ist)} The mean code, which is not "
            f"tuned, keeps E_rel {share(code['E_rel'])}."
        )
    dims, more = sorted({r["d_I"] for r in study.main if r["method"] == "IST"}), ""
    if len(dims) > 1:
        most = {side: study.gap(("IST", dims[-1]), ("IST", dims[0]), side) for side in SIDES}
        more = "**More parameters.** " + " ".join(
            f"On {side} tasks, IST with {dims[-1]} parameters {than(gap, f'IST with {dims[0]}')}."
            for side, gap in most.items()
            if gap
        )
    gap = study.gap(("fine-tuning", 0), (PROMPT_TUNING, 0), "unseen")
    fine = ""
    if gap:
        fit = study.scale.get("weights_fit") or study.scale["prompt"]
        measured, every = (
            {r["task"] for r in study.main if r["method"] in of} for of in (["fine-tuning"], METHODS)
        )
        where = "" if measured == every else f"On the {len(measured)} tasks that are measured, fine-tuning"
        said = than(gap, "prompt tuning")
        fine = f"**Fine-tuning.** {where or 'Fine-tuning'} of all weights for {budget_text(fit)} {said}."
    adapters = ""
    if "A13" in study.effects:
        prompts, shared = study.effects["A13"]
        adapters = (
            f"**Adapters.** On unseen tasks, IST of adapters {_compared(prompts, 'IST of prompts')}. It "
            f"{_compared(shared, 'the same adapters before tuning')}."
        )
        around = effects.Gap(Arm(ADAPTERS["learned"]), Arm(ADAPTERS["around"]))
        if drawn := around.measured(study.at_dim, "log_likelihood"):
            said = than(gap_of(drawn), "directions that are drawn", "log_likelihood", drawn["p"])
            adapters += (
                f" From the same start it {said}: with {drawn['groups']} leakage groups this design sees "
                f"differences of {drawn['smallest']:.2f} nats and more."
            )
    each = [
        f"*{word}*: {', '.join(mine)}"
        for word in claims.VERDICTS
        if (mine := [f"{SHORT[v['name']]} ({v['name']})" for v in study.verdicts if v["verdict"] == word])
    ]
    judged = f"**Claims of Qin et al.** {'; '.join(each)}." if each else ""
    kept = [
        f"**What IST keeps.** {' '.join(kept)}",
        f"**Beside prompt tuning.** {_beside_prompt_tuning(study)}",
    ]
    return [judged, *kept, more, fine, adapters]


def _above_chance(study: Folds, side: str, ist: Mapping[str, Any]) -> str:
    """What IST keeps of the score above chance, on the tasks where that is possible, and on all."""
    arms = {name: Arm(name, side).of(study.at_dim) for name in ("IST", PROMPT_TUNING)}
    above = {name: summary.above_chance(rows) for name, rows in arms.items()}
    mine, whole = (intervals.over_tasks(values, study.rows) for values in above.values())
    return (
        f"Above chance it keeps {share(ist['E_rel above chance'])} on the {ist['E_rel above chance tasks']} "
        f"tasks on which prompt tuning is at least {summary.LEAST} better than guessing. Over all "
        f"{ist['tasks']} tasks, IST scores {with_interval(mine)} more than guessing and prompt tuning "
        f"{with_interval(whole)}."
    )


def _beside_prompt_tuning(study: Folds) -> str:
    """Prompt tuning beside zero-shot, IST beside prompt tuning, and IST's unseen beside its seen tasks."""
    ist = ("IST", study.dim)
    gaps = {f"On {side} tasks, IST": study.gap(ist, (PROMPT_TUNING, 0), side) for side in SIDES}
    gain = study.gap((PROMPT_TUNING, 0), (ZERO_SHOT, 0), "unseen")
    texts = [f"Prompt tuning {than(gain, 'zero-shot')}."] if gain else []
    texts += [f"{subject} {than(gap, 'prompt tuning')}." for subject, gap in gaps.items() if gap]
    if sides := effects.Gap(Arm("IST"), Arm("IST", "seen")).measured(study.at_dim, "score"):
        words, told = verb(gap_of(sides), p=sides["p"]), gap_text(gap_of(sides))
        texts.append(
            f"The {sides['tasks']} tasks measured on both sides show no significant difference ({told})."
            if words == SAME
            else f"On unseen tasks, IST {words} on the same {sides['tasks']} tasks when they are seen "
            f"({told})."
        )
    return " ".join(texts)


def paper_note(study: Folds) -> str:
    """What to know beside the paper's E_rel: its model generates every answer, here a part has options."""
    tasks = {r["task"] for r in study.main}
    mine = [r for r in study.main if r["category"] in WITH_OPTIONS]
    rest = [r for r in study.main if r["category"] not in WITH_OPTIONS]
    paper = listed([f"{value:.2f} on {side} tasks" for side, value in verdicts_ipt.PAPER.items()])
    text = f"The paper's E_rel of {paper} is of a model that generates every answer. "
    if not mine or not rest:
        return text + f"Here {len({r['task'] for r in mine})} of {len(tasks)} tasks have answer options."
    chance = {r["task"]: r["chance"] for r in mine}
    guess = sum(chance.values()) / len(chance)
    whole = study.line(PROMPT_TUNING, "unseen", 0, mine)["score"][0]
    kept = [study.line("IST", "unseen", rows=rows) for rows in (mine, rest)]
    with_options, without = (share(line.get("E_rel")) for line in kept)
    return text + (
        f"Here {len(chance)} of {len(tasks)} tasks have answer options, of which the likeliest counts. "
        f"Guessing scores {guess:.2f} there on average, {guess / whole:.2f} of prompt tuning's score, so "
        f"these tasks give E_rel a floor. On unseen tasks IST keeps E_rel {with_options} on tasks with "
        f"options and {without} on the others."
    )


def _gains(study: Folds) -> str:
    """What the start gains over zero-shot, and what tuning adds, on both sides."""
    words = {
        "start": ("The mean code, where IST starts,", "zero-shot"),
        "tuning": ("IST", "the mean code"),
    }
    sentences = []
    for side in SIDES:
        texts = []
        for gain, (subject, other) in words.items():
            both = [one_of(study.gains, gain=gain, split=side, measure=m) for m in summary.VALUES]
            if None not in both:
                score, likelihood = (line or {} for line in both)
                said = than(gap_of(likelihood), other, "log_likelihood", likelihood["p"])
                texts.append(f"{subject} {said}. The difference in score is {gap_text(gap_of(score))}.")
        if texts:
            sentences.append(f"**On {side} tasks.** {' '.join(texts)}")
    return bullets(*sentences)


def _controls(study: Folds) -> str:
    """IST beside each control, those that start where it starts first."""
    lines = {x["control"]: x for x in study.controls if x["measure"] == "log_likelihood"}
    around = [DECODERS[name] for name in AROUND]
    texts = []
    for before, subject, is_around in (
        ("", "On unseen tasks, IST", True),
        ("The other controls start elsewhere, or are not tuned. ", "IST", False),
    ):
        mine = {control_name(name): line for name, line in lines.items() if (name in around) == is_around}
        if mine:
            gaps, p = {n: gap_of(x) for n, x in mine.items()}, {n: x["p"] for n, x in mine.items()}
            texts.append(before + against(subject, gaps, "log_likelihood", p))
    random, start = Arm(DECODERS["random_around"]), Arm(MEAN_CODE)
    tuned = effects.Gap(random, start).measured(study.at_dim, "log_likelihood")
    if tuned:
        texts.append(
            "Tuning along random directions alone gains "
            f"{gap_text(gap_of(tuned), 'log_likelihood')} over the mean code."
        )
    scores = {control_name(x["control"]): x for x in study.controls if x["measure"] == "score"}
    if scores:
        gaps, p = {n: gap_of(x) for n, x in scores.items()}, {n: x["p"] for n, x in scores.items()}
        texts.append(against("IST", gaps, p=p))
    if study.scale.get("unseen_controls"):
        texts.append("On seen tasks the controls were not run.")
    return " ".join(texts)


def _apart(study: Folds) -> list[str]:
    """What of a difference is that of the starts, in sentences and a table."""
    texts = []
    for words in dict.fromkeys(line["comparison"] for line in study.apart):
        mine = [x for x in study.apart if x["comparison"] == words and x["measure"] == "log_likelihood"]
        parts = {line["part"]: line for line in mine}
        if "tuning" not in parts:
            (line,) = mine
            where = f"{line['tasks']} tasks in {line['groups']} leakage groups"
            told_gap = gap_text(gap_of(line), "log_likelihood")
            texts.append(f"**{words}** ({line['claim']}), from the same start: {told_gap} ({where}).")
            continue
        told = {part: gap_text(gap_of(line), "log_likelihood") for part, line in parts.items()}
        mean, low, high = gap_of(parts["tuning"])
        is_clear = parts["tuning"]["p"] <= claims.LEVEL and (low > 0 or high < 0)
        more = (
            f"gains {'more' if mean > 0 else 'less'} in the first"
            if is_clear
            else "shows no significant difference"
        )
        texts.append(
            f"**{words}** ({mine[0]['claim']}): {told['whole']}. The starts differ by {told['starts']}; "
            f"tuning {more} ({told['tuning']})."
        )
    if not texts:
        return []
    fit = study.scale.get("weights_fit") or study.scale["prompt"]
    return [
        "### Is a difference that of the starts?",
        "Two methods that start at different prompts differ for two reasons: by what they start with, and by "
        "what tuning adds. The verdicts judge the whole difference. These are its parts, on unseen tasks. "
        f"(DID trains for {budget_text(fit)} from the words, and its last step counts.)",
        bullets(*texts),
        folded("The parts in nats and in score", apart_table(study)),
    ]


def _kinds(study: Folds) -> str:
    every = [x for x in study.categories if x["method"] == "IST" and x["split"] == "unseen" and x["E_rel"]]
    mine = [x for x in every if x["groups"] >= intervals.LEAST_GROUPS]
    if not mine:
        return ""
    most, least = (choose(mine, key=lambda x: x["E_rel"][0]) for choose in (max, min))
    text = (
        f"On unseen tasks, E_rel of IST is highest on {kind_of(most)} ({share(most['E_rel'])}) and lowest on "
        f"{kind_of(least)} ({share(least['E_rel'])})."
    )
    above = [x for x in mine if x["E_rel above chance"]]
    if above:
        best = max(above, key=lambda x: x["E_rel above chance"][0])
        text += f" Above chance it is highest on {kind_of(best)} ({share(best['E_rel above chance'])})."
    few = [kind_of(x) for x in every if x["groups"] < intervals.LEAST_GROUPS]
    if few:
        text += (
            f" Not compared, because they have fewer than {intervals.LEAST_GROUPS} leakage groups: "
            f"{listed(few)}."
        )
    return text


def _seen_tasks(study: Folds, picture: str) -> list[str]:
    """Claims A9 and A10 in sentences, with their figure."""
    texts = []
    if "A9" in study.effects:
        own, others, between = study.effects["A9"]
        texts.append(
            f"On unseen classifications, IST in a subspace of classifications {_compared(own, 'zero-shot')}. "
            f"On other tasks it {_compared(others, 'zero-shot')}. There, IST in a subspace of other tasks "
            f"{_compared(between, 'IST in one of classifications')}."
        )
    if "A10" in study.effects:
        (more,) = study.effects["A10"]
        texts.append(f"IST with 100 seen tasks {_compared(more, 'IST with 20')}.")
    return ["### Does it matter which tasks were seen?", " ".join(texts), picture] if texts else []


def _compared(effect: Mapping[str, Any], other: str) -> str:
    """Verb, other method and difference of an effect; its p counts if it is of a comparison with 0."""
    return than(gap_of(effect), other, effect["measure"], 0.0 if effect["value"] else effect["p"])


def _stage_two(study: Folds, picture: str) -> list[str]:
    """Claim A12 in sentences, with its figure."""
    if "A12" not in study.effects or not picture:
        return []
    gaps = study.task_gaps
    gain, steadier = study.effects["A12"]
    is_clear = (steadier["low"] > 0 or steadier["high"] < 0) and steadier["p"] <= claims.LEVEL
    deviation = (
        ("smaller" if steadier["mean"] > 0 else "larger") if is_clear else "not significantly different"
    )
    return [
        "### Is IST's solution a good start for prompt tuning?",
        "On unseen tasks, prompt tuning that starts from IST's solution (stage two) "
        f"{_compared(gain, 'prompt tuning from words')}; on {sum(gap > 0 for gap in gaps)} of {len(gaps)} "
        "tasks it is higher. It has the steps of IST behind it, so part of this may be longer training. Its "
        f"standard deviation over runs is {deviation} "
        f"({gap_text(intervals.opposite(gap_of(steadier)))}).",
        picture,
    ]


def _budgets(study: Folds, picture: str) -> list[str]:
    """Ratios of means against budgets, in sentences and a figure, and the recipe that the curves choose."""
    if not study.curves:
        return []
    found = learning_curves.choose(study.curves)
    parts = ["### How does what IST keeps depend on the budgets?"]
    if picture:
        references, codes = by_prompts(study), [line for _, mine in by_ist(study) for line in mine]
        tasks = {line["tasks"] for line in study.budgets}
        text = (
            f"Learning curves of {listed(sorted(tasks), 'or')} unseen tasks, as ratios of means. *48x2* is "
            "48 steps of two examples. "
        )
        if references:
            first, last = references[0], references[-1]
            ist, msf = first["ist"], first["msf"]
            text += (
                f"The same IST ({ist}, in the subspace of an MSF of {msf}) keeps {share(first['ratio'])} of "
                f"prompts trained for {first['prompts']}, and {share(last['ratio'])} of prompts trained for "
                f"{last['prompts']}: {_falls(first, last)}. "
            )
        if codes:
            own = [line for line in codes if line["msf"] == name_of(study.scale["msf"])] or codes
            first = own[0]
            text += (
                f"With prompts of {first['prompts']}, "
                + listed([f"IST of {line['ist']} keeps {share(line['ratio'])}" for line in own])
                + "."
            )
        parts += [text.strip(), picture]
    parts += [recipe(study, found), folded("All budgets and rates that were compared", curve_table(found))]
    return parts


def _falls(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    before, after = (line["ratio"][0] if line["ratio"] else float("nan") for line in (first, last))
    return (
        "the less the reference is trained, the better IST looks"
        if after < before
        else "a longer trained reference does not lower the ratio here"
    )
