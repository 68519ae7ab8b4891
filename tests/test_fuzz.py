import re
from collections import Counter

import pytest

from tools import fuzz_readers


def test_damaged_files_are_read_or_refused_in_one_line():
    """The short form of the benchmark: the same files, the first of them, by another seed."""
    records = fuzz_readers.run(0, 600, seed=7)
    assert [record["number"] for record in records] == list(range(600))
    assert fuzz_readers.defects(records) == []
    told = Counter(record["outcome"] for record in records)
    assert told["read"] > 60 and told["refused"] > 300
    assert {record["suffix"] for record in records} == {".bmp", ".dcm", ".gif", ".img", ".jpg", ".png", ".tif"}


@pytest.mark.parametrize(
    ("reader", "told"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("int('no name')", "refused badly"),
        ("np.zeros((3, 3))", "returned array"),
        ("os.abort()", r"ended the process \(-6\): Fatal Python error: Aborted"),
        ("time.sleep(60)", r"ended the process \(-9\)"),
        ("np.zeros((2, print('a name', file=sys.stderr) or 2), np.uint8)", "said something on standard error"),
    ],
)
def test_the_fuzz_run_sees_what_a_bad_reader_does(tmp_path, monkeypatch, reader, told):
    """The reading process has a reader that does it at the second file of three."""
    script = tmp_path / "bad.py"
    script.write_text(f"""
import os, sys, time
import numpy as np
sys.path.insert(0, {str(fuzz_readers.ROOT)!r})
from tools import fuzz_readers

good = fuzz_readers.radiographs_reader.read_radiograph
fuzz_readers.radiographs_reader.read_radiograph = lambda path: {reader} if path.suffix == ".jpg" else good(path)
fuzz_readers.good_files = lambda: [("png", b"no"), ("jpg", b"image")]
fuzz_readers.main()
""")
    monkeypatch.setattr(fuzz_readers, "SCRIPT", script)
    monkeypatch.setattr(fuzz_readers, "TIME_LIMIT", 5)
    records = fuzz_readers.run(0, 3, seed=0)
    assert [record["number"] for record in records] == [0, 1, 2]
    (defect,) = fuzz_readers.defects(records)
    assert defect["number"] == 1 and re.search(told, defect["outcome"])


def test_memory_that_grows_is_a_defect():
    records = [{"number": i, "outcome": "read", "memory": 2**26 + i * 2**22} for i in range(100)]
    assert "memory grew" in fuzz_readers.defects(records)[0]["outcome"]
    assert fuzz_readers.defects(records[:30]) == []
