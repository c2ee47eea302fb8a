"""Say what a data set holds."""

import click

from gen4d.commands.frame import example, find_sequence
from gen4d.config import in_words
from gen4d.report import summary as report


@click.command(
    short_help="Say what a data set, or one of its sequences, holds.",
    epilog=example("gen4d inspect data/sequences", "gen4d inspect data/sequences scene0000_00/003"),
)
@click.argument("dataset")
@click.argument("sequence", required=False)
def inspect(dataset, sequence) -> None:
    """Say what a data set holds, or one SEQUENCE of it (an id or a number). DATASET is a folder or a URL."""
    from gen4d.building import refused_in
    from gen4d.shards import FormatError, open_dataset
    from gen4d.shards.manifest import brief, read_sidecar

    opened = open_dataset(dataset)
    if sequence is not None:
        _inspect_sequence(opened, find_sequence(opened, sequence, "SEQUENCE"))
        return
    manifest = opened.manifest
    click.echo(f"{dataset}: gen4d data set, format {manifest['version']}, made by gen4d {manifest['gen4d']}")
    if "kind" in manifest:
        click.echo(f"kind: {manifest['kind']}")
    shown = {name: in_words(value) for name, value in manifest["config"].items() if name != "height_m"}
    click.echo("config: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    click.echo("versions: " + ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()))
    sidecars = [brief(read_sidecar(opened.home, n)) for n in range(len(manifest["shards"]))]
    try:
        lines = report.summary(sidecars, report.noun_of(manifest.get("kind")))
        lines += [f"refused: {line}" for line in refused_in(manifest, sidecars)]
    except (KeyError, TypeError, AttributeError):
        raise FormatError(f"{dataset}: a shard's .json lacks required entries: not written by gen4d") from None
    for line in lines:
        click.echo(line)


def _inspect_sequence(opened, number: int) -> None:
    from gen4d.sequence import ROLE_MOVING, ROLES, frame_pairs

    sequence = opened[number]
    click.echo(f"{sequence.id}: a sequence of kind {sequence.kind} in {sequence.scan}, number {number}")
    for i, mover in enumerate(sequence.movers):
        click.echo(f"  mover {i}: {mover.shape} ({mover.class_name}), {mover.height_m:.2f} m high")
    for i, actor in enumerate(sequence.actors):
        kept = ", ".join(str(int(actor.mask(f).sum())) for f in range(sequence.t))
        part = f" of mover {actor.mover}" if actor.mover >= 0 else ""
        click.echo(f"  actor {i}: {ROLES[actor.role]}{part}, {len(actor.cloud)} points, kept in each frame: {kept}")
        if actor.role == ROLE_MOVING:
            places = ", ".join(f"({x:.2f}, {y:.2f}, {z:.2f})" for x, y, z in actor.pose[:, :3, 3].tolist())
            click.echo(f"    positions in metres: {places}")
    pairs = [f"{i}-{j}: {len(sequence.correspondences(i, j)[0])}" for i, j in frame_pairs(sequence.t)]
    click.echo(f"  correspondences: {', '.join(pairs)}")
