import keras
import numpy as np
import pytest
from keras import layers
from saving.examples import sequential

import toolkit
from toolkit import load


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input(shape=(3,)), layers.Dense(4), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model


def test_a_checkpoint_keeps_the_best_epoch(model, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3)).astype("float32")
    y = y[:, :1]
    checkpoint = toolkit.Checkpoint(tmp_path / "best.keras", monitor="val_loss")
    options = {"validation_data": (x[:8], y[:8]), "epochs": 4, "verbose": 0, "shuffle": False}
    model.compile(keras.optimizers.SGD(0.9), "mse")
    losses = model.fit(x, y, callbacks=[checkpoint], **options).history["val_loss"]
    assert checkpoint.best == min(losses)
    assert load(checkpoint.path).evaluate(x[:8], y[:8], verbose=0) == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("fit", ["keras", "toolkit"])
def test_a_checkpoint_without_a_score_keeps_the_last_epoch(fit, model, tmp_path):
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    checkpoint = toolkit.Checkpoint(tmp_path / "last.keras")
    options = {"epochs": 2, "verbose": 0, "callbacks": [checkpoint]}
    model.fit(x, y, **options) if fit == "keras" else toolkit.fit(model, x, y, **options)
    loaded = load(tmp_path / "last.keras")
    assert loaded.optimizer.iterations == 2
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_checkpoints_of_many_models_hold_each_its_own(tmp_path):
    models = [sequential(layers.Dense(1)) for _ in range(2)]
    for model in models:
        model.compile("sgd", "mse")
    x, y = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    splits = toolkit.kfold(8, 2)
    callbacks = [[toolkit.Checkpoint(tmp_path / f"{number}.keras")] for number in range(2)]
    toolkit.fit_many(models, x, y[:, :1], splits, epochs=2, verbose=0, callbacks=callbacks)
    for number, model in enumerate(models):
        loaded = load(tmp_path / f"{number}.keras")
        np.testing.assert_allclose(loaded.get_weights()[0], model.get_weights()[0], rtol=1e-6)


def test_a_checkpoint_says_what_it_cannot_watch(model, tmp_path):
    with pytest.raises(ValueError, match=r"`mode` must be 'min' or 'max'\. Received: 'auto'"):
        toolkit.Checkpoint(tmp_path / "best.keras", "loss", "auto")
    checkpoint = toolkit.Checkpoint(tmp_path / "best.keras", "val_acc", "max")
    with pytest.raises(ValueError, match=r"`monitor` must be one of loss, mae. Received: 'val_acc'"):
        model.fit(np.ones((4, 3)), np.ones(4), verbose=0, callbacks=[checkpoint])
    checkpoint.set_model(model)
    for score, best in ((0.5, 0.5), (float("nan"), 0.5), (0.4, 0.5), (0.6, 0.6)):
        checkpoint.on_epoch_end(0, {"val_acc": score})
        assert checkpoint.best == best
