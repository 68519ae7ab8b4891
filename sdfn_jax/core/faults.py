"""What is wrong with a user's files, counted and listed."""

from sdfn_jax.core.errors import UserError


class Faults:
    """What is wrong with single images: an error at the first, or a list of all when bad files are skipped.

    Attributes:
      reasons: {image: what is wrong with it}.
    """

    def __init__(self, skip: bool):
        self.skip = skip
        self.reasons: dict[str, str] = {}

    def report(self, image: str, reason: str) -> None:
        """Notes a fault.

        Raises:
          UserError: with the reason, unless bad files are skipped.
        """
        if not self.skip:
            raise UserError(f"{reason}\nMend it, or leave bad files out and list them: --skip_bad_files")
        self.reasons.setdefault(image, reason)
