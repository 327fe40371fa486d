"""Lessons in a real JupyterLab, as a learner runs them: restart the kernel and run all cells."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from browsers import CHROMIUM

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LESSONS = ("02_prompt_tuning", "06_subspace_tuning")
MINUTES = 10


@contextmanager
def lab(folder, env):
    """A JupyterLab server without network, that shows a folder; yields its address and token."""
    token, place = secrets.token_hex(16), folder / "runtime"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--allow-root",
    ]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    env = {**env, "JUPYTER_RUNTIME_DIR": str(place), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            yield _address(server, place, folder / "lab.log"), token
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _address(server, place, log):
    for _ in range(600):
        for file in place.glob("jpserver-*.json"):
            url = json.loads(file.read_text())["url"]
            with urllib.request.urlopen(f"{url}api", timeout=10):
                return url
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start in a minute:\n{log.read_text()}")


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    """JupyterLab in a browser: opens a lesson (scale smoke) and returns the page and the notebook's file."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH: lessons are not run in JupyterLab (apt install chromium)")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("lab")
    for name in LESSONS:
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", folder)
    env = {name: value for name, value in os.environ.items() if name != "IPTKIT_QUIET"}
    env |= {"IPTKIT_SCALE": "smoke", "IPTKIT_STEPS": str(folder / "steps")}
    with lab(folder, env) as (url, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)

        def opened(name):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(f"{url}lab/workspaces/{name}/tree/{name}.ipynb?token={token}")
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
            return page, folder / f"{name}.ipynb"

        yield opened
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", LESSONS)
def test_restart_and_run_all(learner, name):
    page, file = learner(name)
    page.get_by_text("Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    deadline = time.monotonic() + MINUTES * 60
    while time.monotonic() < deadline:
        page.wait_for_timeout(1000)
        page.keyboard.press("Control+s")
        cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
        outputs = [output for cell in cells for output in cell.outputs]
        errors = [output for output in outputs if output.output_type == "error"]
        counts = [cell.execution_count for cell in cells]
        ended = counts == list(range(1, len(cells) + 1)) and "smoke" in str(outputs[0])  # not the stored ones
        if ended or errors:
            break
    page.close()
    assert errors == [] and ended, counts
    streams = [output for output in outputs if output.output_type == "stream"]
    assert [output.text for output in streams if output.name == "stderr"] == []
    plain = [output.data.get("text/plain", "") for output in outputs if "data" in output]
    assert plain.count("") > 3  # where bars were
    assert [text for text in plain if "s/it" in text or "it/s" in text or "step/s" in text] == []
