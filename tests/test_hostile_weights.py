"""Weights files that are damaged, or made to take all time and memory: refused in a sentence, soon."""

import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from densenet_peers import SMALL
from safetensors.numpy import save_file
from test_torch_file import write_zip
from test_weights import tensors_of

from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.weights import bounds, keras, weights_file

MODEL = DenseNet(**SMALL)
GOLDEN = Path(__file__).parent / "golden"
SECONDS, BYTES = 10, 300 * 2**20  # ten times what a file takes on a free machine


def empty_arrays(path):
    """1,000 arrays that are declared and not written: 5 kB each of file, 8 MB each of memory."""
    with h5py.File(path, "w") as file:
        for number in range(1000):
            file.create_dataset(f"layer_{number}/kernel", (1000, 1000), "f8")


def packed_array(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a/kernel", (2**16, 2**16), "f4", chunks=(2**10, 2**10), compression="gzip")


def large_chunk(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a/kernel", (1,), "f4", chunks=(2**29,), maxshape=(None,))
        assert made.chunks == (2**29,)


def many_groups(path):
    with h5py.File(path, "w") as file:
        for number in range(bounds.MOST_TENSORS + 1):
            file.create_group(f"g{number}")


def endless_keras(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(keras.WEIGHTS_ENTRY, "w") as entry:
        for _ in range(bounds.LARGEST_CONTENT // 2**24 + 1):
            entry.write(bytes(2**24))


def packed_pickle(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(bounds.LARGEST_PICKLE // 2**24 + 1):
            entry.write(bytes(2**24))


def many_entries(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(bounds.LARGEST_DIRECTORY // 60):
            archive.writestr(f"archive/data/{number:08}", b"")


def shared_numbers(path):
    """One number, seen as 2**40 of them."""
    tensor = (
        "ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1\ntQ"
        "I0\n(I1099511627776\nt(I0\ntI00\nNtR"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", f"(dS'a'\n{tensor}s.")
        archive.writestr("archive/data/0", bytes(4))


def sparse_file(path):
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(3 * 2**30)


def modules(path):
    """A network of 60 levels, each of which holds the one below it twice: 2**60 modules."""
    text = "cnet\nModule\n)\x81(dS'_modules'\n(dsb"
    for number in range(60):
        text = f"{text}p{number}\n0cnet\nModule\n)\x81(dS'_modules'\n(dS'a'\ng{number}\nsS'b'\ng{number}\nssb"
    write_zip(path, b"\x80\x02" + text.encode("latin-1") + b".")


def doubled_lists(path):
    """[[...] [...]] with each list the one below it twice: 2**60 of them."""
    write_zip(path, b"]" + b"".join(b"p%d\n0(g%d\ng%d\nl" % (number, number, number) for number in range(60)) + b".")


HOSTILE = {
    "declared arrays": empty_arrays,
    "a packed array": packed_array,
    "a large chunk": large_chunk,
    "many groups": many_groups,
    "a packed .keras": endless_keras,
    "a packed pickle": packed_pickle,
    "many entries": many_entries,
    "shared numbers": shared_numbers,
    "a file of 3 GB": sparse_file,
    "modules in modules": modules,
    "lists in lists, doubled": doubled_lists,
    "lists in lists": lambda path: write_zip(path, b"(" * 150_000 + b"l" * 150_000 + b"."),
    "very many lists": lambda path: write_zip(path, b"]" * 3_000_000 + b"."),
    "a tuple too deep to hash": lambda path: write_zip(path, b"}" + b")" + b"\x85" * 350_000 + b"Ns."),
    "a memo of 2**31": lambda path: write_zip(path, b"]r\xff\xff\xff\x7f."),
    "a text of 2**60": lambda path: write_zip(path, b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"."),
    "bytes of 2**40": lambda path: write_zip(path, b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"."),
    "a stream of lists": lambda path: path.write_bytes(b"\x80\x02" + b"]" * 5_000_000),
    "a header of 99 MB": lambda path: path.write_bytes((99_000_000).to_bytes(8, "little") + b"{" + b" " * 99_000_000),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a process of its own says of each file: {name: (message, seconds, bytes by which it has grown)}."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, write in enumerate(HOSTILE.values()):
        write(folder / str(number))
    program = f"""
        import json, resource, time
        from sdfn_jax.models.densenet import DenseNet
        from sdfn_jax.models.weights import weights_file
        memory = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range({len(HOSTILE)}):
            before, start = memory(), time.monotonic()
            try:
                said = str(weights_file.read(f"{folder}/{{number}}", DenseNet()))
            except ValueError as error:
                said = str(error)
            print(json.dumps([said, time.monotonic() - start, memory() - before]), flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(HOSTILE, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_file_made_to_take_everything_is_refused_soon(told, hostile):
    message, seconds, grown = told[hostile]
    print(f"{seconds:.2f} s, {grown / 2**20:.0f} MiB: {message}")
    path, _, reason = message.partition(": ")
    assert path.endswith(f"/{list(HOSTILE).index(hostile)}")
    assert reason and len(reason) < 300 and "\n" not in reason
    assert seconds < SECONDS
    assert grown < BYTES


def sound_files(folder):
    """Small files of every format."""
    save_file(tensors_of(14), folder / "a.safetensors")
    weights_file.save(
        folder / "ours.safetensors", weights_file.read(folder / "a.safetensors", MODEL, [*"abcdefghijklmn"])
    )
    named = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("chexnet.pth.tar", "torchxrayvision.pt", "keras.h5"):
        named[name] = (GOLDEN / name).read_bytes()
    return named


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Returns a file with some bytes changed, most of them at its beginning or end, or a piece lost."""
    data = bytearray(content)
    if generator.random() < 0.2:
        start = int(generator.integers(len(data)))
        del data[start : start + int(generator.integers(1, 2000))]
    for _ in range(generator.integers(1, 12)):
        near = min(len(data), int(generator.choice([100, 2000, len(data)])))
        place = int(generator.integers(near))
        data[place if generator.random() < 0.7 else -place - 1] = int(generator.integers(256))
    return bytes(data)


KINDS = ("a.safetensors", "ours.safetensors", "chexnet.pth.tar", "torchxrayvision.pt", "keras.h5")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, kind):
    sound = sound_files(tmp_path)[kind]
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        path = tmp_path / "w"
        path.write_bytes(damaged(sound, generator))
        try:
            weights_file.read(path, MODEL)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert len(str(error)) < 5000
    assert refused > 10
