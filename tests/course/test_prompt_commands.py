"""`iptkit tune`, `ask`, `score`, `show` and `export` with tiny models: results, --json, --quiet, errors."""

import functools
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from iptkit.course import cli, options, prompt_commands
from iptkit.engine import layouts
from iptkit.methods.prompt_tuning import from_words
from iptkit.models import backbone, bundled, devices
from iptkit.models.backbone import load
from iptkit.prompts import asking, interchange, saved, tuning
from iptkit.storage import paths, tensor_files
from iptkit.tasks import suites
from iptkit.training import trainer

TINY = paths.data_dir() / "tiny"
TAGS = paths.data_dir() / "tiny3"
QUICK = ("--model", "tiny-causal", "--steps", "2", "--device", "cpu")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a command in this process and in an empty folder; return exit status, stdout and stderr."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPTKIT_DEBUG", raising=False)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    shutil.copy(TINY / "tiny-mood.jsonl", "mood.jsonl")
    shutil.copy(TINY / "tiny-plural.jsonl", "plural.jsonl")

    def run(*words, text=None):
        result = CliRunner().invoke(cli.app, list(words), input=text, prog_name="iptkit")
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def mood(command):
    """The command, after a tuning on moods."""
    assert command("tune", "mood.jsonl", "--out", "mood.prompt.safetensors", *QUICK)[0] == 0
    return command


# ---- tune ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning", "deep"])
def test_tune_writes_a_prompt_with_its_score_and_names_the_next_commands(command, tmp_path, method):
    code, said, noted = command("tune", "mood.jsonl", "--out", "a.safetensors", "--method", method, *QUICK)
    assert code == 0 and "mood  accuracy" in said and "95 % interval" in said and "chance" in said
    assert "saved to a.safetensors" in said
    assert "  iptkit ask a.safetensors '" in said and "  iptkit score a.safetensors mood.jsonl" in said
    assert "2 steps of 4 examples" in noted and "mood: train 40, dev 20, test 20 examples" in noted
    about = saved.read_about("a.safetensors")
    assert about["tuned"] == method and about["scores"][0]["metric"] == "accuracy"
    assert 0 <= about["before"][0] <= 1
    assert sorted(p.name for p in (tmp_path / "place").iterdir()) == [
        "a.safetensors",
        "mood.jsonl",
        "plural.jsonl",
    ]


def test_the_tasks_of_a_folder_go_into_one_file_and_each_is_answered_by_its_own_prompt(command):
    (folder := paths.expanded("mine")).mkdir()
    shutil.move("mood.jsonl", folder)
    shutil.move("plural.jsonl", folder)
    code, said, _ = command("tune", "mine", "--out", "both.safetensors", *QUICK, "--json")
    value = json.loads(said)
    assert code == 0 and [task["task"] for task in value["tasks"]] == ["mood", "plural"]
    assert value["method"] == "prompt-tuning" and value["model"] == "tiny-causal"
    assert {"score", "low", "high", "before", "chance", "majority", "examples"} <= value["tasks"][0].keys()
    code, _, wrong = command("ask", "both.safetensors", "I had a sad trip")
    assert code == 2 and "there are 2 prompts, for mood, plural; choose one by its name" in wrong
    code, said, _ = command("ask", "both.safetensors", "I had a sad trip", "--task", "mood")
    assert code == 0 and said.split()[0] in ("positive", "negative")
    code, said, _ = command("score", "both.safetensors", "mine")
    assert code == 0 and [line.split()[0] for line in said.splitlines()[1:]] == ["mood", "plural"]


def test_two_prompts_are_compared_on_the_same_examples(command):
    for name, rate in (("slow", "0.001"), ("fast", "0.5")):
        assert command("tune", "mood.jsonl", "--out", f"{name}.safetensors", *QUICK, "--lr", rate)[0] == 0
    words = ("score", "fast.safetensors", "mood.jsonl", "--split", "dev", "--minus", "slow.safetensors")
    code, said, _ = command(*words)
    heading, row = (line.split("  ") for line in said.splitlines())
    assert code == 0 and row[0] == "mood" and "difference" in map(str.strip, heading)
    value = json.loads(command(*words, "--json")[1])
    (found,) = value["tasks"]
    assert value["minus"] == "slow.safetensors" and found["score"] == found["one"] - found["other"]
    low, high = found["log_likelihood_interval"]
    assert low <= found["log_likelihood"] <= high and found["log_likelihood"] != 0
    assert command(*words, "--quiet")[1].strip() == f"{found['score']:.3f}"
    code, _, wrong = command("score", "fast.safetensors", "mood.jsonl", "--minus", "none.safetensors")
    assert code == 2 and "none.safetensors" in wrong


def test_an_out_without_an_ending_is_a_folder_with_a_card(command, tmp_path):
    assert command("tune", "mood.jsonl", "--out", "mine", *QUICK)[0] == 0
    names = {path.name for path in (tmp_path / "place" / "mine").iterdir()}
    assert names == {"prompt.safetensors", "README.md"}
    assert "- Method: `prompt-tuning`" in (tmp_path / "place" / "mine" / "README.md").read_text()
    code, said, _ = command("show", "mine")
    assert code == 0 and "tiny-causal" in said


def test_few_shot_seed_and_layout_reach_the_training(command):
    layout = '[2, "{text}", 1]'
    words = ["--few-shot", "--seed", "3", "--layout", layout, "--prompt-length", "3", "--rows", "2"]
    code, _, noted = command("tune", "mood.jsonl", "--out", "a.safetensors", *QUICK, *words)
    about = saved.read_about("a.safetensors")
    assert code == 0 and "train 20," in noted and "steps of 2 examples" in noted
    assert about["layout"] == [2, "{text}", 1] and about["data"][0]["seed"] == 3
    assert about["data"][0]["sample"] == 3 and about["prompt_length"] == 3


def test_ist_trains_a_code_in_a_subspace_from_a_file(command):
    model = tuning.subspaces
    bank = from_words(load("tiny-causal"), 4) + torch.randn(5, 4, 32, generator=_generator())
    found = model.AutoEncoder(bank, model.SubspaceConfig(2, 8), _generator())
    found.about = {"backbone": "tiny-causal"}
    model.save(found, "mine.subspace.safetensors")
    words = ["--method", "ist", "--subspace", "mine.subspace.safetensors"]
    code, said, _ = command("tune", "mood.jsonl", "--out", "a.safetensors", *QUICK, *words)
    assert code == 0 and "saved to a.safetensors" in said
    assert saved.read_about("a.safetensors")["method"] == "IntrinsicPrompt"


def _generator():
    return torch.Generator().manual_seed(0)


def test_a_stopped_tuning_resumes_and_ends_with_the_same_prompt(command, monkeypatch):
    words = ("tune", "mood.jsonl", "--model", "tiny-causal", "--steps", "4", "--device", "cpu")
    code, _, noted = command(*words, "--out", "whole.safetensors")
    assert code == 0 and "resum" not in noted
    train_step, tune, done = trainer.train_step, tuning.tune, []

    def stopping(*given):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return train_step(*given)

    monkeypatch.setattr(tuning, "tune", functools.partial(tune, checkpoint_seconds=0))
    monkeypatch.setattr(trainer, "train_step", stopping)
    code, said, wrong = command(*words, "--out", "parts.safetensors")
    assert code == 130 and not said and "the same command resumes" in wrong
    assert paths.expanded("parts.checkpoint").exists() and not paths.expanded("parts.safetensors").exists()
    code, _, wrong = command(*words, "--out", "parts.safetensors", "--lr", "0.05")
    assert code == 2 and "is the checkpoint of another training (" in wrong and "delete it" in wrong
    monkeypatch.setattr(trainer, "train_step", lambda *given: (done.append(1), train_step(*given))[1])
    code, _, noted = command(*words, "--out", "parts.safetensors")
    assert code == 0 and len(done) == 4
    assert "resuming from " in noted and "resumed at step 3 of 4\n" in noted
    whole, parts = (tensor_files.read(f"{name}.safetensors")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not paths.expanded("parts.checkpoint").exists()


WRONG = [
    ("nowhere.jsonl --out a.safetensors", "nowhere.jsonl"),
    ("mood.jsonl --out a.txt", "--out a.txt does not end in .safetensors; write NAME.prompt.safetensors"),
    ("mood.jsonl --out plural.jsonl/a.safetensors", "cannot write to the folder"),
    ("mood.jsonl --out taken.safetensors", "taken.safetensors exists; choose another --out, or replace it"),
    ("mood.jsonl --out taken.safetensors --overwrite", "--overwrite replaces prompts only, but "),
    ("mood.jsonl --out own", "README.md exists, and a prompt's card would replace it"),
    (
        "mood.jsonl --out a.safetensors --method magic",
        "method 'magic' is unknown; choose one of prompt-tuning,",
    ),
    ("mood.jsonl --out a.safetensors --only moods", "no task 'moods'"),
    ("mood.jsonl --out a.safetensors --steps 0", "steps is 0; give a whole number of at least 1"),
    ("mood.jsonl --out a.safetensors --lr -1", "the learning rate lr is -1.0; give a finite number > 0"),
    ("mood.jsonl --out a.safetensors --layout sideways", "layout 'sideways' is unknown"),
    ("mood.jsonl --out a.safetensors --layout [1,", "--layout [1, is no JSON"),
    ("mood.jsonl --out a.safetensors --layout []", "--layout []: pieces are numbers and texts, such as [3, "),
    (
        'mood.jsonl --out a.safetensors --method deep --layout [2,"{text}",2]',
        "but a deep prompt has keys and",
    ),
    ("mood.jsonl --out new/er --model tiny-encoder --method ist", "tiny-encoder is an encoder"),
    ("plural.jsonl --out new/a.safetensors --model tiny-encoder", "task plural is of category 'qa', but"),
    ("mood.jsonl --out new --only moods", "no task 'moods'"),
    (
        "mood.jsonl --out a.safetensors --subspace ipt120",
        "--subspace is for the method ist, not prompt-tuning",
    ),
    ("mood.jsonl --out a.safetensors --method ist", "made for the model smollm2-135m, this is tiny-causal"),
    ("mood.jsonl --out a.safetensors --method ist --subspace x", "there is no subspace 'x'; give the path"),
    ("mood.jsonl --out a.safetensors --method ist --prompt-length 4", "leave prompt_length out"),
    ("mood.jsonl --out a.safetensors --device gpu", "device 'gpu' is unknown"),
    ("mood.jsonl --out a.safetensors --model tiny-encoder --method ist", "tiny-encoder is an encoder"),
    ("mood.jsonl --out a.safetensors --model tiny-encoder --layout prompt-text-answer", "has no layout"),
    ("plural.jsonl --out a.safetensors --model tiny-encoder", "task plural is of category 'qa', but"),
    ("mood.jsonl --out a.safetensors --checkpoint plural.jsonl", "plural.jsonl does not end in .checkpoint"),
    ("tags --out a.safetensors", "task parts has a tag for every word, which needs a head; use an encoder"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_input_of_tune_is_reported_before_anything_runs(command, monkeypatch, words, message):
    _own_files()
    before = _everything()
    monkeypatch.setattr(tuning, "fit", None)  # nothing is trained
    code, said, wrong = command("tune", *(QUICK if "--model" not in words else ()), *words.split())
    told = wrong[wrong.index("iptkit: ") :] if "iptkit: " in wrong else wrong
    assert code == 2 and not said and message in told and "Traceback" not in wrong
    assert _everything() == before


def _everything():
    """All folders, and all files with what they hold."""
    return {path: path.is_file() and path.read_bytes() for path in paths.expanded(".").rglob("*")}


@pytest.mark.parametrize("words", [("tune", "mood.jsonl", "--out", "new/a.safetensors"), ("ask", "x", "y")])
def test_a_seed_that_is_too_large_is_refused(command, words):
    code, said, wrong = command(*words, "--seed", "9" * 23)
    assert code == 2 and not said and "'--seed'" in wrong and f"{2**63 - 1}" in wrong
    assert not paths.expanded("new").exists()


def _own_files():
    """A file that is no prompt, a folder with a README.md, a task with tags."""
    paths.expanded("taken.safetensors").write_text("mine")
    (own := paths.expanded("own")).mkdir()
    (own / "README.md").write_text("mine")
    (tags := paths.expanded("tags")).mkdir()
    shutil.copy(TAGS / "tiny-parts.jsonl", tags / "parts.jsonl")
    (tags / "parts.card.json").write_text('{"category": "tag"}')


def test_overwrite_replaces_a_prompt(mood):
    code, _, wrong = mood("tune", "mood.jsonl", "--out", "mood.prompt.safetensors", *QUICK)
    assert code == 2 and "or replace it with --overwrite" in wrong
    words = ("--out", "mood.prompt.safetensors", "--overwrite", "--method", "deep")
    assert mood("tune", "mood.jsonl", *words, *QUICK)[0] == 0
    assert saved.read_about("mood.prompt.safetensors")["tuned"] == "deep"


def test_the_help_of_tune_has_the_defaults_and_a_shell_completes_what_the_library_takes(command):
    code, said, _ = command("tune", "--help")
    words = " ".join(said.replace("│", " ").split())
    assert code == 0
    assert [f"{name} {of.lr}" in words for name, of in tuning.LANGUAGE_MODEL.items()] == [True] * 4
    assert [f"{name} {of.lr}" in words for name, of in tuning.ENCODER.items()] == [True] * 2
    of_models, of_encoders = tuning.LANGUAGE_MODEL["deep"], tuning.ENCODER["deep"]
    assert f"Training steps; default: {of_models.steps}, ist {tuning.LANGUAGE_MODEL['ist'].steps}." in words
    assert f"per task and step; default: {of_models.rows}, encoders {of_encoders.rows}." in words
    assert f"default: {of_models.prompt_length}, encoders {of_encoders.prompt_length};" in words
    assert prompt_commands.METHODS == tuning.METHODS and prompt_commands.LAYOUTS == layouts.LAYOUTS
    assert options.SUITES == suites.SUITES and set(options.DTYPES) == {"auto", *devices.DTYPES}
    assert set(options.MODELS) == {*bundled.WHEEL_MODELS, *backbone.TINY}


# ---- encoders ------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["prompt-tuning", "deep"])
def test_an_encoder_chooses_a_class_or_tags_every_word(command, method):
    _own_files()
    shutil.move("mood.jsonl", "tags")
    words = ["--model", "tiny-encoder", "--steps", "2", "--prompt-length", "3", "--method", method]
    code, said, _ = command("tune", "tags", "--out", "a.safetensors", *words)
    assert code == 0 and "mood" in said and "parts" in said
    code, said, _ = command("ask", "a.safetensors", "I had a sad trip", "--task", "mood", "--json")
    (answer,) = json.loads(said)
    assert answer["answer"] in ("negative", "positive")
    assert sum(answer["options"].values()) == pytest.approx(1)
    code, said, _ = command("ask", "a.safetensors", "Ann has the door", "--task", "parts")
    assert code == 0 and len(said.split()) == 4
    code, said, _ = command("score", "a.safetensors", "tags", "--limit", "5")
    assert code == 0 and said.count("\n") == 3


@pytest.mark.filterwarnings("always:the prompt was trained", "always:.*were read in the training")
def test_a_head_numbers_its_classes_as_in_training(command):
    """A file that lists its options in another order gets the same score."""
    words = ["--model", "tiny-encoder", "--steps", "20", "--prompt-length", "3"]
    assert command("tune", "mood.jsonl", "--out", "a.safetensors", *words)[0] == 0
    lines = [json.loads(line) for line in paths.expanded("mood.jsonl").read_text().splitlines()]
    paths.expanded("other.jsonl").write_text(
        "\n".join(json.dumps(line | {"options": line["options"][::-1]}) for line in lines)
    )
    scores = [
        json.loads(command("score", "a.safetensors", file, "--split", "all", "--json")[1])["tasks"][0]
        for file in ("mood.jsonl", "other.jsonl")
    ]
    assert scores[0]["score"] == scores[1]["score"] and scores[0]["examples"] == len(lines)
    three = [line | {"options": ["negative", "positive", "other"]} for line in lines]
    three += [line | {"input": f"{line['input']} {line['input']}", "target": "other"} for line in three[:8]]
    paths.expanded("three.jsonl").write_text("\n".join(map(json.dumps, three)))
    code, _, wrong = command("score", "a.safetensors", "three.jsonl")
    assert code == 2 and "but the head of this prompt chooses from negative, positive" in wrong


# ---- ask -----------------------------------------------------------------------------------------
def test_ask_gives_the_likeliest_option_with_its_probability(mood):
    code, said, noted = mood(
        "ask", "mood.prompt.safetensors", "I had a sad trip", "I had a good trip", "--json"
    )
    answers = json.loads(said)
    assert (
        code == 0
        and not noted
        and [one["text"] for one in answers] == ["I had a sad trip", "I had a good trip"]
    )
    for one in answers:
        assert sum(one["options"].values()) == pytest.approx(1)
        assert one["probability"] == max(one["options"].values()) == one["options"][one["answer"]]
    code, said, _ = mood("ask", "mood.prompt.safetensors", "I had a sad trip")
    assert said == f"{answers[0]['answer']}  ({answers[0]['probability']:.2f})\n"
    code, said, _ = mood("ask", "mood.prompt.safetensors", "-", text="I had a sad trip\nI had a good trip\n")
    assert code == 0 and len(said.splitlines()) == 2
    code, said, _ = mood("ask", "mood.prompt.safetensors", "I had a trip", "--options", "fine, bad")
    assert code == 0 and said.split()[0] in ("fine", "bad")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.safetensors", "text"], "there is no prompt file nowhere.safetensors; source.save and"),
        (["mood.prompt.safetensors", " "], "a text is empty"),
        (
            ["mood.prompt.safetensors", "x", "--task", "moods"],
            "no prompt for the task 'moods', only for mood",
        ),
        (
            ["mood.prompt.safetensors", "x", "--model", "tiny-seq2seq"],
            "made for the model tiny-causal, this is",
        ),
        (["mood.prompt.safetensors", "x", "--options", "yes"], "give at least two different ones"),
        (
            ["mood.prompt.safetensors", "x", "--sample"],
            "answers with one of its options (negative, positive)",
        ),
        (["mood.prompt.safetensors", "x", "--temperature", "2"], "are for --sample; give it too"),
        (["mood.jsonl", "x"], "mood.jsonl is no prompt file; give a .safetensors file"),
        (["mood.prompt.safetensors", "-"], "there is no text on stdin"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_of_ask(mood, words, message):
    code, said, wrong = mood("ask", *words)
    assert code == 2 and not said and wrong.startswith("iptkit: ") and message in wrong


def test_a_free_answer_is_one_generated_line_and_draws_depend_on_the_seed(command):
    assert command("tune", "plural.jsonl", "--out", "a.safetensors", *QUICK)[0] == 0
    question = ("ask", "a.safetensors", "Give the plural: glass", "--max-new-tokens", "4")
    code, said, _ = command(*question)
    assert code == 0 and said.count("\n") == 1
    assert json.loads(command(*question, "--json")[1]) == [
        {"text": question[2], "answer": said.strip(), "probability": None, "options": {}}
    ]
    draws = {
        seed: command(*question, "--sample", "--temperature", "2", "--seed", seed)[1] for seed in ("1", "2")
    }
    assert draws["1"] != draws["2"]
    assert draws["2"] == command(*question, "--sample", "--temperature", "2", "--seed", "2")[1]
    for words, message in (
        (["--sample", "--temperature", "0"], "temperature"),
        (["--sample", "--top-p", "2"], "top_p"),
        (["--max-new-tokens", "100000"], "positions"),
    ):
        code, said, wrong = command(*question, *words)
        assert code == 2 and not said and wrong.startswith("iptkit: ") and message in wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I had a sad trip\n\nI had a good trip\n", "line 2 of stdin is empty; give a text on every line"),
        ("\n", "line 1 of stdin is empty"),
        (b"fine\n\xff bad\n", "stdin is no UTF-8 (invalid start byte at byte 5)"),
    ],
)
def test_wrong_lines_of_stdin(mood, text, message):
    code, said, wrong = mood("ask", "mood.prompt.safetensors", "-", text=text)
    assert code == 2 and not said and wrong.startswith("iptkit: ") and message in wrong


def test_words_of_the_command_line_that_are_no_utf_8_are_refused(mood):
    code, said, wrong = mood("ask", "mood.prompt.safetensors", "fine", "bad \udcff")
    assert code == 2 and not said and "text 2 ('bad \\udcff') is no UTF-8; give texts in UTF-8" in wrong


@pytest.mark.parametrize("words", [("ask", "a.safetensors", "x"), ("score", "a.safetensors", "mood.jsonl")])
def test_a_model_that_comes_from_a_hub_is_named_first(mood, monkeypatch, words):
    tensors, about = tensor_files.read("mood.prompt.safetensors")
    monkeypatch.setattr(saved, "read_about", lambda path: {**about, "backbone": "someone/model"})
    code, _, noted = mood(*words, "--model", "tiny-causal")
    assert "loading the model" not in noted
    monkeypatch.setattr(saved, "open_prompt", lambda *_: (_ for _ in ()).throw(ValueError("no network")))
    code, said, noted = mood(*words)
    assert code == 2 and "loading the model someone/model that a.safetensors names\n" in noted


# ---- score ---------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("always")
def test_score_measures_again_what_tune_measured(mood):
    (stored,) = saved.read_about("mood.prompt.safetensors")["scores"]
    code, said, noted = mood("score", "mood.prompt.safetensors", "mood.jsonl", "--json")
    assert code == 0 and json.loads(said)["tasks"] == [stored] and not noted
    code, said, noted = mood("score", "mood.prompt.safetensors", "mood.jsonl", "--split", "all")
    assert code == 0 and said.splitlines()[1].split()[-1] == "80"
    assert re.search(
        r"iptkit: warning: \d+ of the 80 examples in all of mood were read in the training", noted
    )
    code, said, _ = mood("score", "mood.prompt.safetensors", "mood.jsonl", "--split", "dev", "--limit", "6")
    assert code == 0 and said.splitlines()[1].split()[-1] == "6"


@pytest.mark.filterwarnings("always")
def test_score_measures_the_whole_test_set_of_a_folder(command):
    """The folder has its own sets, in CSV, with columns of unusual names."""
    os.mkdir("birds")
    for name, count, verb in (("train", 20, "sings"), ("test", 300, "rests")):
        rows = [f"bird {i} {verb},{('positive', 'negative')[i % 2]}\n" for i in range(count)]
        Path("birds", f"{name}.csv").write_text("utterance,mood\n" + "".join(rows))
    given = ("--columns", "input=utterance,target=mood")
    code, said, noted = command("tune", "birds", "--out", "b.safetensors", *given, *QUICK)
    assert code == 0 and "birds: train 10, dev 10, test 256 examples" in noted
    assert f"  iptkit score b.safetensors birds {given[0]}={given[1]}" in said
    code, said, _ = command("score", "b.safetensors", "birds", *given)
    assert code == 0 and said.splitlines()[1].split()[-1] == "300"


@pytest.mark.filterwarnings("always")
def test_all_is_every_example_of_a_large_file(mood):
    two = ("negative", "positive")
    lines = [json.dumps({"input": f"trip {i}", "target": two[i % 2], "options": two}) for i in range(2500)]
    os.mkdir("large")
    paths.expanded("large/mood.jsonl").write_text("\n".join(lines))
    words = ("score", "mood.prompt.safetensors", "large/mood.jsonl", "--split", "all")
    code, said, _ = mood(*words, "--json")
    (found,) = json.loads(said)["tasks"]
    assert code == 0 and found["examples"] == 2500 and found["chance"] == 0.5


@pytest.mark.filterwarnings("always")
def test_score_refuses_tags_for_a_language_model_and_a_set_that_is_empty(mood):
    _own_files()
    code, said, wrong = mood("score", "mood.prompt.safetensors", "tags")
    assert code == 2 and not said and "task parts has a tag for every word, which needs a head" in wrong
    os.mkdir("few")
    for name, count in (("train", 6), ("test", 4)):
        rows = [f"bird {name} {i},{('positive', 'negative')[i % 2]}\n" for i in range(count)]
        Path("few", f"{name}.csv").write_text("input,target\n" + "".join(rows))
    code, said, wrong = mood("score", "mood.prompt.safetensors", "few", "--split", "train_new")
    assert code == 2 and not said and "there is no example in train_new of few; choose another" in wrong


@pytest.mark.filterwarnings("always")
def test_score_warns_of_a_task_that_the_prompt_was_not_trained_for(mood):
    code, said, noted = mood("score", "mood.prompt.safetensors", "plural.jsonl", "--limit", "3")
    assert code == 0 and "plural" in said
    assert "iptkit: warning: the prompt was trained for the task mood, and is scored on plural" in noted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mood.prompt.safetensors", "nowhere.jsonl"], "nowhere.jsonl"),
        (["mood.prompt.safetensors", "mood.jsonl", "--split", "validation"], "choose one of test, dev"),
        (["mood.prompt.safetensors", "mood.jsonl", "--task", "x"], "no prompt for the task 'x'"),
        (
            ["mood.prompt.safetensors", "mood.jsonl", "--model", "tiny-encoder"],
            "made for the model tiny-causal",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_of_score(mood, words, message):
    code, said, wrong = mood("score", *words)
    assert code == 2 and not said and wrong.startswith("iptkit: ") and message in wrong


# ---- show ----------------------------------------------------------------------------------------
def test_show_has_the_header_as_a_table_and_as_json(mood):
    code, said, _ = mood("show", "mood.prompt.safetensors")
    assert code == 0 and "method        prompt-tuning" in said and "layout        text-prompt-answer" in said
    assert "mood  cls" in said and "negative, positive" in said and "accuracy 0." in said
    code, said, _ = mood("show", "mood.prompt.safetensors", "--json")
    assert json.loads(said) == saved.read_about("mood.prompt.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no prompt file nowhere"),
        ("mood.jsonl", "mood.jsonl is no prompt file; give a .safetensors file that"),
        (".", "has no prompt.safetensors"),
    ],
)
def test_wrong_input_of_show(command, name, message):
    code, said, wrong = command("show", name)
    assert code == 2 and not said and wrong.startswith("iptkit: ") and message in wrong


# ---- export --------------------------------------------------------------------------------------
def test_export_writes_what_peft_loads(command):
    words = ("--layout", "prompt-text-answer")
    assert command("tune", "mood.jsonl", "--out", "a.safetensors", *QUICK, *words)[0] == 0
    code, said, _ = command("export", "a.safetensors", "--peft", "peft")
    assert code == 0 and said == "peft: adapter_config.json, adapter_model.safetensors\n"
    made = interchange.from_peft("peft", load("tiny-causal")).finished().embeds
    assert torch.equal(made, tensor_files.read("a.safetensors")[0]["embeds"])
    code, said, _ = command("export", "a.safetensors", "--peft", "peft2", "--json")
    assert code == 0 and json.loads(said)["folder"] == "peft2"
    assert command("export", "a.safetensors", "--peft", "peft3", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--peft", "peft"], "there is no prompt file nowhere"),
        (["mood.prompt.safetensors", "--peft", "peft"], "prompt-text-answer"),  # its text stands first
        (["mood.prompt.safetensors", "--peft", "."], "the folder . is not empty; name a new one with --peft"),
        (["mood.prompt.safetensors", "--peft", "peft", "--task", "x"], "no prompt for the task 'x'"),
        (["mood.jsonl", "--peft", "peft"], "mood.jsonl is no prompt file; give a .safetensors file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_of_export(mood, words, message):
    code, said, wrong = mood("export", *words)
    assert code == 2 and not said and wrong.startswith("iptkit: ") and message in wrong
    assert not paths.expanded("peft").exists()


# ---- the real model ------------------------------------------------------------------------------
OPPOSITES = """hot cold|big small|up down|in out|day night|wet dry|old new|good bad|fast slow|high low
rich poor|hard soft|open closed|left right|light dark|full empty|first last|early late
strong weak|long short|happy sad|love hate|win lose|buy sell|give take|push pull
north south|east west|near far|true false|yes no|black white|clean dirty|loud quiet
thick thin|wide narrow|deep shallow|sweet bitter|alive dead|rough smooth|young old
top bottom|front back|inside outside|start end|enter exit|accept refuse|begin finish
arrive leave|ask answer|asleep awake|brave afraid|cheap expensive|easy difficult
heavy weightless|tall tiny|sharp blunt|tight loose|warm cool|wild tame"""


@pytest.mark.model
def test_the_real_model_learns_opposites_in_a_few_steps(command, monkeypatch):
    monkeypatch.delenv("IPTKIT_CACHE")
    pairs = [pair.split() for line in OPPOSITES.splitlines() for pair in line.split("|")]
    lines = [json.dumps({"input": f"The opposite of {one}", "target": other}) for one, other in pairs]
    paths.expanded("opposites.jsonl").write_text("\n".join(lines))
    words = ("--steps", "8", "--device", "cpu", "--dtype", "float32", "--json")
    code, said, _ = command("tune", "opposites.jsonl", "--out", "a.prompt.safetensors", *words)
    (score,) = json.loads(said)["tasks"]
    assert code == 0 and score["score"] > score["before"]
    code, said, _ = command("ask", "a.prompt.safetensors", "The opposite of hot", "--dtype", "float32")
    assert code == 0 and said == "cold\n"


# ---- quiet ---------------------------------------------------------------------------------------
def test_quiet_leaves_the_bare_result_of_ask_score_and_show(mood):
    tune = ("tune", "mood.jsonl", "--out", "again.safetensors", *QUICK)
    assert mood(*tune, "--quiet") == (0, "", "")
    code, said, noted = mood(*tune, "--overwrite", "--quiet", "--json")
    assert code == 0 and json.loads(said)["tasks"] and not noted
    code, said, noted = mood("ask", "again.safetensors", "I had a sad trip", "A fine day", "--quiet")
    assert code == 0 and len(said.splitlines()) == 2 and not noted
    assert set(said.split()) <= {"positive", "negative"}
    words = ("score", "again.safetensors", "mood.jsonl", "--quiet")
    (score,) = json.loads(mood(*words, "--json")[1])["tasks"]
    assert mood(*words) == (0, f"{score['score']:.3f}\n", "")
    assert mood("show", "again.safetensors", "--quiet") == mood("show", "again.safetensors")
    code, said, wrong = mood("show", "nowhere", "--quiet")
    assert code == 2 and not said and "there is no prompt file nowhere" in wrong


@pytest.mark.parametrize(("name", "told"), [("ask", "the bare result"), ("tune", "errors and warnings only")])
def test_the_help_says_what_quiet_leaves(command, name, told):
    code, said, _ = command(name, "--help")
    assert code == 0 and told in " ".join(said.replace("│", " ").split())


def test_an_empty_answer_is_visible_to_people_and_empty_to_programs(mood, monkeypatch):
    monkeypatch.setattr(asking, "ask", lambda *_: [asking.Answer("a", ""), asking.Answer("b", "yes")])
    words = ("ask", "mood.prompt.safetensors", "a", "b")
    assert mood(*words)[1] == "(empty)\nyes\n"
    assert mood(*words, "--quiet")[1] == "\nyes\n"
    assert [one["answer"] for one in json.loads(mood(*words, "--json")[1])] == ["", "yes"]
