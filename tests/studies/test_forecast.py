"""The cost of a study is known before it runs, from what is on this machine."""

import json

import pytest
import transformers
from typer.testing import CliRunner

from iptkit.course import cli, estimates
from iptkit.models import tiny
from iptkit.storage import paths, step_cache
from iptkit.studies import scales
from iptkit.studies.costs import OF_PEAK, Costs
from iptkit.studies.forecast import forecast
from iptkit.studies.study import Study
from iptkit.tasks import crossfit, suites
from iptkit.training import trainer


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A machine without tasks, steps and models of the hub; a study that would train fails."""
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.delenv("IPTKIT_CROSSFIT", raising=False)
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(trainer, "train_step", None)
    monkeypatch.setattr(step_cache, "step", None)


@pytest.fixture
def offline(monkeypatch):
    """No model of the hub is there, but folders are."""

    def of(auto):
        known = auto.from_pretrained

        def from_pretrained(name, *given, **named):
            assert named["local_files_only"], "an estimate downloads nothing"
            if "/" in str(name) and not str(name).startswith("/"):
                raise OSError(f"{name} is not in the cache")
            return known(name, *given, **named)

        monkeypatch.setattr(auto, "from_pretrained", from_pretrained)

    of(transformers.AutoConfig)
    of(transformers.AutoTokenizer)


def test_a_forecast_has_the_flops_of_all_jobs():
    scale = scales.load("smoke", same_data=True, nearest=True, stage_two_runs=1, fewer_examples=(2,))
    jobs = Study(scale).jobs(Costs(Study(scale)))
    found = forecast(scale)
    assert sum(cost.jobs for cost in found.costs) == len(jobs) and not found.notes
    assert found.flops == pytest.approx(sum(job.flops for job in jobs))
    kinds = {cost.kind: cost for cost in found.costs}
    assert kinds.keys() >= {
        "zero-shot",
        "prompt tuning",
        "MSF, d_I = 2",
        "IST, d_I = 5",
        "random decoder, d_I = 5",
    }
    assert kinds["IST, d_I = 2"].flops == next(job.flops for job in jobs if job.name == "codes-learned-2")
    assert all("-" not in kind.replace("zero-shot", "") for kind in kinds), "each job has a name in words"


def test_the_papers_study_is_forecast_without_its_tasks_and_model(offline):
    found = forecast(scales.load("paper"))
    told = "\n".join(found.notes)
    assert "facebook/bart-base is not on this machine: its sizes are stated ones, recalled" in told
    assert "4 characters count as one token" in told and "120 of 120 tasks are not on this machine" in told
    kinds = {cost.kind: cost for cost in found.costs}
    encoder, decoder, cross, head = 42.5e6, 49.6e6, 7.1e6, 38.6e6  # weights, recalled
    row = (encoder + cross) * (100 + 128) + (decoder + head) * 9  # texts, answers with an end token
    by_hand = 4 * row * 120 * 100_000 * 8
    assert kinds["prompt tuning"].flops == pytest.approx(by_hand, rel=0.1), "attention and dev are the rest"
    assert kinds["IST, d_I = 250"].jobs == 3 and kinds["IST, d_I = 5"].jobs == 1, (
        "three splits at the main d_I"
    )
    docs = (paths.PACKAGE.parent / "docs" / "studies.md").read_text(encoding="utf-8")
    days = estimates.hours(found.flops, 60) / 24
    assert f"about {found.flops:.0e} FLOP" in docs and f"about {days:.0f} days" in docs
    assert found.flops / 2 < forecast(scales.load("paper"), lengths=(50, 8)).flops < found.flops


def test_tasks_that_are_there_are_read(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CROSSFIT", str(tmp_path / "own"))
    (tmp_path / "own" / "quarel").mkdir(parents=True)
    lines = [json.dumps({"input": f"{i} " * 400, "target": "ab"[i % 2]}) + "\n" for i in range(60)]
    (tmp_path / "own" / "quarel" / "train.jsonl").write_text("".join(lines))
    found = forecast(scales.load("paper"))
    assert any(note.startswith("119 of 120 tasks are not on this machine (emo, ...)") for note in found.notes)


def test_a_folder_gives_the_sizes_of_a_model(tmp_path):
    model, tokenizer = tiny.build("tiny-seq2seq")
    model.save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    found = forecast(scales.load("smoke", backbone=str(tmp_path / "bart")))
    assert found == forecast(scales.load("smoke", backbone="tiny-seq2seq")) and not found.notes


def test_what_cannot_be_told_is_refused(offline):
    with pytest.raises(FileNotFoundError, match="36 of 36 tasks of core36 are not on this .*`iptkit fetch`"):
        forecast(scales.load("full", backbone="tiny-causal"))
    with pytest.raises(FileNotFoundError, match="model 'a/b' is not on this machine.*downloads nothing"):
        forecast(scales.load("smoke", backbone="a/b"))
    with pytest.raises(FileNotFoundError, match="model smollm2-135m is not on this machine.*`iptkit fetch`"):
        forecast(scales.load("smoke", backbone="smollm2-135m"))


def test_the_command(monkeypatch):
    def said(*given):
        result = CliRunner().invoke(cli.app, ["study", "--scale", "smoke", "--device", "cpu", *given])
        return result.exit_code, result.output

    code, text = said("--estimate", "--tflops", "60")
    assert code == 0 and "hours here" in text and "hours there" in text and "there: 60 TFLOP/s" in text
    code, text = said("--estimate", "--tflops", "60", "--json")
    value = json.loads(text)
    assert code == 0 and value["hours"]["there"] == value["flops"] / (OF_PEAK * 60e12) / 3600
    assert sum(kind["flops"] for kind in value["kinds"]) == value["flops"] and value["notes"] == []
    assert value["kinds"][0]["kind"] == "zero-shot" and value["tflops"]["here"] > 0
    assert "hours there" not in said("--estimate")[1]
    for given, words in (
        (["--tflops", "60"], "--tflops is 60.0; give a number above 0, with --estimate"),
        (["--estimate", "--tflops", "0"], "--tflops is 0.0; give a number above 0"),
        (["--estimate", "--part", "deep"], "--estimate is for the study 'subspace'"),
        (["--estimate", "--finished-only"], "runs and writes nothing; leave out --finished-only"),
        (["--estimate", "--compact", "--job-cpus", "1"], "leave out --job-cpus, --compact"),
    ):
        code, text = said(*given)
        assert code == 2 and words in " ".join(text.split())


# ---- the scale -------------------------------------------------------------------------------------------
def test_the_scale_has_the_papers_settings():
    scale, config = scales.load("paper"), crossfit.paper_config()
    assert (scale.backbone, scale.prompt_length) == (
        config["model"]["backbone"],
        config["model"]["prompt_length"],
    )
    assert (scale.suite, [*scale.folds, *scale.compared]) == ("crossfit", config["splits"])
    assert scale.dims == tuple(dim for dim in config["dims"] if dim >= 5) and scale.seeds == (100,)
    assert scale.subspace.hidden == config["msf"]["hidden"]
    for stage in ("prompt", "msf", "ist"):
        mine, of = getattr(scale, stage), config[stage]
        fields = crossfit.fit_fields(stage)
        for name in ("steps", "warmup", "clip", "evaluations"):
            assert getattr(mine, name) == fields[name], (stage, name)
        assert mine.lr in of["lr"] and (mine.rows_per_run in of["batch"] or stage == "msf")


def test_at_this_scale_no_task_has_options():
    study = Study(scales.load("smoke"))
    loaded = study.tasks(0)
    study.scale = scales.load("paper")
    free = study.as_asked(loaded)
    assert any(e.options for task in loaded for e in task.test)
    assert not any(
        e.options
        for task in free
        for name in ("train", "train_new", "dev", "test")
        for e in getattr(task, name)
    )
    assert {task.chance for task in free} == {0.0}
    assert [[e.targets for e in task.test] for task in free] == [
        [e.targets for e in task.test] for task in loaded
    ]
    assert suites.list_cards("crossfit")[0].labels, "which CrossFit's classifications have"
