"""Build a model as a graph: two inputs, two outputs, a shared layer, a wide and a deep path.

Teaches   The functional API: layers called on tensors, one of them twice; a loss for each output,
          and their weights; the graph, drawn; the same model as a subclass, with the same outputs.
Data      California housing: 16,512 + 4,128 blocks, 8 features, prices in dollars.
Source    Géron, Hands-On Machine Learning, chapter 10; Gulli and Pal, Deep Learning with Keras,
          chapter 1.
Takes     12 s
Try next  --dear-weight 1000: what does one output do to the other? Give the neighbor a layer of
          its own.
"""

import keras
import numpy as np
from keras import layers
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors

import toolkit
from toolkit.drawing import draw_graph, mark_epoch
from toolkit.run import Run, cli

# Seeds 0 to 9: test_mae 3.49 to 3.56 (the linear model: 4.88), test_accuracy 0.873 to 0.883.
EXPECTED = {
    "test_mae": (3.3, 3.75),
    "test_accuracy": (0.86, 0.895),
    "subclass_difference": (0, 1e-4),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 2}


def build_model() -> keras.Model:
    """Build a graph from two blocks of houses, one and its neighbor, to the price of the first.

    A second output says whether that block is dear.
    """
    # An Input is a tensor without numbers. It says the shape of what will come, and what is called
    # on it becomes part of the graph.
    block = keras.Input(shape=(8,), name="block")
    neighbor = keras.Input(shape=(8,), name="neighbor")

    # A layer is a function: called on a tensor, it gives a tensor. This one is called twice, with
    # the same weights, so that a block and its neighbor are described in the same terms.
    describe = layers.Dense(64, activation="relu", name="describe")
    of_block = describe(block)  # (batch, 8) becomes (batch, 64)
    of_neighbor = describe(neighbor)  # (batch, 64)
    both = layers.Concatenate(name="both")([of_block, of_neighbor])  # (batch, 128)
    deep = layers.Dense(64, activation="relu", name="deep")(both)  # (batch, 64)

    # The price sees the block by two paths: the deep one, for what is complicated, and a wide one
    # around all hidden layers, for what is as simple as "more rooms, higher price".
    wide_and_deep = layers.Concatenate(name="wide_and_deep")([block, deep])  # (batch, 72)
    price = layers.Dense(1, name="price")(wide_and_deep)  # (batch, 1)
    dear = layers.Dense(1, activation="sigmoid", name="dear")(deep)  # (batch, 1)
    return keras.Model(
        inputs={"block": block, "neighbor": neighbor},
        outputs={"price": price, "dear": dear},
        name="house_prices",
    )


class Subclassed(keras.Model):
    """The same model as a class: layers are made once in `__init__` and used in `call`.

    `call` is plain Python, so it may branch and loop. But Keras no longer knows a graph that it
    could check or draw.
    """

    def __init__(self):
        super().__init__()
        # The weights lie in the order of these lines, which is the order that they have in the
        # graph. There dear comes before price, because Keras sorts the outputs by their names.
        self.describe = layers.Dense(64, activation="relu")
        self.deep = layers.Dense(64, activation="relu")
        self.dear = layers.Dense(1, activation="sigmoid")
        self.price = layers.Dense(1)

    def call(self, inputs):
        of_block = self.describe(inputs["block"])
        of_neighbor = self.describe(inputs["neighbor"])
        both = keras.ops.concatenate([of_block, of_neighbor], axis=-1)
        deep = self.deep(both)
        wide_and_deep = keras.ops.concatenate([inputs["block"], deep], axis=-1)
        return {"price": self.price(wide_and_deep), "dear": self.dear(deep)}


def main(run: Run, *, dear_weight: float = 10, epochs: int = 100) -> None:
    """Train a graph of layers, score the test blocks, and write the same model as a subclass.

    Args:
        dear_weight: Weight of the second output's loss; the first one's is 1.
        epochs: Passes over the training rows; the weights of the best one stay.
    """
    # 1. Data: blocks of houses, each with its features and the median price of its houses.
    data = run.data.california_housing()
    (x, y), (x_test, y_test) = data  # x: (16512, 8), y: (16512,)
    # Two targets: the price (in 10,000 dollars, because a network comes to targets near 20 sooner
    # than to targets near 200,000), and whether it is above the median of all blocks.
    targets = {"price": y / 10_000, "dear": y > np.median(y)}
    test_targets = {"price": y_test / 10_000, "dear": y_test > np.median(y)}

    # 2. Two inputs: each block, and the nearest other block of the training set. Only features
    # of the neighbor are used, never its price, and no test block is ever a neighbor.
    places = NearestNeighbors(n_neighbors=1).fit(x[:, :2])  # by longitude and latitude
    # Without an argument, kneighbors finds for each training block the nearest one but itself.
    nearest = places.kneighbors(return_distance=False)[:, 0]  # (16512,), row numbers
    test_nearest = places.kneighbors(x_test[:, :2], return_distance=False)[:, 0]  # (4128,)
    standardize = toolkit.Standardizer.fit(x)  # each feature to mean 0 and deviation 1
    inputs = {"block": standardize(x), "neighbor": standardize(x[nearest])}
    test_inputs = {"block": standardize(x_test), "neighbor": standardize(x[test_nearest])}

    # 3. Baselines: the mean price, a linear model of all 16 features, and "no block is dear".
    # (run.score prints a score, beside the range in which it is expected, if it has one.)
    errors = np.abs(test_targets["price"] - targets["price"].mean())  # (4128,)
    run.score(baseline_mae=errors.mean())
    linear = LinearRegression()
    linear.fit(np.hstack([inputs["block"], inputs["neighbor"]]), targets["price"])
    guesses = linear.predict(np.hstack([test_inputs["block"], test_inputs["neighbor"]]))
    run.score(linear_mae=np.abs(test_targets["price"] - guesses).mean())
    run.score(baseline_accuracy=np.mean(~test_targets["dear"]))

    # 4. The model. Its graph shows the shared layer with the arrows of both calls.
    model = build_model()
    axes = draw_graph(model)
    axes.set_title(f"{data.name}: the graph of the model")
    run.figure("graph.png", axes)
    # Each output has a loss of its own, found by its name. Training makes their weighted sum
    # small. The loss of the price is some 100 times as large as that of the other output, so
    # dear_weight lets the other one be heard, too.
    model.compile(
        optimizer="adam",
        loss={"price": "mse", "dear": "binary_crossentropy"},
        loss_weights={"price": 1, "dear": dear_weight},
        metrics={"price": "mae", "dear": "accuracy"},
    )

    # 5. Training, on four fifths of the rows. The rest are for validation: after each epoch they
    # are scored, but no weight learns from them.
    # EarlyStopping ends the training after `patience` epochs without progress. Here these are all
    # epochs, so it only puts the weights of the best one back.
    best = keras.callbacks.EarlyStopping(
        monitor="val_loss",
        patience=epochs,
        restore_best_weights=True,
    )
    print(f"Training for {epochs} epochs, which takes some seconds ...")
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    history = toolkit.fit(
        model,
        inputs,
        targets,
        validation_split=0.2,
        epochs=epochs,
        batch_size=64,
        callbacks=[run.log(), best],  # run.log() writes each epoch's scores into history.csv
        checkpoint=run.keep(),  # the toolkit's own: a run that is interrupted can go on (--resume)
        verbose=0,  # a line an epoch, with ten scores each, would be long
    )
    best_epoch = best.best_epoch + 1  # Keras counts from 0
    print(f"The validation loss is lowest after epoch {best_epoch}.")
    # The first epochs are left out of the figure: their errors are so large that the rest is flat.
    axes = toolkit.plot_history(history, "price_mae", skip=epochs // 20)
    mark_epoch(axes, best_epoch, "chosen by validation loss")
    axes.set_title(f"{data.name} ({data.source} data): error of the price")
    axes.set_ylabel("mean absolute error, in 10,000 dollars")
    run.figure("mae.png", axes)

    # 6. One look at the test blocks. Each score is named for its output and its metric.
    scores = model.evaluate(test_inputs, test_targets, verbose=0, return_dict=True)
    run.score(test_mae=scores["price_mae"], test_accuracy=scores["dear_accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 7. The subclass. Its first call makes its weights; given those of the graph, in the same
    # order, it must predict the same.
    twin = Subclassed()
    twin(test_inputs)
    twin.set_weights(model.get_weights())
    ours = model.predict(test_inputs, verbose=0)  # {"price": (4128, 1), "dear": (4128, 1)}
    theirs = twin.predict(test_inputs, verbose=0)
    differences = [np.abs(ours[name] - theirs[name]).max() for name in ("price", "dear")]
    run.score(subclass_difference=max(differences))


if __name__ == "__main__":
    cli(main)
