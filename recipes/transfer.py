"""Learn from few labels: take over the layers of a net that has learned something else.

Teaches   Transfer: the hidden layers of a trained net under a new output layer, frozen at first,
          then unfrozen at a lower rate; the same by an autoencoder, which needs no labels; why
          clone_model, trainable and a second compile are needed; how little one draw of labelled
          images proves; when transfer does not pay.
Data      Fashion-MNIST: eight classes to learn from; 200 labelled images of the other two.
Source    Géron, Hands-On Machine Learning, chapter 11, "Reusing Pretrained Layers".
Takes     30 s
Try next  --alike: what do eight other classes know of T-shirts and shirts? --labels 20 or 2000:
          where is most to be gained? Compile in `train` only the first time: what is refused, and
          why?
"""

import keras
import numpy as np
from keras import layers
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.drawing import draw_spread
from toolkit.run import Run, cli

# Seeds 0 to 9: scratch_accuracy 0.9936 to 0.9958, test_accuracy 0.9979 to 0.9994.
EXPECTED = {"scratch_accuracy": (0.99, 0.998), "test_accuracy": (0.996, 1)}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"draws": 2, "epochs": 5}


def build_body() -> keras.Sequential:
    """Three hidden layers, which make 100 features of 784 pixels.

    "he_normal" draws first weights of a size that suits relu: see the lesson on initialization.
    """
    return keras.Sequential(
        [
            keras.Input(shape=(784,)),
            layers.Dense(units=100, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(units=100, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(units=100, activation="relu", kernel_initializer="he_normal"),
        ]
    )


def learn_classes(x: np.ndarray, y: np.ndarray, log: keras.callbacks.CSVLogger) -> keras.Sequential:
    """Train a body, under an output layer of eight classes, and return it."""
    body = build_body()
    classifier = keras.Sequential([body, layers.Dense(units=8, activation="softmax")])
    classifier.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    # The last tenth of the rows chooses nothing: how it is scored is only written into history.csv.
    toolkit.fit(classifier, x, y, batch_size=128, epochs=8, validation_split=0.1, callbacks=[log])
    return body


def learn_images(x: np.ndarray) -> keras.Sequential:
    """Train an autoencoder: a body, and layers that make the image again of its features."""
    encoder = build_body()
    autoencoder = keras.Sequential(
        [
            encoder,
            layers.Dense(units=100, activation="relu"),
            layers.Dense(units=784, activation="sigmoid"),  # pixels lie between 0 and 1, too
        ]
    )
    autoencoder.compile(optimizer="adam", loss="mse")
    toolkit.fit(autoencoder, x, x, batch_size=128, epochs=8)
    return encoder


def take_over(body: keras.Sequential) -> keras.Sequential:
    """Put a new output layer, which says yes or no, on a copy of a body."""
    # A layer that is put into two nets is one layer with one set of weights: without a copy, ten
    # nets would train the same body. clone_model copies the layers, and set_weights what they know.
    copy = keras.models.clone_model(body)
    copy.set_weights(body.get_weights())
    return keras.Sequential([copy, layers.Dense(units=1, activation="sigmoid")])


def train(nets: list, x: np.ndarray, y: np.ndarray, splits: list, rate: float, epochs: int) -> None:
    """Compile the nets, and train each of them on its own draw of labelled images."""
    for net in nets:
        # The first training after `compile` settles which weights are trained. Where `trainable`
        # is changed later, model.fit goes on as before, without a word, until the next `compile`.
        net.compile(
            optimizer=keras.optimizers.Adam(learning_rate=rate),
            loss="binary_crossentropy",
            metrics=["accuracy"],
        )
    # toolkit.fit_many does what model.fit would do for each net in turn, only faster: nets that are
    # alike are trained together.
    toolkit.fit_many(nets, x, y, splits, batch_size=32, epochs=epochs, verbose=0)


def train_frozen(body: keras.Sequential, x: np.ndarray, y: np.ndarray, splits: list, epochs: int):
    """Train new output layers on a body that stays as it is; return the nets, one for each draw."""
    nets = [take_over(body) for _ in splits]
    for net in nets:
        # The new output layer is random: its first, large errors would spoil what the body knows.
        net.layers[0].trainable = False  # layers[0] is the body, layers[1] the output layer
    train(nets, x, y, splits, rate=0.003, epochs=epochs)
    return nets


def train_unfrozen(nets: list, x: np.ndarray, y: np.ndarray, splits: list, epochs: int) -> None:
    """Train the nets on, bodies and output layers."""
    for net in nets:
        net.layers[0].trainable = True
    # A tenth of the rate of train_frozen: the body should adapt, but not forget what it knows.
    train(nets, x, y, splits, rate=0.0003, epochs=epochs)


def accuracies(nets: list, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the share of right answers of each net."""
    return np.array([net.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] for net in nets])


def main(run: Run, *, labels: int = 200, draws: int = 10, alike: bool = False, epochs: int = 30):
    """Train on eight classes, and without labels; see what that is worth for two new classes.

    Args:
        labels: Labelled images in a draw, of both new classes together.
        draws: Times that these are drawn.
        alike: Let the new classes be two that look alike: T-shirts and shirts.
        epochs: Passes over the labelled images with the body frozen, and as many unfrozen.
    """
    # 1. Data: two classes are new. The net of step 2 does not see them.
    data = run.data.fashion_mnist()
    new = [0, 6] if alike else [5, 6]  # T-shirts and shirts, or sandals and shirts
    old = np.setdiff1d(np.arange(10), new)
    x_old, y_old = select(data.x_train, data.y_train, old)  # (48000, 784), (48000,)
    x, y = select(data.x_train, data.y_train, new)  # (12000, 784), (12000,)
    x_test, y_test = select(data.x_test, data.y_test, new)  # (2000, 784), (2000,)
    if not 20 <= labels <= len(x):  # with fewer, a draw might hold one class only
        raise ValueError(f"`labels` must be from 20 to {len(x)}. Received: {labels}")

    # 2. A task with many labels: tell the eight old classes apart. Its body is what we are after.
    body = learn_classes(x_old, y_old, run.log())

    # 3. A task without labels: give the image back. So images of the two new classes can be used,
    #    too, which nobody has labelled.
    encoder = learn_images(np.concatenate([x_old, x]))  # (60000, 784)

    # 4. Few labels: they are drawn again and again, for a single draw may be a lucky one. The
    #    baselines are the more frequent class and a linear model. (run.score prints a score, beside
    #    the range in which it is expected, if it has one.)
    random = np.random.default_rng(run.seed)
    rows = [random.permutation(len(x))[:labels] for _ in range(draws)]
    linear_models = [LogisticRegression(max_iter=1000).fit(x[draw], y[draw]) for draw in rows]
    linear = np.array([model.score(x_test, y_test) for model in linear_models])
    run.score(baseline_accuracy=max(y_test.mean(), 1 - y_test.mean()))
    run.score(linear_accuracy=linear.mean())

    # 5. To compare with: the same nets on bodies of random weights, so nothing is taken over. They
    #    get as many epochs as the others, frozen and unfrozen, and Adam's usual rate.
    splits = [(draw, None) for draw in rows]  # for each net: rows to train on, none to validate
    nets = [take_over(build_body()) for _ in splits]
    train(nets, x, y, splits, rate=0.001, epochs=2 * epochs)
    scratch = accuracies(nets, x_test, y_test)
    run.score(scratch_accuracy=scratch.mean())

    # 6. The autoencoder's body is taken over: it was trained without labels.
    nets = train_frozen(encoder, x, y, splits, epochs=epochs)
    train_unfrozen(nets, x, y, splits, epochs=epochs)
    unlabelled = accuracies(nets, x_test, y_test)
    run.score(autoencoder_accuracy=unlabelled.mean())

    # 7. Transfer: the body that knows eight classes is taken over; frozen at first, then unfrozen.
    nets = train_frozen(body, x, y, splits, epochs=epochs)
    frozen = accuracies(nets, x_test, y_test)
    run.score(frozen_accuracy=frozen.mean())
    train_unfrozen(nets, x, y, splits, epochs=epochs)
    unfrozen = accuracies(nets, x_test, y_test)
    run.score(test_accuracy=unfrozen.mean())
    toolkit.save(nets[0], run.path("model.keras"))

    # 8. The gain: transfer pays in nearly every draw of sandals and shirts. With --alike it loses
    #    in half of the draws: eight classes teach little, it seems, of T-shirts against shirts.
    ways = {
        "linear model": linear,
        "nothing taken over": scratch,
        "autoencoder": unlabelled,
        "eight classes, frozen": frozen,
        "eight classes, unfrozen": unfrozen,
    }
    names = [data.class_names[label] for label in new]
    axes = draw_spread(ways, of="draw")
    axes.set_xlabel("share of the test images that are told apart")
    title = f"Fashion-MNIST, {names[0]} or {names[1]}: {draws} draws of {labels} labels"
    axes.figure.suptitle(title)
    run.figure("draws.png", axes)

    gain = 100 * (unfrozen - scratch)
    print(f"Transfer wins in {(gain > 0).sum()} of {draws} draws. Of 100 images it gets")
    print(f"{gain.min():.2f} to {gain.max():.2f} more right than a net that began with nothing.")
    probability = nets[0].predict(x_test[:1], verbose=0)[0, 0]
    print(f"The first test image is a {names[1]} with probability {probability:.3f}.")


# The rest is no part of the lesson.


def select(images: np.ndarray, labels: np.ndarray, classes: list) -> tuple:
    """Return the images of some classes as rows of numbers from 0 to 1, and labels from 0 on."""
    chosen = np.isin(labels, classes)
    x = images[chosen].reshape(-1, 784).astype("float32") / 255
    y = np.searchsorted(classes, labels[chosen])  # the place of each label among the classes
    return x, y


if __name__ == "__main__":
    cli(main)
