"""What computes sparse convolutions: spconv, or spconv-triton. The only file that imports them, and their guards.

Both have the same functions: index pairs by `ops`, convolutions that autograd knows by `functional`. spconv runs on
CPUs and NVIDIA GPUs up to Hopper. spconv-triton runs on GPUs alone, of any maker that Triton knows; it compiles and
tunes a kernel for every layer at its first step, and keeps what it found in ~/.triton.

What the guards are for, all measured on spconv 2.3.8:

* Its CPU scatter shares two pointers between OpenMP threads: with more than one, nearly every result is wrong, by up to
  half of the largest value; with one thread it is exact and faster. So every CPU call of it, forward and backward,
  in whatever thread autograd runs it, sets one thread and gives the caller's number back.
* Its CPU backward asks for the CUDA stream, which a torch without CUDA refuses to give.
* Its CPU code knows one algorithm, Native. CUDA calls take MaskImplicitGemm: kernels here have at most 32 taps.
"""

import contextlib
import functools
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import torch

from train.errors import Refused

_MODULES = {"spconv": "spconv", "spconv-triton": "spconv_triton"}
_EXTRAS = {"spconv": "cpu, or with an NVIDIA GPU cu126", "spconv-triton": "triton, on a machine with a GPU"}


class BackendError(Refused):
    """A library that is not here, or that cannot compute where it is asked to."""


class Backend(NamedTuple):
    """One of the libraries."""

    name: str
    ops: ModuleType
    functional: ModuleType
    constants: ModuleType
    native: object  # algorithms
    fast: object

    def algorithm(self, device: torch.device):
        """The algorithm for a device."""
        return self.fast if device.type == "cuda" else self.native


def installed(name: str) -> bool:
    """Whether a backend's package is here."""
    return importlib.util.find_spec(_MODULES[name]) is not None


# Guards around spconv's CPU code ------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One OpenMP thread for the calling thread; its number of threads is restored."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _guarded(function):
    @functools.wraps(function)
    def on_one_thread(first, *args, **kwargs):
        if first.is_cuda:
            return function(first, *args, **kwargs)
        with one_thread():
            return function(first, *args, **kwargs)

    return on_one_thread


def _no_stream() -> int:
    return 0


def _install_guards(ops: ModuleType) -> None:
    """Replaces the names through which spconv's autograd functions reach its kernels, in forward and in backward."""
    for name in ("get_indice_pairs", "indice_conv", "indice_conv_backward"):
        setattr(ops, name, _guarded(getattr(ops, name)))
    if not torch.cuda.is_available():
        ops.get_current_stream = _no_stream


# Choosing -----------------------------------------------------------------------------------------------------------


@functools.cache
def load(name: str) -> Backend:
    """A backend by its name, guarded. Raises BackendError where it is not installed."""
    if not installed(name):
        raise BackendError(f"backend = {name}: it is not installed here: install the extra {_EXTRAS[name]}")
    module = _MODULES[name]
    # Their tensors have a metaclass of torch.fx that warns once of a name which it calls itself.
    quiet = logging.getLogger("torch.fx._symbolic_trace")
    quiet.addFilter(lambda record: "is_fx_tracing" not in record.getMessage())
    try:
        parts = [importlib.import_module(f"{module}.{part}") for part in ("core", "constants", "pytorch.ops")]
        functional_part = importlib.import_module(f"{module}.pytorch.functional")
    except ModuleNotFoundError as error:
        if name == "spconv":
            raise
        raise BackendError(f"backend = {name}: it needs {error.name}, which comes with torch's CUDA builds") from None
    core, constants, ops = parts
    if name == "spconv":
        _install_guards(ops)
    algorithms = core.ConvAlgo
    return Backend(name, ops, functional_part, constants, algorithms.Native, algorithms.MaskImplicitGemm)


_chosen: list[Backend] = []  # none yet, or one


def choose(name: str, device: torch.device) -> Backend:
    """Make a backend the one that computes from now on; `auto` is spconv where it is installed.

    Raises BackendError where it is not installed, or does not run on the device.
    """
    if name == "auto":
        name = "spconv" if installed("spconv") else "spconv-triton"
    backend = load(name)
    _refuse_cpu(backend, device)
    _chosen[:] = [backend]
    return backend


def use(name: str, precision: str, device: torch.device) -> None:
    """Choose a backend, and TF32 where the resolved precision is `tf32`. Raises BackendError."""
    choose(name, device)
    set_tf32(precision == "tf32")


def chosen(device: torch.device) -> Backend:
    """The backend that was chosen, or the one that `auto` is. Raises BackendError where the device is none of its."""
    if not _chosen:
        return choose("auto", device)
    _refuse_cpu(_chosen[0], device)
    return _chosen[0]


def _refuse_cpu(backend: Backend, device: torch.device) -> None:
    if backend.name == "spconv-triton" and device.type != "cuda":
        raise BackendError(
            f"backend = {backend.name}: it computes on GPUs alone, and this is {device}: set backend=spconv"
        )


# The matrix units' float32 ------------------------------------------------------------------------------------------


def set_tf32(on: bool) -> None:
    """Whether products of float32 numbers may be made of TF32 ones (10 bits of mantissa), in the chosen backend and in
    torch. Say it before the first step: spconv keeps the kernels that it has tuned for a layer, of either kind, for as
    long as the process lives, and the self-check refuses float32 after TF32."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    for backend in _chosen:
        backend.constants.SPCONV_ALLOW_TF32 = on


def tf32() -> bool:
    """Whether they may."""
    return torch.get_float32_matmul_precision() != "highest"


if not any(map(installed, _MODULES)):
    raise ModuleNotFoundError("neither spconv nor spconv-triton is installed", name="spconv")
