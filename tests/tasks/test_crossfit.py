"""The suite `crossfit` without the hub: our own records, with the hub's fields."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iptkit.scores import metrics
from iptkit.storage import paths
from iptkit.tasks import crossfit, examples, fewshot, pools, splits, suites
from iptkit.tasks.sources import crossfit as source
from iptkit.tasks.sources.crossfit_records import STEPS, at, cleaned, texts
from iptkit.training.runs import FitConfig

CARDS = {card.id: card for card in suites.list_cards("crossfit")}
RECIPES = source.recipes()
WAYS = {"label", "answer", "answers", "target"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that writes user files: `own(task, train=records, ending="parquet")`."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPTKIT_CROSSFIT", str(tmp_path))

    def write(task_id, ending="parquet", **parts):
        (tmp_path / task_id).mkdir(exist_ok=True)
        for part, records in parts.items():
            file = tmp_path / task_id / f"{part}.{ending}"
            if ending == "parquet":
                pq.write_table(pa.Table.from_pylist(records), file)
            else:
                file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    return write


def anli(count, start=0):
    return [
        {"premise": f"It is {i}.", "hypothesis": "So?", "label": i % 3} for i in range(start, start + count)
    ]


# ---- cards and recipes ---------------------------------------------------------------------------
def test_cards_are_the_papers_120_tasks():
    assert len(CARDS) == 120 and list(CARDS) == list(RECIPES)
    assert Counter(card.shots for card in CARDS.values()) == {16: 51, 32: 69}
    metrics = Counter(card.metric for card in CARDS.values())
    assert metrics == dict(accuracy=40, macro_f1=32, exact_match=28, rouge_l=14, token_f1=5, mcc=1)
    ontology = Counter(recipe["ontology"].split("/")[0] for recipe in RECIPES.values())
    assert ontology == {"qa": 45, "cls": 44, "other": 21, "cg": 10}
    for card in CARDS.values():
        assert card.origin == "crossfit" and not card.packages and card.about.endswith(".")
        assert card.template == f" [{card.id}] {{text}}" and not card.shows_choices
        assert (card.category == "cls") == (card.shots == 16) == bool(card.labels)
        assert len(set(card.labels)) == len(card.labels)
    assert len(CARDS["discovery"].labels) == 174 and len(CARDS["tweet_eval-emoji"].labels) == 20
    assert CARDS["glue-cola"].metric == "mcc" and CARDS["kilt_fever"].shots == 32


def test_siblings_share_a_group():
    for ids in (
        "glue-rte superglue-rte",
        "race-high race-middle",
        "kilt_trex lama-trex lama-squad squad-no_context",
        "eli5-askh eli5-asks eli5-eli5",
        "quartz-no_knowledge quartz-with_knowledge",
        "ethos-gender ethos-disability",
        "tweet_eval-stance_climate tweet_eval-stance_hillary",
    ):
        assert len({CARDS[task].group for task in ids.split()}) == 1, ids


@pytest.mark.parametrize("task_id", list(CARDS))
def test_every_recipe_reads_a_record_of_its_fields_from_parquet(task_id, own):
    recipe, card = RECIPES[task_id], CARDS[task_id]
    own(task_id, train=[recipe["example"]])
    (example,) = pools.examples(card)
    assert example.targets[0] == recipe.get("gives", example.targets[0])
    assert example.input.startswith(f" [{task_id}] ") and "{" not in example.input
    assert bool(example.options) == (card.category in ("cls", "mcqa"))
    assert not example.options or set(example.targets) <= set(example.options)
    assert len(WAYS & recipe.keys()) == 1 and ("answer" in recipe) <= ("options" in recipe)
    told = json.dumps({key: value for key, value in recipe.items() if key not in ("example", "gives")})
    assert all(field in told for field in recipe["example"]), "a field that the recipe does not use"
    assert {name for name, *_ in recipe.get("steps", ())} <= STEPS.keys()
    for field in recipe["example"]:
        lacking = {name: value for name, value in recipe["example"].items() if name != field}
        with pytest.raises(ValueError, match=f"{task_id}: record 1 has no '{field}'"):
            list(source.made(task_id, [lacking]))


def test_names_that_are_guesses_are_marked():
    assert len(crossfit.unsure()) == 45 and "ag_news" not in crossfit.unsure(), (
        "docs/studies.md gives the number"
    )
    assert {"eli5-eli5", "jeopardy", "proto_qa", "crawl_domain"} <= set(crossfit.unsure())
    assert all(bool(recipe["hub"]) != ("gone" in recipe) for recipe in RECIPES.values())
    assert crossfit.recipe("glue-mnli")["test"] == "validation_matched"
    with pytest.raises(ValueError, match="no CrossFit task 'mnli'; choose one of emo, "):
        crossfit.recipe("mnli")


# ---- steps and values ----------------------------------------------------------------------------
STEP_CASES = [  # name, arguments, fields of a record, what it gets (None: it is left out)
    ("only", ["a", "yes"], {"a": "yes"}, {}),
    ("only", ["a", "yes"], {"a": "no"}, None),
    ("without", ["a", "hit:"], {"a": "x"}, {}),
    ("without", ["a", "hit:"], {"a": "x hit: y"}, None),
    ("joined", ["a", ", ", "b"], {"a": ["x", "y"]}, {"b": "x, y"}),
    ("replaced", ["a", "[X]", "{s}"], {"a": "[X] is", "s": "Ben"}, {"a": "Ben is"}),
    ("stripped", ["a", "'"], {"a": "'x'"}, {"a": "x"}),
    ("lower_joint", ["a", "b"], {"a": "Big Duck"}, {"b": "bigduck"}),
    ("majority", ["a", "b"], {"a": [1, 1, 2]}, {"b": 1}),
    ("majority", ["a", "b"], {"a": [0, 1, 2]}, None),
    ("banded", ["a", 0.4, 0.6, "b"], {"a": 0.2}, {"b": 0}),
    ("banded", ["a", 0.4, 0.6, "b"], {"a": 0.5}, None),
    ("banded", ["a", 0.4, 0.6, "b"], {"a": 0.9}, {"b": 1}),
    ("right_ones", ["a", "l", "/", "none", "b"], {"a": ["x", "y"], "l": [0, 0]}, {"b": "none"}),
    ("right_ones", ["a", "l", "/", "none", "b"], {"a": ["x", "y"], "l": [1, 1]}, {"b": "x/y"}),
    ("without_letters", ["a", "b"], {"a": ["A)3", "B) x"]}, {"b": ["3", "x"]}),
    ("lettered_list", ["a", "b"], {"a": "a ) 1,000 , b ) a b"}, {"b": ["1,000", "a b"]}),
    ("choices_inside", ["a", "b"], {"a": "Is it (A) hot or (B) cold?"}, {"b": ["hot", "cold"]}),
]


@pytest.mark.parametrize(("name", "arguments", "record", "added"), STEP_CASES)
def test_steps(name, arguments, record, added):
    assert list(STEPS[name]([record], *arguments)) == ([] if added is None else [{**record, **added}])


def test_records_with_the_same_value_are_merged():
    records = [{"i": {"q": q}, "a": a} for q, a in ((1, "x"), (2, "z"), (1, "y"))]
    assert [record["a"] for record in STEPS["grouped"](records, "i.q", ["a"])] == [["x", "y"], ["z"]]


def test_steps_on_tables_acronyms_and_pairs():
    good = {"t": {"context": "ben", "table": {"column_header": ["born", "in"], "content": ["1900", "Rome"]}}}
    ragged = {"t": {"context": "ben", "table": {"column_header": ["born", "in"], "content": ["1900"]}}}
    (read,) = STEPS["table"]([good, ragged], "t", "c", "r")
    listed = [{"column_header": "born", "content": "1900"}, {"column_header": "in", "content": "Rome"}]
    assert next(STEPS["table"]([{"t": {"context": "ben", "table": listed}}], "t", "c", "r"))["r"] == read["r"]
    assert (read["c"], read["r"]) == ("ben", "born: 1900 [n] in: Rome [n]")
    words = {"w": ["a", "Big", "Duck", "(", "BD", ")"], "l": [4, 0, 2, 4, 1, 4]}
    (read,) = STEPS["acronym"]([words, {"w": ["a"], "l": [4]}], "w", "l")
    assert (read["short"], read["long"]) == ("BD", "Big Duck")
    pairs = list(
        STEPS["shuffled_pair"]([{"r": f"right {i}", "w": f"wrong {i}"} for i in range(200)], "r", "w")
    )
    assert 60 < sum(pair["place"] for pair in pairs) < 140
    assert all((pair["first"], pair["second"])[pair["place"]] == pair["r"] for pair in pairs)


def test_values_in_lists_and_with_blanks():
    record = {"a": [{"b": [{"c": "x"}, {"c": ""}]}, {"b": [{"c": "x"}]}], "d": {"c": ["y"]}}
    assert texts(at(record, "a.b.c")) == ["x"] and at(record, "d.c") == ["y"]
    assert cleaned({"a": " x\n y\t", "b": [None, 3, {"c": "\r"}]}) == {"a": "x y", "b": ["", 3, {"c": ""}]}
    (kept,) = source.made("kilt_nq", [{"input": "q", "output": [{"answer": None}, {"answer": "a"}]}])
    assert kept["targets"] == ["a"]


def test_macro_f1_of_a_task_without_labels_runs_over_the_strings_seen():
    rows = [examples.Example("?", (target,), ("a", "b", "c")) for target in "ab"]
    assert metrics.macro_f1(["a", "c"], rows, SimpleNamespace(labels=())) == pytest.approx(1 / 3)
    assert metrics.macro_f1(["a", "c"], rows, SimpleNamespace(labels=("a", "b"))) == pytest.approx(1 / 2)


def test_missing_answers_are_left_out_and_wrong_ones_refused():
    def made(task_id, **values):
        return list(source.made(task_id, [{**RECIPES[task_id]["example"], **values}]))

    assert made("anli", label=-1) == made("hate_speech18", label=2) == made("hellaswag", label="") == []
    assert made("anli", label="neutral")[0]["targets"] == ["neutral"]
    assert made("superglue-copa", label=-1) == []
    with pytest.raises(ValueError, match=r"anli: label is 3, allowed are 0 to 2 \(entailment, neutral"):
        made("anli", label=3)
    with pytest.raises(
        ValueError, match="race-high: the answer is 'E', allowed are: A, B, C, D.*a correct record"
    ):
        made("race-high", answer="E")
    with pytest.raises(ValueError, match="ropes: TypeError.*in data/crossfit.json"):
        made("ropes", answers="Ben")


# ---- loading -------------------------------------------------------------------------------------
def test_user_files_become_a_task_with_their_test_set(own):
    own("anli", train=anli(300), test=anli(40, start=290))
    (task,) = suites.load_suite("crossfit", seed=100, only=["anli"])
    assert Counter(e.targets[0] for e in task.train) == dict.fromkeys(CARDS["anli"].labels, 16)
    assert len(task.train) == len(task.train_new) == len(task.dev) == 48
    inputs = [{e.input for e in rows} for rows in (task.train, task.train_new, task.dev, task.test)]
    assert len(set.union(*inputs)) == sum(map(len, inputs)) and len(task.test) == 30
    assert task.train[0].input.startswith(" [anli] premise: It is ")
    assert task.train[0].options == task.labels == ("entailment", "neutral", "contradiction")
    others = [suites.load_task("anli", seed, "crossfit") for seed in crossfit.SEEDS]
    assert len({other.train for other in others}) == 5 and {other.test for other in others} == {task.test}
    own("anli", train=anli(90))
    assert len(suites.load_task("anli", 100, "crossfit").train) == 30, "changed files are read again"


def test_a_train_file_is_enough_and_may_have_ready_records(own):
    ready = [{"input": f"why {i}?", "targets": ["so", "thus"]} for i in range(60)]
    own("eli5-asks", ending="jsonl", train=ready)
    (task,) = suites.load_suite("crossfit", only=["eli5-asks"])
    assert len(task.train) == 15 and task.train[0].targets == ("so", "thus")
    assert task.train[0].input.startswith(" [eli5-asks] why ") and len(task.test) == 15
    ready = [{"input": f"{i}?", "target": "ab"[i % 2], "options": ["a", "b"]} for i in range(40)]
    own("quarel", ending="jsonl", train=ready)
    assert suites.load_task("quarel", suite="crossfit").train[0].options == ("a", "b")


def test_user_files_may_have_a_byte_order_mark_and_empty_lines(tmp_path, own):
    (tmp_path / "emo").mkdir()
    lines = [json.dumps({"input": f"why\u2028 {i}", "target": "sad"}, ensure_ascii=False) for i in range(12)]
    (tmp_path / "emo" / "train.jsonl").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n\n").encode())
    assert len(list(source.rows("emo"))) == 12
    (tmp_path / "emo" / "train.jsonl").write_bytes(b'{"input": "caf\xe9", "target": "sad"}')
    with pytest.raises(ValueError, match=r"emo/train.jsonl:1: broken UTF-8 at byte 14"):
        list(source.rows("emo"))


def test_multiple_answers_of_one_question_are_one_example(own):
    answers = [("a", 1), ("b", 0), ("c", 1)]
    own(
        "superglue-multirc",
        train=[
            {"paragraph": "p", "question": f"q{i}?", "answer": text, "label": label, "idx": {"question": i}}
            for i in range(9)
            for text, label in answers
        ],
    )
    (example, *others) = pools.examples(CARDS["superglue-multirc"])
    assert example.input == " [superglue-multirc] question: q0? (A) a (B) b (C) c context: p"
    assert example.targets == ("a [SEP] c",) and len(others) == 8


def test_long_texts_are_cut(own):
    own("xsum", train=[{"document": "word " * 2000, "summary": "12 " * 100}])
    (example,) = pools.examples(CARDS["xsum"])
    assert 540 < pools.estimate_tokens(example.input) <= source.LIMITS.input
    assert example.input.endswith(" word") and example.targets[0].endswith(" 12")
    assert 80 < pools.estimate_tokens(example.targets[0]) <= source.LIMITS.target
    assert source.LIMITS.fit("x" * 9, 2) == "x" * 6 and pools.Limits(2, 2).fit("x" * 9, 2) == ""
    long = ["x" * 300, "x" * 301]
    assert list(pools.examples(CARDS["dream"], [{"text": "?", "targets": long[:1], "options": long}])) == []


def test_the_pool_has_room_for_many_labels():
    def rows_of(counts):
        labels = tuple(counts)
        return [
            examples.Example(f"{label} {i}", (label,), labels)
            for label, n in counts.items()
            for i in range(n)
        ]

    def card_of(counts):
        return replace(CARDS["discovery"], labels=tuple(counts))

    counts = {"few": 20, **{f"label {i}": 60 for i in range(100)}}
    rows = rows_of(counts)
    pool = fewshot.make_pool(rows, card_of(counts), [replace(row, input=row.input + "!") for row in rows])
    assert len(pool.rows) > fewshot.POOL_SIZE and len(pool.test) == fewshot.TEST_SIZE
    drawn = Counter(e.targets[0] for e in fewshot.sample(pool, card_of(counts), 100)["train_new"])
    assert drawn == {"few": 6, **{f"label {i}": 16 for i in range(100)}}
    with pytest.raises(ValueError, match="all examples of the test set are in the training set, too"):
        fewshot.make_pool(rows, card_of(counts), rows[:10])
    with pytest.raises(
        ValueError, match="2 examples of label 'x', but needs at least 3: one each for train, "
    ):
        fewshot.make_pool(rows_of({"x": 2}), card_of({"x": 2}), rows[:10])


# ---- the hub -------------------------------------------------------------------------------------
def test_the_hub_is_asked_for_the_requested_tasks_only(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPTKIT_CROSSFIT", raising=False)
    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported")
        rows = anli(60) if split == "train_r1" else anli(20, start=60)
        return datasets.Dataset.from_list([{**row, "more": "x"} for row in rows])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setitem(source.MOST, "train", 57)
    (task,) = suites.load_suite("crossfit", only=["anli"])
    assert set(asked) == {
        ("facebook/anli", None, split, revision)
        for split in ("train_r1", "dev_r1")
        for revision in (None, "refs/convert/parquet")
    }
    assert 15 <= len(task.train) <= 18 and len(task.test) == 20, "57 of 60 records, a third for each set"
    asked.clear()
    assert suites.load_suite("crossfit", only=["anli"]) == [task] and asked == []


def test_errors_name_a_missing_task_and_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPTKIT_CROSSFIT", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", offline)
    told = crossfit.check(["ag_news", "crawl_domain", "eli5-asks"])
    for task_id, words in (
        (
            "ag_news",
            "'fancyzhx/ag_news', cannot be read from the model hub (no network); this name was never",
        ),
        ("crawl_domain", "this name is a guess: correct it in data/crossfit.json"),
        ("eli5-asks", "eli5-asks cannot be downloaded: its authors' download has ended"),
    ):
        assert words in told[task_id] and f"IPTKIT_CROSSFIT to a folder with {task_id}/train" in told[task_id]
    with pytest.raises(ValueError, match="suite crossfit has no task 'agnews'; did you mean ag_news"):
        suites.load_suite("crossfit", only=["agnews"])


def test_errors_name_a_wrong_user_file(tmp_path, monkeypatch, own):
    own("anli", test=anli(9))
    with pytest.raises(FileNotFoundError, match="anli has no train.parquet or train.jsonl; put it there"):
        suites.load_suite("crossfit", only=["anli"])
    (tmp_path / "emo").mkdir()
    for line, words in (
        ("{", "train.jsonl:1: not valid JSON"),
        ("\n3", "train.jsonl:2: a JSON number is given"),
        ("[" * 100_000, "train.jsonl:1: lists or objects are nested more than 100 deep"),
        ('{"input": "a",\n', "train.jsonl:1: not valid JSON"),
        ('{"input": 1, "input": 2}', "train.jsonl:1: 'input' appears twice"),
        (
            '{"input": ["x", 1], "target": "sad"}',
            r"emo, .*train.jsonl: input is \['x', 1\], allowed is a text",
        ),
        (
            '{"input": "a", "target": {"b": 1}}',
            "train.jsonl: target is {'b': 1}, allowed are a text or a list",
        ),
        ('{"input": "a", "target": "x", "options": ["y", "z"]}', "the answer 'x' is not one of the options"),
    ):
        (tmp_path / "emo" / "train.jsonl").write_text(line)
        with pytest.raises(ValueError, match=words):
            suites.load_suite("crossfit", only=["emo"])
    (tmp_path / "emo" / "train.jsonl").write_text('{"input": "a", "target": "sad"}\n{"text": "b"}')
    with pytest.raises(ValueError, match=r"emo, .*emo/train.jsonl: record 2 has no 'input' .found: text."):
        suites.load_suite("crossfit", only=["emo"])
    (tmp_path / "liar").mkdir()
    (tmp_path / "liar" / "train.parquet").write_text("no")
    with pytest.raises(ValueError, match="train.parquet is not a Parquet file"):
        suites.load_suite("crossfit", only=["liar"])
    own("anli", train=[{"premise": "x", "label": 0}])
    with pytest.raises(
        ValueError, match=r"anli, .*anli/train.parquet: record 1 has no 'hypothesis' .found: premise, label."
    ):
        suites.load_suite("crossfit", only=["anli"])
    own("anli", train=[{"premise": ["x", "1"], "hypothesis": "y", "label": 0}])
    with pytest.raises(
        ValueError, match=r"anli/train.parquet: a field is \['x', '1'\], allowed are a text or a number"
    ):
        suites.load_suite("crossfit", only=["anli"])
    data = (tmp_path / "anli" / "train.parquet").read_bytes()
    (tmp_path / "anli" / "train.parquet").write_bytes(data[:8] + b"\xff" * 40 + data[48:])
    with pytest.raises(ValueError, match=r"train.parquet is not a Parquet file, or is damaged"):
        suites.load_suite("crossfit", only=["anli"])
    (tmp_path / "swag").mkdir()
    (tmp_path / "swag" / "train.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"swag/train.jsonl is a folder, a file is needed"):
        suites.load_suite("crossfit", only=["swag"])
    monkeypatch.setenv("IPTKIT_CROSSFIT", str(tmp_path / "absent"))
    with pytest.raises(
        FileNotFoundError, match="IPTKIT_CROSSFIT names the folder .*absent, which is not there"
    ):
        suites.load_suite("crossfit", only=["anli"])


# ---- splits and settings -------------------------------------------------------------------------
def test_the_papers_splits_have_its_counts_and_leak():
    sides = {name: suites.split(f"paper_{name}", "crossfit") for name in ("random", "cls", "non_cls")}
    counts = {name: (len(s.seen), len(s.unseen), len(s.left_out)) for name, s in sides.items()}
    assert counts == {"random": (100, 20, 0), "cls": (35, 8 + 63, 14), "non_cls": (35, 41 + 43, 1)}
    assert all(s.is_leaky for s in sides.values())
    group = {name: card.group for name, card in CARDS.items()}
    seen = {group[task] for task in sides["random"].seen}
    assert sum(group[task] in seen for task in sides["random"].unseen) == 12
    is_cls = {task: recipe["ontology"].startswith("cls") for task, recipe in RECIPES.items()}
    assert all(map(is_cls.get, sides["cls"].seen)) and not any(map(is_cls.get, sides["non_cls"].seen))
    assert (
        sum(map(is_cls.get, sides["cls"].unseen)) == 8 and sum(map(is_cls.get, sides["non_cls"].unseen)) == 43
    )
    assert "discovery" in sides["cls"].left_out and sides["non_cls"].left_out == ("discovery",)
    assert "superglue-copa" in sides["cls"].left_out, (
        "the authors' script leaves out 13 seen tasks of non_cls"
    )


def test_the_papers_smaller_splits_are_parts_of_its_random_split():
    whole = suites.split("paper_random", "crossfit")
    for count in (20, 40, 60, 80):
        part = suites.split(f"paper_random{count}", "crossfit")
        assert len(part.seen) == count and set(part.seen) < set(whole.seen) and part.unseen == whole.unseen


def test_the_random_split_keeps_groups_together():
    stored = json.loads((paths.data_dir() / "splits" / "crossfit.json").read_text(encoding="utf-8"))
    assert stored["random"] == splits.draw(list(CARDS.values()))["random"]
    sides = suites.split("random", "crossfit")
    assert (len(sides.seen), len(sides.unseen), sides.is_leaky) == (100, 20, False)


def test_settings_of_the_paper_are_those_of_fit():
    config = crossfit.paper_config()
    assert tuple(config["seeds"]) == crossfit.SEEDS and config["dims"] == [3, 5, 10, 50, 100, 250]
    assert len(config["prompt"]["lr"]) * len(config["prompt"]["batch"]) == 12
    for stage in crossfit.STAGES:
        assert config[stage]["source"].startswith("code: ")
        fit = FitConfig(**crossfit.fit_fields(stage))
        assert fit.lr == config[stage]["lr"][0] and fit.steps == config[stage]["steps"]
    fit = FitConfig(**crossfit.fit_fields("prompt", lr=1e-4, batch=8))
    assert (fit.steps, fit.evaluations, fit.clip, fit.warmup) == (100_000, 100, 0.1, 0.1)
    assert (fit.lr, fit.rows_per_run) == (1e-4, 8)
    for arguments, words in (
        (dict(stage="sst"), "stage is 'sst', allowed are: prompt, msf, ist, fastfood"),
        (dict(lr=0.1), "lr is 0.1, the paper's grid for 'prompt' has"),
        (dict(batch=3), "batch is 3, the paper's grid"),
    ):
        with pytest.raises(ValueError, match=words):
            crossfit.fit_fields(**arguments)
