import numpy as np

from toolkit.histories import mean_and_deviation, read_history, together


def test_a_file_that_was_cut_short_counts_as_far_as_it_goes(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_loss\n0,0.5,0.75\n1,0.25")
    np.testing.assert_array_equal(read_history(path)["val_loss"], [0.75, np.nan])


def test_an_epoch_counts_the_curves_that_have_reached_it_and_none_without_validation():
    mean, deviation = mean_and_deviation(together([[3.0, np.nan, np.nan, 1.0], [5.0, np.nan, 2.0]]))
    np.testing.assert_array_equal(mean, [4, np.nan, 2, 1])
    np.testing.assert_array_equal(deviation, [1, np.nan, 0, 0])
