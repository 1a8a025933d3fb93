"""The command line of a recipe: options from its signature, seed, data, folder, report, verdict."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import inspect
import itertools
import json
import os
import platform
import re
import shutil
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

from toolkit import plotting, quiet, study
from toolkit.data import Data, Dataset

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
    seeds: int = 1
    """Run with so many seeds, from --seed on, and show how far the scores spread."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=A,B,C: run with each of these values of an option; several of these: with every combination."""
    resume: Path | None = None
    """The folder of a run that was cut short: go on there, with its options, to the same numbers."""


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

    def keep(self, name: str = "fit") -> Path:
        """Return a folder for `checkpoint=`, so that `--resume` can go on; it is cleared when all is done."""
        return self.folder / "checkpoints" / name

    def figure(self, name: str, drawn: Any) -> None:
        """Save a figure, or the figure of some axes, in this run's folder; it appears whole or not at all.

        A notebook shows it, too.
        """
        _save_figure(self.path(name), getattr(drawn, "figure", drawn))
        plotting.show(drawn)

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
        """Tell whether the ranges hold for this run: default options, no data but real ones."""
        real = all(used.source == "real" for used in self.data.used)
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
    quick = module.get("QUICK", {})
    lesson, common = _parse(main, name, module["__doc__"], quick, args)
    options = {field.name: getattr(lesson, field.name) for field in dataclasses.fields(lesson)}
    if common.resume is not None:
        alone, _ = _parse(main, name, module["__doc__"], {}, [])
        if vars(lesson) != vars(alone) or common != Common(out=common.out, resume=common.resume):
            _refuse(name, f"--resume takes the options from the folder's report. Received: {' '.join(args)}")
        options, common = _resumed(name, common.resume, options)
    variants = [
        (label, options | values) for label, values in _variants(main, name, module["__doc__"], common.set)
    ]
    for _, each in variants:
        _check(name, each, common)

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a reader of a log file sees each line as it comes
            stream.reconfigure(line_buffering=True, errors="replace")
    _use_gpus()
    quiet.release()
    tf.get_logger().setLevel("ERROR")

    try:
        folder = common.resume or _new_folder(common.out / name)
        if len(variants) * common.seeds == 1:
            sys.exit(_run(main, name, folder, variants[0][1], common, module.get("EXPECTED", {}))[0])
        sys.exit(_study(main, name, folder, variants, common, module.get("EXPECTED", {})))
    except OSError as error:  # a full disk, a folder that cannot be written to: no fault of the recipe
        sys.exit(f"{name}: {error}")


def _run(
    main: Callable[..., None],
    name: str,
    folder: Path,
    options: dict[str, Any],
    common: Common,
    expected: Mapping[str, Any],
) -> tuple[int, study.Result, int]:
    """Run a recipe once; return the exit status, what came out, and how many bytes its data had."""
    keras.utils.set_random_seed(common.seed)
    data_bytes = 0

    def on_load(dataset: Dataset) -> None:
        nonlocal data_bytes
        data_bytes += sum(x.nbytes if x.dtype != object else sum(row.nbytes for row in x) for x, _ in dataset)
        _announce(dataset, common.seed)

    data = Data(common.data, common.data_dir, on_load=on_load)
    defaults = {key: parameter.default for key, parameter in _options_of(main).items()}
    run = Run(name, folder, data, common.seed, expected, options == defaults)
    started = time.perf_counter()

    def report(status: str, error: str = "", verdict: Verdict = "not judged") -> float:
        seconds = round(time.perf_counter() - started, 3)
        content = {
            "recipe": name,
            "status": status,
            "error": error,
            "options": options,
            "seed": common.seed,
            "command": {key: getattr(common, key) for key in ("quick", "data", "data_dir")},
            "metrics": run.metrics,
            "expected": expected,
            "verdict": verdict,
            "data": [
                {"name": used.name, "source": used.source, "files": used.files, "reason": used.reason}
                for used in data.used
            ],
            "seconds": seconds,
            "versions": _versions(),
            "device": _device(),
        }
        _write(run.path("report.json"), content)
        return seconds

    status, error_text = "failed", ""
    verdict: Verdict = "not judged"
    report("running")  # so that --resume finds the options of a run that was killed
    try:
        main(run, **options)
        status = "finished"
        if run.judged():
            verdict = "inside" if run.inside() else "outside"
        shutil.rmtree(run.path("checkpoints"), ignore_errors=True)
    except KeyboardInterrupt:
        status = "interrupted"
    except OSError as error:  # no data, a full disk: the message is the whole story
        error_text = str(error)
    except BaseException as error:
        error_text = repr(error)
        raise
    finally:
        seconds = report(status, error_text, verdict)
    _conclude(run, status, error_text, verdict, seconds)
    code = {"interrupted": 130, "failed": 1}.get(status, int(verdict == "outside"))
    return code, study.Result("", common.seed, run.metrics, verdict, seconds, folder), data_bytes


def _study(
    main: Callable[..., None],
    name: str,
    folder: Path,
    variants: list[tuple[str, dict[str, Any]]],
    common: Common,
    expected: Mapping[str, Any],
) -> int:
    """Run a recipe with every variant and every seed; print a table and draw a figure of all of them."""
    jobs = [(label, options, common.seed + i) for label, options in variants for i in range(common.seeds)]
    titles = [" ".join([*([label] if label else []), f"seed={seed}"]) for label, _, seed in jobs]
    outcomes: dict[int, tuple[int, study.Result]] = {}

    def work(number: int, head: str = "") -> int:
        label, options, seed = jobs[number]
        place = folder / re.sub(r"[^\w=.,+ -]", "_", titles[number]).replace(" ", "_")
        place.mkdir()
        with (place / "output.txt").open("w", encoding="utf-8") as output, contextlib.redirect_stdout(output):
            own = dataclasses.replace(common, seed=seed)
            code, result, data_bytes = _run(main, name, place, options, own, expected)
        scores = ", ".join(f"{key} {_number(value)}" for key, value in result.metrics.items())
        print(f"{head} {result.seconds:.0f} s: {scores}")
        outcomes[number] = (
            code if result.verdict != "outside" else 0,
            dataclasses.replace(result, label=label),
        )
        return data_bytes

    heads = [f"[{number}/{len(jobs)}] {title} ..." for number, title in enumerate(titles, 1)]
    interrupted = False
    print(heads[0], end="", flush=True)
    work(0)
    for number in range(1, len(jobs)):
        if interrupted or any(code for code, _ in outcomes.values()):
            break
        if number not in outcomes:
            keras.backend.clear_session()  # or the names of layers would go on counting
            print(heads[number], end="", flush=True)
            work(number)
    code = max(130 * interrupted, *(code for code, _ in outcomes.values()))
    results = [result for _, (failed, result) in sorted(outcomes.items()) if not failed]
    if results:
        print("", study.table(results), sep="\n")
        _save_figure(folder / "study.png", study.draw(results, name))
        _write(folder / "study.json", [dataclasses.asdict(result) for result in results])
    print(f"Reports, table and figure: {folder}")
    outside = sum(result.verdict == "outside" for result in results)
    if outside:
        print(f"{outside} of {len(results)} runs landed outside the expected ranges.")
    return 1 if outside else code


def _resumed(name: str, folder: Path, options: dict[str, Any]) -> tuple[dict[str, Any], Common]:
    """Return the options of the run in a folder."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if report["recipe"] != name or set(report["options"]) != set(options):
            _refuse(name, f"--resume must be the folder of a run of {name}. Received: {folder}")
        if report["status"] == "finished":
            _refuse(name, f"--resume must be a run that was cut short. Received: {folder}, which is finished")
        kept = report["command"]
        data_dir = kept["data_dir"] and Path(kept["data_dir"])
        common = Common(report["seed"], folder.parent, kept["quick"], kept["data"], data_dir, resume=folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        _refuse(
            name, f"--resume must be the folder of a run, with its report.json. Received: {folder} ({error})"
        )
    return {
        key: tuple(value) if isinstance(options[key], tuple) else value
        for key, value in report["options"].items()
    }, common


def _variants(
    main: Callable[..., None], name: str, doc: str, sweeps: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Return every combination of what `--set` asks for, with a label; one without a change if nothing."""
    columns = []
    parameters = _options_of(main)
    for sweep in sweeps:
        key, _, values = sweep.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if key not in parameters or not values:
            _refuse(
                name, f"--set must be NAME=A,B,C with a NAME of {', '.join(parameters)}. Received: {sweep}"
            )
        column = []
        for text in values.split(","):
            option = key.replace("_", "-")
            given = [f"--{option}", text]
            if isinstance(parameters[key].default, bool):
                if text.lower() not in ("true", "false"):
                    _refuse(name, f"--set {key} must be true or false. Received: {text}")
                given = [f"--{option}" if text.lower() == "true" else f"--no-{option}"]
            column.append((f"{key}={text}", {key: getattr(_parse(main, name, doc, {}, given)[0], key)}))
        columns.append(column)
    combinations = itertools.product(*columns)
    return [
        (
            ", ".join(label for label, _ in chosen),
            {key: value for _, values in chosen for key, value in values.items()},
        )
        for chosen in combinations
    ]


def _check(name: str, options: Mapping[str, Any], common: Common) -> None:
    for key, value in [*options.items(), ("seeds", common.seeds)]:
        if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
            _refuse(name, f"--{key.replace('_', '-')} must be greater than 0. Received: {value}")
    if not 0 <= common.seed <= 2**32 - common.seeds:
        _refuse(name, f"--seed must be in 0..{2**32 - common.seeds}. Received: {common.seed}")


def _write(path: Path, content: Any) -> None:
    """Write JSON; the file appears whole or not at all."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _save_figure(path: Path, figure: Any) -> None:
    unfinished = path.with_name(f"unfinished-{path.name}")
    figure.savefig(unfinished)
    unfinished.replace(path)


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


def _conclude(run: Run, status: str, error: str, verdict: Verdict, seconds: float) -> None:
    samples = [used.name for used in run.data.used if used.source == "sample"]
    if status == "failed":
        print(f"{run.name}: {error}", file=sys.stderr)
    elif status == "interrupted":
        print(f"\nInterrupted. The report holds what was reached; --resume {run.folder} goes on.")
    elif verdict != "not judged":
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
