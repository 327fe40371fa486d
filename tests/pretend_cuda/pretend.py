"""Makes torch believe in two GPUs whose numbers lie in main memory: see README.md.

`install` has to be called before torch is imported. `waits` tells what made the host wait for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SOURCE = Path(__file__).with_name("pretend.cpp")
COMPILER = os.environ.get("CXX", "g++")
NAME = "pretended GPU"
MEMORY = 80 << 30
READS = "aten::", "copy to cpu"  # what `waits` names so is data that the host asks for


def why_not() -> str:
    """Why there can be no such device here; "" if it can be."""
    if not sys.platform.startswith("linux"):
        return f"the pretend GPU is built for Linux only, this is {sys.platform}"
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler ({COMPILER}; CXX names another one) to build the pretend GPU with"
    return ""


def build(folder: Path) -> Path:
    """The compiled library in `folder`; compiled now unless it was from the same source for the same torch.

    Raises: RuntimeError with the compiler's words.
    """
    torch = _folder("torch")
    version = (torch / "version.py").read_bytes() + (
        torch / "lib" / "libtorch_cpu.so"
    ).stat().st_size.to_bytes(8)
    digest = hashlib.sha256(SOURCE.read_bytes() + version).hexdigest()[:16]
    library = folder / f"pretend-{digest}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "unchecked.inc").write_text("".join(f'"aten::{name}",\n' for name in unchecked()))
        made = Path(place) / library.name
        includes = [
            f"-I{part}" for part in (place, torch / "include", torch / "include/torch/csrc/api/include")
        ]
        command = [
            COMPILER,
            "-O1",
            "-std=c++20",
            "-shared",
            "-fPIC",
            "-w",
            *includes,
            str(SOURCE),
            "-o",
            str(made),
        ]
        command += [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"the pretend GPU does not compile ({' '.join(command)}):\n{done.stderr[-4000:]}"
            )
        made.replace(library)  # at once: another process may be waiting for it
    return library


def unchecked() -> list[str]:
    """Operations whose tensors CUDA does not compare the devices of, by torch's own list of operations.

    Most of them allow a tensor of the CPU without dimensions (a number) beside tensors of a GPU.
    """
    text = (_folder("torchgen") / "packaged/ATen/native/native_functions.yaml").read_text(encoding="utf-8")
    entries = re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]
    return [e.partition("(")[0] for e in entries if re.search(r"^  device_check: NoCheck", e, re.MULTILINE)]


def install(folder: Path) -> None:
    """Give this process two pretended GPUs, "cuda:0" and "cuda:1".

    Args:
      folder: where the compiled library is kept.
    Raises: RuntimeError if torch has been imported already, or the library does not compile.
    """
    if "torch" in sys.modules:
        raise RuntimeError(
            "torch is imported already; the pretend GPU has to come first, so run it by itself"
        )
    library = ctypes.CDLL(str(build(folder)), mode=ctypes.RTLD_GLOBAL)
    library.pretend_waits.restype = ctypes.c_long
    library.pretend_waits.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_bool]
    library.pretend_refuse.argtypes = library.pretend_give_defaults.argtypes = [ctypes.c_bool]
    library.pretend_synchronize.restype = ctypes.c_bool
    import torch

    cuda = torch.cuda
    cuda._lazy_init = lambda: None
    cuda._initialized = True
    cuda._is_compiled = lambda: True
    cuda.is_available = lambda: True
    cuda.is_initialized = lambda: True
    cuda.device_count = torch._C._cuda_getDeviceCount = lambda: 2
    cuda.current_device = torch._C._cuda_getDevice = lambda: library.pretend_device()
    cuda.set_device = lambda device: _exchange(library, cuda._utils._get_device_index(device))
    cuda._exchange_device = cuda._maybe_exchange_device = functools.partial(_exchange, library)
    cuda.is_bf16_supported = lambda *_, **__: True
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.get_device_name = lambda *_: NAME
    about = SimpleNamespace(total_memory=MEMORY, name=NAME, major=9, minor=0, multi_processor_count=132)
    cuda.get_device_properties = lambda *_: about
    cuda.mem_get_info = lambda *_: (MEMORY, MEMORY)
    cuda.memory_allocated = cuda.max_memory_allocated = cuda.memory_reserved = lambda *_: 0
    cuda.empty_cache = cuda.reset_peak_memory_stats = lambda *_: None
    cuda.synchronize = lambda *_: _synchronize(library)
    library.pretend_give_defaults(True)
    cuda.default_generators = tuple(torch.Generator(f"cuda:{index}") for index in range(2))
    library.pretend_give_defaults(False)
    torch._C._cuda_setDevice = functools.partial(_exchange, library)
    torch._C._cuda_getCurrentRawStream = lambda *_: 0
    torch.UntypedStorage.__new__ = staticmethod(
        functools.partial(_storage, torch, torch.UntypedStorage.__new__)
    )
    _LIBRARY.append(library)


@contextlib.contextmanager
def waits() -> Iterator[dict[str, int]]:
    """A dict that is filled at the end: operation -> how often it made the host wait inside.

    Data asked for (`item`, `tolist`, `.cpu()`, shapes that depend on data) is named after its operation or
    "copy to cpu"; "blocking copy to cuda" is data sent without non_blocking; "synchronize" says itself.
    """
    found: dict[str, int] = {}
    _counted(is_cleared=True)
    try:
        yield found
    finally:
        found.update(_counted(is_cleared=True))


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """What makes the host wait inside raises RuntimeError, so that its place shows."""
    _LIBRARY[0].pretend_refuse(True)
    try:
        yield
    finally:
        _LIBRARY[0].pretend_refuse(False)


def reads(found: dict[str, int]) -> int:
    """How often data was asked for, of what `waits` found."""
    return sum(times for name, times in found.items() if name.startswith(READS))


_LIBRARY: list[ctypes.CDLL] = []


def _counted(is_cleared: bool) -> dict[str, int]:
    size = _LIBRARY[0].pretend_waits(None, 0, False)
    text = ctypes.create_string_buffer(size + 1000)
    _LIBRARY[0].pretend_waits(text, len(text), is_cleared)
    lines = (line.split("\t") for line in text.value.decode().splitlines())
    return {name: int(times) for name, times in lines}


def _synchronize(library: ctypes.CDLL) -> None:
    if not library.pretend_synchronize():
        raise RuntimeError("pretend CUDA: the host waits for the device in synchronize")


def _exchange(library: ctypes.CDLL, index: int) -> int:
    before = library.pretend_device()
    if index >= 0 and library.pretend_exchange(index) < 0:
        raise RuntimeError(f"CUDA error: invalid device ordinal (there is no cuda:{index})")
    return before


def _storage(
    torch: Any, make: Callable[..., Any], kind: type, *given: Any, device: Any = None, **more: Any
) -> Any:
    """Memory of a device: torch's own function for that was compiled without one."""
    if device is None or torch.device(device).type != "cuda":
        return make(kind, *given, **more) if device is None else make(kind, *given, device=device, **more)
    return torch.empty(*given, dtype=torch.uint8, device=device).untyped_storage()


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise RuntimeError(f"{package} is not installed")
    return Path(found.origin).parent
