"""What XLA compiles is kept and used again, and nothing that happens to the files does harm."""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import ROOT
from tables import record_fault

import toolkit
from toolkit import _tensorflow, caching

KEY = "0123456789abcdef"
POSIX = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no owners and modes")


@pytest.fixture(autouse=True)
def as_at_the_start(monkeypatch):
    """Neither TensorFlow nor a cache has been used."""
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.setattr(caching, "_in_use", [])
    monkeypatch.setattr(caching.atexit, "register", lambda *_: None)
    monkeypatch.setattr(_tensorflow, "reads_settings_now", lambda: True)


# Where to, and what is refused


def test_the_flags_of_the_user_stay_and_a_second_call_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_min_cluster_size=5")
    toolkit.compile_cache(tmp_path / "new" / 'a "cache"')
    flags = os.environ["TF_XLA_FLAGS"]
    assert flags.startswith("--tf_xla_min_cluster_size=5 --tf_xla_persistent_cache_directory=")
    toolkit.compile_cache(tmp_path / "new" / 'a "cache"')
    assert os.environ["TF_XLA_FLAGS"] == flags


@pytest.mark.parametrize("flags", ["--tf_xla_persistent_cache_directory=/x", "a_file_of_flags"])
def test_another_cache_or_a_file_of_flags_is_left_alone(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", flags)
    with pytest.raises(RuntimeError, match=f"TF_XLA_FLAGS .* Received: {flags}"):
        toolkit.compile_cache(tmp_path / "new")
    assert os.environ["TF_XLA_FLAGS"] == flags


def test_after_the_first_operation_it_is_too_late(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    tf.constant(1)
    with pytest.raises(RuntimeError, match="before TensorFlow's first operation"):
        toolkit.compile_cache(tmp_path / "new")
    assert os.environ["TF_XLA_FLAGS"] == ""
    assert list((tmp_path / "new").iterdir()) == []


def test_it_is_in_the_user_s_folder_of_caches(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(caching.sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert caching._default_folder() == Path("/home/me/.cache/keras-study-recipes/xla")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert caching._default_folder() == Path("/home/me/.cache/keras-study-recipes/xla")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/me")
    assert caching._default_folder() == Path("/scratch/me/keras-study-recipes/xla")
    monkeypatch.setattr(caching.sys, "platform", "darwin")
    assert caching._default_folder() == Path("/home/me/Library/Caches/keras-study-recipes/xla")


def test_each_processor_version_and_setting_has_its_own_files(monkeypatch):
    keys = [caching._key(), caching._key()]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "5")
    keys.append(caching._key())
    monkeypatch.setattr(caching, "_processor", lambda: ["another"])
    keys.append(caching._key())
    monkeypatch.setattr(caching.importlib.metadata, "version", lambda name: "3.0")
    keys.append(caching._key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)


@POSIX
def test_a_new_folder_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        toolkit.compile_cache(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a/b")] == [0o700, 0o700]


def foreign(folder, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)


def foreign_parent(folder, monkeypatch):
    try:
        os.chown(folder.parent, 12345, -1)
    except PermissionError:
        pytest.skip("only root may give a folder away")


def a_link(folder, monkeypatch):
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))


REFUSED = {
    "foreign owner": (foreign, "must belong to the user"),
    "foreign parent": (foreign_parent, "must belong to the user"),
    "link": (a_link, "must be no link"),
    "open to all": (lambda folder, _: folder.chmod(0o755), "mode 0700. Received: 0755"),
    "group-writable parent": (lambda folder, _: folder.parent.chmod(0o770), "its owner alone.*0770"),
    "parent that all may write": (lambda folder, _: folder.parent.chmod(0o777), "its owner alone.*0777"),
}


@POSIX
@pytest.mark.parametrize("fault", REFUSED)
def test_a_folder_that_others_could_write_is_refused_and_not_touched(fault, tmp_path, monkeypatch):
    folder = tmp_path / "parent" / "cache"
    folder.mkdir(parents=True, mode=0o700)
    make, words = REFUSED[fault]
    make(folder, monkeypatch)
    try:
        with pytest.raises(PermissionError, match=words):
            toolkit.compile_cache(folder)
        used = bool(os.environ["TF_XLA_FLAGS"]) or bool(list(folder.iterdir()))
    except pytest.fail.Exception:
        used = True
    record_fault(f"compile cache: {fault}", 1, used)
    assert not used


@POSIX
def test_a_parent_in_which_nobody_may_rename_another_s_folder_will_do(tmp_path):
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent").chmod(0o1777)
    toolkit.compile_cache(tmp_path / "parent" / "cache")


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "LEAST_FREE_BYTES", 1 << 60)
    with pytest.raises(OSError, match="MB left"):
        toolkit.compile_cache(tmp_path / "new")
    assert os.environ["TF_XLA_FLAGS"] == ""
    assert list((tmp_path / "new").iterdir()) == []


# Files


def keep(folder, name, content, key=KEY):
    path = folder / f"{key}-{hashlib.sha256(content).hexdigest()}-{name}.pb"
    path.write_bytes(content)
    return path


def test_a_damaged_file_is_not_used_and_goes(tmp_path):
    count, harmed, random_state = 200, 0, random.Random(0)
    content = random_state.randbytes(3000)
    (tmp_path / "own").mkdir()
    for case in range(count):
        path = keep(tmp_path, "xla", content)
        damaged = bytearray(content)
        if case % 2:
            damaged[random_state.randrange(len(content))] ^= 1 << random_state.randrange(8)
        else:
            del damaged[random_state.randrange(len(content)) :]
        path.write_bytes(damaged)
        whole = keep(tmp_path, "other", content)
        known = caching._link_whole_files(tmp_path, KEY, tmp_path / "own")
        harmed += known != {"other.pb"} or (tmp_path / "own/xla.pb").exists() or path.exists()
        whole.unlink()
        (tmp_path / "own/other.pb").unlink()
    record_fault("compile cache: damaged file", count, harmed)
    assert harmed == 0


def test_files_of_another_key_wait(tmp_path):
    (tmp_path / "own").mkdir()
    path = keep(tmp_path, "xla", b"code", key="f" * 16)
    assert caching._link_whole_files(tmp_path, KEY, tmp_path / "own") == set()
    assert path.exists()


def test_the_oldest_files_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "MOST_BYTES", 250)
    paths = [keep(tmp_path, f"xla{i}", bytes([i]) * 100) for i in range(5)]
    for i, path in enumerate(paths):
        os.utime(path, (i, i))
    caching._tidy(tmp_path)
    assert [path.exists() for path in paths] == [False, False, False, True, True]


def test_what_a_living_process_works_with_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = caching._machine()
    stay = [f"process-{os.getpid()}-{here}-x", f"process-{dead.pid}-elsewhere-x"]  # who knows who lives there
    old = f"process-{os.getpid()}-elsewhere-y"
    for name in (*stay, f"process-{dead.pid}-{here}-x", old):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    os.utime(tmp_path / old, (0, 0))
    caching._tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(stay)


@pytest.mark.parametrize(
    "name",
    ["process-notes", "process-", f"process-{10**20}-x-x", f"{KEY}-x.pb", f"{KEY}-{'a' * 64}-x.pb", "x.pb"],
)
def test_what_is_not_of_ours_does_no_harm(name, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "_key", lambda: KEY)
    tmp_path.chmod(0o700)
    (tmp_path / name).mkdir()
    toolkit.compile_cache(tmp_path)
    assert (tmp_path / name).is_dir()
    assert "process-" in os.environ["TF_XLA_FLAGS"]


def test_a_process_that_another_one_starts_may_ask_too(tmp_path, monkeypatch):
    keys, key = [], caching._key
    monkeypatch.setattr(caching, "_key", lambda: keys.append(key()) or keys[-1])
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_min_cluster_size=5")
    toolkit.compile_cache(tmp_path / 'a "cache" \\')
    theirs = os.environ["TF_XLA_FLAGS"]
    with pytest.raises(RuntimeError, match="must have room"):
        toolkit.compile_cache(tmp_path / "another")
    monkeypatch.setattr(caching, "_in_use", [])  # as in a new process, which inherits the flags
    toolkit.compile_cache(tmp_path / 'a "cache" \\')
    ours = os.environ["TF_XLA_FLAGS"]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert ours.count("--tf_xla_persistent_cache_directory") == 1
    assert ours != theirs
    assert caching.without_cache(ours) == "--tf_xla_min_cluster_size=5"


def test_an_unknown_home_is_an_oserror(monkeypatch):
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(OSError, match="no home"):
        toolkit.compile_cache()


# What XLA does with its files, without XLA: many processes write, and take what is there.
WRITER = """
import os, pathlib, random, sys
from toolkit import caching
caching.MOST_BYTES = 2_000_000
caching.compile_cache(sys.argv[1])
own = pathlib.Path(os.environ["TF_XLA_FLAGS"].split('"')[1])
print("begins", flush=True)
for number in random.sample(range(12), 6):
    path = own / f"xla{number}.pb"
    content = bytes([number]) * 300_000
    if path.exists():
        assert path.read_bytes() == content
    path.with_suffix(".tmp").write_bytes(content)
    path.with_suffix(".tmp").replace(path)
"""


def writer(folder, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_XLA_FLAGS": ""}
    return subprocess.Popen([sys.executable, "-c", WRITER, folder], env=environment, **options)


def harmless(folder, monkeypatch):
    """Tell whether all that a later process takes is whole, and nothing else is left."""
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.setattr(caching, "_in_use", [])
    monkeypatch.setattr(caching, "MOST_BYTES", 2_000_000)
    toolkit.compile_cache(folder)
    own = Path(os.environ["TF_XLA_FLAGS"].split('"')[1])
    right = all(path.read_bytes() == bytes([int(path.stem[3:])]) * 300_000 for path in own.iterdir())
    left = [path for path in folder.glob("process-*") if path != own]
    shutil.rmtree(own)
    return right and not left and sum(path.stat().st_size for path in folder.iterdir()) <= 2_000_000


def test_several_processes_at_once_do_each_other_no_harm(tmp_path, monkeypatch):
    count, harmed = 12, 0
    for _ in range(count // 4):
        processes = [writer(tmp_path / "cache", stdout=subprocess.DEVNULL) for _ in range(4)]
        harmed += sum(process.wait() != 0 for process in processes)
        assert list((tmp_path / "cache").glob("*.pb"))
        harmed += not harmless(tmp_path / "cache", monkeypatch)
    record_fault("compile cache: processes at once", count, harmed)
    assert harmed == 0


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_any_moment_only_whole_files_are_taken(kills, tmp_path, monkeypatch):
    random_state, harmed = random.Random(kills), 0
    for _ in range(kills):
        with writer(tmp_path / "cache", stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(random_state.uniform(0, 0.02))
            process.kill()
        harmed += not harmless(tmp_path / "cache", monkeypatch)
    record_fault("compile cache: kill -9 while it is written", kills, harmed)
    assert harmed == 0


def test_a_copy_of_a_process_leaves_its_files_alone(tmp_path):
    code = """
import os, sys
from toolkit import caching
caching.compile_cache(sys.argv[1])
child = os.fork()
if not child:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert len(os.listdir(sys.argv[1])) == 1
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "cache"], env=environment, check=True)
    assert not list((tmp_path / "cache").iterdir())


# With XLA

TRAINING = """
import os, resource, sys
from pathlib import Path
import toolkit
folder, fault = sys.argv[1:]
if folder:
    toolkit.compile_cache(folder)
import keras
import numpy as np
keras.utils.set_random_seed(1)
others = [keras.ops.ones(1) for _ in range(os.getpid() % 97)]  # as many as time has it, in a longer program
x = np.random.random((64, 5))
hidden = keras.layers.Dense(4, activation="relu")
model = keras.Sequential([keras.Input((5,)), hidden, keras.layers.Dropout(0.5), keras.layers.Dense(1)])
model.compile("adam", "mse")
if fault == "no room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
own = Path(os.environ["TF_XLA_FLAGS"].split('"')[1] if folder else "")
before = set(own.glob("*.pb")) if folder else set()
if fault == "kill":
    from multiprocessing import dummy
    import signal, time
    def kill():
        while not set(own.iterdir()) - before:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    dummy.Process(target=kill).start()
history = toolkit.fit(model, x, x.sum(axis=1), epochs=3, batch_size=16, jit=fault != "plain", verbose=0)
bits = [np.asarray(weight).tobytes().hex() for weight in model.weights]
print(history.history["loss"], bits)
print("new:", len(set(own.glob("*.pb")) - before) if folder else 0)
"""


def train(folder="", fault=""):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", TRAINING, str(folder), fault]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def trained(process):
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    numbers, _, new = out.rpartition("new: ")
    return numbers, int(new), err


def test_a_second_process_compiles_nothing_and_its_numbers_are_the_same_bit_for_bit(tmp_path):
    folder = tmp_path / "with blanks" / "cache"
    without, _, _ = trained(train())
    first, new, _ = trained(train(folder))
    assert (first, new > 0) == (without, True)
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(files) == new  # and no folder
    second, new, _ = trained(train(folder))
    assert (second, new) == (without, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == files

    # A damaged file, and two processes at once that both find it.
    path = min(files)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    both = [train(folder), train(folder)]
    results = [trained(process) for process in both]
    assert [numbers for numbers, _, _ in results] == [without, without]
    assert {each.name.rpartition("-")[2] for each in folder.iterdir()} == {
        each.name.rpartition("-")[2] for each in files
    }
    assert trained(train(folder))[:2] == (without, 0)


@pytest.mark.slow
def test_a_process_that_is_killed_while_xla_writes_leaves_nothing_behind(tmp_path):
    process = train(tmp_path / "cache", "kill")
    process.communicate(timeout=200)
    killed = process.returncode == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    numbers, new, _ = trained(train(tmp_path / "cache"))
    harmed = numbers != trained(train())[0] or new == 0
    record_fault("compile cache: kill -9 while XLA writes", 1, harmed)
    assert killed
    assert [name.partition("-")[0] for name in left] == ["process"]
    assert not harmed
    assert not list((tmp_path / "cache").glob("process-*"))


@POSIX
@pytest.mark.slow
def test_a_disk_that_fills_up_ends_no_training(tmp_path):
    numbers, new, err = trained(train(tmp_path / "cache", "no room"))
    plain, _, _ = trained(train(fault="plain"))
    record_fault("compile cache: disk full while XLA writes", 1, numbers != plain)
    assert (numbers, new) == (plain, 0)
    assert "the plain graph runs" in err
    assert list((tmp_path / "cache").iterdir()) == []
