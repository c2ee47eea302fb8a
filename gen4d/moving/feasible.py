"""Whether a config can work: every class has a height, and enough attempts will be accepted."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

from gen4d import sources
from gen4d.config import Config, ConfigError
from gen4d.lanes import lane
from gen4d.moving import accept, augment

_HOPELESS = 0.002  # in real rooms four times as many pass: with 6 frames 4 %, where the simulation says 1 %
_USEFUL = 0.04  # 25 attempts a sequence, of the 50 that it has
_QUICK = 100  # draws
Heights = Sequence[float] | Sequence[Sequence[float]]  # (lowest, highest) in metres, or several, then with a share


def with_heights(config: Config, names: Iterable[str], heights: Mapping[str, Heights]) -> Config:
    """The config with the metric heights of some classes: those given, else those of datasets_manifest.yaml. None where
    the shapes have a unit.

    Raises ConfigError where a class has none, since shapes have no units, or a range is not one.
    """
    if config.shape_metres:
        return config
    rows = []
    for name in sorted(set(names)):
        ranges = heights.get(name) or sources.height_ranges(name)
        if not ranges:
            raise ConfigError(
                f"class {name!r} has no height range, and shapes have no units: give its heights in metres, the unit "
                "of the shapes (--shape-units), or leave the class out"
            )
        rows += [(name, *row) for row in _ranges(name, ranges)]
    return dataclasses.replace(config, height_m=tuple(rows))


def _ranges(name: str, given: Heights) -> list[tuple[float, float, float]]:
    """Rows (lowest, highest, share) of one range or of several."""
    try:
        several = [given] if isinstance(given[0], int | float) else given
        return [(float(low), float(high), float(*share or [1.0])) for low, high, *share in several]
    except (TypeError, ValueError, LookupError):
        raise ConfigError(
            f"heights of {name!r} are {given!r}: (lowest, highest) in metres, or several of (lowest, highest, share)"
        ) from None


def refuse_hopeless(config: Config) -> None:
    """Raise ConfigError, with what would help, where the acceptance rule would reject nearly every attempt."""
    rate = expected_acceptance(config)
    if rate < _HOPELESS:
        raise ConfigError(
            f"frames = {config.frames}, keep = {config.keep}, chunks of {config.chunk_min}-{config.chunk_max}: about "
            f"{rate:.1%} of the attempts would keep {config.common_min:.0%} of the points in all {config.frames} "
            f"frames together, because each frame drops points of its own; {_remedies(config)}"
        )


def _remedies(config: Config) -> str:
    """The least change of each number alone with which enough attempts pass, and their rates."""
    found = []
    for field, values in (
        ("frames", range(config.frames - 1, 1, -1)),
        ("keep", (0.9, 0.95, 0.98, 1.0)),
        ("chunks_max", range(config.chunks_max - 1, config.chunks_min - 1, -1)),
        ("chunk_max", (0.4, 0.35, 0.3, 0.25, 0.2)),
        ("common_min", (0.25, 0.2, 0.15, 0.1, 0.05)),
    ):
        here = getattr(config, field)
        for value in values:
            if (value > here) is (field == "keep") and value != here and value >= config.chunk_min:
                rate = expected_acceptance(dataclasses.replace(config, **{field: value}), _QUICK)
                if rate >= _USEFUL:
                    found.append(f"{field} = {value} ({rate:.0%})")
                    break
    if found:
        return f"what passes with one number changed: {', '.join(found)}"
    return f"no number alone helps, the defaults with {Config.frames} frames pass {expected_acceptance(Config()):.0%}"


@functools.lru_cache(256)
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
        passed += accept.find_reason(scan, (shape,), config.common_min, config.frame_min) is None
    return passed / draws
