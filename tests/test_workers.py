"""Functions in processes of their own: what they give, how they fail, and that none outlives its parent."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT

from toolkit import workers
from toolkit.caching import _FLAG, _FOR_CPU
from toolkit.workers import run_workers


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_has_its_rank_the_same_cluster_an_address_of_its_own_and_a_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")  # of another cluster

    def describe(rank, given):
        import os

        return rank, given, os.getpid(), os.environ.get("TF_CONFIG"), os.environ["TF_NUM_INTRAOP_THREADS"]

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    outcomes = run_workers(describe, {"a": 1}, count=3)
    configs = [json.loads(config) for _, _, _, config, _ in outcomes]
    assert [outcome[:2] for outcome in outcomes] == [(rank, {"a": 1}) for rank in range(3)]
    assert len({pid for _, _, pid, _, _ in outcomes} | {os.getpid()}) == 4
    assert [config["task"] for config in configs] == [{"type": "worker", "index": n} for n in range(3)]
    assert configs[0]["cluster"] == configs[1]["cluster"] == configs[2]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 3
    assert {int(threads) for *_, threads in outcomes} == {max(1, cores // 3)}
    assert run_workers(describe, None)[0][3] is None  # one alone is no cluster


def test_none_writes_into_the_cache_of_its_parent(monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", f'--tf_xla_x=1 {_FLAG}="/xla/process-7-here-x1" {_FOR_CPU}')

    def flags(rank):
        import os

        return os.environ["TF_XLA_FLAGS"]

    assert run_workers(flags) == ["--tf_xla_x=1"]


def test_what_they_print_is_printed_here_behind_their_names(capsys):
    def speak(rank):
        print("one\ntwo" if rank else "alone")

    run_workers(speak, count=2)
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("worker 1")] == ["worker 1: one", "worker 1: two"]
    assert sorted(out)[0] == "worker 0: alone"
    assert len(out) == 3


def test_a_worker_that_has_returned_stays_until_all_have():
    """Another one may still fetch its share of a sum from it."""

    def look(rank, folder):
        import os
        import pathlib
        import time

        if rank == 0:
            pathlib.Path(folder, "pid").write_text(str(os.getpid()))
            return True
        time.sleep(1)
        pid = int(pathlib.Path(folder, "pid").read_text())
        return pathlib.Path(f"/proc/{pid}").exists() or not pathlib.Path("/proc").exists()

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert run_workers(look, folder, count=2) == [True, True]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("raise KeyError('no such row')", r"worker 1: KeyError: 'no such row'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "worker 1: killed by SIGKILL"),
        ("import os; os._exit(3)", "worker 1: its process ended with status 3"),
        ("raise SystemExit(4)", "worker 1: SystemExit: 4"),
    ],
)
def test_a_failure_is_named_and_those_that_wait_for_ever_are_ended(fault, word):
    before = psutil.Process().children()  # those of other tests, such as the process of isolated loads

    def fail(rank, fault):
        import time

        if rank == 1:
            exec(fault)
        if rank == 2:
            time.sleep(1000)

    begun = time.monotonic()
    with pytest.raises(ChildProcessError, match=r"2 of 3 workers stopped within \d+\.\d s\n") as error:
        run_workers(fail, fault, count=3, patience=0.5)
    assert word in str(error.value).splitlines()
    assert "worker 2: it waited more than 0.5 s for a worker that had failed" in str(error.value)
    assert "worker 0" not in str(error.value)
    assert time.monotonic() - begun < 100  # and not 1,000
    assert set(psutil.Process().children()) <= set(before)


@pytest.mark.parametrize("count", [0, -1])
def test_no_worker_is_refused(count):
    with pytest.raises(ValueError, match=f"`count` must be at least 1. Received: count={count}"):
        run_workers(print, count=count)


def test_a_port_that_another_program_took_is_tried_again_once(monkeypatch):
    tries = []

    def taken(function, arguments, count, patience):
        tries.append(count)
        error = f"UnknownError: {workers._PORT_TAKEN}" if len(tries) < most else ""
        return [workers._Outcome("done", error, 0.0)]

    monkeypatch.setattr(workers, "_run", taken)
    most = 2
    assert run_workers(print) == ["done"]
    tries.clear()
    most = 9
    with pytest.raises(ChildProcessError, match=workers._PORT_TAKEN):
        run_workers(print)
    assert len(tries) == 2


def test_tensorflow_says_of_a_port_in_use_what_we_look_for():
    def start(rank):
        import json
        import os
        import socket

        if rank:
            return
        port = int(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][0].rpartition(":")[2])
        with socket.socket() as other:
            other.bind(("", port))
            other.listen()
            import tensorflow as tf

            tf.distribute.MultiWorkerMirroredStrategy()

    outcomes = workers._run(start, (), 2, 1.0)
    assert workers._PORT_TAKEN in outcomes[0].error


SLEEPING = """
from toolkit.workers import run_workers

def sleep(rank):
    import os, time
    print(os.getpid())
    time.sleep(1000)

if __name__ == "__main__":
    run_workers(sleep, count=2)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_no_worker_outlives_its_parent(number, tmp_path):
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    with subprocess.Popen(
        [sys.executable, tmp_path / "sleeping.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        pids = [int(process.stdout.readline().split()[-1]) for _ in range(2)]
        groups = [os.getpgid(pid) for pid in pids]
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        errors = process.stderr.read()
    wait_until(lambda: not any(map(alive, pids)))
    assert process.pid not in groups  # a terminal's Ctrl-C is for the parent alone
    if number == signal.SIGINT:  # the parent's word, and none of the workers
        assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1


def test_the_processor_can_be_cut_into_devices():
    def cut(rank):
        import tensorflow as tf

        from toolkit.workers import devices

        names = devices(at_least=3)
        return names, len(tf.config.list_logical_devices(names[0].partition(":")[0]))

    ((names, number),) = run_workers(cut)
    assert len(names) == number >= 3


def test_the_first_calls_are_not_timed(monkeypatch):
    clock = iter([10, 20, 30, *range(40, 49)])  # after each call
    monkeypatch.setattr(workers.time, "perf_counter", lambda: next(clock))
    assert workers.time_calls(lambda: None) == 1
