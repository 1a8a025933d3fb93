"""Cases of `fit`: models, layers, metrics, losses and optimizers of the user's own, in the books' ways."""

import collections

import keras
import tensorflow as tf
from keras import layers, losses, metrics, ops, optimizers
from training.cases_calls import fresh, trained
from training.cases_plain import VALIDATION, case
from training.models import (
    BINARY,
    LABELS,
    SERIES,
    TOKENS,
    TWO,
    WEIGHTS,
    Inner,
    Seer,
    X,
    Y,
    compiled,
    dense,
    sequential,
)

both = {"metrics": ["mae", "mse"]}


class Step(Inner):
    """A training step as Keras's guide writes it."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.logs_of(y, y_pred, loss, sample_weight)

    def logs_of(self, y, y_pred, loss, sample_weight):
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight)
        return {metric.name: metric.result() for metric in self.metrics}


class FlatStep(Step):
    def logs_of(self, y, y_pred, loss, sample_weight):
        super().logs_of(y, y_pred, loss, sample_weight)
        return self.get_metrics_result()


class OwnNames(Step):
    def logs_of(self, y, y_pred, loss, sample_weight):
        return {"zeta": 2 * loss, "alpha": ops.max(y_pred), "rows": ops.shape(y)[0]}


class VectorLogs(Step):
    def logs_of(self, y, y_pred, loss, sample_weight):
        return {"vector": ops.mean(y_pred, axis=0), "two": ops.stack([loss, 2 * loss])}


class ComputeMetrics(Step):
    def logs_of(self, y, y_pred, loss, sample_weight):
        return self.compute_metrics(None, y, y_pred, sample_weight)


class Super(Inner):
    def train_step(self, data):
        logs = super().train_step(data)
        return {**logs, "rate": self.optimizer.learning_rate}


class Trackers(Inner):
    """Metrics of its own, and neither loss nor metrics in compile."""

    def __init__(self):
        super().__init__()
        self.loss_tracker = metrics.Mean(name="loss")
        self.mae_metric = metrics.MeanAbsoluteError(name="mae")

    @property
    def metrics(self):
        return [self.loss_tracker, self.mae_metric]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = ops.mean(losses.mean_squared_error(y, y_pred))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        self.loss_tracker.update_state(ops.mean(losses.mean_squared_error(y, y_pred)))
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}


class TestStep(Inner):
    def test_step(self, data):
        x, y = data
        return {"furthest": ops.max(ops.abs(y - self(x, training=False)))}


class ComputeLoss(Inner):
    def __init__(self):
        super().__init__()
        self.tracker = metrics.Mean(name="own")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.square(y_pred - y)) + 0.1 * ops.mean(ops.abs(y_pred))
        self.tracker.update_state(loss)
        return loss


class OwnMetrics(Inner):
    def __init__(self):
        super().__init__()
        self.furthest = self.add_weight(shape=(), initializer="zeros", trainable=False, name="furthest")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.furthest.assign(ops.maximum(self.furthest, ops.max(ops.abs(y - y_pred))))
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "furthest": self.furthest}


class MCDropout(layers.Dropout):
    def call(self, inputs):
        return super().call(inputs, training=True)


class DroppingModel(Inner):
    def __init__(self):
        super().__init__()
        self.drop = layers.Dropout(0.5)

    def call(self, x):
        return self.outer(self.drop(self.hidden(x), training=True))


class Sampling(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, inputs):
        mean, log_variance = inputs
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seeds)


class VAE(keras.Model):
    """An autoencoder that samples in its call, with a loss that it adds."""

    def __init__(self):
        super().__init__()
        self.mean, self.log_variance = layers.Dense(2), layers.Dense(2)
        self.sampling, self.decoder = Sampling(), layers.Dense(6)

    def call(self, x):
        mean, log_variance = self.mean(x), self.log_variance(x)
        latent = 1 + log_variance - ops.square(mean) - ops.exp(log_variance)
        self.add_loss(-0.5 * ops.mean(latent))
        return self.decoder(self.sampling((mean, log_variance)))


class VAEStep(VAE):
    def __init__(self):
        super().__init__()
        self.total = metrics.Mean(name="total")

    @property
    def metrics(self):
        return [self.total]

    def train_step(self, x):
        if isinstance(x, tuple):
            x = x[0]
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x) - x)) + sum(self.losses)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        self.total.update_state(loss)
        return {"total": self.total.result()}


class Counting(layers.Layer):
    """Count its calls."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1)
        return x * (1.0 + 0.1 * ops.cast(self.calls, x.dtype))


class CountingInTraining(Counting):
    def call(self, x, training=False):
        return super().call(x) if training else x


class CountingMetric(metrics.Metric):
    """Count its updates since it was made: a reset leaves them."""

    def __init__(self):
        super().__init__(name="updates")
        self.updates = self.add_variable((), "zeros", name="updates")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.updates.assign_add(1.0)

    def reset_state(self):
        pass

    def result(self):
        return self.updates


class Shares(metrics.Metric):
    """Give several results at once."""

    def __init__(self):
        super().__init__(name="shares")
        self.low = self.add_variable((), "zeros", name="low")
        self.rows = self.add_variable((), "zeros", name="rows")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.low.assign_add(ops.sum(ops.cast(y_pred < 0.5, "float32")))
        self.rows.assign_add(ops.cast(ops.size(y_pred), "float32"))

    def result(self):
        return {"low": self.low / self.rows, "high": 1.0 - self.low / self.rows}


class ScaledFunction(Inner):
    """Make a function for training of its own: it doubles the loss that is reported."""

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            plain = self.train_function
            self.train_function = lambda iterator: {
                name + "_doubled": 2 * value for name, value in plain(iterator).items()
            }
        return self.train_function


class ScaledTestFunction(Inner):
    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            plain = self.test_function
            self.test_function = lambda iterator: {
                name + "_doubled": 2 * value for name, value in plain(iterator).items()
            }
        return self.test_function


class Evaluating(Inner):
    def evaluate(self, *args, **kwargs):
        result = super().evaluate(*args, **kwargs)
        return {**result, "extra": 1.5} if isinstance(result, dict) else result


class OwnFit(Inner):
    def fit(self, x, y, **options):
        return super().fit(x, 2 * y, **options)


class ResettingOnce(Inner):
    """Keep its metrics from one epoch to the next."""

    def reset_metrics(self):
        pass


class GAN(keras.Model):
    """Two models and two optimizers, as in the books."""

    def __init__(self):
        super().__init__()
        self.critic = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(1)])
        self.maker = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(6)])
        self.seeds = keras.random.SeedGenerator(11)
        self.d_tracker, self.g_tracker = metrics.Mean(name="d_loss"), metrics.Mean(name="g_loss")

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.loss_fn = losses.BinaryCrossentropy(from_logits=True)

    @property
    def metrics(self):
        return [self.d_tracker, self.g_tracker]

    def train_step(self, real):
        rows = ops.shape(real)[0]
        noise = keras.random.normal((rows, 3), seed=self.seeds)
        both = ops.concatenate([self.maker(noise), real], axis=0)
        labels = ops.concatenate([ops.ones((rows, 1)), ops.zeros((rows, 1))], axis=0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.critic(both))
        weights = self.critic.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        noise = keras.random.normal((rows, 3), seed=self.seeds)
        with tf.GradientTape() as tape:
            g_loss = self.loss_fn(ops.zeros((rows, 1)), self.critic(self.maker(noise)))
        weights = self.maker.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        self.d_tracker.update_state(d_loss)
        self.g_tracker.update_state(g_loss)
        return {"d_loss": self.d_tracker.result(), "g_loss": self.g_tracker.result()}


def gan():
    model = GAN()
    model.compile(optimizers.Adam(0.01), optimizers.Adam(0.02))
    return model


class TwoFold(keras.Model):
    """Give an output and None."""

    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(1), layers.Dense(2)

    def call(self, x):
        return self.one(x), None


Outputs = collections.namedtuple("Outputs", "left right")


class ReadsByName(Inner):
    def call(self, x):
        return self.outer(self.hidden(x.left) - self.hidden(x.right))


class Named(TwoFold):
    def call(self, x):
        return Outputs(self.one(x), self.two(x))


class InADict(TwoFold):
    def call(self, x):
        return {"one": self.one(x), "two": self.two(x)}


class WithMask(Inner):
    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(20, 4, mask_zero=True)
        self.rnn = layers.GRU(3)

    def call(self, x, training=None, mask=None):
        return super().call(self.rnn(self.embedding(x), training=training))


class OwnSGD(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * ops.sign(ops.cast(gradient, variable.dtype)))


class Warmup(optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 * ops.minimum(1.0, (ops.cast(step, "float32") + 1) / 5)


class AddsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.abs(x)))
        return x


class OwnBuild(Inner):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        super().build(shape)

    def call(self, x):
        return super().call(x * self.scale)


class Lazy(keras.Model):
    """Make its layer when it is called first."""

    def __init__(self):
        super().__init__()
        self.inner = None

    def call(self, x):
        if self.inner is None:
            self.inner = layers.Dense(1)
        return self.inner(x)


class FunctionalStep(keras.Model):
    """A step of its own for a functional model."""

    train_step = Step.train_step
    logs_of = Step.logs_of


def functional_with_a_step():
    inputs = keras.Input((6,))
    model = FunctionalStep(inputs, layers.Dense(1)(inputs))
    return compiled(model, metrics=["mae"])


CASES = {
    # Steps
    "own train_step, metrics by name": case(lambda: compiled(Step(), metrics=["mae"]), **VALIDATION),
    "own train_step, metrics by name, no metrics": case(lambda: compiled(Step())),
    "own train_step, get_metrics_result": case(lambda: compiled(FlatStep(), **both)),
    "own train_step, compute_metrics": case(lambda: compiled(ComputeMetrics(), **both), **VALIDATION),
    "own train_step, weighted rows": case(lambda: compiled(Step(), **both), sample_weight=WEIGHTS),
    "own train_step, logs of other names": case(lambda: compiled(OwnNames()), **VALIDATION),
    "own train_step, vectors in the logs": case(lambda: compiled(VectorLogs()), callbacks=fresh(Seer)),
    "own train_step, super's and more": case(lambda: compiled(Super(), optimizer="adam"), **VALIDATION),
    "own train_step of a functional model": case(lambda: functional_with_a_step(), **VALIDATION),
    "own trackers, the metrics property": case(lambda: compiled(Trackers(), loss=None), **VALIDATION),
    "own test_step": case(lambda: compiled(TestStep(), metrics=["mae"]), **VALIDATION),
    "own compute_loss with a tracker": case(lambda: compiled(ComputeLoss(), loss=None), **VALIDATION),
    "own compute_metrics": case(lambda: compiled(OwnMetrics(), metrics=["mae"]), **VALIDATION),
    "own make_train_function": case(lambda: compiled(ScaledFunction()), refused="make_train_function"),
    "own make_test_function": case(
        lambda: compiled(ScaledTestFunction()), refused="make_test_function", **VALIDATION
    ),
    "own evaluate": case(lambda: compiled(Evaluating()), refused="evaluate", **VALIDATION),
    "own fit": case(lambda: compiled(OwnFit()), refused="fit"),
    "own reset_metrics": case(lambda: compiled(ResettingOnce(), metrics=["mae"]), **VALIDATION),
    "own GAN with two optimizers": case(gan, X, None),
    "own VAE": case(lambda: compiled(VAE(), "adam"), X, X, **VALIDATION),
    "own VAE with a step": case(lambda: compiled(VAEStep(), "adam", loss=None), X, None),
    # Calls
    "own dropout at all times": case(
        lambda: sequential(layers.Dense(8), MCDropout(0.5), layers.Dense(1)), **VALIDATION
    ),
    "own model with dropout at all times": case(
        lambda: compiled(DroppingModel(), metrics=["mae"]), **VALIDATION
    ),
    "own model with dropout at all times, checked labels": case(
        lambda: compiled(DroppingModel(), loss="binary_crossentropy"), X, BINARY, **VALIDATION
    ),
    "own model that reads a namedtuple": case(
        lambda: compiled(ReadsByName()), Outputs(X, X[::-1].copy()), Y, **VALIDATION
    ),
    "own layer that counts its calls": case(lambda: sequential(Counting(), layers.Dense(1)), **VALIDATION),
    "own layer that counts in training": case(
        lambda: compiled(keras.Sequential([CountingInTraining(), layers.Dense(1)])), **VALIDATION
    ),
    "own layer that adds a loss": case(
        lambda: sequential(layers.Dense(4), AddsLoss(), layers.Dense(1)), **VALIDATION
    ),
    "own model with a mask": case(lambda: compiled(WithMask(), "adam"), TOKENS, Y, **VALIDATION),
    "own model with a build": case(lambda: compiled(OwnBuild(), "adam"), **VALIDATION),
    "own model that makes its layer in its call": case(lambda: compiled(Lazy()), raises=ValueError),
    "own model with seeds in its weights": case(
        lambda: compiled(Inner(), "adam", metrics=["mae", "mse"]), X, Y, sample_weight=WEIGHTS, **VALIDATION
    ),
    "own model, sparse labels": case(
        lambda: compiled(
            Inner(3), loss=losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        ),
        X,
        LABELS,
        **VALIDATION,
    ),
    "own model, trained before": case(lambda: trained(compiled(DroppingModel(), "adam"))),
    "unbuilt sequential": case(
        lambda: compiled(
            keras.Sequential(
                [layers.Dense(4), layers.Dropout(0.5), layers.BatchNormalization(), layers.Dense(1)]
            ),
            metrics=["mae"],
        ),
        **VALIDATION,
    ),
    "unbuilt sequential of a series": case(
        lambda: compiled(keras.Sequential([layers.LSTM(3), layers.Dense(1)])), SERIES, Y
    ),
    # Outputs
    "own outputs with None": case(lambda: compiled(TwoFold(), loss=["mse", None]), X, [Y, None]),
    "own outputs in a namedtuple": case(lambda: compiled(Named(), loss=["mse", "mse"]), X, [Y, TWO]),
    "own outputs in a namedtuple, y too": case(
        lambda: compiled(Named(), loss=Outputs("mse", "mae")), X, Outputs(Y, TWO)
    ),
    "own outputs in a dict": case(
        lambda: compiled(InADict(), loss={"one": "mse", "two": "mae"}, metrics={"two": ["mse"]}),
        X,
        {"one": Y, "two": TWO},
        **VALIDATION,
    ),
    # Metrics, losses, optimizers
    "own metric that counts its updates": case(lambda: dense(metrics=[CountingMetric()]), **VALIDATION),
    "own metric with several results": case(lambda: dense(metrics=[Shares()]), **VALIDATION),
    "own loss class": case(lambda: dense(loss=OwnLoss(), metrics=[OwnLoss()]), X, BINARY, **VALIDATION),
    "own optimizer": case(lambda: dense(optimizer=OwnSGD(0.01))),
    "own schedule": case(lambda: dense(optimizer=optimizers.Adam(Warmup()))),
    "own regularizer, constraint, initializer": case(lambda: owned()),
}


class OwnLoss(losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred) ** 2, -1)


def owned():
    layer = layers.Dense(
        4,
        kernel_initializer=lambda shape, dtype=None: 0.1 * ops.ones(shape, dtype),
        kernel_regularizer=lambda w: 0.1 * ops.sum(ops.square(w)),
        kernel_constraint=lambda w: ops.clip(w, -0.2, 0.2),
    )
    return sequential(layer, layers.Dense(1))
