"""`toolkit.fit` is `model.fit` and `toolkit.fit_many` is both, by an oracle that is itself tried first."""

import copy
import inspect
import random

import keras
import pytest
import sklearn.model_selection
from conftest import one_in
from training import cases_calls, cases_many, cases_own, cases_plain, oracle
from training.models import BINARY, Seer, X, classifier, dense, sequential
from training.oracle import OUTCOMES, check_fit, check_many, check_resume, different

import toolkit

FIT = cases_plain.CASES | cases_calls.CASES | cases_own.CASES
MANY, RESUMED = cases_many.MANY, cases_many.RESUMED


def off_by_a_thousandth(model, history, x):
    model.layers[0].kernel.assign(model.layers[0].kernel * 1.001)


def drawn(model, history, x):
    random.random()


def turned(model, history, x):
    history.history = dict(reversed(history.history.items()))


def of_another_type(model, history, x):
    history.history["loss"] = [str(value) for value in history.history["loss"]]


def written(model, history, x):
    x[0, 0] += 1


def slower(model, history, x):
    model.optimizer.learning_rate = 0.001


def stopped(model, history, x):
    model.stop_training = True


def counted(model, history, x):
    model.optimizer.iterations.assign_add(1)


def forgotten(model, history, x):
    model.reset_metrics()


def frozen(model, history, x):
    model.layers[0].trainable = False
    model.compile("sgd", "mse", metrics=["mae"])


def refused_too_late(model, history, x):
    raise ValueError("`x` came too late")


PLANTED = {
    off_by_a_thousandth: "variables/sequential/dense/kernel",
    drawn: "random/random",
    turned: "history: keys .* in the order",
    of_another_type: "history/loss",
    written: "x, y",
    slower: "sgd/learning_rate",
    stopped: "stop_training",
    counted: "sgd/iteration",
    forgotten: "metrics/loss",
    frozen: "after the second fit",
    refused_too_late: "failed after training had begun",
}


@pytest.fixture
def uncounted():
    yield
    OUTCOMES.pop("planted")


@pytest.mark.parametrize("change", PLANTED)
def test_the_oracle_sees_a_planted_fault(change, tmp_path, uncounted):
    def train(model, x, y, **options):
        history = model.fit(x, y, **options)
        change(model, history, x)
        return history

    with pytest.raises(pytest.fail.Exception, match=PLANTED[change]):
        check_fit(cases_plain.case(dense), tmp_path, "planted", train)


def test_the_oracle_sees_a_callback_that_is_called_otherwise(tmp_path, uncounted):
    def train(model, x, y, callbacks, **options):
        callbacks[0].on_test_begin = lambda logs=None: None
        return model.fit(x, y, callbacks=callbacks, **options)

    case = cases_plain.case(dense, validation_split=0.2, callbacks=lambda folder: [Seer()])
    with pytest.raises(pytest.fail.Exception, match=r"callbacks\[0\] Seer/calls"):
        check_fit(case, tmp_path, "planted", train)


def test_the_oracle_wants_the_refusals_that_the_table_names(tmp_path, uncounted):
    case = cases_plain.case(dense, refused="never")
    with pytest.raises(pytest.fail.Exception, match="should have refused: never"):
        check_fit(case, tmp_path, "planted", lambda model, *data, **options: model.fit(*data, **options))


def test_the_oracle_sees_models_that_are_mistaken_for_one_another(tmp_path, uncounted, monkeypatch):
    def fit_many(models, x, y, splits, **options):
        models[:] = reversed(models)
        return [
            model.fit(x[rows], y[rows], **options) for model, (rows, _) in zip(models, splits, strict=True)
        ]

    monkeypatch.setattr(toolkit, "fit_many", fit_many)
    monkeypatch.setattr(oracle, "SHOWN", 1000)
    case = cases_many.many(classifier, y=cases_many.LABELS, splits=cases_many.ALONE, log="2 models as one")
    with pytest.raises(
        pytest.fail.Exception, match=r"(?s)log: must have.*model.fit: model 1.*\nfit: model 2"
    ):
        check_many(case, tmp_path, "planted")


def test_the_arguments_of_model_fit_come_in_its_order(tmp_path):
    theirs = list(inspect.signature(keras.Model.fit).parameters)[1:]
    assert list(inspect.signature(toolkit.fit).parameters)[1:][: len(theirs)] == theirs

    def train(model, x, y, batch_size, epochs, verbose, shuffle, validation_split):
        return toolkit.fit(model, x, y, batch_size, epochs, verbose, None, validation_split, None, shuffle)

    check_fit(cases_plain.case(dense, validation_split=0.2), tmp_path, ours=train)


@pytest.fixture(autouse=True)
def thorough(request, monkeypatch):
    """Leave the further use of the models to the slow tests."""
    quick = "not slow" in request.config.getoption("markexpr") and "name" in request.fixturenames
    monkeypatch.setattr(oracle, "THOROUGH", not quick)


@pytest.mark.parametrize("name", one_in(4, FIT))
def test_fit_is_model_fit(name, tmp_path):
    check_fit(FIT[name], tmp_path)


@pytest.mark.parametrize("name", one_in(4, MANY))
def test_fit_many_is_fit_and_model_fit(name, tmp_path):
    check_many(MANY[name], tmp_path)


@pytest.mark.parametrize("name", one_in(2, RESUMED))
def test_a_run_that_goes_on_is_an_undisturbed_one(name, tmp_path):
    check_resume(RESUMED[name], tmp_path)


@pytest.mark.parametrize("metric", ["accuracy", "AUC", keras.metrics.F1Score(threshold=0.5)])
def test_cross_validate_is_model_fit_on_each_fold(metric):
    def build_model(rows):
        scale = keras.layers.Normalization(mean=rows.mean(axis=0), variance=rows.var(axis=0))
        return sequential(
            scale,
            keras.layers.Dense(4),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, activation="sigmoid"),
            optimizer="adam",
            loss="binary_crossentropy",
            metrics=[copy.deepcopy(metric)],
        )

    options = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0}
    folds = list(sklearn.model_selection.KFold(3, shuffle=True, random_state=5).split(X))
    keras.utils.clear_session(free_memory=False)
    models = []
    for i, (rows, _) in enumerate(folds):
        keras.utils.set_random_seed(5 + i)
        models.append(build_model(X[rows]))
    keras.utils.set_random_seed(5)
    wanted = tuple(
        model.fit(X[rows], BINARY[rows], validation_data=(X[held], BINARY[held]), **options).history
        for model, (rows, held) in zip(models, folds, strict=True)
    )
    keras.utils.clear_session(free_memory=False)
    result = toolkit.cross_validate(build_model, X, BINARY, folds=3, seed=5, **options)
    assert not different("histories", wanted, result.histories, 1e-4, 1e-5)
