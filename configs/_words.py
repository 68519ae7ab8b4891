"""The words after a config's name, separated by commas: `configs/fusion.py:size512,montgomery`.

* `demo`: tiny networks on synthetic radiographs, in minutes.
* `small`: real films, whole or in part, at 128 x 128 pixels, with few epochs and a narrow U-Net.
* `size448`, `size512`: the paper's recipe, with only the size of the classifiers' images changed. The paper's 224 x 224
  pixels of a lung region are worth about as many per lung as an entire radiograph at 290 to 320: these runs tell what
  the lung region adds from what the pixels add.
* `modern`: what came after the paper, for comparison (`classifier.py` lists it): 512 pixels if no other size is named,
  AdamW, warm-up and cosine, a moving average, crops, turns and exposure, test-time flips, bfloat16.
* `convnext_tiny`, `convnext_base`: another network than the paper's DenseNet-121, from its own ImageNet weights.
* `finetuned` (the fusion's alone): after the paper's fusion, both branches and the head are trained on together.
* `montgomery`: lungs learned from open data instead of JSRT.
* `shipped_lungs`: lungs found by the network that comes with the package, instead of training one.
* `own`, `chexpert`, `mimic_cxr`, `brax`, `padchest`, `vindr_cxr`, `rsna_pneumonia`, `siim_pneumothorax`: your own films
  and findings (docs/own_data.md), or that set, instead of ChestX-ray14. Lungs are found by the network of the package,
  unless a word says otherwise. Runs are in `runs/own`, ...

Whatever trains another classifier has a folder of its own, `runs/size512/entire`; lungs, their boxes and the prepared
data are shared.
"""

from collections.abc import Collection

from tfds_builders import registry

SIZES = {"small": 128, "size448": 448, "size512": 512}  # pixels, height and width of both images
# Of each group at most one word is taken: the demo draws its films, at its own size.
PAPERS_DATA = "chestxray14"
_DATA = tuple(name for name in registry.serving("fusion") if name != PAPERS_DATA)
BACKBONES = ("convnext_tiny", "convnext_base")
GROUPS = (("demo", *SIZES), ("demo", "montgomery", "shipped_lungs"), ("demo", *_DATA), ("modern",), BACKBONES)
_OTHER_CLASSIFIER = (*BACKBONES, "modern", "size448", "size512")


def read(argument: str, file: str, *groups: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the words of a config's argument, in the order in which the groups list them.

    Args:
      argument: what follows the colon; empty for none.
      file: the config, for the message.
      groups: the words there are, in groups of which at most one word is taken.

    Raises:
      ValueError: for a word that is unknown or given twice, or for two words of a group.
    """
    given = argument.split(",") if argument else []
    known = dict.fromkeys(word for group in groups for word in group)
    if len({*given}) < len(given) or {*given} - {*known} or any(len({*given} & {*group}) > 1 for group in groups):
        shown = "; ".join(" or ".join(group) for group in groups)
        raise ValueError(
            f"{file} takes words separated by commas, at most one of each group: {shown}; not {argument!r}"
        )
    return tuple(word for word in known if word in given)


def runs(words: Collection[str]) -> str:
    """Returns the folder of all stages' runs."""
    return "/".join(["runs", *(word for word in ("demo", *_DATA, "small") if word in words)])


def folder(words: Collection[str]) -> str:
    """Returns the folder, below that of all runs, of the classifiers that these words change: `/size512`, or empty."""
    changed = [word for word in _OTHER_CLASSIFIER if word in words]
    return "/" + "-".join(changed) if changed else ""


def lungs(words: Collection[str]) -> str:
    """Returns the argument of `configs/lungs.py`'s `of_job`."""
    paper_or_package = "jsrt" if data(words) == PAPERS_DATA else "shipped_lungs"
    return next((word for word in GROUPS[1] if word in words), paper_or_package)


def data(words: Collection[str]) -> str:
    """Returns the name of the classifiers' data set."""
    return next((word for word in _DATA if word in words), PAPERS_DATA)
