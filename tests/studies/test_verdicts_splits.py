"""Splits compared on rows made by hand: which tasks count, what is paired, what follows."""

import pytest

from iptkit.scores import claims
from iptkit.storage import files, paths, result_files
from iptkit.studies import verdicts_splits as g
from iptkit.tasks import suites

TASKS = {**{f"cls{i}": "cls" for i in range(6)}, **{f"other{i}": "qa" for i in range(6)}}


def rows_of(score, seen=(), prompt_tuning=0.8, seeds=2, zero_shot=0.2):
    """One study: IST scores `score(task)` on all but the seen tasks, the others the same on all."""
    rows = []
    for i, (task, category) in enumerate(TASKS.items()):
        common = {
            "task": task,
            "category": category,
            "split": "seen" if task in seen else "unseen",
            "chance": 0,
        }
        rows.append(common | {"method": "zero-shot", "d_I": 0, "seed": 0, "score": zero_shot})
        for seed in range(seeds):
            noise = 0.01 * ((i + seed) % 3 - 1)
            tuned = {"method": "prompt tuning", "d_I": 0, "seed": seed, "score": prompt_tuning}
            rows.append(common | tuned)
            if task not in seen:
                rows.append(common | {"method": "IST", "d_I": 5, "seed": seed, "score": score(task) + noise})
    return rows


def of_kinds(cls=(0.6, 0.3), non_cls=(0.3, 0.5)):
    """Studies "cls" and "non_cls": scores on unseen classifications, on other unseen tasks."""

    def study(scores, seen):
        return rows_of(lambda task: scores[0] if task.startswith("cls") else scores[1], seen)

    return {"cls": study(cls, ("cls0", "cls1")), "non_cls": study(non_cls, ("other0", "other1"))}


def test_only_tasks_that_no_study_has_seen_are_compared():
    rows = g.side_by_side(of_kinds())
    assert {r["task"] for r in rows} == set(TASKS) - {"cls0", "cls1", "other0", "other1"}
    assert {r["method"] for r in rows} == {"cls", "non_cls"} and len(rows) == 2 * 8 * 2


def test_a_kind_is_compared_on_its_own_tasks():
    gaps = g.kinds(of_kinds())
    assert gaps["cls"][0] == pytest.approx(0.3) and gaps["non_cls"][0] == pytest.approx(0.2)
    (found,) = g.verdicts(of_kinds())
    assert found["name"] == "A9" and (found["num_tasks"], found["num_seeds"]) == (8, 2)
    for part in ("unseen classifications (4) +0.400 [", "other tasks (4) +0.100 [", "better by +0.200 ["):
        assert part in found["here"]
    assert g.above(of_kinds(), "non_cls", False, "zero-shot")[0] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("cls", "verdict"),
    [
        ((0.6, 0.1), "holds"),
        ((0.6, 0.3), "holds in part"),
        ((0.1, 0.1), "does not hold here"),
        ((0.2, 0.6), "does not hold here"),
        ((0.2, 0.2), "holds in part"),
    ],
)
def test_verdict_on_kinds(cls, verdict):
    """Zero-shot scores 0.2: does the subspace of classifications serve others, and fail on other tasks?"""
    (found,) = g.verdicts(of_kinds(cls=cls))
    assert found["verdict"] == verdict


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(0.5, "holds"), (0.2, "does not hold here"), (0.3, "not testable at this scale")],
)
def test_verdict_on_the_number_of_seen_tasks(last, verdict):
    scores = dict.fromkeys(g.BY_NUMBER, 0.3) | {"random": last}
    studies = {name: rows_of(lambda task, score=score: score) for name, score in scores.items()}
    (found,) = g.verdicts(studies)
    assert (found["name"], found["verdict"]) == ("A10", verdict)
    del studies["random40"]
    assert g.verdicts(studies) == [found], "judged by its ends"
    del studies["random20"]
    assert g.verdicts(studies) == []


def test_gain_from_seen_siblings(monkeypatch):
    sides = suites.split("leaky", "ipt120")
    group = {card.id: card.group for card in suites.list_cards("ipt120")}
    related = {t for t in sides.unseen if group[t] in {group[s] for s in sides.seen}}
    monkeypatch.setattr(f"{__name__}.TASKS", dict.fromkeys(sides.unseen, "qa"))
    studies = {
        "leaky": rows_of(lambda task: 0.6 if task in related else 0.4),
        "no_siblings": rows_of(lambda task: 0.3 if task in related else 0.4),
    }
    gaps = g.leakage(studies)
    assert 5 < len(related) < 15
    assert gaps["siblings seen"][0] == pytest.approx(0.3) and gaps["none"][0] == pytest.approx(0.0)
    with pytest.raises(
        ValueError, match="splits leaky of ipt120, but not of no_siblings; .*--split no_siblings"
    ):
        g.leakage({"leaky": studies["leaky"]})


def test_e_rel_of_a_kind():
    rows = rows_of(lambda task: 0.4 if task.startswith("cls") else 0.2)
    assert [g.kept(rows, is_cls=kind)[0] for kind in (True, False, None)] == pytest.approx([0.5, 0.25, 0.375])
    assert g.kept(rows, dim=7) is None
    assert g.kept(rows, only={"cls0", "cls5"})[0] == pytest.approx(0.5, abs=0.01)


def test_shared_tasks_are_unseen_in_both():
    assert g.shared(of_kinds()) == set(TASKS) - {"cls0", "cls1", "other0", "other1"}


def test_stored_studies_are_judged_and_recorded(tmp_path, monkeypatch):
    known = claims.known()
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(claims, "known", lambda: known)
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path / "runs"))
    for name, rows in of_kinds().items():
        result_files.write(tmp_path / "results" / f"ipt120-{name}.jsonl", rows)
        files.write_json(tmp_path / "results" / f"ipt120-{name}.about.json", {})
    assert list(g.load_studies()) == ["cls", "non_cls"]
    (row,) = g.record()
    assert (row["claim"], row["scale"], row["verdict"]) == ("A9", "ipt120", "holds in part")
    assert claims.found(tmp_path / "runs", "ipt120") == [row]
    about = {"scale": {"test_examples": 24}, "dtype": "float32"}
    files.write_json(tmp_path / "results" / "ipt120-non_cls.about.json", about)
    with pytest.raises(ValueError, match="non_cls and cls differ in test_examples 24 and None; dtype"):
        g.load_studies()


def test_studies_without_a_common_unseen_task_are_refused():
    studies = {"a": rows_of(lambda task: 0.5, seen=list(TASKS)), "b": rows_of(lambda task: 0.5)}
    with pytest.raises(ValueError, match="no task is unseen in all of a, b"):
        g.side_by_side(studies)
