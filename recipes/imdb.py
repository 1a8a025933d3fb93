"""Tell a good film review from a bad one, and watch a model learn its training rows by heart.

Teaches   Words as multi-hot vectors; a binary classifier; overfitting, seen in a curve; choosing
          the number of epochs on validation rows; one look at the test rows.
Data      IMDB: 25,000 + 25,000 reviews, half of them positive; 123 reviews stand in both sets.
Source    Chollet, Deep Learning with Python, section 3.4 (data: Maas et al., ACL 2011).
Published 0.885
Takes     5 s
Try next  --hidden-layers 1 or 3, --units 64, --activation tanh, --loss mse: does any of them beat
          the linear model? --review "I expected nothing and was still let down."
"""

from typing import Literal

import keras
import numpy as np
from keras import layers
from sklearn.linear_model import RidgeClassifier

import toolkit
from toolkit.drawing import mark_epoch
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.872 to 0.886.
EXPECTED = {
    "baseline_accuracy": (0.5, 0.5),
    "linear_accuracy": (0.87, 0.89),
    "test_accuracy": (0.865, 0.895),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 2}
NUM_WORDS = 10_000  # the most frequent words; every other word counts as unknown


def build_model(hidden_layers: int, units: int, activation: str, loss: str) -> keras.Model:
    """Build and compile a network that turns a review into the probability that it is positive."""
    model = keras.Sequential()
    # The rows come as a sparse matrix, which stores only what is not 0: see step 1 below.
    model.add(keras.Input(shape=(NUM_WORDS,), sparse=True))
    # A Dense layer multiplies its input by a matrix of weights, adds a bias for each unit, and
    # applies the activation ("relu": a negative number becomes 0).
    for _ in range(hidden_layers):
        model.add(layers.Dense(units, activation=activation))  # (rows, units)
    # The sigmoid turns any number into one between 0 and 1, which can be read as a probability.
    model.add(layers.Dense(1, activation="sigmoid"))  # (rows, 1)
    # The loss is what training makes small: "binary_crossentropy" is -log of the probability that
    # was given to the right answer, "mse" the squared error.
    # "rmsprop" is gradient descent that divides the step of each weight by the recent size of its
    # gradients: so the weights of rare words, whose gradients are small, move as well.
    # A metric, here the share of right answers, is only shown.
    model.compile(optimizer="rmsprop", loss=loss, metrics=["accuracy"])
    return model


def main(
    run: Run,
    *,
    hidden_layers: int = 2,
    units: int = 16,
    activation: Literal["relu", "tanh"] = "relu",
    loss: Literal["binary_crossentropy", "mse"] = "binary_crossentropy",
    epochs: int = 20,
    batch_size: int = 512,
    review: str | None = None,
) -> None:
    """Train, choose the number of epochs, train again, and score the test reviews.

    Args:
        hidden_layers: Number of hidden layers.
        units: Width of each hidden layer.
        activation: Activation of the hidden layers.
        loss: What training makes small.
        epochs: Passes over the training rows, enough to see overfitting.
        batch_size: Reviews from which the optimizer takes each of its steps.
        review: A review of your own, to be scored at the end.
    """
    # 1. Data. A review is a list of word numbers, its label is 1 (positive) or 0 (negative).
    data = run.data.imdb(num_words=NUM_WORDS)
    (reviews, y), (test_reviews, y_test) = data  # reviews: 25,000 lists; y: (25000,)
    text = toolkit.decode(reviews[0], data.word_index)  # one string, as long as the review
    print(f"A review, {data.class_names[y[0]]} (a ? is a rare word): {text[:200]} ...")

    # A network wants rows of equal length. So a review becomes 10,000 numbers: a 1 for each word
    # that occurs in it, and 0 for all others. Where a word stands, and how often, is lost.
    # Nearly all of these numbers are 0. A sparse matrix stores only where the 1s are, and means the
    # same. It takes 15 MB, where one byte a number would take 250 MB. It is faster, too: the first
    # layer multiplies it by its weights, and can skip the zeros.
    x = toolkit.multi_hot(reviews, NUM_WORDS, sparse=True)  # (25000, 10000)
    x_test = toolkit.multi_hot(test_reviews, NUM_WORDS, sparse=True)  # (25000, 10000)

    # 2. Baselines: always the more frequent answer, and a linear model on the same vectors.
    # run.score prints a score, beside the range in which it is expected.
    most_frequent = np.bincount(y).argmax()  # 0 or 1
    run.score(baseline_accuracy=np.mean(y_test == most_frequent))
    # A large alpha keeps the weights small. (As float32, because scikit-learn would make float64 of
    # whole numbers, twice as large.)
    linear = RidgeClassifier(alpha=300).fit(x.astype("float32"), y)
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 3. Training, on 60% of the reviews. The other 40% are for validation: after each epoch they
    # are scored, but no weight learns from them. (validation_split takes the last rows. If all good
    # reviews came first, these would all be bad ones: so the rows must come shuffled, as these do.)
    model = build_model(hidden_layers, units, activation, loss)
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    history = toolkit.fit(
        model,
        x,
        y,
        validation_split=0.4,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=[run.log()],  # writes each epoch's scores into history.csv
        checkpoint=run.keep(),  # the toolkit's own: a run that is interrupted can go on (--resume)
    )

    # 4. Choose the number of epochs. The training loss falls to the end. The validation loss falls
    # at first, then rises: the model now learns its own reviews by heart, which helps it with no
    # other review. That is overfitting. So we choose the epoch with the lowest validation loss.
    val_loss = history.history["val_loss"]  # a list with a number for each epoch
    best_epochs = int(np.argmin(val_loss)) + 1  # the first epoch, at index 0, is number 1
    if best_epochs < epochs:
        print(f"The validation loss is lowest after epoch {best_epochs};", end=" ")
        print("then the model learns by heart.")
    else:
        print(f"The validation loss still falls in epoch {epochs}: more --epochs may do better.")
    for metric in ("loss", "accuracy"):
        axes = toolkit.plot_history(history, metric)
        mark_epoch(axes, best_epochs, "chosen by validation loss")
        axes.set_title(f"{data.name} ({data.source} data): {metric} after each epoch")
        run.figure(f"{metric}.png", axes)

    # 5. The final model. The first one has gone past its best epoch, and never learned from the
    # validation rows. So a fresh one is trained on all 25,000 reviews, up to that best epoch. Then
    # one look at the test reviews: they had no say in any choice, so their score should hold for
    # new reviews, too.
    model = build_model(hidden_layers, units, activation, loss)
    toolkit.fit(
        model,
        x,
        y,
        epochs=best_epochs,
        batch_size=batch_size,
        checkpoint=run.keep("all"),  # in another folder than the first training's
    )
    scores = model.evaluate(x_test, y_test, batch_size=batch_size, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 6. Use it. A probability near 0 or 1 means that the model is sure, one near 0.5 that it cannot
    # tell. Show the review of which it is surest, and that of which it is least sure.
    probability = model.predict(x_test, batch_size=batch_size, verbose=0)[:, 0]  # (25000,)
    surest = np.argmax(np.abs(probability - 0.5))
    least_sure = np.argmin(np.abs(probability - 0.5))
    for name, row in (("surest", surest), ("least sure", least_sure)):
        truth = data.class_names[y_test[row]]
        text = toolkit.decode(test_reviews[row], data.word_index)
        print(f"The {name} ({probability[row]:.3f}, in truth {truth}): {text[:120]} ...")
    if review is not None:
        sequence = toolkit.encode(review, data.word_index, num_words=NUM_WORDS)
        own_row = toolkit.multi_hot([sequence], NUM_WORDS, sparse=True)  # (1, 10000)
        own = model.predict(own_row, verbose=0)  # (1, 1)
        print(f"Your review is positive with probability {own[0, 0]:.3f}.")


if __name__ == "__main__":
    cli(main)
