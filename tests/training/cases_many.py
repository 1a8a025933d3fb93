"""Cases of `fit_many` and of runs that are killed and go on."""

import functools
import inspect

import keras
import numpy as np
import scipy.sparse
from keras import callbacks, layers, losses, metrics, optimizers
from training.cases_own import DroppingModel, Shares, Step
from training.cases_plain import case
from training.models import (
    BINARY,
    IMAGES,
    LABELS,
    ONE_HOT,
    SERIES,
    TOKENS,
    TWO,
    WEIGHTS,
    At,
    Inner,
    Meter,
    Seer,
    X,
    Y,
    binary,
    classifier,
    compiled,
    dense,
    lists_in_out,
    sequential,
    stop,
    two_in_two_out,
)
from training.oracle import Kill

ROWS = np.arange(40)
HALVES = [(ROWS[:20], ROWS[20:]), (ROWS[20:], ROWS[:20])]
# 28, 27 and 25 rows to train on, 12, 13 and 15 to validate on: batches of other sizes in each.
UNEVEN = [(np.delete(ROWS, part), part) for part in (ROWS[:12], ROWS[12:25], ROWS[25:])]
ALONE = [(ROWS[:20], None), (ROWS[20:], None)]
SOME = [(ROWS[:20], ROWS[20:]), (ROWS[20:], None)]
STACKED, SINGLE = r"\b{} models as one stack", r"(?i)model 1\b.* alone, because .*{}"
near = {"rtol": 1e-4, "atol": 1e-5}


def many(build, x=X, y=Y, splits=HALVES, **options):
    """Make a case: the models are built from their position where `build` takes an `i`."""
    make = build if "i" in inspect.signature(build).parameters else lambda i: build()
    return case(make, x, y, splits=splits, batch_size=8, **(near | options))


def stacked(build, x=X, y=Y, splits=HALVES, **options):
    return many(build, x, y, splits, log=STACKED.format(len(splits)), **options)


def alone(because, build, x=X, y=Y, splits=HALVES, **options):
    """Make a case that is trained one by one, for the reason that the log must give."""
    return many(build, x, y, splits, log=SINGLE.format(because), **options)


def with_dense(**options):
    """Build a model that is known to stack."""
    return lambda i: dense(**({"optimizer": "adam"} | options))


def each(*made):
    """Make callbacks anew for each model."""
    return lambda i, folder: [make(i, folder) for make in made]


def rates(i):
    return dense(optimizer=optimizers.Adam([0.01, 0.1, 0.001][i]))


def same_object():
    made = []

    def build(i):
        if i == 0:
            made[:] = [dense()]
        return made[0]

    return build


def shared_part(part, use):
    """Give all models one part."""
    made = []

    def build(i):
        if i == 0:
            made[:] = [part()]
        return use(made[0])

    return build


def embedding(optimizer, rate=0.01):
    inner = layers.Embedding(6, 4), layers.GlobalAveragePooling1D(), layers.Dense(1)
    return sequential(*inner, shape=(7,), optimizer=optimizer(rate))


def masked(**options):
    inner = layers.Embedding(6, 3, mask_zero=True), layers.LSTM(3, return_sequences=True), layers.Dense(1)
    return sequential(*inner, shape=(7,), **options)


FEW = TOKENS % 6  # each row of the embedding comes several times in a batch
EMBEDDED = {
    name: getattr(optimizers, name)
    for name in ("SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion")
}
LAYERS = {
    "conv": lambda: sequential(
        layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1), shape=(8, 8, 1)
    ),
    "batch normalization": lambda: sequential(layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)),
    "dropout": lambda: sequential(layers.Dense(4), layers.Dropout(0.5), layers.Dense(1)),
    "lstm": lambda: sequential(layers.LSTM(3), layers.Dense(1), shape=(5, 3)),
    "frozen": lambda: sequential(layers.Dense(4, trainable=False), layers.Dense(1)),
    "regularized": lambda: sequential(layers.Dense(4, kernel_regularizer="l2"), layers.Dense(1)),
    "layer normalization": lambda: sequential(layers.LayerNormalization(), layers.Dense(1)),
}
X_OF = {"conv": IMAGES, "lstm": SERIES}


def normalized(i):
    layer = layers.Normalization(mean=X[UNEVEN[i][0]].mean(0), variance=X[UNEVEN[i][0]].var(0))
    return sequential(layer, layers.Dense(1), optimizer="rmsprop")


def of_units(i):
    return sequential(layers.Dense(3 + i), layers.Dense(1))


def early(i, folder):
    return callbacks.EarlyStopping("loss", patience=1, min_delta=[10.0, 0.4, 0.0][i])


def stopping(hook, epoch, model=1):
    """Stop one of the models."""
    return lambda i, folder: At(hook, stop if i == model else (lambda model: None), epoch)


def raising_rate(i, folder):
    return At("on_epoch_begin", lambda model: setattr(model.optimizer, "learning_rate", 0.1 + i), 1)


def set_back(model):
    model.optimizer.iterations.assign(0)


def used(i):
    """Build a model that has been trained before."""
    model = dense(optimizer="adam")
    model.fit(X, Y, batch_size=8, verbose=0, shuffle=False)
    return model


def infinite(i):
    return sequential(layers.Dense(1, bias_initializer="zeros"), optimizer=optimizers.SGD([0.1, 1e30][i]))


AVERAGE = {"use_ema": True, "ema_momentum": 0.9}
MANY = {
    "many adam": stacked(with_dense(), splits=UNEVEN),
    "many of other learning rates": stacked(rates, splits=UNEVEN),
    "many sgd with momentum": stacked(lambda: dense(optimizer=optimizers.SGD(0.05, momentum=0.9))),
    "many with a moving average": stacked(lambda: dense(optimizer=optimizers.Adam(0.01, **AVERAGE))),
    "many with a moving average that overwrites": stacked(
        lambda: dense(optimizer=optimizers.SGD(0.01, ema_overwrite_frequency=2, **AVERAGE))
    ),
    "many with a schedule": many(
        lambda: dense(optimizer=optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 5, 0.8)))
    ),
    "many of equal size": stacked(with_dense()),
    "many without validation": stacked(with_dense(), splits=ALONE),
    "many, one without validation": many(with_dense(), splits=SOME),
    "many of overlapping rows, repeated rows": stacked(
        with_dense(), splits=[([0, 1, 2, 2, 2], [3, 4]), ([4, 3, 2, 1, 0], [0, 0])]
    ),
    "many of other lengths": many(with_dense(), splits=[(ROWS[:8], ROWS[8:]), (ROWS[:30], ROWS[30:])]),
    "many of one row each": many(with_dense(), splits=[([0], [1]), ([1], [0])]),
    "many, only one": many(with_dense(), splits=HALVES[:1]),
    "many architectures": many(of_units, callbacks=each(lambda i, folder: Seer())),
    "many with clipnorm": alone("clipnorm", lambda: dense(optimizer=optimizers.Adam(0.01, clipnorm=0.1))),
    "many with adafactor": alone("Adafactor", lambda: dense(optimizer="adafactor")),
    "many unbuilt": many(lambda: compiled(Inner(), "adam")),
    "many subclasses with dropout": alone("DroppingModel", lambda: compiled(DroppingModel())),
    "many with a train_step": alone("Step", lambda: compiled(Step(), metrics=["mae"])),
    **{f"many layers: {name}": many(build, X_OF.get(name, X), Y) for name, build in LAYERS.items()},
    "many normalizations": stacked(normalized, splits=UNEVEN),
    **{
        f"many embeddings: {name}": many(functools.partial(embedding, make), FEW, Y, HALVES, epochs=5)
        for name, make in EMBEDDED.items()
    },
    "many embeddings: clipped values": alone(
        "each gradient of an Embedding's row by itself",
        functools.partial(embedding, lambda rate: optimizers.SGD(rate, clipvalue=0.01)),
        FEW,
    ),
    "many means of masked words": alone(
        "masks",
        lambda: sequential(
            layers.Embedding(6, 3, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
            shape=(7,),
            optimizer="sgd",
        ),
        FEW,
        sample_weight=WEIGHTS,
    ),
    "many masked sequences": many(lambda: masked(), FEW, np.resize(Y, (40, 7, 1))),
    "many masked sequences, weighted": many(
        lambda: masked(weighted_metrics=["mse"]),
        FEW,
        np.resize(Y, (40, 7, 1)),
        HALVES,
        sample_weight=np.resize(WEIGHTS, (40, 7)),
    ),
    "many dice": many(lambda: binary("dice"), X, BINARY, UNEVEN),
    "many tversky": many(lambda: binary("tversky"), X, BINARY),
    "many mean_with_sample_weight": many(
        lambda: dense(loss=losses.MeanSquaredError(reduction="mean_with_sample_weight")),
        sample_weight=WEIGHTS,
    ),
    "many weighted rows": many(lambda: dense(weighted_metrics=["mae"]), sample_weight=WEIGHTS),
    "many sums": many(lambda: dense(loss=losses.MeanSquaredError(reduction="sum"))),
    "many own losses": alone(
        "loss", lambda: dense(loss=lambda y, p: keras.ops.mean(keras.ops.abs(y - p), -1))
    ),
    "many class weights": many(lambda: classifier(), X, LABELS, class_weight={0: 0.5, 2: 3.0}),
    "many outputs": many(lambda: two_in_two_out(), {"a": X, "b": TOKENS}, {"price": Y, "kind": LABELS}),
    "many outputs, weighted": many(
        lambda: two_in_two_out(),
        {"a": X, "b": TOKENS},
        {"price": Y, "kind": LABELS},
        HALVES,
        sample_weight={"price": WEIGHTS, "kind": WEIGHTS[::-1].copy()},
    ),
    "many outputs of automatic names": many(
        lambda: lists_in_out(metrics=[["mse"], ["mse"]]), [X, TOKENS], [Y, TWO], HALVES
    ),
    "many accuracies": stacked(lambda: classifier(), X, LABELS),
    "many categorical": many(lambda: classifier("categorical_crossentropy"), X, ONE_HOT),
    "many areas under the curve": many(lambda: binary(metrics=[metrics.AUC()]), X, BINARY),
    "many F1 of one unit": many(lambda: binary(metrics=[metrics.F1Score(threshold=0.5)]), X, BINARY),
    "many R2, IoU": many(
        lambda: classifier(metrics=[metrics.MeanIoU(3, sparse_y_pred=False), "accuracy"]), X, LABELS, HALVES
    ),
    "many own metrics": many(lambda: dense(metrics=[Shares()])),
    "many in CSR": many(with_dense(), scipy.sparse.csr_matrix(X * (X > 0.6)), Y),
    "many in mixed_float16": many(with_dense(), policy="mixed_float16", rtol=2e-2, atol=2e-2),
    "many with steps_per_execution": many(with_dense(steps_per_execution=3)),
    "many under XLA": stacked(with_dense(), ours={"jit": True}),
    "many without a Keras seed": many(lambda: sequential(layers.Dropout(0.5), layers.Dense(1)), seed=None),
    # Callbacks
    "many stop early at different epochs": stacked(
        with_dense(), splits=UNEVEN, epochs=8, callbacks=each(early)
    ),
    "many stop early, the best weights": many(
        with_dense(),
        epochs=6,
        callbacks=each(lambda i, folder: callbacks.EarlyStopping(patience=1 + i, restore_best_weights=True)),
    ),
    "many stop and the rest is stacked anew": many(
        with_dense(),
        splits=[*UNEVEN, *HALVES],
        epochs=6,
        callbacks=each(
            lambda i, folder: callbacks.EarlyStopping("loss", patience=0 if i < 3 else 9, min_delta=5.0)
        ),
    ),
    "many, one is set back and the rest is stacked anew": many(
        with_dense(),
        splits=[*UNEVEN, *HALVES],
        epochs=4,
        callbacks=each(
            lambda i, folder: callbacks.EarlyStopping("loss", patience=0 if i < 3 else 9, min_delta=5.0),
            lambda i, folder: At("on_epoch_end", set_back if i == 4 else (lambda model: None), 0),
        ),
    ),
    "many, one stops in on_epoch_begin": many(with_dense(), callbacks=each(stopping("on_epoch_begin", 1))),
    "many, one stops in on_train_begin": many(with_dense(), callbacks=each(stopping("on_train_begin", 0))),
    "many, one stops in on_epoch_end": many(
        with_dense(), callbacks=each(stopping("on_epoch_end", 1), lambda i, folder: Seer())
    ),
    "many with other rates from an epoch on": many(
        with_dense(), callbacks=each(raising_rate, lambda i, folder: Seer())
    ),
    "many logs and files": many(
        with_dense(),
        splits=HALVES,
        callbacks=each(
            lambda i, folder: callbacks.CSVLogger(folder / f"{i}.csv"),
            lambda i, folder: callbacks.ModelCheckpoint(folder / f"{i}.weights.h5", save_weights_only=True),
        ),
    ),
    "many of a moving average that is swapped": many(
        lambda: dense(optimizer=optimizers.SGD(0.1, **AVERAGE)),
        splits=HALVES,
        callbacks=each(lambda i, folder: callbacks.SwapEMAWeights(swap_on_epoch=True)),
    ),
    "many plateaus": many(
        with_dense(),
        splits=HALVES,
        epochs=6,
        callbacks=each(lambda i, folder: callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.3)),
    ),
    "many, metrics seen after an epoch": stacked(
        lambda: classifier(), X, LABELS, callbacks=each(lambda i, folder: Meter())
    ),
    "many, epochs 0": many(with_dense(), epochs=0, callbacks=each(lambda i, folder: Seer())),
    "many, epochs 0, trained before": many(used, epochs=0),
    "many, epochs 0, a moving average": many(
        lambda: dense(optimizer=optimizers.Adam(0.01, **AVERAGE)), epochs=0
    ),
    "many, trained before": stacked(used),
    "many, one diverges": many(infinite, ours={"check_finite": False}),
    # Refused
    "many times one model": many(same_object(), refused="model 2 is the same object as model 1"),
    "many with one layer": many(
        shared_part(lambda: layers.Dense(4, name="shared"), lambda part: sequential(part, layers.Dense(1))),
        splits=HALVES,
        refused="shared",
    ),
    "many with one optimizer": many(
        shared_part(lambda: optimizers.SGD(0.1), lambda part: dense(optimizer=part)),
        splits=HALVES,
        raises=ValueError,
        refused="optimizer",
    ),
    "many with one metric": many(
        shared_part(
            lambda: metrics.MeanAbsoluteError(name="one_for_all"), lambda part: dense(metrics=[part])
        ),
        splits=HALVES,
        refused="one_for_all",
    ),
}


def resumed(build, x=X, y=Y, killed=(1,), epochs=4, **options):
    """Make a case of a run that is killed at the end of epochs."""
    user, splits = options.pop("callbacks", None), options.get("splits")

    def made(*arguments):
        folder = arguments[-1]
        own = user(*arguments) if user else []
        if splits and arguments[0]:  # the first model's callback ends the run
            return own
        return [*own, *(Kill(epoch, str(folder / f"killed {i}")) for i, epoch in enumerate(killed))]

    make = (lambda i: build()) if splits else build
    return case(make, x, y, killed=killed, epochs=epochs, callbacks=made, **options)


def dropping(optimizer="adam"):
    # A bias before a normalization has no gradient but rounding errors, of which Adam would make whole steps.
    hidden = layers.Dense(4, use_bias=False), layers.BatchNormalization(), layers.Dropout(0.5)
    return sequential(*hidden, layers.Dense(1), optimizer=optimizer)


def patient(*arguments):
    return [
        callbacks.EarlyStopping("loss", patience=2, min_delta=0.1, restore_best_weights=True),
        callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5),
    ]


RESUMED = {
    "resumed with dropout, normalization": resumed(dropping, validation_split=0.2),
    "resumed after the first epoch": resumed(dropping, killed=(0,)),
    "resumed twice": resumed(dropping, killed=(0, 2)),
    "resumed after its end": resumed(dropping, killed=(3,), validation_split=0.2),
    "resumed with a moving average": resumed(lambda: dropping(optimizers.SGD(0.1, **AVERAGE))),
    "resumed with a schedule": resumed(
        lambda: dropping(optimizers.RMSprop(optimizers.schedules.CosineDecay(0.01, 9)))
    ),
    "resumed with a loss scale": resumed(
        lambda: dense(optimizer="adam"), policy="mixed_float16", rtol=2e-2, atol=2e-2
    ),
    "resumed with early stopping": resumed(dropping, epochs=8, killed=(1,), callbacks=patient),
    "resumed with a log": resumed(
        dropping, callbacks=lambda folder: [callbacks.CSVLogger(folder / "log.csv")], validation_split=0.2
    ),
    "resumed with the metrics of three classes": resumed(
        lambda: classifier("categorical_crossentropy", [metrics.F1Score()]), X, ONE_HOT
    ),
    "resumed lstm, stateful": resumed(lambda: stateful(), SERIES[:32], Y[:32]),
    "resumed, an unbuilt subclass": resumed(lambda: compiled(DroppingModel(), "adam")),
    "resumed in bfloat16": resumed(lambda: dense(), policy="bfloat16", rtol=2e-2, atol=2e-2),
    "resumed many": resumed(dropping, splits=HALVES, **near),
    "resumed many that stop early": resumed(
        dropping, splits=HALVES, epochs=8, killed=(1,), callbacks=patient, **near
    ),
    "resumed many with a train_step": resumed(
        lambda: compiled(Step(), "adam", metrics=["mae"]), splits=HALVES, **near
    ),
}


def stateful():
    model = keras.Sequential(
        [keras.Input(batch_shape=(16, 5, 3)), layers.GRU(3, stateful=True), layers.Dense(1)]
    )
    model.compile("adam", loss="mse")
    return model
