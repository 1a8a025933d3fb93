"""Runs that are killed and go on: the rest of the numbers must be those of a run that was let alone."""

import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, one_in
from tables import record_fault

from toolkit import cross_validate, fit, fit_many, kfold
from toolkit.training import checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(203, 5)).astype("float32")
Y = (X @ RNG.normal(size=5) + RNG.normal(size=203) / 3).astype("float32")
EPOCHS = 60


def build_model(optimizer="adam", units=8):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    if optimizer == "schedule":
        optimizer = keras.optimizers.RMSprop(
            keras.optimizers.schedules.CosineDecay(0.01, 3000), ema_momentum=0.9, use_ema=True
        )
    model.compile(optimizer, loss="mse", metrics=["mae"])
    return model


def callbacks(patience):
    return [
        keras.callbacks.EarlyStopping(
            "val_mae", patience=patience, min_delta=0.01, restore_best_weights=True
        ),
        keras.callbacks.ReduceLROnPlateau("val_mae", patience=3, min_delta=0.001),
    ]


def run(kind, folder, **arguments):
    """Train a kind of run from a given seed; return its histories and final weights."""
    keras.utils.set_random_seed(7)
    checkpoint = None if folder is None else folder / "checkpoint"
    common = {"batch_size": 16, "epochs": EPOCHS, "verbose": 0, "checkpoint": checkpoint} | arguments
    if kind == "fit":
        models = [build_model()]
        log = [] if folder is None else [keras.callbacks.CSVLogger(folder / "log.csv")]
        fit(models[0], X, Y, validation_split=0.2, callbacks=[*callbacks(25), *log], **common)
    elif kind == "schedule":
        models = [build_model("schedule")]
        fit(models[0], X, Y, **common)
    else:  # equal models that stop at different epochs, and one that differs
        models = [*(build_model() for _ in range(4)), build_model(units=3)]
        splits = kfold(len(X), 5)
        fit_many(models, X, Y, splits, callbacks=lambda i: callbacks(4 + 5 * i), **common)
    numbers = [model.history.history for model in models]
    weights = [weight.tolist() for model in models for weight in model.get_weights()]
    return {"numbers": numbers, "epochs": [model.history.epoch for model in models], "weights": weights}


KINDS = ["fit", "schedule", "many"]


def announced(function, file):
    """Wrap a function: it makes a file when it is called."""

    def wrapped(*args):
        file.touch()
        return function(*args)

    return wrapped


def kill_again_and_again(kind, folder, kills, seed):
    """Start the run in new processes and kill each, at a random moment after its training has begun."""
    draw = random.Random(seed)
    result = folder / "result.json"
    done = runs = 0
    span = 1.0  # in which seconds a kill comes: so long that about half of them come before the end
    while True:
        begun = folder / "begun"
        begun.unlink(missing_ok=True)
        child = os.fork()  # as good as a new process: TensorFlow has not started in this one
        if not child:
            checkpoint.SECONDS = 0.0
            checkpoint.RunState.begin = announced(checkpoint.RunState.begin, begun)
            numbers = run(kind, folder)
            (folder / "unfinished result").write_text(json.dumps(numbers))
            (folder / "unfinished result").rename(result)
            os._exit(0)
        while not begun.exists() and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.005)
        if done < kills:
            time.sleep(draw.uniform(0, span))
            span *= 0.8 if result.exists() else 1.25
            if not result.exists():
                os.kill(child, signal.SIGKILL)
                done += 1
        os.waitpid(child, 0)
        if result.exists():
            runs += 1
            numbers = json.loads(result.read_text())
            print(json.dumps({"kills": done, "numbers": numbers}), flush=True)
            if done >= kills:
                break
            shutil.rmtree(folder)
            folder.mkdir()


if __name__ == "__main__":
    kill_again_and_again(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))


@functools.cache
def alone(kind):
    """What a kind of run gives when nothing disturbs it."""
    return json.loads(json.dumps(run(kind, None)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_runs_give_the_numbers_of_an_undisturbed_one(kind, tmp_path):
    kills = 18
    arguments = [kind, str(tmp_path / "run"), str(kills), "0"]
    command = [sys.executable, "-m", "training.test_faults_resume", *arguments]
    (tmp_path / "run").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    runs = [json.loads(line) for line in result.stdout.splitlines()]
    assert runs[-1]["kills"] == kills
    different = sum(run["numbers"] != alone(kind) for run in runs)
    record_fault("kill -9 at a random moment of a training", kills, different)
    assert not different


class Stop(keras.callbacks.Callback):
    """Interrupts the run at an epoch, as Ctrl-C would."""

    epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == Stop.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Return a function that trains for five epochs, after a run of it that was interrupted in the fourth."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)

    def train(x=X, y=Y, *, seed=0, model=None, callbacks=(), **arguments):
        keras.utils.set_random_seed(seed)
        log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        arguments = {"epochs": 5, "verbose": 0, "checkpoint": tmp_path / "checkpoint"} | arguments
        try:
            return fit(model or build_model(), x, y, callbacks=[log, Stop(), *callbacks], **arguments).history
        finally:
            if log.csv_file is not None:  # as the end of the process would close it
                log.csv_file.close()

    monkeypatch.setattr(Stop, "epoch", 3)
    with pytest.raises(KeyboardInterrupt):
        train()
    monkeypatch.setattr(Stop, "epoch", None)
    return train


def test_goes_on_and_the_log_has_every_epoch_once(interrupted, tmp_path, capsys):
    assert [path.name for path in sorted((tmp_path / "checkpoint").iterdir())] == [
        "epoch-000002.state",
        "epoch-000003.state",
    ]
    history = interrupted(verbose=2)
    assert "Resumed after epoch 3" in capsys.readouterr().out
    log = (tmp_path / "log.csv").read_bytes()
    assert [line.split(b",")[0] for line in log.split(b"\r\n")] == [b"epoch", *b"0 1 2 3 4".split(), b""]
    assert history == interrupted(checkpoint=None)
    assert (tmp_path / "log.csv").read_bytes() == log  # now written in one go


def test_a_finished_run_comes_back_and_goes_on_to_more_epochs(interrupted):
    history = interrupted()
    model = build_model()
    assert interrupted(model=model) == history
    assert model.optimizer.iterations == 5 * 7
    longer = interrupted(epochs=7)
    assert longer == interrupted(epochs=7, checkpoint=None)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(interrupted, damage, tmp_path):
    wanted = interrupted(checkpoint=None)
    newest = sorted((tmp_path / "checkpoint").iterdir())[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": content[:-100], "flipped": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"epoch-000003.state is damaged: the one before it is used"):
        assert interrupted() == wanted


def crafted(path, change):
    """Change a state and write it with the right hash."""
    state = checkpoint._from_bytes(path.read_bytes()[32:])
    change(state)
    checkpoint._write(path, state)


def with_header(described, arrays=b""):
    """Make the bytes of a state from what its JSON says."""
    text = json.dumps(described).encode()
    content = len(text).to_bytes(8, "little") + text + arrays
    return hashlib.sha256(content).digest() + content


WRONG = {
    "run": lambda state: state["run"].clear(),
    "part of the run": lambda state: state["run"].pop("x"),
    "members": lambda state: state["members"].clear(),
    "epoch": lambda state: state.update(epoch="3"),
    "stacked": lambda state: state.update(stacked=[7]),
    "variables": lambda state: state["members"]["0"]["variables"].pop(),
    "shapes": lambda state: state["members"]["0"]["variables"].__setitem__(0, np.zeros((5, 9), "float32")),
    "types": lambda state: state["members"]["0"]["variables"].__setitem__(0, np.zeros((5, 8), "float64")),
    "no arrays": lambda state: state["members"]["0"]["variables"].__setitem__(0, "zeros"),
    "history": lambda state: state["members"]["0"].update(history=[]),
    "callbacks": lambda state: state["members"]["0"].update(callbacks=[{}]),
    "more": lambda state: state["members"]["0"].update(more=1),
    "nothing": lambda state: state.clear(),
    "stacked text": lambda state: state.update(stacked=["0"]),
    "stacked as text": lambda state: state.update(stacked="0"),
    "stacked dictionary": lambda state: state.update(stacked={"0": 1}),
    "stacked twice": lambda state: state.update(stacked=[0, 0]),
    "stacked False": lambda state: state.update(stacked=[False]),
    "none stacked": lambda state: state.update(stacked=[]),
    "run of arrays": lambda state: state["run"].update(x=np.ones(3)),
    "seed": lambda state: state["run"].update(seed="x"),
    "negative epoch": lambda state: state.update(epoch=-5),
    "epoch True": lambda state: state.update(epoch=True),
    "late epoch": lambda state: state.update(epoch=10**9),
    "next epoch": lambda state: state.update(epoch=3),
    "ragged": lambda state: state["members"]["0"]["variables"].__setitem__(0, [[1], [2, 3]]),
    "counter": lambda state: [exchange(state, i, 5) for i in counters(state)],
    "text of the same size": lambda state: exchange(state, 0, np.full((5, 8), "x", "U1")),
    "whole numbers of the same size": lambda state: exchange(state, 0, np.ones((5, 8), "int32")),
    "other bytes first": lambda state: exchange(state, 0, np.ones((5, 8), ">f4")),
    "member": lambda state: state["members"].update({"0": 5}),
    "no history": lambda state: state["members"]["0"]["history"].clear(),
    "history number": lambda state: state["members"]["0"].update(history={"loss": 5}),
    "history of lists": lambda state: state["members"]["0"]["history"].update(loss=[[1.0]] * 3),
    "long history": lambda state: state["members"]["0"]["history"]["loss"].append(1.0),
    "epochs": lambda state: state["members"]["0"].update(epochs=["a", None]),
    "epochs True": lambda state: state["members"]["0"].update(epochs=[False, True, 2]),
    "epochs apart": lambda state: state["members"]["0"].update(epochs=[0, 1, 3]),
    "too few epochs": lambda state: state["members"]["0"]["epochs"].pop(),
    "stopped": lambda state: state["members"]["0"].update(stopped=0),
    "no callbacks": lambda state: state["members"]["0"].update(callbacks=[]),
    "callback 5": lambda state: state["members"]["0"].update(callbacks=[5, {}]),
    "callback of nothing": lambda state: state["members"]["0"].update(callbacks=[{"filename": "x"}, {}]),
}


def exchange(state, index, value):
    state["members"]["0"]["variables"][index] = value


def counters(state):
    return [
        i
        for i, each in enumerate(state["members"]["0"]["variables"])
        if each.dtype == "int64" and not each.shape
    ]


@pytest.mark.parametrize("change", one_in(3, WRONG))
def test_a_right_hash_with_wrong_content_falls_back_and_says_so(change, interrupted, tmp_path):
    wanted = interrupted(checkpoint=None)
    crafted(sorted((tmp_path / "checkpoint").iterdir())[-1], WRONG[change])
    with pytest.warns(UserWarning, match=r"epoch-000003.state is damaged: the one before it is used"):
        assert interrupted() == wanted


@pytest.mark.parametrize(
    "content",
    [
        with_header(["array", "<f8", [1 << 39]]),
        with_header({"run": ["array", "<f8", [1 << 62, 4]]}),
        with_header({"run": ["array", "O", [1]]}, bytes(8)),
        with_header({"run": ["array", "<f8", [-1]]}),
        with_header({"run": ["array"]}),
        with_header({"run": ["array", "<f8", [1 << 70]]}),
        with_header([]),
        with_header(5),
        hashlib.sha256((1 << 62).to_bytes(8, "little")).digest() + (1 << 62).to_bytes(8, "little"),
        hashlib.sha256(b"").digest(),
    ],
)
def test_a_header_that_asks_for_terabytes_falls_back_and_says_so(content, interrupted, tmp_path):
    wanted = interrupted(checkpoint=None)
    sorted((tmp_path / "checkpoint").iterdir())[-1].write_bytes(content)
    with pytest.warns(UserWarning, match=r"epoch-000003.state is damaged: the one before it is used"):
        assert interrupted() == wanted


def test_only_regular_files_of_a_usual_size_and_of_one_s_own_are_read(interrupted, tmp_path):
    def theirs(path):
        if os.getuid() == 0:
            os.chown(path, 12345, -1)
        else:  # the other files are then theirs, too
            path.write_bytes(b"")

    wanted = interrupted(checkpoint=None)
    newest = sorted((tmp_path / "checkpoint").iterdir())[-1]
    kept = newest.read_bytes()
    (tmp_path / "elsewhere").write_bytes(kept)
    for lay in (
        lambda: newest.symlink_to(tmp_path / "elsewhere"),
        lambda: os.mkfifo(newest),
        lambda: (newest.touch(), os.truncate(newest, 4 << 40)),  # which takes no place on the disk
        lambda: (newest.write_bytes(kept), theirs(newest)),
    ):
        newest.unlink()
        before = newest.with_name("epoch-000002.state").read_bytes()
        lay()
        with pytest.warns(UserWarning, match=r"epoch-000003.state is damaged: the one before it is used"):
            assert interrupted(epochs=3) == {name: each[:3] for name, each in wanted.items()}
        newest.with_name("epoch-000002.state").write_bytes(before)
    assert (tmp_path / "elsewhere").read_bytes() == kept


def test_a_link_in_the_place_of_what_is_written_is_not_followed(interrupted, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for number in (4, 5):
        (tmp_path / f"checkpoint/unfinished-epoch-00000{number}.state").symlink_to(tmp_path / "mine")
    (tmp_path / "unfinished-log.csv").symlink_to(tmp_path / "mine")
    interrupted()
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "log.csv").unlink()
    (tmp_path / "log.csv").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="must log to a file of their own"):
        interrupted()
    (tmp_path / "checkpoint").rename(tmp_path / "there")
    (tmp_path / "checkpoint").symlink_to(tmp_path / "there")
    with pytest.raises(ValueError, match="`checkpoint` must be a folder, and no link to one"):
        interrupted()


class MyCheckpoint(keras.callbacks.ModelCheckpoint):
    """One's own, with the attributes of Keras's."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.phase, self.seen = "before", {"last": None}

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.phase, self.seen = f"after {epoch}", {"last": epoch}


class Best(keras.callbacks.Callback):
    """Writes to a file, and counts with an argument."""

    def __init__(self, filename, left=9, others=()):
        super().__init__()
        self.filename, self.left, self.others, self.phase = filename, left, others, "before"

    def on_epoch_end(self, epoch, logs=None):
        self.left -= 1
        self.phase = f"after {epoch}"


KEPT = {
    "ModelCheckpoint": lambda folder: keras.callbacks.ModelCheckpoint(
        folder / "best.keras", monitor="loss", save_best_only=True
    ),
    "MyCheckpoint": lambda folder: MyCheckpoint(folder / "best.keras", monitor="loss", save_best_only=True),
    "Best": lambda folder: Best(str(folder / "best.keras")),
    "TensorBoard": lambda folder: keras.callbacks.TensorBoard(folder / "logs"),
    "EarlyStopping": lambda folder: keras.callbacks.EarlyStopping(
        "loss", patience=50, restore_best_weights=True
    ),
    "ReduceLROnPlateau": lambda folder: keras.callbacks.ReduceLROnPlateau("loss"),
}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that trains with a callback; it returns the callback and the history."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)

    def train(kind, epochs, folder=tmp_path / "checkpoint"):
        keras.utils.set_random_seed(0)
        kept, model = KEPT[kind](tmp_path), build_model()
        history = fit(model, X, Y, epochs=epochs, verbose=0, callbacks=[kept], checkpoint=folder).history
        return kept, history

    return train


ALIEN = {
    "filepath": ("ModelCheckpoint", "filepath", "/etc/passwd"),
    "filepath of one's own": ("MyCheckpoint", "filepath", "/etc/passwd"),
    "argument": ("Best", "filename", "/etc/passwd"),
    "directory": ("TensorBoard", "_val_dir", "/etc"),
    "text in the place of None": ("EarlyStopping", "best", "x"),
    "argument in a list": ("Best", "others", ["/etc/passwd"]),
    "save_freq": ("ModelCheckpoint", "save_freq", 1),
    "method": ("ModelCheckpoint", "on_epoch_end", "x"),
    "_model": ("ModelCheckpoint", "_model", None),
    "counter": ("ModelCheckpoint", "_batches_seen_since_last_saving", [1]),
    "class": ("ModelCheckpoint", "__class__", "x"),
    "not there yet": ("ModelCheckpoint", "not_there_yet", 1),
    "directory of one's own": ("MyCheckpoint", "_current_epoch", "/etc"),
    "no name": ("ModelCheckpoint", "", 1),
    "writers": ("TensorBoard", "_writers", {"train": 5}),
    "wait": ("EarlyStopping", "wait", "x"),
    "wait None": ("EarlyStopping", "wait", None),
    "best array": ("EarlyStopping", "best", np.ones(3)),
    "best list": ("EarlyStopping", "best", [1, 2]),
    "weights": ("EarlyStopping", "best_weights", [np.ones(3)]),
    "weight": ("EarlyStopping", "best_weights", 5),
    "function": ("EarlyStopping", "monitor_op", 5),
    "cooldown": ("ReduceLROnPlateau", "cooldown_counter", "x"),
}


@pytest.mark.parametrize("case", one_in(3, ALIEN))
def test_a_state_sets_nothing_but_what_the_callback_itself_would_keep(case, train, tmp_path):
    kind, name, value = ALIEN[case]
    train(kind, 2)
    newest = sorted((tmp_path / "checkpoint").iterdir())[-1]
    crafted(newest, lambda state: state["members"]["0"]["callbacks"][0].update({name: value}))
    with pytest.warns(UserWarning, match=r"epoch-000002.state is damaged: the one before it is used"):
        kept, history = train(kind, 3)
    assert history == train(kind, 3, None)[1]
    assert "/etc" not in str(vars(kept))


def test_words_in_a_history_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)

    class Says(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= {"word": f"epoch {epoch}", "nothing": None}

    def train(epochs):
        keras.utils.set_random_seed(0)
        options = {
            "epochs": epochs,
            "verbose": 0,
            "callbacks": [Says()],
            "checkpoint": tmp_path / "checkpoint",
        }
        return fit(build_model(), X, Y, **options)

    train(2)
    history = train(3)
    assert history.history["word"] == ["epoch 0", "epoch 1", "epoch 2"]
    assert history.history["nothing"] == [None] * 3


@pytest.mark.parametrize("kind", KEPT)
def test_an_honest_state_of_a_callback_comes_back(kind, train, capsys):
    train(kind, 2)
    kept, history = train(kind, 3)
    alone, wanted = train(kind, 3, None)
    assert history == wanted
    for name in ("phase", "seen", "left", "filename", "filepath", "best", "wait", "best_epoch", "_val_dir"):
        assert getattr(kept, name, None) == getattr(alone, name, None)


def test_a_state_with_bfloat16_comes_back(tmp_path):
    def train(epochs, folder):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, dtype="bfloat16")])
        model.compile("adam", "mse")
        return fit(model, X, Y, epochs=epochs, verbose=0, checkpoint=folder).history

    train(2, tmp_path / "checkpoint")
    assert train(3, tmp_path / "checkpoint") == train(3, None)


def test_without_a_whole_checkpoint_the_run_starts_anew(interrupted, tmp_path):
    for path in (tmp_path / "checkpoint").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    wanted = interrupted(checkpoint=None)
    with pytest.warns(match="the one before it is used"), pytest.warns(match="the run starts anew"):
        assert interrupted() == wanted


def test_what_has_changed_is_refused_by_name(interrupted):
    for name, arguments in [
        ("batch_size", {"batch_size": 64}),
        ("seed", {"seed": 1}),
        ("shuffle", {"shuffle": False}),
        ("jit", {"jit": True}),
        ("x", {"x": X + 1}),
        ("y", {"y": -Y}),
        ("sample_weight", {"sample_weight": np.ones(len(X))}),
        ("validation x", {"validation_data": (X, Y)}),
        ("model", {"model": build_model(units=9)}),
        ("model", {"model": build_model("sgd")}),
        ("callbacks", {"callbacks": [keras.callbacks.EarlyStopping("loss")]}),
    ]:
        with pytest.raises(ValueError, match=f"`{name}` must be as in the checkpoint"):
            interrupted(**arguments)


def test_what_could_not_be_resumed_is_refused():
    model = build_model()
    model.second_optimizer = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="a second optimizer"):
        fit(model, X, Y, checkpoint="never made")
    backup = keras.callbacks.BackupAndRestore("never made")
    with pytest.raises(ValueError, match="beside BackupAndRestore"):
        fit(build_model(), X, Y, callbacks=[backup], checkpoint="never made")


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be written: Not a directory"):
        history = fit(build_model(), X, Y, epochs=2, verbose=0, checkpoint=tmp_path / "file" / "folder")
    assert len(history.epoch) == 2


def test_cross_validate_resumes_in_the_middle_of_the_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)

    def validate(folder):
        arguments = {"folds": 2, "epochs": 4, "verbose": 0, "callbacks": lambda i: [Stop()]}
        return cross_validate(lambda rows: build_model(), X, Y, checkpoint=folder, **arguments)

    monkeypatch.setattr(Stop, "epoch", 2)
    with pytest.raises(KeyboardInterrupt):
        validate(tmp_path)
    monkeypatch.setattr(Stop, "epoch", None)
    assert validate(tmp_path).histories == validate(None).histories
