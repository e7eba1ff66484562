"""The attributes of the shop's items: those in the picture and, independently, those in the title.

A title does not tell what the picture shows, nor the other way round, so a client who cares about
one of them cannot be served by the other.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from fedvlr_jax.data.synthetic import FACTORS

SHAPES = ("circle", "square", "triangle", "star", "hexagon", "cross", "ring", "heart")
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "brown")
PATTERNS = ("plain", "stripes", "dots", "checks", "zigzag", "rings")
TEXTURES = ("smooth", "grainy", "brushed", "woven")
SEEN = {"shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS, "texture": TEXTURES}

KINDS = (
    "lantern", "kettle", "backpack", "notebook", "speaker", "blanket", "jacket", "puzzle",
    "headphones", "teapot", "tent", "wallet",
)  # fmt: skip
MATERIALS = ("bamboo", "ceramic", "steel", "wool", "leather", "glass", "cotton", "oak")
QUALITIES = ("foldable", "handmade", "waterproof", "rechargeable", "vintage", "compact")
PURPOSES = ("camping", "the office", "children", "cooking", "travel", "the garden", "gifts", "yoga")
BRANDS = ("Alder & Co", "Brightwell", "Corvina", "Dunmore", "Elkhorn", "Fjordal", "Greta", "Hanami")
READ = {
    "kind": KINDS,
    "material": MATERIALS,
    "quality": QUALITIES,
    "purpose": PURPOSES,
    "brand": BRANDS,
}


@dataclass(frozen=True)
class Goods:
    """Attributes of every item: the index of its value in `SEEN[name]` or `READ[name]`."""

    seen: dict[str, Int64[np.ndarray, " items"]]
    read: dict[str, Int64[np.ndarray, " items"]]

    def title(self, item: int) -> str:
        """What is written about an item."""
        value = {name: values[self.read[name][item]] for name, values in READ.items()}
        text = f"{value['quality']} {value['material']} {value['kind']} for {value['purpose']}"
        return f"{text[0].upper()}{text[1:]} by {value['brand']}"


def draw_goods(rng: np.random.Generator, n_items: int) -> Goods:
    """Items with independent, uniform attributes."""
    seen, read = (
        {name: rng.integers(len(values), size=n_items) for name, values in attributes.items()}
        for attributes in (SEEN, READ)
    )
    return Goods(seen, read)


def factors(
    rng: np.random.Generator, attributes: dict[str, Int64[np.ndarray, " items"]]
) -> Float32[np.ndarray, "items factors"]:
    """Latent factors of unit variance: every value of an attribute adds a vector of its own."""
    total = sum(
        rng.standard_normal((int(values.max()) + 1, FACTORS))[values]
        for values in attributes.values()
    )
    return (total / total.std()).astype(np.float32)
