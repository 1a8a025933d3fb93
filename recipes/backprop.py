"""Train a network in NumPy alone: forward pass, loss, chain rule, update; Keras does the same.

Teaches   Backpropagation, checked against tf.GradientTape; SGD, momentum and Nesterov, equal to
          Keras's SGD; what is wrong with the momentum snippet that many notes pass on.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels.
Source    Chollet, Deep Learning with Python, section 2.4; Sutskever et al., ICML 2013 (Nesterov).
Takes     20 s
Try next  --momentum 0.5: why does the snippet stand still? --momentum 0.1: who would notice its
          fault?
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.drawing import draw_steps
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.941 to 0.955; both differences about 1e-7.
EXPECTED = {
    "gradient_difference": (0, 1e-5),
    "rule_difference": (0, 1e-5),
    "test_accuracy": (0.93, 0.965),
}
# No option makes it shorter: a quick run is the whole lesson.
QUICK = {}
BATCH_SIZE = 128
LEARNING_RATE = 0.1


def forward(weights: list, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the hidden layer gives, and the logarithm of the probability of each class."""
    # Of shape (784, 128), (128,), (128, 10) and (10,). A kernel is the weights without the biases.
    hidden_kernel, hidden_bias, output_kernel, output_bias = weights
    hidden = np.maximum(x @ hidden_kernel + hidden_bias, 0)  # relu; (n, 784) becomes (n, 128)
    scores = hidden @ output_kernel + output_bias  # (n, 10)
    # Softmax divides exp(score) by the sum of the ten exp(score). To subtract the largest score
    # from each changes nothing, and exp cannot overflow. log_p is the logarithm of the quotient.
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return hidden, log_p


def backward(weights: list, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Return the loss and its gradients, by the chain rule, from the last layer to the first.

    d_scores stands for the derivative of the loss with respect to the scores, and so on; d_sums
    for the one with respect to the sums of the hidden layer, which go into its relu.
    """
    _, _, output_kernel, _ = weights
    hidden, log_p = forward(weights, x)
    n = len(y)
    loss = -log_p[np.arange(n), y].mean()  # crossentropy: of the true class only
    # The loss of a row is -score of the true class + log(sum of exp(score)). The derivative of that
    # logarithm with respect to a score is exp(score) / sum, the probability of its class; -score
    # adds -1 for the true class. The loss is the mean over n rows: each row's part is divided by n.
    true_class = np.eye(10, dtype="float32")[y]  # (n, 10), a single 1 in each row
    d_scores = (np.exp(log_p) - true_class) / n  # (n, 10)
    # scores[i, k] is a bias plus the sum over j of hidden[i, j] * output_kernel[j, k]. So
    # output_kernel[j, k] acts on the loss through every row i, and its derivative is the sum over i
    # of hidden[i, j] * d_scores[i, k].
    d_output_kernel = hidden.T @ d_scores  # (128, 10)
    d_output_bias = d_scores.sum(axis=0)  # (10,)
    # Back through the output layer, then through relu, which passes nothing where it gave 0.
    d_sums = (d_scores @ output_kernel.T) * (hidden > 0)  # (n, 128)
    d_hidden_kernel = x.T @ d_sums  # (784, 128)
    d_hidden_bias = d_sums.sum(axis=0)  # (128,)
    return loss, [d_hidden_kernel, d_hidden_bias, d_output_kernel, d_output_bias]


def update(
    rule: str, weight: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, momentum: float
) -> None:
    """Change a weight, and its velocity, in place, by one step of a rule."""
    if rule == "sgd":  # straight downhill, whatever came before
        weight -= LEARNING_RATE * gradient
        return
    if rule == "notes":  # Nesterov's as many notes have it: by mistake a plus, so it goes uphill
        velocity[:] = momentum * velocity + LEARNING_RATE * gradient
    else:  # most of the old velocity stays, like that of a ball that rolls downhill
        velocity[:] = momentum * velocity - LEARNING_RATE * gradient
    if rule in ("nesterov", "notes"):
        # What is kept is not the weights w, but the point ahead, p = w + momentum * velocity, so
        # that the next gradient is the one from there. A step moves w by the new velocity, so p
        # moves by (new velocity) + momentum * (new velocity) - momentum * (old velocity). Here the
        # first minus the last is -rate * gradient.
        weight += momentum * velocity - LEARNING_RATE * gradient
    else:
        weight += velocity


def train(
    rule: str, weights: list, x: np.ndarray, y: np.ndarray, momentum: float
) -> tuple[list[np.ndarray], list[float]]:
    """Train copies of the weights for one epoch; return them, and the loss of each batch."""
    weights = [weight.copy() for weight in weights]
    velocities = [np.zeros_like(weight) for weight in weights]
    losses = []
    for start in range(0, len(x), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        point = weights
        if rule == "look-ahead":  # the gradient is taken where the velocity alone would lead
            pairs = zip(weights, velocities, strict=True)
            point = [weight + momentum * velocity for weight, velocity in pairs]
        loss, gradients = backward(point, x[batch], y[batch])
        losses.append(loss)
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            update(rule, weight, velocity, gradient, momentum)
    return weights, losses


def largest_difference(ours: list, theirs: list) -> float:
    """Return the largest difference of two lists of arrays, element by element."""
    return max(np.abs(one - other).max() for one, other in zip(ours, theirs, strict=True))


def main(run: Run, *, momentum: float = 0.9) -> None:
    """Check the gradients, check the rules, and train a network that Keras then tests.

    Args:
        momentum: Share of the velocity that stays from step to step.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must be at least 0 and below 1. Received: {momentum}")

    # 1. Data, as rows of 784 numbers from 0 to 1.
    data = run.data.mnist()
    (x, y), (x_test, y_test) = data
    x = x.reshape(-1, 784).astype("float32") / 255  # (60000, 28, 28) becomes (60000, 784)
    x_test = x_test.reshape(-1, 784).astype("float32") / 255

    # 2. Baselines: always the most frequent digit, and a linear model on 5,000 of the images.
    # (run.score prints a score, beside the range in which it is expected, if it has one.)
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()))
    # A small C keeps the weights small, and a large tol ends the search for them early.
    linear = LogisticRegression(C=0.1, tol=1e-3).fit(x[:5000], y[:5000])
    run.score(linear_accuracy=linear.score(x_test, y_test))

    # 3. Gradients: by hand, and by TensorFlow, which records on its tape what is calculated, and
    # then applies the chain rule from the end, as `backward` does.
    model = keras.Sequential(
        [
            keras.Input(shape=(784,)),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    first_weights = model.get_weights()  # (784, 128), (128,), (128, 10), (10,)
    few_x = x[:2560]  # 20 batches
    few_y = y[:2560]
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(few_y, model(few_x))
    theirs = tape.gradient(loss, model.weights)
    _, ours = backward(first_weights, few_x, few_y)
    run.score(gradient_difference=largest_difference(ours, theirs))

    # 4. Twenty steps by each rule, from the same first weights, in NumPy and in Keras. (toolkit.fit
    # takes the arguments of model.fit and does the same, only faster: one call of TensorFlow takes
    # many steps, where model.fit makes a call for each batch.)
    optimizers = {
        "sgd": keras.optimizers.SGD(learning_rate=LEARNING_RATE),
        "momentum": keras.optimizers.SGD(learning_rate=LEARNING_RATE, momentum=momentum),
        "nesterov": keras.optimizers.SGD(
            learning_rate=LEARNING_RATE, momentum=momentum, nesterov=True
        ),
    }
    losses = {}
    differences = []
    for rule, optimizer in optimizers.items():
        ours, losses[rule] = train(rule, first_weights, few_x, few_y, momentum)
        model.set_weights(first_weights)
        model.compile(
            optimizer=optimizer,
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        toolkit.fit(
            model,
            few_x,
            few_y,
            epochs=1,
            batch_size=BATCH_SIZE,
            shuffle=False,  # the same batches, in the same order, as in NumPy
            callbacks=[run.log(f"{rule}.csv")],  # writes the scores into this file
            verbose=0,
        )
        differences.append(largest_difference(ours, model.get_weights()))
        print(f"{rule}: the weights of NumPy and Keras differ by {differences[-1]:.0e} at most.")

    # 5. Two more rules. "look-ahead" is Nesterov's as Sutskever has it: the gradient is taken at
    # the point ahead. "nesterov" keeps that point as its weights, so the losses of both are equal.
    # "notes" is what many notes call Nesterov's, with its velocity uphill.
    for rule in ("look-ahead", "notes"):
        _, losses[rule] = train(rule, first_weights, few_x, few_y, momentum)
    differences.append(largest_difference(losses["nesterov"], losses["look-ahead"]))
    run.score(rule_difference=max(differences))
    run.score(nesterov_loss=losses["nesterov"][-1], notes_loss=losses["notes"][-1])
    axes = draw_steps(losses)
    axes.set_ylim(top=30)  # the losses of "notes" climb out of the figure
    axes.set_ylabel("loss of the batch")
    axes.set_title(f"{data.name} ({data.source} data): five rules from the same first weights")
    run.figure("loss.png", axes)

    # 6. An epoch on all rows, in NumPy. Keras then tests the weights that were found.
    print("Training in NumPy, on all rows ...")
    weights, _ = train("nesterov", first_weights, x, y, momentum)
    model.set_weights(weights)
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))
    probabilities = model.predict(x_test[:1], verbose=0)  # (1, 10)
    print(f"The first test image is {probabilities.argmax()}, in truth {y_test[0]}.")


if __name__ == "__main__":
    cli(main)
