"""Cure an overfit: one network for film reviews, without a cure and with nine, side by side.

Teaches   What overfitting looks like, and what each cure does to it: smaller nets, penalties on
          weights, on biases and on activations, dropout (its rate, noise_shape and seed), batch
          normalization, early stopping; why a loss that holds a penalty cannot be compared with one
          that does not.
Data      IMDB: 5,000 reviews to train on, 5,000 to validate, 25,000 to test; 5,000 common tokens.
Source    Chollet, Deep Learning with Python, section 4.4; Géron, Hands-On Machine Learning, 11.
Takes     22 s
Try next  --units 64: do all cures still work? --rate 0.2 or 0.8; --penalty 0.3: when does a cure
          harm?
"""

import keras
import numpy as np
from keras import layers, regularizers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: uncured_val_loss 0.58 to 0.65, cured_val_loss 0.314 to 0.328, test_accuracy 0.861 to
# 0.869.
EXPECTED = {
    "uncured_val_loss": (0.5, 0.8),
    "cured_val_loss": (0.3, 0.345),
    "test_accuracy": (0.85, 0.88),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 2}
NUM_WORDS = 5000


def build_model(
    units: int,
    *,
    weights: regularizers.Regularizer | None = None,
    biases: regularizers.Regularizer | None = None,
    activity: regularizers.Regularizer | None = None,
    norm: bool = False,
    rate: float = 0.0,
    noise_shape: tuple | None = None,
) -> keras.Model:
    """Build and compile a net of two hidden layers, with the cures that the arguments ask for."""
    # The rows come as a sparse matrix, which stores only what is not 0: see step 1 below.
    model = keras.Sequential([keras.Input(shape=(NUM_WORDS,), sparse=True)])
    for layer in range(2):
        # Keras calls the matrix of weights a kernel. The activation is a layer of its own, so that
        # batch normalization can stand before it.
        model.add(layers.Dense(units, kernel_regularizer=weights, bias_regularizer=biases))
        if norm:  # each unit gets mean 0 and deviation 1 over a batch: see build_models
            model.add(layers.BatchNormalization())
        model.add(layers.Activation("relu", activity_regularizer=activity))
        # In training only, dropout sets a share `rate` of the activations to 0 at random, and
        # multiplies the others by 1 / (1 - rate), so that their sum stays about as large.
        # Activations have the shape (rows, units). With noise_shape=None each of them is dropped or
        # kept by a choice of its own. With (None, 1) there is one choice for each row.
        # A seed makes the choices repeatable. It is another one in each layer.
        model.add(layers.Dropout(rate=rate, noise_shape=noise_shape, seed=layer))
    # The sigmoid gives the probability that a review is positive.
    model.add(layers.Dense(units=1, activation="sigmoid"))
    # "binary_crossentropy" stands here twice. To the loss, Keras adds the penalties, so the losses
    # of nets with other penalties cannot be compared. The metric has no penalty in it, and can be.
    metrics = ["accuracy", "binary_crossentropy"]
    model.compile(optimizer="rmsprop", loss="binary_crossentropy", metrics=metrics)
    return model


def build_models(units: int, penalty: float, rate: float) -> dict[str, keras.Model]:
    """The network without a cure, and with each of nine."""
    # A penalty is added to the loss, so training makes it small, too. L1 is a small number times
    # the sum of absolute values, L2 a small number times the sum of squares. The values may be a
    # layer's weights, its biases, or its activations (then the mean over the rows of a batch).
    # So a weight stays large only where it lowers the loss by more than its penalty. A weight that
    # serves many reviews does. One that knows a single review by heart does not.
    l1 = regularizers.L1(penalty / 10)
    l2 = regularizers.L2(penalty)
    return {
        "no cure": build_model(units),
        "early stopping": build_model(units),  # a callback will stop it, in step 3
        "smaller": build_model(max(1, units // 4)),
        "L1": build_model(units, weights=l1),
        "L2": build_model(units, weights=l2),
        # The first layer has 5,000 weights a unit: enough to learn reviews by heart. A unit has one
        # bias, which shifts it by the same amount for all reviews: a penalty on it does little.
        "L2 of biases": build_model(units, biases=l2),
        # Small activations: a unit answers strongly only where that lowers the loss by more.
        "activity": build_model(units, activity=l2),
        "dropout": build_model(units, rate=rate),
        # To compare with: whole rows are dropped. The next layer then sees zeros for a review.
        "dropout of rows": build_model(units, rate=rate, noise_shape=(None, 1)),
        # Batch normalization shifts and scales what each unit gives for the reviews of a batch, to
        # mean 0 and deviation 1. So what a review gives depends on the others in its batch, which
        # change from epoch to epoch: a kind of noise. Predictions use running means instead.
        "batch norm": build_model(units, norm=True),
    }


def main(
    run: Run,
    *,
    units: int = 16,
    penalty: float = 0.01,
    rate: float = 0.5,
    epochs: int = 20,
) -> None:
    """Train with and without each cure, and score the best on the test reviews.

    Args:
        units: Width of the two hidden layers; a quarter of it in the smaller net.
        penalty: Factor of the sum of squares in the loss; that of absolute values gets a tenth.
        rate: Share of the activations that dropout sets to 0 in training.
        epochs: Passes over the training rows, enough of them to see overfitting.
    """
    # 1. Data: a row has a 1 for each word that occurs in a review, else 0. A sparse matrix stores
    #    only the ones. We train on a fifth of the reviews: a net soon learns so few by heart, which
    #    is what we want to see. The test rows wait until step 5.
    (reviews, labels), (test_reviews, test_labels) = run.data.imdb(num_words=NUM_WORDS)
    count = len(reviews) // 5
    x = toolkit.multi_hot(reviews[:count], NUM_WORDS, sparse=True)  # (5000, 5000)
    y = labels[:count].reshape(-1, 1)  # (5000, 1), as the models give it
    x_val = toolkit.multi_hot(reviews[count : 2 * count], NUM_WORDS, sparse=True)
    y_val = labels[count : 2 * count].reshape(-1, 1)
    x_test = toolkit.multi_hot(test_reviews, NUM_WORDS, sparse=True)  # (25000, 5000)
    y_test = test_labels.reshape(-1, 1)

    # 2. Baselines: always the more frequent answer, and a linear model with an L2 penalty.
    #    (run.score prints a score, beside the range in which it is expected, if it has one.)
    frequent = np.bincount(y[:, 0]).argmax()
    run.score(baseline_accuracy=np.mean(y_test == frequent))
    # The smaller C is, the stronger is the penalty.
    linear = LogisticRegression(C=0.01).fit(x.astype("float32"), y[:, 0])
    run.score(linear_accuracy=linear.score(x_test, y_test[:, 0]))

    # 3. Train them all. Overfitting: the loss of the training rows falls to the end, while that of
    #    the validation rows, from which no weight learns, turns and rises. In cures.png, look where
    #    the two curves part. With a cure, the validation curve stays low to the end.
    models = build_models(units, penalty, rate)
    curves = {}
    for name, model in models.items():
        callbacks = [run.log(f"{name.replace(' ', '_')}.csv")]  # each epoch's scores, in a file
        if name == "early stopping":
            # This is no part of a model, but a callback, which is called after each epoch. It ends
            # the training after 3 epochs without a lower validation loss, and puts the weights of
            # the best epoch back.
            stop = keras.callbacks.EarlyStopping(
                monitor="val_binary_crossentropy",
                patience=3,
                restore_best_weights=True,
            )
            callbacks.append(stop)
        # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
        # TensorFlow takes many steps, where model.fit makes a call for each batch.
        history = toolkit.fit(
            model,
            x,
            y,
            batch_size=256,
            epochs=epochs,
            validation_data=(x_val, y_val),
            callbacks=callbacks,
            verbose=0,
        )
        curves[name] = history.history
        curve = history.history["val_binary_crossentropy"]
        print(f"{name:<16} loss of the validation rows {curve[-1]:.3f}, lowest {min(curve):.3f}")
    run.figure("cures.png", draw_curves(curves, epochs))

    # 4. Compare the models as training left them: with the weights of the last epoch, or, after
    #    early stopping, with those of the best one.
    kept = {name: curve["val_binary_crossentropy"][-1] for name, curve in curves.items()}
    kept["early stopping"] = min(curves["early stopping"]["val_binary_crossentropy"])
    best = min(kept, key=kept.get)
    run.score(uncured_val_loss=kept["no cure"])
    run.score(cured_val_loss=kept[best])

    # 5. The best was chosen on the validation rows, so its score there is a little too good. Score
    #    it once on the test rows, which had no say in the choice.
    model = models[best]
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))
    probability = model.predict(x_test[:1], verbose=0)[0, 0]
    print(f"Best: {best}. First test review: {probability:.3f}, in truth {y_test[0, 0]}.")


def draw_curves(curves: dict, epochs: int) -> Figure:
    """Draw the cross-entropy of each net, training and validation, in a panel of its own."""
    figure = Figure(figsize=(6.4, 9.6), layout="constrained")
    figure.suptitle("IMDB reviews: cross-entropy without a cure, and with nine")
    for place, (name, curve) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(5, 2, place)
        toolkit.plot_history(curve, "binary_crossentropy", ax=axes, title=name)
        axes.set(xlim=(0, epochs + 1), ylim=(0, 0.8), ylabel="")
        axes.set_xlabel("epoch" if place > 8 else "")  # below the last row
        lines = axes.get_lines()  # the same three in each panel, so one legend serves all
        axes.get_legend().remove()
    names = ["training", "validation", "lowest"]
    figure.legend(lines, names, loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    cli(main)
