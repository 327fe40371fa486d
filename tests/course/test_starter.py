import re

import nbformat
import pytest
import typer

from iptkit.course import cli, editions, lessons, starter
from iptkit.tasks import jsonl


def names(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_new_folder_gets_the_student_notebooks_the_solutions_a_readme_and_a_task(tmp_path):
    folder = tmp_path / "new" / "course"
    written = starter.copy(folder)
    made = editions.write(tmp_path / "editions").written
    wanted = {path.relative_to(tmp_path / "editions"): path.read_bytes() for path in made}
    student = {f"notebooks/{p.name}": content for p, content in wanted.items() if p.parts[0] == "student"}
    solved = {f"solutions/{p.name}": content for p, content in wanted.items() if p.parts[0] == "solutions"}
    assert names(folder) == {"README.md", "example_task.jsonl", *student, *solved}
    assert len(written) == len(names(folder)) and len(student) > 5 and len(solved) > 5
    for name, content in (student | solved).items():
        assert (folder / name).read_bytes() == content
    assert not jsonl.check_jsonl(folder / "example_task.jsonl")


def test_no_notebook_of_a_learner_has_a_solution(tmp_path):
    starter.copy(tmp_path)
    for lesson in lessons.find(tmp_path):
        cells = nbformat.read(lesson.path, as_version=4).cells
        assert not [cell.source for cell in cells if "solution" in cell.metadata.get("tags", [])]


def test_a_second_time_writes_what_is_missing_and_nothing_else(tmp_path):
    starter.copy(tmp_path)
    assert starter.copy(tmp_path) == []
    first = lessons.find(tmp_path)[0].path
    first.unlink()
    assert starter.copy(tmp_path) == [first]


def test_the_learners_work_is_never_overwritten(tmp_path):
    starter.copy(tmp_path)
    first, second = (lesson.path for lesson in lessons.find(tmp_path)[:2])
    first.write_text("mine", encoding="utf-8")
    second.unlink()
    with pytest.raises(
        ValueError, match=rf"other files of the same names \(notebooks.{first.name}\);.*Name ano"
    ):
        starter.copy(tmp_path)
    assert first.read_text(encoding="utf-8") == "mine" and not second.exists()


@pytest.mark.parametrize("obstacle", ["folder", "dangling link"])
def test_what_is_no_file_is_not_replaced_either(tmp_path, obstacle):
    place = tmp_path / "README.md"
    place.mkdir() if obstacle == "folder" else place.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"same names \(README.md\)"):
        starter.copy(tmp_path)
    assert names(tmp_path) == set() and not (tmp_path / "nowhere").exists()


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file .*a file of this name.*iptkit init FOLDER"):
        starter.copy(tmp_path / "file")
    (tmp_path / "notebooks").write_text("")
    with pytest.raises(ValueError, match="notebooks .*a file of this name"):
        starter.copy(tmp_path)


def test_the_readme_names_commands_that_exist():
    group = typer.main.get_command(cli.app)
    lines = re.findall(r"^iptkit (.+?)(?:  +#|$)", starter.README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) >= 4
    for words in map(str.split, lines):
        command = group.commands[words[0]]
        command = command.commands[words[1]] if words[0] == "tasks" else command
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words
    named = {word for words in lines for word in words.split() if word.endswith("jsonl")}
    assert named == {"example_task.jsonl"}
