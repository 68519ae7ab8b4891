"""Collects what is wrong with a user's files."""

from sdfn_jax.core.errors import UserError


class Faults:
    """Faults of individual images: the first is raised, or all are collected if bad files are skipped.

    Attributes:
      reasons: {image: what is wrong with it}.
    """

    def __init__(self, skip: bool):
        self.skip = skip
        self.reasons: dict[str, str] = {}

    def report(self, image: str, reason: str) -> None:
        """Records a fault.

        Raises:
          UserError: with the reason, unless bad files are skipped.
        """
        if not self.skip:
            raise UserError(f"{reason}\nFix it, or skip bad files and list them: --skip_bad_files")
        self.reasons.setdefault(image, reason)
