import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sdfn_jax.metrics import bootstrap, subgroups


def test_every_image_is_in_one_group_of_each_kind():
    found = subgroups.groups(["M", "F", "M", "", "F"], [0.5, 17.99, 40, 414, 95], ["PA", "AP", "PA", "PA", "LL"])
    assert {kind: list(groups) for kind, groups in found.items()} == {
        "sex": ["female", "male", "unknown"],
        "age": ["0-17", "40-59", "80 and over", "unknown"],
        "view": ["PA", "AP", "unknown"],
    }
    for groups in found.values():
        assert (np.sum(list(groups.values()), axis=0) == 1).all()
    assert found["age"]["0-17"].tolist() == [True, True, False, False, False]
    assert found["age"]["unknown"].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(("years", "band"), [(0, "0-17"), (18, "18-39"), (39.9, "18-39"), (80, "80 and over")])
def test_age_bands(years, band):
    assert subgroups.age_band(years) == band


def test_within_group_auc_is_over_pairs_of_one_group_and_a_shortcut_gains_nothing():
    rng = np.random.default_rng(0)
    group = rng.random(400) < 0.5
    labels = rng.random(400) < np.where(group, 0.5, 0.1)
    shortcut = group + 0.01 * rng.random(400)  # knows the group and nothing else
    resamples = bootstrap.draw(np.arange(400), 1, seed=0)
    resamples.counts[:] = 1  # the sample itself
    pairs = {
        name: bootstrap.auc_pairs(labels[chosen], shortcut[chosen], bootstrap.subset(resamples, chosen))
        for name, chosen in (("a", group), ("b", ~group))
    }
    written_out = [
        (p > n) + 0.5 * (p == n)
        for chosen in (group, ~group)
        for p in shortcut[chosen & labels]
        for n in shortcut[chosen & ~labels]
    ]
    assert subgroups.within(pairs)[0] == pytest.approx(np.mean(written_out), abs=1e-12)
    assert roc_auc_score(labels, shortcut) > 0.7
    assert subgroups.within(pairs)[0] == pytest.approx(0.5, abs=0.06)
