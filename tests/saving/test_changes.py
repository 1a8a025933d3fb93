"""What Keras loses of a model when it saves it: refused with the way out, or told by a warning."""

import os
import random
import stat
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from saving.examples import Sound, built, names, sequential
from saving.hostile import words_of

from toolkit import load, save
from toolkit.saving.api import _way_out

register = keras.saving.register_keras_serializable(package="test_changes")


@register
class WeightedLoss(keras.losses.Loss):
    def __init__(self, weights=(1.0, 1.0), **kwargs):
        super().__init__(**kwargs)
        self.weights = np.asarray(weights)

    def call(self, y_true, y_pred):
        return keras.ops.sum(self.weights * (y_true - y_pred) ** 2, axis=-1)


@register
class Applying(keras.losses.Loss):
    def __init__(self, function=keras.ops.square, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true - y_pred)


@register
class OfClasses(keras.losses.Loss):
    def __init__(self, weights=None, **kwargs):
        super().__init__(**kwargs)
        self.weights, self.calls = weights, 0

    def call(self, y_true, y_pred):
        return self.weights.get(0, 1.0) * (y_true - y_pred)

    def get_config(self):
        return super().get_config() | {"weights": self.weights}


@register
class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, each=100):
        self.each = each

    def __call__(self, step):
        return 0.1 * 0.5 ** (step // self.each)

    def get_config(self):
        return {}


@register
class Clipped(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, most=1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.most = most


@register
class Penalty(keras.regularizers.Regularizer):
    def __init__(self, factor=0.1):
        self.factor = factor

    def __call__(self, x):
        return self.factor * keras.ops.sum(keras.ops.abs(x))

    def get_config(self):
        return {}


@register
class DropPath(keras.layers.Layer):
    """Does nothing where it predicts."""

    def __init__(self, rate=0.1, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, x, training=False):
        return x * (1 - self.rate) if training else x

    def get_config(self):
        return super().get_config() | {"rate": 0.1}


@register
class Counting(keras.layers.Layer):
    calls = 0

    def call(self, x):
        self.calls = self.calls + 1
        return x


def compiled(optimizer="sgd", loss="mse", model=None):
    model = model or sequential(layers.Dense(2))
    model.compile(optimizer, loss)
    return model


def excluded():
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return compiled(optimizer)


def frozen(find, make):
    model = make()
    find(model).trainable = False
    return model


def attending():
    inputs = keras.Input((4, 3))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 2)(inputs, inputs))


def adapted():
    model = sequential(layers.Dense(4), layers.Dense(2))
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.ones((2, 4)))
    return model


def adapted_attention():
    model = attending()
    model.layers[1]._query_dense.enable_lora(2)
    return model


def counting_loss():
    loss = OfClasses({"a": 1.0})
    loss.calls = 7
    return loss


def counted():
    model = sequential(Counting())
    model.layers[0].calls = 7
    return model


REFUSED = {
    "word with a line end": (words_of(["a\nb", "c"]), "vocabulary of string_lookup.* would be another one"),
    "word with a line end of Unicode": (words_of(["a\x85b", "c"]), "differ: assets/|vocabulary"),
    "word that ends in a return": (words_of(["a\r", "c"]), "differ: assets/|vocabulary"),
    "frozen part of a class": (
        lambda: frozen(lambda model: model.hidden, lambda: built(Sound)),
        "`trainable` of .*kernel.* is not saved.*in `__init__`",
    ),
    "frozen part of an attention": (
        lambda: frozen(lambda model: model.layers[1]._query_dense, attending),
        "`trainable` of .*query/kernel",
    ),
    "frozen variable": (
        lambda: frozen(lambda model: model.layers[0].bias, lambda: sequential(layers.Dense(2))),
        "`trainable` of .*bias",
    ),
    "array of a loss": (lambda: compiled(loss=WeightedLoss((1.0, 2.0))), r"loss.weights is \[1.0, 2.0\]"),
    "function of a loss": (
        lambda: compiled(loss=Applying(keras.ops.abs)),
        'loss.function is "abs" and would be "square"',
    ),
    "lambda of a loss": (lambda: compiled(loss=Applying(lambda x: x)), "loss.function is .*<lambda> -?[0-9]"),
    "function for training alone": (
        lambda: sequential(DropPath(keras.ops.abs)),
        'rate of drop_path.* is "abs" and would be',
    ),
    "keys of a setting": (
        lambda: compiled(loss=OfClasses({0: 9.0})),
        'loss.weights is {"int 0": 9.0} and would be {"0": 9.0}',
    ),
    "setting of an optimizer": (lambda: compiled(Clipped(most=5.0)), r"optimizer.most is 5.0 and would be 1"),
    "setting of a schedule": (
        lambda: compiled(keras.optimizers.SGD(Halving(7))),
        "learning_rate.each is 7 and would be 100",
    ),
    "setting of a regularizer": (
        lambda: sequential(layers.Dense(2, kernel_regularizer=Penalty(0.5))),
        "kernel_regularizer.factor of dense.* is 0.5 and would be 0.1",
    ),
    "setting for training alone": (
        lambda: sequential(DropPath(0.5)),
        "rate of drop_path.* is 0.5 and would be",
    ),
}
TOLD = {
    "exclusions from weight decay": (excluded, "exclude_from_weight_decay.*is not saved"),
    "factors of LoRA": (adapted, "call `enable_lora`"),
    "factors of LoRA in an attention": (adapted_attention, "call `enable_lora`"),
    "counter of a loss": (lambda: compiled(loss=counting_loss()), r"loss.calls \(set by use\) is 7 and"),
    "what is no argument": (counted, "calls of counting.* is [0-9]+ and would be"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_would_change_in_silence_is_refused_with_the_way_out(change, tmp_path):
    make, reason = REFUSED[change]
    with pytest.raises(ValueError, match=f"(?s)would not come back as it is: .*({reason})"):
        save(make(), tmp_path / "model.keras")
    assert names(tmp_path) == []


@pytest.mark.parametrize("change", TOLD)
def test_what_is_lost_for_further_training_is_told(change, tmp_path):
    make, reason = TOLD[change]
    with pytest.warns(UserWarning, match=reason):
        assert load(save(make(), tmp_path / "model.keras")).built


def test_the_encoding_of_text_comes_back_(tmp_path):
    model = sequential(
        layers.TextVectorization(vocabulary=["\xe4"], encoding="latin-1", output_sequence_length=1),
        shape=(1,),
        dtype="string",
    )
    loaded = load(save(model, tmp_path / "model.keras"))
    assert loaded.layers[0].get_config()["encoding"] == "latin-1"


def test_the_model_is_as_it_was_and_trains_on(tmp_path):
    model = compiled("adam")
    before = {name: str(value) for name, value in vars(model).items()}
    save(model, tmp_path / "model.keras")
    assert not model.optimizer.built
    assert {name: str(value) for name, value in vars(model).items()} == before
    model.layers[0].trainable = False  # an optimizer that `save` had built would keep the weights of before
    model.layers[0].trainable = True
    counting = counted()
    with pytest.warns(UserWarning, match="calls of counting"):
        save(counting, tmp_path / "counting.keras")
    assert counting.layers[0].calls == 7
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert len(load(save(model, tmp_path / "model.keras")).optimizer.variables) == 6


@register
class Drawing(layers.Layer):
    """Draws and counts in ways that only TensorFlow, NumPy and Python know."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.seen = tf.Variable(0.0), []

    def call(self, x):
        self.calls.assign_add(1.0)
        self.seen.append("call")
        return x + np.random.normal() + random.random() + tf.random.normal(())  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:.* of drawing|only weights")
def test_a_layer_that_draws_and_counts_is_as_it_was(tmp_path):
    keras.utils.set_random_seed(1)
    model, drawn = sequential(Drawing()), []
    for steps in (lambda: None, lambda: save(model, tmp_path / "model.keras")):
        keras.utils.set_random_seed(1)
        steps()
        numbers = np.random.normal(), random.random(), float(tf.random.normal(()))  # noqa: NPY002
        drawn.append((*numbers, float(model.layers[0].calls), len(model.layers[0].seen)))
    assert drawn[0] == drawn[1]


def test_the_way_out_names_sublayers_only_where_they_differ():
    differ = "what the file holds and what the model that it builds would save differ: "
    for parts, told in (("/optimizer/vars/1", False), ("/hidden/vars/0, /optimizer/vars/1", True)):
        assert ("sublayers" in _way_out(differ + parts)) == told


# Where it goes


def test_the_mode_of_the_earlier_file_stays(tmp_path):
    model = sequential(layers.Dense(2))
    path = save(model, tmp_path / "model.keras")
    for mode in (0o600, 0o640):
        path.chmod(mode)
        save(model, path)
        found = {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
        assert found == {mode}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_the_earlier_file_stays(tmp_path):
    path = save(sequential(layers.Dense(2)), tmp_path / "model.keras")
    os.chown(path, 1234, 2345)
    save(sequential(layers.Dense(2)), path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_only_a_regular_file_is_replaced(tmp_path):
    model = sequential(layers.Dense(2))
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "device.keras").symlink_to("/dev/null")
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="of a regular file or of none"):
            save(model, tmp_path / f"{name}.keras")
        with pytest.raises(FileNotFoundError, match="is no file"):
            load(tmp_path / f"{name}.keras")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(ValueError, match="without a line end"):
        save(model, tmp_path / "a\nb.keras")
    assert names(tmp_path) == ["device.keras", "pipe.keras"]


def test_another_hard_link_keeps_the_earlier_file(tmp_path):
    path = save(sequential(layers.Dense(2)), tmp_path / "model.keras")
    os.link(path, tmp_path / "kept.keras")
    save(sequential(layers.Dense(5)), path)
    assert [load(tmp_path / name).count_params() for name in ("kept.keras", "model.keras")] == [8, 20]
