"""What commands have around them: options that several share, examples in their help, sequences by number or id."""

import pathlib

import click

from gen4d.config import Config
from gen4d.report import summary as report

FOLDER = click.Path(path_type=pathlib.Path)
SECONDS_A_LINE = 2.0


def example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def own_data(command):
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
    return option("--manifest", "add_manifest", own, type=FOLDER)(command)


def class_names(classes: str | None) -> tuple[str, ...]:
    """The classes of `--classes`, as the shapes' folder may have them."""
    from gen4d.sources import class_name_of

    return tuple(class_name_of(name) for name in classes.split(",")) if classes else Config.classes


def find_sequence(opened, sequence: str, hint: str) -> int:
    """Number of a sequence given by its number or id. hint: what it was given as."""
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
    raise click.BadParameter(message, param_hint=hint)


def _gap(opened, sequence: str) -> str:
    """Why a scan has no sequence of an id, where it was given up."""
    from gen4d.shards.manifest import read_sidecar

    name, _, k = sequence.rpartition("/")
    for number in range(len(opened.manifest["shards"])):
        for scan in read_sidecar(opened.home, number)["scans"]:
            if scan["name"] == name and k.isdecimal() and int(k) in scan.get("gaps", ()):
                return f"a gap: {report.explain_gaps(scan)}"
    return ""
