"""What a build did, in lines for a terminal or a log file."""

import collections
from collections.abc import Iterable

_LISTED = 20


def summary(sidecars: Iterable[dict]) -> list[str]:
    """Scans, sequences, free space, classes, shrunk shapes, and every rejection reason with its count."""
    sidecars = list(sidecars)
    scans = [scan for sidecar in sidecars for scan in sidecar["scans"]]
    sequences = sum(len(scan["sequences"]) for scan in scans)
    gaps = sum(len(scan.get("gaps", ())) for scan in scans)
    attempts = sum(scan.get("attempts", 0) for scan in scans)
    size = sum(sidecar["bytes"] for sidecar in sidecars)
    lines = [
        f"{counted(len(scans), 'scan')}, {counted(sequences, 'sequence')} in {counted(len(sidecars), 'shard')}, "
        f"{format_bytes(size)}"
    ]
    if attempts:
        lines.append(f"{attempts} attempts, {sequences / attempts:.0%} accepted, {gaps} sequences given up")
    measured = [scan for scan in scans if scan["valid_m2"] is not None]
    return lines + _free_space(measured) + _classes(scans) + _rejections(scans) + _empty(scans)


def _free_space(scans: list[dict]) -> list[str]:
    if len(scans) > _LISTED:
        widest = sorted(scan["free_m"] for scan in scans)
        area = sorted(scan["valid_m2"] for scan in scans)
        return [
            f"free floor: {area[0]:.1f} to {area[-1]:.1f} m2, median {area[len(area) // 2]:.1f}; widest free disc: "
            f"radius {widest[0]:.2f} to {widest[-1]:.2f} m, median {widest[len(widest) // 2]:.2f}"
        ]
    rows = [
        f"  {scan['name']:<16} {scan['points']:>8} points, free floor {scan['valid_m2']:5.1f} m2, widest free disc "
        f"{scan['free_m']:.2f} m, {len(scan['sequences'])} sequences in {scan.get('attempts', 0)} attempts"
        for scan in scans
    ]
    return ["scans:", *rows] if rows else []


def _total(scans: list[dict], key: str) -> collections.Counter:
    total: collections.Counter = collections.Counter()
    for scan in scans:
        total.update(scan.get(key, {}))
    return total


def _classes(scans: list[dict]) -> list[str]:
    drawn, accepted, shrunk = (_total(scans, key) for key in ("drawn", "accepted", "shrunk"))
    everything = sum(accepted.values()) or 1
    rows = [
        f"  {name:<16} {accepted[name] / everything:4.0%} of the sequences, {accepted[name]} of {drawn[name]} attempts"
        + (f", {shrunk[name]} shrunk to fit" if shrunk[name] else "")
        for name in sorted(drawn)
    ]
    return ["classes:", *rows] if rows else []


def _rejections(scans: list[dict]) -> list[str]:
    examples: dict[str, str] = {}
    for scan in scans:
        for reason, example in scan.get("examples", {}).items():
            examples.setdefault(reason, f"{scan['name']}, {example}")
    reasons = _total(scans, "rejections").most_common()
    rows = [f"  {times:>6} {reason} (first: {examples[reason]})" for reason, times in reasons]
    return ["rejected attempts:", *rows] if rows else []


def _empty(scans: list[dict]) -> list[str]:
    """Scans that gave no sequence, and the rule that most of their attempts failed."""
    lines = []
    for scan in scans:
        if not scan["sequences"] and scan.get("rejections"):
            reason = max(scan["rejections"], key=scan["rejections"].get)
            lines.append(f"no sequence from {scan['name']}: {scan['examples'][reason]}")
    more = len(lines) - _LISTED
    return lines[:_LISTED] + ([f"and {more} more scans without a sequence"] if more > 0 else [])


def counted(number: int, thing: str) -> str:
    """A number of things: "1 shard", "2 shards"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_bytes(count: float) -> str:
    """A size in the unit that suits it."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def format_seconds(seconds: float) -> str:
    """A time as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
