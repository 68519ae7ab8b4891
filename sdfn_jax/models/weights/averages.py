"""Which set of weights a training checkpoint means: the moving average, if there is one next to what was trained."""

from collections.abc import Collection

# timm's, ConvNeXt's own, and what others call it.
_NAMES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")


def chosen(sets: Collection[str]) -> str | None:
    """Returns the one of several sets that is a moving average, as timm chooses; None if none is, or several are.

    Args:
      sets: their places in the file, `checkpoint.model_ema`.
    """
    averages = [place for place in sets if place.rpartition(".")[2] in _NAMES]
    return averages[0] if len(averages) == 1 else None
