"""`checkpoint=FOLDER`: the state of a run after an epoch, from which it goes on bit for bit."""

import contextlib
import hashlib
import inspect
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from toolkit import _files, _keras
from toolkit.training.alike import describe
from toolkit.training.arrays import Table, parts_of
from toolkit.training.members import Member, last_epoch
from toolkit.training.progress import warn

SECONDS = 10.0  # a state is written no more often than this
_SPARE_BYTES = 100_000_000  # what a state may hold beside four times the bytes of the variables


class RunState:
    """A folder with the state of a run after an epoch, from which it goes on bit for bit.

    A file holds the sha256 of what follows in it, the length of a JSON text, that text, and the bytes of the
    arrays that it refers to. The two newest files are kept.
    """

    def __init__(self, folder: Path, members: list[Member], tables: dict[str, Table | None]) -> None:
        if folder.is_symlink():
            raise ValueError(f"`checkpoint` must be a folder, and no link to one. Received: {folder}")
        self.folder = folder
        self.members = members
        self.newest: Path | None = None
        self.written = time.perf_counter()
        for member in members:
            _check_resumable(member, tables[""])
        self.fingerprints = _fingerprints(members, tables)
        self.state = self._load(unseeded=_keras.random_seed() is None)
        for member in members:
            member.settings = replace(member.settings, seed=int(self.fingerprints["seed"]))
        for member in members if self.state else []:
            for variable, value in zip(_variables(member.model), self._of(member)["variables"], strict=True):
                variable.assign(value.view(variable.numpy().dtype))  # NumPy knows no bfloat16

    def _of(self, member: Member) -> dict[str, Any]:
        kept: dict[str, Any] = (self.state or {})["members"][str(member.index)]
        return kept

    def _load(self, unseeded: bool) -> dict[str, Any] | None:
        paths = sorted(self.folder.glob("epoch-*.state"), reverse=True)
        for path in paths:
            state = self._read(path)
            if state is not None:
                if unseeded:  # then any seed will do, and it must be the one of the run
                    self.fingerprints["seed"] = state["run"]["seed"]
                for name, wanted in state["run"].items():
                    if self.fingerprints[name] != wanted:
                        raise ValueError(
                            f"`{name}` must be as in the checkpoint {path}, {wanted}. "
                            f"Received: {self.fingerprints[name]}"
                        )
                if self._is_complete(state):
                    self.newest = path
                    return state
            then = "the one before it is used" if path != paths[-1] else "the run starts anew"
            warn(f"The checkpoint {path} is damaged: {then}.")
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return the state in a file; None where it is damaged, not one's own, or holds anything else."""
        own = sum(
            tf.as_dtype(variable.dtype).size * int(np.prod(variable.shape))
            for member in self.members
            for variable in _variables(member.model)
        )
        try:
            content = _files.read_own(path, 4 * own + _SPARE_BYTES)
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                return None
            state: dict[str, Any] = _from_bytes(content[32:])
            run, stacked = state["run"], state["stacked"]
            right = (
                run.keys() == self.fingerprints.keys()
                and all(isinstance(value, str) for value in run.values())
                and 0 <= int(run["seed"]) < 1 << 32
                and state["members"].keys() == {str(member.index) for member in self.members}
                and isinstance(stacked, list)
                and len({repr(index) for index in stacked} & state["members"].keys()) == len(stacked)
                and type(state["epoch"]) is int
            )
        except Exception:  # it cannot be read, or a stranger has written what nobody expects
            return None
        return state if right else None

    def _is_complete(self, state: dict[str, Any]) -> bool:
        """Say whether a state has what models and callbacks need, in the right shapes and types."""
        kinds = {"variables": list, "history": dict, "epochs": list, "stopped": bool, "callbacks": list}
        first = int(self.fingerprints["initial_epoch"])
        trained, most = state["epoch"] + 1 - first, 0
        for member in self.members:
            kept = state["members"][str(member.index)]
            if not isinstance(kept, dict) or {key: type(value) for key, value in kept.items()} != kinds:
                return False
            epochs, history = kept["epochs"], kept["history"]
            most = max(most, len(epochs))
            callbacks = member.callbacks if trained else []
            if not (
                repr(epochs) == repr(list(range(first, first + len(epochs))))  # 1 is also True and 1.0
                # Only a model that has stopped has fewer epochs; it may still be in the stack.
                and (kept["stopped"] or (len(epochs) == trained and member.index in state["stacked"]))
                and all(isinstance(each, list) and all(map(_is_plain, each)) for each in history.values())
                # validation_freq makes some lists shorter.
                and max(map(len, history.values()), default=0) == len(epochs)
                and _fit(kept["variables"], _variables(member.model))
                and len(kept["callbacks"]) == len(callbacks)
                and all(isinstance(values, dict) for values in kept["callbacks"])
                and not any(map(_misfit, callbacks, kept["callbacks"], [member.model] * len(callbacks)))
            ):
                return False
        return bool(trained == most)

    def stacked(self) -> tuple[list[Member], list[Member]]:
        """Return the members that were stacked and those that were still trained.

        A model that had stopped has its final weights and is kept from harm: another stands in for it.
        """
        if self.state is None:
            return self.members, list(self.members)
        active = [member for member in self.members if not self._of(member)["stopped"]]
        at = {member.index: member for member in self.members}
        chosen = [at[index] for index in self.state["stacked"]]
        return [
            member if member in active else replace(member, model=active[0].model)
            for member in (chosen if active else [])
        ], active

    def begin(self, lists: dict[Member, Any], verbose: str | int) -> int:
        """Let the callbacks begin, or go on where they were; return the first epoch."""
        first = int(self.fingerprints["initial_epoch"]) if self.state is None else self.state["epoch"] + 1
        for member, callbacks in lists.items():
            for callback in member.callbacks if self.state else []:
                if isinstance(callback, keras.callbacks.CSVLogger):
                    _cut_log(callback, first)
            callbacks.on_train_begin()
            if self.state is not None:
                kept = self._of(member)
                member.model.history.history, member.model.history.epoch = kept["history"], kept["epochs"]
                member.model.stop_training = kept["stopped"]
                for callback, values in zip(member.callbacks, kept["callbacks"], strict=False):
                    _restore(callback, values, member.model)
        if self.state is None:
            self.save(first - 1)
        elif verbose:
            print(f"Resumed after epoch {first} from {self.folder}.")
        self.state = None  # frees the memory
        return first

    def due(self, epoch: int, stopped: bool) -> bool:
        """Say whether to save now: not so often that it costs much, and at the end."""
        last = stopped or epoch + 1 == last_epoch(self.members)
        return last or time.perf_counter() - self.written >= SECONDS

    def save(self, epoch: int, stacked: list[int] | None = None) -> None:
        """Write the state after an epoch: the file appears whole or not at all."""
        # Before the first epoch callbacks may have nothing to keep.
        begun = epoch >= self.members[0].settings.initial_epoch
        state = {
            "run": self.fingerprints,
            "epoch": epoch,
            "stacked": stacked or [member.index for member in self.members],
            "members": {
                str(member.index): {
                    "variables": [variable.numpy() for variable in _variables(member.model)],
                    "history": member.model.history.history,
                    "epochs": member.model.history.epoch,
                    "stopped": bool(member.model.stop_training),
                    "callbacks": [_state_of(callback) for callback in member.callbacks if begun],
                }
                for member in self.members
            },
        }
        path = self.folder / f"epoch-{epoch + 1:06}.state"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _files.whole(path) as unfinished:
                _write(unfinished, state)
            for old in set(self.folder.glob("epoch-*.state")) - {path, self.newest}:
                old.unlink()
        except OSError as error:  # hours of training are worth more than this file
            warn(f"The checkpoint {path} could not be written: {error.strerror}.")
            return
        self.newest = path
        self.written = time.perf_counter()


def _fingerprints(members: list[Member], tables: dict[str, Table | None]) -> dict[str, str]:
    """Return what must be the same for a run to go on: settings, data, splits, models, versions ..."""
    settings = members[0].settings
    names = [
        "batch_size", "validation_batch_size", "validation_steps", "validation_freq", "initial_epoch",
        "shuffle", "seed", "jit",
    ]  # fmt: skip
    run = {name: str(getattr(settings, name)) for name in names}
    for prefix, table in tables.items():
        parts = (None, None, None) if table is None else table.unpack()
        for name, part in zip(("x", "y", "sample_weight"), parts, strict=True):
            run[prefix + name] = _digest(
                [array for leaf in keras.tree.flatten(part) for array in parts_of(leaf)]
            )
    run["splits"] = _digest([rows for member in members for rows in (member.rows, member.validation_rows)])
    run["model"] = _digest([describe(member.model, whole=True) for member in members])
    run["callbacks"] = _digest(
        [
            f"{type(callback).__name__} {_state_of(callback, settings=True)}"
            for member in members
            for callback in member.callbacks
        ]
    )
    return run | {"keras": keras.__version__, "tensorflow": tf.__version__}


def _check_resumable(member: Member, table: Table | None) -> None:
    """Build what is not built yet, and refuse what could not be resumed exactly."""
    model = member.model
    others = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer
    ]
    if others:
        raise ValueError(f"`checkpoint` must be None for a model with a second optimizer. Received: {others}")
    if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in member.callbacks):
        raise ValueError("`checkpoint` must be None beside BackupAndRestore. Received: both")
    if not model.built and table is not None:
        _keras.build_symbolically(model, table.spec())
    _keras.build_optimizer(model)


def _variables(model: keras.Model) -> list[Any]:
    """Return all that training changes: weights, the states of random generators and of recurrent layers."""
    states = [
        state
        for layer in _keras.all_layers(model)
        for state in keras.tree.flatten(getattr(layer, "states", None) or [])
        if isinstance(state, keras.Variable)  # of a stateful layer, which does not count it as its variable
    ]
    return [*model.trainable_variables, *model.non_trainable_variables, *states, *model.optimizer.variables]


def _state_of(callback: keras.callbacks.Callback, settings: bool = False) -> dict[str, Any]:
    """Return a callback's settings, or else its counters, best values and weights.

    Objects and functions stay out: a callback that was made anew has its own.
    """
    if isinstance(callback, keras.callbacks.CSVLogger):
        return {}  # it goes on with its file

    def kept(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(kept, value))
        if isinstance(value, dict):
            return all(isinstance(key, str) and kept(item) for key, item in value.items())
        return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)

    names = _names(callback)
    return {
        name: value
        for name, value in vars(callback).items()
        if kept(value) and (name in names[0] if settings else _may_change(names, name, value))
    }


def _names(callback: keras.callbacks.Callback) -> list[set[str]]:
    """Return the arguments of a callback; those of Keras's classes in it; the names in Keras's code."""
    simple = (keras.callbacks.Callback, keras.callbacks.History)  # which write no files
    classes = type(callback).__mro__
    kerass = [cls for cls in classes if _keras.is_own(cls) and cls not in simple]
    codes = [getattr(each, "__code__", None) for cls in kerass for each in vars(cls).values()]
    arguments, theirs = (
        {name for make in makes if inspect.isfunction(make) for name in inspect.signature(make).parameters}
        for makes in ([vars(cls).get("__init__") for cls in each] for each in (classes, kerass))
    )
    return [arguments, theirs, {name for code in codes if code for name in code.co_names}]


def _may_change(names: list[set[str]], name: str, value: Any) -> bool:
    """Say whether a value is one that training changes: no setting, and no text that may name a file."""
    arguments, theirs, named = names
    # Keras's own may change the sign of an argument when they begin, and would do it again.
    if name in theirs or name in ("params", "_model", "monitor_op"):
        return False
    if name in named:  # of Keras's own code, whose counters, best values and weights are numbers
        single = _is_number(value) and np.ndim(value) == 0
        return value is None or single or name == "best_weights" or (isinstance(value, list) and not value)
    texts = (not _is_number(leaf) for leaf in keras.tree.flatten(value) if leaf is not None)
    return name not in arguments or not any(texts)


def _misfit(callback: keras.callbacks.Callback, values: dict[str, Any], model: keras.Model) -> str:
    """Name a value that the callback itself would not keep, for its attribute or its type; "" where all fit.

    What it does not have yet, it may have made in training: one of Keras's, if its code has the name.
    """
    own, names = _state_of(callback), _names(callback)
    for name, value in values.items():
        before, kerass = own.get(name), name in names[2]
        may_come = (kerass or not _keras.is_own(type(callback))) and not hasattr(callback, name)
        alike = before is None or _are_alike(before, value)
        cleared = value is None and not (kerass and isinstance(before, int))  # but no counter
        fits = not kerass or name != "best_weights" or value is None or _fit(value, model.weights)
        known = name in own or may_come
        if not (known and (alike or cleared) and fits and _may_change(names, name, value)):
            return name or "''"
    return ""


def _restore(callback: keras.callbacks.Callback, values: dict[str, Any], model: keras.Model) -> None:
    """Set what the callback itself would keep; once it has begun, it shows more of that."""
    if name := _misfit(callback, values, model):
        raise ValueError(f"The checkpoint must hold a state of {type(callback).__name__}. Received: {name!r}")
    vars(callback).update(values)


def _is_number(value: Any) -> bool:
    """Tell numbers, and arrays of them, from all else: a metric may have a number a class."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biufc"
    return isinstance(value, int | float)


def _is_plain(value: Any) -> bool:
    """Tell what may stand in a history: numbers, and what a callback of the user's puts beside them."""
    return value is None or isinstance(value, str) or _is_number(value)


def _fit(values: Any, variables: list[Any]) -> bool:
    """Say whether values are arrays as `_unpack` gives them for variables, which are bytes for bfloat16."""
    dtypes = [np.dtype(tf.as_dtype(each.dtype).as_numpy_dtype).str for each in variables]
    wanted = [(tuple(each.shape), np.dtype(dtype)) for each, dtype in zip(variables, dtypes, strict=True)]
    if not isinstance(values, list) or not all(isinstance(value, np.ndarray) for value in values):
        return False
    return [(value.shape, value.dtype) for value in values] == wanted


def _are_alike(a: Any, b: Any) -> bool:
    for kinds in ((bool, np.bool_), (int, float, np.number, np.ndarray), (str,), (list, tuple), (dict,)):
        if isinstance(a, kinds):
            return isinstance(b, kinds)
    return False


def _write(path: Path, state: dict[str, Any]) -> None:
    arrays: list[npt.NDArray[Any]] = []
    text = json.dumps(_pack(state, arrays)).encode()
    contents = [len(text).to_bytes(8, "little"), text, *(np.ascontiguousarray(array) for array in arrays)]
    digest = hashlib.sha256()
    for content in contents:
        digest.update(_bytes_of(content))
    with path.open("wb") as file:
        file.write(digest.digest())
        for content in contents:
            file.write(_bytes_of(content))


def _bytes_of(content: Any) -> Any:
    return content if isinstance(content, bytes) else content.reshape(-1).view(np.uint8).data


def _from_bytes(content: bytes) -> Any:
    end = 8 + int.from_bytes(content[:8], "little")
    return _unpack(json.loads(content[8:end]), content[end:], [0])


def _pack(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """Make a value fit for JSON: of an array a description stays, in the order of `arrays`."""
    if isinstance(value, np.ndarray | np.generic):
        arrays.append(np.asarray(value))
        return ["array", arrays[-1].dtype.str, list(arrays[-1].shape)]
    if isinstance(value, list | tuple):
        return ["list", *(_pack(item, arrays) for item in value)]
    if isinstance(value, dict):
        return {key: _pack(item, arrays) for key, item in value.items()}
    return value


def _unpack(value: Any, content: bytes, position: list[int]) -> Any:
    if isinstance(value, list) and value[0] == "array":
        _, name, shape = value
        dtype, count = np.dtype(name), int(np.prod(shape))
        array = np.frombuffer(content, dtype, count, position[0]) if count else np.empty(0, dtype)
        position[0] += array.nbytes
        return array.reshape(shape).copy()
    if isinstance(value, list):
        return [_unpack(item, content, position) for item in value[1:]]
    if isinstance(value, dict):
        return {key: _unpack(item, content, position) for key, item in value.items()}
    return value


def _cut_log(logger: keras.callbacks.CSVLogger, epochs: int) -> None:
    """Cut off the epochs that come again, and let the logger append to the rest."""
    path = Path(logger.filename)
    if path.is_symlink():
        raise ValueError(f"`callbacks` must log to a file of their own. Received: {path}, a link")
    with contextlib.suppress(FileNotFoundError):
        with path.open(newline="", encoding="utf-8") as file:  # line ends stay as they are
            header, *lines = file.readlines() or [""]
        kept = [line for line in lines if int(line.split(logger.sep)[0]) < epochs]
        with (
            _files.whole(path) as unfinished,
            unfinished.open("w", newline="", encoding="utf-8") as file,
        ):
            file.write(header + "".join(kept))
    logger.append = True


def _digest(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        described = item if isinstance(item, str) else f"{item.shape} {item.dtype}"
        digest.update(described.encode())
        if not isinstance(item, str):
            content = item.astype(str) if item.dtype == object else item
            digest.update(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
    return f"sha256 {digest.hexdigest()[:16]}"
