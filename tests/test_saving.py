import keras
import numpy as np
import pytest

from toolkit import load, save


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input(shape=(3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model


def test_predictions_and_further_training_are_equal_after_a_round_trip(model, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3)).astype("float32")
    model.fit(x, y[:, :1], epochs=2, verbose=0)
    loaded = load(save(model, tmp_path / "model.keras"))
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for either in (model, loaded):
        either.fit(x, y[:, :1], epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(model, tmp_path, monkeypatch):
    path = save(model, tmp_path / "model.keras")
    old = path.read_bytes()

    def fail(self, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save(model, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_what_would_not_come_back_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        save(model, tmp_path / "model.h5")
    with pytest.raises(ValueError, match="must be built"):
        save(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_loading_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path / "none.keras")
    (tmp_path / "old.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must end in \.keras.*save it as \.keras"):
        load(tmp_path / "old.h5")
