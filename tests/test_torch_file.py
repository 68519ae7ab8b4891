"""The restricted reader against files that PyTorch wrote, and against files that nobody should have written."""

import argparse
import codecs
import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import functools
import os
import pickle
import re
import struct
import subprocess
import types
import uuid
import zipfile
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from peers import import_peer

from sdfn_jax.models.weights import pickled, torch_pickle

CALLED = []


def state():
    torch = import_peer("torch")
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "float": base,
        "transposed": base.T,
        "part": base[1:3, 2:5],
        "shared": base,
        "half": base.half(),
        "count": torch.tensor(7),
        "flags": base > 0,
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base * 2),
    }


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_tensors_are_those_that_pytorch_reads(tmp_path, zipped):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    torch.save(collections.OrderedDict(state()), path, _use_new_zipfile_serialization=zipped)
    ours, theirs = torch_pickle.read(path), torch.load(path, weights_only=True)
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor.detach().numpy())
        assert ours[name].dtype == tensor.detach().numpy().dtype


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, zipped):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    torch.save({"state_dict": {"a": torch.zeros(50)}, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for kept in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:kept])
        with pytest.raises(torch_pickle.RefusedFileError):
            torch_pickle.read(path)


@pytest.mark.parity
def test_damaged_numbers_of_a_zip_file_are_noticed(tmp_path):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    torch.save({"a": torch.ones(300)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(np.ones(300, np.float32).tobytes())
    content[place + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(torch_pickle.RefusedFileError, match="not a whole PyTorch file.*CRC"):
        torch_pickle.read(path)


def test_torchscript_is_refused_with_its_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", pickle.dumps({}, 2))
        archive.writestr("script/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(torch_pickle.RefusedFileError, match="TorchScript"):
        torch_pickle.read(tmp_path / "script.pt")


class Attack:
    """Runs something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def write_zip(path: Path, stored) -> None:
    content = stored if isinstance(stored, bytes) else pickle.dumps(stored, 2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)


def write_stream(path: Path, stored) -> None:
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, machine, stored, []]
    content = [part if isinstance(part, bytes) else pickle.dumps(part, 2) for part in parts]
    path.write_bytes(b"".join(content))


def call(*arguments):
    CALLED.append(arguments)


ATTACKS = {
    "system": lambda folder: Attack(os.system, f"touch {folder}/pwned"),
    "own function": lambda folder: Attack(call, 1),
    "eval": lambda folder: Attack(eval, f"open('{folder}/pwned', 'w')"),
    "beside weights": lambda folder: {"state_dict": {"a": 1}, "x": Attack(exec, f"open('{folder}/pwned', 'w')")},
    "class": lambda folder: Attack(zipfile.ZipFile, f"{folder}/pwned", "w"),
    # protocol 0 opcodes: GLOBAL, MARK, string, TUPLE, REDUCE; and INST, which calls by another road
    "by hand": lambda folder: f"cposix\nsystem\n(S'touch {folder}/pwned'\ntR.".encode(),
    "by INST": lambda folder: f"(S'touch {folder}/pwned'\niposix\nsystem\n.".encode(),
    # by names that look harmless, and by what harmless ones give
    "of the library": lambda folder: Attack(subprocess.Popen, ["touch", f"{folder}/pwned"]),
    "codecs": lambda folder: Attack(codecs.open, f"{folder}/pwned", "w"),
    "by OBJ": lambda folder: f"(cposix\nsystem\nS'touch {folder}/pwned'\no.".encode(),
    "by STACK_GLOBAL": lambda folder: (
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c"
        + bytes([len(f"touch {folder}/pwned")])
        + f"touch {folder}/pwned".encode()
        + b"\x85R."
    ),
    "what getattr gives": lambda folder: (
        f"cbuiltins\ngetattr\n(cbuiltins\n__import__\nS'system'\ntR(S'touch {folder}/pwned'\ntR.".encode()
    ),
    "a tensor's function": lambda folder: (
        f"ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\nN(S'touch {folder}/pwned'\ntNtR.".encode()
    ),
    "dotted name": lambda folder: f"ctorch._utils\nos.system\n(S'touch {folder}/pwned'\ntR.".encode(),
}


@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_file_does_nothing_and_is_named(tmp_path, write, attack):
    stored = ATTACKS[attack](tmp_path)
    write(tmp_path / "w.pth", stored)
    with pytest.raises(torch_pickle.RefusedFileError, match="asks to run .*refused, nothing was run"):
        torch_pickle.read(tmp_path / "w.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
    assert CALLED == []


def test_the_attacks_are_real(tmp_path):
    write_zip(tmp_path / "w.pth", ATTACKS["system"](tmp_path))
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert (tmp_path / "pwned").exists()


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes: of shells, and of nothing that the reader uses."""
    before = dict(vars(pickled.Shell)), dict(vars(torch_pickle._rebuild_tensor))
    for name in ("numpy\ndtype", "torch._utils\n_rebuild_tensor_v2", "some.module\nNetwork"):
        write_zip(tmp_path / "w.pth", f"c{name}\n(N(dS'__doc__'\nS'changed'\nstb.".encode())
        with contextlib.suppress(torch_pickle.RefusedFileError):
            torch_pickle.read(tmp_path / "w.pth")
        assert (dict(vars(pickled.Shell)), dict(vars(torch_pickle._rebuild_tensor))) == before


class Mode(enum.Enum):
    TRAIN = 1


class Settings(collections.OrderedDict):
    pass


class Book:
    def __init__(self):
        self.lines = [1, 2]


BESIDE = {
    "counter": lambda torch: collections.Counter("abca"),
    "size": lambda torch: torch.Size([1, 2]),
    "path": lambda torch: Path("/data/runs"),
    "windows path": lambda torch: PureWindowsPath("C:/data"),
    "ordered dict of one's own": lambda torch: Settings(a=1),
    "namespace": lambda torch: argparse.Namespace(lr=0.1, out=Path("/data")),
    "simple namespace": lambda torch: types.SimpleNamespace(lr=0.1),
    "numpy scalar": lambda torch: np.float64(0.5),
    "numpy arrays": lambda torch: [np.arange(3.0), np.array(["a"]), np.array([None], object)],
    "numpy random state": lambda torch: [np.random.default_rng(0), np.random.RandomState(0).get_state()],
    "times": lambda torch: [
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.date(2024, 1, 1),
        datetime.timedelta(1),
    ],
    "default dict": lambda torch: collections.defaultdict(list, {"auc": [0.7]}),
    "deque and sets": lambda torch: [collections.deque([1]), {1, 2}, frozenset({3})],
    "enumeration": lambda torch: Mode.TRAIN,
    "object of one's own": lambda torch: Book(),
    "numbers": lambda torch: [decimal.Decimal(1), fractions.Fraction(1, 3), 1j, 2**100, slice(1, 2), range(3)],
    "identifier": lambda torch: uuid.UUID(int=3),
    "pattern": lambda torch: re.compile("a+"),
    "types": lambda torch: [torch.float32, torch.device("cpu"), int, np.float32, np.dtype("f4"), torch.nn.Linear],
    "generator state": lambda torch: torch.get_rng_state(),
    "function": lambda torch: [len, functools.partial(min, 3)],
    "optimizer and schedule": lambda torch: [
        (optimizer := torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(),
    ],
    "tensor of another kind": lambda torch: [torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse()],
    "float8": lambda torch: torch.zeros(2).to(torch.float8_e4m3fn),
    "itself": lambda torch: (lambda loop: loop.append(loop) or loop)([]),
}


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("beside", BESIDE)
def test_harmless_things_beside_the_weights_are_passed_over(tmp_path, beside, zipped):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    stored = {"state_dict": {"a": torch.ones(2)}, "beside": BESIDE[beside](torch)}
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(torch_pickle.read(path)["a"], [1, 1])


@pytest.mark.parity
def test_weights_in_a_dict_of_ones_own_are_found(tmp_path):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    torch.save(Settings(state_dict=Settings(a=torch.ones(2))), path)
    np.testing.assert_array_equal(torch_pickle.read(path)["a"], [1, 1])


@pytest.mark.parity
def test_a_tensor_with_attributes_and_one_of_a_subclass_are_read(tmp_path):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    tensor = torch.nn.Parameter(torch.ones(2))
    tensor.note = "mine"
    torch.save({"a": tensor}, path)
    np.testing.assert_array_equal(torch_pickle.read(path)["a"], [1, 1])


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_half_precision_and_bfloat16_are_read_exactly(tmp_path, zipped):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    numbers = torch.randn(300, generator=torch.Generator().manual_seed(0))
    torch.save({"a": numbers.half(), "b": numbers.bfloat16()}, path, _use_new_zipfile_serialization=zipped)
    found = torch_pickle.read(path)
    np.testing.assert_array_equal(found["a"].astype(np.float32), numbers.half().float().numpy())
    np.testing.assert_array_equal(found["b"].astype(np.float32), numbers.bfloat16().float().numpy())


@pytest.mark.parity
def test_weights_of_a_type_that_is_not_read_are_named(tmp_path):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    torch.save({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(torch_pickle.RefusedFileError, match="the tensor a has numbers of an unsupported type: .*8"):
        torch_pickle.read(path)


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path):
    """Strides are numbers in the file: they must not read memory that is not the file's."""
    storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    for offset, shape, strides in ((0, 5, 1), (3, 2, 1), (0, 2, 9), (-1, 2, 1), (0, 2, -1)):
        tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n(I{shape}\nt(I{strides}\ntI00\nNtR"
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
            archive.writestr("archive/data.pkl", f"(dS'a'\n{tensor}s.".encode())
            archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
        with pytest.raises(torch_pickle.RefusedFileError, match="reaches beyond its 4 numbers"):
            torch_pickle.read(tmp_path / "w.pth")


def test_other_files_are_refused(tmp_path):
    for content in (b"", b"<html>", b"\x80\x02K\x01.", b"\x00" * 100):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(torch_pickle.RefusedFileError):
            torch_pickle.read(tmp_path / "w.pth")


@pytest.mark.parity
def test_weights_are_found_beside_other_things_and_never_guessed(tmp_path):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    tensors, others = ({name: torch.full((2,), value) for name in "ab"} for value in (1.0, 2.0))
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0]}]}
    for stored in (
        tensors,
        {"state_dict": tensors, "epoch": 1, "optimizer": optimizer},
        {"checkpoint": {"model": tensors, "optimizer": optimizer}},
        {"model": tensors, "net": tensors},  # the same under two names
    ):
        torch.save(stored, path)
        found = torch_pickle.read(path)
        assert list(found) == ["a", "b"]
        np.testing.assert_array_equal(found["b"], [1, 1])
    for average in ("ema", "model_ema", "state_dict_ema"):
        torch.save({"state_dict": others, average: tensors}, path)
        found, place = torch_pickle.read_set(path)
        assert place == average
        np.testing.assert_array_equal(found["b"], [1, 1])
    torch.save({"state_dict": tensors, "teacher": others}, path)
    with pytest.raises(torch_pickle.RefusedFileError, match="several sets of weights .state_dict, teacher."):
        torch_pickle.read(path)
    torch.save({"epoch": 1, "loss": 0.5}, path)
    with pytest.raises(torch_pickle.RefusedFileError, match="no weights, only epoch, loss"):
        torch_pickle.read(path)
