"""The page of a study with folds says what its rows say, and its words follow the numbers."""

import ast
import inspect
import json
import re
from collections import Counter

import folded
import pytest

from iptkit.course import folds_figures, folds_study, folds_tables, forest, results_folds
from iptkit.course import results_page as rp
from iptkit.scores import claims
from iptkit.studies import stored_results, verdicts_ipt
from iptkit.studies.score_rows import DECODERS
from iptkit.studies.unseen import DID_AROUND
from iptkit.tasks import suites

AROUND = DECODERS["random_around"]


def rows_of(changes=None, **more):
    """Rows as a stored study has them; classifications have options."""
    fields = {"backbone": "tiny-causal", "metric": "accuracy"}
    return [
        row | fields | {"chance": 0.4 if row["category"] == "cls" else 0.0}
        for row in folded.rows(changes, **{"groups": 8, **more})
    ]


def study_of(rows, curves=None):
    return folds_study.Folds(rows, json.loads(json.dumps(folded.about())), curves or folded.curves())


@pytest.fixture(scope="module")
def study():
    return study_of(rows_of())


@pytest.fixture(scope="module")
def text(study):
    return "\n\n".join(results_folds.section(study))


@pytest.fixture(scope="module")
def others():
    return {name: stored_results.load_rows(name) for name in rp.STUDIES if name != "ipt120"}


def page_of(study, others):
    found = {"ipt120": (study.rows, study.about), **others}
    return rp.of_rows(found, claims.load_stored(), 2304, study.curves)


def part(text, heading):
    (found,) = re.findall(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    return found


# ---- the claims ----------------------------------------------------------------------------------
def test_every_claim_has_one_line_with_effect_margin_paper_and_verdict(study, others):
    page = rp.page(page_of(study, others))
    overview = page.split("## Claims of the two papers")[1].split("### ")[0]
    for name, claim in claims.known().items():
        (line,) = (line for line in overview.splitlines() if line.startswith(f"| {name} | "))
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == 6 and claim.paper in cells[4]
        for effect in study.effects.get(name, ()):
            mean, low, high = (f"{effect[key]:.2f}" for key in ("mean", "low", "high"))
            is_small = max(abs(effect["low"]), abs(effect["high"])) < 0.05
            shown = re.sub(r"(?<=[\[ ])\+", "", cells[2])
            assert is_small or f"{effect['effect']}: {mean} [{low}, {high}]" in shown
            assert folds_tables.asked_text(effect) in cells[3].replace("&nbsp;", " ")
        if name in study.effects:
            verdict = next(v["verdict"] for v in study.verdicts if v["name"] == name)
            assert cells[5] == f"**{verdict}** (`ipt120`)"
    shown = overview.replace("&nbsp;", " ")
    assert "> 0.77 <br> > 0.55" in shown and "< 0.5 <br> > 0 ± 0.05" in shown


def test_the_verdicts_are_those_of_the_rows(study, others):
    stored = page_of(study, others)
    mine = {row["claim"]: row for row in stored.verdicts if row["scale"] == "ipt120"}
    assert {name: row["verdict"] for name, row in mine.items()} == {
        v["name"]: v["verdict"] for v in verdicts_ipt.verdicts(study.rows)
    }
    counts = Counter(row["verdict"] for row in mine.values())
    said = "\n".join(results_folds.section(study))
    for verdict in counts:
        names = [
            f"{results_folds.SHORT[name]} ({name})" for name, row in mine.items() if row["verdict"] == verdict
        ]
        assert f"*{verdict}*: {', '.join(names)}" in said


def test_details_have_p_and_the_smallest_effect():
    noisy = study_of(rows_of({AROUND: (0.5, -0.25)}, groups=10, noise=(0.01, 0.3)))
    effect = noisy.effects["A1"][0]
    assert effect["verdict"] == claims.VERDICTS[3]
    assert f"this design sees differences of {effect['smallest']:.3f} nats" in results_folds.details(noisy)


def test_what_is_left_is_said(study):
    def left(*names):
        return folds_study.Folds(study.rows, {**study.about, "not finished": names}, study.curves).left

    assert left() == []
    assert left("codes-learned-5-seed1-fold6") == left("nearest-prompt-fold2") == ["some folds"]
    assert left("codes-learned-50-seed0-fold1", "msf-50-fold2") == ["50 parameters per task"]
    assert left("subspace-5-fold1_20", "msf-5-non_cls1", "codes-learned-5-seed0-cls2") == [
        "some subspaces of 20 seen tasks",
        "some subspaces of one kind of tasks",
    ]
    assert left("adapter-codes-learned-5-fold1") == ["adapters"] and left("zero-shot") == ["others"]
    assert left("did-around-t1-fold2") == ["DID around the mean code"]
    assert left("codes-pca_around-5-seed1-fold3") == ["a second few-shot sample of some controls"]
    assert left("codes-pca_around-5-seed0-fold3") == ["some folds"]


def test_a_study_with_few_jobs_has_a_page(study):
    """Prompts alone; one fold at a second d_I; no control."""
    for rows in (
        [r for r in study.rows if r["method"] in ("zero-shot", "prompt tuning")],
        study.rows + [r | {"d_I": 50} for r in study.rows if r["method"] == "IST" and r["fold"] == "fold1"],
        [r for r in study.rows if r["method"] in ("zero-shot", "prompt tuning", "mean code", "IST")],
    ):
        assert "\n".join(results_folds.section(study_of(rows)))


# ---- words ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("level", "words"),
    [
        ((0.3, -0.5), "IST has a higher log-likelihood than random directions around the mean code (+"),
        ((0.7, 0.1), "It has a lower log-likelihood than random directions around the mean code (-"),
        ((0.56, -0.2), "no significant difference in log-likelihood from random directions around the mean "),
    ],
)
def test_words_on_a_control_follow_its_rows(level, words):
    rows = rows_of({AROUND: level}, noise=(0.01, 0.03))
    mine = part(
        "\n".join(results_folds.section(study_of(rows))),
        "Do other directions from the same start do as well?",
    )
    assert words in mine


def test_the_start_is_told_from_tuning(text, study):
    mine = part(text, "What does the start gain, and what does tuning add?")
    for line in study.gains:
        unit = " nats" if line["measure"] == "log_likelihood" else ""
        assert f"{line['mean']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]{unit}" in mine
    assert mine.count("has a higher log-likelihood than zero-shot") == 2


def test_runs_that_vary_more_are_called_so():
    heading = "Is IST's solution a good start for prompt tuning?"
    for runs, word in (
        (folded.RUNS, "smaller"),
        (dict(zip(folded.RUNS, (0.05, 0.01), strict=True)), "larger"),
    ):
        study = study_of(rows_of(runs=runs))
        assert f"deviation over runs is {word} (" in part("\n".join(results_folds.section(study)), heading)


def test_the_note_on_the_paper_counts_tasks_with_options(study):
    tasks = {row["task"]: row for row in study.rows}
    with_options = [row for row in tasks.values() if row["category"] in folds_study.WITH_OPTIONS]
    note = results_folds.paper_note(study)
    assert f"Here {len(with_options)} of {len(tasks)} tasks have answer options" in note
    assert "0.87 on seen tasks and 0.65 on unseen tasks" in note and "Guessing scores 0.40 there" in note


def test_tasks_with_options_are_those_with_a_chance():
    rows, _ = stored_results.load_rows("ipt120")
    chances = {row["task"]: row["chance"] for row in rows}
    for card in suites.list_cards("ipt120"):
        assert (card.category in folds_study.WITH_OPTIONS) == (chances[card.id] > 0), card.id


# ---- starts and tuning ---------------------------------------------------------------------------
def test_a_difference_is_told_with_that_of_the_starts(text, study):
    mine = part(text, "Is a difference that of the starts?")
    shown = {(x["comparison"], x["part"], x["measure"]): x for x in study.apart}
    for words in ("IST − DID", "IST of adapters − IST of prompts"):
        told = [shown[words, one, "log_likelihood"]["mean"] for one in ("whole", "starts", "tuning")]
        (line,) = (line for line in mine.splitlines() if line.startswith(f"- **{words}**"))
        assert all(f"{value:+.3f}" in line for value in told)
    did = next(line for line in mine.splitlines() if line.startswith("- **IST − DID**"))
    assert "tuning gains more in the first" in did  # +0.4 from the mean code, +0.3 from words
    (same,) = (line for line in mine.splitlines() if line.startswith(f"- **IST − {DID_AROUND}**"))
    gap = shown[f"IST − {DID_AROUND}", "whole", "log_likelihood"]
    assert "from the same start" in same and f"{gap['mean']:+.3f}" in same and f"{gap['tasks']} tasks" in same
    assert "| the same start |" in mine and "DID trains for 40 steps of 2 examples" in mine
    behind = study_of(rows_of({"DID": (0.3, -0.1)}))
    told = part("\n\n".join(results_folds.section(behind)), "Is a difference that of the starts?")
    assert "tuning gains less in the first" in told


def test_a_share_says_how_many_tasks_it_is_of(text, study):
    some = [
        r | {"score": 0.4} if r["method"] == "prompt tuning" and r["category"] == "cls" else r
        for r in study.rows
    ]
    other = "\n\n".join(results_folds.section(study_of(some)))
    count = len({r["task"] for r in some if r["category"] != "cls"})
    assert f"on the {count} tasks on which prompt tuning is at least 0.05 better than guessing" in other
    assert f"] ({count}) |" in part(other, "All methods") and f"] ({count}) |" not in part(
        text, "All methods"
    )


# ---- budgets -------------------------------------------------------------------------------------
def test_e_rel_against_budgets(text, study):
    mine = part(text, "How does what IST keeps depend on the budgets?")
    ratio = {(x["prompts"], x["msf"], x["ist"]): x["ratio"] for x in study.budgets if x["lr"] == 0.3}
    for key in (("40x2", "120x2", "48x2"), ("360x2", "120x2", "48x2"), ("120x2", "120x2", "16x2")):
        assert "{:.2f} [{:.2f}, {:.2f}]".format(*ratio[key]) in mine
    assert "the less the reference is trained, the better IST looks" in mine
    flat = [r | {"score": 0.8} if r["stage"] == "prompts" else r for r in study.curves]
    other = "\n".join(results_folds.section(study_of(study.rows, flat)))
    assert "a longer trained reference does not lower the ratio here" in other
    assert "| prompt tuning: budget, learning rate | 120x2, 0.3 | 120x2, 0.3 |" in mine
    assert "| MSF: budget | **360x2** | 120x2 |" in mine


def test_curves_that_are_not_finished_leave_out_what_they_lack(study):
    few = [r for r in study.curves if r["stage"] == "prompts"]
    assert "budgets" not in folds_figures.pictures(study_of(study.rows, few))
    assert "prompt tuning: budget" in "\n".join(results_folds.section(study_of(study.rows, few)))


# ---- tables --------------------------------------------------------------------------------------
def test_the_table_of_methods_has_scores_shares_and_log_likelihoods(text, study):
    mine = part(text, "All methods")
    (line,) = (x for x in mine.splitlines() if x.startswith("| **IST**, d_I = 5 | unseen |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    expected = study.line("IST", "unseen")
    for name, cell in zip(("score", "E_rel", "E_rel above chance"), cells[3:6], strict=True):
        assert cell == "{:.2f} [{:.2f}, {:.2f}]".format(*expected[name])
    assert cells[6] == f"{expected['ratio of means']:.2f}" and cells[7].startswith("-")
    renamed = [r | {"method": "other"} if r["method"] == "DID" else r for r in study.rows]
    assert "| other, d_I = 5 | both |" in folds_tables.method_table(study_of(renamed)), "none is left out"


# ---- figures -------------------------------------------------------------------------------------
def test_figures_have_the_same_bytes_a_description_and_contrast(text, study):
    found = folds_figures.pictures(study)
    assert list(found) == ["forest", "gains", "controls", "categories", "seen_tasks", "stage_two", "budgets"]
    for name, picture in found.items():
        made = picture.svg()
        assert made == picture.svg() and "<dc:date>" not in made and "<text" not in made, name
        assert f"![{picture.alt}](figures/{name}.svg)" in text and "\n" not in picture.alt
        colours = {c.lower() for c in re.findall(r"(?:fill|stroke): (#[0-9a-fA-F]{6})", made)}
        shades = {"#ffffff", "#e6e6e6", forest.BAND, "#bbbbbb"}  # background, grid, margins, separators
        assert all(contrast(colour) >= 3 for colour in colours - shades), name
        assert f"fill: {forest.BAND}" in made or name in ("categories", "stage_two", "budgets")
        assert re.search(r'id="patch_1">\s*<path d="[^"]*" style="fill: #ffffff', made), "white background"


def contrast(colour):
    """Contrast with white, as the Web Content Accessibility Guidelines define it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 1.05 / (sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05)


def test_descriptions_follow_the_rows(study):
    better = study_of([r | {"score": r["score"] + 0.1} if r["method"] == "IST" else r for r in study.rows])
    before, after = folds_figures.pictures(study), folds_figures.pictures(better)
    for name in ("forest", "gains", "controls", "categories", "seen_tasks"):
        assert before[name].alt != after[name].alt and before[name].svg() != after[name].svg(), name
    assert before["stage_two"].alt == after["stage_two"].alt


def test_a_forest_has_every_effect_its_margin_and_the_papers_figures(study):
    drawn = forest.forest(study.verdicts, folds_figures.PAPER)
    assert [ax.get_xlabel() for ax in drawn.axes] == list(forest.AXES.values())
    effects = [e for of in study.effects.values() for e in of]
    for measure, ax in zip(forest.AXES, drawn.axes, strict=True):
        mine = [e for e in effects if e["measure"] == measure]
        assert len(ax.get_yticks()) == len(mine)
        bands = [end for band in ax.collections for end in band.get_datalim(ax.transData).intervalx]
        ends = [e["value"] + sign * e["equal"] for e in mine if e["equal"] for sign in (-1, 1)]
        assert bands == pytest.approx(ends)
        stars = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "*"]
        assert stars == ([0.65, 0.87, 0.65] if measure == "E_rel" else [])


# ---- the files -----------------------------------------------------------------------------------
def test_the_page_its_figures_and_its_links(study, others, monkeypatch, tmp_path, capsys):
    stored = {"ipt120": (study.rows, study.about), "curves": (study.curves, study.about), **others}
    monkeypatch.setattr(stored_results, "load_rows", lambda name: stored[name])
    assert rp.read().folds.left == []
    assert rp.main(["--out", str(tmp_path)]) == 0
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert files == sorted(
        ["results.md", "figure.svg", *(f"figures/{name}.svg" for name in folds_figures.pictures(study))]
    )
    assert rp.main(["--out", str(tmp_path), "--check"]) == 0
    (tmp_path / "figures" / "gains.svg").unlink()
    assert (
        rp.main(["--out", str(tmp_path), "--check"]) == 1 and "gains.svg differs" in capsys.readouterr().err
    )
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", page, re.M)
    }
    for target in re.findall(r"\]\(#([^)]+)\)", page):
        assert target in anchors, target
    assert "nan" not in page


def test_no_result_is_typed_into_the_modules():
    for module in (results_folds, folds_tables, folds_figures, folds_study, forest):
        tree = ast.parse(inspect.getsource(module))
        docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        said = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        mine = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs]
        assert said and not [
            n.value for n in mine if isinstance(n.value, str) and re.search(r"\d\.\d", n.value)
        ]


def test_the_methods_with_all_few_shot_samples_are_named(study):
    said = results_folds._set_up(study)
    assert "2 few-shot samples (prompt tuning, IST and random directions around" in said
    more = [r | {"seed": 1} for r in study.rows if r["method"] == DECODERS["fastfood_around"]]
    whole = results_folds._set_up(study_of([*study.rows, *more]))
    assert "and Fastfood around the mean code; other methods have one)" in whole
    part_of = results_folds._set_up(study_of([*study.rows, *more[:3]]))
    assert "other methods have one, some of them two on a part of the tasks)" in part_of


def test_fine_tuning_of_a_part_of_the_tasks_says_how_many(study):
    tuned = [r | {"method": "fine-tuning"} for r in study.rows if r["method"] == "zero-shot"]
    whole, some = (
        " ".join(results_folds._in_short(study_of([*study.rows, *of]))) for of in (tuned, tuned[:9])
    )
    assert "**Fine-tuning.** Fine-tuning of all weights" in whole
    assert "**Fine-tuning.** On the 9 tasks that are measured, fine-tuning of all weights" in some
