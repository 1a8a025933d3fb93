"""Read handwritten digits with convolutions, and look at what their filters see.

Teaches   Conv2D, pooling, batch normalization, dropout; a learning rate that falls along a cosine;
          filters and feature maps, drawn; that a convolution lives on neighboring pixels.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels.
Source    Chollet, Deep Learning with Python, section 5.1; Géron, Hands-On Machine Learning, 14.
Published 0.9913 (DLwP), 0.9922 (Keras's example), 0.9914 (HOML)
Takes     49 s
Try next  --shuffle-pixels: all images in the same new order of pixels; which score falls, which
          does not? --no-batch-normalization; --dropout 0.01; --epochs 1: what does each cost?
"""

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_accuracy 0.9917 to 0.9936.
EXPECTED = {
    "baseline_accuracy": (0.11, 0.12),
    "linear_accuracy": (0.9, 0.91),
    "test_accuracy": (0.99, 0.995),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 1}


def add_maps(model: keras.Sequential, conv: layers.Conv2D, batch_normalization: bool) -> None:
    """Add a convolution, which lays its filters all over the image, and a relu."""
    # A filter is a small image of weights. Laid on each place in turn, it gives a new image, its
    # map: large where the old image looks like the filter. So the same few weights find a stroke
    # wherever it stands.
    model.add(conv)
    if batch_normalization:
        # In training each map gets mean 0 and deviation 1 over the batch, and then a scale and a
        # shift that are learned. The shift is why the convolution needs no bias. In prediction,
        # running means from training take the place of those of the batch.
        model.add(layers.BatchNormalization())
    model.add(layers.Activation("relu", name=f"{conv.name}_maps"))


def build_model(batch_normalization: bool, dropout: float) -> keras.Model:
    """Three convolutions, each with more filters on a smaller image; then one dense layer."""
    bias = not batch_normalization
    model = keras.Sequential([keras.Input(shape=(28, 28, 1)), layers.Rescaling(1 / 255)])

    # Strides of 2 skip every other place; 12 places of a filter 5 pixels wide fit into 28 pixels.
    first = layers.Conv2D(filters=16, kernel_size=5, strides=2, use_bias=bias, name="first")
    add_maps(model, first, batch_normalization)  # (batch, 12, 12, 16)

    # What comes in now has 16 maps, as a color image has 3 channels. A filter looks at all of them,
    # and has 3 x 3 x 16 weights.
    second = layers.Conv2D(filters=32, kernel_size=3, use_bias=bias, name="second")
    add_maps(model, second, batch_normalization)  # (batch, 10, 10, 32)
    model.add(layers.MaxPooling2D(pool_size=2))  # the largest of four neighbors: (batch, 5, 5, 32)

    third = layers.Conv2D(filters=64, kernel_size=3, use_bias=bias, name="third")
    add_maps(model, third, batch_normalization)  # (batch, 3, 3, 64)

    model.add(layers.Flatten())  # (batch, 576)
    # In training a part of the inputs is set to 0, at random, so that the layer learns to rely on
    # no single one of them.
    model.add(layers.Dropout(rate=dropout))
    model.add(layers.Dense(units=10, activation="softmax"))  # (batch, 10)
    return model


def main(
    run: Run,
    *,
    shuffle_pixels: bool = False,
    batch_normalization: bool = True,
    dropout: float = 0.3,
    epochs: int = 4,
) -> None:
    """Train, score the test images, and draw filters and feature maps.

    Args:
        shuffle_pixels: Put the pixels of all images into one other order.
        batch_normalization: Normalize between convolution and relu.
        dropout: Part of the last layer's inputs that training sets to 0.
        epochs: Passes over the training rows.
    """
    # 1. Data. Shuffled pixels are no picture to the eye, but they hold the same information.
    (images, y), (test_images, y_test) = run.data.mnist()
    flat = images.reshape(-1, 784)  # (60000, 784)
    test_flat = test_images.reshape(-1, 784)
    if shuffle_pixels:
        order = np.random.default_rng(run.seed).permutation(784)
        flat = flat[:, order]
        test_flat = test_flat[:, order]
    x = flat.reshape(-1, 28, 28, 1)  # a convolution wants height, width and channels
    x_test = test_flat.reshape(-1, 28, 28, 1)

    # 2. Baselines: always the most frequent class, and a linear model on 5,000 of the images.
    #    (run.score prints a score, beside the range in which it is expected, if it has one.)
    frequent = np.bincount(y).argmax()
    run.score(baseline_accuracy=np.mean(y_test == frequent))
    # A small C keeps the weights small, and a large tol ends the search for them early.
    linear = LogisticRegression(C=0.1, tol=1e-3).fit(flat[:5000] / 255, y[:5000])
    run.score(linear_accuracy=linear.score(test_flat / 255, y_test))

    # 3. The learning rate falls from 0.003 to 0 along a cosine: long steps at first, and short ones
    #    at the end. The schedule counts steps, one a batch of training images.
    model = build_model(batch_normalization, dropout)
    model.summary()
    batch_size = 128
    training_rows = len(x) * 5 // 6  # the last sixth is for validation: see step 4
    steps_per_epoch = training_rows // batch_size + 1  # the last batch is smaller
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.003,
        decay_steps=epochs * steps_per_epoch,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )

    # 4. Train. The last sixth of the rows are for validation: after each epoch they are scored, but
    #    no weight learns from them. toolkit.fit takes the arguments of model.fit and does the same,
    #    only faster: one call of TensorFlow takes many steps, where model.fit makes a call a batch.
    history = toolkit.fit(
        model,
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        validation_split=1 / 6,
        callbacks=[run.log()],
        checkpoint=run.keep(),  # so that a run that was cut short can go on with --resume
    )
    title = "MNIST, read by three convolutions"
    run.figure("accuracy.png", toolkit.plot_history(history, "accuracy", title=title))

    # 5. One look at the test images.
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_accuracy=scores["accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 6. A look inside: what the model sees in the first test image.
    run.figure("filters.png", draw_filters(model, x_test[0]))


def draw_filters(model: keras.Model, image: np.ndarray) -> Figure:
    """Draw eight of the first filters, and below each where it fires on the image."""
    # A second model of the same layers, which ends at the maps of the first convolution.
    look = keras.Model(inputs=model.inputs, outputs=model.get_layer("first_maps").output)
    maps = look.predict(image[np.newaxis], verbose=0)[0]  # (12, 12, 16)
    kernels = model.get_layer("first").get_weights()[0][:, :, 0]  # (5, 5, 1, 16) becomes (5, 5, 16)
    largest = abs(kernels).max()
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    figure.suptitle("MNIST: filters (red wants light, blue dark) and where they fire (black)")
    grid = figure.subplots(2, 8, subplot_kw={"xticks": [], "yticks": []})
    for number in range(8):
        grid[0, number].imshow(kernels[..., number], cmap="RdBu_r", vmin=-largest, vmax=largest)
        grid[1, number].imshow(maps[..., number], cmap="gray_r")
    grid[0, 0].set_ylabel("5 x 5 filter")
    grid[1, 0].set_ylabel("12 x 12 map")
    return figure


if __name__ == "__main__":
    cli(main)
