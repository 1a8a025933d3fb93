"""Save and load models in Keras's native format, `.keras`: whole or not at all, and never anything hostile.

A `.keras` file is a zip of `metadata.json`, `config.json` (which classes, with which settings),
`model.weights.h5` and perhaps `assets/`. What Keras would build from a config can be chosen freely by whoever
wrote it: `load` reads the file once, in a folder of its own, checks all of it, and then builds.
"""

import contextlib
import errno
import gc
import hashlib
import inspect
import json
import math
import os
import random
import re
import shutil
import socket
import stat
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state  # Keras keeps the safe mode and unmade variables here alone
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope

try:
    import fcntl
except ImportError:  # Windows, where two processes that save to one path at one time are not kept apart
    fcntl = None  # type: ignore[assignment]

_CONFIG_BYTES = 4 << 20
_CONFIG_ITEMS = 200_000  # Python needs up to 100 bytes for an item of JSON that takes 2
_CONFIG_DEPTH = 100
_WORDS = 250_000  # lines of all its assets; Keras stores some words twice
# Layers and calls in any file, and one more for so many bytes: each takes about 0.1 MB, weights apart.
_LAYERS, _BYTES_A_LAYER = 400, 25_000
_REBUILDS = 20_000  # layers of a Sequential model, squared: it is built anew for each of them
_COUNT = 2_000_000  # sum of the numbers in a config by which Keras may take memory or time
_SPARE = 1 << 18  # numbers of small weights that are made but not stored: seeds, states
_STRAY_SECONDS = 24 * 3600.0

_MEMBERS = re.compile(r"metadata\.json|config\.json|model\.weights\.h5|assets(/(?!\.\.?(/|$))[\w .>+-]+)+")
_LINE = re.compile(rb"[\n\r\x0b\x0c\x1c-\x1e\x85]|\xe2\x80[\xa8\xa9]")  # where Python ends a line
_DTYPE = re.compile(r"(u?int|b?float|complex)\d+\w*|bool|string")
# fmt: off
# What `config.json` may name apart from what is registered in this process: Keras's classes of these kinds,
# functions of these modules, and values that it writes as if they were classes.
_KINDS = (
    keras.Operation, keras.Loss, keras.Metric, keras.Optimizer, keras.Initializer, keras.Regularizer,
    keras.optimizers.schedules.LearningRateSchedule, keras.constraints.Constraint, keras.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap, keras.Quantizer, keras.quantizers.QuantizationConfig,
    keras.random.SeedGenerator,
)
_FUNCTIONS = ["keras.activations", "keras.losses", "keras.metrics"]
_TOOLS = ["get", "serialize", "deserialize"]  # functions there that no layer calls
_VALUES = ["__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"]
_FORBIDDEN = ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"]  # hold code
# Layers that make layers or loops of their own.
_HEAVY = [
    "MultiHeadAttention", "GroupedQueryAttention", "AugMix", "RandAugment", "RNN", "LSTM", "GRU",
    "SimpleRNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D",
]
# Numbers that Keras counts up to while it builds.
_LOOPS = ["power_iterations", "num_ops", "num_chains", "chain_depth", "ngrams", "indices_or_sections", "num"]
_METRICS = ["num_classes", "num_thresholds"]  # sizes that no weight has
# Whole numbers that are no sizes, or sizes of what no layer holds.
_HARMLESS = [
    "seed", "salt", "shared_object_id", "keras_history", "value", "vocabulary", "bin_boundaries",
    "boundaries", "decay_steps", "first_decay_steps", "warmup_steps", "ema_overwrite_frequency",
    "mask_value", "mask_token", "oov_value", "oov_token", "num_bins", "max_tokens", "num_tokens",
    "vocabulary_size", "output_sequence_length", "batch_shape", "shape", "input_shape",
    "build_input_shape", "target_shape", "newshape", "size", "height", "width",
]
# fmt: on


def save(model: Any, path: str | Path) -> Path:
    """Save architecture, weights, compile settings and optimizer state to one `.keras` file.

    The file is written beside `path`, flushed to the disk, loaded back and compared (every weight, and the
    predictions for two generated rows) before it takes the place of an earlier one. A crash at any moment
    leaves the earlier file or the new one. `NAME.keras.sha256`, for `sha256sum -c` and for `load`, is removed
    before the file is replaced and written after it: where it stands, it is right.

    Args:
        model: A built Keras model.
        path: File name ending in `.keras`, in a folder that is there.

    Returns:
        The path.

    Raises:
        ValueError: The model would not come back as it is; the message says what to add.
        OSError: The disk is full, or the folder cannot be written to. After any error the earlier file stays.

    >>> model = keras.Sequential([keras.Input(shape=(2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(model, Path(folder, "model.keras"))
    ...     [file.name for file in sorted(Path(folder).iterdir())], load(path).count_params()
    (['model.keras', 'model.keras.sha256'], 3)
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras, Keras's native format. Received: {str(path)!r}")
    target = Path(os.path.realpath(path))  # through a link, to what it points to
    if not target.parent.is_dir() or target.is_dir():
        raise OSError(f"`path` must be a file name in a folder that is there. Received: {str(path)!r}")
    _refuse_what_would_not_come_back(model)
    _clear_strays(target.parent)
    folder = Path(tempfile.mkdtemp("", f".saving-{socket.gethostname()}-{os.getpid()}-", target.parent))
    try:
        whole, checksum = folder / "model.keras", folder / "sha256"
        model.save(whole)
        _flush(whole)
        with whole.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _compare(model, whole)
        checksum.write_bytes(os.fsencode(f"{digest}  {target.name}\n"))
        _flush(checksum)
        beside = target.with_name(f"{target.name}.sha256")
        with _locked(target.parent):
            beside.unlink(missing_ok=True)
            _flush(target.parent)
            for written, place in ((whole, target), (checksum, beside)):
                os.replace(written, place)  # noqa: PTH105 (named for what it does: replace atomically)
                _flush(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _reason(error: BaseException) -> str:
    """Leave out the whole config, which Keras repeats for each level of nesting."""
    return str(error).rsplit("Exception encountered: ", 1)[-1]


def load(path: str | Path, *, sha256: str | None = None, trusted: bool = False) -> Any:
    """Load a model that `save` or `model.save` wrote, ready to predict or to train on.

    Refused before anything is built: a file that is cut off, damaged, or holds anything but a model; classes
    and functions that are neither Keras's own nor registered in this process; code (`Lambda`); weights that
    are declared but not stored. Memory stays below 50 MB and four times the file, so that a model of hundreds
    of tiny layers, or with a vocabulary beyond 100,000 words, must be `trusted`. Every stored number must
    arrive. The checksum that `save` writes counts where it is given as `sha256`.

    Args:
        path: A `.keras` file. The classes of a subclassed model must be imported and registered with
            `keras.saving.register_keras_serializable`; nothing else that is not Keras's own is taken.
        sha256: What the file must be, as 64 hexadecimal digits, from a source that you trust.
        trusted: Whether you trust the file as you trust a program that you run: what it says is then not
            checked and may run code. Whether it is whole is checked all the same.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is refused, or in another format; the message says why.

    >>> load("model.h5")
    Traceback (most recent call last):
    FileNotFoundError: `path` must be a .keras file. Received: 'model.h5', which is no file.
    """
    path = Path(path)
    if path.is_dir() or (path.suffix in (".h5", ".hdf5") and path.exists()):
        kind = "a folder, perhaps a SavedModel" if path.is_dir() else "Keras's old format"
        raise ValueError(
            f"`path` must end in .keras. Received: {str(path)!r}, {kind}. Load it with the Keras version "
            "that wrote it (a SavedModel of Keras 3 with tf.saved_model.load), then save it as .keras."
        )
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a .keras file. Received: {str(path)!r}, which is no file.")
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: {str(path)!r}")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"`sha256` must be 64 hexadecimal digits. Received: {sha256!r}")
    random_state = random.getstate()  # Keras draws seeds from it: to load must change no later number
    # What is checked is what is loaded, whatever happens to `path` meanwhile.
    with tempfile.TemporaryDirectory(prefix="toolkit-load-") as folder, tempfile.TemporaryFile() as copy:
        with path.open("rb") as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        copy.seek(0)
        digest = hashlib.file_digest(copy, "sha256").hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise ValueError(f"{path} is another file: its sha256 is {digest}, not {sha256.lower()}.")
        try:
            _check(copy, Path(folder), trusted)
            return _build(Path(folder), trusted)
        except Exception as error:  # zipfile, h5py, Keras and TensorFlow raise of all kinds
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # the fault of the disk that the copy is on
            raise ValueError(f"{path} is refused: {_reason(error)}") from error
        finally:
            random.setstate(random_state)


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """`save` after each epoch, or after each that is the best so far: for `fit` of Keras and of the toolkit.

    Args:
        path: As in `save`.
        monitor: Score of the epoch that tells the best, such as "val_loss"; None saves after each epoch.
        mode: Whether the best is the smallest ("min") or the largest ("max").

    Attributes:
        best: The best score so far, or None.

    Raises:
        ValueError: `mode` is another word; or, after an epoch, there is no such score, or as in `save`.

    >>> model = keras.Sequential([keras.Input(shape=(2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(Path(folder, "best.keras"), monitor="loss")
    ...     history = model.fit(np.ones((4, 2)), np.ones(4), epochs=2, verbose=0, callbacks=[checkpoint])
    ...     load(checkpoint.path).evaluate(np.ones((4, 2)), np.ones(4), verbose=0) < checkpoint.best
    True
    """

    def __init__(
        self, path: str | Path, monitor: str | None = None, mode: Literal["min", "max"] = "min"
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max'. Received: {mode!r}")
        self.path, self.monitor, self.mode = Path(path), monitor, mode
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save the model, where this epoch is one to be saved."""
        logs = logs or {}
        if self.monitor is None:
            save(self.model, self.path)
            return
        if self.monitor not in logs:
            raise ValueError(f"`monitor` must be one of {', '.join(logs)}. Received: {self.monitor!r}")
        score = float(logs[self.monitor])
        sign = 1 if self.mode == "min" else -1
        if sign * score < sign * (sign * math.inf if self.best is None else self.best):
            save(self.model, self.path)
            self.best = score


# What save refuses, and how it compares


def _lost(reason: object) -> ValueError:
    return ValueError(f"`model` would not come back as it is: {reason}")


def _refuse_what_would_not_come_back(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        way = "call it on data once, or `model.build((None, columns))`"
        raise ValueError(f"`model` must be built before it is saved: {way}. Received: {model!r}")
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)  # as fit does, or its state would be there in part
    try:
        with warnings.catch_warnings(record=True) as caught, ObjectSharingScope():
            warnings.simplefilter("always")
            config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    except (NotImplementedError, TypeError) as error:
        raise _lost(
            f"{error}\nAdd to the class: `def get_config(self): return {{**super().get_config(), 'units': "
            "self.units}`, with the arguments of its `__init__`."
        ) from error
    if any("lambda" in str(warning.message) for warning in caught):
        raise _lost("it holds a lambda. Write a function and register it.")
    registered = keras.saving.get_registered_object(config.get("registered_name"))
    if registered not in (None, type(model)):
        raise _lost(
            f"another class is registered under its name, {registered!r}. Register it with `name=...`."
        )


def _compare(model: Any, whole: Path) -> None:
    """Raise unless the file loads, with each weight, and settings and predictions are the model's."""
    try:
        loaded = load(whole)
    except ValueError as error:
        raise _lost(
            f"{_reason(error.__cause__ or error)}\nA class must make and build its sublayers in `build`, "
            "such as `self.hidden.build(shape)`, take and return each argument in `__init__` and "
            "`get_config`, and use only what is registered."
        ) from error
    settings, others = _settings(model), _settings(loaded)
    for name in settings.keys() | others.keys():
        if settings.get(name) != others.get(name):
            raise _lost(
                f"{name} is {settings.get(name)} and would be {others.get(name)}. Keras does not save it: "
                "write a registered function of y_true and y_pred with the value in it."
            )
    for unknown in (4, 32, 256):  # in place of sizes that the model leaves open: large enough for its layers?
        try:
            x = _rows(model, unknown)
            prediction = _predict(model, x)
        except Exception:
            continue
        if not _close(prediction, _predict(loaded, x)):
            if _close(prediction, _predict(model, x)):
                raise _lost("the predictions are not equal. `get_config` must return what `call` uses.")
            warnings.warn("only weights were compared: the model's predictions are random", stacklevel=3)
        return
    warnings.warn("only weights were compared: no rows could be generated for predictions", stacklevel=3)


def _settings(model: Any) -> dict[str, str]:
    """What can be written as JSON of the optimizer, losses and metrics that the model was compiled with."""
    compiled = getattr(getattr(model, "_compile_config", None), "config", {})  # the public parts lack metrics
    found = {}
    for path, value in keras.tree.flatten_with_path(compiled):
        where = ".".join(map(str, path))
        if isinstance(value, keras.Loss | keras.Metric):
            attributes = vars(value)  # their get_config may lack what is lost
        else:
            attributes = value.get_config() if hasattr(value, "get_config") else {"": value}
        for name, attribute in attributes.items():
            if name not in ("_built", "_variables"):  # of a metric, when it has seen its first batch
                with contextlib.suppress(TypeError, ValueError):  # variables, functions: restored otherwise
                    found[f"{where}.{name.lstrip('_')}"] = json.dumps(attribute, sort_keys=True)
    return found


def _rows(model: Any, unknown: int) -> dict[str, Any]:
    """Generate arguments of `call`, with `unknown` in place of sizes that are open."""
    random_state = np.random.default_rng(0)
    tables = any(vars(layer).keys() & {"input_dim", "num_tokens"} for layer in model._flatten_layers())

    def rows(spec: Any, dtype: str) -> Any:
        if isinstance(spec, keras.KerasTensor):
            return rows(tuple(spec.shape), spec.dtype)
        if isinstance(spec, dict):
            return {key: rows(value, dtype) for key, value in spec.items()}
        if not all(size is None or isinstance(size, int) for size in spec):
            return type(spec)(rows(value, dtype) for value in spec)
        shape = [2 if size is None else size for size in spec[:1]] + [size or unknown for size in spec[1:]]
        if dtype == "string":
            return tf.fill(shape, "a")
        if tables or not dtype.startswith(("float", "bfloat")):
            return tf.cast(random_state.integers(0, 2, shape), dtype)  # rows of any table
        return tf.cast(random_state.normal(size=shape), dtype)

    if getattr(model, "inputs", None):
        symbolic = getattr(model, "_functional", None) or model  # a Sequential model wraps a functional one
        return {"": rows(symbolic.input, "float32")}
    built = model.get_build_config() or {}
    shapes = built.get("shapes_dict") or {"": built["input_shape"]}
    return {name.removesuffix("_shape"): rows(shape, "float32") for name, shape in shapes.items()}


def _predict(model: Any, x: dict[str, Any]) -> Any:
    """Call without a trace, and with what is not saved set to zeros: states of the last batch, and seeds."""
    kept = set(map(id, model.weights))
    stateful = [layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
    states = keras.tree.flatten([layer.states for layer in stateful])
    states += [variable for variable in model.variables if id(variable) not in kept]
    with keras.StatelessScope([(state, keras.ops.zeros_like(state)) for state in states]):
        return model(x[""], training=False) if "" in x else model(**x, training=False)


def _close(one: Any, other: Any) -> bool:
    """Tell whether predictions are equal but for rounding; ragged and sparse ones part by part."""
    flat = [tf.nest.flatten(each, expand_composites=True) for each in (one, other)]
    for pair in zip(*flat, strict=True):
        part, another = map(np.asarray, pair)
        if part.dtype.kind not in "OSU":
            part, another = part.astype(np.complex128), another.astype(np.complex128)
            same = part.shape == another.shape and np.allclose(part, another, 1e-4, 1e-5, equal_nan=True)
        else:
            same = np.array_equal(part, another)
        if not same:
            return False
    return True


# The files


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no such thing
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time replace files in a folder; the lock ends with the process."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear_strays(folder: Path) -> None:
    """Remove what `save` left here in processes that were killed; leave what is being written."""
    host = re.escape(socket.gethostname())
    for stray in folder.glob(".saving-*"):
        process = re.fullmatch(rf"\.saving-{host}-(\d+)-.*", stray.name) if os.name != "nt" else None
        with contextlib.suppress(OSError, OverflowError):  # gone meanwhile, or of another user
            dead = time.time() - stray.stat().st_mtime > _STRAY_SECONDS
            if process and not dead:
                try:
                    os.kill(int(process[1]), 0)  # asks only
                except ProcessLookupError:
                    dead = True
            if dead:
                shutil.rmtree(stray)


# What load refuses


def _refuse_if(wrong: object, reason: str) -> None:
    if wrong:
        raise ValueError(reason)


def _check(file: IO[bytes], folder: Path, trusted: bool) -> None:
    """Raise unless the file is whole, and all that it says can be built; take its members out to `folder`."""
    size = file.seek(0, os.SEEK_END)
    _check_zip(file, size)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)  # which checks their CRCs, too
    version = _json(folder / "metadata.json").get("keras_version")
    if not isinstance(version, str) or not (parts := re.match(r"(\d{1,4})\.(\d{1,4})\.", version)):
        raise ValueError("metadata.json names no version of Keras")
    newer = tuple(map(int, parts.groups())) > tuple(map(int, keras.__version__.split(".")[:2]))
    _refuse_if(newer, f"it was written by Keras {version}, newer than the {keras.__version__} here")
    stored = _check_weights(folder / "model.weights.h5", size)
    if trusted:
        return
    assets = (path for path in (folder / "assets").rglob("*") if path.is_file())
    lines = sum(1 for path in assets for _ in _LINE.finditer(path.read_bytes()))
    _refuse_if(lines > _WORDS, f"its vocabularies have {lines:,} words; {_WORDS:,} are taken unless trusted")
    _refuse_if(
        global_state.get_global_attribute("safe_mode_saving") is False,
        "keras.config.enable_unsafe_deserialization() was called in this process, so Keras would run code "
        "from files. Start another process, or say trusted=True",
    )
    config = _json(folder / "config.json")
    _check_config(config, size, stored)
    _check_declared(config, stored)
    if (folder / "config.json").stat().st_size > 100_000:
        gc.collect()  # a large model, before it is built again


def _check_zip(file: IO[bytes], size: int) -> None:
    """Account for each byte: members one after the other, as they are, then their list, and no more."""
    file.seek(max(0, size - 98))
    tail = file.read()
    if tail[-22:-18] != b"PK\5\6":
        file.seek(0)
        _refuse_if(file.read(4) == b"\x89HDF", "it is an .h5 file by another name")
        raise ValueError("it is cut off, has something after its end, or is no .keras file at all")
    listed, start, comment = struct.unpack("<2LH", tail[-10:])
    end = size - 22
    if tail[-42:-38] == b"PK\6\7" and size > 1 << 31:  # the form for files of 2 GB and more
        end -= 76
        listed, start = struct.unpack("<2Q", tail[40:56]) if tail[:4] == b"PK\6\6" else (0, 0)
    fits = not comment and start + listed == end and listed <= 1 << 20
    _refuse_if(not fits, "its list of members is damaged, or something was added to it")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    position = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        name, flags, kind = member.orig_filename, member.flag_bits, stat.S_IFMT(member.external_attr >> 16)
        file.seek(member.header_offset)
        header = file.read(30)
        name_bytes, extra_bytes = struct.unpack("<2H", header[26:])
        extras = (file.read(name_bytes + extra_bytes)[name_bytes:], member.extra)
        stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        plain = not member.comment and all(extra[:2] in (b"", b"\1\0") for extra in extras)
        as_usual = not flags & ~0x800 and header[6:8] == struct.pack("<H", flags)
        for right, wrong in (
            (_MEMBERS.fullmatch(name), "is no part of a model"),
            (kind in (0, stat.S_IFREG), "is a link or a device"),
            (stored, "is compressed; Keras never does that"),
            (as_usual, "is encrypted, or written in another way than Keras does"),
            (plain, "carries a comment or something else"),
            (member.header_offset == position, "stands after something that belongs to nothing"),
        ):
            _refuse_if(not right, f"it holds {name[:80]!r}, which {wrong}")
        position += 30 + name_bytes + extra_bytes + member.file_size
    _refuse_if(position != start, "something stands in it that belongs to no member")
    names = Counter(member.filename for member in members)
    for name in ("metadata.json", "config.json", "model.weights.h5", *names):
        _refuse_if(not names[name], f"it has no {name}")
        _refuse_if(names[name] > 1, f"it holds {name} twice")


def _json(path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_if(len(names := dict(pairs)) < len(pairs), f"{path.name} gives one key twice")
        return names

    _refuse_if(path.stat().st_size > _CONFIG_BYTES, f"{path.name} is longer than 4 MB")
    text = path.read_bytes()
    items = sum(map(text.count, (b",", b"[", b"{")))
    _refuse_if(items > _CONFIG_ITEMS, f"{path.name} has more than {_CONFIG_ITEMS:,} items")
    try:
        value = json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no object")
    return value


def _datasets(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield each array of an HDF5 file with its name. Links other than hard ones raise; so do cycles."""
    groups, seen = [("", root)], {h5py.h5o.get_info(root.id).addr}
    while groups:
        name, group = groups.pop()
        for key in group:
            where = f"{name}/{key}"
            link = type(group.get(key, getlink=True))
            _refuse_if(link is not h5py.HardLink, f"model.weights.h5 has a link at {where} ({link.__name__})")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            _refuse_if(address in seen, f"model.weights.h5 has {where} in two places")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append((where, item))
            elif isinstance(item, h5py.Dataset):
                yield where, item
            else:
                raise ValueError(f"model.weights.h5 has something at {where} that is no array")


def _check_weights(weights: Path, size: int) -> Counter[tuple[tuple[int, ...], int]]:
    """Return the shapes and item sizes of what is stored; raise unless it lies in the file, as it is."""
    stored: Counter[tuple[tuple[int, ...], int]] = Counter()
    total = 0
    with h5py.File(weights) as file:
        for name, array in _datasets(file):
            _refuse_if(array.external or array.is_virtual, f"model.weights.h5 takes {name} from another file")
            numbers = array.shape is not None and not array.dtype.hasobject and array.dtype.kind in "biufV"
            _refuse_if(not numbers, f"model.weights.h5 has no numbers at {name}")
            whole = array.chunks is None and array.id.get_storage_size() == array.nbytes
            _refuse_if(not whole, f"model.weights.h5 does not store all of {name}, or compressed it")
            stored[array.shape, array.dtype.itemsize] += 1
            total += array.nbytes
    _refuse_if(total > size, "model.weights.h5 stores one number for several arrays")
    return stored


def _nodes(value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield each value in nested lists and dicts with where it stands and its key."""
    values = [("config.json", "", value, 0)]
    while values:
        where, key, value, depth = values.pop()
        _refuse_if(depth > _CONFIG_DEPTH, "config.json is nested too deeply")
        yield where, key, value
        if isinstance(value, dict):
            values += [(f"{where}.{name}"[-200:], name, each, depth + 1) for name, each in value.items()]
        elif isinstance(value, list):
            values += [(where, key, each, depth + 1) for each in value]


def _check_config(config: dict[str, Any], size: int, stored: Counter[Any]) -> None:
    """Raise unless all classes, functions and sizes are such as may be built."""
    dimensions = {dimension for shape, _ in stored for dimension in shape}
    parts = layers = count = rebuilds = 0
    for where, key, value in _nodes(config):
        if isinstance(value, dict) and "class_name" in value:
            parts += 1
            layers += _check_object(where, value)
            count += _held(where, value)
            if value["class_name"] == "Sequential" and isinstance(value.get("config"), dict):
                inside = value["config"].get("layers") or []
                nested = [each for _, key, each in _nodes(inside) if key in ("", "layers")]
                rebuilds += len(inside) * sum(isinstance(each, dict) for each in nested)
        elif key == "inbound_nodes" and isinstance(value, dict) and "args" in value:
            inputs = [each.get("class_name") for _, _, each in _nodes(value) if isinstance(each, dict)]
            if "__keras_tensor__" not in inputs:  # it would compute while it loads
                raise ValueError(f"{where} calls a layer on no input")
        elif key == "unroll" and value is True:
            raise ValueError(f"{where} unrolls a loop as long as its input. Save it with unroll=False")
        elif type(value) is int:
            if key in _LOOPS and value > 256:
                raise ValueError(f"{where} asks for {value:,} rounds or parts")
            if value > 0 and (key in _METRICS or (key not in _HARMLESS and value not in dimensions)):
                count += value * (value if key == "num_classes" else 1)
    _refuse_if(count > _COUNT, f"config.json asks for {count:,} of something that is not stored")
    _refuse_if(
        rebuilds > _REBUILDS,
        "config.json has a Sequential model of so many layers that Keras takes minutes. Write it as a "
        "functional model, keras.Model(inputs, outputs)",
    )
    most = _LAYERS + size // _BYTES_A_LAYER
    excess = layers > most or parts > 20 * most
    _refuse_if(excess, f"config.json has {layers:,} layers and calls, {parts:,} parts; too many for its size")


def _check_object(where: str, value: dict[str, Any]) -> int:
    """Raise unless a class or function is one of Keras's for models, or registered; tell if it is a layer."""
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    if name in _VALUES:
        dtype = str((config or {}).get("dtype")) if name in ("__tensor__", "__numpy__") else "bool"
        _refuse_if(not _DTYPE.fullmatch(dtype), f"{where} has a value of a type that is no number")
        return int(name == "__keras_tensor__")
    called = config if name == "function" else name
    if not isinstance(called, str) or not isinstance(module, str | None):
        raise ValueError(f"{where} has a class or function without a name")
    if called in [*_FORBIDDEN, "__lambda__"]:
        raise ValueError(
            f"{where} is a {called}, which holds code. Write a layer or function and register it"
        )
    registered = called if name == "function" else value.get("registered_name") or called
    if keras.saving.get_registered_object(str(registered)) is not None:
        return 1
    if name == "function":
        known = [getattr(sys.modules[each], called, None) for each in _FUNCTIONS]
        allowed = module in ("builtins", *_FUNCTIONS) and called not in _TOOLS
        if allowed and any(map(inspect.isfunction, known)):
            return 0
    elif module and module.split(".")[0] == "keras":
        found = getattr(sys.modules.get(module), called, None)
        if inspect.isclass(found) and issubclass(found, _KINDS) and found.__name__ not in _FORBIDDEN:
            return int(issubclass(found, keras.Operation)) * (4 if found.__name__ in _HEAVY else 1)
    raise ValueError(
        f"{where} is {called!r}, which is neither Keras's own, for models, nor registered in this process. "
        "Write @keras.saving.register_keras_serializable(package=...) above it, and import its module first"
    )


def _held(where: str, value: dict[str, Any]) -> int:
    """Count the numbers that a layer holds beside its weights: a mean for each input, states for each row."""
    config = value.get("config")
    if not isinstance(config, dict):
        return 0
    try:
        if value["class_name"] == "Normalization" and config.get("mean") is not None:
            axes, shape = config.get("axis", -1), value["build_config"]["input_shape"]
            axes = [] if axes is None else axes if isinstance(axes, list) else [axes]
            return math.prod(shape[axis] for axis in axes)
        if config.get("stateful"):
            rows, _, *sizes = value["build_config"]["input_shape"]
            counts = [each for _, key, each in _nodes(config) if type(each) is int and key not in _HARMLESS]
            return math.prod([rows, *sizes, max(counts)])
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"{where} does not say which input it was built for") from None
    return 0


class _Declared(list[Any]):
    """Takes the place of Keras's list of weights without values; refuses one that is not stored."""

    def __init__(self, stored: Counter[tuple[tuple[int, ...], int]]) -> None:
        super().__init__()
        self.stored, self.spare, self.reason = stored.copy(), _SPARE, ""

    def append(self, variable: Any) -> None:
        shape, itemsize = tuple(variable.shape), tf.as_dtype(variable.dtype).size
        size = math.prod(shape)
        if self.stored[shape, itemsize]:
            self.stored[shape, itemsize] -= 1
        elif size <= min(1024, self.spare):
            self.spare -= size
        else:
            weight = f"a weight of shape {shape}, {size * itemsize:,} bytes"
            self.reason = f"config.json declares {weight}, that is not stored"
            raise ValueError(self.reason)


def _check_declared(config: dict[str, Any], stored: Counter[tuple[tuple[int, ...], int]]) -> None:
    """Build the model with weights that have shapes but no values, and hold the shapes to what is stored."""
    for _, _, value in _nodes(config):
        if isinstance(value, dict):
            value.pop("compile_config", None)  # optimizers have values at once, and so have states
            if value.get("stateful") is True:
                value["stateful"] = False
    declared, waiting = _Declared(stored), "uninitialized_variables"
    before = global_state.get_global_attribute(waiting) or []
    global_state.set_global_attribute(waiting, declared)
    try:
        with ObjectSharingScope(), keras.StatelessScope(initialize_variables=False):
            keras.saving.deserialize_keras_object(config)
    except Exception as error:
        text = declared.reason or f"its config does not build: {_reason(error)}"
        if "create a variable while in a stateless scope" in text:
            text = "a class makes a keras.Variable of a value; use add_weight(shape=..., initializer=...)"
        raise ValueError(text) from error
    finally:
        global_state.set_global_attribute(waiting, before)


def _build(folder: Path, trusted: bool) -> Any:
    """Load the model and hold each of its numbers to what is stored."""
    weights = folder / "model.weights.h5"
    compiled = _json(folder / "config.json").get("compile_config")
    with h5py.File(weights) as file:
        state = [name for name, _ in _datasets(file) if name.startswith("/optimizer/")]
    unused = len(state) <= 2  # of an optimizer that has not trained, Keras stores its step and learning rate
    with warnings.catch_warnings(), SafeModeScope(not trusted):
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # seen to below
        # The optimizer comes last: it takes twice the memory of the weights, which were read by then.
        model = keras.saving.load_model(folder, compile=False, safe_mode=not trusted)
        if unused or not compiled:
            _check_arrived(model, weights, ("/optimizer/",) if compiled else ())
        if compiled:
            model.compile_from_config(compiled)
            optimizer = getattr(model, "optimizer", None)
            scaled = any(name.startswith("/optimizer/inner_optimizer/") for name in state)
            if not unused and scaled != isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                # Keras wraps an optimizer by the policy of the model, which it does not save.
                model.dtype_policy = "mixed_float16" if scaled else "float32"
                model.compile_from_config(compiled)
            if not unused or len(state) == len(getattr(optimizer, "variables", ())):
                model.load_weights(weights)
                _check_arrived(model, weights, ())
    return model


def _check_arrived(model: Any, weights: Path, apart: tuple[str, ...]) -> None:
    """Raise unless the model's weights, written once more, are what is stored; do not ask for some."""
    again = weights.with_name("again.weights.h5")
    model.save_weights(again)
    differ = sorted({name for name, _ in _contents(weights) ^ _contents(again) if not name.startswith(apart)})
    _refuse_if(differ, f"weights in the file and in the model that it builds differ: {', '.join(differ[:5])}")


def _contents(weights: Path) -> set[tuple[str, Any]]:
    """Return the name of each array with what tells it from another, one in memory at a time."""
    with h5py.File(weights) as file:
        return {
            (name, (array.shape, array.dtype, hashlib.sha256(array[...]).digest()))
            for name, array in _datasets(file)
        }
