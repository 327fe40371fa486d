import gc
import weakref
from collections import Counter
from dataclasses import replace

import pytest
import torch
from stock import backbone, timeless

from benchmarks import learning_rates
from iptkit.methods import prompt_tuning, subspace
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.models.backbone import fingerprint
from iptkit.scores import evaluation
from iptkit.scores.summary import difference, of_folds, summary
from iptkit.storage import digests, paths, step_cache
from iptkit.studies import provenance, scales, stored_results
from iptkit.studies import steps as study_steps
from iptkit.studies.study import Study
from iptkit.tasks import fewshot
from iptkit.tasks.suites import list_cards, load_task
from iptkit.training import trainer
from iptkit.training.runs import FitConfig

SMALL = {"seeds": (0, 1), "dims": (2, 3), "main_dim": 2, "test_examples": 4}


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    """A fresh step cache, and the size that the test asks for."""
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})
    return tmp_path / "steps"


def small(seed=0, **changes):
    study = Study(scales.load("smoke", **{**SMALL, **changes}), seed=seed)
    study.backbone = backbone("tiny-causal", "float32")
    return study


# ---- the study -------------------------------------------------------------------------------------
def test_smoke_gives_every_row_and_the_second_run_is_cached(steps):
    study = Study(scales.load("smoke"))
    before = fingerprint(study.backbone.model)
    rows = study.table()
    assert not any(step_cache.HITS.values()) and len(step_cache.HITS) == 10

    found = Counter((r["method"], r["d_I"], r["split"]) for r in rows)
    for split, size in (("seen", 6), ("unseen", 2)):
        assert found["zero-shot", 0, split] == size
        assert found["prompt tuning", 0, split] == found["random decoder", 5, split] == 3 * size
        for dim in (2, 5):
            assert found["IST", dim, split] == 3 * size
            assert found["MSF", dim, split] == found["mean code", dim, split] == size
        assert found["mean prompt", 0, split] == size
    measured = Counter((r["task"], r["method"], r["d_I"], r["seed"]) for r in rows)
    assert set(measured.values()) == {1}, "every score stands there once"
    for row in rows:
        task = next(t for t in study.tasks(0) if t.id == row["task"])
        assert row["metric"] == task.metric and row["category"] == task.category and 0 <= row["score"] <= 1
        assert row["group"] == task.group
        assert (row["split"] == "seen") == (row["task"] in study.seen)
        assert (row["backbone"], row["scale"], row["dtype"]) == ("tiny-causal", "smoke", "float32")
        assert row["n_test"] == 16 and row["chance"] == task.chance
    settings = {r["setting"] for r in rows if r["method"] == "IST"}
    assert settings == {"IST, seen tasks, new data", "IST, unseen tasks"}
    assert fingerprint(study.backbone.model) == before

    step_cache.HITS.clear()
    again = Study(scales.load("smoke"))
    assert again.table() == rows
    assert all(step_cache.HITS.values()) and "engine" not in vars(again), "nothing was computed"


def test_steps_depend_on_what_determines_them(steps):
    """Same folder: found again. Anything that changes the numbers: another folder."""
    first = {p.name for p in made(steps, small())}
    assert first == {p.name for p in made(steps, small())}
    for other in (
        small(seed=1),
        small(prompt_length=3),
        small(test_examples=5),
        small(dtype="float64"),
        small(seen=("tiny-kind", "tiny-pick", "tiny-sum"), unseen=("tiny-mood",)),
    ):
        assert not first & {p.name for p in made(steps, other)}
    for changes, expected in (
        ({"seeds": (0, 2)}, {"zero-shot"}),
        ({"prompt": FitConfig(steps=2)}, {"zero-shot"}),
        ({"msf": FitConfig(steps=9)}, {"zero-shot", "prompts", "codes-random-2"}),
        ({"ist": FitConfig(steps=9)}, {"zero-shot", "prompts", "subspace-2"}),
    ):
        other = {p.name for p in made(steps, small(**changes))}
        assert {name.rsplit("-", 1)[0] for name in first & other} == expected


def test_steps_depend_on_the_words_and_on_every_example(steps, monkeypatch):
    """A mended example or another start gives new steps; only the seeds that a step uses count."""
    first = {p.name for p in made(steps, small())}
    with monkeypatch.context() as patch:
        patch.setattr(prompt_tuning, "WORDS", "Answer:")
        assert not first & {p.name for p in made(steps, small())}
    for seed, kept in ((0, set()), (1, {"zero-shot"})):
        for name in ("train", "train_new", "dev", "test"):
            study = small()
            task = study.whole.tasks(seed)[2]
            last = getattr(task, name)[-1]
            mended = (*getattr(task, name)[:-1], replace(last, targets=(*last.targets, "another")))
            study.whole.tasks(seed)[2] = replace(task, **{name: mended})
            same = first & {p.name for p in made(steps, study)}
            assert {folder.rsplit("-", 1)[0] for folder in same} == kept, (seed, name)


def made(steps, study):
    """The step folders of the bank, one subspace and its codes, named without computing anything."""
    names = []

    def stub(name, config, make, root=None):
        names.append(steps / f"{name}-{digests.digest(config)}")
        if name == "prompts":
            tensors = {"P": torch.randn(2, len(study.ids), 4, 32)}
            return step_cache.Step(name, tensors, {"rows": []}, 0.0, False, {}, name)
        raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_cache, "step", stub)
        study.bank()
        for act in (study.zero_shot, lambda: study.subspace(2), lambda: study.codes(2)):
            with pytest.raises(StopIteration):
                act()
        with pytest.raises(StopIteration):
            study.codes(2, "random")
    return names


def test_the_stored_tensors_give_the_scores_in_the_table(steps):
    """Every prompt stands in the row of its own task, seed and method."""
    study = small(seeds=(0, 3), test_examples=16, dims=(2,))
    rows = study.table()

    def stored(method, dim, seed):
        mine = {
            r["task"]: r["score"] for r in rows if (r["method"], r["d_I"], r["seed"]) == (method, dim, seed)
        }
        return [mine[i] for i in study.ids]

    def scores(prompts, seed):
        return evaluation.evaluate(study.engine, FixedPrompt(prompts.detach()), study.tasks(seed), limit=16)

    bank, (autoencoder, _) = study.bank().tensors["P"], study.subspace(2)
    of_all = torch.arange(len(study.ids))
    for s, seed in enumerate((0, 3)):
        assert scores(bank[s], seed) == stored("prompt tuning", 0, seed)
        source = subspace.IntrinsicPrompt(autoencoder, len(study.ids))
        source.u.data = study.codes(2).tensors["u"][s]
        assert scores(source(of_all).embeds, seed) == stored("IST", 2, seed)
    own = scores(autoencoder.decode(autoencoder.encode(bank[0])), 0)
    code = scores(subspace.mean_code(autoencoder, 8).P, 0)
    mean = scores(bank[0, :6].mean(0).expand(8, -1, -1), 0)
    assert [own, code, mean] == [stored("MSF", 2, 0), stored("mean code", 2, 0), stored("mean prompt", 0, 0)]
    assert own != code and own != mean


def test_the_subspace_is_found_on_the_seen_tasks_with_their_own_prompts(steps, monkeypatch):
    study, seen = small(), []
    find = subspace.find
    monkeypatch.setattr(subspace, "find", lambda *args: seen.append(args) or find(*args))
    study.subspace(2)
    ((_, bank, runs, config, *_),) = seen
    assert [(run.task.id, run.seed, run.data) for run in runs] == [(i, 0, "train") for i in study.seen]
    assert torch.equal(bank, study.bank().tensors["P"][0, :6]) and config.intrinsic_dim == 2


def test_ablations_of_the_subspace_are_separate_steps(steps):
    study = small()
    _, both = study.subspace(2)
    _, only = study.subspace(2, task_weight=0.0)
    assert not both.was_cached and not only.was_cached
    assert not torch.equal(both.tensors["decoder.outer.weight"], only.tensors["decoder.outer.weight"])
    again, step = study.subspace(2)
    assert step.was_cached
    for name, value in again.state_dict().items():
        assert torch.equal(value, both.tensors[name]), name


def test_a_study_killed_anywhere_ends_with_the_same_table(steps, monkeypatch, tmp_path):
    expected = small().table()
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "other"))
    step, budget, kills = trainer.train_step, [0], 0

    def killed(*args):
        if not budget[0]:
            raise KeyboardInterrupt
        budget[0] -= 1
        return step(*args)

    fit = trainer.fit
    for module in (study_steps, subspace):
        monkeypatch.setattr(module, "fit", lambda *args: fit(*args, checkpoint_seconds=-1))
    monkeypatch.setattr(trainer, "train_step", killed)
    while kills < 100:
        budget[0] = 7
        try:
            rows = small().table()
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 5 and timeless(rows) == timeless(expected)


def test_tasks_of_a_study(steps):
    study = small()
    assert [t.id for t in study.tasks(0)] == [*study.seen, *study.unseen]
    assert all(t.seed == 1 and len(t.test) <= 4 for t in study.tasks(1))
    assert study.seeds == (0, 1) and small(seed=5).seeds == (5, 6)


def test_ist_sees_no_example_that_the_bank_was_trained_or_selected_on(steps):
    study = small()
    count, dev = len(study.seen), study.scale.prompt.dev_examples
    assert study.fresh_tasks(0) == study.tasks(0), "its own sets are disjoint already"
    assert study.fresh_tasks(1)[count:] == study.tasks(1)[count:], "nothing was trained on unseen tasks"
    shared = 0
    first = study.tasks(0)[:count]
    for fresh, task, known in zip(study.fresh_tasks(1), study.tasks(1), first, strict=False):
        trained, selected = {e.input for e in known.train}, {e.input for e in known.dev[:dev]}
        assert not trained & {e.input for e in fresh.train_new + fresh.dev}
        assert not selected & {e.input for e in fresh.train_new}
        assert len(fresh.train_new) >= 4 and len(fresh.dev) >= 4 and fresh.test == task.test
        shared += len(task.train_new) - len(fresh.train_new)
    assert shared > 0, "there was something to leave out"


def test_too_few_new_examples_is_an_error():
    known, task = (load_task("tiny-sum", seed, "tiny") for seed in (0, 1))
    greedy = replace(known, train=(*task.train_new, *known.train))
    message = (
        "tiny-sum, seed 1: only 0 of .* examples of train_new were not used with seed 0, but at least 1.*more"
    )
    with pytest.raises(ValueError, match=message):
        fewshot.leave_out(task, greedy)
    with pytest.warns(UserWarning, match="tiny-sum, seed 1: only 2 of .* of train_new were not .* uncertain"):
        assert len(fewshot.leave_out(task, replace(known, train=task.train_new[2:])).train_new) == 2
    with pytest.raises(ValueError, match="task tiny-sum has no train_new, on which a study tunes codes"):
        fewshot.leave_out(replace(task, train_new=()), known)


def test_an_unknown_decoder(steps):
    with pytest.raises(ValueError, match="decoder 'best' is unknown; choose one of learned, random"):
        small().codes(2, "best")


# ---- summaries -------------------------------------------------------------------------------------
def rows_of(method, dim, scores, split="seen", chance=0.0):
    return [
        {"method": method, "d_I": dim, "split": split, "task": t, "seed": s, "score": x, "chance": chance}
        for t, values in scores.items()
        for s, x in enumerate(values)
    ]


def test_summary_of_known_values():
    full = {"a": [0.8, 0.8], "b": [0.5, 0.3], "c": [0.02, 0.02]}
    mine = {"a": [0.4, 0.4], "b": [0.2, 0.2], "c": [0.5, 0.5]}
    rows = rows_of("prompt tuning", 0, full, chance=0.3) + rows_of("IST", 5, mine, chance=0.3)
    (line,) = summary(rows, [("IST", 5)])
    assert line["score"][0] == pytest.approx((0.4 + 0.2 + 0.5) / 3) and line["tasks"] == 3
    assert line["ratio of means"] == pytest.approx(1.1 / 1.22)
    assert line["E_rel"] == pytest.approx((0.5, 0.5, 0.5)) and line["E_rel tasks"] == 2, (
        "c's reference is near 0"
    )
    above = (0.1 / 0.5 + -0.1 / 0.1) / 2
    assert line["E_rel above chance"][0] == pytest.approx(above) and line["E_rel above chance tasks"] == 2


def test_summary_with_another_reference():
    rows = rows_of("fine-tuning", 0, {"a": [0.5]}) + rows_of("IST", 5, {"a": [0.4]})
    (line,) = summary(rows, [("IST", 5)], reference="fine-tuning")
    assert line["E_rel"][0] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="'prompt tuning' without d_I was not measured on a; give another"):
        summary(rows, [("IST", 5)])


def test_summary_keeps_the_splits_apart_and_leaves_out_what_was_not_measured():
    rows = rows_of("prompt tuning", 0, {"a": [0.4]}) + rows_of("prompt tuning", 0, {"b": [0.8]}, "unseen")
    rows += (
        rows_of("IST", 5, {"a": [0.4]})
        + rows_of("IST", 5, {"b": [0.2]}, "unseen")
        + rows_of("IST", 2, {"a": [0.1]})
    )
    lines = summary(rows, [("IST", 5), ("IST", 2), ("MSF", 5)])
    found = {(x["method"], x["d_I"], x["split"]): x["E_rel"][0] for x in lines}
    assert found == pytest.approx(
        {("IST", 5, "seen"): 1.0, ("IST", 5, "unseen"): 0.25, ("IST", 2, "seen"): 0.25}
    )


def test_difference_is_paired():
    first = {"a": [0.9, 0.1], "b": [0.5, 0.5]}
    rows = rows_of("IST", 5, first) + rows_of("random decoder", 5, {"a": [0.8, 0.0], "b": [0.4, 0.4]})
    assert difference(rows, ("IST", 5), ("random decoder", 5)) == pytest.approx((0.1, 0.1, 0.1))
    rows += rows_of("mean code", 5, {"a": [0.5], "b": [0.5]})  # one seed: it stands for all
    mean, low, high = difference(rows, ("IST", 5), ("mean code", 5))
    assert mean == pytest.approx(0.0) and low < -0.05 and high > 0.05
    swapped = difference(rows, ("mean code", 5), ("IST", 5))
    assert swapped == pytest.approx((-mean, -high, -low)), "the same rule in both directions"
    once = rows_of("A", 5, {"a": [0.1, 0.5]}) + [
        r | {"seed": r["seed"] + 1} for r in rows_of("B", 5, {"a": [0.2, 0.2]})
    ]
    there, back = (difference(once, *pair) for pair in ((("A", 5), ("B", 5)), (("B", 5), ("A", 5))))
    assert there[0] == pytest.approx(0.1) and back[0] == pytest.approx(-0.1), "other seeds: of the means"
    of_two = [r | {"examples": k} for k, r in zip((4, 16), rows, strict=False)]
    with pytest.raises(ValueError, match=r"rows of \('IST', 5\) were trained on \[4, 16\] examples"):
        difference(of_two, ("IST", 5), ("mean code", 5))
    rows += rows_of("IST", 5, {"c": [1.0, 1.0]}, "unseen") + rows_of("mean code", 5, {"c": [0.0]}, "unseen")
    assert difference(rows, ("IST", 5), ("mean code", 5), "unseen") == (1.0, 1.0, 1.0)
    assert difference(rows, ("IST", 5), ("mean code", 5))[0] == pytest.approx(1 / 3)
    message = r"\('random decoder', 5\) was measured on not 1 of the 3 tasks .*\(c ...\) \(split: both\)"
    with pytest.raises(ValueError, match=message):
        difference(rows, ("IST", 5), ("random decoder", 5))
    with pytest.raises(ValueError, match=r"\('MSF', 5\) was measured on no task"):
        difference(rows, ("MSF", 5), ("IST", 5))


def test_provenance_says_what_a_result_was_made_with(steps):
    study = small(seed=3)
    steps = [study.zero_shot(), study.bank()]
    about = provenance.describe(study, steps)
    assert about["seed"] == 3 and about["dtype"] == "float32" and about["device"] == "cpu"
    assert about["scale"]["prompt"]["steps"] == 12 and about["seconds"] >= 0
    (made,) = about["made"]
    assert made["steps"] == ["zero-shot", "prompts"] and "torch" in made["packages"]


def test_a_study_takes_a_users_own_tasks(steps):
    suite, own = str(paths.data_dir() / "tiny"), tuple(c.id for c in list_cards("tiny")[:3])
    assert set(own) <= {card.id for card in list_cards(suite)}
    study = Study(scales.load("smoke", suite=suite, seen=own[:2], unseen=own[2:]))
    assert [row["task"] for row in study.zero_shot().values["rows"]] == list(own)
    with pytest.raises(ValueError, match="has no splits"):
        Study(scales.load("smoke", suite=suite, seen=(), unseen=()))


def test_the_steps_of_a_users_files_depend_on_what_is_in_them(steps, tmp_path):
    """Two tasks as folders with their own sets: a changed test example gives other keys."""
    for name, verb in (("first", "sings"), ("second", "rests")):
        (tmp_path / name).mkdir()
        for part, start, count in (("train", 0, 40), ("test", 40, 8)):
            rows = [f"bird {i} {verb},{('up', 'down')[i % 2]}\n" for i in range(start, start + count)]
            (tmp_path / name / f"{part}.csv").write_text("sentence,label\n" + "".join(rows))
    scale = scales.load("smoke", suite=str(tmp_path), seen=("first",), unseen=("second",), seeds=(0,))

    def key():
        with pytest.warns(UserWarning, match="read sentence as the input"):
            return Study(scale).key("a-step")

    before = key()
    assert key() == before
    file = tmp_path / "second" / "test.csv"
    file.write_text(file.read_text().replace("bird 41 rests", "bird 41 naps"))
    assert key() != before


def test_a_model_is_shared_by_studies_of_the_same_model_only(steps):
    first = Study(scales.load("smoke"))
    assert Study(scales.load("smoke", seeds=(1,)), models=first).backbone is first.backbone
    for change in ({"deep": True}, {"backbone": "tiny-gpt2"}, {"dtype": "float64"}):
        with pytest.raises(ValueError, match="`models` is a study with the model .*leave it out"):
            Study(scales.load("smoke", **change), models=first)


def test_a_study_is_freed(steps):
    study = Study(scales.load("smoke"))
    study.tasks(0), study.key("x")
    gone = weakref.ref(study)
    del study
    gc.collect()
    assert gone() is None


def test_too_few_tasks_are_reported_before_anything_trains(steps):
    ids = tuple(card.id for card in list_cards("tiny"))
    with pytest.raises(ValueError, match="number of seen tasks is 1; .* 2 or more"):
        Study(scales.load("smoke", seen=ids[:1], unseen=ids[1:])).jobs()
    with pytest.raises(ValueError, match="asks for nearest, stage_two_runs on unseen tasks, .* none"):
        Study(scales.load("smoke", seen=ids, unseen=(), nearest=True, stage_two_runs=2)).jobs()


def test_stored_rows_know_their_groups_and_intervals_are_over_these():
    suites = ("core36", "encoder9", "ipt120")
    group = {card.id: card.group for suite in suites for card in list_cards(suite)}
    for path in (paths.data_dir() / "results").glob("*.about.json"):
        stored, _ = stored_results.load_rows(path.name.removesuffix(".about.json"))
        assert stored and all(row["group"] == group[row["task"]] for row in stored), path
    rows = of_folds(stored_results.load_rows("ipt120")[0])
    assert len({row["group"] for row in rows}) == 77
    bare = [{k: v for k, v in row.items() if k != "group"} for row in rows]
    wanted = ("IST", 5), ("prompt tuning", 0), "unseen"
    (mean, *ends), (as_if, *other) = difference(rows, *wanted), difference(bare, *wanted)
    assert mean == as_if and ends != other
    (line,), (plain,) = summary(rows, [wanted[0]], ["unseen"]), summary(bare, [wanted[0]], ["unseen"])
    for name in ("score", "E_rel"):
        assert line[name][0] == plain[name][0] and line[name][1:] != plain[name][1:]


# ---- benchmarks ----------------------------------------------------------------------------------
def test_learning_rates_are_compared_on_dev_for_every_method(steps):
    cells = learning_rates.measure(small(), 3.0, ("prompt", "ist"))
    assert [(c["method"], c["tasks"]) for c in cells[::3]] == [
        ("prompt tuning", 8),
        ("IST", 8),
        ("random decoder", 8),
    ]
    assert [c["lr"] for c in cells[:3]] == pytest.approx(
        [1 / 3 * cells[1]["lr"], cells[1]["lr"], 3 * cells[1]["lr"]]
    )
    assert all(c["dev_loss"] > 0 for c in cells) and len({c["dev_loss"] for c in cells}) == 9
    assert len(learning_rates.table(cells).splitlines()) == 10
