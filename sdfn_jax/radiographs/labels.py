"""Labels as a data set's owner gives them, and the targets that a training makes of them."""

import difflib
from collections.abc import Sequence

import numpy as np

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.tables import shown

# What a prepared data set stores for each finding of a radiograph, as uint8. Uncertain: the owner considered the
# finding and did not decide. Unknown: the owner says nothing of it.
ABSENT, PRESENT, UNCERTAIN, UNKNOWN = range(4)
IGNORE = "ignore"
_WORDS = {IGNORE: np.nan, "zero": 0.0, "one": 1.0}
UNCERTAIN_RULES = "ignore, zero, one, or a number between 0 and 1"


def choose(available: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Returns the findings of a run.

    Args:
      available: those of the data set.
      wanted: `findings` of the config; empty for all, in the data set's order.

    Raises:
      UserError: for a name that occurs twice, or that the data set lacks.
    """
    for index, name in enumerate(wanted):
        if name in wanted[:index]:
            raise UserError(f"--config.findings names {shown(name)} twice; name each finding once")
        if name not in available:
            close = difflib.get_close_matches(name, available, n=1)
            meant = f"did you mean {close[0]}?" if close else f"it labels {', '.join(available)}"
            raise UserError(f"--config.findings names {shown(name)}, which the data set does not label; {meant}")
    return tuple(wanted) or tuple(available)


def arrange(codes: np.ndarray, available: Sequence[str], findings: Sequence[str]) -> np.ndarray:
    """Returns labels in another order of findings; a finding that the data set never labels is unknown.

    Args:
      codes: (..., A) uint8, one of the four codes each, in the order of `available`.
      available: the A findings of the data set.
      findings: the K findings that are wanted.

    Returns:
      (..., K) uint8.
    """
    if tuple(available) == tuple(findings):
        return codes
    padded = np.concatenate([codes, np.full((*codes.shape[:-1], 1), UNKNOWN, codes.dtype)], axis=-1)
    return padded[..., [available.index(name) if name in available else -1 for name in findings]]


def target_table(findings: Sequence[str], uncertain: str = IGNORE) -> np.ndarray:
    """Returns the target that stands for each code of each finding.

    Args:
      findings: the K findings of a run.
      uncertain: what an uncertain label counts as: `ignore`, `zero`, `one`, or a number between 0 and 1. A finding's
        own rule follows after a comma: `ignore,Edema=one,Atelectasis=0.5`. Unknown labels are always ignored.

    Returns:
      (K, 4) float32, by finding and code, 0 to 1; NaN is ignored.

    Raises:
      UserError: for a rule that is none of these, or for a finding that the run lacks.
    """
    general, own = rules(uncertain)
    for name in own:
        if name not in findings:
            raise UserError(
                f"--config.uncertain gives a rule for {shown(name)}, which is no finding of this run; it has "
                f"{', '.join(findings)}"
            )
    values = dict.fromkeys(findings, general) | own
    return np.array([(0.0, 1.0, value, np.nan) for value in values.values()], np.float32)


def rules(uncertain: str) -> tuple[float, dict[str, float]]:
    """Reads what `target_table` takes: the target of uncertain labels, and {finding: its own}; NaN is ignored.

    Raises:
      UserError: for text that is no rule.
    """
    general, *own = [part.strip() for part in str(uncertain).split(",")]
    named = (part.partition("=") for part in own)
    return _value(general), {name.strip(): _value(rule.strip()) for name, _, rule in named}


def targets(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns the targets of labels.

    Args:
      codes: (..., K) uint8, one of the four codes each.
      table: (K, 4), as `target_table` returns it.

    Returns:
      (..., K) float32, 0 to 1; NaN is ignored.
    """
    return table[np.arange(len(table)), codes]


def known(codes: np.ndarray) -> np.ndarray:
    """Returns (..., K) bool: which labels their owner is sure of. Only these count when a network is scored."""
    return codes <= PRESENT


def _value(rule: str) -> float:
    if rule in _WORDS:
        return _WORDS[rule]
    try:
        value = float(rule)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise UserError(
            f"--config.uncertain: {shown(rule)} is no rule for uncertain labels; expected {UNCERTAIN_RULES}; then, "
            "after commas, perhaps rules of single findings: Edema=one"
        )
    return value
