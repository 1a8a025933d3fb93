"""Do by hand, in plain loops, what keras.ops does in one call: the same numbers, much later.

Teaches   Rank, shape, dtype, slices, batches, channels; relu, sum and products as loops, equal to NumPy and
          keras.ops, and timed; broadcasting in two steps; a product as rotation, scaling, affine map.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels.
Source    Chollet, Deep Learning with Python, sections 2.2 and 2.3.
Takes     5 s
Try next  --batch-size 1, then 1000: which times grow, and which hardly do?
"""

import timeit
from functools import partial

import numpy as np
from keras import ops
from matplotlib.figure import Figure

from toolkit.run import Run, cli

# Seeds 0 to 9: product_difference 1.5e-5 to 2.3e-5, the rounding of float32.
EXPECTED = {"elementwise_difference": (0, 0), "product_difference": (0, 1e-3)}
QUICK = {"batch_size": 4}


def naive_relu(x):  # an index is (i, j) in a matrix, (i, j, k, l) in a tensor of rank 4
    return np.array([max(x[index], 0) for index in np.ndindex(x.shape)], x.dtype).reshape(x.shape)


def naive_add(x, y):
    y = naive_broadcast(y, x.shape)
    return np.array([x[index] + y[index] for index in np.ndindex(y.shape)]).reshape(x.shape)


def naive_broadcast(y, shape):
    y = y.reshape((1,) * (len(shape) - y.ndim) + y.shape)  # step 1: new axes in front, until the ranks agree
    for axis, length in enumerate(shape):  # step 2: y repeats itself along each axis of length 1
        y = np.repeat(y, length, axis) if y.shape[axis] == 1 else y
    return y


def naive_vector_dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def naive_matrix_vector_dot(x, y):
    return np.array([naive_vector_dot(row, y) for row in x])


def naive_matrix_dot(x, y):  # each row of x with each column of y: (a, b) times (b, c) is (a, c)
    return np.array([[naive_vector_dot(row, column) for column in y.T] for row in x])


def main(run: Run, *, batch_size: int = 128) -> None:
    """Look at tensors and cut them, calculate in three ways, and draw what a product does.

    Args:
        batch_size: Images to calculate with.
    """
    # 1. Rank (the number of axes), shape and dtype. A slice of the first axis is a batch.
    (x, y), _ = run.data.mnist()
    batch = x[batch_size : 2 * batch_size]  # the second one; x[:, 14:, 14:] cuts a corner out of each image
    last = np.stack(list(x[:3]), axis=-1)  # three images as the channels red, green, blue of one: last axis
    first = np.moveaxis(last, -1, 0)  # channels first
    for name, tensor in {"label": y[0], "image": x[0], "batch": batch, "last": last, "first": first}.items():
        print(f"{name:<6} rank {tensor.ndim}, shape {tensor.shape}, {tensor.dtype}, {tensor.nbytes:,} bytes")
    print("Does reshaping move the channels, too?", np.array_equal(last.reshape(first.shape), first))

    # 2. Loops, NumPy and Keras: the largest difference of the three results, and the best of three times.
    random = partial(np.random.default_rng(run.seed).standard_normal, dtype="float32")
    large, small, kernel = random((64, 3, 32, 10)), random((32, 10)), random((784, 32))
    rows, differences = batch.reshape(-1, 784).astype("float32") / 255, []
    for naive, *real, inputs in (
        (naive_relu, partial(np.maximum, 0), ops.relu, [large]),
        (naive_add, np.add, ops.add, [large, large[::-1]]),
        (naive_add, np.add, ops.add, [large, small]),  # broadcast: small is added to each of the 64 x 3
        (naive_vector_dot, np.dot, ops.dot, [rows[0], kernel[:, 0]]),
        (naive_matrix_vector_dot, np.dot, ops.dot, [rows, kernel[:, 0]]),
        (naive_matrix_dot, np.matmul, ops.matmul, [rows, kernel]),
    ):
        calls = [partial(function, *inputs) for function in (naive, *real)]
        differences.append(np.ptp([np.array(call()) for call in calls], axis=0).max())
        times = [f"{1000 * min(timeit.repeat(call, number=1, repeat=3)):.3f} ms" for call in calls]
        print("{}: {}, NumPy {}, Keras {}".format(naive.__name__, *times), [each.shape for each in inputs])
    run.score(elementwise_difference=max(differences[:3]), product_difference=max(differences[3:]))

    # 3. A matrix times points turns or stretches them; with a vector added it is affine, as Dense is.
    points = np.argwhere(x[0] > 127)[:, ::-1].T * [[1], [-1]] + [[-14], [14]]  # (2, n): where the ink is
    rotation, scaling = np.array([[0.8, -0.6], [0.6, 0.8]]), np.diag([1.5, 0.5])  # cos, sin of 37 degrees
    maps = {"rotation": (rotation, 0), "scaling": (scaling, 0), "affine map": (scaling, [[6], [12]])}
    grid = Figure(figsize=(6.4, 3.2), layout="constrained").subplots(1, 3)
    for axes, (name, (matrix, vector)) in zip(grid, maps.items(), strict=True):
        axes.plot(*points, ".", color="darkgray", markersize=3, label="points")
        axes.plot(*(matrix @ points + vector), ".", markersize=3, label="mapped")
        axes.set(title=name, xlabel="x", ylabel="y", xlim=(-22, 22), ylim=(-34, 22), aspect="equal")
        axes.legend(loc="lower right")
    run.figure("maps.png", grid[0])


if __name__ == "__main__":
    cli(main)
