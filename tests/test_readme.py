"""README and docs: short, links that lead somewhere, numbers of the stored rows, programs that run."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iptkit.course import lessons
from iptkit.course.cli import app
from iptkit.prompts import interchange
from iptkit.scores import summary
from iptkit.storage import paths
from iptkit.studies import scales, stored_results

ROOT = paths.data_dir().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
TASKS = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
PROMPTS = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
TINY = {"smollm2-135m": "tiny-causal", "steps=60": "steps=2"}
FOLDERS = (".", "docs", "benchmarks", "data/results", "tests/pretend_cuda")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]


def anchors(text):
    """Names of a page's headings, as its links write them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def programs(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def with_tiny(program, **changes):
    for old, new in changes.items():
        assert old in program
        program = program.replace(old, new)
    return program


def test_a_newcomer_finishes_the_readme():
    assert len(README.encode()) <= 10_000


@pytest.mark.parametrize("lesson", lessons.find(), ids=lambda lesson: lesson.name)
def test_the_readme_asks_the_lessons_questions(lesson):
    assert f"| [{lesson.number}](notebooks/{lesson.path.name}) | {lesson.question} |" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted(ROOT.glob("notebooks/*.ipynb"))], ids=lambda page: page.name
)
def test_every_file_that_a_text_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for name in re.findall(r"`((?!runs/)[a-z_]+/[\w/]+\.(?:py|md|json))`", text):  # runs/ is made by a run
        assert any((place / name).is_file() for place in (ROOT, paths.PACKAGE, page.parent)), name


def test_the_readmes_packages_are_those_of_the_kit():
    listed = re.findall(r"^\| `([a-z]+)` \|", README, re.MULTILINE)
    folders = {p.name for p in paths.PACKAGE.iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert set(listed) == folders and len(listed) <= 10
    for file in re.findall(r"`((?:engine|methods|training)/\w+\.py)`", README):
        assert (paths.PACKAGE / file).is_file(), file


def test_the_readmes_results_are_those_of_the_stored_rows():
    rows = summary.of_folds(stored_results.load_rows("ipt120")[0])
    ist, code, around = ("IST", 5), ("mean code", 5), ("random directions around the mean code", 5)

    def kept(method, side):
        (line,) = summary.summary(rows, [method], [side], crossed=True)
        return f"{line['E_rel'][0]:.2f}"

    def gap(*which):
        return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*summary.difference(rows, *which))

    text = " ".join(README.split())
    seen, unseen = ([kept(method, side) for method in (ist, code)] for side in ("seen", "unseen"))
    expected = [seen[0], *seen, *unseen]  # the first is in the definition
    assert re.findall(r"(\d\.\d\d) of prompt tuning", text) == expected
    assert re.findall(r"[+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]", text) == [
        gap(("prompt tuning", 0), ("zero-shot", 0)),
        gap(ist, code, "unseen"),
        gap(ist, around, "unseen", "log_likelihood"),
        gap(ist, around, "unseen"),
    ]
    assert f"The study has {len({row['task'] for row in rows})} tasks" in text
    assert all(
        summary.difference(rows, ist, *other)[1] > 0 for other in ((code, "unseen"), (around, "unseen"))
    )


def test_the_readme_says_how_long_the_course_takes_and_how_large_its_studies_are():
    text = " ".join(README.split())
    minutes = sum(json.loads((ROOT / "data" / "timings.json").read_text())["lesson"]["seconds"].values()) / 60
    assert "The course takes about half an hour on two cores" in text and 20 < minutes < 40
    scale = scales.load("lesson")
    assert f"small studies of {len(scale.seen) + len(scale.unseen)} tasks" in text


@pytest.fixture
def my_task(tmp_path, monkeypatch):
    """A folder with my_task.jsonl, a copy of data/tiny/tiny-past.jsonl, as the current one."""
    shutil.copy(paths.data_dir() / "tiny" / "tiny-past.jsonl", tmp_path / "my_task.jsonl")
    monkeypatch.chdir(tmp_path)


SCORE = r"my_task: exact_match [\d.]+ \[[\d.]+, [\d.]+\] on 21 examples \(chance 0.00\)"


def test_the_readmes_program_runs(capsys, my_task):
    (program,) = programs(README)
    assert len(program.splitlines()) <= 20
    exec(compile(with_tiny(program, **TINY), "README.md", "exec"), {})
    assert re.fullmatch(SCORE + r" .*\n", capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks for it
def test_the_programs_for_prompts_run(capsys, my_task, monkeypatch):
    first, *others = programs(PROMPTS)
    assert first.startswith(programs(README)[0]) and len(first.splitlines()) <= 20
    told, names = re.findall(r"```\n(my_task: .*?)```", PROMPTS, re.DOTALL), {}
    exec(compile(with_tiny(first, **TINY), "prompts.md", "exec"), names)
    for said in (told[0], capsys.readouterr().out):  # the page shows what the program prints
        assert re.fullmatch(SCORE + r" .*\nSoftPrompt \[[\d.]+\]\n", said)
    uploaded = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda *given, **more: None)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda *given, **more: uploaded.append(more))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *given, **more: "my_task_prompt")
    for program in others:
        exec(compile(program.replace("smollm2-135m", "tiny-causal"), "prompts.md", "exec"), names)
    ours, theirs = re.search(r"answer: (\S+) here, (\S+) with PEFT", capsys.readouterr().out).groups()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-3)
    assert names["about"]["tasks"] == ["my_task"] and uploaded[0]["repo_id"] == "YOU/my-task"


def test_the_sessions_on_the_command_line_run(my_task):
    sessions = "".join(re.findall(r"```\n(\$ iptkit tune .*?)```", PROMPTS, re.DOTALL))
    commands = [shlex.split(line)[2:] for line in sessions.splitlines() if line.startswith("$ ")]
    names = ["tune", "ask", "score", "show", "export", "tune", "tune", "score"]
    assert [command[0] for command in commands] == names
    for command in commands:
        more = ["--model", "tiny-causal", "--steps", "2"] if command[0] == "tune" else []
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 0, done.output


def test_the_table_of_peft_is_the_one_that_is_tested():
    table = interchange.__doc__.split("both directions:")[1].split('"equal"')[0]
    for line in table.strip().splitlines()[1:]:
        name, _, llama, qwen, gpt, t5, bart, bert = line.split()
        (told,) = re.findall(
            rf"^\| `{name}` \|[^|]*\| (\w+).*\| (\w+).*\| (\w+).*\| (\w+)", PROMPTS, re.MULTILINE
        )
        assert told == (llama, gpt, t5, bert) and llama == qwen and t5 == bart


def test_the_program_with_deep_prompts_runs(capsys):
    (program,) = (program for program in programs(STUDIES) if "minilm-l6" in program)
    tasks = {'"person-tags", "company-tags"': '"tiny-parts", "tiny-words"', "encoder9": "tiny3"}
    program = with_tiny(program, **{"minilm-l6": "tiny-encoder", "steps=60": "steps=2"}, **tasks)
    exec(compile(program, "studies.md", "exec"), {})
    assert re.fullmatch(r"\[[\d.]+, [\d.]+\]\n", capsys.readouterr().out)


@pytest.mark.model
def test_the_program_for_tasks_of_ones_own_runs(capsys, tmp_path, monkeypatch):
    (program,) = (program for program in programs(STUDIES) if "my_task.jsonl" in program)
    shutil.copy(paths.data_dir() / "tiny" / "tiny-kind.jsonl", tmp_path / "my_task.jsonl")
    monkeypatch.chdir(tmp_path)
    exec(compile(with_tiny(program, **{"steps=24": "steps=2"}), "studies.md", "exec"), {})
    said = re.fullmatch(r"\[\[(.*)\]\] \[[\d.]+\]\n", capsys.readouterr().out)
    assert said and len([float(number) for number in said[1].split(",")]) == 5


def test_the_study_of_tasks_of_ones_own_runs(capsys, tmp_path, monkeypatch):
    (program,) = programs(TASKS)
    names = ("tiny-kind", "tiny-mood", "tiny-plural")
    for name, mine in zip(names, "abc", strict=True):
        Path(tmp_path / "FOLDER").mkdir(exist_ok=True)
        shutil.copy(paths.data_dir() / "tiny" / f"{name}.jsonl", tmp_path / "FOLDER" / f"{mine}.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    exec(compile(with_tiny(program, **{'"lesson"': '"smoke", seeds=(0,)'}), "tasks.md", "exec"), {})
    assert "'task': 'a'" in capsys.readouterr().out
