import os
import signal
import tempfile
from pathlib import Path

import pytest

# Each program is compiled once for all tests and the processes they start, not once in each. The process that starts
# the others makes the folder and removes it in the end.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="sdfn_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# A script that starts the tests in the background has them ignore Ctrl-C, which tests send to their processes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs and tables; without SDFN_DATA, tests that need it are skipped."""
    if "SDFN_DATA" not in os.environ:
        pytest.skip("SDFN_DATA does not name the folder of real data")
    return Path(os.environ["SDFN_DATA"])
