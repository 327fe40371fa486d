"""A study's jobs on a cluster: their order, what a cluster must have, and a real one that loses workers."""

import contextlib
import importlib.util
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from stock import backbone, timeless
from typer.testing import CliRunner

from iptkit.course import cli, pipeline
from iptkit.storage import digests, paths, result_files, step_cache, tensor_files
from iptkit.storage.versions import code
from iptkit.studies import base, cluster, durations, jobs, nodes, scales
from iptkit.studies import steps as study_steps
from iptkit.studies.nodes import ClusterError, Node, Seen
from iptkit.studies.study import Study
from iptkit.training import trainer
from iptkit.training.runs import FitConfig

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (extra `cluster`)")
SMALL = {
    "seeds": (0, 1), "dims": (2, 3), "main_dim": 2, "test_examples": 4, "same_data": True, "nearest": True,
    "stage_two_runs": 2, "controls": ("random", "pca", "fastfood"), "fewer_examples": (2,),
}  # fmt: skip
SLOW = FitConfig(steps=300, rows_per_run=4, lr=0.1, evaluations=2)  # seconds, in which a worker can be killed


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    for name in ("IPTKIT_SCALE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(step_cache, "HITS", {})
    return tmp_path / "steps"


@pytest.fixture(autouse=True)
def one_thread():
    """As the workers, which get one core each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(**changes):
    study = Study(scales.load("smoke", **{**SMALL, **changes}))
    study.backbone = backbone("tiny-causal", "float32")
    return study


# ---- the list of jobs ----------------------------------------------------------------------------
@pytest.mark.parametrize("most_runs", [128, 8])  # seeds in one fit, or each by itself
def test_a_job_reads_the_steps_of_its_needs_and_no_other(monkeypatch, most_runs):
    monkeypatch.setattr(base, "MOST_RUNS", most_runs)
    before = set()
    for job in small().jobs():
        assert before.issuperset(job.needs), "the list is in an order that works"
        step_cache.HITS.clear()
        job.make()
        assert set(step_cache.HITS) == {job.name, *job.needs}
        before.add(job.name)
    assert len(before) == len(small().jobs()) == (17 if most_runs == 128 else 23)


def test_any_order_that_works_gives_the_same_rows(steps, monkeypatch):
    rows = small().table()
    monkeypatch.setenv("IPTKIT_STEPS", str(steps.with_name("other")))
    study, done, order = small(), set(), random.Random(1)
    left = {job.name: job for job in study.jobs()}
    while left:
        name = order.choice([name for name, job in left.items() if done.issuperset(job.needs)])
        step_cache.HITS.clear()
        left.pop(name).make()
        assert [step for step, was_cached in step_cache.HITS.items() if not was_cached] == [name]
        done.add(name)
    assert digests.canonical(timeless(study.table())) == digests.canonical(timeless(rows))


def test_time_left_is_the_sum_or_the_longest_chain():
    needs = {"a": (), "b": ("a",), "c": (), "d": ()}
    todo = [jobs.Job(name, lambda: None, 0, of) for name, of in needs.items()]
    expected = {"a": 10, "b": 10, "c": 4, "d": 6}
    assert jobs.seconds_left(todo, expected, {}, 1) == 30
    assert jobs.seconds_left(todo, expected, {}, 2) == 20 == jobs.seconds_left(todo, expected, {}, 8)
    assert jobs.seconds_left(todo, expected, {"a": 5.0}, 1) == 10, "half the time, so half of 20"
    assert jobs.seconds_left(todo, expected, dict.fromkeys("abcd", 1.0), 2) == 0


def test_two_machines_wait_for_what_both_need():
    """One job of 100 s, then three chains of 50 s and 200 s: no two machines end after half of 850 s."""
    seconds = {"p": 100.0} | {f"s{k}": 50.0 for k in "abc"} | {f"c{k}": 200.0 for k in "abc"}
    needs = {f"s{k}": ["p"] for k in "abc"} | {f"c{k}": [f"s{k}"] for k in "abc"}
    took = [durations.seconds_of_rest(seconds, needs, count) for count in (1, 2, 3, 100)]
    assert took == [850, 550, 350, 350]


def test_two_processes_on_one_step_leave_it_intact(steps):
    """A worker that was given up too early works on while another replaces it: the last result stays."""

    def late(checkpoint):
        tensor_files.write(checkpoint, {"x": torch.zeros(1)})
        other = step_cache.step("a", 1, lambda path: ({"x": torch.ones(2)}, {"from": path.exists()}))
        assert other.values["from"], "it goes on from the other's checkpoint"
        tensor_files.write(checkpoint, {"x": torch.zeros(1)})
        return {"x": torch.ones(2)}, {"from": "late"}

    with step_cache.without_waiting():
        assert step_cache.step("a", 1, late).values == {"from": "late"}
    again = step_cache.step("a", 1, late)
    assert again.was_cached and torch.equal(again.tensors["x"], torch.ones(2))
    assert [path.name for path in sorted(steps.glob("a-*/*"))] == ["begun", "step.safetensors"]


# ---- what a cluster must have --------------------------------------------------------------------
def test_a_node_with_other_code_or_folders_is_named():
    nodes.check_nodes("code 1", [Seen("a", "code 1"), Seen("b", "code 1")])
    with pytest.raises(ClusterError, match="b has code 0, but this machine has code 1; install the same"):
        nodes.check_nodes("code 1", [Seen("a", "code 1"), Seen("b", "code 0")])
    with pytest.raises(
        ClusterError, match=r"c does not share the folder /x \(it is not there\); set IPTKIT_CACHE"
    ):
        nodes.check_nodes("code 1", [Seen("c", "code 0", (("/x", "it is not there"),))])


def test_a_node_reports_what_is_wrong_with_a_folder(tmp_path):
    def see(place):
        return nodes.see(SimpleNamespace(cache=str(tmp_path), steps=str(place), mark=".mark"), "a")

    (tmp_path / ".mark").touch()
    assert see(tmp_path) == Seen("a", code())
    assert see(tmp_path / "none").folders == ((str(tmp_path / "none"), "it is not there"),)
    (tmp_path / "other").mkdir()
    assert "is another one" in see(tmp_path / "other").folders[0][1]


def test_code_is_named_by_versions_modules_and_data(monkeypatch, tmp_path):
    first = code()
    assert first.startswith("iptkit ") and f"torch {torch.__version__.partition('+')[0]}" in first
    data = shutil.copytree(paths.data_dir(), tmp_path / "data", ignore=shutil.ignore_patterns("results"))
    monkeypatch.setattr(paths, "data_dir", lambda: data)
    assert code() == first
    (data / "timings.json").write_text("{}", encoding="utf-8")
    assert code() == first, "times of another machine change no result"
    (data / "._claims.json").write_bytes(b"\0")
    assert code() == first, "a file manager's file is none of the kit's"
    with open(data / "splits" / "tiny.json", "a", encoding="utf-8") as split:
        split.write(" ")
    other = code()
    assert other != first
    (tmp_path / "a.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(paths, "PACKAGE", tmp_path)
    assert code() not in (first, other)


def test_what_a_job_takes_of_a_node():
    head, big, gpu = Node("1", "head", 0, 0), Node("2", "big", 8, 0), Node("3", "gpu", 4, 2)
    assert nodes.resources([head, big, gpu], "cpu") == {"num_cpus": 4}
    assert nodes.resources([head, big, gpu], "cpu", 2) == {"num_cpus": 2}
    assert nodes.resources([big, gpu], "cuda") == {"num_gpus": 1, "num_cpus": 1}
    assert [node.slots({"num_cpus": 4}) for node in (head, big, gpu)] == [0, 2, 1]
    assert [node.slots({"num_cpus": 1, "num_gpus": 1}) for node in (head, big, gpu)] == [0, 0, 2]
    with pytest.raises(ClusterError, match=r"no node has 1 core\(s\) and a GPU .*big: 8 cores, 0 GPUs"):
        nodes.resources([big], "cuda")
    with pytest.raises(ClusterError, match=r"no node has 9 core\(s\)"):
        nodes.resources([big], "cpu", 9)


@pytest.mark.parametrize("address", ["", "abc", "host", "host:0", "host:99999", "ray://host:10001", "a b:1"])
def test_wrong_addresses_are_named(address):
    with pytest.raises(ClusterError, match='give "local" .* or HOST:PORT'):
        nodes.head(address)


def test_a_missing_head_is_reported_in_seconds(monkeypatch, tmp_path):
    connect, waits = socket.create_connection, set()
    monkeypatch.setattr(
        socket, "create_connection", lambda at, seconds: waits.add(seconds) or connect(at, seconds)
    )
    with pytest.raises(ClusterError, match=r"no Ray head at .* 127.0.0.1:1 .*refused.*ray start --head"):
        nodes.head("127.0.0.1:1")
    with pytest.raises(ClusterError, match="no Ray head at the address nowhere.invalid:6379"):
        nodes.head("nowhere.invalid:6379")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ClusterError, match="127.0.0.1:1"):
        nodes.head("auto")
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert nodes.head("auto") == "auto" and nodes.head("local") == "local"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n", encoding="utf-8")
    with pytest.raises(ClusterError, match="127.0.0.1:1"):
        nodes.head("auto")
    assert waits == {5.0}


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_another_server_at_the_address_is_reported(says):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            line, _ = server.accept()
            with line:
                line.sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ClusterError, match="no Ray head at .*"):
            nodes.head(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_without_ray_the_command_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    found = CliRunner().invoke(cli.app, ["study", "--scale", "smoke", "--cluster", "local"])
    assert found.exit_code == 2 and 'pip install -c constraints.txt -e ".[cluster]"' in found.output


def test_options_that_exclude_each_other_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cluster: only the study 'subspace' takes these"):
        pipeline.study("smoke", tmp_path / "rows.jsonl", part="deep", address="local")
    with pytest.raises(ValueError, match="give --cluster too"):
        pipeline.study("smoke", tmp_path / "rows.jsonl", job_cpus=1)


def test_a_step_that_is_not_seen_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "SHARED_SECONDS", 0.1)
    with pytest.raises(ClusterError, match="zero-shot is done, but the node b does not find its step"):
        cluster._await(small(), ["zero-shot"], "the node b")


class FakeRay:
    """A cluster whose tasks never end, or end with an error."""

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=LookupError)

    def __init__(self, error=None):
        self.error = error

    def remote(self, **_):
        made = SimpleNamespace(remote=lambda *given: given[1], options=lambda **_: made)
        return lambda function: made

    def wait(self, refs, **_):
        return (refs[:1], refs[1:]) if self.error else ([], refs)

    def get(self, _):
        raise self.error

    def nodes(self):
        return []


def fake(error=None):
    made = object.__new__(cluster.Cluster)
    made._ray, made._study, made._order, made.needs = FakeRay(error), None, None, {"num_cpus": 1}
    return made


def test_a_job_that_loses_every_worker_is_given_up_and_named():
    todo = small().jobs()
    with pytest.raises(ClusterError, match=r"zero-shot lost its worker 11 times .*\(killed\).*--job-cpus"):
        next(fake(OSError("killed\nmore")).make(todo))
    error = LookupError()
    error.cause = FloatingPointError("loss")
    with pytest.raises(FloatingPointError, match="loss"):
        next(fake(error).make(todo))


def test_without_a_node_the_study_does_not_wait_forever(monkeypatch):
    monkeypatch.setattr(cluster, "IDLE_SECONDS", 0.1)
    with pytest.raises(ClusterError, match="no node is left that a job could run on; start some"):
        next(fake().make(small().jobs()))


def test_a_node_that_timed_out_in_its_start_is_tried_again(monkeypatch):
    tries, given_up = (
        iter([Exception("The current node timed out during startup."), TimeoutError("Timed out"), None]),
        [],
    )

    def start():
        error = next(tries)
        if error:
            raise error
        return "started"

    assert cluster.started(start, lambda: given_up.append(1)) == "started" and len(given_up) == 2
    with pytest.raises(RuntimeError, match="no such thing"):
        cluster.started(lambda: (_ for _ in ()).throw(RuntimeError("no such thing")), lambda: None)
    monkeypatch.setattr(cluster, "START_SECONDS", -1)
    tries = iter([Exception("The current node timed out during startup.")])
    with pytest.raises(ClusterError, match=r"Ray did not start a node .*timed out during startup.*try again"):
        cluster.started(start, lambda: None)


# ---- a real one ----------------------------------------------------------------------------------
def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes with one core each on this machine."""
    cluster._ray("auto")
    from ray.cluster_utils import Cluster

    made = []

    def size():
        """With ports of its own, as Ray waits 15 seconds, and no longer, for agents that choose theirs."""
        agents = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
        ports = {f"{agent}_port": port for agent, port in zip(agents, free_ports(len(agents)), strict=True)}
        return {"num_cpus": 1, "object_store_memory": 80 * 2**20, **ports}

    def start():
        made.append(Cluster(initialize_head=True, head_node_args={**size(), "include_dashboard": False}))
        made[0].add_node(wait=False, **size())
        made[0].wait_for_nodes(timeout=60)

    def give_up():
        while made:
            made.pop().shutdown()
        for child in psutil.Process().children():  # what a node that never started has left
            if "/ray/" in " ".join(child.cmdline()):
                child.kill()

    cluster.started(start, give_up)
    yield made[0]
    give_up()


ON_LOOPBACK = """
import psutil
from iptkit.studies import cluster
from iptkit.studies import scales
from iptkit.studies.study import Study
with cluster.connect(Study(scales.load("smoke")), "local", 1):
    started = [psutil.Process(), *psutil.Process().children(recursive=True)]
    heard = [c.laddr.ip for p in started for c in p.net_connections("inet") if c.status == "LISTEN"]
print(len(started), *heard)
"""


@needs_ray
def test_a_cluster_of_this_machine_alone_listens_on_the_loopback_only():
    done = subprocess.run([sys.executable, "-c", ON_LOOPBACK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    started, *heard = done.stdout.split()
    assert int(started) > 3 and heard, "Ray's processes were found"
    assert set(heard) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def slow(**changes):
    return scales.load(
        "smoke",
        **{**SMALL, "prompt": SLOW, "dims": (2,), "stage_two_runs": 0, "fewer_examples": (), **changes},
    )


def interrupted(scale, monkeypatch):
    """Leave a checkpoint of the job `prompts`, with a mark in a place that the rows do not show."""
    left, fit, train_step = iter(range(SLOW.steps // 4)), trainer.fit, trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(study_steps, "fit", lambda *given: fit(*given, checkpoint_seconds=0.0))
        patch.setattr(trainer, "train_step", lambda *given: (next(left), train_step(*given)))
        with pytest.raises(StopIteration):
            Study(scale).bank()
    (checkpoint,) = paths.steps_dir().glob("prompts-*/checkpoint.safetensors")
    tensors, about = tensor_files.read(checkpoint)
    tensors["losses"][0] = 123.0
    tensor_files.write(checkpoint, tensors, about)
    return checkpoint


def workers(name, under=None):
    """Processes that run a job, of one node or of all."""
    found = (psutil.Process(under) if under else psutil.Process()).children(recursive=True)
    return [process for process in found if title(process).startswith(f"ray::{name}")]


def title(process):
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


def until(true, seconds=600):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@needs_ray
def test_every_node_is_checked_before_the_start_and_before_each_job(two_nodes):
    study = small()
    with cluster.connect(study, two_nodes.address) as joined:
        assert joined.needs == {"num_cpus": 1} and joined.slots == 2
        names = [node.name for node in joined.nodes]
        assert joined._probe() == [Seen(name, code()) for name in names]
        (mark,) = paths.steps_dir().glob(".cluster-*")
        mark.unlink()
        place, problem = str(paths.steps_dir()), "the folder of that name there is another one"
        assert [seen.folders for seen in joined._probe()] == [((place, problem),)] * 2
        with pytest.raises(ClusterError, match=f"the node .* does not share the folder {place} "):
            next(joined.make(study.jobs()))
    assert not [*paths.cache_dir().glob(".cluster-*")] and step_cache.HITS == {}


@needs_ray
def test_a_lost_worker_and_a_lost_node_lose_nothing(two_nodes, steps, tmp_path, monkeypatch, capsys):
    """Nor does another configuration, whose results lie in the same step cache."""
    Study(slow(prompt=replace(SLOW, steps=2))).table()
    old = {path: path.read_bytes() for path in steps.glob("*/step.safetensors")}
    scale, out = slow(), tmp_path / "rows.jsonl"
    monkeypatch.setattr(scales, "variant", lambda *_, **__: scale)
    checkpoint = interrupted(scale, monkeypatch)
    begun, lost, (node,) = checkpoint.with_name("begun"), [], two_nodes.worker_nodes
    first = begun.stat().st_mtime_ns
    raylet = node.all_processes["raylet"][0].process.pid

    def lose():
        until(lambda: begun.stat().st_mtime_ns != first)
        time.sleep(0.5)
        (worker,) = workers("prompts")
        worker.send_signal(signal.SIGKILL)
        lost.append("worker")
        until(lambda: workers("codes-", raylet) or workers("subspace-", raylet))
        two_nodes.remove_node(node, allow_graceful=False)
        lost.append("node")

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    count = pipeline.study("smoke", out, "cpu", address=two_nodes.address)
    loser.join()
    assert lost == ["worker", "node"]
    said = capsys.readouterr().out
    assert "jobs at a time: 2; nodes: " in said and said.count(" | done in ") == 10 + 1
    assert "1 of 11 jobs are done" in said, "zero-shot needs no training"
    assert {path: path.read_bytes() for path in old} == old
    (made,) = {*steps.glob("prompts-*/step.safetensors")} - old.keys()
    assert tensor_files.read(made)[0]["losses"][0, 0] == 123.0, "it went on from the checkpoint"
    assert not [*steps.glob(".cluster-*")] and not [*steps.glob("*/checkpoint*")]

    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "here"))
    alone = tmp_path / "alone.jsonl"
    assert pipeline.study("smoke", alone, "cpu") == count
    assert timeless(result_files.read(alone)) == timeless(result_files.read(out))
