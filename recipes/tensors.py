"""Do by hand, in plain loops, what keras.ops does in one call: the same numbers, much later.

Teaches   Rank, shape, dtype, slices, batches, channels; relu, sum and products as loops, equal to
          NumPy and keras.ops, and timed; broadcasting in two steps; a product as rotation, scaling,
          affine map.
Data      MNIST: 60,000 + 10,000 images of 28 x 28 pixels.
Source    Chollet, Deep Learning with Python, sections 2.2 and 2.3.
Takes     5 s
Try next  --batch-size 1, then 1000: which times grow, and which hardly do?
"""

import timeit
from collections.abc import Callable
from functools import partial

import numpy as np
from keras import ops
from matplotlib.figure import Figure

from toolkit.run import Run, cli

# Seeds 0 to 9: product_difference 1.5e-5 to 2.3e-5, the rounding of float32.
EXPECTED = {"elementwise_difference": (0, 0), "product_difference": (0, 1e-3)}
# A short run to check that everything works.
QUICK = {"batch_size": 4}


def naive_relu(x: np.ndarray) -> np.ndarray:
    """Set each negative element to 0."""
    result = x.copy()
    for index in np.ndindex(x.shape):  # in a matrix (0, 0), (0, 1), ...; works for every rank
        result[index] = max(x[index], 0)
    return result


def numpy_relu(x: np.ndarray) -> np.ndarray:
    """Set each negative element to 0, in one call."""
    return np.maximum(x, 0)


def naive_add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Add y to x, element by element, after y was broadcast to the shape of x."""
    y = naive_broadcast(y, x.shape)
    result = x.copy()
    for index in np.ndindex(x.shape):
        result[index] += y[index]
    return result


def naive_broadcast(y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeat y until it has the wanted shape. NumPy and Keras give the same, but copy nothing."""
    # Say y is (32, 10), and (64, 3, 32, 10) is wanted.
    # Step 1: new axes of length 1 in front, until the ranks agree: y becomes (1, 1, 32, 10).
    new_axes = len(shape) - y.ndim
    y = y.reshape((1,) * new_axes + y.shape)
    # Step 2: y is repeated along each axis of length 1: y becomes (64, 3, 32, 10).
    for axis, length in enumerate(shape):
        if y.shape[axis] == 1:
            y = np.repeat(y, length, axis=axis)
    if y.shape != shape:
        raise ValueError(f"y must fit shape {shape}. Received: after broadcasting, {y.shape}")
    return y


def naive_vector_dot(x: np.ndarray, y: np.ndarray) -> float:
    """Multiply two vectors element by element, and add the products up: one number."""
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += a * b
    return total


def naive_matrix_vector_dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiply each row of a matrix with a vector: (a, b) times (b,) is (a,)."""
    result = np.zeros(len(x), dtype=x.dtype)
    for i in range(len(x)):
        result[i] = naive_vector_dot(x[i], y)
    return result


def naive_matrix_dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiply each row of x with each column of y: (a, b) times (b, c) is (a, c)."""
    result = np.zeros((x.shape[0], y.shape[1]), dtype=x.dtype)
    for i in range(x.shape[0]):
        for j in range(y.shape[1]):
            result[i, j] = naive_vector_dot(x[i], y[:, j])
    return result


def compare(title: str, functions: list[Callable], *inputs: np.ndarray) -> float:
    """Print how long a loop, NumPy and Keras take; return how far their results lie apart."""
    results = []
    times = []
    for function in functions:
        call = partial(function, *inputs)
        results.append(np.array(call()))
        # The shortest of three times counts, as other programs on the machine can only add to it.
        times.append(min(timeit.repeat(call, number=1, repeat=3)))
    shapes = " and ".join(str(each.shape) for each in inputs)
    print(f"{title:<14}" + "".join(f"{1000 * each:10.3f} ms" for each in times) + f"   {shapes}")
    return np.ptp(results, axis=0).max()  # "peak to peak": the largest minus the smallest


def main(run: Run, *, batch_size: int = 128) -> None:
    """Look at tensors and cut them, calculate in three ways, and draw what a product does.

    Args:
        batch_size: Images to calculate with.
    """
    # 1. Tensors, which are arrays of numbers. The rank of a tensor is the number of its axes, the
    # shape the length of each axis, the dtype the kind of its numbers.
    data = run.data.mnist()
    (x, y), _ = data
    print(f"A label: rank {y[0].ndim}, shape {y[0].shape}, {y[0].dtype}")
    print(f"An image: rank {x[0].ndim}, shape {x[0].shape}, {x[0].dtype}")
    print(f"All images: rank {x.ndim}, shape {x.shape}, {x.dtype}, {x.nbytes:,} bytes")

    # 2. Slices. A cut through the first axis is a batch of samples. Other axes can be cut, too.
    batch = x[batch_size : 2 * batch_size]  # (128, 28, 28): the second batch
    corners = x[:, 14:, 14:]  # (60000, 14, 14): the lower right corner of each image
    print(f"A batch: shape {batch.shape}. Corners: shape {corners.shape}")

    # 3. Channels. A color image has three numbers for each pixel: red, green and blue. Keras wants
    # them as the last axis, PyTorch as the first one. Here three gray images serve as channels.
    channels_last = np.stack([x[0], x[1], x[2]], axis=-1)  # (28, 28, 3)
    channels_first = np.moveaxis(channels_last, -1, 0)  # (3, 28, 28)
    reshaped = channels_last.reshape(3, 28, 28)
    is_same = np.array_equal(reshaped, channels_first)
    print(f"Channels last: {channels_last.shape}. Channels first: {channels_first.shape}")
    # A reshape only cuts the same sequence of numbers into other rows: it mixes the three images.
    print(f"Does a reshape to the same shape give the same? {is_same}")

    # 4. Element by element: a loop, NumPy and Keras. The last sum broadcasts: the small matrix is
    # added to each of the 64 x 3 matrices of the large tensor.
    random = np.random.default_rng(run.seed)
    large = random.standard_normal((64, 3, 32, 10), dtype="float32")
    small = random.standard_normal((32, 10), dtype="float32")
    print(f"{'':<14}{'loop':>13}{'NumPy':>13}{'Keras':>13}   shapes")
    differences = [
        compare("relu", [naive_relu, numpy_relu, ops.relu], large),
        compare("sum", [naive_add, np.add, ops.add], large, large[::-1]),
        compare("broadcast sum", [naive_add, np.add, ops.add], large, small),
    ]
    # run.score prints a score, beside the range in which it is expected, if it has one.
    run.score(elementwise_difference=max(differences))

    # 5. Products. A Dense layer begins with a product of two matrices: the images, each of them a
    # row of 784 numbers, times its weights, which have a column for each of 32 units. Keras calls
    # these weights the kernel.
    rows = batch.reshape(-1, 784).astype("float32") / 255  # (128, 28, 28) becomes (128, 784)
    kernel = random.standard_normal((784, 32), dtype="float32")
    unit = kernel[:, 0]  # (784,)
    differences = [
        compare("vectors", [naive_vector_dot, np.dot, ops.dot], rows[0], unit),
        compare("matrix, vector", [naive_matrix_vector_dot, np.dot, ops.dot], rows, unit),
        compare("matrices", [naive_matrix_dot, np.matmul, ops.matmul], rows, kernel),
    ]
    # float32 keeps 7 digits, and each way adds in another order, so the last digits differ.
    run.score(product_difference=max(differences))

    # 6. What a product does to points. One matrix turns them, another one stretches them. With a
    # vector added it is an affine map: a Dense layer without activation is one.
    down, right = np.nonzero(x[0] > 127)  # the rows and columns of the pixels with ink
    # Each of the n pixels becomes a column, x and y, with 0 in the middle. (Rows are counted
    # downwards, and y goes upwards: hence 14 - down.)
    points = np.stack([right - 14, 14 - down])  # (2, n)
    angle = np.radians(37)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scaling = np.array([[1.5, 0], [0, 0.5]])
    # As points are columns here, the matrix stands in front of them. For a Dense layer they are
    # rows, and the kernel stands behind: the same product, transposed.
    mapped = {
        "rotation": rotation @ points,  # (2, 2) times (2, n) is (2, n)
        "scaling": scaling @ points,
        "affine map": scaling @ points + np.array([[6], [12]]),  # (2, 1) is broadcast to (2, n)
    }
    figure = draw_maps(points, mapped)
    figure.suptitle(f"{data.name} ({data.source} data): the ink of the first image, mapped")
    run.figure("maps.png", figure)


def draw_maps(points: np.ndarray, mapped: dict[str, np.ndarray]) -> Figure:
    """Draw points before and after each map."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    panels = figure.subplots(1, len(mapped), sharey=True)
    for axes, (name, new_points) in zip(panels, mapped.items(), strict=True):
        axes.plot(points[0], points[1], ".", color="darkgray", markersize=4, label="before")
        axes.plot(new_points[0], new_points[1], ".", color="C0", markersize=4, label="after")
        axes.set(title=name, xlabel="x", xlim=(-22, 22), ylim=(-22, 22), aspect="equal")
    panels[0].set_ylabel("y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    cli(main)
