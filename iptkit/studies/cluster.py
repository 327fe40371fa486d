"""Runs the jobs of a study on a Ray cluster, with the same steps and rows as in one process.

Each job is a Ray task, which starts when the jobs that it needs are done. Its worker builds the study from
its scale, makes the job's step in the step cache that all nodes share, and returns only where it ran and how
long it took. If a worker or its node is lost, the job runs again elsewhere and resumes from its checkpoint.
Ray (extra `cluster`) is imported only when a function here needs it.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from iptkit.storage import digests, installation, paths, step_cache
from iptkit.storage.versions import code
from iptkit.studies import nodes
from iptkit.studies.jobs import Job
from iptkit.studies.nodes import ClusterError, Node, Order, Seen
from iptkit.studies.study import Study

KEPT = "finished jobs are kept, and the same command continues with the rest"
START_SECONDS = 1200.0  # for a cluster to start here; Ray gives up each attempt after 15 or 30 seconds
PROBE_SECONDS = 600.0  # for a node to start its first worker
PATIENCE = {  # longer time limits of Ray for nodes started here: a busy machine is slow, not broken
    "RAY_gcs_server_port_wait_time_s": "600",
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "60000",
}
SHARED_SECONDS = 120.0  # until another node's file is seen: network file systems cache what was absent
IDLE_SECONDS = 60.0  # that the study waits without any node that a job could run on
MOST_LOSSES = 10  # lost workers that a job survives
ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": Ray uses this machine alone, as on Windows


@dataclass(frozen=True)
class Done:
    """A finished job: its name, the seconds it took, and the host that it ran on."""

    name: str
    seconds: float
    node: str


class Cluster:
    """A cluster whose nodes can all run the jobs of a study; made by `connect`.

    Attributes:
      nodes: all that were alive at the start.
      needs: what a job takes of a node, as arguments of ray.remote.
    """

    def __init__(self, ray: Any, study: Study, order: Order, cpus: int | None):
        self._ray, self._study, self._order = ray, study, order
        self.nodes = self._alive()
        nodes.check_nodes(order.code, self._probe())
        self.needs = nodes.resources(self.nodes, order.device, cpus)

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return sum(node.slots(self.needs) for node in self.nodes)

    def make(self, todo: Sequence[Job]) -> Iterator[Done]:
        """Run jobs, each after those that it needs, and yield each when it is done.

        Args:
          todo: the jobs, each after those that it needs. Needed jobs that are not listed must be in the step
            cache.
        Raises: ClusterError if a job's workers were lost too often, no node is left to run it, or its step is
          not seen here; and whatever a job itself raises.
        """
        task = self._ray.remote(max_retries=MOST_LOSSES, **self.needs)(_make)
        refs: dict[str, Any] = {}
        for job in todo:
            given = [refs.get(name, name) for name in job.needs]
            refs[job.name] = task.options(name=job.name).remote(self._order, job.name, *given)
        left, working = {ref: name for name, ref in refs.items()}, time.monotonic()
        while left:
            ready, _ = self._ray.wait(list(left), num_returns=1, timeout=5)
            if ready or any(node.slots(self.needs) for node in self._alive()):
                working = time.monotonic()
            elif time.monotonic() - working > IDLE_SECONDS:
                raise ClusterError(f"no node is left that a job could run on; start some, {KEPT}")
            for ref in ready:
                done = self._result(ref, left.pop(ref))
                _await(self._study, [done.name], "this machine")
                yield done

    def _result(self, ref: Any, name: str) -> Done:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            reason = _line(error, 0)
            raise ClusterError(
                f"the job {name} lost its worker {MOST_LOSSES + 1} times and was given up ({reason}); if "
                "memory was short, give each job more cores with --job-cpus, so that fewer share a node; "
                f"{KEPT}"
            ) from error

    def _alive(self) -> list[Node]:
        found = [(node, node["Resources"]) for node in self._ray.nodes() if node["Alive"]]
        return [
            Node(node["NodeID"], _name(node), has.get("CPU", 0.0), has.get("GPU", 0.0)) for node, has in found
        ]

    def _probe(self) -> list[Seen]:
        """What every node sees; all nodes are asked at once."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        task = self._ray.remote(num_cpus=0)(nodes.see)
        probes = [
            task.options(scheduling_strategy=On(node.id, soft=False)).remote(self._order, node.name)
            for node in self.nodes
        ]
        found = []
        for node, probe in zip(self.nodes, probes, strict=True):
            try:
                found.append(self._ray.get(probe, timeout=PROBE_SECONDS))
            except self._ray.exceptions.RayError as error:
                reason = _line(error, -1)
                raise ClusterError(
                    f"the node {node.name} cannot run iptkit ({reason}); install the same iptkit there, in "
                    "the environment that `ray start` was called from"
                ) from error
        return found


def check(address: str) -> str:
    """Check that Ray is installed and a head answers at the address; Ray itself would try for minutes.

    Returns: the address for ray.init.
    Raises: ClusterError if not.
    """
    _ray(address)
    return nodes.head(address)


@contextmanager
def connect(study: Study, address: str, cpus: int | None = None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one, and check that each of its nodes can run the jobs of the study.

    Args:
      study: whose jobs will run.
      address: "local", "auto" or HOST:PORT.
      cpus: cores that a job takes, >= 1; default: all cores of the smallest node. If the study's device is a
        GPU, a job takes one GPU and by default one core.
    Raises: ClusterError if nothing answers there, a node has other code or does not see the folders of
      $IPTKIT_CACHE and $IPTKIT_STEPS, or no node is large enough for a job.
    """
    found, ray = check(address), _ray(address)
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if found == "local":
        options |= {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
        started(lambda: ray.init(address=found, **options), ray.shutdown)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(nodes.no_head(found, _line(error, 0))) from error
    try:
        with _order(study) as order:
            yield Cluster(ray, study, order, cpus)
    finally:
        ray.shutdown()  # ends the jobs that still run, and the cluster if it was started here


def started(start: Callable[[], Any], give_up: Callable[[], Any]) -> Any:
    """Call `start` until Ray no longer says that a node timed out, for at most START_SECONDS.

    Args:
      start: starts Ray.
      give_up: called after each attempt that timed out.
    Returns: what `start` returns.
    Raises: ClusterError if it never starts; whatever else `start` raises.
    """
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return start()
        except Exception as error:  # Ray has no class for it
            if "timed out" not in str(error).lower():
                raise
            give_up()
            if time.monotonic() > until:
                raise ClusterError(
                    f"Ray did not start a node within {START_SECONDS:.0f} s ({_line(error, 0)}); if the "
                    f"machine is busy, try again later; {KEPT}"
                ) from error


# ---- in the workers --------------------------------------------------------------------------------
def _make(order: Order, name: str, *needs: Done | str) -> Done:
    """Make a job's step: this is what a Ray task runs."""
    node = socket.gethostname()  # which may have joined after the start, so it is checked again
    nodes.check_nodes(order.code, [nodes.see(order, node)])
    os.environ |= {"IPTKIT_CACHE": order.cache, "IPTKIT_STEPS": order.steps, "IPTKIT_QUIET": "1"}
    os.environ.pop("IPTKIT_CROSSFIT", None)  # the node's own folder would give other tasks
    if order.crossfit:
        os.environ["IPTKIT_CROSSFIT"] = order.crossfit
    os.environ.pop("IPTKIT_STATUS", None)
    study = _study(order)
    _await(study, [need if isinstance(need, str) else need.name for need in needs], f"the node {node}")
    (job,) = [job for job in study.jobs() if job.name == name]
    if not name.startswith("did-"):
        from iptkit.methods import all_weights

        all_weights.forget_directions()  # of an earlier job of this worker
    begun = time.monotonic()
    with step_cache.without_waiting():
        job.make()
    return Done(name, time.monotonic() - begun, node)


@functools.cache
def _studies() -> dict[str, Study]:
    return {}


def _study(order: Order) -> Study:
    """The study of this process, whose model is loaded only once."""
    known, name = _studies(), digests.digest(order)
    if name not in known:
        known.clear()
        known[name] = Study(order.scale, order.device, order.seed)
    return known[name]


def _await(study: Study, needs: Sequence[str], where: str) -> None:
    """Wait until this node sees the steps of jobs that other nodes made.

    Raises: ClusterError if it does not, after SHARED_SECONDS.
    """
    jobs, until = {job.name: job for job in study.jobs()}, time.monotonic() + SHARED_SECONDS
    for name in needs:
        while not jobs[name].is_done:
            if time.monotonic() > until:
                raise ClusterError(
                    f"the job {name} is done, but {where} does not find its step in {paths.steps_dir()}; "
                    "make sure that IPTKIT_CACHE has the same tasks and models on all nodes, and repeat the "
                    f"command: {KEPT}"
                )
            time.sleep(0.5)
            os.listdir(paths.steps_dir())  # makes a network file system look again


# ---- in the command ------------------------------------------------------------------------------
def _ray(address: str) -> Any:
    """The module ray, imported with our settings. Raises: ClusterError if it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    if address == "local":  # read when Ray is imported; Ray then listens on the loopback only
        os.environ[ONE_MACHINE] = "0"
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError(
            "--cluster needs the package ray, which is not installed; install it with: "
            + installation.command("cluster")
        ) from error
    return ray


@contextmanager
def _order(study: Study) -> Iterator[Order]:
    """The order for the workers, with this machine's device and dtype; marks lie in the folders meanwhile."""
    from iptkit.models import backbone
    from iptkit.models.devices import resolve_device

    device = resolve_device(study.device).type
    dtype = backbone.resolve_dtype(study.scale.backbone, study.device, study.scale.dtype)
    folders, mark = (paths.cache_dir(), paths.steps_dir()), f".cluster-{uuid.uuid4().hex}"
    scale = replace(study.scale, dtype=dtype)
    try:
        for folder in folders:
            (folder / mark).touch()
        cache, steps = map(str, folders)
        crossfit = str(paths.crossfit_dir() or "")
        yield Order(scale, device, study.seed, cache, steps, mark, code(), crossfit)
    finally:
        for folder in folders:
            (folder / mark).unlink(missing_ok=True)


def _name(node: dict[str, Any]) -> str:
    """A node's host and address."""
    host, name = node["NodeManagerHostname"], node.get("NodeName") or node["NodeManagerAddress"]
    return f"{host} ({name})"


def _line(error: Exception, place: int) -> str:
    """The first (0) or last (-1) line of an error message."""
    return (str(error).strip() or type(error).__name__).splitlines()[place]
