"""Plans of small models and their training, drawn at random: plain descriptions from which a case is made."""

import dataclasses
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from keras import callbacks, layers, losses, metrics, optimizers
from training.models import BINARY, LABELS, ONE_HOT, SERIES, TOKENS, TWO, WEIGHTS, At, Seer, X, Y, stop
from training.oracle import OUTCOMES, Case, UnusableError, check_fit, check_many

# The first of each is the simplest: what fails shrinks towards it.
INPUTS = {"rows": X, "tokens": TOKENS, "series": SERIES}
LAYERS = {
    "dense": lambda: layers.Dense(4, activation="relu"),
    "tanh": lambda: layers.Dense(3, activation="tanh", kernel_regularizer="l2"),
    "dropout": lambda: layers.Dropout(0.4),
    "batch normalization": lambda: layers.BatchNormalization(),
    "layer normalization": lambda: layers.LayerNormalization(),
    "noise": lambda: layers.GaussianNoise(0.1),
    "activity": lambda: layers.ActivityRegularization(l2=0.01),
    "frozen": lambda: layers.Dense(4, trainable=False),
    "constrained": lambda: layers.Dense(3, kernel_constraint="max_norm"),
    "normalization": lambda: layers.Normalization(mean=0.5, variance=0.1),
    "lambda": lambda: layers.Lambda(keras.ops.tanh),
    "spectral": lambda: layers.SpectralNormalization(layers.Dense(3)),
}
ENTRIES = {
    "embedding": lambda: keras.Sequential([layers.Embedding(20, 3), layers.GlobalAveragePooling1D()]),
    "masked lstm": lambda: keras.Sequential([layers.Embedding(20, 3, mask_zero=True), layers.LSTM(3)]),
    "gru": lambda: layers.GRU(3),
    "flattened": lambda: layers.Flatten(),
    "conv": lambda: keras.Sequential([layers.Conv1D(3, 2, activation="relu"), layers.GlobalMaxPooling1D()]),
}
ENTRIES_OF = {"rows": [None], "tokens": ["embedding", "masked lstm"], "series": ["flattened", "gru", "conv"]}
OPTIMIZERS = {
    "sgd": lambda **k: optimizers.SGD(0.05, **k),
    "momentum": lambda **k: optimizers.SGD(0.05, momentum=0.9, nesterov=True, **k),
    "adam": lambda **k: optimizers.Adam(0.01, epsilon=1e-3, **k),
    "rmsprop": lambda **k: optimizers.RMSprop(0.01, epsilon=1e-3, **k),
    "adamw": lambda **k: optimizers.AdamW(0.01, epsilon=1e-3, **k),
    "adagrad": lambda **k: optimizers.Adagrad(0.05, **k),
    "nadam": lambda **k: optimizers.Nadam(0.01, epsilon=1e-3, **k),
    "adamax": lambda **k: optimizers.Adamax(0.01, epsilon=1e-3, **k),
    "schedule": lambda **k: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 5, 0.8), **k),
}
EXTRAS = {
    "none": {},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.05},
    "weight decay": {"weight_decay": 0.05},
    "moving average": {"use_ema": True, "ema_momentum": 0.8},
    "overwriting average": {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 2},
    "accumulation": {"gradient_accumulation_steps": 2},
}
HEADS = {  # units, activation, y, losses, metrics
    "number": (1, None, Y, ["mse", "mae", "huber", "log_cosh"], ["mae", "mse", "r2_score"]),
    "two": (2, None, TWO, ["mse", "mae"], ["mae", "root_mean_squared_error"]),
    "class": (3, "softmax", LABELS, ["sparse_categorical_crossentropy"], ["accuracy"]),
    "one-hot": (
        3,
        "softmax",
        ONE_HOT,
        ["categorical_crossentropy", "kl_divergence"],
        ["accuracy", "F1Score"],
    ),
    "binary": (1, "sigmoid", BINARY, ["binary_crossentropy", "dice", "tversky"], ["accuracy", "AUC", "f1"]),
}
REDUCTIONS = [None, "sum", "mean_with_sample_weight"]
CALLBACKS = {
    "seer": lambda folder: Seer(),
    "early stopping": lambda folder: callbacks.EarlyStopping("loss", patience=0, min_delta=0.1),
    "best weights": lambda folder: callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True),
    "plateau": lambda folder: callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.2),
    "scheduler": lambda folder: callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch)),
    "stop at once": lambda folder: At("on_epoch_begin", stop, 1),
    "stop": lambda folder: At("on_epoch_end", stop, 1),
}
POLICIES = [None, "mixed_bfloat16", "float64", "mixed_float16"]
BUILDS = ["functional", "sequential", "subclass", "unbuilt"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a model is made of, and how it is trained."""

    models: int  # 0: `fit`; else so many for `fit_many`
    build: str
    entries: tuple[tuple[str, str | None], ...]  # kind of input and the layer that makes rows of it
    layers: tuple[str, ...]
    twice: bool  # the first layer is used a second time
    heads: tuple[tuple[str, str, str | None, tuple[str, ...]], ...]  # kind, loss, reduction, metrics
    optimizer: str
    extra: str
    weights: str | None
    callbacks: tuple[str, ...]
    batch_size: int
    rows: int
    epochs: int
    validation: bool
    policy: str | None
    goes_on: bool  # whether to use the trained models further

    def case(self) -> Case:
        x = [INPUTS[kind] for kind, _ in self.entries]
        y = [HEADS[kind][2] for kind, *_ in self.heads]
        x, y = (values[0] if len(values) == 1 else values for values in (x, y))
        options = {"batch_size": self.batch_size, "epochs": self.epochs}
        weights = WEIGHTS if len(self.heads) == 1 else [WEIGHTS] * len(self.heads)
        if self.weights == "rows":
            options["sample_weight"] = weights
        if self.weights == "classes":
            options["class_weight"] = {0: 0.5, 1: 2.0}
        exact = {"rtol": 1e-5, "atol": 1e-6} if not self.models else {"rtol": 1e-3, "atol": 1e-4}
        loose = {"rtol": 5e-2, "atol": 5e-2} if "mixed" in (self.policy or "") else exact
        made = lambda *arguments: [CALLBACKS[name](arguments[-1]) for name in self.callbacks]  # noqa: E731
        common = {"y": y, "policy": self.policy, "callbacks": made if self.callbacks else None, **loose}
        common["goes_on"] = self.goes_on
        if self.models:
            return Case(build=lambda i: self.model(), x=x, options=options, splits=self.splits(), **common)
        first = slice(self.rows)
        x, y, options = (cut(value, first) for value in (x, y, options))
        if self.validation:
            options["validation_split"] = 0.3
        return Case(build=self.model, x=x, options=options, **(common | {"y": y}))

    def splits(self) -> list[tuple[list[int], list[int] | None]]:
        rows = np.random.default_rng(self.rows).permutation(40).tolist()
        sizes = [max(2, self.rows // 2 - 3 * i) for i in range(self.models)]
        return [
            (rows[i : i + size], rows[i + size : 40] if self.validation else None)
            for i, size in enumerate(sizes)
        ]

    def model(self) -> keras.Model:
        parts = [ENTRIES[entry]() if entry else None for _, entry in self.entries]
        inner = [LAYERS[name]() for name in self.layers]
        outer = [
            layers.Dense(HEADS[kind][0], activation=HEADS[kind][1], dtype=None) for kind, *_ in self.heads
        ]

        def flow(inputs):
            rows = [part(each) if part else each for part, each in zip(parts, inputs, strict=True)]
            hidden = layers_concatenated(rows)
            for i, layer in enumerate(inner):
                hidden = layer(hidden)
                if self.twice and i == 0 and hidden.shape[-1] == 4:
                    hidden = second(hidden)
                    hidden = second(hidden)
            outputs = [layer(hidden) for layer in outer]
            return outputs[0] if len(outputs) == 1 else outputs

        second = layers.Dense(4, activation="tanh")
        join = layers.Concatenate()

        def layers_concatenated(rows):
            return rows[0] if len(rows) == 1 else join(rows)

        if self.build in ("sequential", "unbuilt"):
            first = [keras.Input(INPUTS[self.entries[0][0]].shape[1:])] if self.build == "sequential" else []
            model = keras.Sequential([*first, *(part for part in parts if part), *inner, *outer])
        elif self.build == "subclass":
            model = Flow(flow, [*(part for part in parts if part), *inner, *outer, second, join])
        else:
            inputs = [keras.Input(INPUTS[kind].shape[1:]) for kind, _ in self.entries]
            outputs = flow(inputs)
            model = keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)
        loss = [loss_of(name, reduction) for _, name, reduction, _ in self.heads]
        measures = [[metric_of(name) for name in names] for *_, names in self.heads]
        optimizer = OPTIMIZERS[self.optimizer](**EXTRAS[self.extra])
        if len(self.heads) == 1:
            loss, measures = loss[0], measures[0]
        model.compile(optimizer=optimizer, loss=loss, metrics=measures)
        return model


class Flow(keras.Model):
    """Call a function of the inputs that uses some layers."""

    def __init__(self, flow, parts):
        super().__init__()
        self.parts = parts
        self.flow = flow

    def call(self, inputs):
        return self.flow(inputs if isinstance(inputs, list | tuple) else [inputs])


def cut(value, rows):
    if isinstance(value, dict):
        return {key: cut(item, rows) if key == "sample_weight" else item for key, item in value.items()}
    return [item[rows] for item in value] if isinstance(value, list) else value[rows]


def loss_of(name, reduction):
    if reduction is None:
        return name
    loss = losses.get(name)
    return (
        type(loss)(reduction=reduction)
        if isinstance(loss, losses.Loss)
        else by_class(name)(reduction=reduction)
    )


def by_class(name):
    return {
        "mse": losses.MeanSquaredError,
        "mae": losses.MeanAbsoluteError,
        "huber": losses.Huber,
        "log_cosh": losses.LogCosh,
        "sparse_categorical_crossentropy": losses.SparseCategoricalCrossentropy,
        "categorical_crossentropy": losses.CategoricalCrossentropy,
        "kl_divergence": losses.KLDivergence,
        "binary_crossentropy": losses.BinaryCrossentropy,
        "dice": losses.Dice,
        "tversky": losses.Tversky,
    }[name]


def metric_of(name):
    return metrics.F1Score(threshold=0.5) if name == "f1" else name


@st.composite
def heads(draw):
    kind = draw(st.sampled_from(list(HEADS)))
    _, _, _, all_losses, all_metrics = HEADS[kind]
    loss = draw(st.sampled_from(all_losses))
    reduction = draw(st.sampled_from(REDUCTIONS))
    names = draw(st.lists(st.sampled_from(all_metrics), unique=True, max_size=2))
    return kind, loss, reduction, tuple(names)


@st.composite
def entries(draw):
    kind = draw(st.sampled_from(list(INPUTS)))
    return kind, draw(st.sampled_from(ENTRIES_OF[kind]))


@st.composite
def plans(draw):
    build = draw(st.sampled_from(BUILDS))
    single = build in ("sequential", "unbuilt")
    chosen = draw(st.lists(entries(), min_size=1, max_size=1 if single else 2))
    made = draw(st.lists(heads(), min_size=1, max_size=1 if single else 2))
    optimizer = draw(st.sampled_from(list(OPTIMIZERS)))
    # A schedule lets no callback set the rate.
    named = [name for name in CALLBACKS if optimizer != "schedule" or name not in ("plateau", "scheduler")]
    weights = draw(st.sampled_from([None, "rows", "classes"] if len(made) == 1 else [None, "rows"]))
    return Plan(
        models=draw(st.sampled_from([0, 0, 0, 2, 2, 3])),
        build=build,
        entries=tuple(chosen),
        layers=tuple(draw(st.lists(st.sampled_from(list(LAYERS)), max_size=3))),
        twice=False if single else draw(st.booleans()),
        heads=tuple(made),
        optimizer=optimizer,
        extra=draw(st.sampled_from(list(EXTRAS))),
        weights=weights,
        callbacks=tuple(draw(st.lists(st.sampled_from(named), unique=True, max_size=2))),
        batch_size=draw(st.sampled_from([16, 7, 40, 1 << 10])),
        rows=draw(st.integers(12, 40)),
        epochs=draw(st.integers(1, 4)),
        validation=draw(st.booleans()),
        policy=draw(st.sampled_from(POLICIES)),
        goes_on=draw(st.sampled_from([False, False, False, True])),
    )


def hold(examples, seed=0):
    """Hold random models to the oracle; what fails shrinks to a plan of a few lines.

    Returns:
        How many of the plans ended how, as in the table of the oracle.
    """

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @hypothesis.seed(seed)
    @given(plans())
    def check(plan):
        with tempfile.TemporaryDirectory() as folder:
            try:
                if plan.models:  # as `fit` itself is tried by other plans, `model.fit` is enough
                    check_many(plan.case(), Path(folder), "generated", alone_too=False)
                else:
                    check_fit(plan.case(), Path(folder), "generated")
            except UnusableError:  # the layers of a model may not go together
                hypothesis.reject()

    check()
    return dict(OUTCOMES["generated"])
