"""Tables of the results page on a study with folds, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from iptkit.course.folds_study import Folds, gap_of, kind_of, name_of, one_of, share
from iptkit.course.sentences import gap_text, table, with_interval
from iptkit.scores import summary
from iptkit.scores.claims import Claim
from iptkit.studies import effects, learning_curves
from iptkit.studies.adapters import METHODS as ADAPTERS
from iptkit.studies.score_rows import AROUND, DECODERS
from iptkit.studies.unseen import DID_AROUND, FROM_WORDS, NEAREST, STAGE_TWO
from iptkit.studies.verdicts_ipt import MEAN_CODE, PROMPT_TUNING, SIDES, ZERO_SHOT

METHODS = {  # method -> its name in the table of all methods
    ZERO_SHOT: "zero-shot",
    NEAREST: "prompt of the nearest seen task, not tuned",
    MEAN_CODE: "mean code, not tuned",
    **{DECODERS[name]: DECODERS[name] for name in (*AROUND, "random", "reconstruction")},
    "DID": "random directions of all weights (DID)",
    DID_AROUND: "random directions of all weights (DID), around the mean code",
    "MSF": "MSF: the task's own prompt, encoded and decoded",
    "IST, same data": "IST on the examples of the task's own prompt",
    "IST": "**IST**",
    "shared adapters": "adapters of the seen tasks, not tuned",
    ADAPTERS["random"]: "IST through random adapters",
    ADAPTERS["around"]: "random directions around the adapters of the seen tasks",
    "IST, adapters": "IST through adapters",
    FROM_WORDS: "prompt tuning on IST's examples, from words",
    STAGE_TWO: "prompt tuning on IST's examples, from IST's solution (stage two)",
    PROMPT_TUNING: "prompt tuning",
    "fine-tuning": "fine-tuning of all weights",
}
NOT_JUDGED = {True: "not finished", False: "nothing to measure"}  # by whether a claim has criteria
_SHARES = ("E_rel", "E_rel above chance", "ratio of means")


def claims_table(
    known: Mapping[str, Claim],
    verdicts: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    reports: Callable[[Claim], str],
) -> str:
    """One line a claim: what it says, what was measured, what it asks for, the paper's figure, the verdict.

    Args:
      known: all claims by id.
      verdicts: claim -> its row of `claims.load_stored`, if it was judged.
      measured: claim -> its effects, as far as they are measured (see `studies.effects.effect_of`); without
        them the row's words are shown.
      reports: what the paper reports, in words.
    """
    lines = []
    for name, claim in known.items():
        row, mine = verdicts.get(name), measured.get(name, ())
        cells = [
            " <br> ".join(map(effect_text, mine)),
            " <br> ".join(asked_text(one).replace(" ", "&nbsp;") for one in mine),
        ]
        if row and not mine:
            cells = [row["here"], ""]
        verdict = f"**{row['verdict']}** (`{row['scale']}`)" if row else NOT_JUDGED[bool(claim.criteria)]
        lines.append([name, claim.claim, *cells, reports(claim), verdict])
    heads = [
        "claim",
        "what it says",
        "measured (95 % interval)",
        "asked for",
        "the paper reports",
        "verdict (scale)",
    ]
    return table(heads, lines)


def effect_text(effect: Mapping[str, Any]) -> str:
    """What was measured: the effect and its interval, and the smallest effect that an undecided one sees.

    Example:
      >>> found = {"effect": "a − b", "measure": "score", "mean": 0.1, "low": 0.02, "high": 0.2}
      >>> effect_text(found | {"verdict": "holds"})
      'a − b: +0.10 [+0.02, +0.20]'
    """
    is_level = effect["measure"] in ("E_rel", "reconstruction")
    form = "{:.2f} [{:.2f}, {:.2f}]" if is_level else "{:+.2f} [{:+.2f}, {:+.2f}]"
    if max(abs(effect["low"]), abs(effect["high"])) < 0.05:
        form = form.replace(".2f", ".3f")
    unit = " nats" if effect["measure"] == "log_likelihood" else ""
    kind = "E_rel of " if effect["measure"] == "E_rel" else ""
    values = form.format(*(effect[name] + 0.0 for name in ("mean", "low", "high")))
    sees = (
        f" (undecided; sees {effect['smallest']:.2f} and more)" if effect["verdict"] == effects.OPEN else ""
    )
    return f"{kind}{effect['effect']}: {values}{unit}{sees}"


def asked_text(effect: Mapping[str, Any]) -> str:
    """What the claim asks of an effect, with the margin within which it makes no difference.

    Example:
      >>> asked_text({"asks": "more", "value": 0.0, "equal": 0.05})
      '> 0 ± 0.05'
      >>> asked_text({"asks": "about", "value": 0.65, "equal": 0.1})
      '> 0.55'
    """
    if effect["asks"] == "about":
        return f"> {effect['value'] - effect['equal']:.2g}"
    margin = f" ± {effect['equal']:g}" if effect["equal"] else ""
    return f"{'<' if effect['asks'] == 'less' else '>'} {effect['value']:g}{margin}"


def method_table(study: Folds) -> str:
    """All methods at their d_I on both sides, in the main folds."""
    lines, there = [], {(r["method"], r["d_I"]) for r in study.main}
    names = METHODS | {method: method for method, _ in sorted(there) if method not in METHODS}
    for method, title in names.items():
        for which in sorted(pair for pair in there if pair[0] == method):
            of = [row for row in study.main if (row["method"], row["d_I"]) == which]
            for side in ("both",) if all(row["split"] == "both" for row in of) else SIDES:
                asked = "unseen" if side == "both" else side
                found = summary.summary(study.main, [which], [asked], crossed=True)
                other = summary.summary(study.main, [which], [asked], value="log_likelihood")
                if found:
                    name = f"{title}, d_I = {which[1]}" if which[1] else title
                    lines.append(
                        [
                            name,
                            side,
                            found[0]["tasks"],
                            *_cells(found[0]),
                            with_interval(other[0]["log_likelihood"]),
                        ]
                    )
    return table(["method", "side", "tasks", "score", *_SHARES, "log-likelihood (nats)"], lines)


def apart_table(study: Folds) -> str:
    """Differences of methods, and what of them is the difference of their starts."""
    lines = []
    for claim, words in dict.fromkeys((line["claim"], line["comparison"]) for line in study.apart):
        found = {
            (part, measure): one_of(study.apart, comparison=words, part=part, measure=measure)
            for part in ("whole", "starts", "tuning")
            for measure in summary.VALUES
        }
        whole = found["whole", "log_likelihood"]
        if not whole:
            continue
        cells = [gap_text(gap_of(whole))]
        for which in (("starts", "log_likelihood"), ("tuning", "log_likelihood"), ("tuning", "score")):
            line = found[which]
            cells.append(gap_text(gap_of(line)) if line else "the same start")
        if cells[-1] == "the same start" and (score := found["whole", "score"]):
            cells[2:] = [cells[0], gap_text(gap_of(score))]
        lines.append([claim, words, f"{whole['tasks']} ({whole['groups']})", *cells])
    heads = ["claim", "comparison on unseen tasks", "tasks (groups)", "difference, nats"]
    return table([*heads, "of it the starts, nats", "of it tuning, nats", "tuning, score"], lines)


def category_table(study: Folds) -> str:
    """Four methods by category and side."""
    lines = []
    for line in study.categories:
        side = line["split"] if line["d_I"] else "both"  # without a subspace, the sides do not differ
        if side == "both" and line["split"] == "seen":
            continue
        where = f"{line['tasks']} ({line['groups']})"
        cells = [kind_of(line), side, where, line["method"]]
        lines.append([*cells, *_cells(line), with_interval(line["log_likelihood"])])
    heads = ["category", "side", "tasks (groups)", "method", "score", *_SHARES, "log-likelihood (nats)"]
    return table(heads, lines)


def recipe(study: Folds, found: Mapping[str, Any]) -> str:
    """What the curves choose, beside what the study used."""
    scale, lines = study.scale, []
    weights = scale.get("weights_fit") or scale["prompt"]
    used = {PROMPT_TUNING: scale["prompt"], "MSF": scale["msf"], "fine-tuning": weights, "DID": weights}
    used[f"IST, MSF {name_of(scale['msf'])}"] = scale["ist"]
    decoders = {method: decoder for decoder, method in DECODERS.items()}
    for line in found["lines"]:
        if not line["is_chosen"]:
            continue
        curve, is_of_rates = line["curve"].removeprefix("rates, "), line["curve"].startswith("rates, ")
        own = scale["ist"] if is_of_rates else used.get(curve, {})
        what, chosen, mine = "budget", line["budget"], name_of(own) if own else ""
        if is_of_rates:
            rates = scale.get("control_lr") or {}
            own_rate = rates.get(decoders.get(curve), own["lr"])
            what, chosen, mine = "learning rate", f"{line['lr']:g}", f"{own_rate:g}"
        elif curve == PROMPT_TUNING:
            what, chosen, mine = (
                f"{what}, learning rate",
                f"{chosen}, {line['lr']:g}",
                f"{mine}, {own['lr']:g}",
            )
        chosen = f"**{chosen}**" if mine and mine != chosen else chosen
        gap = gap_text(line["above_best"])
        lines.append([f"{curve}: {what}", chosen, mine, f"{line['dev_loss']:.3f}", gap, line["tasks"]])
    margin = learning_curves.CONFIG.margin
    intro = (
        f"The recipe: of all budgets whose loss on dev (examples that are kept for such choices) is at most "
        f"{margin:g} nats above the lowest, the cheapest; of all learning rates of IST, the one with the "
        "lowest loss. Bold: the study itself uses another value. It trains shorter to save hours."
    )
    heads = ["what", "chosen", "in the study", "loss on dev", "above the lowest", "tasks"]
    return f"{intro}\n\n{table(heads, lines)}\n\n{_not_trained_out(study, found)}"


def _not_trained_out(study: Folds, found: Mapping[str, Any]) -> str:
    """Where longer training or another rate would do better, as far as the rows say."""
    texts = []
    for method, of, one in (
        (PROMPT_TUNING, "prompts", ("task", "seed")),
        ("MSF", "subspaces", ("fold", "d_I")),
    ):
        rows = [r for r in study.main if r["method"] == method and "best_step" in r]
        is_last = {tuple(r.get(name) for name in one): r["best_step"] == r["steps"] for r in rows}
        if last := sum(is_last.values()):
            texts.append(
                f"Of {len(is_last)} {of}, {last} have their best step on dev at the end of training."
            )
    used = study.scale["prompt"]
    mine = [x for x in found["lines"] if x["curve"] == PROMPT_TUNING and x["budget"] == name_of(used)]
    own = [line for line in mine if line["lr"] == used["lr"]]
    better = min(mine, key=lambda line: line["dev_loss"], default=None)
    if own and better and better["lr"] != used["lr"]:
        texts.append(
            f"With the study's own budget of prompts, {name_of(used)}, a learning rate of {better['lr']:g} "
            f"has a lower loss on dev ({better['dev_loss']:.3f}) than the study's {used['lr']:g} "
            f"({own[0]['dev_loss']:.3f})."
        )
    if texts:
        texts.append("So longer training would probably help.")
    return " ".join(texts)


def curve_table(found: Mapping[str, Any]) -> str:
    """All that `learning_curves.choose` compared."""
    lines = [
        [
            line["curve"], line["budget"], f"{line['lr']:g}", f"{line['dev_loss']:.3f}",
            gap_text(line["above_best"]), _number(line["log_likelihood"]), _number(line["score"]),
            f"{line['cpu_seconds']:.1f}", "chosen" if line["is_chosen"] else "",
        ]
        for line in found["lines"]
    ]  # fmt: skip
    heads = [
        "curve",
        "budget",
        "learning rate",
        "loss on dev",
        "above the lowest",
        "test log-likelihood",
        "test score",
    ]
    return table([*heads, "CPU seconds per run", "choice"], lines)


# ---- parts ----------------------------------------------------------------------------------------
def _cells(line: Mapping[str, Any]) -> list[str]:
    """Score and shares of a line of `summary.summary`."""
    return [
        with_interval(line["score"]),
        *(_share_of(line, name) for name in _SHARES[:2]),
        f"{line[_SHARES[2]]:.2f}",
    ]


def _share_of(line: Mapping[str, Any], name: str) -> str:
    """E_rel with its interval, and in how many tasks it was measured if not in all."""
    count = line[f"{name} tasks"]
    return share(line[name]) + (f" ({count})" if line[name] and count < line["tasks"] else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
