"""`cli` and `begin`, which start a recipe, and `Run`, which its `main` is given."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy.typing as npt

from toolkit import caching, quiet
from toolkit.data import Data
from toolkit.run import options, report
from toolkit.run.recipe import Recipe

__all__ = ["Run", "begin", "cli"]


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

    def shared(self, name: str) -> Path:
        """Return a folder beside those of all recipes, which every run of them finds, one of a study too."""
        own = next(folder for folder in self.folder.parents if folder.name == self.name)
        return own.parent / name

    def keep(self, name: str = "fit") -> Path:
        """Return a folder for `checkpoint=`, so that `--resume` can go on; it is cleared when all is done."""
        return self.folder / "checkpoints" / name

    def figure(self, name: str, drawn: Any) -> None:
        """Save a figure, or the figure of some axes, in this run's folder; it appears whole or not at all.

        One that was drawn from the embedded sample says so in a corner.
        """
        from toolkit import plotting

        figure = getattr(drawn, "figure", drawn)
        if any(used.source == "sample" for used in self.data.used):
            figure.text(0.005, 0.005, "sample data", color="gray", fontsize="small")
        report.save_figure(self.path(name), figure)
        plotting.show(figure)

    def log(self, name: str = "history.csv") -> Any:
        """Return a `keras.callbacks.CSVLogger` that writes a file in this run's folder, epoch by epoch."""
        import keras  # a study needs none

        return keras.callbacks.CSVLogger(self.path(name))

    def score(self, **metrics: float) -> None:
        """Record scores, and print each beside the range that it must land in.

        Scores recorded before an interruption stay in the report.
        """
        for name, value in metrics.items():
            self.metrics[name] = float(value)
            print(f"  {name:<24} {report.number(float(value)):>8}   {self._range(name)}".rstrip())

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
        from toolkit.run import elsewhere

        return elsewhere.predict(f"recipes.{self.name}", paths, x, train)

    def judged(self) -> bool:
        """Tell whether the ranges hold for this run: default options, no data but real ones."""
        real = all(used.source == "real" for used in self.data.used)
        return self.default and real and bool(self.expected)

    def inside(self) -> bool:
        """Tell whether every expected score is there and in its range."""
        return not report.outside(self.metrics, self.expected)

    def _range(self, name: str) -> str:
        if name not in self.expected or not self.judged():
            return ""
        low, high = self.expected[name]
        return f"(expected {report.number(low)} to {report.number(high)})"


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
    recipe = Recipe.of(main)
    chosen, common = _asked(recipe, sys.argv[1:] if args is None else args)
    _use_compile_cache()
    from toolkit.run import once

    try:
        sys.exit(
            once.run(recipe, chosen, common, common.resume or report.new_folder(common.out / recipe.name))
        )
    except OSError as error:  # a full disk, a folder that cannot be written to: no fault of the recipe
        sys.exit(f"{recipe.name}: {error}")


def begin(path: Path, args: Sequence[str]) -> None:
    """Do what needs no TensorFlow before a recipe imports it: help, mistakes in the options, a study.

    Then say that TensorFlow starts, if on a terminal: it takes seconds, in which Ctrl-C just ends all.

    Args:
        path: The file of the recipe.
        args: The command line after its name.

    Raises:
        SystemExit: If nothing is left to do.
    """
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(signal.SIGINT, _end_at_once)
    _asked(Recipe.read(path), args)
    quiet.start()
    if sys.stdout.isatty():
        print("Starting TensorFlow ...", flush=True)
    gc.disable()  # imports make many objects and hardly any garbage: to look for it takes long


def started() -> None:
    """Let Ctrl-C interrupt the recipe, or study, and garbage be collected: `begin` had put an end to both."""
    if not gc.isenabled():
        gc.freeze()  # what is there now stays: nobody need look at it again
        gc.enable()
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _use_compile_cache() -> None:
    """Let XLA keep what it compiles, unless RECIPES_CACHE is "off"; it may name the folder, too."""
    chosen = os.environ.get("RECIPES_CACHE", "")
    if chosen.lower() == "off":
        return
    try:
        caching.compile_cache(chosen or None)
    except RuntimeError:  # the user's own settings of XLA, or a notebook in which TensorFlow has run
        pass
    except OSError as error:
        print(f"No compile cache: {error}", file=sys.stderr)


def _end_at_once(*_: object) -> NoReturn:
    print("\nInterrupted.", flush=True)
    os._exit(130)  # nothing is begun, and libraries in the middle of their import are better not asked


@contextlib.contextmanager
def _for_a_reader() -> Iterator[None]:
    """End without a complaint where whoever reads what is printed, the help, has left, as `head` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(report.BROKEN_PIPE)


def _asked(recipe: Recipe, args: Sequence[str]) -> tuple[options.Options, options.Common]:
    """Return the options of the one run that is asked for; a study is run here, and ends the process."""
    with _for_a_reader():
        chosen, common = options.parse(recipe, args)
    if common.no_cache:
        os.environ["RECIPES_CACHE"] = "off"  # for the runs of a study, too
    if common.resume is not None:
        free = ("out", "resume", "jobs", "cluster", "insecure", "no_cache")
        alone = {name: getattr(common, name) for name in free}
        if chosen != recipe.defaults() or common != options.Common(**alone):
            text = f"--resume takes the options from the folder's report. Received: {' '.join(args)}"
            options.refuse(recipe, text)
        if (common.resume / "study.json").exists():
            from toolkit.run import study

            started()
            sys.exit(study.resume(recipe, common.resume, common))
        return options.resumed(recipe, common.resume)
    variants = options.variants(recipe, chosen, common.set)
    if len(variants) * common.seeds == 1:
        return next(iter(variants.values())), common
    from toolkit.run import study

    started()
    sys.exit(study.run(recipe, variants, common))
