"""Train a network in NumPy alone: forward pass, loss, chain rule, update; and find Keras doing the same.

Teaches   Backpropagation, checked against tf.GradientTape; SGD, momentum and Nesterov, equal to Keras's SGD;
          what is wrong with the momentum snippet that many notes pass on.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels.
Source    Chollet, Deep Learning with Python, section 2.4; Sutskever et al., ICML 2013 (Nesterov).
Takes     20 s
Try next  --momentum 0.5: why does the snippet stand still? --momentum 0.1: who would notice its fault?
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.941 to 0.955; both differences about 1e-7.
EXPECTED = {"gradient_difference": (0, 1e-5), "rule_difference": (0, 1e-5), "test_accuracy": (0.93, 0.965)}
QUICK = {"momentum": 0.8}


def forward(weights, x):
    hidden = np.maximum(x @ weights[0] + weights[1], 0)
    scores = hidden @ weights[2] + weights[3]
    scores -= scores.max(axis=1, keepdims=True)  # changes no probability, and keeps exp finite
    return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))  # the logarithm of softmax


def backward(weights, x, y):  # the loss, and its gradients by the chain rule, last layer first
    hidden, log_p = forward(weights, x)
    d_scores = (np.exp(log_p) - np.eye(10, dtype="float32")[y]) / np.float32(len(y))  # of loss by scores
    d_hidden = d_scores @ weights[2].T * (hidden > 0)  # back through the last kernel, and through relu
    gradients = [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_scores, d_scores.sum(axis=0)]
    return -log_p[np.arange(len(y)), y].mean(), gradients


def train(rule, weights, x, y, momentum, learning_rate=0.1):  # one epoch, in batches of 128 rows
    weights, velocities, losses = [w.copy() for w in weights], [0 * w for w in weights], []
    for start in range(0, len(x), 128):
        point = [w + (rule == "look-ahead") * momentum * v for w, v in zip(weights, velocities, strict=True)]
        loss, gradients = backward(point, x[start : start + 128], y[start : start + 128])
        losses.append(loss)
        for w, v, gradient in zip(weights, velocities, gradients, strict=True):
            v[:] = momentum * v + learning_rate * (gradient if rule == "notes" else -gradient)
            w += v if rule in ("momentum", "look-ahead") else momentum * v - learning_rate * gradient
    return weights, losses


def main(run: Run, *, momentum: float = 0.9) -> None:
    """Check the gradients, check the rules, and train a network that Keras then tests.

    Args:
        momentum: Share of the velocity that stays from step to step.
    """
    # 1. Data, and baselines: the most frequent digit, and a linear model on 5,000 of the images.
    (x, y), (x_test, y_test) = run.data.mnist()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x, x_test))
    linear = LogisticRegression(C=0.1, tol=1e-3).fit(x[:5000], y[:5000]).score(x_test, y_test)
    run.score(baseline_accuracy=np.mean(y_test == np.bincount(y).argmax()), linear_accuracy=linear)

    # 2. The gradients of some rows, by hand and by TensorFlow.
    model = keras.Sequential([keras.Input((784,)), layers.Dense(128, "relu"), layers.Dense(10, "softmax")])
    first, few = model.get_weights(), slice(2560)
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(y[few], model(x[few]))
    gap = lambda one, other: max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))  # noqa: E731
    run.score(gradient_difference=gap(backward(first, x[few], y[few])[1], tape.gradient(loss, model.weights)))

    # 3. Twenty steps by each rule. The notes' velocity adds the gradient, so it points uphill; with a minus,
    # their rule is Nesterov's, which Keras has: w is the point that look-ahead takes its gradient at.
    axes, gaps, losses = Figure(figsize=(6.4, 4), layout="constrained").subplots(), [], {}
    for rule in ("sgd", "momentum", "nesterov", "look-ahead", "notes"):
        weights, losses[rule] = train(rule, first, x[few], y[few], momentum * (rule != "sgd"))
        axes.semilogy(losses[rule], "--" if rule == "look-ahead" else "-", label=rule)
        if rule in ("sgd", "momentum", "nesterov"):  # toolkit.fit is model.fit, one compiled call an epoch
            model.set_weights(first)
            optimizer = keras.optimizers.SGD(0.1, momentum * (rule != "sgd"), nesterov=rule == "nesterov")
            model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
            toolkit.fit(model, x[few], y[few], batch_size=128, shuffle=False, callbacks=[run.log()])
            gaps.append(gap(weights, model.get_weights()))
    run.score(rule_difference=max(*gaps, gap(losses["nesterov"], losses["look-ahead"])))
    run.score(nesterov_loss=losses["nesterov"][-1], notes_loss=losses["notes"][-1])
    axes.set(title="Five rules, the same first weights", xlabel="step", ylabel="loss of the batch")
    axes.legend()
    run.figure("loss.png", axes)

    # 4. An epoch on all rows; Keras tests the weights that NumPy found.
    model.set_weights(train("nesterov", first, x, y, momentum)[0])
    run.score(test_accuracy=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"])
    toolkit.save(model, run.path("model.keras"))
    print(f"The first test image is {model.predict(x_test[:1], verbose=0).argmax()}, in truth {y_test[0]}.")


if __name__ == "__main__":
    cli(main)
