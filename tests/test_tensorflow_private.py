"""What the private names of TensorFlow must mean that the toolkit relies on, one test a function."""

import itertools
import os
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from toolkit import _tensorflow


@pytest.mark.parametrize(
    ("code", "now"),
    [
        ("keras.utils.set_random_seed(1); tf.function(abs)", True),
        ("tf.config.list_physical_devices('GPU')", False),
        ("tf.test.gpu_device_name()", False),
        ("tf.constant(1)", False),
    ],
)
def test_reads_settings_now(code, now, tmp_path):
    program = f"""
import os, sys, keras, tensorflow as tf
from toolkit import _tensorflow
{code}
flags = "--tf_xla_persistent_cache_directory=" + sys.argv[1] + " --tf_xla_persistent_cache_device_types=CPU"
os.environ["TF_XLA_FLAGS"] = flags
assert _tensorflow.reads_settings_now() is {now}
assert os.environ["TF_XLA_FLAGS"] == flags
assert not _tensorflow.pywrap_tfe.TF_GetXlaConstantFoldingDisabled()
tf.function(lambda: tf.ones(3) + 1, jit_compile=True)()
assert bool(os.listdir(sys.argv[1])) is {now}
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_XLA_FLAGS": ""})
    assert result.returncode == 0, result.stderr


def test_steady_names():
    def function(x):
        return tf.while_loop(lambda x: x < 3, lambda x: [x + 1], [x])

    def trace():
        _tensorflow._OWN_COUNT = itertools.count(10**12)
        with _tensorflow.steady_names():
            return tf.function(function).get_concrete_function(tf.TensorSpec((), tf.int32))

    def names(traced):
        return sorted(each.signature.name for each in traced.graph.as_graph_def().library.function)

    trace()  # the first one of a process takes a number more
    one = trace()
    tf.stack([tf.constant(i) for i in range(5)])
    before = ops.uid
    other = trace()
    assert ops.uid is before
    assert len(names(one)) == 2
    assert names(one) == names(other)
    assert one.name == other.name


@pytest.mark.gpu
def test_gpu_memory():
    assert _tensorflow.gpu_memory() > 1 << 30


def test_complete_vectorized_map():
    _tensorflow.complete_vectorized_map()
    seeds = tf.constant([[1, 2], [3, 4]])
    drawn = tf.vectorized_map(
        lambda seed: tf.random.stateless_uniform((5,), seed), seeds, fallback_to_while_loop=False
    )
    for row, seed in zip(drawn, seeds, strict=True):  # as each alone
        np.testing.assert_array_equal(row, tf.random.stateless_uniform((5,), seed))
    bits = tf.vectorized_map(lambda x: tf.bitcast(x, tf.int32), tf.ones((2, 3)), fallback_to_while_loop=False)
    np.testing.assert_array_equal(bits, tf.bitcast(tf.ones((2, 3)), tf.int32))


def test_random_state_kept():
    keras.utils.set_random_seed(1)

    def draw():
        return random.random(), float(np.random.random()), float(tf.random.normal(()))  # noqa: NPY002

    draw()
    with _tensorflow.random_state_kept():
        first = draw()
    assert draw() == first != draw()
