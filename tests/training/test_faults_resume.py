"""Runs that are killed and go on: the rest of the numbers must be those of a run that was let alone."""

import functools
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
from conftest import ROOT
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
            time.sleep(draw.uniform(0, 3))
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
