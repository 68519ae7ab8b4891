"""Draws a frontal chest film with known lungs, findings and boxes; nothing here comes from a patient.

A drawing is a map of density (0 = air, about 1 = bone and abdomen) built from outlines in a body frame: x runs from
-1 to 1 towards the image's right (the patient's LEFT), y from 0 at the top to 2 at the bottom, so 1 unit is 512 pixels
of a 1024 x 1024 film. The film's own rotation, shift, zoom and exposure come last.

Each of the 14 findings has one look, simpler and more frequent than in life: good for showing that a pipeline learns,
useless for judging how well it reads real radiographs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sdfn_jax.radiographs.findings import FINDINGS, finding_index

FILM_SIDE = 1024
# Outlines are soft, so half the resolution loses nothing visible and costs a quarter.
_CANVAS = FILM_SIDE // 2
_BOX_LEVEL = 0.25  # a finding's box contains all pixels above this share of its strongest one

FindingBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class Drawing:
    """A drawn film and its ground truth.

    Attributes:
      image: (1024, 1024) uint8, bones bright.
      left_lung: (1024, 1024) bool, the patient's left lung, on the image's right. A lung field is complete even
        where a finding (fluid, a collapsed part) hides it.
      right_lung: (1024, 1024) bool, on the image's left.
      boxes: finding -> (left, top, right, bottom), half-open pixels, for every finding drawn.
    """

    image: np.ndarray
    left_lung: np.ndarray
    right_lung: np.ndarray
    boxes: dict[str, FindingBox]


def draw(rng: np.random.Generator, findings: Iterable[str]) -> Drawing:
    """Draws one film.

    New generators with the same seed give the same body and exposure whatever the findings: two such drawings differ
    only in their findings.

    Args:
      rng: the only source of randomness; children are spawned from it.
      findings: names from `findings.FINDINGS`, in any order; empty for a film without findings.

    Raises:
      ValueError: for a name that is not one of the 14.
    """
    wanted = {finding_index(name) for name in findings}
    names = [FINDINGS[index] for index in sorted(wanted)]
    body_rng, film_rng, *finding_rngs = rng.spawn(2 + len(FINDINGS))
    body = _Body(body_rng, names)
    density = _healthy_density(body, body_rng)
    boxes = {}
    for name in names:
        change = _CHANGES[name](body, finding_rngs[finding_index(name)])
        density += change
        boxes[name] = _box(np.abs(change))
    left_lung, right_lung = body.lung_masks()
    return Drawing(_expose(density, film_rng), left_lung, right_lung, boxes)


def _smooth(distance: np.ndarray, width: float) -> np.ndarray:
    """Returns 0 outside, 1 inside, with a linear edge of `width` around distance 0."""
    return np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)


def _round(share: np.ndarray) -> np.ndarray:
    """Turns a linear edge into one that starts and ends gently."""
    return share * share * (3 - 2 * share)


def _bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Returns a bell of height 1 around `centre`."""
    return np.exp(-0.5 * ((x - np.float32(centre)) / np.float32(width)) ** 2)


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)  # several times the speed of np.hypot


def _upscale(canvas: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(canvas).resize((side, side), Image.Resampling.BILINEAR))


class _Body:
    """One body's outlines, and the body coordinates of every pixel of the canvas (float32 (512, 512) arrays).

    Attributes:
      x, y: body coordinates.
      out: distance from the midline.
      left: True on the patient's left.
      down: height in the lung, 0 at the apex, 1 at the costophrenic angle.
      across: 0 at the lung's medial border, 1 at its lateral border.
      under: distance below the diaphragm, negative above.
      depth: distance from the outer wall and the apex, positive towards the inside.
      inside: distance from the lung's outline, positive inside.
      lung: 1 in the lung fields, 0 outside, soft at the edge.
      vessels: density of the lung vessels.
    """

    def __init__(self, rng: np.random.Generator, findings: list[str]):
        uniform = rng.uniform

        def pair(low, high):  # (patient's right, patient's left)
            return rng.uniform(low, high, 2).astype(np.float32)

        self._angle = np.deg2rad(uniform(-5, 5))
        self._zoom = uniform(0.86, 1.06)
        self._shift = uniform(-0.07, 0.07), uniform(-0.06, 0.08)
        self.apex = uniform(0.2, 0.28) + pair(-0.02, 0.02)
        self.base = uniform(1.42, 1.62) + pair(-0.02, 0.02) - np.float32([0.025, 0])
        self.dome = pair(0.12, 0.24)
        self.width = uniform(0.64, 0.76) + pair(-0.02, 0.02)
        self.apex_out = uniform(0.24, 0.30)
        self.mediastinum = uniform(0.12, 0.17)
        self.knob = uniform(0.03, 0.08)
        self.heart_x = uniform(0.08, 0.13)
        self.heart_width = uniform(0.25, 0.31)
        self.heart_height = uniform(0.36, 0.44)
        self.air = uniform(0.33, 0.43)  # how much darker a lung is than the tissue around it
        self.torso = uniform(0.84, 1.15)
        self.neck = uniform(0.22, 0.3)
        self.shoulder = uniform(0.0, 0.15)
        self.breast = uniform(0.05, 0.11) * (uniform() < 0.4)
        # The side that loses volume; chosen here because it moves the outlines.
        self.collapsed_left = bool(rng.integers(2))
        if "Emphysema" in findings:
            self.base += 0.14
            self.dome *= 0.15
            self.width += 0.03
            self.heart_width *= 0.85
        if "Cardiomegaly" in findings:
            self.heart_width = 0.62 * float(self.width.mean()) + 0.1 * (self.heart_width - 0.28)
        if "Atelectasis" in findings:
            self.base[int(self.collapsed_left)] -= 0.2
        self.heart_y = self.base.min() - 0.75 * self.heart_height

        self.x, self.y = self._grid()
        self.out = np.abs(self.x)
        self.left = self.x > 0
        top, bottom = self._of_side(self.apex), self._of_side(self.base)
        self.down = (self.y - top) / (bottom - top)
        medial, lateral = self.borders(self.down, self.y, self.left)
        self.across = (self.out - medial) / np.maximum(lateral - medial, 0.01)
        floor_x = np.maximum(self.out - self.mediastinum, 0) / (self._of_side(self.width) - self.mediastinum)
        floor = bottom - self._of_side(self.dome) * (1 - ((floor_x - 0.42) / 0.58) ** 2)
        self.under = self.y - floor  # positive below the diaphragm
        self.depth = np.minimum(lateral - self.out, self.y - top)
        self.inside = np.minimum(np.minimum(self.out - medial, -self.under), self.depth)
        self.lung = _smooth(self.inside, 0.012)
        self.vessels = self._vessels(rng) * self.lung

    def borders(self, down, y, left):
        """Returns the distance of the medial and the lateral lung border from the midline; numbers or arrays."""
        outward = np.clip(down / 0.6, 0, 1)
        width = np.where(left, self.width[1], self.width[0])
        lateral = self.apex_out + (width - self.apex_out) * np.sqrt(1 - (1 - outward) ** 2.2)
        inward = np.clip(down / 0.22, 0, 1)
        medial = self.apex_out - (self.apex_out - self.mediastinum) * np.sqrt(1 - (1 - inward) ** 2)
        medial = medial + self.knob * _bump(down, 0.27, 0.05) * left
        above = np.maximum(self.heart_y - y, 0)  # the heart rests on the diaphragm: no lung below it
        heart = np.sqrt(np.clip(1 - (above / self.heart_height) ** 2, 0, 1)) * self.heart_width
        return np.maximum(medial, heart + np.where(left, *np.float32([self.heart_x, -self.heart_x]))), lateral

    def point(self, rng: np.random.Generator, down: tuple[float, float], across: tuple[float, float]) -> tuple:
        """Returns x and y of a random point in a random lung, between the given heights and shares of its width."""
        left = bool(rng.integers(2))
        height = rng.uniform(*down)
        apex, base = self.apex[int(left)], self.base[int(left)]
        y = apex + height * (base - apex)
        medial, lateral = self.borders(height, y, left)
        out = medial + rng.uniform(*across) * (lateral - medial)
        return (out if left else -out), y

    def distance(self, x: float, y: float) -> np.ndarray:
        """Returns every pixel's distance from a point."""
        return _length(self.x - np.float32(x), self.y - np.float32(y))

    def one_lung(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the soft field of a random lung."""
        return self.lung * (self.left == bool(rng.integers(2)))

    def to_pixel(self, x, y):
        """Returns the canvas column and row of a point."""
        cos, sin = np.cos(self._angle) * self._zoom, np.sin(self._angle) * self._zoom
        column = cos * x - sin * (y - 1) + self._shift[0] + 1
        row = sin * x + cos * (y - 1) + self._shift[1] + 1
        return column * _CANVAS / 2, row * _CANVAS / 2

    def lung_masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the left and the right lung field, (1024, 1024) bool."""
        outline, left = (
            _upscale(np.uint8(255 * _smooth(edge, 0.05)), FILM_SIDE) > 127 for edge in (self.inside, self.x)
        )
        return outline & left, outline & ~left

    def _of_side(self, pair: np.ndarray) -> np.ndarray:
        return np.where(self.left, pair[1], pair[0])

    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        place = (np.arange(_CANVAS, dtype=np.float32) + 0.5) * (2 / _CANVAS) - 1
        column = (place - self._shift[0])[None, :].astype(np.float32)
        row = (place - self._shift[1])[:, None].astype(np.float32)
        cos, sin = np.float32(np.cos(self._angle) / self._zoom), np.float32(np.sin(self._angle) / self._zoom)
        return cos * column + sin * row, cos * row - sin * column + 1

    def _vessels(self, rng: np.random.Generator) -> np.ndarray:
        sheet = Image.new("L", (_CANVAS, _CANVAS))
        pen = ImageDraw.Draw(sheet)
        steps = 9
        for left in (False, True):
            sign = 1 if left else -1
            hilum_y = self.apex[int(left)] + 0.45 * (self.base - self.apex)[int(left)]
            for heading in np.linspace(-1.35, 1.45, 13):
                bends = heading + np.cumsum(rng.normal(0, 0.16, steps))
                length = rng.uniform(0.04, 0.075)
                x = sign * (0.17 + np.cumsum(np.cos(bends)) * length)
                y = hilum_y + np.cumsum(np.sin(bends)) * length
                points = list(zip(*self.to_pixel(x, y), strict=True))
                for step in range(steps - 1):
                    pen.line(points[step : step + 2], fill=230 - 20 * step, width=max(1, 5 - step // 2))
        return np.asarray(sheet.filter(ImageFilter.GaussianBlur(1.2)), np.float32) * np.float32(0.11 / 255)


def _healthy_density(body: _Body, rng: np.random.Generator) -> np.ndarray:
    x, y, out = body.x, body.y, body.out
    # Shoulders slope from the neck; below the armpit the torso is narrower than the shoulders and arms.
    aside = np.maximum(out - body.neck, 0)
    above = y - body.shoulder - 0.22 * (1 - np.exp(-6 * aside)) - 0.12 * aside - 0.25 * aside**4
    flank = body.torso + 0.45 * _round(_smooth(0.85 - y, 0.5)) - out
    skin = np.maximum(np.minimum(above, flank), body.neck - out)
    thickness = np.sqrt(np.clip(1 - (out / (1.25 * body.torso)) ** 2, 0.05, 1))
    tissue = _smooth(skin, 0.03) * (0.22 + 0.42 * thickness * _smooth(skin, 0.4))

    below = _smooth(body.under, 0.02)
    density = tissue + 0.14 * below * _round(_smooth(skin, 0.4))
    density -= np.float32(body.air) * body.lung
    density += body.vessels
    density += 0.10 * _bump(out, 0.2, 0.07) * _bump(body.down, 0.45, 0.1) * body.lung  # hila
    density += 0.12 * _smooth(0.1 - out, 0.04) * (1 + 0.2 * np.cos(y * np.float32(2 * np.pi / 0.12)))  # spine
    density -= 0.10 * _smooth(0.045 - out, 0.03) * _smooth(0.62 - y, 0.1)  # trachea
    density += 0.08 * _smooth(-body.inside, 0.3) * _bump(out, 0, 0.35)  # mediastinum and heart

    density += _ribs(body, rng) * (1 - 0.75 * below)
    share = out / np.float32(0.7)
    collar = body.apex.mean() + rng.uniform(0.08, 0.16) - rng.uniform(0.1, 0.2) * share + 0.03 * np.sin(5 * share)
    density += 0.12 * _smooth(0.026 - np.abs(y - collar), 0.012) * _smooth(0.3 - np.abs(out - 0.36), 0.05)

    # A gastric bubble under the left dome, and breast shadows, if this body has them.
    bubble_x, bubble_y = rng.uniform(0.3, 0.42), body.base[1] + rng.uniform(0.06, 0.14)
    bubble = 1 - _length((x - np.float32(bubble_x)) / 0.16, (y - np.float32(bubble_y)) / 0.07)
    density -= max(rng.uniform(-0.15, 0.2), 0) * _smooth(bubble, 0.3) * below
    breast = 1 - _length(out - 0.42, 1.1 * (y - np.float32(body.base.mean() - 0.3))) / 0.34
    density += np.float32(body.breast) * _smooth(breast, 0.25) * _smooth(y - body.base.mean() + 0.3, 0.5)
    return density.astype(np.float32)


def _ribs(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Posterior ribs slope gently outwards; each turns at the side and returns, steeper, as an anterior rib."""
    spacing = rng.uniform(0.125, 0.15)
    drop = rng.uniform(0.16, 0.26)
    share = np.clip(body.out / np.float32(body.width.mean() + 0.04), 0, 1)
    start = body.y - np.float32(rng.uniform(0, spacing))
    posterior = start - drop * share**1.6
    anterior = start - drop - 0.5 * (1 - share) ** 0.75
    cage = _smooth(body.width.mean() + 0.05 - body.out, 0.03) * _smooth(body.down, 0.1) * _smooth(1.3 - body.down, 0.3)

    def bones(height):
        wave = np.cos(height * np.float32(2 * np.pi / spacing))
        return np.clip(3 * (wave - 0.25), 0, 1) - 0.45 * np.clip(3 * (wave - 0.6), 0, 1)

    lateral = body.out / np.float32(body.width.mean())
    edge = 0.10 * np.clip(lateral - 0.9, 0, 0.1) * 10  # the cage seen edge on
    front = _smooth(share - 0.35, 0.3)  # cartilage near the breastbone does not show
    return cage * (0.085 * bones(posterior) + 0.05 * bones(anterior) * front + edge * (1 - body.lung))


def _expose(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns density into a film: exposure, contrast, side marker, unexposed borders, grain."""
    low, high = rng.uniform(-0.02, 0.1), rng.uniform(0.82, 1.0)
    film = np.clip((density - low) / (high - low), 0, 1) ** np.float32(rng.uniform(0.65, 1.4))
    mottle = rng.standard_normal((_CANVAS // 2, _CANVAS // 2), np.float32)
    film = film * np.float32(rng.uniform(215, 250)) + rng.uniform(1, 3) * _upscale(mottle, _CANVAS)

    row, column = rng.integers(15, 60), rng.integers(440, 480)
    film[row : row + 22, column : column + 4] = 245  # the letter L next to the patient's left
    film[row + 18 : row + 22, column : column + 14] = 245
    if rng.uniform() < 0.3:
        film[:, : rng.integers(0, 20)] = 4
        film[:, _CANVAS - rng.integers(0, 20) :] = 4
        film[_CANVAS - rng.integers(0, 16) :] = 4

    grain = np.frombuffer(rng.bytes(FILM_SIDE * FILM_SIDE), np.uint8).reshape(FILM_SIDE, FILM_SIDE)
    film = _upscale(film, FILM_SIDE) + grain * np.float32(rng.uniform(4, 9) / 255)
    return np.clip(film, 0, 255).astype(np.uint8)


def _box(strength: np.ndarray) -> FindingBox:
    strong = strength > _BOX_LEVEL * strength.max()
    rows, columns = np.flatnonzero(strong.any(1)), np.flatnonzero(strong.any(0))
    scale = FILM_SIDE // _CANVAS
    return (
        int(columns[0]) * scale,
        int(rows[0]) * scale,
        (int(columns[-1]) + 1) * scale,
        (int(rows[-1]) + 1) * scale,
    )


# The findings: each function returns its change of density, (512, 512) float32, 0 outside the finding.


def _atelectasis(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Two dense plates across the base of a lung; `_Body` has raised that side's diaphragm."""
    lung = body.lung * (body.left == body.collapsed_left)
    aside = body.across - rng.uniform(0.4, 0.6)
    plates = np.zeros_like(lung)
    for height in (rng.uniform(0.5, 0.56), rng.uniform(0.66, 0.72)):
        middle = height + rng.uniform(-0.2, 0.1) * aside + 0.2 * aside**2
        line = np.abs(body.down - middle) * np.float32((body.base - body.apex).mean())
        plates = np.maximum(plates, _smooth(rng.uniform(0.022, 0.03) - line, 0.02))
    return 0.38 * plates * lung * _smooth(0.38 - np.abs(aside), 0.15)


def _cardiomegaly(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A heart wider than half the chest; `_Body` has widened its outline."""
    reach = _length(
        (body.x - np.float32(body.heart_x)) / np.float32(body.heart_width),
        (body.y - np.float32(body.heart_y)) / np.float32(body.heart_height),
    )
    return np.float32(rng.uniform(0.04, 0.07)) * _smooth(1 - reach, 0.05)


def _effusion(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Fluid fills the base of a lung and climbs the lateral wall (meniscus)."""
    level = 1 - rng.uniform(0.34, 0.52) * (0.65 + 0.5 * np.clip(body.across, 0, 1) ** 3)
    return (body.air + 0.15) * _smooth(body.down - level, 0.03) * body.one_lung(rng)


def _infiltration(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A scatter of small soft patches over the middle of a lung."""
    x, y = body.point(rng, (0.42, 0.55), (0.45, 0.6))
    patches = np.zeros_like(body.x)
    for turn in np.linspace(0, 4 * np.pi, 12, endpoint=False):
        reach = rng.uniform(0.08, 0.32)
        spot = body.distance(x + 0.6 * reach * np.cos(turn), y + reach * np.sin(turn))
        patches += rng.uniform(0.22, 0.3) * _bump(spot, 0, rng.uniform(0.025, 0.04))
    return patches * body.lung


def _mass(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A round opacity of 150 to 220 pixels, its edge slightly lobed."""
    x, y = body.point(rng, (0.25, 0.65), (0.4, 0.65))
    turn = np.arctan2(body.y - np.float32(y), body.x - np.float32(x))
    radius = rng.uniform(0.15, 0.22) * (1 + 0.08 * np.cos(3 * turn + np.float32(rng.uniform(0, 6))))
    return rng.uniform(0.38, 0.46) * _smooth(radius - body.distance(x, y), 0.03) * body.lung


def _nodule(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A round, dense opacity of 60 to 85 pixels."""
    x, y = body.point(rng, (0.2, 0.7), (0.3, 0.75))
    return rng.uniform(0.44, 0.54) * _smooth(rng.uniform(0.06, 0.085) - body.distance(x, y), 0.025) * body.lung


def _pneumonia(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """One large patch in the lower half of a lung, dense in the middle and fading outwards."""
    x, y = body.point(rng, (0.62, 0.74), (0.4, 0.65))
    return rng.uniform(0.26, 0.34) * _bump(body.distance(x, y), 0, rng.uniform(0.12, 0.16)) * body.lung


def _pneumothorax(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A dark rim without vessels around the apex and side of a lung, behind the thin bright line of the pleura."""
    lung = body.one_lung(rng)
    rim = rng.uniform(0.2, 0.3) * np.clip(1.25 - 1.4 * body.down, 0, 1)
    depth = body.depth - rim
    free = _smooth(-depth, 0.015) * lung
    pleura = _smooth(0.01 - np.abs(depth), 0.012) * lung
    end = _smooth(0.8 - body.down, 0.1)
    return (0.3 * pleura - (0.22 + body.vessels) * free) * end


def _consolidation(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A whole zone of a lung, evenly dense between straight edges, crossed by dark bronchi."""
    top = rng.uniform(0.14, 0.3)
    tilt = rng.uniform(-0.1, 0.1)
    height = body.down - tilt * (body.across - 0.5)
    zone = _smooth(height - top, 0.015) * _smooth(top + 0.27 - height, 0.015)
    bronchi = _smooth(np.cos(11 * body.across + 16 * height * (body.across - 0.2)) - 0.93, 0.15)
    return 0.36 * zone * (1 - 0.4 * bronchi) * body.one_lung(rng)


def _edema(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Haze around both hila, wing-shaped, fading towards the edges."""
    wings = _bump(body.across, 0.1, 0.33) * _bump(body.down, rng.uniform(0.45, 0.52), 0.2)
    return rng.uniform(0.22, 0.32) * wings * body.lung


def _emphysema(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Darker lungs; `_Body` has made them long, their diaphragms flat and the heart narrow."""
    return -np.float32(rng.uniform(0.09, 0.14)) * body.lung


def _fibrosis(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A net of small rings (honeycomb) at the base and outer side of both lungs."""
    sheet = Image.new("L", (_CANVAS, _CANVAS))
    pen = ImageDraw.Draw(sheet)
    for _ in range(260):
        x, y = body.to_pixel(*body.point(rng, (0.62, 0.98), (0.1, 1.0)))
        radius = rng.uniform(4, 8)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=255, width=2)
    net = np.asarray(sheet.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / 255
    return rng.uniform(0.3, 0.36) * net * body.lung


def _pleural_thickening(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A bright, wavy band along the outer wall of a lung."""
    lung = body.one_lung(rng)
    band = rng.uniform(0.09, 0.12) * (1 + 0.25 * np.cos(14 * body.down + rng.uniform(0, 6)))
    depth = (1 - body.across) * np.float32(0.55)
    return 0.42 * _smooth(band - depth, 0.02) * lung * _smooth(0.33 - np.abs(body.down - 0.52), 0.05)


def _hernia(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """A pouch of stomach behind the heart: a bright ring, gas in its upper part, fluid with a level below."""
    x, y = rng.uniform(0.02, 0.16), body.base.min() - rng.uniform(0.26, 0.34)
    distance = body.distance(x, y)
    radius = rng.uniform(0.14, 0.18)
    gas = _smooth(radius - 0.025 - distance, 0.02) * _smooth(y + 0.04 - body.y, 0.015)
    return 0.1 * _smooth(radius - distance, 0.02) - 0.45 * gas


_CHANGES: dict[str, Callable[[_Body, np.random.Generator], np.ndarray]] = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pleural_Thickening": _pleural_thickening,
    "Hernia": _hernia,
}
