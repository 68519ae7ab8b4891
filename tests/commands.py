"""Commands run in the test's own process."""

import pytest

from sdfn_jax import predict as predict_command
from sdfn_jax.core.errors import run_command


def predict(*arguments) -> int:
    """Runs `sdfn predict` and returns its exit status."""
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: predict_command.main([str(argument) for argument in arguments]))
    return stop.value.code
