"""docs/results.md and docs/figure.svg say what the stored rows say, and their words follow the numbers."""

import ast
import inspect
import re
import statistics
from dataclasses import replace

import pytest

from iptkit.course import results_figure, sentences
from iptkit.course import results_page as rp
from iptkit.scores import claims, intervals, summary
from iptkit.storage import paths
from iptkit.studies import verdicts_ptuning_v2

DOCS = paths.data_dir().parent / "docs"


@pytest.fixture(scope="module")
def stored():
    return rp.read()


@pytest.fixture(scope="module")
def text(stored):
    return rp.page(stored)


def moved(stored, name, by, **wanted):
    """The same with the scores of some rows of a study moved."""
    rows = [
        row | {"score": row["score"] + by} if all(row[key] == value for key, value in wanted.items()) else row
        for row in stored.rows[name]
    ]
    folds = replace(stored.folds, rows=rows) if name == "ipt120" else stored.folds
    return replace(stored, rows=stored.rows | {name: rows}, folds=folds)


def part(text, heading):
    """The text under a heading of the second level."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return found


# ---- the files -----------------------------------------------------------------------------------
def test_the_page_on_disk_is_the_one_that_the_rows_give(text):
    assert (DOCS / "results.md").read_text(encoding="utf-8") == text


def drawn(stored):
    return results_figure.figure(stored.folds.main, 5, stored.prompt_size)


def test_the_figure_on_disk_is_the_one_that_the_rows_give(stored):
    made = drawn(stored)
    assert made == drawn(stored), "the same bytes each time"
    assert (DOCS / "figure.svg").read_text(encoding="utf-8") == made
    assert len(made.encode()) < 60_000 and "<dc:date>" not in made and "<text" not in made
    assert drawn(moved(stored, "ipt120", 0.1, method="IST", split="unseen")) != made


def test_a_check_finds_a_changed_digit_and_a_missing_figure(tmp_path, capsys):
    assert rp.main(["--out", str(tmp_path)]) == 0
    assert rp.main(["--out", str(tmp_path), "--check"]) == 0 and capsys.readouterr().err == ""
    page = tmp_path / "results.md"
    page.write_text(page.read_text(encoding="utf-8").replace("+0.0", "+0.9", 1), encoding="utf-8")
    (tmp_path / "figure.svg").unlink()
    assert rp.main(["--out", str(tmp_path), "--check"]) == 1
    assert re.findall(r"(\S+) differs", capsys.readouterr().err) == [str(page), str(tmp_path / "figure.svg")]
    assert not (tmp_path / "figure.svg").exists()


# ---- the numbers ---------------------------------------------------------------------------------
def test_means_and_e_rel_are_those_of_the_rows_by_hand(stored, text):
    def means(method, dim):
        of = {}
        for row in stored.folds.main:
            if (row["method"], row["d_I"]) == (method, dim) and row["split"] in ("unseen", "both"):
                of.setdefault(row["task"], {})[row["seed"]] = row["score"]
        return of

    ist, tuned = means("IST", 5), means("prompt tuning", 0)
    kept = [
        statistics.mean(score / tuned[task][1 - seed] for seed, score in of.items())
        for task, of in ist.items()
        if min(tuned[task].values()) >= 0.05
    ]
    (line,) = (
        x
        for x in part(text, "The 120-task study").splitlines()
        if x.startswith("| **IST**, d_I = 5 | unseen |")
    )
    cells = [cell.strip().split(" ")[0] for cell in line.strip("|").split("|")]
    mean = statistics.mean(statistics.mean(of.values()) for of in ist.values())
    assert cells[3:5] == [f"{mean:.2f}", f"{statistics.mean(kept):.2f}"]


def test_the_encoders_section_has_the_differences_of_the_stored_rows(stored, text):
    rows = verdicts_ptuning_v2.part(stored.rows["encoder9"], "compared")
    for data, kind, other in (
        ("full", "cls", verdicts_ptuning_v2.TUNED),
        ("few-shot", "tag", verdicts_ptuning_v2.SHALLOW),
    ):
        mine = [row for row in rows if row["data"] == data and row["category"] == kind]
        gap = verdicts_ptuning_v2.difference(
            *(
                [row for row in mine if row["method"] == method]
                for method in (verdicts_ptuning_v2.DEEP, other)
            )
        )
        where = f"{gap[3]} tasks{', over samples only' * (gap[3] < intervals.FEW_TASKS)}"
        assert f"{other} on {where} ({intervals.difference_text(gap)})" in part(text, "Encoders")


def test_moved_scores_move_numbers_words_and_the_description(stored, text):
    how = {"method": "IST", "split": "unseen"}
    for by, word in ((0.3, "higher"), (-0.3, "lower")):
        new = moved(stored, "ipt120", by, **how)
        ist, tuned = ("IST", 5), ("prompt tuning", 0)
        gap = intervals.difference_text(summary.difference(new.folds.main, ist, tuned, "unseen"))
        under = part(rp.page(new), "The 120-task study")
        assert f"On unseen tasks, IST scores {word} than prompt tuning ({gap})." in under
        (line,) = summary.summary(new.folds.main, [ist], ["unseen"])
        assert re.search(rf"unseen tasks: [^;]*, IST {line['score'][0]:.2f}, prompt", rp.page(new))
    assert part(rp.page(new), "Encoders") == part(text, "Encoders")


@pytest.mark.parametrize(
    ("name", "wanted", "heading"),
    [
        ("ipt120", {"method": "nearest task's prompt"}, "The 120-task study"),
        ("lesson-deep", {"method": "mean code"}, "Deep prompts"),
        ("lesson", {"method": "prompt tuning"}, "Deep prompts"),
        ("encoder9", {"method": "P-Tuning v2", "data": "few-shot"}, "Encoders"),
    ],
)
def test_every_study_reaches_its_section_and_no_other(stored, text, name, wanted, heading):
    new = rp.page(moved(stored, name, 0.2, **wanted))
    changed = [title for title in headings(text) if part(new, title) != part(text, title)]
    assert changed == [heading]


def test_the_size_of_a_prompt_is_on_the_page(stored):
    assert "(1,234,567 parameters here)" in rp.page(replace(stored, prompt_size=1_234_567))


def test_no_result_is_typed_into_the_module():
    tree = ast.parse(inspect.getsource(rp) + inspect.getsource(results_figure).partition("annotations\n")[2])
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    said = [re.sub(r"2110\.\d{5}", "", n.value) for n in texts if id(n) not in docs]
    assert len(said) > 300 and not [value for value in said if re.search(r"\d\.\d", value)]


# ---- claims --------------------------------------------------------------------------------------
def test_every_claim_has_one_line_and_the_verdict_of_its_largest_study(stored, text):
    under = part(text, "Claims of the two papers")
    overview = under.split("### ")[0]
    verdicts = {(row["claim"], row["scale"]): row["verdict"] for row in stored.verdicts}
    for name, claim in claims.known().items():
        (line,) = (line for line in overview.splitlines() if line.startswith(f"| {name} | "))
        scale = next(
            (s for s in ("ipt120", "full-encoders", "full", "lesson") if (name, s) in verdicts), None
        )
        waits = "not finished" if claim.criteria else "nothing to measure"
        assert line.endswith(f"| **{verdicts[name, scale]}** (`{scale}`) |" if scale else f"| {waits} |")
    for row in stored.verdicts:
        shown = f"- {row['claim']} (" if row["scale"] == "ipt120" else f"| {row['claim']} | {row['scale']} | "
        assert shown in under


def test_verdicts_that_change_change_the_count_and_the_caution(stored, text):
    judged = {row["claim"] for row in stored.verdicts}
    counted = f"{len(judged)} of 24 claims were judged: "
    holds = sum(rp._decisive(stored.verdicts, name)["verdict"] == "holds" for name in judged)
    assert f"{counted}{holds} *holds*," in text
    assert "An interval ends within 0.001 of 0 in B3 (`full`)" in text
    wide = [row | {"verdict": "holds", "here": "gap +0.100 [+0.050, +0.150]"} for row in stored.verdicts]
    new = rp.page(replace(stored, verdicts=wide))
    assert f"{counted}{len(judged)} *holds*," in new
    assert "No interval ends within 0.001 of 0." in new


def test_claims_whose_jobs_have_not_run_are_named(stored, text):
    judged = {row["claim"] for row in stored.verdicts}
    waiting = [name for name, claim in claims.known().items() if claim.criteria and name not in judged]
    named = re.findall(r"The measurements for (.*?) are not finished\.", text)
    assert [re.findall(r"[AB]\d+", names) for names in named] == ([waiting] if waiting else [])
    assert bool(stored.folds.left) == bool(stored.about["ipt120"].get("not finished"))
    for words in stored.folds.left:
        assert words in part(text, "The 120-task study")


def test_margins_are_those_that_the_verdicts_use(text):
    rules = part(text, "Claims of the two papers")
    assert f"*About as good* (B8, B9) allows {verdicts_ptuning_v2.MARGIN} of a score." in rules


# ---- words ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", ["level with", "numbers", "told", "at hand", "spread", "by a hair", "nan"])
def test_the_page_avoids_words_that_a_learner_trips_over(text, words):
    assert not re.search(rf"\b{words}\b", text)


def headings(text):
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_headings_that_others_link_to_stay(text):
    assert headings(text) == [
        "How to read this page",
        "The 120-task study",
        "Deep prompts",
        "Encoders",
        "Claims of the two papers",
        "How to make the rows again",
    ]
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / target).exists(), target


def test_sentences_name_who_beats_whom():
    gaps = {"a": (0.2, 0.1, 0.3), "b": (-0.2, -0.3, -0.1), "c": (0.0, -0.1, 0.1), "d": (0.1, 0.0, 0.2)}
    assert sentences.against("IST", gaps) == (
        "IST scores higher than a (+0.200 [+0.100, +0.300]). "
        "It scores lower than b (-0.200 [-0.300, -0.100]). "
        "It shows no significant difference from c (+0.000 [-0.100, +0.100]) and d (+0.100 [+0.000, +0.200])."
    )
    assert sentences.verb((float("nan"),) * 3) == sentences.SAME
