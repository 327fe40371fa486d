"""The paper's own study by its command, on a pretended GPU: a tiny BART and records of our own.

As the scale says: the suite, its splits, d_I up to 250, the decoder's width, controls, runs of stage two, all
answers generated. Smaller: the model, nine tasks with a few records, eight prompt vectors, four steps.
"""

import json

import pytest
import tokenizers
import transformers as t
from stock import timeless
from typer.testing import CliRunner

from iptkit.course import cli
from iptkit.scores import evaluation
from iptkit.storage import paths, result_files, step_cache
from iptkit.studies import scales
from iptkit.studies.study import Study
from iptkit.training import trainer
from iptkit.training.runs import FitConfig

LENGTH, STEPS = 8, 4
CLS = {  # of CrossFit's classifications, with answers that their records get
    "anli": ("entailment", "neutral", "contradiction"),
    "glue-sst2": ("negative", "positive"),
    "rotten_tomatoes": ("negative", "positive"),
    "ag_news": ("World", "Sports", "Business", "Sci/Tech"),
}
OTHERS = {
    "quarel": ("a wheel", "a road"),  # each with its own options
    "lama-trex": ("Rome", "Paris", "Bern"),
    "e2e_nlg_cleaned": ("It is a pub.", "It is dear."),
    "openbookqa": ("ice", "rock"),
    "crawl_domain": ("a b", "c d"),
}
IDS = (*CLS, *OTHERS)
UNSEEN = ("rotten_tomatoes", "openbookqa", "crawl_domain")
SIDES = {
    "random": (tuple(i for i in IDS if i not in UNSEEN), UNSEEN),
    "paper_random": (tuple(i for i in IDS if i not in UNSEEN), UNSEEN),
    "paper_cls": (tuple(CLS)[:3], ("ag_news", *OTHERS)),
    "paper_non_cls": (tuple(OTHERS)[:3], (*CLS, *tuple(OTHERS)[3:])),
}


def records(task_id, answers, count, start=0):
    for i in range(start, start + count):
        record = {"input": f"Case {i} of {task_id}?", "target": answers[i % len(answers)]}
        yield record | ({"options": answers} if task_id in ("quarel", "openbookqa") else {})


def save_bart(folder):
    """A BART with a vocabulary of single bytes, saved as models of the hub are."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    t.PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)
    t.set_seed(0)
    config = t.BartConfig(
        vocab_size=len(vocabulary), d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, encoder_attention_heads=4, decoder_attention_heads=4, init_std=0.2,
        max_position_embeddings=256, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    t.BartForConditionalGeneration(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A data folder with these tasks, splits and sizes only, the records, and the model."""
    base = tmp_path_factory.mktemp("paper")
    data, real = base / "data", paths.data_dir()
    data.mkdir()
    for entry in real.iterdir():
        if entry.name not in ("cards", "splits", "scales.json"):
            (data / entry.name).symlink_to(entry)
    for name, made in (("cards", cards), ("splits", sides)):
        (data / name).mkdir()
        for file in (real / name).iterdir():
            if file.name != "crossfit.json":
                (data / name / file.name).symlink_to(file)
        (data / name / "crossfit.json").write_text(json.dumps(made(real)))
    save_bart(base / "bart")
    known = json.loads((real / "scales.json").read_text(encoding="utf-8"))
    few = {"steps": STEPS, "rows_per_run": 2, "evaluations": 2, "dev_examples": 3}
    known["paper"] |= {"backbone": str(base / "bart"), "prompt_length": LENGTH}
    for stage in ("prompt", "msf", "ist"):
        known["paper"][stage] |= few
    (data / "scales.json").write_text(json.dumps(known))
    for task_id, answers in (CLS | OTHERS).items():
        (base / "own" / task_id).mkdir(parents=True)
        for part, count, start in (("train", 24, 0), ("test", 4, 24)):
            lines = [json.dumps(one) + "\n" for one in records(task_id, answers, count, start)]
            (base / "own" / task_id / f"{part}.jsonl").write_text("".join(lines))
    return base


def cards(real):
    return [card for card in json.loads((real / "cards" / "crossfit.json").read_text()) if card["id"] in IDS]


def sides(_):
    return {
        name: {
            "seen": seen,
            "unseen": unseen,
            "left_out": [i for i in IDS if i not in seen + unseen],
            "is_leaky": True,
        }
        for name, (seen, unseen) in SIDES.items()
    }


@pytest.fixture
def command(parts, tmp_path, monkeypatch):
    """A function that runs the study: its exit status, its text, and how many steps it trained."""
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setattr(paths, "data_dir", lambda: parts / "data")
    monkeypatch.setenv("IPTKIT_CROSSFIT", str(parts / "own"))
    monkeypatch.setenv("IPTKIT_CACHE", str(parts / "cache"))
    monkeypatch.setattr(step_cache, "HITS", {})
    monkeypatch.setattr(trainer.fit, "__defaults__", (None, "fit", -1.0))  # a checkpoint after each step
    known = trainer.train_step

    def run(*more, steps, stop_after=None):
        count = 0

        def step(*given):
            nonlocal count
            if count == stop_after:
                raise KeyboardInterrupt
            count += 1
            return known(*given)

        monkeypatch.setattr(trainer, "train_step", step)
        monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / steps))
        given = ["study", "--scale", "paper", "--device", "cuda", *more]
        result = CliRunner().invoke(cli.app, given)
        return result.exit_code, result.output, count

    return run


def test_one_command_measures_all_splits_and_resumes_after_a_kill(command, tmp_path):
    whole, again = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    code, said, steps = command("--out", str(whole), steps="one")
    assert code == 0, said
    rows = result_files.read(whole)
    assert {r["device"] for r in rows} == {"cuda"} and {r["dtype"] for r in rows} == {"float32"}
    assert {r["chance"] for r in rows} == {0.0}, "no task has options"
    methods = {r["method"] for r in rows}
    assert methods >= {"zero-shot", "prompt tuning", "mean prompt", "MSF", "mean code", "IST", "stage two"}
    assert methods >= {"random decoder", "random directions around the mean code", "reconstruction alone"}
    mine = [r for r in rows if r.get("fold") == "paper_random" and r["method"] in ("IST", "IST, same data")]
    settings = ("seen tasks, new data", "seen tasks, same data", "unseen tasks")
    assert {(r["setting"], r["d_I"]) for r in mine} == {
        (f"IST, {setting}", dim) for setting in settings for dim in (5, 10, 50, 100, 250)
    }
    for split in ("paper_cls", "paper_non_cls"):
        mine = [r for r in rows if r.get("fold") == split]
        assert {r["task"] for r in mine} == {*SIDES[split][1]} and {r["d_I"] for r in mine} == {250}
    tuned = [r for r in rows if r["method"] == "stage two"]
    assert {r["run"] for r in tuned} == set(range(10)) and {r["task"] for r in tuned} == {*UNSEEN}

    code, said, first = command("--out", str(again), steps="two", stop_after=steps // 2)
    assert (code, first) == (130, steps // 2) and "resumes from the last checkpoint" in said
    code, said, second = command("--out", str(again), steps="two")
    assert code == 0 and second == steps - first, "no step is trained twice"
    assert timeless(result_files.read(again)) == timeless(rows)


def test_every_answer_is_written_by_the_model(command, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_best_options", None)  # what chooses among options
    code, said, _ = command(
        "--split", "paper_cls", "--dims", "5", "--out", str(tmp_path / "x.jsonl"), steps="s"
    )
    assert code == 0, said
    rows = result_files.read(tmp_path / "x.jsonl")
    assert {r["task"] for r in rows if r["split"] == "seen"} == {*SIDES["paper_cls"][0]}


@pytest.mark.parametrize(
    "changes", [{"weights": ("DID",)}, {"adapters": scales.AdapterConfig(FitConfig(), FitConfig())}]
)
def test_what_is_for_causal_models_is_refused(command, parts, changes):
    one = {"folds": (), "compared": (), "split": "paper_random"}
    scale = scales.load("paper", backbone=str(parts / "bart"), **one, **changes)
    with pytest.raises(ValueError, match="are for causal models, but .* is seq2seq; leave them out"):
        Study(scale, "cuda").jobs()
