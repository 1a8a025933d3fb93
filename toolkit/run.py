"""The command line of a recipe: options from its signature, seed, data, folder, report, verdict."""

import dataclasses
import datetime
import importlib.metadata
import inspect
import itertools
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import docstring_parser
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tyro

from toolkit import quiet
from toolkit.data import Data, DataNotFoundError, Dataset

_ELSEWHERE = """
import importlib, sys
from toolkit import quiet
quiet.hold()
import keras, numpy, pathlib, tensorflow
tensorflow.get_logger().setLevel("ERROR")
recipe, folder, *paths = sys.argv[1:]
importlib.import_module(recipe)  # registers its classes
given = {path.stem: numpy.load(path) for path in pathlib.Path(folder).glob("*.npy")}
models = [keras.saving.load_model(path) for path in paths]
predictions = [model.predict(given["x"], verbose=0) for model in models]
if "x_train" in given:
    for model in models:
        model.fit(given["x_train"], given["y_train"], shuffle=False, verbose=0)
        predictions.append(model.predict(given["x"], verbose=0))
for number, prediction in enumerate(predictions):
    numpy.save(f"{folder}/{number}.npy", prediction)
"""

Verdict = Literal["inside", "outside", "not judged"]


@dataclasses.dataclass
class Common:
    """The options that every recipe has."""

    seed: int = 0
    """Seed of every random choice: same seed, same numbers."""
    out: Path = Path("runs")
    """Folder for the results; each run makes a new one in it."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """A short run that shows the way; its scores are not judged."""
    data: Literal["auto", "real", "sample"] = "auto"
    """auto: the real data, or else the embedded sample; real or sample: that and nothing else."""
    data_dir: Path | None = None
    """Folder that holds the data files (see scripts/download)."""


class Run:
    """What `cli` hands to a recipe: data, seed, a folder for results, and a place for scores.

    Attributes:
        data: The data sets (`toolkit.Data`).
        seed: The seed that Keras, NumPy and Python were given.
        folder: Where this run's files go.
        expected: The range of each score, which hold for default options on real data.
        metrics: The scores so far.
    """

    def __init__(
        self, name: str, folder: Path, data: Data, seed: int, expected: Mapping[str, Any], default: bool
    ) -> None:
        self.name, self.folder, self.data, self.seed = name, folder, data, seed
        self.expected, self.default = expected, default
        self.metrics: dict[str, float] = {}

    def path(self, name: str) -> Path:
        """Return the path of a file in this run's folder."""
        return self.folder / name

    def log(self, name: str = "history.csv") -> Any:
        """Return a `keras.callbacks.CSVLogger` that writes a file in this run's folder, epoch by epoch."""
        return keras.callbacks.CSVLogger(self.path(name))

    def score(self, **metrics: float) -> None:
        """Record scores, and print each beside the range that it must land in.

        Scores recorded before an interruption stay in the report.
        """
        for name, value in metrics.items():
            self.metrics[name] = float(value)
            print(f"  {name:<24} {_number(float(value)):>8}   {self._range(name)}")

    def predict_elsewhere(
        self, paths: Sequence[Path], x: npt.ArrayLike, train: tuple[Any, Any] | None = None
    ) -> list[npt.NDArray[Any]]:
        """Load models in a new process, which knows nothing but the files and the recipe, and predict.

        Args:
            paths: The `.keras` files.
            x: What to predict from.
            train: Rows x and y for an epoch of training, unshuffled, after which to predict once more.

        Returns:
            The predictions of each model; then, with `train`, those of each after its epoch.
        """
        with tempfile.TemporaryDirectory() as folder:
            for name, array in zip(("x", "x_train", "y_train"), (x, *(train or ())), strict=False):
                np.save(Path(folder, f"{name}.npy"), np.asarray(array))
            command = [sys.executable, "-c", _ELSEWHERE, f"recipes.{self.name}", folder, *map(str, paths)]
            subprocess.run(command, check=True)
            count = len(paths) * (1 if train is None else 2)
            return [np.load(Path(folder, f"{number}.npy")) for number in range(count)]

    def _range(self, name: str) -> str:
        if name not in self.expected or not self.judged():
            return ""
        low, high = self.expected[name]
        return f"(expected {_number(low)} to {_number(high)})"

    def judged(self) -> bool:
        """Tell whether the ranges hold for this run: default options, real data."""
        real = bool(self.data.used) and all(used.source == "real" for used in self.data.used)
        return self.default and real and bool(self.expected)

    def inside(self) -> bool:
        """Tell whether every expected score is there and in its range."""
        return all(
            name in self.metrics and low <= self.metrics[name] <= high
            for name, (low, high) in self.expected.items()
        )


def cli(main: Callable[..., None], args: Sequence[str] | None = None) -> NoReturn:
    """Run a recipe from the command line: the keyword arguments of `main` are its options.

    The module of `main` says what to expect: `EXPECTED` (score name to lowest and highest value) and
    `QUICK` (the options of a short run).

    Args:
        main: `main(run, *, option=default, ...)` with an `Args:` section in its docstring.
        args: Command line; None takes the process's own.

    Raises:
        SystemExit: Always. Status 0; 1 when a run at default options on real data lands outside its
            range, or when data or folder cannot be had; 2 for a mistake in the options; 130 for Ctrl-C.
    """
    args = list(sys.argv[1:] if args is None else args)
    module = main.__globals__
    name = Path(module["__file__"]).stem
    lesson, common = _parse(main, name, module["__doc__"], module.get("QUICK", {}), args)
    options = {field.name: getattr(lesson, field.name) for field in dataclasses.fields(lesson)}
    defaults = {key: parameter.default for key, parameter in _options_of(main).items()}

    for key, value in options.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
            _refuse(name, f"--{key.replace('_', '-')} must be greater than 0. Received: {value}")
    if not 0 <= common.seed < 2**32:
        _refuse(name, f"--seed must be in 0..{2**32 - 1}. Received: {common.seed}")

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a reader of a log file sees each line as it comes
            stream.reconfigure(line_buffering=True, errors="replace")
    _use_gpus()
    quiet.release()
    tf.get_logger().setLevel("ERROR")
    keras.utils.set_random_seed(common.seed)

    try:
        folder = _new_folder(common.out / name)
        data = Data(common.data, common.data_dir, on_load=lambda dataset: _announce(dataset, common.seed))
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {error}")
    run = Run(name, folder, data, common.seed, module.get("EXPECTED", {}), options == defaults)
    status, error_text, started = "finished", "", time.perf_counter()
    try:
        main(run, **options)
    except KeyboardInterrupt:
        status = "interrupted"
    except DataNotFoundError as error:  # the message is the whole story
        status, error_text = "failed", str(error)
    except BaseException as error:
        status, error_text = "failed", repr(error)
        raise
    finally:
        judged = status == "finished" and run.judged()
        verdict: Verdict = "not judged" if not judged else "inside" if run.inside() else "outside"
        seconds = round(time.perf_counter() - started, 3)
        report = {
            "recipe": name,
            "status": status,
            "error": error_text,
            "options": options,
            "seed": common.seed,
            "metrics": run.metrics,
            "expected": run.expected,
            "verdict": verdict,
            "data": [
                {"name": used.name, "source": used.source, "files": used.files, "reason": used.reason}
                for used in data.used
            ],
            "seconds": seconds,
            "versions": _versions(),
            "device": _device(),
        }
        run.path("report.json").write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
    _conclude(run, status, error_text, verdict, seconds, judged)
    sys.exit({"interrupted": 130, "failed": 1}.get(status, int(verdict == "outside")))


def _options_of(main: Callable[..., None]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(main).parameters
    return {name: value for name, value in parameters.items() if value.kind is value.KEYWORD_ONLY}


def _parse(
    main: Callable[..., None], name: str, doc: str, quick: Mapping[str, Any], args: Sequence[str]
) -> tuple[Any, Common]:
    """Read the command line into an object with the options of `main` and one with the common options."""
    if {"-h", "--help"} & set(args):
        quiet.release()
    shortened = quick if "--quick" in args else {}
    help_of = {
        entry.arg_name: entry.description for entry in docstring_parser.parse(main.__doc__ or "").params
    }
    hints = typing.get_type_hints(main)
    fields = [
        (key, Annotated[hints[key], tyro.conf.arg(help=help_of[key])], shortened.get(key, parameter.default))
        for key, parameter in _options_of(main).items()
    ]
    lesson = dataclasses.make_dataclass("Lesson", fields)
    unnamed = tyro.conf.arg(name="")
    return tyro.cli(
        tuple[Annotated[lesson, unnamed], Annotated[Common, unnamed]],  # type: ignore[valid-type]
        prog=f"python -m recipes.{name}",
        # An empty line before each entry ("Teaches", "Data", ...), or the help would run them together.
        description=re.sub(r"\n(?=\w)", "\n\n", doc.strip()),
        args=args,
    )


def _refuse(name: str, message: str) -> NoReturn:
    print(f"{name}: {message}", file=sys.stderr)
    sys.exit(2)


def _new_folder(parent: Path) -> Path:
    """Make a folder named for the time; a number tells apart the runs of one second."""
    stamp = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    for number in itertools.count(1):
        folder = parent.expanduser() / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("itertools.count has no end")


def _announce(dataset: Dataset, seed: int) -> None:
    rows = f"{len(dataset.x_train):,} training rows, {len(dataset.x_test):,} test rows"
    if dataset.source == "sample":
        print(f"SAMPLE DATA for {dataset.name} ({rows}); nothing will be judged.\n{dataset.reason}")
    else:
        print(f"Real data: {dataset.name} ({rows}). Seed {seed}. {_device()}.")


def _conclude(run: Run, status: str, error: str, verdict: Verdict, seconds: float, judged: bool) -> None:
    samples = [used.name for used in run.data.used if used.source == "sample"]
    if status == "failed":
        print(f"{run.name}: {error}", file=sys.stderr)
    elif status == "interrupted":
        print("\nInterrupted. The report holds what was reached.")
    elif judged:
        print(f"Verdict: {verdict} the expected range{'s' * (len(run.expected) > 1)}.")
        for name, (low, high) in run.expected.items():
            value = run.metrics.get(name)
            if value is None or not low <= value <= high:
                print(f"  {name} is {value}; expected {low} to {high}")
    elif not samples:
        print("Verdict: not judged, because the ranges hold for the default options.")
    print(f"{seconds:.0f} s. Report, figures and model: {run.folder}")
    if samples:
        print(f"SAMPLE DATA was used for {', '.join(samples)}: these scores say nothing about the real data.")


def _number(value: float) -> str:
    """Write a score with four figures: 0.8812, 2.413, 48210; a tiny one as 1e-05."""
    if 0 < abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.4f}" if 0 < abs(value) < 1 else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _versions() -> dict[str, str]:
    packages = ("keras", "tensorflow", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def _use_gpus() -> None:
    """Let each GPU's memory grow with the need, or TensorFlow would take all of it at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return ", ".join(names) or "CPU"
