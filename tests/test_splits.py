import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import kfold


@given(st.data(), st.integers(2, 60), st.one_of(st.none(), st.integers(0, 1000)))
def test_folds_are_disjoint_cover_all_rows_and_differ_by_one_at_most(data, n, seed):
    k = data.draw(st.integers(2, n))
    splits = kfold(n, k, seed=seed)
    assert len(splits) == k
    sizes = [len(validation) for _, validation in splits]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate([validation for _, validation in splits])) == list(range(n))
    for train, validation in splits:
        assert sorted([*train, *validation]) == list(range(n))


def test_the_seed_decides():
    first, again, other = (np.concatenate([v for _, v in kfold(40, 4, seed=s)]) for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert np.concatenate([v for _, v in kfold(40, 4, seed=None)]).tolist() == list(range(40))


@given(st.lists(st.sampled_from("abc"), min_size=12, max_size=60), st.integers(2, 4))
def test_stratified_folds_hold_each_class_in_proportion(labels, k):
    labels = np.array(labels + ["a"] * k + ["b"] * k + ["c"] * k)
    for _, validation in kfold(len(labels), k, stratify=labels):
        for name in "abc":
            assert abs(np.sum(labels[validation] == name) - np.sum(labels == name) / k) < 1


@given(st.lists(st.integers(0, 9), min_size=10, max_size=60), st.integers(2, 5))
def test_groups_stay_together(groups, k):
    groups = np.array(groups + list(range(10)))
    splits = kfold(len(groups), k, groups=groups)
    for train, validation in splits:
        assert not set(groups[train]) & set(groups[validation])
    assert sorted(np.concatenate([validation for _, validation in splits])) == list(range(len(groups)))


def test_groups_and_classes_together():
    groups, labels = np.arange(40) // 2, np.arange(40) // 2 % 2
    for train, validation in kfold(40, 5, groups=groups, stratify=labels):
        assert not set(groups[train]) & set(groups[validation])
        assert labels[validation].mean() == 0.5


@pytest.mark.parametrize("k", [-1, 0, 1, 11])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=rf"`k` must be between 2 and n=10\. Received: k={k}"):
        kfold(10, k)


@pytest.mark.parametrize(("n", "k"), [([1, 2, 3], 2), (10, 2.0), (True, 2), ("10", 2)])
def test_what_is_no_number_of_rows_is_refused(n, k):
    with pytest.raises(ValueError, match="must be integers"):
        kfold(n, k)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stratify": [0] * 8 + [1] * 2}, "at least k=3 rows of each class. Received: 2 of class 1"),
        ({"groups": [0] * 5 + [1] * 5}, "at least k=3 groups. Received: 2"),
        ({"stratify": [0, 1]}, r"`stratify` must have shape \(10,\). Received: shape \(2,\)"),
        ({"groups": [0, 1]}, r"`groups` must have shape \(10,\)"),
    ],
)
def test_too_few_members_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kfold(10, 3, **arguments)
