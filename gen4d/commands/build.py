"""Build a data set, in one go or in parts."""

import dataclasses
import pathlib
import re
import sys
import time

import click

from gen4d.commands.frame import FOLDER, SECONDS_A_LINE, class_names, example, own_data
from gen4d.config import BUILT, HEIGHT_CLASSES, Config, override
from gen4d.report import summary as report

_LISTED = 20  # differences


class _Part(click.ParamType):
    """I/N."""

    name = "I/N"

    def convert(self, value, param, context):
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
        number, of = map(int, numbers.groups()) if numbers else (0, 0)
        if not 1 <= number <= of:
            self.fail(f"{value!r} is not I/N with I from 1 to N, like 3/8", param, context)
        return number, of


class _Range(click.ParamType):
    """LOW-HIGH, or one number for both."""

    name = "LOW-HIGH"

    def convert(self, value, param, context):
        numbers = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", value)
        if not numbers:
            self.fail(f"{value!r} is not a number or LOW-HIGH, like 1-3", param, context)
        return int(numbers[1]), int(numbers[2] or numbers[1])


@click.command(
    "build",
    short_help="Build a data set of sequences from scans and shapes, or from posed frames.",
    epilog=example(
        "gen4d build --scans scannet/ --shapes ModelNet40/ --workers 8",
        "gen4d build --kind frames --scans scannet_frames_25k/ --out data/frames",
        "gen4d build --like published/ --scans mine/scannet/ --shapes mine/ModelNet40/ --out data/again",
    ),
)
@click.option(
    "--kind",
    default="moving",
    show_default=True,
    type=click.Choice(BUILT),
    help="What sequences are made of: shapes that move through scans, posed depth images, lidar sweeps, or views of "
    "shapes.",
)
@click.option("--scans", type=FOLDER, help="Folder of scans: ScanNet, Pointcept's, point files; or frames, or sweeps.")
@click.option(
    "--shapes", type=FOLDER, help="Folder of shapes: ModelNet's layout, .off, .obj, .glb, .urdf; views: points too."
)
@click.option(
    "--out", default=pathlib.Path("data/sequences"), type=FOLDER, show_default=True, help="Data set to write."
)
@click.option("--split", type=FOLDER, help="List of the scans to use, one name per line, or train, val, ...")
@click.option(
    "--classes", help=f"Classes of shapes, separated by commas.  [default: {','.join(HEIGHT_CLASSES)}; views: all]"
)
@click.option(
    "--up",
    help="Up axis of the scans: auto (or auto:-y) levels what is tilted by more than a degree, z, -y or a vector "
    "0,0.1,1 levels nothing, floor (floor:-y) levels every scan.  [default: auto, from the data set's own axis]",
)
@click.option("--units", help="Unit of the scans: m, cm, mm, in, ft, or metres per unit.")
@click.option("--shape-up", help="Up axis of the shapes.  [default: auto, by data set or file type]")
@click.option(
    "--shape-units", help="Unit of shapes that have one: they keep their sizes and are not scaled to their class."
)
@own_data
@click.option("--seed", type=int, help=f"Seed of all random draws.  [default: {Config.seed}]")
@click.option(
    "--sequences",
    type=int,
    help=f"Sequences per scan.  [default: {Config.sequences}; frames, sweeps: all; views: 1]",
)
@click.option("--frames", type=int, help=f"Frames per sequence.  [default: {Config.frames}]")
@click.option("--movers", type=_Range(), help="Shapes that move at once, like 1-3: drawn per sequence.  [default: 1]")
@click.option("--pairs", is_flag=True, help="Also store explicit pair lists, about 7 MB per scan.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Set any other field of the config.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Number of processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Build on the workers of a running Dask cluster, tcp://host:8786.")
@click.option(
    "--part", type=_Part(), help="Build only part I of N, a fixed share of the shards; finish with gen4d merge."
)
@click.option("--limit", type=click.IntRange(1), help="Use only the first scans by name.")
@click.option("--dry-run", is_flag=True, help="Build two scans in memory, estimate the rest, and write nothing.")
@click.option("--strict", is_flag=True, help="Stop at the first scan that cannot be used.")
@click.option(
    "--like",
    metavar="DATASET",
    help="Repeat a published data set, a folder or a URL with its dataset.json and build.json, from your own copies of "
    "its --scans and --shapes, and compare the result with it.",
)
@click.pass_context
def build_command(
    context,
    kind,
    scans,
    shapes,
    out,
    split,
    classes,
    up,
    units,
    shape_units,
    assignments,
    workers,
    scheduler,
    part,
    limit,
    dry_run,
    strict,
    like,
    **fields,
):
    """Build a data set of sequences: by default of shapes that move through scans.

    With --kind frames or sweeps, of posed depth images or lidar sweeps: windows of neighbouring ones, or pairs that
    overlap (--set choose=pairs). With --kind views, of shapes alone, meshes or points: each turned, shifted and scaled
    from frame to frame.

    The same command continues where an interrupted build stopped.

    With --like, everything but the folders comes from the published data set: the same scans, config and shards. Files
    are compared with their published hashes first. It ends in "same hash as published", or names the first difference.
    """
    from gen4d import building

    if scheduler and workers > 1:
        raise click.UsageError("--workers and --scheduler exclude each other: give one of them")
    if scheduler:  # whose workers have other working folders
        scans, shapes = (None if folder is None else folder.absolute() for folder in (scans, shapes))
    published = None
    try:
        if like is not None:
            _refuse_taken(context)
            published = building.read_published(like)
            found = building.find_like(published, scans, shapes)
        else:
            given = building.Given(scans, shapes, split, up, units, shape_units, limit)
            found = building.find_inputs(kind, given, _config(kind, classes, fields, assignments))
    except building.GivenError as error:
        raise click.UsageError(str(error)) from None
    for line in found.notes:
        click.echo(f"note: {line}", err=True)
    for line in found.refused:
        click.echo(f"refused: {line}", err=True)
    if dry_run:
        _estimate(found.inputs, out, workers)
        sys.exit(1 if found.refused else 0)
    part = building.Part(*part) if part else None
    if published:
        _refuse_other_inputs(published, found, part)
    started = time.monotonic()
    noun = report.noun_of(found.inputs.kind)
    progress = _Progress(out, part, noun)
    built = building.build_found(found, out, workers, scheduler or "", part, strict, progress)
    code = _conclude(built.sidecars, built.refused[len(found.refused) :], built.manifest, noun)
    took = report.format_seconds(time.monotonic() - started)
    if part:
        mine = report.counted(len(built.sidecars), "shard")
        after = "the same command without --part" if published else f"gen4d merge {out}"
        click.echo(f"part {part} done in {took}, {mine} of {built.shards}; after all parts: {after}")
    else:
        click.echo(f"done in {took}: gen4d verify {out}")
    if published and not part:
        code = _compare(published, out)
    sys.exit(1 if found.refused else code)


def _config(kind: str, classes: str | None, fields: dict, assignments: tuple[str, ...]):
    """The config of a kind, with the fields that have options of their own and those of --set."""
    from gen4d.building import kind_of

    given = {name: value for name, value in fields.items() if value is not None and value is not False}
    if classes:
        given["classes"] = class_names(classes)
    of = kind_of(kind).CONFIGS[kind]
    known = {field.name for field in dataclasses.fields(of)}
    odd = sorted(set(given) - known - ({"movers"} if "movers_min" in known else set()))
    if odd:
        raise click.UsageError(f"--{odd[0].replace('_', '-')}: sequences of kind {kind} have none: leave it out")
    if "movers" in given:
        given["movers_min"], given["movers_max"] = given.pop("movers")
    return override(of(**given), assignments)


_WITH_LIKE = ("like", "scans", "shapes", "out", "workers", "scheduler", "part", "dry_run", "strict")


def _refuse_taken(context: click.Context) -> None:
    """A data set that is repeated says all that would change it."""
    for name in context.params:
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in _WITH_LIKE:
            option = {"assignments": "set"}.get(name, name).replace("_", "-")
            raise click.UsageError(f"--{option}: --like takes it from the published data set: leave it out")


def _refuse_other_inputs(published, found, part) -> None:
    """End here where files differ from those that were published: then the result would differ too."""
    from gen4d import building

    click.echo("comparing files with their published hashes")
    lines = list(building.find_differences(published, found, part))
    for line in lines[:_LISTED]:
        click.echo(f"differs: {line}", err=True)
    if lines:
        more = f", {len(lines) - _LISTED} more than shown" if len(lines) > _LISTED else ""
        differ = f"{report.counted(len(lines), 'difference')} to what {published.where} was built from{more}"
        raise building.LikeError(f"{differ}: nothing was built")


def _compare(published, out: pathlib.Path) -> int:
    """Say whether the data set is the one that was published; returns the exit code."""
    from gen4d import building

    same, words = building.compare(published, out)
    click.echo(f"same hash as published: {words}" if same else f"Error: not as published: {words}", err=not same)
    return int(not same)


def _conclude(sidecars, refused, manifest, noun) -> int:
    """Say what came out, and what did not; returns the exit code."""
    for line in report.summary((sidecars[number] for number in sorted(sidecars)), noun):
        click.echo(line)
    for message in refused:
        click.echo(f"refused: {message}", err=True)
    bare = [scan["name"] for sidecar in sidecars.values() for scan in sidecar["scans"] if not scan["sequences"]]
    if manifest is not None and not manifest["totals"]["sequences"]:
        click.echo("Error: no sequence could be made; the lines above name the rule that failed", err=True)
    return int(bool(refused) or bool(bare))


@click.command("merge", short_help="Finish a build in parts.", epilog=example("gen4d merge data/sequences"))
@click.argument("dataset", type=FOLDER)
def merge_command(dataset) -> None:
    """Finish a build in parts (gen4d build --part): check that every shard is there and write dataset.json."""
    from gen4d import building

    try:
        merged = building.merge(dataset)
    except OSError as error:
        raise building.unwritable(error, dataset) from None
    refused = building.refused_in(merged.manifest, merged.sidecars.values())
    code = _conclude(merged.sidecars, refused, merged.manifest, report.noun_of(merged.manifest.get("kind")))
    click.echo(f"merged {report.counted(len(merged.sidecars), 'shard')}: gen4d verify {dataset}")
    sys.exit(code)


class _Progress:
    """Says how far a build is: lines with rate and time left, rare enough for a log file."""

    def __init__(self, out: pathlib.Path, part, noun: str):
        self.out, self.part, self.noun = out, part, noun
        self.started = self.printed = time.monotonic()

    def __call__(self, state) -> None:
        match state.stage:
            case "planned":
                self._plan(state)
            case "compiling":
                click.echo("compiling kernels (once)")
            case "building":
                self._advance(state)

    def _plan(self, state) -> None:
        mine = state.shards + state.there
        if self.part:
            click.echo(f"part {self.part}: {report.counted(mine, 'shard')} of the build")
        if state.there:
            click.echo(f"{state.there} of {mine} shards are there already")
        if state.shards:
            shards = report.counted(state.shards, "shard")
            click.echo(f"building {report.counted(state.of, self.noun)} in {shards} into {self.out}")
        self.started = self.printed = time.monotonic()

    def _advance(self, state) -> None:
        now = time.monotonic()
        if now - self.printed < SECONDS_A_LINE and state.scans < state.of:
            return
        self.printed = now
        rate = state.scans / max(now - self.started, 1e-9)
        left = report.format_seconds((state.of - state.scans) / rate)
        rates = f"{rate:.1f} {self.noun}s/s, {left} left"
        click.echo(f"{state.scans}/{state.of} {self.noun}s, {state.sequences} sequences, {rates}")


def _estimate(inputs, out: pathlib.Path, workers: int) -> None:
    from gen4d import building, files
    from gen4d.building import estimate

    estimate.warm_up(inputs, lambda: click.echo("compiling kernels (once)"))
    trial = estimate.try_scans(inputs, inputs.scans[:: max(1, len(inputs.scans) // 2)][:2])
    for message in trial.failed:
        click.echo(f"refused: {message}", err=True)
    if not trial.scans:
        raise building.BuildError(
            "none of the scans that were tried can be used: gen4d doctor says what is wrong with each"
        )
    if not trial.sequences:
        tried = report.counted(trial.scans, report.noun_of(inputs.kind))
        raise building.BuildError(f"no sequence could be made in a trial of {tried}: {trial.reason}")
    whole = trial.scaled(len(inputs.scans), workers)
    free = files.free_bytes(out)
    took, processes = report.format_seconds(whole.seconds), report.counted(workers, "worker")
    click.echo(
        f"from {trial.scans} of {report.counted(len(inputs.scans), report.noun_of(inputs.kind))}, built in memory:"
    )
    click.echo(f"  sequences  {whole.sequences}")
    click.echo(f"  disk       {report.format_bytes(whole.bytes)}, {report.format_bytes(free)} free in {out}")
    click.echo(f"  time       {took} with {processes}, reading at the speed of this trial")
    click.echo(f"  memory     {report.format_bytes(whole.memory)} with {processes}")
