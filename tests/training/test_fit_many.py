import re

import keras
import numpy as np
import pytest
import scipy.sparse
from keras import layers

from toolkit.splits import kfold
from toolkit.training import CrossValidation, cross_validate, fit, fit_many, loop

RNG = np.random.default_rng(0)
X = RNG.random((45, 5), dtype=np.float32) * [1, 10, 1, 1, 5]
Y = (X @ RNG.random((5, 1))).astype(np.float32)
LABELS = (X[:, 0] * 3).astype(np.int64)
SPLITS = kfold(45, 4)  # 33 or 34 rows to train on: the last batches of 8 have 1 or 2


def build(i=0, rate=0.01, optimizer=keras.optimizers.Adam, inner=(), last=lambda: layers.Dense(1), **options):
    keras.utils.set_random_seed(i)
    rows = X[SPLITS[i % 4][0]]
    scale = layers.Normalization(mean=rows.mean(axis=0), variance=rows.var(axis=0))
    outer = [layers.Dense(6, "relu"), *(layer() for layer in inner), last()]
    model = keras.Sequential([keras.Input((5,)), scale, *outer])
    options = {"loss": "mse", "metrics": ["mae"]} | options
    model.compile(optimizer=optimizer(rate), **options)
    return model


@pytest.fixture
def stacks(caplog):
    """Give what the log says: the numbers of models in stacks, and why others go alone."""
    caplog.set_level("INFO", "toolkit.training")

    class Said(list):
        @property
        def counts(self):
            found = [re.match(r"(\d+) models (as|go on as) one stack", line) for line in self.lines]
            return [int(match[1]) for match in found if match]

        records = property(lambda self: caplog.records)

        @property
        def lines(self):
            return [record.getMessage() for record in caplog.records]

        def __eq__(self, other):
            return self.counts == other

        def __repr__(self):
            return repr(self.lines)

    return Said()


def check_equal(models, histories, alone, y=Y, splits=SPLITS, rtol=1e-4, **arguments):
    """Compare the first of the models, as many as there are in `alone`, with `fit` on the rows of each."""
    sample_weight = arguments.pop("sample_weight", None)
    for model, history, expected, (rows, validation) in zip(models, histories, alone, splits, strict=False):
        if validation is not None and len(validation):
            arguments["validation_data"] = (X[validation], y[validation])
        if sample_weight is not None:
            arguments["sample_weight"] = sample_weight[rows]
            arguments["validation_data"] += (sample_weight[validation],)
        keras.utils.set_random_seed(5)
        wanted = fit(expected, X[rows], y[rows], verbose=0, **arguments).history
        assert list(history.history) == list(wanted)
        for name in wanted:
            np.testing.assert_allclose(history.history[name], wanted[name], rtol=rtol, err_msg=name)
        for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)
        assert int(model.optimizer.iterations) == int(expected.optimizer.iterations)


@pytest.mark.parametrize("inner", [[], [lambda: layers.Dropout(0.5), lambda: layers.GaussianNoise(0.1)]])
def test_rows_are_shuffled_as_by_fit_alone(inner, stacks):
    models, alone = (
        [build(i, inner=inner) for i in range(n)] for n in (4, 2)
    )  # two have batches of all sizes
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, SPLITS, epochs=3, batch_size=8, verbose=0)
    assert stacks == [4]
    check_equal(models, histories, alone, epochs=3, batch_size=8)


def test_xla_gives_the_same_numbers(stacks):
    models, alone = ([build(i) for i in range(n)] for n in (4, 1))
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, SPLITS, epochs=3, batch_size=8, verbose=0, jit=True)
    assert stacks == [4]
    check_equal(models, histories, alone, epochs=3, batch_size=8)


def test_grid_of_learning_rates(stacks):
    rates = [0.001, 0.01, 0.1]
    models, alone = ([build(0, rate) for rate in rates] for _ in range(2))
    splits = [SPLITS[0]] * 3
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, splits, epochs=3, batch_size=8, verbose=0)
    assert stacks == [3]
    check_equal(models, histories, alone, splits=splits, epochs=3, batch_size=8)
    assert [float(model.optimizer.learning_rate) for model in models] == pytest.approx(rates)


def test_mixed_architectures_and_splits_of_other_lengths(stacks):
    sizes = [
        (np.arange(30), np.arange(30, 45)),
        (np.arange(7), None),
        (np.arange(40), []),
        (np.arange(30, 45), [1]),
    ]

    def make():
        return [build(0), build(1, inner=[lambda: layers.Dense(2)]), build(2), build(3)]

    models, alone = make(), make()
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, sizes, epochs=2, batch_size=8, verbose=0)
    assert stacks == []
    check_equal(models[:1], histories[:1], alone[:1], splits=sizes[:1], epochs=2, batch_size=8)
    check_equal(models[1:3], histories[1:3], alone[1:3], splits=sizes[1:3], epochs=2, batch_size=8)


def test_weights_of_rows_and_classes(stacks):
    weights = np.linspace(0.5, 2.0, 45).astype(np.float32)
    options = {"weighted_metrics": ["mse"], "metrics": None}
    models, alone = ([build(i, **options) for i in range(n)] for n in (4, 2))
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, SPLITS, epochs=2, batch_size=8, verbose=0, sample_weight=weights)
    check_equal(models, histories, alone, epochs=2, batch_size=8, sample_weight=weights)

    def classifier(i):
        options = {"last": lambda: layers.Dense(3, activation="softmax"), "metrics": ["accuracy"]}
        return build(i, **options, loss="sparse_categorical_crossentropy")

    models, alone = ([classifier(i) for i in range(n)] for n in (4, 2))
    keras.utils.set_random_seed(5)
    class_weight = {0: 3.0, 2: 0.5}
    histories = fit_many(
        models, X, LABELS, SPLITS, epochs=2, batch_size=8, verbose=0, class_weight=class_weight
    )
    check_equal(models, histories, alone, y=LABELS, epochs=2, batch_size=8, class_weight=class_weight)
    assert stacks == [4, 4]


def test_early_stopping_of_each_model(stacks):
    def stop(i):
        delta = 1e9 if i in (1, 2) else 0.0  # so that only the first epoch is an improvement
        return [
            keras.callbacks.EarlyStopping(
                "val_loss", delta, patience=max(i, 1) if delta else 9, restore_best_weights=i == 2
            )
        ]

    models, alone = ([build(i) for i in range(4)] for _ in range(2))
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, SPLITS, epochs=6, batch_size=8, verbose=0, callbacks=stop)
    assert stacks == [4, 2]
    assert [len(history.epoch) for history in histories] == [6, 2, 3, 6]
    for i in (0, 2):
        one = slice(i, i + 1)
        check_equal(
            models[one],
            histories[one],
            alone[one],
            splits=SPLITS[one],
            epochs=6,
            batch_size=8,
            callbacks=stop(i),
        )


def test_stopped_models_leave_the_stack(stacks):
    stop = [[keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)] for _ in range(3)] + [[]]
    fit_many([build(i) for i in range(4)], X, Y, SPLITS, epochs=5, batch_size=8, verbose=0, callbacks=stop)
    assert stacks == [4, 1]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_stack_that_fails_is_told_and_nobody_starts_anew(failing, stacks, monkeypatch):
    """The first stack, or the one of those that go on when the others have stopped."""
    made = []

    class Failing(loop.Stack):
        def __init__(self, members, *feeds):
            made.append(len(members))
            if len(made) == failing:
                raise MemoryError("too little")
            super().__init__(members, *feeds)

    monkeypatch.setattr(loop, "Stack", Failing)
    early = [[keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)] for _ in range(3)] + [[]]
    models, alone = ([build(i) for i in range(4)] for _ in range(2))
    options = {"epochs": 5, "batch_size": 8, "shuffle": False}
    histories = fit_many(models, X, Y, SPLITS, verbose=0, callbacks=early, **options)
    assert made == [[4], [4, 1]][failing - 1]
    assert [len(history.epoch) for history in histories] == [2, 2, 2, 5]
    check_equal(models[3:], histories[3:], alone[3:], splits=SPLITS[3:], **options)
    (warning,) = (record for record in stacks.records if record.levelname == "WARNING")
    assert "too little" in str(warning.exc_info[1])
    said = "4 models alone, because a stack of them failed", "the 1 models that go on stay in their stack"
    assert warning.getMessage() == said[failing - 1]


def test_callback_that_changes_a_model(stacks):
    def callbacks(i):
        def change(epoch, rate):
            return rate * (0.5 if i == 0 else 1.0)

        reset = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: (
                i == 1 and epoch == 1 and models_now[i].layers[1].bias.assign(np.ones(6))
            )
        )
        return [keras.callbacks.LearningRateScheduler(change), reset]

    models, alone = ([build(i) for i in range(4)] for _ in range(2))
    keras.utils.set_random_seed(5)
    models_now = models
    histories = fit_many(models, X, Y, SPLITS, epochs=3, batch_size=8, verbose=0, callbacks=callbacks)
    assert stacks == [4]
    models_now = alone
    for i in (0, 1):
        one = slice(i, i + 1)
        check_equal(
            models[one],
            histories[one],
            alone[one],
            splits=SPLITS[one],
            epochs=3,
            batch_size=8,
            callbacks=callbacks(i),
        )


def test_non_finite_weights_name_the_model():
    models = [build(i) for i in range(4)]
    models[2].layers[1].kernel.assign(np.full((5, 6), np.nan))
    with pytest.raises(FloatingPointError, match=r"weights of c must stay finite.*after epoch 1"):
        fit_many(models, X, Y, SPLITS, names=list("abcd"), epochs=3, verbose=0)
    assert np.isfinite(models[0].predict(X, verbose=0)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["a"]}, "`names` must have one for each of the 4 models. Received: ['a']"),
        ({"splits": SPLITS[:3]}, "`splits` must have one pair for each of the 4 models. Received: 3"),
        ({"splits": [*SPLITS[:3], ([45], [])]}, "`splits[3]` must be row numbers below n=45"),
        ({"splits": [*SPLITS[:3], ([-1], [])]}, "`splits[3]` must be row numbers below n=45"),
        ({"splits": [*SPLITS[:3], ([0.5], [])]}, "`splits[3]` must be row numbers below n=45"),
        ({"splits": [*SPLITS[:3], ([], [1])]}, "some to train on"),
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, "`callbacks` must be a function"),
        (
            {"callbacks": [[keras.callbacks.TerminateOnNaN()]] * 4},
            "`callbacks` must differ from model to model",
        ),
    ],
)
def test_refuses(arguments, message):
    arguments = {"splits": SPLITS} | arguments
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        fit_many([build(i) for i in range(4)], X, Y, verbose=0, **arguments)


def test_csr_goes_one_by_one(stacks):
    x = scipy.sparse.csr_matrix(X)
    models = [keras.Sequential([keras.Input((5,), sparse=True), layers.Dense(1)]) for _ in range(2)]
    for model in models:
        model.compile("sgd", "mse")
    histories = fit_many(models, x, Y, SPLITS[:2], epochs=2, verbose=0)
    assert stacks == []
    assert [len(history.history["val_loss"]) for history in histories] == [2, 2]


def test_prints_means_at_most_twenty_lines(capsys):
    fit_many([build(i) for i in range(4)], X, Y, SPLITS, epochs=3)
    assert len(capsys.readouterr().out.splitlines()) == 3
    histories = fit_many([build(i) for i in range(4)], X, Y, SPLITS, epochs=100)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 21
    mean = np.mean([history.history["val_mae"][-1] for history in histories])
    assert lines[-1].endswith(f"val_mae: {mean:.4f}")


def build_model(rows):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Normalization(mean=rows.mean(0), variance=rows.var(0)), layers.Dense(1)]
    )
    model.compile("adam", loss="mse", metrics=["mae"])
    return model


def test_cross_validate():
    result = cross_validate(build_model, X, Y, folds=2, repeats=2, seed=4, epochs=4, batch_size=8, verbose=0)
    assert result.curves["val_loss"].shape == (4, 4)
    splits = [*kfold(45, 2, seed=4), *kfold(45, 2, seed=5)]
    for fold in (1, 2):
        rows, validation = splits[fold]
        keras.utils.set_random_seed(4 + fold)
        model = build_model(X[rows])
        keras.utils.set_random_seed(4)
        validation_data = (X[validation], Y[validation])
        alone = fit(
            model, X[rows], Y[rows], validation_data=validation_data, epochs=4, batch_size=8, verbose=0
        )
        np.testing.assert_allclose(result.histories[fold]["val_mae"], alone.history["val_mae"], rtol=1e-4)
    mean = result.curves["val_loss"].mean(axis=0)
    assert result.best_epoch == mean.argmin() + 1
    np.testing.assert_allclose(result.mean["val_loss"], mean)
    np.testing.assert_allclose(result.scores["val_mae"], result.curves["val_mae"][:, result.best_epoch - 1])
    assert f"4 folds, best epoch {result.best_epoch} of 4 by val_loss" in repr(result)
    with pytest.raises(AttributeError):
        result.monitor = "loss"
    axes = result.plot("mae").figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "mean absolute error")
    with pytest.raises(ValueError, match="`metric` must be one of"):
        result.plot("accuracy")


def test_curves_of_folds_that_stopped_early():
    result = CrossValidation(({"val_loss": [3.0, 2.0]}, {"val_loss": [3.0, 4.0, 0.0]}))
    np.testing.assert_array_equal(result.curves["val_loss"], [[3.0, 2.0, np.nan], [3.0, 4.0, 0.0]])
    assert result.best_epoch == 1  # the third epoch is that of one fold alone


def test_stratified_and_grouped_folds():
    for options in ({"stratify": LABELS}, {"groups": np.arange(45) // 5}):
        seen = []

        def build_model_of(rows, seen=seen):
            seen.append(rows)
            return build_model(rows)

        cross_validate(build_model_of, X, Y, folds=3, repeats=2, seed=7, verbose=0, **options)
        expected = [*kfold(45, 3, seed=7, **options), *kfold(45, 3, seed=8, **options)]
        for rows, (wanted, _) in zip(seen, expected, strict=True):
            np.testing.assert_array_equal(rows, X[wanted])
    with pytest.raises(ValueError, match="`folds` must be between 2 and n=45"):
        cross_validate(build_model, X, Y, folds=46)


def test_names_the_culprit():
    model = build()
    with pytest.raises(TypeError, match=r"`models` must be a list of compiled models\. Received: Sequential"):
        fit_many(model, X, Y, SPLITS)
    with pytest.raises(TypeError, match=r"`build_model` must return a compiled model\. Received: None"):
        cross_validate(lambda rows: None, X, Y)
    with pytest.raises(ValueError, match=r"`splits\[0\]` must be a pair of row numbers"):
        fit_many([model], X, Y, [[1, 2, 3]])
    with pytest.raises(ValueError, match="model 2 is the same object as model 1"):
        fit_many([model, model], X, Y, SPLITS[:2])


def test_a_rate_that_falls_after_one_of_them_has_stopped(stacks):
    def callbacks(i):
        stop = [keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=1)] if i == 0 else []
        return [*stop, keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)]

    models, alone = ([build(i) for i in range(4)] for _ in range(2))
    keras.utils.set_random_seed(5)
    histories = fit_many(models, X, Y, SPLITS, epochs=5, batch_size=8, verbose=0, callbacks=callbacks)
    assert stacks == [4]  # the one that has stopped stays in the stack
    assert [len(history.epoch) for history in histories] == [2, 5, 5, 5]
    for i in (0, 1):
        one = slice(i, i + 1)
        arguments = {"epochs": 5, "batch_size": 8, "callbacks": callbacks(i)}
        check_equal(models[one], histories[one], alone[one], splits=SPLITS[one], **arguments)
