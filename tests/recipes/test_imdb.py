import csv

import pytest

from recipes import imdb
from toolkit import Data
from toolkit.run import Run


@pytest.mark.parametrize(
    ("epochs", "batch_size", "overfits"), [(2, 512, False), (12, 16, True)], ids=["few", "many"]
)
def test_it_speaks_of_learning_by_heart_only_where_the_validation_loss_rises(
    epochs, batch_size, overfits, tmp_path, capsys
):
    imdb.main(Run("imdb", tmp_path, Data("sample"), 0, {}, True), epochs=epochs, batch_size=batch_size)
    with (tmp_path / "history.csv").open() as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert (min(losses) < losses[-1]) == overfits
    out = capsys.readouterr().out
    assert ("by heart" in out) == overfits
    assert (f"still falls in epoch {epochs}:" in out) != overfits
