"""A page of heatmaps laid over their radiographs, in the spirit of Figure 9. No JAX."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import palette
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.heatmaps import cam
from sdfn_jax.radiographs.findings import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Dashes distinguish them in greyscale print.
_LUNG_BOX = {"edgecolor": palette.LUNG_BOX, "linestyle": "--"}
_REFERENCE_BOX = {"edgecolor": palette.REFERENCE_BOX, "linestyle": "-"}
_MARGIN = 0.1  # inches around a page
_COLUMNS = ("Radiograph", "Entire CXR", "Lung region", "SDFN (sum)")


@dataclasses.dataclass(frozen=True)
class FindingMaps:
    """One finding on one radiograph, with its two maps.

    Attributes:
      image: file name of the radiograph.
      radiograph: (H, W) uint8.
      finding: its name.
      probability: of the fusion network, 0 to 1.
      label: 0 or 1.
      lung_box: (left, top, right, bottom) in the radiograph's pixels.
      reference_boxes: of this finding, (left, top, right, bottom) each; may be none.
      entire: (h, w) float, the finding's activation map of the entire image.
      lung: (h, w) float, the one of the lung region.
    """

    image: str
    radiograph: np.ndarray
    finding: str
    probability: float
    label: int
    lung_box: tuple[int, int, int, int]
    reference_boxes: Sequence[tuple[float, float, float, float]]
    entire: np.ndarray
    lung: np.ndarray

    def fused(self) -> np.ndarray:
        """Returns the sum of both maps on the radiograph (`cam.on_radiograph`), (H, W) float32, not rescaled."""
        return cam.on_radiograph({"entire": self.entire, "lung": self.lung}, self.lung_box, self.radiograph.shape)


def heatmap_page(path: str | Path, cases: Sequence[FindingMaps], *, drawings: bool) -> None:
    """Draws a row for each case: the radiograph with its boxes, the entire map, the lung map, their sum.

    Each map is rescaled on its own, its smallest value to 0 and its largest to 255 however small the probability:
    colours compare places within a picture, not pictures. The lung map shows only inside the lung box.

    Args:
      path: of the picture; its suffix chooses the format (`.png`).
      cases: at least one.
      drawings: whether the images are synthetic; the page then says so.

    Raises:
      ValueError: for no case, or a lung box outside its radiograph.
    """
    from matplotlib.cm import ScalarMappable  # imported here: slow to import
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    if not cases:
        raise ValueError("no case to draw")
    figure = Figure(figsize=(12.5, 2.8 * len(cases) + 1), dpi=100, layout="compressed")
    panels = figure.subplots(len(cases), len(_COLUMNS), squeeze=False)
    for panel, name in zip(panels[0], _COLUMNS, strict=True):
        panel.set_title(name, fontsize=12)
    for row, case in zip(panels, cases, strict=True):
        _draw_case(row, case)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 255), palette.HEATMAP), ax=panels, shrink=0.6, aspect=40, ticks=(0, 60, 180, 255)
    )
    bar.set_label("heatmap, each map rescaled to 0-255")
    figure.legend(handles=_box_legend(cases), loc="outside lower center", ncols=2, frameon=False)
    if drawings:
        figure.suptitle("SYNTHETIC radiographs, not films of patients", color=palette.WARNING)
    _save(figure, path)


def figure_nine(
    path: str | Path, cases: Sequence[FindingMaps], traditional: Sequence[np.ndarray], *, drawings: bool
) -> None:
    """Draws a column for each case: the traditional map above, the SDFN's below, both on the radiograph (Figure 9).

    Args:
      path: of the picture; its suffix chooses the format (`.png`).
      cases: at least one.
      traditional: (h, w) float for each case, its finding's activation map by the network of entire images alone.
      drawings: whether the images are synthetic; the page then says so.

    Raises:
      ValueError: for no case, or a lung box outside its radiograph.
    """
    from matplotlib.figure import Figure

    if not cases:
        raise ValueError("no case to draw")
    figure = Figure(figsize=(2.9 * len(cases) + 0.6, 7), dpi=100, layout="compressed")
    panels = figure.subplots(2, len(cases), squeeze=False)
    for column, case, heatmap in zip(panels.T, cases, traditional, strict=True):
        size = case.radiograph.shape
        whole = (0, 0, *size[::-1])
        _draw_panel(column[0], case, (whole, cam.resize_map(heatmap, size)))
        _draw_panel(column[1], case, (whole, case.fused()))
        column[0].set_title(f"{display_name(case.finding)}\n{PurePath(case.image).name}", fontsize=10)
    panels[0, 0].set_ylabel("Traditional (entire CXR)", fontsize=11)
    panels[1, 0].set_ylabel("SDFN", fontsize=11)
    figure.legend(handles=_box_legend(cases), loc="outside lower center", ncols=2, frameon=False)
    if drawings:
        figure.suptitle("SYNTHETIC radiographs, not films of patients", color=palette.WARNING)
    _save(figure, path)


def _save(figure: "Figure", path: str | Path) -> None:
    """Saves a page without its empty margins.

    The layout takes a pass of its own over all artists. The images have no part in it, and to resample them is most of
    the work: they are hidden until it is done.
    """
    images = [image for panel in figure.axes for image in panel.images]
    for image in images:
        image.set_visible(False)
    figure.draw_without_rendering()
    for image in images:
        image.set_visible(True)
    figure.set_layout_engine(None)  # "none" would keep a placeholder, for which savefig makes the same pass again
    with appears_when_complete(path) as unfinished:
        figure.savefig(unfinished, dpi=figure.dpi, bbox_inches=figure.get_tightbbox().padded(_MARGIN))


def _box_legend(cases: Sequence[FindingMaps]) -> list:
    from matplotlib.patches import Patch

    kinds = {"lung box": _LUNG_BOX}
    if any(len(case.reference_boxes) for case in cases):
        kinds["reference box of the finding"] = _REFERENCE_BOX
    return [Patch(fill=False, linewidth=1.5, label=label, **style) for label, style in kinds.items()]


def _draw_case(row: Sequence["Axes"], case: FindingMaps) -> None:
    height, width = case.radiograph.shape
    left, top, right, bottom = case.lung_box
    whole = (0, 0, width, height)
    overlays = (
        None,
        (whole, cam.resize_map(case.entire, (height, width))),
        (case.lung_box, cam.resize_map(case.lung, (bottom - top, right - left))),
        (whole, case.fused()),
    )
    for panel, overlay in zip(row, overlays, strict=True):
        _draw_panel(panel, case, overlay)
    row[0].set_ylabel(
        f"{display_name(case.finding)}\np = {case.probability:.3f}, label {case.label}\n{PurePath(case.image).name}",
        fontsize=10,
    )


def _draw_panel(panel: "Axes", case: FindingMaps, overlay: tuple[tuple[float, ...], np.ndarray] | None) -> None:
    """Draws the radiograph, a heatmap over a part of it, and the boxes."""
    from matplotlib.patches import Rectangle

    height, width = case.radiograph.shape
    panel.imshow(case.radiograph, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    if overlay is not None:
        (x0, y0, x1, y1), heatmap = overlay
        heatmap = cam.rescale(heatmap)
        alpha = palette.HEATMAP_STRENGTH * heatmap / 255
        panel.imshow(heatmap, cmap=palette.HEATMAP, vmin=0, vmax=255, alpha=alpha, extent=(x0, x1, y1, y0))
    for (x0, y0, x1, y1), style in (
        (case.lung_box, _LUNG_BOX),
        *((box, _REFERENCE_BOX) for box in case.reference_boxes),
    ):
        panel.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=1.5, **style))
    panel.set(xticks=(), yticks=(), xlim=(0, width), ylim=(height, 0))
