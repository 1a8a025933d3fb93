"""Build a model as a graph: two inputs, two outputs, a shared layer, a wide and a deep path.

Teaches   The functional API: layers called on tensors, one of them twice; a loss for each output, and
          their weights; the graph, drawn; the same model as a subclass, with the same outputs.
Data      California housing: 16,512 + 4,128 blocks, 8 features, prices in tens of thousands of dollars.
Source    Géron, Hands-On Machine Learning, chapter 10; Gulli and Pal, Deep Learning with Keras, chapter 1.
Takes     12 s
Try next  --dear-weight 1000: what does one output do to the other? Give the neighbor a layer of its own.
"""

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from sklearn import linear_model, neighbors

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_mae 3.49 to 3.56 (the linear model: 4.88), test_accuracy 0.873 to 0.883.
EXPECTED = {"test_mae": (3.3, 3.75), "test_accuracy": (0.86, 0.895), "subclass_difference": (0, 1e-4)}
QUICK = {"epochs": 2}


def build_model() -> keras.Model:  # `block` reaches the price by a wide and by a deep path
    inputs = {name: keras.Input(shape=(8,), name=name) for name in ("block", "neighbor")}
    describe = layers.Dense(64, "relu", name="describe")  # shared: called twice, with the same weights
    both = layers.concatenate([describe(inputs["block"]), describe(inputs["neighbor"])], name="both")
    deep = layers.Dense(64, "relu", name="deep")(both)
    price = layers.Dense(1, name="price")(layers.concatenate([inputs["block"], deep], name="wide_and_deep"))
    return keras.Model(inputs, {"price": price, "dear": layers.Dense(1, "sigmoid", name="dear")(deep)})


class Subclassed(keras.Model):  # the same in plain Python, free to branch and loop; no graph to check or draw
    def __init__(self):
        super().__init__()
        self.describe, self.deep = layers.Dense(64, "relu"), layers.Dense(64, "relu")
        self.dear, self.price = layers.Dense(1, "sigmoid"), layers.Dense(1)

    def call(self, inputs):
        deep = self.deep(layers.concatenate([self.describe(inputs[name]) for name in ("block", "neighbor")]))
        return {"price": self.price(layers.concatenate([inputs["block"], deep])), "dear": self.dear(deep)}


def draw_graph(model: keras.Model) -> Figure:  # each layer stands below those that feed it
    axes, place = Figure(figsize=(6.4, 5), layout="constrained").subplots(), {}
    style = {"ha": "center", "va": "center", "bbox": {"boxstyle": "round", "fc": "lightblue"}}
    style["arrowprops"] = {"arrowstyle": "<-", "connectionstyle": "arc3,rad=-0.4", "shrinkB": 12}
    for layer in model.get_config()["layers"]:
        feeds = [each for each in keras.tree.flatten(layer["inbound_nodes"]) if each in place]
        depth = 1 + max((place[feed][1] for feed in feeds), default=-1)
        spot = place[layer["name"]] = sum(y == depth for _, y in place.values()), depth
        for feed in feeds or [layer["name"]]:
            axes.annotate(layer["name"], place[feed], spot, **style)
    axes.set(title="The model's graph", xlim=(-0.6, 1.4), ylim=(depth + 0.5, -0.5), ylabel="depth", xticks=[])
    return axes.figure


def main(run: Run, *, dear_weight: float = 10, epochs: int = 100) -> None:
    """Train a graph of layers, score the test blocks, and write the same model as a subclass.

    Args:
        dear_weight: Weight of the second output's loss; the first one's is 1.
        epochs: Passes over the training rows; the weights of the best one stay.
    """
    # 1. Data: each block and the nearest other one of the training set. Baselines: the mean, a linear model.
    (x, y), (x_test, y_test) = run.data.california_housing()
    scale, near = toolkit.Standardizer.fit(x), neighbors.NearestNeighbors(n_neighbors=1).fit(x[:, :2])
    inputs = {"block": scale(x), "neighbor": scale(x[near.kneighbors()[1][:, 0]])}
    test_inputs = {"block": scale(x_test), "neighbor": scale(x[near.kneighbors(x_test[:, :2])[1][:, 0]])}
    targets, truth = ({"price": p / 10_000, "dear": p > np.median(y)} for p in (y, y_test))
    flat, test_flat = (np.hstack(list(each.values())) for each in (inputs, test_inputs))
    linear = linear_model.LinearRegression().fit(flat, targets["price"]).predict(test_flat)
    for name, guess in {"baseline_mae": targets["price"].mean(), "linear_mae": linear}.items():
        run.score(**{name: abs(truth["price"] - guess).mean()})
    run.score(baseline_accuracy=np.mean(~truth["dear"]))

    # 2. Train: a loss for each output. toolkit.fit is model.fit, one compiled call an epoch.
    model, losses = build_model(), {"price": "mse", "dear": "binary_crossentropy"}
    run.figure("graph.png", draw_graph(model))
    weights, metrics = {"price": 1, "dear": dear_weight}, {"price": "mae", "dear": "accuracy"}
    model.compile(optimizer="adam", loss=losses, loss_weights=weights, metrics=metrics)
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    watch = {"validation_split": 0.2, "callbacks": [run.log(), best], "verbose": 0, "checkpoint": run.keep()}
    history = toolkit.fit(model, inputs, targets, epochs=epochs, batch_size=64, **watch)
    run.figure("mae.png", toolkit.plot_history(history, "price_mae", skip=epochs // 20))
    scores = model.evaluate(test_inputs, truth, verbose=0, return_dict=True)  # one look at the test rows
    run.score(test_mae=scores["price_mae"], test_accuracy=scores["dear_accuracy"])
    toolkit.save(model, run.path("model.keras"))

    # 3. The subclass: its first call builds it; with the same weights it predicts the same.
    twin = Subclassed()
    twin(test_inputs)
    twin.set_weights(model.get_weights())
    ours, theirs = (each.predict(test_inputs, verbose=0) for each in (model, twin))
    run.score(subclass_difference=max(abs(ours[name] - theirs[name]).max() for name in ours))


if __name__ == "__main__":
    cli(main)
