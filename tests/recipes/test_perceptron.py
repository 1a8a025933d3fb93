import numpy as np
import pytest

from recipes import perceptron
from toolkit import Data
from toolkit.run import Run

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
AND, OR, XOR = CORNERS.all(axis=1), CORNERS.any(axis=1), CORNERS.sum(axis=1) == 1


@pytest.mark.parametrize("y", [AND, OR, ~AND, ~OR], ids=["and", "or", "nand", "nor"])
def test_one_unit_learns_what_a_line_can_divide_and_then_rests(y):
    weights = perceptron.train_perceptron(CORNERS, y, 100)
    np.testing.assert_array_equal(perceptron.fires(CORNERS, weights), y)
    np.testing.assert_array_equal(perceptron.train_perceptron(CORNERS, y, 10_000), weights)


def test_one_unit_never_learns_xor(capsys):
    for epochs in range(1, 60):
        weights = perceptron.train_perceptron(CORNERS, XOR, epochs)
        assert (perceptron.fires(CORNERS, weights) != XOR).any()
    assert "Epoch 59: " in capsys.readouterr().out


def test_the_rule_moves_only_for_a_wrong_answer_and_toward_the_right_one():
    x = np.array([[2.0, -1.0]])
    np.testing.assert_allclose(perceptron.train_perceptron(x, [True], 1), [0.2, -0.1, 0.1])
    np.testing.assert_array_equal(perceptron.train_perceptron(x, [False], 1), [0, 0, 0])


def test_two_layers_by_hand_are_xor():
    np.testing.assert_array_equal(perceptron.two_layers(CORNERS), XOR)


def test_each_line_of_the_learning_rule_stands_under_its_question(tmp_path, capsys):
    perceptron.main(Run("perceptron", tmp_path, Data("sample"), 0, {}, True), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    for number, question in enumerate(["AND", "OR", "XOR"]):
        before, after = lines[3 * number : 3 * number + 2]
        assert before == f"One unit learns {question}:"
        assert " mistakes, weights and bias " in after


def test_steps_do_not_move_and_smooth_activations_do(tmp_path):
    run = Run("perceptron", tmp_path, Data("sample"), 0, {}, True)
    perceptron.main(run, epochs=2)
    assert run.metrics["step_kernel_moved"] == 0
    assert run.metrics["sigmoid_kernel_moved"] > 0.1
    assert run.metrics["relu_kernel_moved"] > 0.1
