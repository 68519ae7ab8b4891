"""The restricted reader against files that PyTorch wrote, and against files that nobody should have written."""

import collections
import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from peers import import_peer

from sdfn_jax.pretrained import torch_file

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
    ours, theirs = torch_file.read_objects(path), torch.load(path, weights_only=True)
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
        with pytest.raises(torch_file.RefusedFileError):
            torch_file.state_dict(torch_file.read_objects(path))


@pytest.mark.parity
def test_damaged_numbers_of_a_zip_file_are_noticed(tmp_path):
    torch, path = import_peer("torch"), tmp_path / "w.pth"
    torch.save({"a": torch.ones(300)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(np.ones(300, np.float32).tobytes())
    content[place + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(torch_file.RefusedFileError, match="not a whole PyTorch file.*CRC"):
        torch_file.read_objects(path)


def test_torchscript_is_refused_with_its_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", pickle.dumps({}, 2))
        archive.writestr("script/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(torch_file.RefusedFileError, match="TorchScript"):
        torch_file.read_objects(tmp_path / "script.pt")


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
    "dotted name": lambda folder: f"ctorch._utils\nos.system\n(S'touch {folder}/pwned'\ntR.".encode(),
}


@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_file_does_nothing_and_is_named(tmp_path, write, attack):
    stored = ATTACKS[attack](tmp_path)
    write(tmp_path / "w.pth", stored)
    with pytest.raises(torch_file.RefusedFileError, match="asks to run .*refused, nothing was run"):
        torch_file.read_objects(tmp_path / "w.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
    assert CALLED == []


def test_the_attacks_are_real(tmp_path):
    write_zip(tmp_path / "w.pth", ATTACKS["system"](tmp_path))
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert (tmp_path / "pwned").exists()


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes: on what the file is handed, which is its own."""
    before = dict(vars(torch_file.Shell)), dict(vars(torch_file._rebuild_tensor))
    for name in ("numpy\ndtype", "torch._utils\n_rebuild_tensor_v2", "some.module\nNetwork"):
        write_zip(tmp_path / "w.pth", f"c{name}\n(N(dS'__doc__'\nS'changed'\nstb.".encode())
        with contextlib.suppress(torch_file.RefusedFileError):
            torch_file.read_objects(tmp_path / "w.pth")
        assert (dict(vars(torch_file.Shell)), dict(vars(torch_file._rebuild_tensor))) == before


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path):
    """Strides are numbers in the file: they must not read memory that is not the file's."""
    storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    for offset, shape, strides in ((0, 5, 1), (3, 2, 1), (0, 2, 9), (-1, 2, 1), (0, 2, -1)):
        tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n(I{shape}\nt(I{strides}\ntI00\nNtR."
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
            archive.writestr("archive/data.pkl", tensor.encode())
            archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
        with pytest.raises(torch_file.RefusedFileError, match="reaches beyond its 4 numbers"):
            torch_file.read_objects(tmp_path / "w.pth")


def test_other_files_are_refused(tmp_path):
    for content in (b"", b"<html>", b"\x80\x02K\x01.", b"\x00" * 100):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(torch_file.RefusedFileError):
            torch_file.read_objects(tmp_path / "w.pth")


def test_weights_are_found_beside_other_things_and_never_guessed():
    array = np.zeros(2)
    weights = {"a": array}
    for stored in (weights, {"state_dict": weights, "epoch": 1, "optimizer": {"state": {0: {"exp_avg": array}}}}):
        assert torch_file.state_dict(stored) is weights
    with pytest.raises(torch_file.RefusedFileError, match="several sets of weights .state_dict, ema."):
        torch_file.state_dict({"state_dict": weights, "ema": {"b": array}})
    with pytest.raises(torch_file.RefusedFileError, match="no weights, only epoch, loss"):
        torch_file.state_dict({"epoch": 1, "loss": 0.5})
