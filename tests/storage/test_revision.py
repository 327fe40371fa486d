import ast
import functools
import json
import shutil
import subprocess
import sys

import pytest

from iptkit.storage import paths, revision

PACKAGE = {
    "__init__.py": "",
    "study.py": "from kit import rate\nfrom kit.parts import adam\nimport kit.far\n",
    "rate.py": "RATE = 1  # peak\n",
    "parts/__init__.py": "",
    "parts/adam.py": 'def step():\n    """Adam."""\n    from kit import inner\n    return 0.999\n',
    "inner.py": "",
    "far.py": "import typing\nif typing.TYPE_CHECKING:\n    from kit.typed import T\n",
    "typed.py": "T = 1\n",
    "plots.py": "from kit import study\n",
}


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A small package, whose files a test changes; returns the digest of a module of it as it is now."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "kit"
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    def digest(module="kit.study", **changed):
        for name, text in changed.items():
            (folder / f"{name.replace('__', '/')}.py").write_text(text, encoding="utf-8")
        revision._digest.cache_clear()
        revision._modules.cache_clear()
        return revision._digest(folder, module)

    yield digest
    revision._digest.cache_clear()
    revision._modules.cache_clear()


def test_modules_are_found_by_imports(kit, tmp_path):
    found = revision.reached("kit.study", tmp_path / "kit")
    assert found == [
        "kit",
        "kit.far",
        "kit.inner",
        "kit.parts",
        "kit.parts.adam",
        "kit.rate",
        "kit.study",
        "kit.typed",
    ]
    assert revision.reached("kit.rate", tmp_path / "kit") == ["kit", "kit.rate"]
    assert "kit.plots" in revision.reached("", tmp_path / "kit")


@pytest.mark.parametrize(
    "changed",
    [
        {"parts__adam": "def step():\n    return 0.99\n"},
        {"rate": "RATE = 2\n"},
        {"inner": "X = 1\n"},
        {"typed": "T = 2\n"},
    ],
)
def test_any_change_of_code_is_another_digest_and_the_old_code_has_the_old_one(kit, changed):
    (name,) = changed
    before = kit()
    after = kit(**changed)
    assert before != after
    assert kit(**{name: PACKAGE[f"{name.replace('__', '/')}.py"]}) == before


def test_comments_docstrings_formatting_and_modules_out_of_reach_do_not_count(kit):
    before = kit()
    adam = "# new\ndef step():\n\n    'Other words.'\n    from kit import (inner)\n    return (0.999)\n"
    assert kit(parts__adam=adam, rate="RATE = 1\n\n\n", plots="print(1)\n") == before


def test_what_was_parsed_is_kept_and_a_broken_file_of_it_does_no_harm(kit, tmp_path, monkeypatch):
    before, file = kit(), tmp_path / "cache" / revision.KEPT
    assert file.exists()
    with monkeypatch.context() as patch:
        patch.setattr(revision.ast, "parse", None)
        assert kit() == before, "nothing is parsed again"
    for broken in ("[" * 100_000, "[1]", '{"a": 1}', "", '{"a": {"digest": "x"}}'):
        file.write_text(broken, encoding="utf-8")
        assert kit() == before


def test_what_another_version_of_this_module_found_is_not_taken(kit, tmp_path, monkeypatch):
    before = kit()
    file = tmp_path / "cache" / revision.KEPT
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({key: {**about, "digest": "x"} for key, about in known.items()}))
    assert kit() != before, "it is believed"
    (tmp_path / "revision.py").write_text("# another version")
    monkeypatch.setattr(revision, "__file__", str(tmp_path / "revision.py"))
    assert kit() == before


def test_makers_of_the_kit_are_named_by_their_module():
    from iptkit.studies.steps import by_seed
    from iptkit.studies.study import Study

    def mine():
        pass

    of_steps = revision.of(Study.zero_shot)  # which StudySteps makes
    assert revision.of(functools.partial(functools.partial(by_seed, 1))) == of_steps
    assert revision.of(mine) == revision._digest(paths.PACKAGE, "")


def test_a_study_runs_through_what_trains_and_scores_but_not_through_what_shows():
    for module in (
        "iptkit.studies.study",
        "iptkit.studies.unseen",
        "iptkit.studies.lesson04_methods",
        "iptkit.studies.lesson01",
    ):
        found = set(revision.reached(module))
        assert {
            "iptkit.training.trainer",
            "iptkit.training.adam",
            "iptkit.engine.engine",
            "iptkit.methods.prompt_tuning",
            "iptkit.scores.evaluation",
        } <= {*found}, module
        assert not found & {name for name in found if name.startswith("iptkit.course.")}


def test_every_module_that_makes_steps_reaches_the_trainer_it_uses():
    """The source shows where steps are made, so no list of modules has to be maintained."""
    files = [f for f in paths.PACKAGE.rglob("*.py") if "step_cache.step(" in f.read_text(encoding="utf-8")]
    makers = {".".join(f.relative_to(paths.PACKAGE.parent).with_suffix("").parts) for f in files}
    assert {
        f"iptkit.studies.{name}" for name in ("steps", "unseen", "lesson03", "lesson04_methods")
    } <= makers
    for name in makers:
        assert "iptkit.engine.engine" in revision.reached(name), name


def test_the_kit_imports_modules_never_the_face_of_a_package():
    """A face names its modules in a stub, which `reached` does not read: the code behind would not count."""
    for file in paths.PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iptkit"):
                place = paths.PACKAGE.parent / node.module.replace(".", "/")
                files = [place / f"{alias.name}.py" for alias in node.names]
                is_module = not place.is_dir() or all(file.exists() for file in files)
                assert is_module, f"{file}: {ast.unparse(node)}"
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "iptkit":
                assert node.attr in ("__version__", "STARTED"), f"{file}: {ast.unparse(node)}"


def test_the_installed_kit_and_another_process_give_the_same_name(tmp_path):
    """A cluster's worker and a notebook find each other's steps."""
    shutil.copytree(paths.PACKAGE, tmp_path / "site" / "iptkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.data_dir(), tmp_path / "site" / "iptkit" / "data")
    program = (
        "from iptkit.storage import paths, revision as r; "
        "print(r._digest(paths.PACKAGE, 'iptkit.studies.study'))"
    )
    env = {"PYTHONPATH": str(tmp_path / "site"), "IPTKIT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", f"{program}; print(paths.PACKAGE)"]
    said = subprocess.run(command, cwd=tmp_path / "site", env=env, capture_output=True, text=True, check=True)
    name, place = said.stdout.splitlines()
    assert place == str(tmp_path / "site" / "iptkit")
    assert name == revision._digest(paths.PACKAGE, "iptkit.studies.study")


def test_fields_that_a_new_python_adds_do_not_count():
    tree = ast.parse("def f(x):\n    return [x, None, f(x)]\n")
    before = revision._lists(tree)
    tree.body[0].type_params = []
    tree.body[0]._fields = (*ast.FunctionDef._fields, "type_params")
    assert revision._lists(tree) == before
    tree.body[0].type_params = [ast.Name("T", ast.Load())]
    assert revision._lists(tree) != before
    texts = (
        "f(0)",
        "f(0.0)",
        "f(False)",
        "f(None)",
        "f('0')",
        "f(b'0')",
        "f([])",
        "f()",
        "f",
        "f[:]",
        "f[::1]",
    )
    found = [str(revision._lists(ast.parse(text))) for text in texts]
    assert len({*found}) == len(found)
