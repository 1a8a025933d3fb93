"""Studies on a Dask cluster whose workers are processes of this machine."""

import io
import json
import os
import shutil
import signal
import time
import zipfile
from types import SimpleNamespace

import pytest
from conftest import ROOT
from run.guess import finish, logged, the_study

from toolkit.run import cluster, options, processes, report

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture
def workers(tmp_path, monkeypatch):
    """Three workers, in whose environment runs find what they would find in a study of this machine."""
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    settings = {"distributed.worker.daemon": False, "distributed.scheduler.allowed-failures": 2}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as found,
    ):
        yield found


pytestmark = pytest.mark.filterwarnings("ignore")  # distributed's own


def test_a_killed_worker_loses_nothing_and_the_scores_are_those_of_this_machine(
    workers,
    counting,
    tmp_path,
):
    status, out = finish(counting("--seeds", "6", "--jobs", "2"))
    assert status == 0, out
    folder, here = the_study(tmp_path)
    folder.rename(tmp_path / "here")
    (tmp_path / "log").unlink()
    process = counting("--seeds", "6", "--cluster", workers.scheduler_address, "--seconds", "1.5")
    while not (tmp_path / "log").exists():  # until the first ones have begun
        time.sleep(0.05)
    os.kill(workers.workers[0].pid, signal.SIGKILL)
    status, out = finish(process)
    assert status == 0, out
    folder, there = the_study(tmp_path)
    assert [job["metrics"] for job in there["jobs"]] == [job["metrics"] for job in here["jobs"]]
    for job in there["jobs"]:
        assert json.loads((folder / job["folder"] / "report.json").read_text())["status"] == "finished"
        assert "test_draw" in (folder / job["folder"] / "output.txt").read_text()
    assert (folder / "study.png").is_file()
    assert sum(logged(tmp_path)[f"ends 1 {seed}"] >= 1 for seed in range(6)) == 6


def test_a_run_that_kills_its_worker_is_named_and_the_others_go_on(workers, counting, tmp_path):
    kill = "import os, signal\nif run.seed == 1: os.kill(os.getpid(), signal.SIGKILL)"
    process = counting("--seeds", "3", "--cluster", workers.scheduler_address, "--note", kill)
    status, out = finish(process)
    assert status == 1, out
    assert "seed=1 failed: RuntimeError: it ended with status -9" in out
    assert [job["status"] for job in the_study(tmp_path)[1]["jobs"]] == ["finished", "failed", "finished"]


def test_a_scheduler_that_goes_is_a_clear_end_and_the_study_goes_on_later(counting, tmp_path, monkeypatch):
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    gone = distributed.LocalCluster(**settings)
    process = counting("--seeds", "3", "--cluster", gone.scheduler_address, "--seconds", "1")
    while "ends 1 0" not in ((tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""):
        time.sleep(0.1)
    gone.close()
    status, out = finish(process)
    assert status == 1, out
    assert "The scheduler of the cluster is gone: " in out
    assert "Traceback" not in out
    folder = the_study(tmp_path)[0]
    assert f"--resume {folder} goes on" in out
    status, out = finish(counting("--resume", str(folder)))
    assert status == 0, out


def test_no_scheduler_is_one_line(counting):
    status, out = finish(counting("--seeds", "2", "--cluster", "tcp://127.0.0.1:9"))
    assert status == 1
    assert "Traceback" not in out


def test_tls_without_certificates_is_one_line(counting):
    status, out = finish(counting("--seeds", "2", "--cluster", "tls://127.0.0.1:9"))
    assert (status, len(out.splitlines())) == (1, 1)
    assert "needs Dask's settings distributed.comm.tls" in out


def test_a_worker_without_the_data_must_not_take_the_sample(tmp_path):
    (tmp_path / "seed=0").mkdir()
    sent = []
    there = cluster.Cluster.__new__(cluster.Cluster)
    there.start, there.folder = ("guess.py",), tmp_path
    there.executor = SimpleNamespace(submit=lambda *args: sent.append(args[2]["command"]["data"]))
    for data in ("auto", "real", "sample"):
        report.write(tmp_path / "seed=0", {"command": {"data": data}})
        there.submit("seed=0")
    assert sent == ["real", "real", "sample"]


@pytest.mark.parametrize(("cache", "there"), [("off", "off"), ("/a/folder/here", "on")])
def test_without_a_cache_here_there_is_none_there(cache, there, tmp_path, monkeypatch):
    (tmp_path / "seed=0").mkdir()
    report.write(tmp_path / "seed=0", {"command": {"data": "real"}})
    monkeypatch.setenv("RECIPES_CACHE", cache)
    sent, started = [], []
    here = cluster.Cluster.__new__(cluster.Cluster)
    here.start, here.folder = ("guess.py",), tmp_path
    here.executor = SimpleNamespace(submit=lambda *args: sent.append(args[-1]))
    here.submit("seed=0")
    monkeypatch.setenv("RECIPES_CACHE", "on")  # as it may be on the other machine
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *_, env, **__: started.append(env))
    processes.start(["guess.py"], tmp_path, None, sent[0])
    assert started[0]["RECIPES_CACHE"] == there


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.5:8786", "10.0.0.5:8786", "example.org:8786", "tcp://", "?"]
)
def test_others_machines_are_refused_without_tls(address, run):
    status, _, err, _ = run("--seeds", "2", "--cluster", address)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "--insecure" in err
    assert options.unsafe(address, insecure=True) == ""


def test_a_worker_with_other_code_or_versions_says_so():
    wanted = cluster.fingerprint() | {"keras": "2.0.0"}
    with pytest.raises(RuntimeError, match=r"keras 3\.\S+ where 2\.0\.0 is wanted"):
        cluster.work(["guess.py"], {}, wanted)


@pytest.mark.parametrize("room", ["toolkit", "recipes"])
def test_the_fingerprint_is_that_of_every_file_that_is_installed(room, tmp_path, monkeypatch):
    for each in ("toolkit", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / each, tmp_path / each, ignore=ignored)
    monkeypatch.setattr(cluster, "__file__", str(tmp_path / "toolkit/run/cluster.py"))
    here = cluster.fingerprint()
    (tmp_path / room / "__pycache__").mkdir()
    (tmp_path / room / "__pycache__/x.pyc").write_text("compiled")  # not part of the project
    assert cluster.fingerprint() == here
    files = [path for path in (tmp_path / room).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before + b"#")
        tells_apart = path.suffix not in (".toml", ".typed")  # which no run reads
        assert (cluster.fingerprint() != here) == tells_apart, path
        path.write_bytes(before)
    assert {".py", *([".ini"] if room == "toolkit" else [])} <= {path.suffix for path in files}


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def test_what_is_packed_comes_back(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("report.json", "output.txt", "history.csv", "a-b.png"):
        (tmp_path / "one" / name).write_text("{}")
    (tmp_path / "one/model.keras").write_text("large")
    (tmp_path / "one/checkpoints").mkdir()
    cluster.unpack(cluster.pack(tmp_path / "one"), tmp_path / "two")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "report.json",
        "output.txt",
        "history.csv",
        "a-b.png",
    }


@pytest.mark.parametrize(
    "name",
    [
        "../x.csv",
        "/x.csv",
        "a/b.csv",
        ".csv",
        "..png",
        "x.keras",
        "x.py",
        "study.json",
        "a\\b.csv",
        "report.json/x.csv",
    ],
)
def test_an_archive_with_anything_else_is_refused_whole(name, tmp_path):
    content = archive(**{"report.json": "{}", "good.csv": "1", name: "x"})
    with pytest.raises(ValueError, match="an archive must hold"):
        cluster.unpack(content, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        cluster.unpack(archive(**{"report.json": "{}", "x.csv": "0" * 2000}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_which_any_bit_is_another_is_refused_or_harmless(tmp_path):
    whole = archive(**{"report.json": '{"status": "finished"}', "history.csv": "epoch,loss"})
    refused = 0
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        try:
            cluster.unpack(bytes(content), tmp_path)
        except ValueError:
            refused += 1
            assert list(tmp_path.iterdir()) == []
        else:
            assert report.read(tmp_path)["status"] == "finished"
            for path in tmp_path.iterdir():
                path.unlink()
    assert refused > len(whole)
