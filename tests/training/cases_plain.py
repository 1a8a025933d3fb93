"""Cases of `fit`: optimizers, losses, metrics, layers and what flows between them."""

import keras
import tensorflow as tf
from keras import layers, losses, metrics, optimizers
from training.models import (
    BINARY,
    IMAGES,
    LABELS,
    ONE_HOT,
    SERIES,
    TOKENS,
    TWO,
    WEIGHTS,
    WORDS,
    X,
    Y,
    binary,
    classifier,
    dense,
    functional,
    lists_in_out,
    sequential,
    two_in_two_out,
)
from training.oracle import Case

STRINGS = tf.constant(WORDS[:, None])
VALIDATION = {"validation_split": 0.2}


def case(build, x=X, y=Y, **options):
    """Make a case; arguments that are none of its own go to `fit`."""
    own = {name: options.pop(name) for name in list(options) if name in Case.__dataclass_fields__}
    return Case(build=build, x=x, y=y, options=options, **own)


decay = lambda: optimizers.schedules.ExponentialDecay(0.1, 5, 0.8)  # noqa: E731
ema = {"use_ema": True, "ema_momentum": 0.9}
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "centered rmsprop": lambda: optimizers.RMSprop(0.01, centered=True, momentum=0.9),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "adamax": lambda: optimizers.Adamax(0.01),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "nadam": lambda: optimizers.Nadam(0.01),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.001),
    "lamb": lambda: optimizers.Lamb(0.01),
    "muon": lambda: optimizers.Muon(0.01),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=1024.0),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.1),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.1),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "schedule": lambda: optimizers.SGD(decay()),
    "callable rate": lambda: optimizers.SGD(lambda: 0.05),
    "gradient accumulation": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "ema": lambda: optimizers.SGD(0.1, **ema),
    "ema, overwriting every 2": lambda: optimizers.Adam(0.1, ema_overwrite_frequency=2, **ema),
}

CASES = {
    **{
        f"optimizer {name}": case(lambda make=make: dense(optimizer=make()))
        for name, make in OPTIMIZERS.items()
    },
    # Losses
    "loss mae by class": case(lambda: dense(loss=losses.MeanAbsoluteError()), **VALIDATION),
    "loss huber with a delta": case(lambda: dense(loss=losses.Huber(delta=0.1))),
    "loss log_cosh": case(lambda: dense(loss="log_cosh")),
    "loss sum": case(
        lambda: dense(loss=losses.MeanSquaredError(reduction="sum"), optimizer="adam"), **VALIDATION
    ),
    "loss mean_with_sample_weight": case(
        lambda: dense(loss=losses.MeanSquaredError(reduction="mean_with_sample_weight")),
        sample_weight=WEIGHTS,
        **VALIDATION,
    ),
    "loss poisson": case(lambda: dense(loss="poisson", activation="softplus")),
    "loss hinge": case(lambda: dense(loss="hinge", activation="tanh"), X, 2 * BINARY - 1),
    "loss cosine_similarity": case(lambda: dense(2, loss="cosine_similarity"), X, TWO),
    "loss kl_divergence": case(lambda: dense(3, "softmax", loss="kl_divergence"), X, ONE_HOT),
    "loss sparse_categorical": case(classifier, X, LABELS, **VALIDATION),
    "loss categorical, smoothed": case(
        lambda: classifier(losses.CategoricalCrossentropy(label_smoothing=0.1)), X, ONE_HOT
    ),
    "loss from logits, ignore_class": case(
        lambda: dense(
            3, loss=losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2), metrics=()
        ),
        X,
        LABELS,
    ),
    "loss binary": case(binary, X, BINARY, **VALIDATION),
    "loss focal": case(lambda: binary("binary_focal_crossentropy"), X, BINARY),
    "loss dice": case(lambda: binary("dice"), X, BINARY, **VALIDATION),
    "loss tversky": case(lambda: binary("tversky"), X, BINARY),
    "loss a function": case(
        lambda: dense(loss=lambda y, p: keras.ops.mean(keras.ops.square(y - p) ** 2, -1))
    ),
    "loss none at all": case(
        lambda: sequential(layers.Dense(1, activity_regularizer="l2"), loss=None, metrics=()), X, None
    ),
    # Metrics
    "metric by string": case(lambda: binary(metrics=["accuracy", "AUC", "mse"]), X, BINARY, **VALIDATION),
    "metric by class": case(
        lambda: binary(metrics=[metrics.AUC(), metrics.Precision(), metrics.Recall()]),
        X,
        BINARY,
        **VALIDATION,
    ),
    "metric by function": case(
        lambda: dense(metrics=[losses.mean_absolute_error, lambda y, p: keras.ops.max(y - p, axis=-1)]),
        **VALIDATION,
    ),
    "metric F1 of one unit": case(
        lambda: binary(metrics=[metrics.F1Score(threshold=0.5)]), X, BINARY, **VALIDATION
    ),
    "metric F1 of three classes": case(
        lambda: classifier("categorical_crossentropy", [metrics.F1Score()]), X, ONE_HOT, **VALIDATION
    ),
    "metric F1 macro": case(
        lambda: classifier("categorical_crossentropy", [metrics.F1Score(average="macro")]), X, ONE_HOT
    ),
    "metric mean IoU": case(
        lambda: classifier(metrics=[metrics.MeanIoU(3, sparse_y_pred=False)]), X, LABELS, **VALIDATION
    ),
    "metric R2": case(lambda: dense(metrics=[metrics.R2Score(), "r2_score"]), **VALIDATION),
    "metric R2 of two outputs, raw": case(
        lambda: dense(2, metrics=[metrics.R2Score(class_aggregation=None)]), X, TWO
    ),
    "metric top k": case(
        lambda: classifier(metrics=[metrics.SparseTopKCategoricalAccuracy(2), "sparse_categorical_accuracy"]),
        X,
        LABELS,
    ),
    "metric pearson, rmse": case(
        lambda: dense(metrics=[metrics.PearsonCorrelation(), "root_mean_squared_error"]), **VALIDATION
    ),
    "metric weighted": case(
        lambda: dense(metrics=["mse"], weighted_metrics=["mae", "mse"]), sample_weight=WEIGHTS, **VALIDATION
    ),
    "metrics in a dict": case(
        two_in_two_out, {"a": X, "b": TOKENS}, {"price": Y, "kind": LABELS}, **VALIDATION
    ),
    "metrics none": case(lambda: dense(metrics=())),
    # Layers
    "layer conv": case(
        lambda: sequential(
            layers.Rescaling(1 / 255),
            layers.Conv2D(2, 3),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1),
            shape=(8, 8, 1),
        ),
        IMAGES,
        Y,
    ),
    "layer embedding": case(
        lambda: sequential(
            layers.Embedding(20, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
            shape=(7,),
            optimizer="adam",
        ),
        TOKENS,
        Y,
        **VALIDATION,
    ),
    "layer embedding with a mask": case(
        lambda: sequential(
            layers.Embedding(20, 4, mask_zero=True),
            layers.LSTM(3),
            layers.Dense(1),
            shape=(7,),
            optimizer="adam",
        ),
        TOKENS,
        Y,
        **VALIDATION,
    ),
    "layer lstm, a sequence out": case(
        lambda: sequential(layers.LSTM(3, return_sequences=True), layers.Dense(1), shape=(5, 3)),
        SERIES,
        SERIES[..., :1],
    ),
    "layer gru, bidirectional": case(
        lambda: sequential(layers.Bidirectional(layers.GRU(3)), layers.Dense(1), shape=(5, 3)), SERIES, Y
    ),
    "layer rnn with dropout": case(
        lambda: sequential(
            layers.SimpleRNN(3, dropout=0.2, recurrent_dropout=0.2), layers.Dense(1), shape=(5, 3)
        ),
        SERIES,
        Y,
    ),
    "layer lstm, stateful": case(lambda: stateful(layers.LSTM(3, stateful=True)), SERIES[:32], Y[:32]),
    "layer gru, stateful, validated": case(
        lambda: stateful(layers.GRU(3, stateful=True)),
        SERIES[:32],
        Y[:32],
        validation_data=(SERIES[:16], Y[:16]),
    ),
    "layer batch normalization": case(
        lambda: sequential(layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)), **VALIDATION
    ),
    "layer dropout": case(
        lambda: sequential(layers.Dense(8), layers.Dropout(0.5), layers.GaussianNoise(0.1), layers.Dense(1)),
        **VALIDATION,
    ),
    "layer dropout with a seed": case(lambda: sequential(layers.Dropout(0.5, seed=4), layers.Dense(1))),
    "layer layer normalization": case(lambda: sequential(layers.LayerNormalization(), layers.Dense(1))),
    "layer attention": case(lambda: attention(), SERIES, Y, **VALIDATION),
    "layer normalization, adapted": case(lambda: adapted(), **VALIDATION),
    "layer string lookup": case(
        lambda: sequential(
            layers.StringLookup(vocabulary=["red", "green"], output_mode="one_hot"),
            layers.Dense(1),
            shape=(1,),
            dtype="string",
        ),
        STRINGS,
        Y,
        **VALIDATION,
    ),
    "layer text vectorization": case(lambda: text(), STRINGS, Y),
    "layer discretization": case(
        lambda: sequential(
            layers.Discretization(bin_boundaries=[0.3, 0.6], output_mode="one_hot"),
            layers.Dense(1),
            shape=(1,),
        ),
        X[:, :1],
        Y,
    ),
    "layer shared": case(lambda: shared(), [X, X[:, ::-1].copy()], Y, **VALIDATION),
    "layer lambda": case(lambda: sequential(layers.Lambda(lambda x: keras.ops.square(x)), layers.Dense(1))),
    "layer spectral normalization": case(
        lambda: sequential(layers.SpectralNormalization(layers.Dense(4)), layers.Dense(1))
    ),
    "layer augmentation": case(
        lambda: sequential(
            layers.Rescaling(1 / 255),
            layers.RandomFlip(seed=1),
            layers.RandomTranslation(0.2, 0.2),
            layers.Flatten(),
            layers.Dense(1),
            shape=(8, 8, 1),
        ),
        IMAGES,
        Y,
        **VALIDATION,
    ),
    "layer regularizers and constraints": case(
        lambda: sequential(
            layers.Dense(
                4, kernel_regularizer="l2", activity_regularizer="l1", kernel_constraint="unit_norm"
            ),
            layers.Dense(1),
        ),
        **VALIDATION,
    ),
    "layer nested models": case(lambda: nested()),
    "layer frozen": case(lambda: frozen()),
    "layer fixed batch_shape": case(lambda: fixed(), X[:32], Y[:32]),
    # Structures
    "inputs and outputs in lists": case(lists_in_out, [X, TOKENS], [Y, TWO], **VALIDATION),
    "inputs and outputs in tuples": case(lists_in_out, (X, TOKENS), (Y, TWO)),
    "outputs' sample weights in a dict": case(
        two_in_two_out,
        {"a": X, "b": TOKENS},
        {"price": Y, "kind": LABELS},
        sample_weight={"price": WEIGHTS, "kind": WEIGHTS[::-1].copy()},
        **VALIDATION,
    ),
    "class weights": case(classifier, X, LABELS, class_weight={0: 0.5, 2: 3.0}, **VALIDATION),
    "class weights, one-hot": case(
        lambda: classifier("categorical_crossentropy"), X, ONE_HOT, class_weight={0: 0.5, 1: 1, 2: 3.0}
    ),
    "sample weights of several columns": case(
        lambda: sequential(layers.Dense(1), shape=(5, 3)),
        SERIES,
        SERIES[..., :1],
        sample_weight=SERIES[..., 0].copy(),
    ),
}


def stateful(layer):
    model = keras.Sequential([keras.Input(batch_shape=(16, 5, 3)), layer, layers.Dense(1)])
    model.compile("sgd", loss="mse")
    return model


def fixed():
    model = keras.Sequential([keras.Input(batch_shape=(16, 6)), layers.Dense(1)])
    model.compile("sgd", loss="mse")
    return model


def attention():
    inputs = keras.Input((5, 3))
    hidden = layers.MultiHeadAttention(2, 4, dropout=0.1)(inputs, inputs)
    return functional(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))


def adapted():
    layer = layers.Normalization()
    layer.adapt(X)
    return sequential(layer, layers.Dense(1))


def text():
    layer = layers.TextVectorization(output_mode="multi_hot")
    layer.adapt(["red apple", "green apple"])
    return sequential(layer, layers.Dense(1), shape=(1,), dtype="string")


def shared():
    a, b = keras.Input((6,)), keras.Input((6,))
    layer = layers.Dense(3, activation="relu")
    return functional([a, b], layers.Dense(1)(layers.Add()([layer(a), layer(b)])), "adam", metrics=["mae"])


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.BatchNormalization()])
    inputs = keras.Input((6,))
    return functional(inputs, layers.Dense(1)(inner(inputs)))


def frozen():
    layer = layers.Dense(4)
    layer.trainable = False
    return sequential(layer, layers.BatchNormalization(trainable=False), layers.Dense(1))
