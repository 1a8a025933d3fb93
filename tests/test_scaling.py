import keras
import numpy as np
import pandas as pd
import pytest
import sklearn.base
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from toolkit import MinMaxNormalizer, Standardizer, load, save

SCALERS = [Standardizer, MinMaxNormalizer]
shapes = st.tuples(st.integers(1, 20), st.integers(1, 4))
tables = arrays(np.float64, shapes, elements=st.integers(-1000, 1000))


@given(tables)
def test_standardized_columns_have_mean_0_and_deviation_1_or_0(x):
    z = Standardizer.fit(x)(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    constant = np.ptp(x, axis=0) == 0
    np.testing.assert_allclose(z.std(axis=0), np.where(constant, 0, 1), atol=1e-9)


@given(tables)
def test_normalized_columns_span_0_to_1(x):
    z = MinMaxNormalizer.fit(x)(x)
    assert (z.min(axis=0) == 0).all()
    np.testing.assert_allclose(z.max(axis=0), np.where(np.ptp(x, axis=0) == 0, 0, 1))


@pytest.mark.parametrize("scaler", SCALERS)
@given(x=tables)
@settings(deadline=None, max_examples=30)
def test_inverse_undoes_it_and_arrays_tensors_and_layer_agree(scaler, x):
    scaler = scaler.fit(x)
    z = scaler(x)
    np.testing.assert_allclose(scaler.inverse(z), x, atol=1e-9)
    tensor = tf.constant(x)
    np.testing.assert_allclose(scaler(tensor), z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaler.inverse(tf.constant(z)), x, atol=1e-9)
    np.testing.assert_allclose(tf.function(scaler)(tensor), z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaler.layer()(x.astype("float32")), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scaler", SCALERS)
def test_dtypes(scaler):
    scaler = scaler.fit(np.arange(6).reshape(3, 2))
    for dtype in ("uint8", "int64", "float16", "float32"):
        assert scaler(np.ones((1, 2), dtype)).dtype == np.float32
        assert scaler(tf.ones((1, 2), dtype)).dtype == tf.float32
    assert scaler(np.ones((1, 2), "float64")).dtype == np.float64
    assert scaler(tf.ones((1, 2), tf.float64)).dtype == tf.float64
    assert scaler([[1, 2]]).dtype == np.float32


HOUSES = pd.DataFrame(
    {"rooms": [3.0, 4.0, 8.0], "sea": [True, False, True], "age": [1, 50, 7]}, index=[7, 1, 4]
)


@pytest.mark.parametrize("scaler", SCALERS)
def test_a_table_of_pandas_comes_back_as_one_with_its_index_and_columns(scaler):
    values = HOUSES.to_numpy(dtype="float64")
    scaler, plain = scaler.fit(HOUSES), scaler.fit(values)
    scaled = scaler(HOUSES)
    assert isinstance(scaled, pd.DataFrame)
    assert scaled.index.equals(HOUSES.index)
    assert scaled.columns.equals(HOUSES.columns)
    np.testing.assert_array_equal(scaled, plain(values))
    np.testing.assert_allclose(scaler.inverse(scaled), values)
    row = scaler(HOUSES.astype("float64").loc[1])
    assert isinstance(row, pd.Series)
    pd.testing.assert_series_equal(row, scaled.loc[1])
    np.testing.assert_array_equal(scaler(values), scaled)
    assert plain.columns is None
    assert set(scaler(HOUSES.astype("float32")).dtypes) == {np.dtype("float32")}


def test_columns_in_another_order_are_refused():
    other = HOUSES[["sea", "rooms", "age"]]
    with pytest.raises(
        ValueError, match=r"columns \('rooms', 'sea', 'age'\). Received: \('sea', 'rooms', 'age'\)"
    ):
        Standardizer.fit(HOUSES)(other)


def test_a_column_that_holds_no_numbers_and_a_missing_number_are_named():
    with pytest.raises(ValueError, match=r"`x_train` must hold numbers. Received: dtype .* in column 'town'"):
        Standardizer.fit(HOUSES.assign(town="Boston"))
    missing = HOUSES.assign(age=pd.array([1, None, 7], dtype="Int64"))
    with pytest.raises(ValueError, match=r"`x_train` must be finite. Received: nan in row 1, column 2"):
        Standardizer.fit(missing)
    with pytest.raises(ValueError, match=r"`x` must be finite. Received: nan in row 1, column 2"):
        Standardizer.fit(HOUSES)(missing)


def test_a_scaler_stands_in_a_pipeline_of_scikit_learn():
    prices = [10.0, 20.0, 30.0]
    scale = FunctionTransformer(Standardizer.fit(HOUSES))
    pipeline = sklearn.base.clone(make_pipeline(scale, LinearRegression())).fit(HOUSES, prices)
    np.testing.assert_allclose(pipeline.predict(HOUSES), prices)


def test_a_functional_model_scales_its_input():
    scaler = Standardizer.fit([[1.0, 7.0], [3.0, 5.0]])
    inputs = keras.Input((2,))
    model = keras.Model(inputs, scaler(inputs))
    x = np.array([[2.0, 9.0]], "float32")
    np.testing.assert_allclose(model.predict(x, verbose=0), scaler(x))


class Foreign:
    """A tensor of another framework: NumPy can read it."""

    shape = (1, 2)
    dtype = "torch.float64"

    def __array__(self, dtype=None, copy=None):
        return np.ones((1, 2))


def test_a_tensor_of_another_framework_is_refused_by_name_and_not_turned_into_ours():
    scaler = Standardizer.fit(Foreign())  # the statistics are NumPy's in any case
    with pytest.raises(TypeError, match=r"a tensorflow tensor. Received: .*Foreign; pass numpy.asarray\(x\)"):
        scaler(Foreign())


def test_a_constant_column_that_floats_blur_scales_by_one():
    x = np.column_stack([np.full(1000, 0.1) * 3, np.arange(1000)])  # its computed deviation is not quite 0
    standardizer = Standardizer.fit(x)
    assert standardizer.scale[0] == 1
    assert np.abs(standardizer(x)[:, 0]).max() < 1e-12


def test_statistics_are_taken_in_float64():
    x = (1e6 + np.array([[0.0], [1.0]] * 50_000)).astype("float32")  # float32 sums would lose the spread
    np.testing.assert_allclose(Standardizer.fit(x).scale, 0.5)


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_refused_with_row_and_column(scaler, bad):
    x = np.ones((3, 4), "float32")
    x[1, 2] = bad
    with pytest.raises(ValueError, match=rf"`x_train` must be finite. Received: {bad} in row 1, column 2"):
        scaler.fit(x)
    with pytest.raises(ValueError, match=rf"`x` must be finite. Received: {bad} in row 1, column 2"):
        scaler.fit(np.ones((2, 4)))(x)


@pytest.mark.parametrize("bad", [[], [[]], [1.0, 2.0], [["a"]], np.zeros((0, 3))], ids=str)
def test_what_is_no_table_is_refused(bad):
    with pytest.raises(ValueError, match="`x_train` must be an array of numbers"):
        Standardizer.fit(bad)


def test_another_number_of_columns_is_refused():
    with pytest.raises(ValueError, match=r"`x` must have 2 columns. Received: shape \(1, 3\)"):
        Standardizer.fit(np.ones((2, 2)))(np.ones((1, 3)))


def test_a_spread_that_the_layer_cannot_represent_is_refused():
    with pytest.raises(ValueError, match=r"column 1 .* smaller unit"):
        Standardizer.fit([[1.0, 1e-12], [2.0, 2e-12]]).layer()


@pytest.mark.parametrize("scaler", SCALERS)
def test_the_layer_is_saved_with_its_model(scaler, tmp_path):
    x = np.random.default_rng(0).normal(5, 3, (50, 3)).astype("float32")
    scaler = scaler.fit(x)
    model = keras.Sequential([keras.Input(shape=(3,)), scaler.layer()])
    loaded = load(save(model, tmp_path / "model.keras"))
    np.testing.assert_allclose(loaded.predict(x, verbose=0), scaler(x), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_a_tensor_on_the_gpu_stays_there():
    with tf.device("GPU:0"):
        assert "GPU" in Standardizer.fit([[1.0], [2.0]])(tf.ones((1, 1))).device
