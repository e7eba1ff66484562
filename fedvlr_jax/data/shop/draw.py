"""Draw an item: a shape in a colour with a pattern and a texture, on a light ground."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 224  # pixels of a picture, CLIP's own size
_FINE = 2 * SIDE  # drawn larger and reduced, for smooth edges
_HUES = {
    "red": 0.99,
    "orange": 0.07,
    "yellow": 0.14,
    "green": 0.34,
    "teal": 0.48,
    "blue": 0.60,
    "purple": 0.76,
    "brown": 0.06,
}


def draw(
    rng: np.random.Generator, shape: str, colour: str, pattern: str, texture: str
) -> Image.Image:
    """A picture of `SIDE` x `SIDE` pixels in RGB.

    Args:
        rng: of size, position, angle and shade, which mean nothing.
        shape: one of `goods.SHAPES`.
        colour: one of `goods.COLOURS`.
        pattern: one of `goods.PATTERNS`.
        texture: one of `goods.TEXTURES`.
    """
    base, accent = _paints(rng, colour)
    surface = Image.new("RGB", (_FINE, _FINE), base)
    _PATTERNS[pattern](ImageDraw.Draw(surface), accent, rng)
    surface = _textured(surface, texture, rng)
    mask = Image.new("L", (_FINE, _FINE), 0)
    radius = _FINE * rng.uniform(0.33, 0.40)
    centre = _FINE / 2 + rng.uniform(-0.03, 0.03, 2) * _FINE
    _SHAPES[shape](ImageDraw.Draw(mask), centre, radius, rng.uniform(-0.2, 0.2))
    ground = Image.new("RGB", (_FINE, _FINE), (int(rng.integers(236, 250)),) * 3)
    shadow = mask.filter(ImageFilter.GaussianBlur(_FINE * 0.02)).point(lambda v: v * 0.35)
    ground.paste((70, 70, 80), (0, int(_FINE * 0.025)), shadow)
    ground.paste(surface, (0, 0), mask)
    return ground.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


Colour = tuple[int, int, int]


def _paints(rng: np.random.Generator, colour: str) -> tuple[Colour, Colour]:
    """The colour itself and a lighter or darker one for patterns on it."""
    hue = _HUES[colour] + rng.uniform(-0.012, 0.012)
    saturation, value = (0.62, 0.45) if colour == "brown" else (0.82, 0.88)
    value += rng.uniform(-0.05, 0.05)
    lighter = colorsys.hsv_to_rgb(hue % 1, saturation * 0.25, 0.98)
    darker = colorsys.hsv_to_rgb(hue % 1, min(saturation * 1.1, 1), value * 0.5)
    accent = lighter if rng.random() < 0.5 else darker
    base = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return _bytes(base), _bytes(accent)


def _bytes(colour: tuple[float, float, float]) -> Colour:
    red, green, blue = (round(255 * c) for c in colour)
    return red, green, blue


def _polygon(radii: list[float], turn: float = 0.0) -> Callable[..., None]:
    """A shape with a corner for each of `radii`, in units of the shape's own radius."""

    def shape(pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, angle: float) -> None:
        turns = angle + turn - math.pi / 2 + 2 * math.pi * np.arange(len(radii)) / len(radii)
        corners = radius * np.array(radii)[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
        pen.polygon([tuple(corner) for corner in centre + corners], fill=255)

    return shape


def _circle(pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, _: float) -> None:
    pen.ellipse([*(centre - radius), *(centre + radius)], fill=255)


def _ring(pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, _: float) -> None:
    pen.ellipse([*(centre - radius), *(centre + radius)], fill=255)
    pen.ellipse([*(centre - 0.5 * radius), *(centre + 0.5 * radius)], fill=0)


def _cross(pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, angle: float) -> None:
    arm, waist = 1.1 * radius, 0.4 * radius
    corners = [
        (-waist, -arm), (waist, -arm), (waist, -waist), (arm, -waist), (arm, waist),
        (waist, waist), (waist, arm), (-waist, arm), (-waist, waist), (-arm, waist),
        (-arm, -waist), (-waist, -waist),
    ]  # fmt: skip
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    pen.polygon([tuple(centre + np.array(corner) @ turn) for corner in corners], fill=255)


def _heart(pen: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, _: float) -> None:
    t = np.linspace(0, 2 * math.pi, 120)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    points = centre + np.stack([x, y], 1) * radius / 16
    pen.polygon([tuple(point) for point in points], fill=255)


def _stripes(pen: ImageDraw.ImageDraw, accent: Colour, rng: np.random.Generator) -> None:
    step = int(rng.integers(44, 56))
    for start in range(-_FINE, _FINE, step):
        pen.line([(start, 0), (start + _FINE, _FINE)], fill=accent, width=step // 3)


def _dots(pen: ImageDraw.ImageDraw, accent: Colour, rng: np.random.Generator) -> None:
    step = int(rng.integers(48, 60))
    radius = step * 0.27
    for row, y in enumerate(range(0, _FINE + step, step)):
        for x in range(step // 2 * (row % 2), _FINE + step, step):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=accent)


def _checks(pen: ImageDraw.ImageDraw, accent: Colour, rng: np.random.Generator) -> None:
    step = int(rng.integers(36, 46))
    for row, y in enumerate(range(0, _FINE, step)):
        for x in range(step * (row % 2), _FINE, 2 * step):
            pen.rectangle([x, y, x + step - 1, y + step - 1], fill=accent)


def _zigzag(pen: ImageDraw.ImageDraw, accent: Colour, rng: np.random.Generator) -> None:
    step = int(rng.integers(52, 64))
    for y in range(0, _FINE + step, step):
        points = [(x, y + (step // 2) * (k % 2)) for k, x in enumerate(range(0, _FINE + 40, 32))]
        pen.line(points, fill=accent, width=12, joint="curve")


def _rings(pen: ImageDraw.ImageDraw, accent: Colour, rng: np.random.Generator) -> None:
    step = int(rng.integers(40, 50))
    x, y = _FINE / 2 + rng.uniform(-30, 30, 2)
    for radius in range(step, _FINE, step):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], outline=accent, width=14)


def _textured(surface: Image.Image, texture: str, rng: np.random.Generator) -> Image.Image:
    """The surface with its light and dark changed by the texture."""
    if texture == "smooth":
        return surface
    noise = rng.standard_normal((_FINE, _FINE), np.float32)
    if texture == "grainy":
        coarse = noise[::4, ::4].repeat(4, 0).repeat(4, 1)
        light = 1 + 0.22 * coarse
    elif texture == "brushed":
        light = 1 + 0.20 * noise[:, :1] + 0.04 * noise
    else:
        y, x = np.mgrid[:_FINE, :_FINE] * (2 * math.pi / 16)
        light = 1 + 0.25 * np.sign(np.sin(x) * np.sin(y))
    shaded = np.asarray(surface, np.float32) * light[..., None]
    return Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))


_SHAPES = {
    "circle": _circle,
    "square": _polygon([1.15] * 4, math.pi / 4),
    "triangle": _polygon([1.15] * 3),
    "star": _polygon([1.15, 0.5] * 5),
    "hexagon": _polygon([1.05] * 6),
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
}
_PATTERNS = {
    "plain": lambda *_: None,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "zigzag": _zigzag,
    "rings": _rings,
}
