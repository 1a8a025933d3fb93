"""Measure the toolkit against what it stands beside, and print a Markdown table.

Every figure comes from a process of its own; the two sides take turns, and medians are shown. Each side gives
a number besides its time (a loss, an accuracy, a sum), and the table says whether the two agree.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Side = Callable[[], tuple[float, float]]  # seconds, and the number to compare


@dataclasses.dataclass
class Goal:
    """What is asked of ours; a limit is what arithmetic alone allows, so that nothing can be above it."""

    times: float = 0.0  # sooner than the baseline, at least
    seconds: float = math.inf  # at most
    megabytes: float = math.inf  # at most
    limit: float = 0.0  # times

    def __str__(self) -> str:
        parts = [f"{self.times:g} times"] if self.times else []
        parts += [f"{self.seconds:g} s"] if self.seconds < math.inf else []
        parts += [f"{self.megabytes:g} MB"] if self.megabytes < math.inf else []
        parts += [f"limit {self.limit:g}"] if self.limit else []
        return ", ".join(parts)

    def reached(self, times: float, seconds: float, megabytes: float) -> str:
        """Say whether, and of a limit how much of it."""
        if self.limit:
            return f"{times / self.limit:.0%}"
        within = times >= self.times and seconds <= self.seconds and megabytes <= self.megabytes
        return ("yes" if within else "no") if str(self) else ""


@dataclasses.dataclass
class Benchmark:
    """Two ways to do the same, and how closely their numbers must agree (None: they are not comparable)."""

    title: str
    ours: Side
    baseline: Side
    agree: float | None
    whole: bool = False  # time and memory of the whole process, start-up and all
    again: bool = False  # ours is a second run: another process has compiled all before
    goal: Goal = dataclasses.field(default_factory=Goal)


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds that `work` takes and the number that it returns."""
    start = time.perf_counter()
    number = work()
    return time.perf_counter() - start, number


# Networks and data, as the books have them.


def text_data(name: str, sparse: bool) -> tuple[Any, Any]:
    import toolkit

    (reviews, y), _ = getattr(toolkit.Data("real"), name)(num_words=10_000)
    return toolkit.multi_hot(reviews, 10_000, sparse=sparse), y


def compiled(layers: list[Any], loss: str, metric: str = "accuracy") -> Any:
    import keras

    model = keras.Sequential(layers)
    model.compile(optimizer="rmsprop", loss=loss, metrics=[metric])
    return model


def mnist_mlp() -> Any:
    from keras import Input, layers

    hidden = [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(512, activation="relu")]
    return compiled(
        [Input((28, 28)), *hidden, layers.Dense(10, activation="softmax")], "sparse_categorical_crossentropy"
    )


def text_mlp(units: int, classes: int, sparse: bool = False) -> Any:
    from keras import Input, layers

    inputs = Input((10_000,), sparse=sparse)

    hidden = [layers.Dense(units, activation="relu") for _ in range(2)]
    if classes == 1:
        return compiled([inputs, *hidden, layers.Dense(1, activation="sigmoid")], "binary_crossentropy")
    output = layers.Dense(classes, activation="softmax")
    return compiled([inputs, *hidden, output], "sparse_categorical_crossentropy")


def house_mlp(x_train: Any) -> Any:
    from keras import Input, layers

    import toolkit

    hidden = [layers.Dense(64, activation="relu") for _ in range(2)]
    scale = toolkit.Standardizer.fit(x_train).layer()
    return compiled([Input(x_train.shape[1:]), scale, *hidden, layers.Dense(1)], "mse", "mae")


# Measured in place of its convolutions, a step forward and back of 64 images (2 cores, AVX-512, CPU time):
# TensorFlow's kernel 8 ms; patches and a matrix product 16; slices and a product 27, nine products and their
# sum 38, and no less under XLA. The graph optimizer's other layout (NCHW), no layout pass, and no or more
# remapping change nothing.


def cnn() -> Any:
    from keras import Input, layers

    convolutions = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()]
    convolutions += [layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    head = layers.Dense(10, activation="softmax")
    return compiled(
        [Input((28, 28, 1)), layers.Rescaling(1 / 255), *convolutions, head],
        "sparse_categorical_crossentropy",
    )


def lstm() -> Any:
    from keras import Input, layers

    return compiled(
        [Input((100,)), layers.Embedding(1000, 32), layers.LSTM(32), layers.Dense(1, activation="sigmoid")],
        "binary_crossentropy",
    )


# The same training by model.fit and by toolkit.fit. Without shuffling, so that the losses must agree.


def fitting(prepare: Callable[[], tuple[Any, Any, Any, dict[str, Any]]], ours: bool) -> Side:
    def side() -> tuple[float, float]:
        import toolkit

        if ours and (folder := os.environ["RECIPES_CACHE"]) != "off":
            toolkit.compile_cache(folder)
        build, x, y, options = prepare()  # before TensorFlow is there: the lists in Keras's files are large
        import keras

        keras.utils.set_random_seed(0)  # before the layers, which draw their own seeds
        model = build()
        fit = (lambda *a, **k: toolkit.fit(model, *a, **k)) if ours else model.fit
        return timed(lambda: fit(x, y, shuffle=False, verbose=0, **options).history["loss"][0])

    return side


def prepare_mnist() -> tuple[Any, Any, Any, dict[str, Any]]:
    import toolkit

    (x, y), _ = toolkit.Data("real").mnist()
    return mnist_mlp, x, y, {"epochs": 5, "batch_size": 128}


def prepare_imdb(sparse: bool) -> tuple[Any, Any, Any, dict[str, Any]]:
    x, y = text_data("imdb", sparse)
    return lambda: text_mlp(16, 1, sparse), x, y, {"epochs": 20, "batch_size": 512, "validation_split": 0.4}


def prepare_reuters() -> tuple[Any, Any, Any, dict[str, Any]]:
    x, y = text_data("reuters", True)
    return lambda: text_mlp(64, 46, True), x, y, {"epochs": 20, "batch_size": 512, "validation_split": 1 / 9}


def prepare_cnn() -> tuple[Any, Any, Any, dict[str, Any]]:
    import toolkit

    (x, y), _ = toolkit.Data("real").mnist()
    return cnn, x[:6000, ..., None], y[:6000], {"epochs": 3, "batch_size": 64}


def prepare_lstm() -> tuple[Any, Any, Any, dict[str, Any]]:
    import numpy as np

    generator = np.random.default_rng(0)
    x = generator.integers(0, 1000, (1500, 100)).astype("int32")
    return lstm, x, (x[:, -1] % 2).astype("float32"), {"epochs": 20, "batch_size": 32}


def prepare_california() -> tuple[Any, Any, Any, dict[str, Any]]:
    import toolkit

    (x, y), _ = toolkit.Data("real").california_housing()
    return lambda: house_mlp(x), x, y / 1e5, {"epochs": 10, "batch_size": 32, "validation_split": 0.2}


def prepare_tiny() -> tuple[Any, Any, Any, dict[str, Any]]:
    import toolkit

    (x, y), _ = toolkit.Data("real").boston_housing()
    return lambda: house_mlp(x), x, y, {"epochs": 1, "batch_size": 32}


# Cross-validation.


def boston() -> tuple[Any, Any]:
    import toolkit

    training, _ = toolkit.Data("real").boston_housing()
    return training


def validate_ours(folds: int = 4, repeats: int = 1, epochs: int = 500) -> Side:
    def side() -> tuple[float, float]:
        import keras
        import numpy as np

        import toolkit

        x, y = boston()
        splits = [split for r in range(repeats) for split in toolkit.kfold(len(x), folds, seed=r)]

        def work() -> float:
            keras.utils.set_random_seed(0)
            models = [house_mlp(x[train]) for train, _ in splits]
            options = {"epochs": epochs, "batch_size": 16, "shuffle": False, "verbose": 0}
            histories = toolkit.fit_many(models, x, y, splits, **options)
            return float(np.mean([history.history["val_mae"][4] for history in histories]))

        return timed(work)

    return side


def validate_keras() -> tuple[float, float]:
    import keras
    import numpy as np

    import toolkit

    x, y = boston()

    def work() -> float:
        keras.utils.set_random_seed(0)
        models = [house_mlp(x[train]) for train, _ in toolkit.kfold(len(x), 4, seed=0)]
        scores = []
        for model, (train, validation) in zip(models, toolkit.kfold(len(x), 4, seed=0), strict=True):
            options = {"epochs": 500, "batch_size": 16, "shuffle": False, "verbose": 0}
            data = (x[validation], y[validation])
            scores.append(
                model.fit(x[train], y[train], validation_data=data, **options).history["val_mae"][4]
            )
        return float(np.mean(scores))

    return timed(work)


def validate_sklearn() -> tuple[float, float]:
    import warnings

    import numpy as np
    from sklearn.neural_network import MLPRegressor

    import toolkit

    x, y = boston()

    def work() -> float:
        scores = []
        for train, validation in toolkit.kfold(len(x), 4, seed=0):
            scale = toolkit.Standardizer.fit(x[train])
            model = MLPRegressor(
                hidden_layer_sizes=(64, 64), batch_size=16, max_iter=500, n_iter_no_change=500, tol=0
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(scale(x[train]), y[train])
            scores.append(np.abs(model.predict(scale(x[validation])) - y[validation]).mean())
        return float(np.mean(scores))

    return timed(work)


# Helpers, loaders, start-up.


def vectorize(how: str) -> Side:
    def side() -> tuple[float, float]:
        import numpy as np

        import toolkit

        (reviews, _), _ = toolkit.Data("real").imdb(num_words=10_000)

        def work() -> float:
            if how == "sklearn":
                from sklearn.preprocessing import MultiLabelBinarizer

                return float(MultiLabelBinarizer(classes=range(10_000)).fit_transform(reviews).sum())
            if how == "loop":
                result = np.zeros((len(reviews), 10_000), dtype="float32")
                for row, review in enumerate(reviews):
                    result[row, review] = 1.0
                return float(result.sum(dtype="float64"))
            if how == "ours float32":
                return float(toolkit.multi_hot(reviews, 10_000, dtype="float32").sum(dtype="float64"))
            return float(toolkit.multi_hot(reviews, 10_000, sparse=how == "ours sparse").sum(dtype="float64"))

        return timed(work)

    return side


def load_ours() -> tuple[float, float]:
    import toolkit
    import toolkit.data

    return timed(
        lambda: float(sum(x.sum() for (rows, _) in toolkit.Data("real").imdb(num_words=10_000) for x in rows))
    )


def load_keras() -> tuple[float, float]:
    from keras.datasets import imdb

    return timed(lambda: float(sum(sum(x) for (rows, _) in imdb.load_data(num_words=10_000) for x in rows)))


# Files of models.


def model_of(name: str) -> Any:
    """Make a model of ResNet50 or DenseNet201, or of dense layers with so many megabytes."""
    import keras

    keras.utils.set_random_seed(0)
    if not name.isdigit():
        return getattr(keras.applications, name)(weights=None)
    units, depth = {"1": (512, 1), "50": (1024, 12), "200": (2048, 12)}[name]
    hidden = [keras.layers.Dense(units, activation="relu") for _ in range(depth)]
    return compiled([keras.Input((units,)), *hidden], "mse", "mae")


def saving(name: str, ours: bool, flushed: bool = False) -> Side:
    """Save a model; Keras's side, where that is asked for, with the wait for the disk that ours has."""

    def side() -> tuple[float, float]:
        import toolkit
        import toolkit._files

        save, flush, model = toolkit.save, toolkit._files.flush, model_of(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")

            def work() -> float:
                save(model, path) if ours else model.save(path)
                if flushed and not ours:
                    flush(path)
                return path.stat().st_size

            return timed(work)

    return side


def loading(name: str, ours: bool) -> Side:
    def side() -> tuple[float, float]:
        import keras

        import toolkit

        load = toolkit.load if ours else keras.saving.load_model
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            code = f"import bench; bench.model_of({name!r}).save({str(path)!r})"  # its memory is not ours
            subprocess.run(
                [sys.executable, "-c", code], check=True, cwd=Path(__file__).parent, capture_output=True
            )
            loaded = []
            seconds, _ = timed(lambda: loaded.append(load(path)) or 0.0)
            return seconds, float(sum(abs(weight).sum() for weight in loaded[0].get_weights()))

    return side


# Whole recipes against the books' scripts: fresh process, from command to prompt.


def recipe(name: str, score: str, *args: str) -> Side:
    def side() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", f"recipes.{name}", "--data", "real", "--out", folder, *args]
            return run_whole(command, lambda: report(folder)["metrics"][score])

    return side


def study(jobs: int, seeds: int = 10) -> Side:
    def side() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "recipes.imdb", "--data", "real", "--out", folder]
            command += ["--seeds", str(seeds), "--jobs", str(jobs)]
            return run_whole(command, lambda: scores(folder))

    return side


def drive(jobs: int) -> Side:
    """Measure what a study takes of its own process, in CPU seconds a job: of jobs that do nothing."""

    def side() -> tuple[float, float]:
        from recipes import imdb
        from toolkit.run import study
        from toolkit.run.options import Common
        from toolkit.run.recipe import Recipe

        finish = (
            "import json, pathlib, sys; path = pathlib.Path(sys.argv[2], 'report.json');"
            "score = {'metrics': {'test_accuracy': 0.88}, 'status': 'finished', 'verdict': 'inside'};"
            "path.write_text(json.dumps(json.loads(path.read_text()) | score))"
        )
        recipe = dataclasses.replace(Recipe.of(imdb.main), start=("-S", "-c", finish))
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            before = time.process_time()
            study.run(recipe, {"": recipe.defaults()}, Common(out=Path(folder), seeds=jobs))
            return (time.process_time() - before) / jobs, scores(folder) / (jobs * (jobs + 1) / 2)

    return side


def scores(folder: str) -> float:
    """Return the sum of a study's scores, each weighed by its seed: it is another one if any differs."""
    (path,) = Path(folder).rglob("study.json")
    jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
    return sum((job["seed"] + 1) * sum(job["metrics"].values()) for job in jobs)


def book_imdb() -> tuple[float, float]:
    code = """
import numpy as np, keras
from keras import layers
(train, y), (test, y_test) = keras.datasets.imdb.load_data(num_words=10000)
def vectorize(sequences):
    result = np.zeros((len(sequences), 10000))
    for row, sequence in enumerate(sequences):
        result[row, sequence] = 1.0
    return result
x, x_test = vectorize(train), vectorize(test)
y, y_test = np.asarray(y).astype("float32"), np.asarray(y_test).astype("float32")
def build():
    model = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(16, activation="relu"),
                              layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer="rmsprop", loss="binary_crossentropy", metrics=["accuracy"])
    return model
held_out = x[:10000], y[:10000]
build().fit(x[10000:], y[10000:], epochs=20, batch_size=512, validation_data=held_out, verbose=0)
model = build()
model.fit(x, y, epochs=4, batch_size=512, verbose=0)
print(model.evaluate(x_test, y_test, verbose=0)[1])
model.predict(x_test, verbose=0)
"""
    return run_whole([sys.executable, "-c", code], None)


def run_whole(command: list[str], number: Callable[[], float] | None) -> tuple[float, float]:
    """Run a command and return its wall time and its number: from `number`, or what it printed last."""
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    return seconds, number() if number else float(result.stdout.split()[-1])


def report(folder: str) -> dict[str, Any]:
    (path,) = Path(folder).rglob("report.json")
    return json.loads(path.read_text(encoding="utf-8"))


def list_recipes() -> tuple[float, float]:
    return run_whole([sys.executable, "-m", "recipes"], lambda: 0.0)


def python_alone() -> tuple[float, float]:
    return run_whole([sys.executable, "-c", ""], lambda: 0.0)


def import_toolkit() -> tuple[float, float]:
    code = "import toolkit; toolkit.kfold(10, 2), toolkit.multi_hot([[1]], 2)"
    return run_whole([sys.executable, "-c", code], lambda: 0.0)


def import_keras() -> tuple[float, float]:
    return run_whole([sys.executable, "-c", "import keras"], lambda: 0.0)


# How near an epoch of the MNIST network comes to the matrix products that it cannot do without.


def mnist_epoch() -> tuple[float, float]:
    import keras

    import toolkit

    (x, y), _ = toolkit.Data("real").mnist()
    model, starts = mnist_mlp(), []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: starts.append(time.perf_counter())
    )
    toolkit.fit(model, x, y, epochs=8, batch_size=128, verbose=0, callbacks=[clock])
    epochs = [after - before for before, after in itertools.pairwise(starts)]
    return statistics.median(epochs[2:]), 0.0


def matrix_products() -> tuple[float, float]:
    import tensorflow as tf

    x, w, h = tf.random.normal((128, 784)), tf.random.normal((784, 512)), tf.random.normal((128, 512))
    v, p = tf.random.normal((512, 10)), tf.random.normal((128, 10))

    @tf.function(jit_compile=True)
    def epoch(x, w, h, v, p):
        def step(i, total):  # forward, and backward for weights and hidden layer: five products a step
            forward = tf.matmul(x + total, w), tf.matmul(h + total, v)
            backward = tf.matmul(x + total, h, transpose_a=True), tf.matmul(h + total, p, transpose_a=True)
            error = tf.matmul(p + total, v, transpose_b=True)
            products = (*forward, *backward, error)
            return i + 1, total + 1e-20 * tf.add_n([tf.reduce_max(product) for product in products])

        return tf.while_loop(lambda i, total: i < 469, step, (0, 0.0))[1]

    epoch(x, w, h, v, p)
    return statistics.median(timed(lambda: float(epoch(x, w, h, v, p)))[0] for _ in range(8)), 0.0


def pair(prepare: Callable[[], tuple[Any, Any, Any, dict[str, Any]]]) -> tuple[Side, Side]:
    return fitting(prepare, True), fitting(prepare, False)


MODELS = {"1": "1 MB", "50": "50 MB", "200": "200 MB", "ResNet50": "ResNet50", "DenseNet201": "DenseNet201"}
BENCHMARKS = {
    "mnist": Benchmark("MNIST MLP, 5 epochs: fit / model.fit", *pair(prepare_mnist), 2e-3),
    "imdb": Benchmark(
        "IMDB uint8, 20 epochs, validation: fit / model.fit", *pair(lambda: prepare_imdb(False)), 2e-3
    ),
    "imdb_csr": Benchmark(
        "IMDB CSR, 20 epochs, validation: fit / model.fit",
        *pair(lambda: prepare_imdb(True)),
        2e-3,
        goal=Goal(times=5, megabytes=700),
    ),
    "reuters": Benchmark(
        "Reuters CSR, 20 epochs, validation: fit / model.fit",
        *pair(prepare_reuters),
        2e-3,
        goal=Goal(times=4),
    ),
    "cnn": Benchmark("CNN, 6,000 images, 3 epochs: fit / model.fit", *pair(prepare_cnn), 2e-3),
    "lstm": Benchmark("LSTM(32), 1,500 x 100, 20 epochs: fit / model.fit", *pair(prepare_lstm), 2e-3),
    "california": Benchmark(
        "California MLP, 10 epochs, validation: fit / model.fit", *pair(prepare_california), 2e-3
    ),
    "tiny": Benchmark(
        "Boston MLP, 1 epoch: fit / model.fit", *pair(prepare_tiny), 1e-4, goal=Goal(seconds=0.35)
    ),
    "folds": Benchmark(
        "Boston, 4 folds x 500 epochs: fit_many / model.fit", validate_ours(), validate_keras, 1e-3
    ),
    "sklearn": Benchmark("the same: fit_many / MLPRegressor", validate_ours(), validate_sklearn, None),
    "folds10": Benchmark("10 folds x 500 epochs / 4 folds", validate_ours(10), validate_ours(), None),
    "seeds50": Benchmark("50 models x 500 epochs / 4 folds", validate_ours(5, 10), validate_ours(), None),
    "peak": Benchmark(
        "MNIST epoch / its bare matrix products", mnist_epoch, matrix_products, None, goal=Goal(limit=1)
    ),
    "multi_hot": Benchmark(
        "multi_hot uint8 / MultiLabelBinarizer", vectorize("ours"), vectorize("sklearn"), 0.0
    ),
    "multi_hot_csr": Benchmark(
        "multi_hot CSR / MultiLabelBinarizer", vectorize("ours sparse"), vectorize("sklearn"), 0.0
    ),
    "multi_hot_loop": Benchmark(
        "multi_hot float32 / the books' loop", vectorize("ours float32"), vectorize("loop"), 0.0
    ),
    "load": Benchmark("load IMDB / keras.datasets.imdb", load_ours, load_keras, 0.0),
    **{
        f"save_{name}".lower(): Benchmark(
            f"save {size}: toolkit.save / model.save",
            saving(name, True),
            saving(name, False),
            1e-3,
            goal=Goal(times=0.33),
        )
        for name, size in MODELS.items()
    },
    "save_200_flushed": Benchmark(
        "save 200 MB: toolkit.save / model.save and fsync",
        saving("200", True),
        saving("200", False, True),
        1e-3,
    ),
    **{
        f"load_{name}".lower(): Benchmark(
            f"load {size}: toolkit.load / load_model",
            loading(name, True),
            loading(name, False),
            1e-6,
            goal=Goal(times=0.62),
        )
        for name, size in MODELS.items()
    },
    "list": Benchmark("python -m recipes / python alone", list_recipes, python_alone, None, whole=True),
    "import": Benchmark(
        "import and use toolkit / import keras", import_toolkit, import_keras, None, whole=True
    ),
    "recipe_imdb": Benchmark(
        "recipe imdb, second run / the book's script, whole process",
        recipe("imdb", "test_accuracy"),
        book_imdb,
        0.02,
        whole=True,
        again=True,
        goal=Goal(times=4.5),
    ),
    "lstm_again": Benchmark(
        "LSTM as above, second process: fit / model.fit",
        *pair(prepare_lstm),
        2e-3,
        again=True,
        goal=Goal(times=5),
    ),
    "study": Benchmark(
        "ten seeds of imdb: --jobs 2 / --jobs 1",
        study(2),
        study(1),
        0.0,
        whole=True,
        goal=Goal(times=1.67),
    ),
    "driver_100": Benchmark("driver of a study, CPU a job: 100 jobs / 10 jobs", drive(100), drive(10), None),
    "driver_1000": Benchmark(
        "driver of a study, CPU a job: 1,000 jobs / 100 jobs", drive(1000), drive(100), None
    ),
} | {
    f"{name}_again": Benchmark(
        f"recipe {name}: second run / without the cache",
        recipe(name, score),
        recipe(name, score, "--no-cache"),
        0.0,
        whole=True,
        again=True,
        goal=Goal(times=1.15),
    )
    for name, score in (
        ("mnist", "test_accuracy"),
        ("boston", "test_mae"),
        ("imdb_sequence", "test_accuracy"),
    )
}


def measure(name: str, side: str, cache: str) -> dict[str, float]:
    """Run one side of a benchmark in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    environment["RECIPES_CACHE"] = cache if BENCHMARKS[name].again else "off"
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their byte code, too
    command = [sys.executable, __file__, "--worker", name, side]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        sys.exit(f"{name} ({side}) failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def work(name: str, side: str) -> None:
    benchmark = BENCHMARKS[name]
    seconds, number = getattr(benchmark, side)()
    who = resource.RUSAGE_CHILDREN if benchmark.whole else resource.RUSAGE_SELF
    peak = resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    print(json.dumps({"seconds": seconds, "number": number, "peak_mb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--json", type=Path, help="also write every single run to this file")
    parser.add_argument(
        "--figure", type=Path, help="also draw how many times sooner ours is, to this PNG file"
    )
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(*arguments.worker)
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')},",
        end=" ",
    )
    print(f"Python {platform.python_version()}, medians of {arguments.runs}\n")
    heads = "ours, s | baseline, s | times sooner | ours, MB | baseline, MB"
    print(f"| name | ours / baseline | {heads} | results | goal | reached |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        everything = measure_all(arguments, cache)
    if arguments.figure:
        draw(everything, arguments.figure)
    return None


def measure_all(arguments: argparse.Namespace, cache: str) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Print a row for each benchmark that is asked for, and return all runs."""
    everything = {}
    for name in arguments.only or BENCHMARKS:
        runs = {"ours": [], "baseline": []}
        if BENCHMARKS[name].again:
            measure(name, "ours", cache)
        for _ in range(arguments.runs):
            for side in runs:
                runs[side].append(measure(name, side, cache))
        everything[name] = runs
        seconds, peaks, numbers = (
            [statistics.median(run[key] for run in runs[side]) for side in runs]
            for key in ("seconds", "peak_mb", "number")
        )
        tolerance, goal = BENCHMARKS[name].agree, BENCHMARKS[name].goal
        times = seconds[1] / seconds[0]
        difference = abs(numbers[0] - numbers[1])
        relative = difference / max(abs(numbers[1]), 1e-12)
        agree = "" if tolerance is None else "agree" if relative <= tolerance else f"DIFFER by {relative:.1e}"
        print(
            f"| {name} | {BENCHMARKS[name].title} | {seconds[0]:.3g} | {seconds[1]:.3g} "
            f"| {times:.2f} | {peaks[0]:.0f} | {peaks[1]:.0f} | {agree} "
            f"| {goal} | {goal.reached(times, seconds[0], peaks[0])} |",
            flush=True,
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    return everything


def draw(everything: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """Draw the ratio of the medians as bars where both sides do the same work."""
    from matplotlib.figure import Figure

    ratios = {}
    for name, runs in everything.items():
        ours, baseline = (statistics.median(run["seconds"] for run in runs[side]) for side in runs)
        if BENCHMARKS[name].agree is not None:
            ratios[BENCHMARKS[name].title] = baseline / ours
    axes = Figure(figsize=(8, 1 + 0.32 * len(ratios)), dpi=100, layout="constrained").subplots()
    bars = axes.barh(list(ratios), [ratio - 1 for ratio in ratios.values()], left=1)
    axes.bar_label(bars, [f"{ratio:.2g}" for ratio in ratios.values()], padding=3)
    axes.invert_yaxis()
    axes.axvline(1, color="gray", linewidth=1)  # no sooner
    axes.set(title="How many times sooner", xlabel="time of the baseline / our time", xscale="log")
    axes.set(
        xlim=(0.2, 1.6 * max(ratios.values())),
        xticks=(ticks := (0.2, 0.5, 1, 2, 5, 10, 20, 50)),
        xticklabels=ticks,
    )
    axes.figure.savefig(path)


if __name__ == "__main__":
    main()
