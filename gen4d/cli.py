"""The command line: `gen4d COMMAND`, signals and errors. Only this module and the commands print and exit.

Exit codes: 0 everything was done, 1 something was refused or failed, or a scan gave no sequence (the rest is there and
valid), 2 usage, 129, 130 and 143 after SIGHUP, Ctrl-C and SIGTERM, with a state that the same command continues.

What takes long to import is imported by the commands, when signals have their handlers and help needs none of it.
"""

import io
import os
import signal
import sys

import click

from gen4d import __version__, compiled
from gen4d.commands.build import build_command, merge_command
from gen4d.commands.card import card
from gen4d.commands.doctor import doctor_command
from gen4d.commands.export import export
from gen4d.commands.inspect import inspect
from gen4d.commands.report import report
from gen4d.commands.samples import samples
from gen4d.commands.verify import verify
from gen4d.commands.view import view

try:
    from gen4d import files  # needs what Windows has not
except ImportError as error:
    raise SystemExit(f"Error: {error}") from None

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
        message += f": {remedy}" if (remedy := files.remedy(error)) else ""
    except MemoryError:
        message = "not enough memory: use fewer --workers, or a machine with more memory"
    except ValueError as error:  # every error of ours is one; anything else is a bug and shows its trace
        if type(error) is ValueError:
            raise
        message = str(error)
    click.echo(f"Error: {message}", err=True)
    return 1


@click.group()
@click.version_option(__version__, prog_name="gen4d")
def cli() -> None:
    """Turn static 3D scans and CAD shapes into 4D sequences with exact correspondences."""


for command in (build_command, merge_command, inspect, verify, view, report, export, card, samples, doctor_command):
    cli.add_command(command)
