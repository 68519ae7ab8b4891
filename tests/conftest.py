import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs and tables; without SDFN_DATA, tests that need it are skipped."""
    if "SDFN_DATA" not in os.environ:
        pytest.skip("SDFN_DATA does not name the folder of real data")
    return Path(os.environ["SDFN_DATA"])
