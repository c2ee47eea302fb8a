"""Whether a config can work: every class has a height, and enough attempts will be accepted."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

from gen4d import sources
from gen4d.config import Config, ConfigError
from gen4d.moving import accept, augment
from gen4d.moving.generate import lane

_HOPELESS = 0.01


def with_heights(config: Config, names: Iterable[str], heights: Mapping[str, tuple[float, float]]) -> Config:
    """The config with the metric heights of some classes: those given, else those of datasets_manifest.yaml.

    Raises ConfigError where a class has none, since shapes have no units, or a range is not one.
    """
    rows = []
    for name in sorted(set(names)):
        height_m = heights.get(name) or sources.height_range(name)
        if height_m is None:
            raise ConfigError(
                f"class {name!r} has no height range, and shapes have no units: give its heights in metres, or leave "
                "the class out"
            )
        try:
            low, high = map(float, height_m)
        except (TypeError, ValueError):
            raise ConfigError(f"heights of {name!r} are {height_m!r}: must be (lowest, highest) in metres") from None
        rows.append((name, low, high))
    return dataclasses.replace(config, height_m=tuple(rows))


def refuse_hopeless(config: Config) -> None:
    """Raise ConfigError where the acceptance rule would reject nearly every attempt."""
    rate = expected_acceptance(config)
    if rate < _HOPELESS:
        usual = expected_acceptance(Config(frames=config.frames))
        raise ConfigError(
            f"keep = {config.keep}, chunks of {config.chunk_min}-{config.chunk_max}: about {rate:.1%} of the attempts "
            f"would keep {config.common_min:.0%} of the points in all {config.frames} frames together, because each "
            f"frame drops points of its own; with {config.frames} frames, keep = {Config.keep} and the default chunks "
            f"about {usual:.0%} pass"
        )


@functools.lru_cache(8)
def expected_acceptance(config: Config, draws: int = 400) -> float:
    """Share of attempts that the acceptance rule passes, by simulation on points spread evenly over a box."""
    rng = lane(config, "", 0, 0, "expected acceptance")
    point = augment.quantise(rng.random((2000, 3)).astype("float32"))
    none = augment.no_chunks(config.frames)
    size, count = (config.chunk_min, config.chunk_max), (config.chunks_min, config.chunks_max)
    passed = 0
    for _ in range(draws):
        chunks = augment.draw_chunks(config.frames, count, size, rng)
        scan = accept.mask_histogram(augment.draw_bits(point, chunks, config.keep, rng), config.frames)
        shape = accept.mask_histogram(augment.draw_bits(point[:, :1000], none, config.keep, rng), config.frames)
        passed += accept.find_reason(scan, shape, config.common_min, config.frame_min) is None
    return passed / draws
