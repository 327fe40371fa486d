"""Checks of a Ray cluster before a study runs on it: a head that answers, and nodes with this code and
folders.

This module does not import Ray.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iptkit.storage.versions import code
from iptkit.studies.scales import Scale

ADDRESSES = '"local" (starts one here), "auto" (the one of this machine) or HOST:PORT of its head'
HEAD_SECONDS = 5.0  # until a head must have answered
# what a gRPC client says first
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class ClusterError(ValueError):
    """The cluster cannot be reached, or cannot run the study; the text says what to do."""


@dataclass(frozen=True)
class Order:
    """All that a worker needs to know.

    Attributes:
      scale, device, seed: of the study; device is "cpu" or "cuda".
      cache, steps: folders that every node must see under the same path.
      mark: name of a file that lies in both folders during this run.
      code: of this machine, see `versions.code`.
      crossfit: folder with the user's files for that suite (`paths.crossfit_dir`), or "".
    """

    scale: Scale
    device: str
    seed: int
    cache: str
    steps: str
    mark: str
    code: str
    crossfit: str = ""


@dataclass(frozen=True)
class Seen:
    """What a node has: its name, its code, and (folder, problem) for each folder that it does not share."""

    node: str
    code: str
    folders: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Node:
    """A node that is alive: Ray's id, a readable name, cores and GPUs."""

    id: str
    name: str
    cpus: float
    gpus: float

    def slots(self, needs: dict[str, float]) -> int:
        """How many jobs run on the node at once, if each needs `num_cpus` >= 1 and perhaps `num_gpus`."""
        count = int(self.cpus // needs["num_cpus"])
        return min(count, int(self.gpus // needs["num_gpus"])) if "num_gpus" in needs else count


def check_nodes(code: str, nodes: Iterable[Seen]) -> None:
    """Raise ClusterError unless all nodes have this code and see the folders."""
    for seen in nodes:
        for folder, problem in seen.folders:
            raise ClusterError(
                f"the node {seen.node} does not share the folder {folder} ({problem}); set IPTKIT_CACHE here "
                "to a folder that all nodes see at the same place (IPTKIT_STEPS too, if it is set)"
            )
        if seen.code != code:
            raise ClusterError(
                f"the node {seen.node} has {seen.code}, but this machine has {code}; install the same on "
                "both, then stop and start Ray there"
            )


def resources(nodes: Sequence[Node], device: str, cpus: int | None = None) -> dict[str, float]:
    """What a job takes of a node: by default all cores of the smallest one, or a GPU and one core.

    Args:
      nodes: of the cluster.
      device: "cpu" or "cuda".
      cpus: cores per job, instead of the default.
    Raises: ClusterError if no node has enough.
    """
    needs: dict[str, float] = {"num_cpus": cpus or 0}
    if device == "cuda":
        needs = {"num_gpus": 1, "num_cpus": cpus or 1}
    if not needs["num_cpus"]:
        needs["num_cpus"] = min((int(node.cpus) for node in nodes if node.cpus >= 1), default=1)
    if not any(node.slots(needs) for node in nodes):
        wanted = f"{needs['num_cpus']} core(s)" + (" and a GPU" if "num_gpus" in needs else "")
        have = "; ".join(f"{n.name}: {n.cpus:.0f} cores, {n.gpus:.0f} GPUs" for n in nodes)
        raise ClusterError(
            f"no node has {wanted} for a job ({have}); start other nodes, or change --job-cpus or --device"
        )
    return needs


def see(order: Order, node: str) -> Seen:
    """What this node has: its code, and the problems with its folders."""
    found = ((folder, _wrong(Path(folder), order.mark)) for folder in (order.cache, order.steps))
    return Seen(node, code(), tuple((folder, problem) for folder, problem in found if problem))


def _wrong(folder: Path, mark: str) -> str:
    """The problem with a folder that should be shared; "" if there is none."""
    if not folder.is_dir():
        return "it is not there"
    if not (folder / mark).exists():
        return "the folder of that name there is another one"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "no permission to write"


# ---- the head --------------------------------------------------------------------------------
def head(address: str) -> str:
    """The address for ray.init of a head that answers; Ray itself would try for minutes.

    Args:
      address: "local", "auto" or HOST:PORT.
    Raises: ClusterError for another address, or if no head answers there.
    """
    if address == "local":
        return address
    found = _known_head() if address == "auto" else address
    if found is None:
        return address  # Ray looks for one among the processes, and fails at once if there is none
    match = re.fullmatch(r"([\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})", found)
    if not match or not 0 < int(match[2]) < 65536:
        raise ClusterError(f"the cluster's address is {found!r}; give {ADDRESSES}, such as 10.0.0.1:6379")
    problem = _problem(match[1].strip("[]"), int(match[2]))
    if problem:
        raise ClusterError(no_head(found, problem))
    return found


def _known_head() -> str | None:
    """The address that "auto" stands for: $RAY_ADDRESS, else that of the last `ray start` on this machine."""
    if os.environ.get("RAY_ADDRESS"):
        return os.environ["RAY_ADDRESS"]
    try:
        place = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
        return place.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _problem(host: str, port: int) -> str:
    """Why no head answers there; "" if a server does that speaks gRPC, as Ray does."""
    try:
        with socket.create_connection((host, port), HEAD_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return ""
            line.sendall(HELLO)
            answer = line.recv(9)
    except OSError as error:
        return error.strerror or str(error)
    return "" if answer[3:4] == b"\x04" else "what answers there is not Ray"


def no_head(address: str, problem: str) -> str:
    """The error message if no head answers."""
    return (
        f"no Ray head at the address {address} ({problem}); start one with `ray start --head --port=6379` "
        "and this command on one of its nodes, or give --cluster local"
    )
