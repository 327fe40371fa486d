"""What commands print: text, or one JSON value, or nothing; numbers that are not finite are null."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from iptkit.course import output
from iptkit.course.output import Reply


@dataclass
class Made:
    score: float
    path: Path


@pytest.fixture
def run():
    app = typer.Typer()

    @app.callback()
    def main() -> None:
        """Hold the command."""

    @app.command()
    @output.replies
    def make(
        name: str, times: Annotated[int, typer.Option(min=1, help="How often.")] = 1, bad: bool = False
    ) -> Reply:
        """Make something."""
        print("from the library")
        output.note("on the way")
        if bad:
            raise ValueError("it is bad")
        return Reply([Made(float("nan"), Path(name))] * times, f"made {name}", times - 1)

    def invoke(*words):
        result = CliRunner().invoke(app, ["make", *words])
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_text_is_for_people_and_notes_go_to_stderr(run):
    assert run("it") == (0, "from the library\nmade it\n", "on the way\n")


def test_json_is_the_only_thing_on_stdout_and_has_no_nan(run):
    code, said, noted = run("it", "--json", "--times", "2")
    assert code == 1 and json.loads(said) == [{"score": None, "path": "it"}] * 2
    assert noted == "from the library\non the way\n"


def test_quiet_says_nothing_and_with_json_the_value_alone(run):
    assert run("it", "--quiet") == (0, "", "")
    code, said, noted = run("it", "--quiet", "--json")
    assert code == 0 and json.loads(said) == [{"score": None, "path": "it"}] and not noted


def test_an_answer_stays_when_all_else_is_quiet():
    app = typer.Typer()

    @app.command()
    @output.answers
    def make() -> Reply:
        print("from the library")
        return Reply([1], "number: 1", bare="1")

    def printed(*words):
        result = CliRunner().invoke(app, list(words))
        return result.stdout, result.stderr

    assert printed("--quiet") == ("1\n", "")
    assert printed() == ("from the library\nnumber: 1\n", "")
    assert json.loads(printed("--quiet", "--json")[0]) == [1]


def test_errors_and_the_help_are_those_of_the_command(run):
    assert run("it", "--times", "0")[0] == 2
    assert run("it", "--json", "--bad")[:2] == (1, "")
    code, said, _ = run("--help")
    words = " ".join(said.split())
    assert code == 0 and "Make something." in words
    assert all(name in words for name in ("--times", "How often.", "--json", "--quiet"))


def test_a_table_has_columns_and_no_blanks_at_line_ends():
    assert output.table([["a", "long"], ["wide", "b"]]) == "a     long\nwide  b"


def test_text_and_json_do_not_steer_the_terminal(run):
    assert run("\x1b[2J")[1].endswith("made \\x1b[2J\n")
    assert "\\u001b[2J" in run("\x1b[2J", "--json")[1]
