"""Randomness by keys: a draw depends on what it is for, not on what was drawn before."""

import hashlib
from typing import Protocol

import numpy as np


class Seeded(Protocol):
    """A config, whatever the kind."""

    @property
    def seed(self) -> int: ...


def lane(config: Seeded, scan: str, k: int, attempt: int, step: str) -> np.random.Generator:
    """The generator of one step of one attempt at sequence k of a scan."""
    key = hashlib.blake2b(f"{config.seed}\0{scan}\0{k}\0{attempt}\0{step}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
