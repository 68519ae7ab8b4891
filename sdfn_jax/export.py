"""A trained stage for other programs: .safetensors for PyTorch, .stablehlo for XLA, .onnx for onnxruntime and others.

python -m sdfn_jax.export --run=runs/fusion --output=sdfn.onnx
python -m sdfn_jax.export --run=runs/fusion --output=sdfn.zip      (for people with sdfn_jax: everything, and a card)

The file is read back and compared with the checkpoint before it gets its name: weights bit for bit, networks by their
probabilities. Preprocessing and class names are inside: the networks take grey levels (uint8, 0 to 255) of `size` x
`size` pixels for each branch, and return the probabilities of the findings.
"""

from collections.abc import Sequence

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import Parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.export") -> None:
    """Writes the file that --output names."""
    parser = Parser(
        prog,
        description="Writes a trained stage for other programs, and compares the file with the checkpoint.",
        examples="example:\n  %(prog)s --run=runs/fusion --output=sdfn.onnx",
    )
    parser.add_argument("--run", required=True, help="run folder of a trained stage, such as runs/fusion")
    parser.add_argument(
        "--output",
        required=True,
        help="the file: its ending is .safetensors, .stablehlo or .onnx; or .zip, for --checkpoint and sdfn_jax.load",
    )
    options = parser.parse_args(arguments)

    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.inference import formats, one_file, publish

    jit_cache.use_cache()
    write = publish.publish if options.output.endswith(one_file.ENDING) else formats.export
    print(write(options.run, options.output))


if __name__ == "__main__":
    errors.run_as_process(main)
