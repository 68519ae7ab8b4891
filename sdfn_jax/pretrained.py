"""Converts a weights file of any source into one compact file, or into the run folder of a classifier.

python -m sdfn_jax.pretrained densenet121-a639ec97.pth --output=weights/imagenet.safetensors
python -m sdfn_jax.pretrained chexnet.pth.tar --classes=classes.txt --config=configs/classifier.py:entire

The first is for --config.pretrained. The second makes a network fine-tuned elsewhere an extractor of this project,
which every command reads as if it had been trained here; its workdir must be new.
"""

from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import config_flag, errors
from sdfn_jax.core.arguments import Parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.pretrained") -> None:
    """Reads the file, describes it, and writes the requested output."""
    parser = Parser(
        prog,
        description="Converts a weights file (PyTorch, Keras, safetensors) into one compact file, or into the run "
        "folder of an extractor.",
        examples="examples:\n  %(prog)s densenet121-a639ec97.pth --output=weights/imagenet.safetensors\n"
        "  %(prog)s chexnet.pth.tar --classes=classes.txt --config=configs/classifier.py:entire",
    )
    parser.add_argument(
        "weights",
        metavar="FILE",
        help="the weights file, recognised by its content; or hf://owner/name/file[@revision] on the Hugging Face hub",
    )
    parser.add_argument("--output", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--classes",
        help="the classifier's outputs, in the file's order: names separated by commas, or a text file with a name on "
        "each line; - for an output without meaning",
    )
    config_flag.add(parser, "configs/classifier.py:entire or :lung: write a run folder of this extractor")
    options, config = config_flag.parse(parser, arguments)
    if options.output is None and config is None:
        parser.error("nothing to write: give --output=FILE.safetensors, or --config=configs/classifier.py:entire")
    if options.output is not None and options.output.suffix != ".safetensors":
        parser.error(f"--output={options.output}: the name must end with .safetensors")

    from sdfn_jax.models import backbones  # here and below, so that --help needs no JAX
    from sdfn_jax.models.weights import weights_file
    from sdfn_jax.training import imported

    model = backbones.build(backbones.PAPERS, {}) if config is None else backbones.from_config(config)
    classes = None if options.classes is None else weights_file.parse_classes(options.classes)
    found = weights_file.load_weights(options.weights, model, classes)
    print(found.describe())
    if options.output is not None:
        weights_file.save(options.output, found)
        print(options.output)
    if config is not None:
        imported.write_run(config, found)
        print(config.workdir)


if __name__ == "__main__":
    errors.run_as_process(main)
