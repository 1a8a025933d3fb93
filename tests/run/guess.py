"""Small recipes, as files of their own, for the tests of the command line, and what their runs leave."""

import json
from collections import Counter

LESSON = '''
"""Guess the mean price.

Teaches   What a baseline is.
Data      Boston housing.
"""
import numpy as np

EXPECTED = {"test_mae": (1.0, 9.0)}
QUICK = {"epochs": 1}


def main(run, *, epochs: int = 5, note: str = ""):
    """Guess.

    Args:
        epochs: Passes over the rows.
        note: What to print.
    """
    (x, y), (x_test, y_test) = run.data.boston_housing()
    print("epochs", epochs, "draw", np.random.random())
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())
    if note:
        exec(note)
    run.score(test_mae=5.0)
'''


COMMAND = """

if __name__ == "__main__":
    from toolkit.run import cli

    cli(main)
"""


TRAINING = '''
"""Fit a line.

Data      Boston housing.
"""
import keras
import toolkit

EXPECTED = {"test_loss": (0.0, 1e9)}
QUICK = {}


class Stop(keras.callbacks.Callback):
    at = None

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == Stop.at:
            raise KeyboardInterrupt


def main(run, *, epochs: int = 4, units: int = 2, bias: bool = True):
    """Train.

    Args:
        epochs: Passes over the rows.
        units: Width.
        bias: Whether there is one.
    """
    (x, y), (x_test, y_test) = run.data.boston_housing()
    layers = [keras.layers.Dense(units), keras.layers.Dropout(0.5), keras.layers.Dense(1, use_bias=bias)]
    model = keras.Sequential([keras.Input((13,)), keras.layers.BatchNormalization(), *layers])
    model.compile("adam", loss="mse")
    watch = {"callbacks": [Stop(), run.log()], "checkpoint": run.keep()}
    toolkit.fit(model, x, y, epochs=epochs, validation_split=0.2, verbose=0, **watch)
    run.score(test_loss=model.evaluate(x_test, y_test, verbose=0))
    run.figure("curve.png", toolkit.plot_history(run.path("history.csv")))
'''


# Stand-ins beside a recipe that trains nothing, so that its runs need not wait for the real ones.
FAKES = {
    "keras.py": """
class utils:
    @staticmethod
    def set_random_seed(seed):
        import random
        random.seed(seed)
""",
    "tensorflow.py": """
import logging
class config:
    @staticmethod
    def list_physical_devices(kind):
        return []
def get_logger():
    return logging.getLogger("tensorflow")
""",
}
COUNTING = '''
"""Write down each run that begins and that ends.

Data      None.
"""
import os
import random
import time

EXPECTED = {}
QUICK = {}


def main(run, *, units: int = 1, seconds: float = 0.1, note: str = ""):
    """Wait.

    Args:
        units: A number.
        seconds: How long.
        note: What to do.
    """
    def write(word):
        with open(os.environ["LOG"], "a") as file:
            file.write(f"{word} {units} {run.seed}\\n")

    write("begins")
    time.sleep(seconds)
    if note:
        exec(note)
    run.score(other=1, test_draw=random.random() + units)
    write("ends")
'''


def finish(process):
    out = process.communicate(timeout=100)[0]
    return process.returncode, out


def logged(folder):
    return Counter((folder / "log").read_text().splitlines())


def the_study(folder):
    (path,) = folder.glob("runs/guess/*/study.json")
    return path.parent, json.loads(path.read_text())
