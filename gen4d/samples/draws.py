"""Where the samples' chance comes from: generators keyed by what is drawn, and the draws that furniture shares."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Tint = tuple[int, int, int, int]  # red, green, blue, and the share of 255 of depth readings that the surface swallows

_WOODS = ((182, 138, 90), (122, 82, 50), (212, 182, 138), (94, 62, 42), (228, 214, 190), (150, 104, 66))
_PAINTS = ((238, 236, 230), (224, 220, 210), (206, 212, 214), (232, 226, 206), (60, 62, 66), (176, 188, 182))


def keyed(seed: int, *words: object) -> np.random.Generator:
    """The generator of what `words` name: the same words give the same draws, whatever else is drawn."""
    text = "/".join(str(word) for word in ("gen4d samples", seed, *words))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def repeated(style: int) -> np.random.Generator:
    """A generator for pieces of one style: chairs around a table are alike. `style` is itself drawn."""
    return np.random.Generator(np.random.Philox(key=style))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, each equally likely."""
    return options[int(rng.integers(len(options)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def vary(rng: np.random.Generator, tint: Sequence[int], by: int = 12, loss: int = 0) -> Tint:
    """`tint` with every channel shifted by up to `by`; `loss` is the share of 255 of lost depth readings."""
    red, green, blue = (int(np.clip(channel + rng.integers(-by, by + 1), 0, 255)) for channel in tint[:3])
    return red, green, blue, loss


def wood(rng: np.random.Generator) -> Tint:
    """A wood's colour."""
    return vary(rng, pick(rng, _WOODS))


def paint(rng: np.random.Generator) -> Tint:
    """The colour of a painted or laminated board."""
    return vary(rng, pick(rng, _PAINTS), 8)


def fabric(rng: np.random.Generator) -> Tint:
    """The colour of upholstery or textiles; dark ones swallow a little of the sensor's light."""
    grey = rng.integers(40, 200)
    shade = np.clip(grey + rng.integers(-45, 46, 3), 15, 240)
    return vary(rng, shade.tolist(), 4, 25 if grey < 70 else 0)


def metal(rng: np.random.Generator) -> Tint:
    """The colour of metal: from black steel to chrome, and a few lost readings."""
    grey = int(rng.integers(40, 190))
    return vary(rng, (grey, grey, grey + 5), 4, 20)


def ceramic(rng: np.random.Generator) -> Tint:
    """The colour of sanitary ware."""
    return vary(rng, (240, 240, 236), 8)
