"""`prepare`: data sets brought into the form that training reads, once."""

import click

from train.commands import frame


@click.group()
def prepare() -> None:
    """Bring a data set into the form that training reads, once.

    \b
    gen4d-train prepare scans scannet/ --out data/scannet --workers 8
    """


@prepare.command(short_help="SUN RGB-D's raw files to clouds with boxes, without MATLAB.")
@click.argument("folder", type=frame.PATH)
@click.option("--out", type=frame.PATH, default="data/sunrgbd", show_default=True, help="Folder to write to.")
@click.option("--points", type=click.IntRange(100), default=50_000, show_default=True, help="Of a frame, at most.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Threads.")
@frame.as_json
def sunrgbd(folder, out, points, workers, as_json) -> None:
    """Write clouds and oriented boxes of SUN RGB-D's frames, as VoteNet's MATLAB scripts do: V1 labels, V2 geometry.

    FOLDER holds SUNRGBD/, SUNRGBDMeta3DBB_v2.mat and SUNRGBDtoolbox/, unzipped. The same command goes on where it
    stopped. It says how many of the 10,335 frames it wrote, and why not the others; then the exit code is 1.

    \b
    gen4d-train prepare sunrgbd OFFICIAL_SUNRGBD --out data/sunrgbd --workers 8
    gen4d-train finetune --task detect --preset sunrgbd --data data/sunrgbd --weights runs/pretrain
    """
    with frame.one_line_errors():
        from train.prepare.sunrgbd import FRAMES, prepare

        say = frame.speaker(as_json)
        found = prepare(folder, out, points, workers, lambda done, of: _say_progress(say, done, of))
    for name in found.again:
        say(f"{out / name}: was damaged, and is written again")
    parts = ", ".join(f"{count} for {part}" for part, count in found.parts.items())
    whole = "" if found.frames == FRAMES else f"; the whole data set has {FRAMES}"
    say(f"{out}: {sum(found.parts.values())} of {found.frames} frames ({parts}){whole}")
    for why, (numbers, first) in found.left_out.items():
        say(f"left out, {why}: {len(numbers)} frames (first: {numbers[0]:06d}, {first})")
    if found.odd:
        say(f"left out, boxes without a place, size or direction: {found.odd}")
    frame.give(as_json, {"out": str(out)} | found._asdict())
    if found.left_out:
        raise SystemExit(1)


@prepare.command(short_help="Labelled scans to shards, read once.")
@click.argument("folder", type=frame.PATH)
@frame.manifest
@click.option("--out", type=frame.PATH, default="data/scans", show_default=True, help="Folder to write to.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@frame.as_json
def scans(folder, out, workers, as_json) -> None:
    """Read the labelled scans of a data set once, with labels, instances and alignment, and keep them in Zarr shards.

    FOLDER is what the trainer's --data takes: ScanNet's, Pointcept's, samples. Each part that it has becomes a data set
    of gen4d in OUT/train, OUT/val or OUT/test, which --data OUT reads as it would read FOLDER, and gen4d verify checks.
    The same command goes on where it stopped, and takes what has come since.

    \b
    gen4d-train prepare scans scannet --out data/scannet --workers 8
    gen4d-train finetune --task detect --data data/scannet --weights runs/pretrain
    """
    with frame.one_line_errors():
        from gen4d.report.summary import counted
        from train.prepare.scans import prepare

        say, done = frame.speaker(as_json), []

        def progress(part, state):
            if state.scans:
                say(f"{part}: {state.scans} of {state.of} scans")

        for one in prepare(folder, out, workers, lambda line: say(f"note: {line}"), progress):
            for line in one.refused:
                say(f"refused: {line}")
            size = f"{counted(one.scans, 'scan')} in {counted(one.shards, 'shard')}"
            say(f"{one.folder}: {size}: gen4d verify {one.folder}")
            done.append(one)
    frame.give(as_json, [one._asdict() | {"folder": str(one.folder)} for one in done])
    if any(one.refused for one in done):
        raise SystemExit(1)


def _say_progress(say, done: int, of: int) -> None:
    if done % 500 == 0:
        say(f"{done} of {of} frames")
