"""Labels: present, absent, uncertain, unknown, and what a training makes of them."""

import numpy as np
import pytest

from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs.labels import (
    ABSENT,
    PRESENT,
    UNCERTAIN,
    UNKNOWN,
    arrange,
    choose,
    known,
    target_table,
    targets,
)

NAMES = ("Mass", "Edema", "Atelectasis")
CODES = np.array([[ABSENT, PRESENT, UNCERTAIN], [UNCERTAIN, UNCERTAIN, UNKNOWN]], np.uint8)
NAN = np.nan


@pytest.mark.parametrize(
    ("uncertain", "expected"),
    [
        ("ignore", [[0, 1, NAN], [NAN, NAN, NAN]]),
        ("zero", [[0, 1, 0], [0, 0, NAN]]),
        ("one", [[0, 1, 1], [1, 1, NAN]]),
        ("0.25", [[0, 1, 0.25], [0.25, 0.25, NAN]]),
        ("ignore, Edema=one, Mass=0.5", [[0, 1, NAN], [0.5, 1, NAN]]),
    ],
)
def test_uncertain_labels_become_what_the_config_says_and_unknown_ones_are_ignored(uncertain, expected):
    found = targets(CODES, target_table(NAMES, uncertain))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("uncertain", "message"),
    [
        ("maybe", r"--config.uncertain: 'maybe' is no rule .* expected ignore, zero, one, or a number between 0 and 1"),
        ("1.5", "'1.5' is no rule"),
        ("nan", "'nan' is no rule"),
        ("zero,Edema", "'' is no rule"),
        ("zero,Hernia=one", "a rule for 'Hernia', which is no finding of this run; it has Mass, Edema, Atelectasis"),
    ],
)
def test_a_rule_that_is_none_is_refused(uncertain, message):
    with pytest.raises(UserError, match=message):
        target_table(NAMES, uncertain)


def test_a_run_has_all_findings_of_its_data_set_or_those_that_it_names():
    assert choose(NAMES, ()) == NAMES
    assert choose(NAMES, ("Atelectasis", "Edema")) == ("Atelectasis", "Edema")
    with pytest.raises(UserError, match="names 'Mass' twice"):
        choose(NAMES, ("Mass", "Edema", "Mass"))
    with pytest.raises(UserError, match="names 'edema', which the data set does not label; did you mean Edema"):
        choose(NAMES, ("edema",))
    with pytest.raises(UserError, match="names 'Hernia', which .*; it labels Mass, Edema, Atelectasis"):
        choose(NAMES, ("Hernia",))


def test_labels_follow_the_run_s_order_and_what_the_data_set_never_labels_is_unknown():
    np.testing.assert_array_equal(
        arrange(CODES, NAMES, ("Atelectasis", "Hernia", "Mass")),
        [[UNCERTAIN, UNKNOWN, ABSENT], [UNKNOWN, UNKNOWN, UNCERTAIN]],
    )
    assert arrange(CODES, NAMES, NAMES) is CODES


def test_only_present_and_absent_are_known():
    np.testing.assert_array_equal(known(np.arange(4, dtype=np.uint8)), [True, True, False, False])
