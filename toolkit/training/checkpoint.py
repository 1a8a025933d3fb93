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
        except OSError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        try:
            state: dict[str, Any] = _from_bytes(content[32:])
            right = (
                state["run"].keys() == self.fingerprints.keys()
                and state["members"].keys() == {str(member.index) for member in self.members}
                and {str(index) for index in state["stacked"]} <= state["members"].keys()
                and isinstance(state["epoch"], int)
            )
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            return None
        return state if right else None

    def _is_complete(self, state: dict[str, Any]) -> bool:
        """Say whether a state has what models and callbacks need, in the right shapes and types."""
        kinds = {"variables": list, "history": dict, "epochs": list, "stopped": bool, "callbacks": list}
        for member in self.members:
            kept, variables = state["members"][str(member.index)], _variables(member.model)
            if kept.keys() != kinds.keys() or not all(isinstance(kept[key], kinds[key]) for key in kinds):
                return False
            if len(kept["callbacks"]) not in (0, len(member.callbacks)):
                return False
            needed = [(tuple(each.shape), tf.as_dtype(each.dtype).size) for each in variables]
            values = [np.asarray(value) for value in kept["variables"]]
            if [(value.shape, value.dtype.itemsize) for value in values] != needed:
                return False
        return True

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
                    _restore(callback, values)
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
    arguments = set(inspect.signature(type(callback).__init__).parameters)
    # Keras's own may change the sign of an argument when they begin, and would do it again.
    lasting = arguments if _keras.is_own(callback) else set()

    def kept(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(kept, value))
        if isinstance(value, dict):
            return all(isinstance(key, str) and kept(item) for key, item in value.items())
        return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)

    return {
        name: value
        for name, value in vars(callback).items()
        if name != "params" and kept(value) and (name in arguments if settings else name not in lasting)
    }


def _restore(callback: keras.callbacks.Callback, values: dict[str, Any]) -> None:
    """Set what the callback itself would keep: none of its other attributes, none of another type.

    What it does not have yet, it may have made in training: one of Keras's, if its code has the name.
    """
    own = _state_of(callback)
    codes = [getattr(each, "__code__", None) for cls in type(callback).__mro__ for each in vars(cls).values()]
    named = {name for code in codes if code for name in code.co_names}
    for name, value in values.items():
        may_come = name in named or not _keras.is_own(type(callback))
        known = name in own or (may_come and not hasattr(callback, name))
        before = own.get(name)
        if not known or not (before is None or value is None or _are_alike(before, value)):
            raise ValueError(
                f"The checkpoint must hold a state of {type(callback).__name__}. "
                f"Received: {name!r}, a {type(value).__name__}"
            )
    vars(callback).update(values)


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
