"""Train by `model.fit` and by ours from equal weights and seeds, and compare all that a user could see.

A case says how to build a model, on what to train it and with which arguments. Its outcome is "the same", or
"refused" where ours raises an error before any training; all else is a list of differences.
"""

import contextlib
import csv
import dataclasses
import gc
import logging
import random
import re
import time
import unittest.mock
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from tables import TABLES

import toolkit

REFUSALS = (ValueError, TypeError, NotImplementedError)
DEFAULTS = {"batch_size": 16, "epochs": 3, "verbose": 0, "shuffle": False}
THOROUGH = True  # whether to look at what comes of a model's further use at all
SHOWN = 25  # differences of a case
OUTCOMES = TABLES["model.fit and toolkit.fit"]  # by the kind of case
Seen = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained.

    Attributes:
        build: Makes the compiled model; for `fit_many` from its position.
        x: Arrays, or a function that makes them.
        y: Likewise.
        options: Arguments of `fit`, beside `DEFAULTS`; a function makes them where they must be made anew.
        callbacks: Makes the callbacks from a folder that they may write into; for `fit_many` from the model's
            position and the folder.
        ours: Arguments that ours alone has.
        refused: Expected refusal by ours: what its message must have.
        raises: What `model.fit` itself refuses: its error's class; ours raises before any training.
        seed: Seed of each training; None: Keras has no seed.
        floatx: Keras's float type.
        policy: Keras's dtype policy.
        rtol: How far numbers may be apart, by the larger one.
        atol: How far numbers may be apart, at least.
        splits: Row numbers to train and to validate on, a pair a model: for `fit_many`.
        log: What must be found in the records of the logger "toolkit.training", as a regular expression.
        killed: Epochs at whose end the run is killed, one kill a run: for resume.
        goes_on: Whether to look, too, at what comes of a model's further use, which takes as long again.
    """

    build: Callable[..., keras.Model]
    x: Any
    y: Any = None
    options: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    callbacks: Callable[..., list[keras.callbacks.Callback]] | None = None
    ours: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refused: str | None = None
    raises: type[BaseException] | None = None
    seed: int | None = 1
    floatx: str = "float32"
    policy: str | None = None
    rtol: float = 1e-5
    atol: float = 1e-6
    splits: Sequence[tuple[Any, Any]] = ()
    log: str | None = None
    killed: Sequence[int] = ()
    goes_on: bool = True

    def data(self) -> tuple[Any, Any, dict[str, Any]]:
        """Return x, y and the options, none of them shared with another training."""
        options = self.options() if callable(self.options) else self.options
        x = self.x() if callable(self.x) else copied(self.x)
        y = self.y() if callable(self.y) else copied(self.y)
        return x, y, DEFAULTS | copied(dict(options))


class Kill(keras.callbacks.Callback):
    """End the run at an epoch as Ctrl-C would, but only once; until then let eleven seconds pass an epoch."""

    passed = 0.0

    def __init__(self, epoch: int, mark: str) -> None:
        super().__init__()
        self.epoch = epoch
        self.mark = mark

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        Kill.passed += 11.0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        mark = Path(self.mark)
        if epoch == self.epoch and not mark.exists():
            mark.touch()
            raise KeyboardInterrupt


def by_keras(model: keras.Model, x: Any, y: Any, **options: Any) -> keras.callbacks.History:
    try:
        return model.fit(x, y, **options)
    finally:  # an iterator of tf.data that a stop has left grows slow to end: on a busy machine, a minute
        gc.collect(1)


def by_ours(model: keras.Model, x: Any, y: Any, **options: Any) -> keras.callbacks.History:
    return toolkit.fit(model, x, y, **options)


def check_fit(case: Case, folder: Path, kind: str = "fit", ours: Callable[..., Any] = by_ours) -> None:
    """Hold `fit` to `model.fit`."""
    with judged(kind, case) as verdict, surroundings(case):
        theirs = seen_alone(case, folder / "theirs", by_keras)
        verdict.hears(theirs)
        train = lambda *args, **options: ours(*args, **options, **case.ours)  # noqa: E731
        seen = seen_alone(case, folder / "ours", train)
        verdict.compares({"": (theirs, seen)})


def check_many(case: Case, folder: Path, kind: str = "fit_many", alone_too: bool = True) -> None:
    """Hold each model of `fit_many` to `model.fit` and, with `alone_too`, to `fit` alone."""
    with judged(kind, case) as verdict, surroundings(case):
        theirs = seen_many(case, folder / "theirs", one_by_one(by_keras))
        verdict.hears(theirs)
        alone = theirs
        if alone_too and case.raises is None and case.refused is None:
            alone = seen_many(case, folder / "alone", one_by_one(by_ours, case.ours), go_on=False)
        seen = seen_many(case, folder / "ours", in_one_go)
        verdict.compares({"model.fit": (theirs, seen), "fit": (alone, chosen_as_in(alone, seen))})


def chosen_as_in(alone: Seen, seen: Seen) -> Seen:
    """Leave out what was not looked at where the models were trained alone."""
    if "error" in seen or "error" in alone:
        return seen
    return {model: {key: seen[model][key] for key in alone[model]} for model in alone}


def check_resume(case: Case, folder: Path, kind: str = "resume") -> None:
    """Hold a run that is killed and goes on to an undisturbed `model.fit`."""
    kept = folder / "kept"
    case = dataclasses.replace(case, ours={**case.ours, "checkpoint": kept})
    train = lambda *args, **options: by_ours(*args, **options, **case.ours)  # noqa: E731
    with judged(kind, case) as verdict, surroundings(case), a_clock_of_our_own():
        (folder / "theirs").mkdir()
        for i in range(len(case.killed)):
            (folder / "theirs" / f"killed {i}").touch()
        if case.splits:
            theirs = seen_many(case, folder / "theirs", one_by_one(by_keras))
        else:
            theirs = seen_alone(case, folder / "theirs", by_keras)
        verdict.hears(theirs)
        for kill in case.killed:
            with contextlib.suppress(KeyboardInterrupt):
                if case.splits:
                    seen_many(case, folder / "ours", in_one_go)
                else:
                    seen_alone(case, folder / "ours", train)
                verdict.differences.append(f"the run was not killed in epoch {kill + 1}")
        if case.splits:
            seen = seen_many(case, folder / "ours", in_one_go)
        else:
            seen = seen_alone(case, folder / "ours", train)
        verdict.compares({"": (theirs, seen)})


class UnusableError(Exception):
    """A case by which nothing can be judged: `model.fit` does not do what the case says."""


class Verdict:
    """What comes out of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.outcome = "the same"
        self.differences: list[str] = []
        self.records: list[str] = []

    def hears(self, theirs: Seen) -> None:
        """Judge `model.fit`: a case that it refuses must say so."""
        error, case = theirs.get("error"), self.case
        if case.raises is not None and not isinstance(error, case.raises):
            raise UnusableError(f"model.fit must raise {case.raises.__name__}. It gave: {error!r}")
        if error is not None and case.raises is None:
            raise UnusableError(f"model.fit must train. It raised: {error!r}") from error

    def compares(self, pairs: Mapping[str, tuple[Seen, Seen]]) -> None:
        """Judge ours."""
        case = self.case
        error = next(iter(pairs.values()))[1].get("error")
        if error is not None:
            self._judge_error(error, next(iter(pairs.values()))[1])
            return
        if case.refused is not None or case.raises is not None:
            self.differences.append(f"trained, and should have refused: {case.refused or case.raises}")
            return
        if case.log is not None and not any(re.search(case.log, record) for record in self.records):
            self.differences.append(f"log: must have {case.log!r}. It has: {self.records}")
        for name, (theirs, ours) in pairs.items():
            ours = without_what_is_built_early(theirs, ours)
            differences = different("", theirs, ours, case.rtol, case.atol)
            self.differences += [f"{name}{': ' if name else ''}{line}" for line in differences]

    def _judge_error(self, error: BaseException, seen: Seen) -> None:
        case = self.case
        said = f"{type(error).__name__}: {error}".strip().replace("\n", " ")
        if seen["trained"]:
            self.differences.append(f"failed after training had begun ({', '.join(seen['trained'])}): {said}")
        if case.raises is None:
            self.outcome = "refused"
        if case.refused is None and case.raises is None:
            self.differences.append(f"raised {said}")
        elif not isinstance(error, REFUSALS) and not (case.raises and isinstance(error, case.raises)):
            self.differences.append(f"no refusal: {said}")
        elif case.refused is not None and not re.search(case.refused, str(error)):
            self.differences.append(f"must refuse with {case.refused!r}. Said: {said}")


def without_what_is_built_early(theirs: Seen, ours: Seen) -> Seen:
    """Where no epoch was trained, Keras has not made all variables: that ours has is no difference."""
    if "model 1" in theirs:
        return {model: without_what_is_built_early(theirs[model], ours[model]) for model in theirs}
    if theirs["history.epoch"]:
        return ours
    kept = {path: ours["variables"][path] for path in theirs["variables"] if path in ours["variables"]}
    return ours | {"variables": kept, "metrics": theirs["metrics"]}


@contextlib.contextmanager
def judged(kind: str, case: Case) -> Iterator[Verdict]:
    """Collect what comes out of a case, and fail with a readable list of differences."""
    verdict = Verdict(case)
    handler = logging.Handler()
    handler.emit = lambda record: verdict.records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("toolkit.training")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    counted = OUTCOMES.setdefault(kind, Counter())
    counted["cases"] += 1
    counted["different"] += 1  # unless it comes to the end
    try:
        with warnings.catch_warnings(action="ignore"):
            yield verdict
    except UnusableError:
        counted.subtract(["cases", "different"])
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    if verdict.differences:
        lines = verdict.differences
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        pytest.fail("\n".join(["by ours, other than by model.fit:", *lines[:SHOWN], *more]), pytrace=False)
    counted["different"] -= 1
    counted[verdict.outcome] += 1


@contextlib.contextmanager
def surroundings(case: Case) -> Iterator[None]:
    """Set Keras's float type, and leave Keras as it was."""
    keras.config.set_floatx(case.floatx)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.utils.clear_session(free_memory=False)


@contextlib.contextmanager
def a_clock_of_our_own() -> Iterator[None]:
    """Let time pass by epochs: a run writes its state only every few seconds."""
    clocks = {name: getattr(time, name) for name in ("perf_counter", "monotonic", "time")}
    Kill.passed = 0.0
    with contextlib.ExitStack() as stack:
        for name, clock in clocks.items():
            later = lambda clock=clock: clock() + Kill.passed  # noqa: E731
            stack.enter_context(unittest.mock.patch.object(time, name, later))
        yield


def set_seed(seed: int | None) -> None:
    if seed is None:
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002 (Keras's own seed stays away)
    else:
        keras.utils.set_random_seed(seed)


def built(case: Case, count: int = 0) -> list[keras.Model]:
    """Build models as a fresh process would: with the same names and weights at each call."""
    keras.utils.clear_session(free_memory=False)
    if case.policy is not None:
        keras.config.set_dtype_policy(case.policy)
    set_seed(case.seed)
    models = [case.build(i) for i in range(count)] if count else [case.build()]
    set_seed(case.seed if case.seed is None else case.seed + 1)
    return models


def seen_alone(case: Case, folder: Path, train: Callable[..., Any]) -> Seen:
    """Train a fresh model and return what a user could see then."""
    folder.mkdir(exist_ok=True)
    (model,) = built(case)
    x, y, options = case.data()
    callbacks = case.callbacks(folder) if case.callbacks else []
    if case.callbacks:
        options["callbacks"] = callbacks
    return seen_after(
        lambda: [train(model, x, y, **options)],
        [model],
        [callbacks],
        [(x, y, options)],
        folder,
        case.goes_on,
    )[0]


def one_by_one(train: Callable[..., Any], ours: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Return a function that trains models one after another, each on its rows."""

    def run(models: list[keras.Model], parts: list[Any], callbacks: list[Any], case: Case) -> list[Any]:
        histories = []
        for model, (x, y, options), each in zip(models, parts, callbacks, strict=True):
            more = {"callbacks": each} if case.callbacks else {}
            histories.append(train(model, x, y, **options, **more, **(ours or {})))
        return histories

    return run


def in_one_go(models: list[keras.Model], _: Any, callbacks: list[Any], case: Case) -> list[Any]:
    x, y, options = case.data()
    more = {"callbacks": callbacks} if case.callbacks else {}
    return toolkit.fit_many(models, x, y, case.splits, **options, **more, **case.ours)


def seen_many(case: Case, folder: Path, run: Callable[..., Any], go_on: bool = True) -> Seen:
    """Train fresh models, each on its rows, and return what a user could see of each."""
    go_on = go_on and case.goes_on
    folder.mkdir(exist_ok=True)
    models = built(case, len(case.splits))
    parts = [part_of(case, *split) for split in case.splits]
    callbacks = [case.callbacks(i, folder) if case.callbacks else [] for i in range(len(models))]
    seen = seen_after(lambda: run(models, parts, callbacks, case), models, callbacks, parts, folder, go_on)
    if "error" in seen[0]:
        return seen[0]
    return {f"model {i + 1}": each for i, each in enumerate(seen)}


def part_of(case: Case, rows: Any, validation_rows: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return what `fit` takes to train on some of the rows."""
    x, y, options = case.data()
    sample_weight = options.get("sample_weight")
    if validation_rows is not None and len(validation_rows):
        validation = (x, y) if sample_weight is None else (x, y, sample_weight)
        options["validation_data"] = tuple(taken(item, validation_rows) for item in validation)
    if sample_weight is not None:
        options["sample_weight"] = taken(sample_weight, rows)
    return taken(x, rows), taken(y, rows), options


def seen_after(
    train: Callable[[], list[Any]],
    models: list[keras.Model],
    callbacks: list[list[keras.callbacks.Callback]],
    parts: list[tuple[Any, Any, dict[str, Any]]],
    folder: Path,
    go_on: bool = True,
) -> list[Seen]:
    """Train and return what a user could see of each model then, or the error and what it left behind.

    With `go_on` also what comes of the last model's further use: each call is traced, and costs a while.
    """
    before = [values_of(model) for model in models]
    states = [vars(model).get("history") for model in models]
    try:
        histories = train()
    except Exception as error:
        return [{"error": error, "trained": traces(models, before, states, callbacks)}]
    seen: list[Seen] = [
        {
            "history": history.history,
            "history.epoch": history.epoch,
            "history.params": history.params,
            "history is model.history": history is model.history,
            "stop_training": model.stop_training,
            "variables": values_of(model),
            "metrics": attempt(model.get_metrics_result),
            **{
                f"callbacks[{i}] {type(callback).__name__}": public(callback)
                for i, callback in enumerate(each)
            },
        }
        for history, model, each in zip(histories, models, callbacks, strict=True)
    ]
    seen[0]["files"] = {name_of(path, folder): content(path) for path in files_in(folder)}
    seen[0]["random"] = {
        "random": random.random(),
        "numpy": float(np.random.random()),  # noqa: NPY002 (the state that Keras seeds)
        "keras": float(keras.random.uniform(())),
    }
    for each, model, (x, y, options) in zip(seen, models, parts, strict=True):
        each["x, y"] = copied([x, y])
        if go_on and THOROUGH and model is models[-1]:
            each |= afterwards(model, x, y, options)
    return seen


def afterwards(model: keras.Model, x: Any, y: Any, options: Mapping[str, Any]) -> Seen:
    """Use a trained model as a user would go on."""
    size = options["batch_size"]
    weights = {name: options[name] for name in ("sample_weight", "class_weight") if name in options}
    return {
        "evaluate": attempt(lambda: model.evaluate(x, y, size, verbose=0, return_dict=True)),
        "predict": attempt(lambda: model.predict(x, batch_size=size, verbose=0)),
        "second fit": attempt(
            lambda: model.fit(x, y, batch_size=size, shuffle=False, verbose=0, **weights).history
        ),
        "variables after the second fit": values_of(model),
    }


def traces(
    models: list[keras.Model],
    before: list[dict[str, Any]],
    states: list[Any],
    callbacks: list[list[keras.callbacks.Callback]],
) -> list[str]:
    """Say by what a training that has failed can be seen to have begun."""
    found = []
    for model, old, history in zip(models, before, states, strict=True):
        new = values_of(model)
        found += [f"{path} changed" for path in old if different("", old[path], new.get(path), 0.0, 0.0)]
        new_history = vars(model).get("history")
        if new_history is not history and getattr(new_history, "epoch", None):
            found.append(f"{len(new_history.epoch)} epochs in the History")
    calls = [call for each in callbacks for callback in each for call in getattr(callback, "calls", [])]
    return found + [f"callback called: {call}" for call in calls[:1]]


def values_of(model: keras.Model) -> dict[str, Any]:
    """Return all variables of a model by their paths: weights, seeds, metrics and the optimizer's."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *model.metrics_variables]
    if optimizer is not None:
        variables += [*optimizer.variables]
        if getattr(optimizer, "inner_optimizer", None) is not None:
            variables += optimizer.inner_optimizer.variables
    values: dict[str, Any] = {}
    for variable in variables:
        path = variable.path
        while path in values:
            path += "'"
        values[path] = np.array(variable.numpy())
    return values


def attempt(function: Callable[[], Any]) -> Any:
    """Return what a function gives, or what it raises."""
    try:
        return function()
    except Exception as error:
        return f"raised {type(error).__name__}"


def public(item: Any) -> dict[str, Any]:
    """Return the public attributes of a callback, but for its model and what belongs to its files."""
    hidden = {
        "model",
        "filepath",
        "filename",
        "log_dir",
        "backup_dir",
        "mark",
        "csv_file",
        "writer",
        "append",
        "append_header",
    }
    return {
        name: plain(value)
        for name, value in sorted(vars(item).items())
        if not name.startswith("_") and name not in hidden
    }


def plain(value: Any) -> Any:
    """Make an attribute fit to be compared: what is no value counts by its type."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else repr(value)
    known = bool | int | float | str | np.ndarray | np.generic | tf.Tensor | None
    return value if isinstance(value, known) else type(value).__name__


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def name_of(path: Path, folder: Path) -> str:
    """Return the path of a file in a folder, without the moment and the process of an event file."""
    name = str(path.relative_to(folder))
    return re.sub(r"tfevents\..*", "tfevents", name)


def content(path: Path) -> Any:
    """Return what a callback has written, as numbers where they are known."""
    if "tfevents" in path.name:
        return [
            [value.tag, event.step, float(tf.make_ndarray(value.tensor))]
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
            if value.metadata.plugin_data.plugin_name == "scalars"
        ]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [[number(cell) for cell in line] for line in csv.reader(file)]
    if path.name.endswith(".weights.h5"):
        import h5py

        found: dict[str, Any] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        return found
    if path.suffix == ".keras":
        return values_of(keras.saving.load_model(path))
    return "a file"


def number(cell: str) -> Any:
    with contextlib.suppress(ValueError):
        return float(cell)
    return cell


def copied(value: Any) -> Any:
    if isinstance(value, np.ndarray) or scipy.sparse.issparse(value):
        return value.copy()
    return mapped(copied, value)


def taken(value: Any, rows: Any) -> Any:
    """Take rows of arrays."""
    if isinstance(value, np.ndarray) or scipy.sparse.issparse(value):
        return value[np.asarray(rows)]
    if isinstance(value, tf.Tensor):
        return tf.gather(value, rows)
    return mapped(lambda item: taken(item, rows), value)


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to the items of a dict, list, tuple or namedtuple."""
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(function, value))
    if isinstance(value, list | tuple):
        return type(value)(map(function, value))
    return value


def different(path: str, theirs: Any, ours: Any, rtol: float, atol: float) -> list[str]:
    """List where two structures differ: order and types exactly, numbers to rounding."""
    if isinstance(theirs, tf.Tensor | tf.SparseTensor | tf.RaggedTensor | keras.Variable) and type(
        theirs
    ) is type(ours):
        return different(path, array_of(theirs), array_of(ours), rtol, atol)
    if scipy.sparse.issparse(theirs) and scipy.sparse.issparse(ours):
        return different(path, theirs.toarray(), ours.toarray(), rtol, atol)
    if type(theirs) is not type(ours):
        return [f"{path}: {shown(theirs)}, by ours {shown(ours)}"]
    if isinstance(theirs, dict):
        lines = different_keys(path, list(theirs), list(ours))
        for key in theirs:
            if key in ours:
                lines += different(f"{path}/{key}".lstrip("/"), theirs[key], ours[key], rtol, atol)
        return lines
    if isinstance(theirs, list | tuple):
        if len(theirs) != len(ours):
            return [f"{path}: {shown(theirs)}, by ours {shown(ours)}"]
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [line for i, (a, b) in pairs for line in different(f"{path}[{i}]", a, b, rtol, atol)]
    if isinstance(theirs, np.ndarray | np.generic | float | int | bool):
        return different_numbers(path, np.asarray(theirs), np.asarray(ours), rtol, atol)
    return [] if theirs == ours else [f"{path}: {shown(theirs)}, by ours {shown(ours)}"]


def different_keys(path: str, theirs: list[Any], ours: list[Any]) -> list[str]:
    missing = [key for key in theirs if key not in ours]
    added = [key for key in ours if key not in theirs]
    if missing or added:
        return [f"{path}: by ours without the keys {missing}, with the keys {added}"]
    place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b), None)
    if place is None:
        return []
    return [f"{path}: keys {theirs[place:]}, by ours in the order {ours[place:]}"]


def different_numbers(path: str, theirs: Any, ours: Any, rtol: float, atol: float) -> list[str]:
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        return [f"{path}: {theirs.dtype}{theirs.shape}, by ours {ours.dtype}{ours.shape}"]
    if theirs.dtype.kind not in "fcV":
        return [] if np.array_equal(theirs, ours) else [f"{path}: {shown(theirs)}, by ours {shown(ours)}"]
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    if np.allclose(b, a, rtol=rtol, atol=atol, equal_nan=True):
        return []
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True), 0.0, np.abs(a - b))
    apart = np.where(np.isnan(apart), np.inf, apart)
    place = tuple(int(index) for index in np.unravel_index(apart.argmax(), apart.shape))
    where = f" at {list(place)}" if place else ""
    return [f"{path}: {a[place]:.8g}, by ours {b[place]:.8g}{where}"]


def array_of(tensor: Any) -> Any:
    if isinstance(tensor, tf.SparseTensor):
        return tf.sparse.to_dense(tensor).numpy()
    if isinstance(tensor, tf.RaggedTensor):
        return tensor.to_list()
    return tensor.numpy() if isinstance(tensor, tf.Tensor) else np.asarray(tensor)  # of bfloat16, too


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else f"{text[:100]}..."
