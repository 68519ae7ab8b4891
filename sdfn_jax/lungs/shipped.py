"""The lung region generator that comes with the package: `MODEL_CARD.md` in its folder describes it."""

from pathlib import Path

from sdfn_jax.core import checkpoint

# A run folder of `configs/lungs.py`, as `tools/ship_lungs.py` leaves it.
SHIPPED = Path(__file__).parent / "shipped"


def digest() -> str:
    """Returns the digest of its checkpoint."""
    return checkpoint.best_metadata(SHIPPED)["digest"]


def copy_to(run: str | Path) -> None:
    """Saves it as the best checkpoint of a run folder, with the same digest."""
    variables, metadata = checkpoint.read_best(SHIPPED)
    checkpoint.save_best(run, metadata["step"], variables, metadata)


def describe() -> str:
    """Returns a phrase that names it."""
    return f"the lung region generator of the package ({digest()[:12]}, trained on adult frontal radiographs)"
