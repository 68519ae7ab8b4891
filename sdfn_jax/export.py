"""A trained stage for other programs: .safetensors for PyTorch, .stablehlo for XLA, .onnx for onnxruntime and others.

python -m sdfn_jax.export --run=runs/fusion --output=sdfn.onnx

What is written is read back and compared with the checkpoint before it gets its name: the weights bit for bit, the
networks by the probabilities they give. Preprocessing and class names are inside: the networks take grey levels (uint8,
0 to 255) of `size` x `size` pixels for each branch, and return the probabilities of the findings.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()


from absl import app, flags, logging

from sdfn_jax.core import jit_cache
from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.inference.formats import export

_RUN = flags.DEFINE_string("run", None, "The folder of a trained stage, such as runs/fusion.")
_OUTPUT = flags.DEFINE_string("output", None, "What to write: its ending chooses .safetensors, .stablehlo or .onnx.")


def main(argv: list[str]) -> None:
    """Writes the file that --output names."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is a flag: --run=FOLDER --output=FILE")
    jit_cache.use_cache()
    print(export(_RUN.value, _OUTPUT.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["run", "output"])
    run_command(lambda: app.run(main))
