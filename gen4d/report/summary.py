"""What a build did, in lines for a terminal or a log file."""

import collections
from collections.abc import Iterable

_LISTED = 20
_NAMED = 5
BELOW_SHARE = 0.15  # of a scan's points: at most 4 % in good scans, 42 to 73 % in those that stand on their heads
UNSEEN_SHARE = 0.5  # of a scan's free floor


def noun_of(kind: str | None) -> str:
    """What a data set of a kind has its sequences of."""
    return "shape" if kind == "views" else "scan"


def summary(sidecars: Iterable[dict], noun: str = "scan") -> list[str]:
    """Scans, or what else `noun` names, sequences, free space, classes, shrunk shapes, and every rejection reason with
    its count."""
    sidecars = list(sidecars)
    scans = [scan for sidecar in sidecars for scan in sidecar["scans"]]
    sequences = sum(len(scan["sequences"]) for scan in scans)
    gaps = sum(len(scan.get("gaps", ())) for scan in scans)
    attempts = sum(scan.get("attempts", 0) for scan in scans)
    size = sum(sidecar["bytes"] for sidecar in sidecars)
    lines = [
        f"{counted(len(scans), noun)}, {counted(sequences, 'sequence')} in {counted(len(sidecars), 'shard')}, "
        f"{format_bytes(size)}"
    ]
    if attempts:
        lines.append(f"{attempts} attempts, {sequences / attempts:.0%} accepted, {gaps} sequences given up")
        lines += [_sizes(scans), *_movers(scans)]
    measured = [scan for scan in scans if None not in (scan["valid_m2"], scan["free_m"])]
    return (
        lines
        + _free_space(measured)
        + doubts(measured)
        + _classes(scans)
        + _shapes(scans)
        + _rejections(scans)
        + _frames(scans)
        + _gaps(scans)
        + _empty(scans)
    )


def _sizes(scans: list[dict]) -> str:
    """How many sequences have a shape that was shrunk, and the smallest factor."""
    shrunk = sum(_total(scans, "shrunk").values())
    if not shrunk:
        return "every shape has its full size, none shrunk to fit"
    least = min(scan.get("least_shrink", 1.0) for scan in scans)
    return f"{shrunk} shrunk to fit, to {least:.2f} of their height or more"


def _movers(scans: list[dict]) -> list[str]:
    """How many sequences have how many shapes, where not all have one."""
    total: collections.Counter = collections.Counter()
    for scan in scans:
        total.update(scan.get("movers") or {"1": len(scan["sequences"])})
    told = ", ".join(f"{number} in {counted(total[number], 'sequence')}" for number in sorted(total) if total[number])
    return [f"shapes at once: {told}"] if any(scan.get("movers") for scan in scans) else []


def _free_space(scans: list[dict]) -> list[str]:
    if len(scans) > _LISTED:
        widest = sorted(scan["free_m"] for scan in scans)
        area = sorted(scan["valid_m2"] for scan in scans)
        return [
            f"free floor: {area[0]:.1f} to {area[-1]:.1f} m2, median {area[len(area) // 2]:.1f}; widest free disc: "
            f"radius {widest[0]:.2f} to {widest[-1]:.2f} m, median {widest[len(widest) // 2]:.2f}",
            *_levelled(scans),
        ]
    wide = max((len(scan["name"]) for scan in scans), default=0)
    rows = [
        f"  {scan['name']:<{wide}} {scan['points']:>8} points, free floor {scan['valid_m2']:5.1f} m2{_unseen(scan)}, "
        f"widest free disc {scan['free_m']:.2f} m, {len(scan['sequences'])} sequences in {scan.get('attempts', 0)} "
        f"attempts{_tilt(scan)}"
        for scan in scans
    ]
    return ["scans:", *rows] if rows else []


def _unseen(scan: dict) -> str:
    return f" ({scan['unseen']:.0%} unseen)" if scan.get("unseen") is not None else ""


def _tilt(scan: dict) -> str:
    return f", levelled by {scan['tilt_deg']:.1f} degrees" if scan.get("tilt_deg") else ""


def _levelled(scans: list[dict]) -> list[str]:
    tilts = sorted(scan["tilt_deg"] for scan in scans if scan.get("tilt_deg"))
    if not tilts:
        return []
    return [f"levelled: {counted(len(tilts), 'scan')} by {tilts[0]:.1f} to {tilts[-1]:.1f} degrees"]


def doubts(scans: list[dict]) -> list[str]:
    """What in the figures of scans makes one doubt their up axis or their floor, one line each with the remedy."""
    wrong = [scan for scan in scans if scan.get("below", 0.0) > BELOW_SHARE]
    turned = [scan for scan in scans if "top_heavy" in scan]
    thin = [scan for scan in scans if (scan.get("unseen") or 0.0) > UNSEEN_SHARE]
    lines = []
    if wrong:
        share = max(scan["below"] for scan in wrong)
        lines.append(
            f"warning: up to {share:.0%} of the points lie more than 20 cm below the floor in {some(wrong)}: another "
            "axis may point up, check --up"
        )
    if turned:
        times = max(scan["top_heavy"] for scan in turned)
        lines.append(
            f"warning: up to {times:.1f} times as many points lie below the ceiling as above the floor in "
            f"{some(turned)}: scans that stand on their heads, check --up"
        )
    if thin:
        share = max(scan["unseen"] for scan in thin)
        lines.append(
            f"warning: up to {share:.0%} of the free floor is unseen in {some(thin)}: thin clouds or large gaps; "
            "--set close_m=0 keeps to seen floor, --set cell_m=0.2 sees more of it"
        )
    said = [doubt for scan in scans for doubt in scan.get("doubts", ())]
    more = [f"warning: and {len(said) - _NAMED} more like these"] if len(said) > _NAMED else []
    return lines + [f"warning: {doubt}" for doubt in said[:_NAMED]] + more


def some(scans: list[dict]) -> str:
    """Names of some scans, and how many there are."""
    names = ", ".join(scan["name"] for scan in scans[:_NAMED])
    return names if len(scans) <= _NAMED else f"{names}, ... ({len(scans)} scans)"


def _total(scans: list[dict], key: str) -> collections.Counter:
    total: collections.Counter = collections.Counter()
    for scan in scans:
        total.update(scan.get(key, {}))
    return total


def _classes(scans: list[dict]) -> list[str]:
    drawn, accepted, shrunk = (_total(scans, key) for key in ("drawn", "accepted", "shrunk"))
    everything = sum(accepted.values()) or 1
    several = any(scan.get("movers") for scan in scans)
    shares, draws = ("shapes", "drawn") if several else ("sequences", "attempts")
    wide = max(16, *map(len, drawn)) if drawn else 0
    rows = [
        f"  {name:<{wide}} {accepted[name] / everything:4.0%} of the {shares}, "
        f"{accepted[name]} of {drawn[name]} {draws}" + (f", {shrunk[name]} shrunk to fit" if shrunk[name] else "")
        for name in sorted(drawn)
    ]
    return ["classes:", *rows] if rows else []


def _shapes(scans: list[dict]) -> list[str]:
    """Of views: how many shapes each class has."""
    counts = collections.Counter(scan["class"] for scan in scans if "class" in scan)
    return ["classes: " + ", ".join(f"{name} {counts[name]}" for name in sorted(counts))] if counts else []


def _rejections(scans: list[dict]) -> list[str]:
    examples: dict[str, str] = {}
    for scan in scans:
        for reason, example in scan.get("examples", {}).items():
            examples.setdefault(reason, f"{scan['name']}, {example}")
    reasons = _total(scans, "rejections").most_common()
    rows = [f"  {times:>6} {reason} (first: {examples[reason]})" for reason, times in reasons]
    return ["rejected attempts:", *rows] if rows else []


def _frames(scans: list[dict]) -> list[str]:
    """Of recordings: how many frames there are, how many are used, and what was left out for which reason."""
    scans = [scan for scan in scans if "views" in scan]
    if not scans:
        return []
    used = sum(scan["views"] for scan in scans)
    lines = [f"{counted(sum(scan['frames'] for scan in scans), 'frame')} in {counted(len(scans), 'scan')}, {used} used"]
    reasons = _total(scans, "left_out").most_common()
    rows = [f"  {times:>6} {reason} (first: {_first(scans, reason)})" for reason, times in reasons]
    return lines + (["left out:", *rows] if rows else [])


def _first(scans: list[dict], reason: str) -> str:
    """The first scan that something was left out of, and which frames."""
    scan = next(scan for scan in scans if reason in scan["examples"])
    return f"{scan['name']}, {scan['examples'][reason]}"


def _empty(scans: list[dict]) -> list[str]:
    """Scans that gave no sequence, and the rule that most of their attempts failed."""
    lines = []
    for scan in scans:
        if not scan["sequences"] and scan.get("rejections"):
            reason = max(scan["rejections"], key=scan["rejections"].get)
            lines.append(f"no sequence from {scan['name']}: {scan['examples'][reason]}")
    more = len(lines) - _LISTED
    return lines[:_LISTED] + ([f"and {more} more scans without a sequence"] if more > 0 else [])


def _gaps(scans: list[dict]) -> list[str]:
    """Scans that gave fewer sequences than asked for, the emptiest first, and the rule that most attempts failed."""
    scans = sorted(
        (scan for scan in scans if scan["sequences"] and scan.get("gaps")), key=lambda scan: -len(scan["gaps"])
    )
    rows = [f"  {scan['name']}: {explain_gaps(scan)}" for scan in scans[:_LISTED]]
    more = len(scans) - _LISTED
    return ["gaps:", *rows, *([f"  and {more} scans more"] if more > 0 else [])] if rows else []


def explain_gaps(scan: dict) -> str:
    """How many sequences of a scan were given up, and why most of its attempts failed."""
    missing = f"{len(scan['gaps'])} of {counted(len(scan['gaps']) + len(scan['sequences']), 'sequence')} given up"
    if not scan.get("rejections"):
        return missing
    reason = max(scan["rejections"], key=scan["rejections"].get)
    return f"{missing}, mostly because of: {reason} ({scan['rejections'][reason]} of {scan['attempts']} attempts)"


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
