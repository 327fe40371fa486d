"""What `iptkit doctor` says of an installation."""

import importlib.metadata

import pytest

from iptkit.course import doctor, lessons
from iptkit.storage import installation


@pytest.fixture
def without(monkeypatch):
    """Make packages absent, or of another version; those of optional extras are there unless named."""
    known, optional = importlib.metadata.version, {"ray": "2.60.0", "otter_grader": "7.0.0"}

    def make(**versions):
        def version(name):
            found = (optional | versions).get(name.replace("-", "_"), ...)
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return known(name) if found is ... else found

        monkeypatch.setattr(doctor.importlib.metadata, "version", version)

    return make


def test_the_extra_that_is_missing_is_the_one_advised(without):
    without(ray=None)
    findings, duties = doctor._packages()
    assert duties == [], "the course does without Ray"
    assert findings == [
        ("installed", "all packages that the course needs"),
        (
            "",
            "without the optional extra cluster (ray); to install it: "
            'python -m pip install -c constraints.txt -e ".[cluster]"',
        ),
    ]


def test_each_optional_extra_is_named_by_itself(without):
    without(otter_grader=None)
    findings, _ = doctor._packages()
    assert [text for name, text in findings if not name] == [
        "without the optional extra grading (otter-grader); to install it: "
        'python -m pip install -c constraints.txt -e ".[grading]"'
    ]


def test_what_the_course_needs_is_a_duty(without):
    without(papermill=None, typer=None, torch="1.13.0")
    findings, (duty,) = doctor._packages()
    assert duty.startswith('python -m pip install -c constraints.txt -e ".[notebooks,dev]"  (missing: ')
    assert findings == [("installed", "without torch (>=2.13; 1.13.0 is installed), typer, papermill")]


def test_outside_a_checkout_the_advice_needs_no_files_of_it(without, tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    without(papermill=None, pytest=None)
    findings, duties = doctor._packages()
    assert duties == ['python -m pip install "iptkit[notebooks]"  (missing: papermill)']
    assert (
        "",
        'without the optional extra dev (pytest); to install it: python -m pip install "iptkit[dev]"',
    ) in findings


def test_notebooks_that_cannot_be_run_are_reported(monkeypatch):
    from jupyter_client import kernelspec

    assert doctor._notebooks() == ([("notebooks", "can be run")], [])
    gone = kernelspec.KernelSpec(argv=["/gone/python"])
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", lambda *_: gone)
    findings, (duty,) = doctor._notebooks()
    assert findings == [("notebooks", "cannot be run")] and "/gone/python, which does not exist" in duty
    monkeypatch.delattr("papermill.execute_notebook")
    findings, (duty,) = doctor._notebooks()
    assert (
        findings == [("notebooks", "cannot be run")] and "package papermill is installed but broken" in duty
    )


def test_missing_notebooks_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "PATTERN", "none.ipynb")
    findings, (duty,) = doctor._times(1.0, "cpu")
    assert findings == [("course", "its notebooks are missing")] and "install iptkit again" in duty
