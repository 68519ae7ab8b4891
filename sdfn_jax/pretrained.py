"""Converts a weights file of any source into one compact file, or into the run folder of a classifier.

python -m sdfn_jax.pretrained densenet121-a639ec97.pth --output=weights/imagenet.safetensors
python -m sdfn_jax.pretrained chexnet.pth.tar --classes=classes.txt --config=configs/classifier.py:entire

The first is for --config.pretrained. The second makes a network fine-tuned elsewhere an extractor of this project,
which --mode=evaluate reads as if it had been trained here; its workdir must be new.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

from pathlib import Path

from absl import app, flags, logging

from sdfn_jax.core import config_flag
from sdfn_jax.core.errors import UserError, run_command

_OUTPUT = flags.DEFINE_string("output", None, "The .safetensors file to write.")
_CLASSES = flags.DEFINE_string(
    "classes",
    None,
    "What the classifier's outputs are, in the file's order: names with commas between, or a text file with a name on "
    "each line; - for an output without meaning.",
)
_CONFIG = config_flag.define("configs/classifier.py:entire or :lung - write a run folder of this extractor.")


def main(argv: list[str]) -> None:
    """Reads the file, says what it is, and writes what was asked for."""
    logging.set_verbosity(logging.WARNING)
    from sdfn_jax.models.densenet import DenseNet
    from sdfn_jax.models.weights import weights_file
    from sdfn_jax.training import imported

    if len(argv) != 2:
        raise UserError(f"one weights file is wanted, {len(argv) - 1} were given: see --help")
    if _OUTPUT.value is None and _CONFIG.value is None:
        raise UserError("nothing to write: give --output=FILE.safetensors, or --config=configs/classifier.py:entire")
    if _OUTPUT.value is not None and Path(_OUTPUT.value).suffix != ".safetensors":
        raise UserError(f"--output={_OUTPUT.value}: the name must end with .safetensors")
    model = None if _CONFIG.value is None else DenseNet(**_CONFIG.value.model.to_dict())
    try:
        classes = None if _CLASSES.value is None else weights_file.parse_classes(_CLASSES.value)
        found = weights_file.read(argv[1], model, classes)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(found.describe())
    if _OUTPUT.value is not None:
        weights_file.save(_OUTPUT.value, found)
        print(_OUTPUT.value)
    if _CONFIG.value is not None:
        imported.write_run(_CONFIG.value, found)
        print(_CONFIG.value.workdir)


if __name__ == "__main__":
    run_command(lambda: app.run(main, flags_parser=config_flag.parse))
