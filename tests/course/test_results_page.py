"""docs/results.md and docs/figure.svg say what the stored rows say, and their words follow the numbers."""

import ast
import inspect
import re
import statistics
from dataclasses import replace

import pytest

from iptkit.course import results_figure
from iptkit.course import results_page as rp
from iptkit.scores import claims, intervals, summary
from iptkit.storage import paths
from iptkit.studies import verdicts_ipt, verdicts_ptuning_v2

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
    return replace(stored, rows=stored.rows | {name: rows})


def part(text, heading):
    """The text under a heading of the second level."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return found


# ---- the files -----------------------------------------------------------------------------------
def test_the_page_on_disk_is_the_one_that_the_rows_give(text):
    assert (DOCS / "results.md").read_text(encoding="utf-8") == text


def drawn(stored):
    return results_figure.figure(stored.rows["ipt120"], 5, stored.prompt_size)


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
    page.write_text(page.read_text(encoding="utf-8").replace("+0.051", "+0.052"), encoding="utf-8")
    (tmp_path / "figure.svg").unlink()
    assert rp.main(["--out", str(tmp_path), "--check"]) == 1
    assert re.findall(r"(\S+) differs", capsys.readouterr().err) == [str(page), str(tmp_path / "figure.svg")]
    assert not (tmp_path / "figure.svg").exists()


# ---- the numbers ---------------------------------------------------------------------------------
def test_means_and_e_rel_are_those_of_the_rows_by_hand(stored, text):
    def means(method, dim):
        of = {}
        for row in stored.rows["ipt120"]:
            if (row["method"], row["d_I"], row["split"]) == (method, dim, "unseen"):
                of.setdefault(row["task"], []).append(row["score"])
        return {task: statistics.mean(scores) for task, scores in of.items()}

    ist, tuned = means("IST", 5), means("prompt tuning", 0)
    kept = statistics.mean(ist[task] / tuned[task] for task in ist)
    (line,) = (x for x in part(text, "The 120-task study").splitlines() if x.startswith("| **IST** "))
    cells = [cell.strip().split(" ")[0] for cell in line.strip("|").split("|")]
    assert cells[1:3] == ["5", "2"]
    assert (cells[4], cells[6]) == (f"{statistics.mean(ist.values()):.2f}", f"{kept:.2f}")


@pytest.mark.parametrize(
    ("heading", "name"), [("The 36-task study", "core36"), ("The 120-task study", "ipt120")]
)
def test_tables_of_both_studies_have_all_measured_pairs(stored, text, heading, name):
    rows, under = stored.rows[name], part(text, heading)
    for first, second in ((("IST", 5), ("mean code", 5)), (("prompt tuning", 0), ("zero-shot", 0))):
        cells = []
        for side in rp.SIDES:
            mean, low, high = summary.difference(rows, first, second, side)
            gap = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            cells.append(f"**{gap}**" if low > 0 or high < 0 else gap)
        assert f"| {first[0]} − {second[0]} | {cells[0]} | {cells[1]} |" in under
    there = {row["method"] for row in rows} & {method for method, _ in rp.METHODS}
    assert sum(line.count("|") == 8 for line in under.splitlines()) == len(there) + 2


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
        assert f"{other} on {gap[3]} tasks ({intervals.difference_text(gap)})" in part(text, "Encoders")


def test_moved_scores_move_numbers_words_and_the_description(stored, text):
    old = (
        "**Tuning the code.** On seen tasks, IST scores higher than the mean code (+0.051 [+0.019, +0.087]). "
    )
    old += (
        "On unseen tasks, IST shows no significant difference from the mean code (+0.022 [-0.021, +0.064])."
    )
    assert old in text
    up = rp.page(moved(stored, "ipt120", 0.1, method="IST", split="unseen"))
    assert "On unseen tasks, IST scores higher than the mean code (+0.122 [+0.079, +0.164])." in up
    assert "20 unseen tasks: zero-shot 0.19, mean code 0.30, IST 0.42" in up
    down = rp.page(moved(stored, "ipt120", -0.1, method="IST", split="unseen"))
    assert "On unseen tasks, IST scores lower than the mean code (-0.078 [-0.121, -0.036])." in down
    assert part(up, "The 36-task study") == part(text, "The 36-task study")


@pytest.mark.parametrize(
    ("name", "wanted", "heading"),
    [
        ("core36", {"method": "random decoder"}, "The 36-task study"),
        ("ipt120-long", {"method": "nearest task's prompt"}, "The 120-task study"),
        ("lesson-deep", {"method": "mean code"}, "Deep prompts"),
        ("lesson", {"method": "prompt tuning"}, "Deep prompts"),
        ("encoder9", {"method": "P-Tuning v2", "data": "few-shot"}, "Encoders"),
    ],
)
def test_every_study_reaches_its_section_and_no_other(stored, text, name, wanted, heading):
    new = rp.page(moved(stored, name, 0.2, **wanted))
    changed = [title for title in headings(text) if part(new, title) != part(text, title)]
    assert changed == [heading]


def test_the_splits_the_size_and_the_error_are_on_the_page(stored):
    splits = {name: rows for name, rows in stored.splits.items()}
    splits["leaky"] = [row | {"score": row["score"] + 0.5} for row in splits["leaky"]]
    new = rp.page(replace(stored, splits=splits, prompt_size=1_234_567, error=0.5))
    assert "these relatives scores higher than IST in one found without them" in new
    assert "(1,234,567 parameters here)" in new and "| prompt tuning | 1,234,567 |" in new
    assert "The prompt vectors themselves are rebuilt:" in new and "squared error is 0.50" in new


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
    for name in claims.known():
        (line,) = (line for line in overview.splitlines() if line.startswith(f"| {name} | "))
        scale = next((s for s in ("ipt120", "full", "lesson") if (name, s) in verdicts), None)
        ends = f"| **{verdicts[name, scale]}** | `{scale}` |" if scale else "| not measured |  |"
        assert line.endswith(ends)
    for row in stored.verdicts:
        assert f"| {row['claim']} | {row['scale']} | " in under


def test_verdicts_that_change_change_the_count_and_the_caution(stored, text):
    assert "20 of 24 claims were measured: 5 *holds*," in text
    assert "An interval ends within 0.001 of 0 in A1 (`ipt120`), " in text
    wide = [row | {"verdict": "holds", "here": "gap +0.100 [+0.050, +0.150]"} for row in stored.verdicts]
    new = rp.page(replace(stored, verdicts=wide))
    assert "20 of 24 claims were measured: 20 *holds*," in new
    assert "No interval ends within 0.001 of 0." in new


def test_margins_are_those_that_the_verdicts_use(text):
    rules = part(text, "Claims of the two papers")
    allowed = f"{verdicts_ipt.MARGIN} of E_rel (A1, A7) or {verdicts_ptuning_v2.MARGIN} of a score (B8, B9)"
    assert f"*About as good* allows {allowed}." in rules


# ---- words ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", ["level with", "numbers", "told", "at hand", "spread", "by a hair", "nan"])
def test_the_page_avoids_words_that_a_learner_trips_over(text, words):
    assert not re.search(rf"\b{words}\b", text)


def headings(text):
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_headings_that_others_link_to_stay(text):
    assert headings(text) == [
        "How to read this page",
        "The 36-task study",
        "The 120-task study",
        "Deep prompts",
        "Encoders",
        "Claims of the two papers",
        "How to make the rows again",
    ]
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (DOCS / target).exists(), target


def test_sentences_name_who_beats_whom():
    gaps = {"a": (0.2, 0.1, 0.3), "b": (-0.2, -0.3, -0.1), "c": (0.0, -0.1, 0.1), "d": (0.1, 0.0, 0.2)}
    assert rp.against("IST", gaps) == (
        "IST scores higher than a (+0.200 [+0.100, +0.300]). "
        "It scores lower than b (-0.200 [-0.300, -0.100]). "
        "It shows no significant difference from c (+0.000 [-0.100, +0.100]) and d (+0.100 [+0.000, +0.200])."
    )
    assert rp.verb((float("nan"),) * 3) == rp.SAME
