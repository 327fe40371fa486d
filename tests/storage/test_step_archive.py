"""Finished steps that travel: equal bytes, hostile archives, nothing lost and nothing replaced."""

import errno
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
import torch

from iptkit.storage import files, paths, step_archive, step_cache

NAMES = ("bank", "codes-learned-5", "prompts")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Change to another machine: a function that sets its step cache and returns the folder."""
    monkeypatch.setattr(step_cache, "HITS", {})

    def change(name):
        monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / name))
        return paths.steps_dir()

    return change


def make(name, size=2):
    """A finished step whose tensor has `size` numbers."""
    return step_cache.step(name, size, lambda _: ({"P": torch.arange(1.0, size + 1)}, {"rows": [name]}))


@pytest.fixture
def packed(tmp_path, machine):
    """An archive of three steps; the step cache of this machine is empty."""
    machine("there")
    for name in NAMES:
        make(name)
    done = step_archive.pack(tmp_path / "steps.tar")
    machine("here")
    return done


def content(root):
    """All files below a folder, with their bytes."""
    found = (file for file in sorted(root.rglob("*")) if file.is_file())
    return {str(file.relative_to(root)): file.read_bytes() for file in found}


def finished(root):
    """The finished steps of a step cache; locks and times differ between machines."""
    return {name: data for name, data in content(root).items() if name.endswith(step_cache.DONE)}


# ---- there and back ------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_steps_arrive_with_equal_bytes_and_are_used_without_making(tmp_path, machine, ending):
    there = machine("there")
    first = make("bank")
    (tmp_path / "msf-0123abcd").mkdir()
    packed = step_archive.pack(tmp_path / f"steps{ending}")
    here = machine("here")
    done = step_archive.unpack(str(packed.path))
    assert done.added == packed.steps == (first.folder,) and done.kept == () and done.folder == here
    assert done.bytes == packed.bytes == len(finished(there)[f"{first.folder}/step.safetensors"])
    assert content(here) == finished(there), "nothing but the step, no lock and no draft"

    def never(_):
        raise AssertionError("it is in the step cache")

    def same(checkpoint):
        return never(checkpoint)

    again = step_cache.step("bank", 2, same)
    assert again.was_cached and again.folder == first.folder and again.values == first.values
    assert torch.equal(again.tensors["P"], first.tensors["P"]) and again.seconds == first.seconds


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_equal_steps_give_equal_archives(tmp_path, machine, ending):
    there, here = machine("there"), machine("here")
    machine("there")
    for name in NAMES:
        make(name)
    for folder in sorted(
        there.iterdir(), reverse=True
    ):  # another order, other times, and what else lies there
        shutil.copytree(folder, here / folder.name)
        os.utime(here / folder.name / step_cache.DONE, (1e9, 1e9))
        (here / folder.name / step_cache.DONE).chmod(0o600)
    first = step_archive.pack(tmp_path / f"a{ending}")
    machine("here")
    second = step_archive.pack(tmp_path / f"b{ending}")
    assert first.path.read_bytes() == second.path.read_bytes()
    with tarfile.open(first.path) as tar:
        assert [member.name for member in tar] == sorted(f"{name}/step.safetensors" for name in first.steps)
        facts = {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.type) for m in tar.getmembers()}
    assert facts == {(0, 0, 0, "", 0o644, tarfile.REGTYPE)}


def test_only_finished_steps_are_packed_and_the_others_counted(tmp_path, machine):
    there = machine("there")
    for name, size in zip(NAMES, (2, 1000, 2), strict=True):
        make(name, size)
    (there / "msf-0123abcd").mkdir()
    (there / "msf-0123abcd" / "checkpoint.safetensors").write_text("half")
    (bank,) = there.glob("bank-*")
    (bank / f".step.safetensors.x{files.TEMPORARY}").write_text("half")
    (there / "notes").mkdir()
    (there / "notes" / step_cache.DONE).write_text("no step")
    done = step_archive.pack(tmp_path / "steps.tar", largest=0.003)
    (codes,) = there.glob("codes-*")
    assert done.left_out == {codes.name: "above 0.003 MB", "msf-0123abcd": "unfinished"}
    assert [name[:-9] for name in done.steps] == ["bank", "prompts"]
    assert step_archive.told(done.left_out) == "1 above 0.003 MB, 1 unfinished"
    with tarfile.open(done.path) as tar:
        assert tar.getnames() == [f"{name}/step.safetensors" for name in done.steps]
        assert sum(member.size for member in tar.getmembers()) == done.bytes


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("codes-*",), ["codes-learned-5"]),
        (("prompts", "b*"), ["bank", "prompts"]),
        ("prompts", ["prompts"]),
        ((), [*NAMES]),
    ],
)
def test_names_choose_steps(tmp_path, machine, patterns, expected):
    machine("there")
    for name in NAMES:
        make(name)
    done = step_archive.pack(tmp_path / "steps.tar", names=patterns)
    assert [name[:-9] for name in done.steps] == expected
    assert [*done.left_out.values()] == ["of other names"] * (3 - len(expected))


def test_a_name_with_its_hash_chooses_one_step(tmp_path, machine):
    machine("there")
    one, _ = make("bank", 2), make("bank", 3)
    assert step_archive.pack(tmp_path / "steps.tar", names=[one.folder]).steps == (one.folder,)


def test_a_damaged_step_is_left_out_by_name(tmp_path, machine):
    there = machine("there")
    bad, good = make("bank"), make("prompts")
    flip(there / bad.folder / step_cache.DONE)
    with pytest.warns(UserWarning, match=rf"{bad.folder}/step.safetensors is damaged .*it is left out"):
        done = step_archive.pack(tmp_path / "steps.tar")
    assert done.steps == (good.folder,) and done.left_out == {bad.folder: "damaged"}


def test_names_that_other_systems_refuse_stay(tmp_path, machine):
    machine("there")
    for name in ("a:b", "c\\d", "e" * 147, "f\x1b"):
        make(name)
    fits, word = make("e" * 146), make("görüş")
    done = step_archive.pack(tmp_path / "steps.tar")
    assert done.steps == (fits.folder, word.folder)
    assert {*done.left_out.values()} == {"with names that other systems refuse"} and len(done.left_out) == 4
    machine("here")
    assert step_archive.unpack(done.path).added == done.steps


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "steps.zip"}, "steps.zip is no name of an archive; write NAME.tar or NAME.tar.gz"),
        ({"path": "tar"}, "is no name of an archive"),
        ({"largest": 0}, "the largest size is 0 MB; give a positive number"),
        ({"largest": float("nan")}, "the largest size is nan MB"),
        ({"largest": 1e-6}, r"no step of .* can be packed \(1 above 1e-06 MB\); nothing was written"),
        ({"names": ["b*", "kodes-*"]}, "no finished step matches 'kodes-\\*'; `iptkit steps list`"),
        ({"path": "bank.tar/steps.tar"}, "cannot write to the folder .*there is a file of this name"),
    ],
)
def test_what_cannot_be_packed_is_refused_and_leaves_nothing(tmp_path, machine, monkeypatch, given, message):
    machine("there")
    make("bank")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank.tar").write_text("a file")
    before = content(tmp_path)
    with pytest.raises(ValueError, match=message):
        step_archive.pack(**{"path": "new/steps.tar"} | given)
    assert content(tmp_path) == before and not (tmp_path / "new").exists()


def test_an_empty_step_cache_is_refused(tmp_path, machine):
    there = machine("there")
    with pytest.raises(ValueError, match=f"there is no finished step in {there}; set IPTKIT_STEPS"):
        step_archive.pack(tmp_path / "steps.tar")
    (there / "msf-0123abcd").mkdir()
    with pytest.raises(ValueError, match="there is no finished step"):
        step_archive.pack(tmp_path / "steps.tar", names=["msf*"])
    assert not (tmp_path / "steps.tar").exists() and step_archive.stored() == []


def test_too_much_for_one_archive_is_refused(tmp_path, machine, monkeypatch):
    machine("there")
    make("bank"), make("prompts")
    monkeypatch.setattr(step_archive, "MOST_STEPS", 1)
    with pytest.raises(ValueError, match="2 steps with 0 MB are too many for one archive.*--largest or"):
        step_archive.pack(tmp_path / "steps.tar")


def test_a_full_disk_leaves_the_earlier_archive(tmp_path, machine, monkeypatch):
    machine("there")
    make("bank")
    earlier = step_archive.pack(tmp_path / "steps.tar").path.read_bytes()
    make("prompts")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(files.DiskFullError, match="no space left for steps.tar"):
        step_archive.pack(tmp_path / "steps.tar")
    assert (tmp_path / "steps.tar").read_bytes() == earlier
    assert not [*tmp_path.glob(f".*{files.TEMPORARY}")]


def test_stored_lists_finished_steps(machine):
    there = machine("there")
    second, first = make("prompts"), make("bank")
    broken = make("codes")
    (there / broken.folder / step_cache.DONE).write_bytes(b"broken")
    os.utime(there / first.folder / step_cache.DONE, (1_800_000_000,) * 2)
    found = step_archive.stored()
    assert [one.name for one in found] == [first.folder, broken.folder, second.folder]
    assert [one.seconds for one in found] == [first.seconds, None, second.seconds]
    assert found[0].bytes == len(finished(there)[f"{first.folder}/step.safetensors"])
    assert found[0].date.startswith("2027-01-1") and found[1].bytes == 6


# ---- what is there already -----------------------------------------------------------------------
def test_an_existing_step_is_kept_and_the_others_arrive(packed, machine):
    here = machine("here")
    own = make("bank")
    file = here / own.folder / step_cache.DONE
    before, inode = file.read_bytes(), file.stat().st_ino
    done = step_archive.unpack(packed.path)
    assert done.kept == (own.folder,) and [name[:-9] for name in done.added] == ["codes-learned-5", "prompts"]
    assert file.read_bytes() == before and file.stat().st_ino == inode
    again = step_archive.unpack(packed.path)
    assert again.added == () and again.kept == packed.steps and again.bytes == 0


def test_an_unfinished_step_is_completed(packed, machine):
    here = machine("here")
    folder = here / packed.steps[0]
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_text("half")
    assert packed.steps[0] in step_archive.unpack(packed.path).added
    assert make("bank").was_cached
    step_cache.sweep()
    assert [file.name for file in folder.iterdir()] == ["step.safetensors"]


def test_a_step_that_is_finished_meanwhile_is_kept(packed, machine, monkeypatch):
    here, place = machine("here"), step_archive._place

    def late(draft, target):
        target.parent.mkdir()
        target.write_text("another process made it")
        return place(draft, target)

    monkeypatch.setattr(step_archive, "_place", late)
    done = step_archive.unpack(packed.path)
    assert done.added == () and done.kept == packed.steps and done.bytes == 0
    assert {*finished(here).values()} == {b"another process made it"}


def test_a_file_system_without_hard_links(packed, machine, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    here = machine("here")
    monkeypatch.setattr(os, "link", refuse)
    assert step_archive.unpack(packed.path).added == packed.steps
    assert finished(here) == finished(machine("there"))


def test_something_in_the_way_is_named(packed, machine):
    here = machine("here")
    (here / packed.steps[1]).write_text("a file")
    with pytest.raises(
        ValueError, match=f"(?s)has 1 problem.*{packed.steps[1]}.* is in the way; move it away"
    ):
        step_archive.unpack(packed.path)
    assert [*content(here)] == [packed.steps[1]]


# ---- damage --------------------------------------------------------------------------------------
def flip(file, place=-1):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def refused(archive, here, message):
    """Check that an archive is refused and changes nothing."""
    before = content(here)
    with pytest.raises(ValueError, match=message):
        step_archive.unpack(archive)
    assert content(here) == before and not [*here.glob(".*")]


def test_damaged_members_are_refused_by_name_and_no_other_arrives(packed, machine):
    whole = packed.path.read_bytes()
    for name in packed.steps[:2]:
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            member = tar.getmember(f"{name}/step.safetensors")
        flip(packed.path, member.offset_data + member.size - 1)
    damaged = r"/step.safetensors is damaged \(its contents do not match their checksum\); copy the archive"
    lines = "\n".join(f"{name}{damaged} again, or pack it again" for name in packed.steps[:2])
    refused(packed.path, machine("here"), rf"steps.tar has 2 problem\(s\); nothing was changed:\n{lines}$")


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive_cut_short_anywhere_is_refused(tmp_path, machine, ending):
    machine("there")
    make("bank"), make("prompts")
    archive = step_archive.pack(tmp_path / f"steps{ending}").path
    whole, here = archive.read_bytes(), machine("here")
    end = len(whole.rstrip(b"\0")) if ending == ".tar" else len(whole)
    for length in (*range(0, end, 97), 512, end - 1):
        archive.write_bytes(whole[:length])
        refused(archive, here, "cut short, damaged or no tar file|has 1 problem")
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        second = tar.getmembers()[1].offset
    if ending == ".tar":  # whole steps only: tarfile itself takes it for an archive of one step
        archive.write_bytes(whole[:second])
        refused(archive, here, "cut short")


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_one_flipped_bit_never_adds_a_wrong_step(tmp_path, machine, ending):
    there = machine("there")
    make("bank")
    archive = step_archive.pack(tmp_path / f"steps{ending}").path
    whole, right = archive.read_bytes(), finished(there)
    for place in range(0, len(whole.rstrip(b"\0")), 31):
        here = machine("here")
        archive.write_bytes(whole)
        flip(archive, place)
        try:
            step_archive.unpack(archive)
        except ValueError:
            assert content(here) == {}
        else:
            assert {*finished(here).values()} == {*right.values()}
            shutil.rmtree(here)


# ---- hostile archives ----------------------------------------------------------------------------
def archive_of(path, *members, kind=tarfile.USTAR_FORMAT):
    """A tar file of (header, content)."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=kind) as tar:
        for member, data in members:
            member.size = member.size or len(data)
            tar.addfile(member, io.BytesIO(data) if data else None)
    return path


def header(name, kind=tarfile.REGTYPE, link="", **more):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.pax_headers = kind, link, more
    return member


STEP = "bank-0123abcd/step.safetensors"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (header(f"/{STEP}"), "unsafe.*has another name"),
        (header(f"../{STEP}"), "unsafe.*has another name"),
        (header(f"./{STEP}"), "unsafe.*has another name"),
        (header("../step.safetensors"), "unsafe.*has another name"),
        (header("..-0123abcd/step.safetensors"), "unsafe.*has another name"),
        (header(f"bank-0123abcd/../{STEP}"), "unsafe.*has another name"),
        (header(f"deep/{STEP}"), "unsafe.*has another name"),
        (header("step.safetensors"), "unsafe.*has another name"),
        (header("bank/step.safetensors"), "unsafe.*has another name"),
        (header("bank-0123abcd/checkpoint.safetensors"), "unsafe.*has another name"),
        (header("C:\\bank-0123abcd/step.safetensors"), "unsafe.*has another name"),
        (header("..\\bank-0123abcd/step.safetensors"), "unsafe.*has another name"),
        (header("a\x1b[2J-0123abcd/step.safetensors"), r"unsafe.*'a\\x1b\[2J-0123abcd"),
        (header("a\udcff-0123abcd/step.safetensors"), "unsafe.*has another name"),
        (header(STEP, tarfile.SYMTYPE, "/etc/passwd"), "unsafe.*is a symbolic link"),
        (header("bank-0123abcd", tarfile.SYMTYPE, "/tmp"), "unsafe.*is a symbolic link"),
        (header(STEP, tarfile.LNKTYPE, "/etc/passwd"), "unsafe.*is a hard link"),
        (header("bank-0123abcd", tarfile.DIRTYPE), "unsafe.*is a folder"),
        (header(STEP, tarfile.CHRTYPE), "unsafe.*is no regular file"),
        (header(STEP, tarfile.BLKTYPE), "unsafe.*is no regular file"),
        (header(STEP, tarfile.FIFOTYPE), "unsafe.*is no regular file"),
        (header(STEP, tarfile.GNUTYPE_SPARSE), "unsafe.*is no regular file"),
        (header(STEP, tarfile.CONTTYPE), "unsafe.*is no regular file"),
    ],
)
def test_unsafe_members_are_refused(packed, machine, member, message):
    """A step before it does not arrive either."""
    with tarfile.open(packed.path) as tar:
        good = tar.getmembers()[0]
        data = tar.extractfile(good).read()
    archive = archive_of(packed.path.with_name("bad.tar"), (good, data), (member, b""))
    outside = content(packed.path.parent)
    refused(archive, machine("here"), message)
    assert content(packed.path.parent) == outside


def test_extended_headers_are_refused_unread(tmp_path, machine):
    """They may rename a member, or have any size."""
    here = machine("here")
    renamed = header(STEP, path="../../elsewhere", comment="x" * 100_000)
    archive = archive_of(tmp_path / "pax.tar", (renamed, b"data"), kind=tarfile.PAX_FORMAT)
    refused(archive, here, "unsafe.*is no regular file")
    long = header(f"{'x' * 300}-0123abcd/step.safetensors")
    archive = archive_of(tmp_path / "gnu.tar", (long, b"data"), kind=tarfile.GNU_FORMAT)
    refused(archive, here, "unsafe.*is no regular file")


def test_a_step_twice_is_refused(packed, machine):
    with tarfile.open(packed.path) as tar:
        good = tar.getmembers()[0]
        data = tar.extractfile(good).read()
    archive = archive_of(packed.path.with_name("twice.tar"), (good, data), (good, data))
    refused(archive, machine("here"), f"holds {good.name} twice")


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 1000), ("MOST_STEPS", 2)])
def test_more_than_an_archive_may_hold_is_refused(packed, machine, monkeypatch, limit, value):
    monkeypatch.setattr(step_archive, limit, value)
    refused(packed.path, machine("here"), "more than .* steps, or more than .* MB of them")


def test_a_bomb_is_refused_before_it_unfolds(tmp_path, machine):
    """A header may say any size; what follows counts for nothing then."""
    here = machine("here")
    for size in (2**33, 2**63, -1):
        member = header(STEP)
        member.size = size
        block = member.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "bomb.tar").write_bytes(block + bytes(4096))
        refused(tmp_path / "bomb.tar", here, f"unsafe.*has {size} bytes")
    member = header(STEP)
    member.size = 10**6
    bomb = member.tobuf(tarfile.USTAR_FORMAT) + bytes(10**6 + 448) + bytes(1024)
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bomb + bytes(10**8)))
    refused(tmp_path / "bomb.tar.gz", here, "goes on behind the end of its archive")
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bomb))
    refused(tmp_path / "bomb.tar.gz", here, f"{STEP} is damaged")


def test_a_full_disk_adds_nothing(packed, machine, monkeypatch):
    here = machine("here")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(step_archive, "_copy", full)
    with pytest.raises(files.DiskFullError, match="free space there, or set IPTKIT_STEPS"):
        step_archive.unpack(packed.path)
    assert content(here) == {} and not [*here.iterdir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: {"config": 2}, "is no step"),
        (lambda about: about | {"seconds": "1"}, "is no step"),
        (lambda about: about | {"values": []}, "is no step"),
    ],
)
def test_a_file_that_is_no_step_is_refused(tmp_path, machine, change, message):
    there = machine("there")
    step = make("bank")
    file = there / step.folder / step_cache.DONE
    tensors, about = step_archive.tensor_files.read(file)
    step_archive.tensor_files.write(file, tensors, change(about))
    archive = archive_of(tmp_path / "no.tar", (header(STEP), file.read_bytes()))
    refused(archive, machine("here"), f"(?s)problem.*{STEP} {message} .its header lacks fields")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no tar file"),
        (b"PK\x03\x04" + bytes(2000), "no tar file"),
        (b"some text\n" * 100, "no tar file"),
        (b"\x1f\x8b no gzip", "no tar file"),
        (gzip.compress(b"text" * 300, mtime=0), "no tar file"),
        (bytes(10240), "holds no step"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_other_files_are_refused(tmp_path, machine, data, message):
    (tmp_path / "steps.tar").write_bytes(data)
    refused(tmp_path / "steps.tar", machine("here"), message)


def test_no_file_and_no_regular_file(tmp_path, machine):
    machine("here")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        step_archive.unpack(tmp_path / "none.tar")
    with pytest.raises(ValueError, match="is a folder"):
        step_archive.unpack(tmp_path)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ValueError, match="no regular file"):
        step_archive.unpack(tmp_path / "pipe.tar")


KILLED = """
import os, signal, sys
from iptkit.storage import step_archive
step_archive._problem = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
step_archive.unpack(sys.argv[1])
"""


def test_what_a_killed_process_left_is_swept(packed, machine):
    here = machine("here")
    subprocess.run([sys.executable, "-c", KILLED, str(packed.path)], check=False)
    (left,) = here.iterdir()
    assert left.name.endswith(files.TEMPORARY)
    assert step_archive.unpack(packed.path).added == packed.steps
    assert sorted(folder.name for folder in here.iterdir()) == [*packed.steps]
