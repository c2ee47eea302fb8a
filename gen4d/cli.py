"""The command line. Only this module prints and exits.

Exit codes: 0 everything was done, 1 something was refused or failed, or a scan gave no sequence (the rest is there and
valid), 2 usage,
129, 130 and 143 after SIGHUP, Ctrl-C and SIGTERM, with a state that the same command continues.

What takes long to import is imported by the commands, when signals have their handlers and help needs none of it.
"""

import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time

import click

from gen4d import __version__, compiled
from gen4d.config import BUILT, HEIGHT_CLASSES, Config, in_words, override
from gen4d.report import summary as report

try:
    from gen4d import files  # noqa: F401, needs what Windows has not
except ImportError as error:
    raise SystemExit(f"Error: {error}") from None

_FOLDER = click.Path(path_type=pathlib.Path)
_SECONDS_A_LINE = 2.0
_AGAIN_S = 3.0


_STOPPED = {signal.SIGHUP: "hung up", signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(BaseException):
    """A signal asked this process to end."""


def _stop(number, frame):
    for other in _STOPPED:
        signal.signal(other, signal.SIG_IGN)  # the end is near: another one must not disturb it
    signal.signal(signal.SIGALRM, lambda *_: _raise(number))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)  # Python drops what is raised while it collects garbage
    _raise(number)


def _raise(number):
    raise Stopped(signal.Signals(number))


def main() -> None:
    """Entry point of `gen4d`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths may hold any bytes
    if compiled.NOTE:
        click.echo(f"note: {compiled.NOTE}", err=True)
    for number in _STOPPED:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, _stop)
    sys.exit(_run())


def _run() -> int:
    try:
        code = cli(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Stopped as stopped:
        signal.setitimer(signal.ITIMER_REAL, 0)
        number = stopped.args[0]
        click.echo(f"\n{_STOPPED[number]}: what is done is valid, and the same command continues", err=True)
        return 128 + number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message = f"{error.filename or 'a file'}: {error.strerror or error}"
    except MemoryError:
        message = "not enough memory: use fewer --workers, or a machine with more memory"
    except ValueError as error:  # every error of ours is one; anything else is a bug and shows its trace
        if type(error) is ValueError:
            raise
        message = str(error)
    click.echo(f"Error: {message}", err=True)
    return 1


def _example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@click.group()
@click.version_option(__version__, prog_name="gen4d")
def cli() -> None:
    """Turn static 3D scans and CAD shapes into 4D sequences with exact correspondences."""


class _Part(click.ParamType):
    """I/N."""

    name = "I/N"

    def convert(self, value, param, context):
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
        number, of = map(int, numbers.groups()) if numbers else (0, 0)
        if not 1 <= number <= of:
            self.fail(f"{value!r} is not I/N with I from 1 to N, like 3/8", param, context)
        return number, of


def _own_data(command):
    """Options that add to what gen4d's manifest knows; both commands that read raw data have them."""

    def option(name: str, add: str, text: str, **more):
        def callback(context, parameter, values):
            from gen4d import sources

            context.call_on_close(sources.forget_manifests)
            for value in values:
                getattr(sources, add)(value)

        return click.option(name, multiple=True, expose_value=False, callback=callback, help=text, **more)

    own = "Manifest of your own data sets, label spaces and heights, in the form of datasets_manifest.yaml."
    height, glob = "Heights of a class of shapes in metres.", "Take what this finds for the scans: '**/*.ply'."
    command = option("--height", "add_height", height, metavar="NAME=LOW:HIGH")(command)
    command = option("--glob", "add_glob", glob, metavar="PATTERN")(command)
    return option("--manifest", "add_manifest", own, type=_FOLDER)(command)


class _Range(click.ParamType):
    """LOW-HIGH, or one number for both."""

    name = "LOW-HIGH"

    def convert(self, value, param, context):
        numbers = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", value)
        if not numbers:
            self.fail(f"{value!r} is not a number or LOW-HIGH, like 1-3", param, context)
        return int(numbers[1]), int(numbers[2] or numbers[1])


def _class_names(classes: str | None) -> tuple[str, ...]:
    """The classes of `--classes`, as the shapes' folder may have them."""
    from gen4d.sources import class_name_of

    return tuple(class_name_of(name) for name in classes.split(",")) if classes else Config.classes


@cli.command(
    "build",
    short_help="Build a data set of sequences from scans and shapes, or from posed frames.",
    epilog=_example(
        "gen4d build --scans scannet/ --shapes ModelNet40/ --workers 8",
        "gen4d build --kind frames --scans scannet_frames_25k/ --out data/frames",
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
@click.option("--scans", type=_FOLDER, help="Folder of scans: ScanNet, Pointcept's, point files; or frames, or sweeps.")
@click.option(
    "--shapes", type=_FOLDER, help="Folder of shapes: ModelNet's layout, .off, .obj, .glb, .urdf; views: points too."
)
@click.option(
    "--out", default=pathlib.Path("data/sequences"), type=_FOLDER, show_default=True, help="Data set to write."
)
@click.option("--split", type=_FOLDER, help="List of the scans to use, one name per line, or train, val, ...")
@click.option("--classes", help=f"Classes of shapes, separated by commas.  [default: {','.join(HEIGHT_CLASSES)}]")
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
@_own_data
@click.option("--seed", type=int, help=f"Seed of all random draws.  [default: {Config.seed}]")
@click.option("--sequences", type=int, help=f"Sequences per scan.  [default: {Config.sequences}; frames, sweeps: all]")
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
def build_command(
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
    **fields,
):
    """Build a data set of sequences: by default of shapes that move through scans.

    With --kind frames or sweeps, of posed depth images or lidar sweeps: windows of neighbouring ones, or pairs that
    overlap (--set choose=pairs). With --kind views, of shapes alone, meshes or points: each turned, shifted and scaled
    from frame to frame.

    The same command continues where an interrupted build stopped.
    """
    from gen4d import building

    if scheduler and workers > 1:
        raise click.UsageError("--workers and --scheduler exclude each other: give one of them")
    if scheduler:  # whose workers have other working folders
        scans, shapes = (None if folder is None else folder.absolute() for folder in (scans, shapes))
    given = building.Given(scans, shapes, split, up, units, shape_units, limit)
    try:
        found = building.find_inputs(kind, given, _config(kind, classes, fields, assignments))
    except building.GivenError as error:
        raise click.UsageError(str(error)) from None
    for line in found.notes:
        click.echo(f"note: {line}", err=True)
    for line in found.refused:
        click.echo(f"refused: {line}", err=True)
    if dry_run:
        _estimate(found.inputs, out, workers)
        return
    part = building.Part(*part) if part else None
    started = time.monotonic()
    progress = _Progress(out, part)
    built = building.build_found(found, out, workers, scheduler or "", part, strict, progress)
    code = _conclude(built.sidecars, built.refused[len(found.refused) :], built.manifest)
    took = report.format_seconds(time.monotonic() - started)
    if part:
        mine = report.counted(len(built.sidecars), "shard")
        click.echo(f"part {part} done in {took}, {mine} of {built.shards}; after all parts: gen4d merge {out}")
    else:
        click.echo(f"done in {took}: gen4d verify {out}")
    sys.exit(1 if found.refused else code)


def _config(kind: str, classes: str | None, fields: dict, assignments: tuple[str, ...]):
    """The config of a kind, with the fields that have options of their own and those of --set."""
    from gen4d.building import kind_of

    given = {name: value for name, value in fields.items() if value is not None and value is not False}
    if classes:
        given["classes"] = _class_names(classes)
    of = kind_of(kind).CONFIGS[kind]
    known = {field.name for field in dataclasses.fields(of)}
    odd = sorted(set(given) - known - ({"movers"} if "movers_min" in known else set()))
    if odd:
        raise click.UsageError(f"--{odd[0].replace('_', '-')}: sequences of kind {kind} have none: leave it out")
    if "movers" in given:
        given["movers_min"], given["movers_max"] = given.pop("movers")
    return override(of(**given), assignments)


def _conclude(sidecars, refused, manifest) -> int:
    """Say what came out, and what did not; returns the exit code."""
    for line in report.summary(sidecars[number] for number in sorted(sidecars)):
        click.echo(line)
    for message in refused:
        click.echo(f"refused: {message}", err=True)
    bare = [scan["name"] for sidecar in sidecars.values() for scan in sidecar["scans"] if not scan["sequences"]]
    if manifest is not None and not manifest["totals"]["sequences"]:
        click.echo("Error: no sequence could be made; the lines above name the rule that failed", err=True)
    return int(bool(refused) or bool(bare))


@cli.command("merge", short_help="Finish a build in parts.", epilog=_example("gen4d merge data/sequences"))
@click.argument("dataset", type=_FOLDER)
def merge_command(dataset) -> None:
    """Finish a build in parts (gen4d build --part): check that every shard is there and write dataset.json."""
    from gen4d import building

    try:
        merged = building.merge(dataset)
    except OSError as error:
        raise building.unwritable(error, dataset) from None
    refused = building.refused(merged.sidecars.values(), "scans", "shapes")
    code = _conclude(merged.sidecars, refused, merged.manifest)
    click.echo(f"merged {report.counted(len(merged.sidecars), 'shard')}: gen4d verify {dataset}")
    sys.exit(code)


class _Progress:
    """Says how far a build is: lines with rate and time left, rare enough for a log file."""

    def __init__(self, out: pathlib.Path, part):
        self.out, self.part = out, part
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
            click.echo(f"building {report.counted(state.of, 'scan')} in {shards} into {self.out}")
        self.started = self.printed = time.monotonic()

    def _advance(self, state) -> None:
        now = time.monotonic()
        if now - self.printed < _SECONDS_A_LINE and state.scans < state.of:
            return
        self.printed = now
        rate = state.scans / max(now - self.started, 1e-9)
        left = report.format_seconds((state.of - state.scans) / rate)
        click.echo(f"{state.scans}/{state.of} scans, {state.sequences} sequences, {rate:.1f} scans/s, {left} left")


def _estimate(inputs, out: pathlib.Path, workers: int) -> None:
    from gen4d import building
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
        raise building.BuildError(
            f"no sequence could be made in a trial of {report.counted(trial.scans, 'scan')}: {trial.reason}"
        )
    whole = trial.scaled(len(inputs.scans), workers)
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if p.exists())).free
    took = report.format_seconds(whole.seconds)
    click.echo(f"from {trial.scans} of {len(inputs.scans)} scans, built in memory:")
    click.echo(f"  sequences  {whole.sequences}")
    click.echo(f"  disk       {report.format_bytes(whole.bytes)}, {report.format_bytes(free)} free in {out}")
    click.echo(f"  time       {took} with {workers} workers, reading at the speed of this trial")
    click.echo(f"  memory     {report.format_bytes(whole.memory)} with {workers} workers")


@cli.command(
    short_help="Say what a data set, or one of its sequences, holds.",
    epilog=_example("gen4d inspect data/sequences", "gen4d inspect data/sequences scene0000_00/003"),
)
@click.argument("dataset")
@click.argument("sequence", required=False)
def inspect(dataset, sequence) -> None:
    """Say what a data set holds, or one SEQUENCE of it (an id or a number). DATASET is a folder or a URL."""
    from gen4d.building import refused
    from gen4d.shards import FormatError, open_dataset
    from gen4d.shards.manifest import brief, read_sidecar

    opened = open_dataset(dataset)
    if sequence is not None:
        _inspect_sequence(opened, _find(opened, sequence))
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
        lines = report.summary(sidecars) + [f"refused: {line}" for line in refused(sidecars, "scans", "shapes")]
    except (KeyError, TypeError, AttributeError):
        raise FormatError(f"{dataset}: a shard's .json lacks required entries: not written by gen4d") from None
    for line in lines:
        click.echo(line)


def _find(opened, sequence: str) -> int:
    """Number of a sequence given by its number or id."""
    from gen4d.shards import FormatError

    reason = "too high"
    try:
        number = int(sequence) if sequence.isdecimal() else opened.find(sequence)
    except KeyError as error:
        number, reason = len(opened), _gap(opened, sequence) or error.args[0]
    if number < len(opened):
        return number
    if not len(opened):
        raise FormatError(f"{opened.home.where()}: holds no sequence: gen4d inspect says why")
    first = opened[0].id
    message = f"{sequence!r} is neither a number below {len(opened)} nor an id like {first} ({reason})"
    raise click.BadParameter(message)


def _gap(opened, sequence: str) -> str:
    """Why a scan has no sequence of an id, where it was given up."""
    from gen4d.shards.manifest import read_sidecar

    name, _, k = sequence.rpartition("/")
    for number in range(len(opened.manifest["shards"])):
        for scan in read_sidecar(opened.home, number)["scans"]:
            if scan["name"] == name and k.isdecimal() and int(k) in scan.get("gaps", ()):
                return f"a gap: {report.explain_gaps(scan)}"
    return ""


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


@cli.command(short_help="Check that a data set is intact and complete.", epilog=_example("gen4d verify data/sequences"))
@click.argument("dataset")
@click.option("--quick", is_flag=True, help="Check only names, sizes, and the hashes of the .json files.")
def verify(dataset, quick) -> None:
    """Check that a data set, a folder or a URL, is intact and complete: every bit of every file."""
    from gen4d.shards import verify as checks
    from gen4d.shards.dataset import open_dataset

    opened = open_dataset(dataset)
    problems = [line for line in checks.verify(opened, quick) if line]
    for line in problems:
        click.echo(line, err=True)
    done = "names and sizes" if quick else "every file, chunk and table"
    totals = opened.manifest["totals"]
    if not problems:
        shards = report.counted(len(opened.manifest["shards"]), "shard")
        click.echo(f"{dataset}: {shards}, {totals['sequences']} sequences: {done} intact")
    sys.exit(bool(problems))


@cli.command(
    short_help="Show a scan or a sequence: a page, a picture, a moving picture.",
    epilog=_example(
        "gen4d view data/sequences scene0000_00 --out scene.html",
        "gen4d view data/sequences scene0000_00/003 --out sequence.png",
    ),
)
@click.argument("dataset")
@click.argument("what", default="")
@click.option(
    "--out",
    default=pathlib.Path("scan.html"),
    type=_FOLDER,
    show_default=True,
    help="File to write: .html, .png or .gif.",
)
def view(dataset, what, out) -> None:
    """Show WHAT, a scan or a sequence (id or number) of a data set, which is a folder or a URL.

    An .html holds a scan with all its sequences and opens in any browser, without a network. A .png or .gif shows one
    sequence, of a scan the one in which a shape moves farthest.
    """
    from gen4d.report import draw
    from gen4d.shards.dataset import open_dataset

    if out.suffix.lower() not in draw.WRITERS:
        raise click.BadParameter(f"{out}: give a name that ends in .html, .png or .gif", param_hint="--out")
    opened = open_dataset(dataset)
    numbers = opened.numbers(opened.scan_names[opened.scan_of(0)]) if len(opened) else []
    if what in opened.scan_names:
        numbers = opened.numbers(what)
    elif what:
        numbers = [_find(opened, what)]
    click.echo(f"{out}: {draw.write(opened, numbers, out)}")


@cli.command(
    short_help="Write a data set as HDF5.",
    epilog=_example("gen4d export data/sequences --to hdf5 --out data/hdf5 --pairs"),
)
@click.argument("dataset")
@click.option("--to", "kind", type=click.Choice(["hdf5"]), default="hdf5", show_default=True, help="Format.")
@click.option("--out", required=True, type=_FOLDER, help="Folder to write.")
@click.option("--pairs", is_flag=True, help="Add explicit pair lists if the data set has none.")
def export(dataset, kind, out, pairs) -> None:
    """Write a data set, a folder or a URL, as HDF5, for readers that do not have Zarr."""
    from gen4d import building
    from gen4d.exports.hdf5 import export_hdf5
    from gen4d.shards.dataset import open_dataset

    opened = open_dataset(dataset)
    started = time.monotonic()
    try:
        shards = sum(1 for _ in export_hdf5(opened, out, pairs))
    except OSError as error:
        raise building.unwritable(error, out) from None
    seconds = report.format_seconds(time.monotonic() - started)
    click.echo(f"{out}: {report.counted(shards, 'shard')}, {len(opened)} sequences in {kind}, in {seconds}")


@cli.command(
    short_help="Write built-in scans and shapes; nothing is downloaded.",
    epilog=_example("gen4d samples data/samples --rooms 50"),
)
@click.argument("folder", type=_FOLDER)
@click.option(
    "--rooms",
    default=12,
    show_default=True,
    type=click.IntRange(1),
    help="Number of rooms; each is scanned one to three times.",
)
@click.option("--shapes", default=6, show_default=True, type=click.IntRange(1), help="Shapes per class.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of all random draws.")
@click.option("--level", is_flag=True, help="Write level scans instead of tilted ones, which real ones are.")
def samples(folder, rooms, shapes, seed, level) -> None:
    """Write built-in scans and shapes, so that everything can be tried without a download."""
    from gen4d import building
    from gen4d.samples import write_samples

    try:
        written = write_samples(
            folder, rooms, shapes, seed, lambda i, n, what: click.echo(f"{i}/{n} {what}"), tilted=not level
        )
    except OSError as error:
        raise building.unwritable(error, folder) from None
    there = "" if written.written else ", there already"
    click.echo(f"{folder}: {written.scans} scans in scans/, {written.shapes} shapes in shapes/{there}")


class _Reading:
    """Says how many files are read, rarely enough for a log file, on standard error."""

    def __init__(self):
        self.printed = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        if time.monotonic() - self.printed > _SECONDS_A_LINE:
            self.printed = time.monotonic()
            click.echo(f"{done}/{of} {what} read", err=True)


@cli.command(
    "doctor",
    short_help="Check raw folders before a long build.",
    epilog=_example("gen4d doctor --scans scannet/ --shapes ModelNet40/"),
)
@click.option("--kind", default="moving", show_default=True, type=click.Choice(BUILT), help="As for build.")
@click.option("--scans", type=_FOLDER, help="Folder of scans.")
@click.option("--shapes", type=_FOLDER, help="Folder of shapes.")
@click.option("--split", type=_FOLDER, help="File with the names of the scans to use.")
@click.option("--up", help="Up axis of the scans, as for build.")
@click.option("--units", help="Unit of the scans, as for build.")
@click.option("--classes", help="Classes of shapes, as for build: others are not read.")
@click.option("--shape-units", help="Unit of shapes that have one, as for build.")
@click.option("--shape-up", default="auto", show_default=True, help="Up axis of the shapes, as for build.")
@_own_data
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Number of processes.")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
def doctor_command(kind, scans, shapes, split, up, units, classes, shape_units, shape_up, workers, as_json) -> None:
    """Read raw folders before a long build, and report everything that is wrong with them at once."""
    if scans is None and shapes is None:
        raise click.UsageError("give --scans, --shapes, or both")
    from gen4d import sources
    from gen4d.building.moving import find_orientation
    from gen4d.report import doctor

    findings = []
    if scans is not None:
        given = up is not None or units is not None
        orientation = find_orientation(sources.find_scans(scans, split).entry, up, units) if given else None
        findings += doctor.examine_scans(scans, split, orientation, progress=_Reading(), workers=workers)
    if shapes is not None and kind == "views":
        findings += _examine_views(shapes, split, classes, shape_up, shape_units)
    if shapes is not None and kind == "moving":
        metres = sources.parse_units(shape_units, "--shape-units") if shape_units else 0.0
        reading = {"progress": _Reading(), "workers": workers}
        findings += doctor.examine_shapes(
            shapes, _class_names(classes), None, shape_up, metres_per_unit=metres, **reading
        )
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.level}: {finding.path}: {finding.message}")
    sys.exit(any(finding.level == "error" for finding in findings))


def _examine_views(shapes: pathlib.Path, split, classes, shape_up: str, shape_units: str | None):
    from gen4d import sources
    from gen4d.config import ViewsConfig
    from gen4d.report.shapes import examine_shape_views

    metres = sources.parse_units(shape_units, "--shape-units") if shape_units else 0.0
    wanted = _class_names(classes) if classes else ()
    return examine_shape_views(
        shapes, ViewsConfig(classes=wanted, shape_up=shape_up, shape_metres=metres), split, _Reading()
    )
