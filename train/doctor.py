"""Can this machine train? Packages, GPU and the numbers that its sparse convolutions compute."""

import itertools
import os
import platform
from typing import Literal, NamedTuple

from train.errors import Refused, reason

# Compute capabilities that spconv's wheels were compiled for; newer GPUs compile from PTX, or fail.
SPCONV_NEWEST = (9, 0)
TRITON = "spconv-triton"  # computes by Triton, has no cumm and no CPU code
REMEDY = "install one of the extras: from a clone of gen4d, pip install '.[cpu]', or with an NVIDIA GPU '.[cu126]'"


class Finding(NamedTuple):
    """One line of the report."""

    level: Literal["ok", "warning", "bad"]
    text: str


def examine() -> list[Finding]:
    """Every finding, worst or not, in the order in which to mend them. Takes some seconds."""
    try:
        import torch
    except ImportError as error:
        return [Finding("bad", f"Python {platform.python_version()}: {error}; {REMEDY}")]
    from train.run.machine import installed_sparse

    findings = [Finding("ok", f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}")]
    installed = installed_sparse()
    findings += check_packages(installed, torch.cuda.is_available())
    findings += check_gpus()
    findings.append(_threads())
    if any(name.startswith("spconv") for name in installed):
        findings += check_numbers()
    return findings


def check_packages(installed: dict[str, str], cuda: bool) -> list[Finding]:
    """Exactly one spconv and one cumm, built for the same CUDA, and for what torch has; or spconv-triton and a GPU."""
    findings = []
    if TRITON in installed:
        installed = dict(installed)
        findings.append(Finding("ok", f"{TRITON} {installed.pop(TRITON)}"))
        if not installed and cuda:
            return findings
    for kind in ("spconv", "cumm"):
        names = [name for name in installed if name.split("-")[0] == kind]
        if not names:
            remedy = "install one of the extras cu126, cu120, cpu" if kind == "spconv" else "install spconv again"
            findings.append(Finding("bad", f"no {kind}: {remedy}"))
        elif len(names) > 1:
            text = f"{len(names)} packages of {kind} overwrite each other ({', '.join(names)})"
            findings.append(Finding("bad", f"{text}: uninstall all spconv and cumm packages, then install one"))
        else:
            findings.append(Finding("ok", f"{names[0]} {installed[names[0]]}"))
    builds = {name.partition("-")[2] for name in installed}
    if len(builds) > 1:
        findings.append(Finding("bad", f"spconv and cumm are of different builds ({', '.join(installed)}): reinstall"))
    elif cuda and builds == {""}:
        findings.append(Finding("bad", "a CUDA machine with spconv's CPU build: install the extra cu126 instead"))
    return findings


def check_gpus() -> list[Finding]:
    """Each GPU against what torch and spconv were compiled for."""
    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}, but" if torch.version.cuda else "torch is a CPU build:"
        return [Finding("ok", f"{built} no GPU can be used; training runs on the CPU, preset small")]
    findings = []
    for number in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(number)
        free, total = torch.cuda.mem_get_info(number)
        text = f"GPU {number}: {torch.cuda.get_device_name(number)}, sm_{capability[0]}{capability[1]}, "
        text += f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        findings.append(Finding("ok", text))
        findings += check_capability(capability, torch.cuda.get_arch_list())
    return findings


def check_capability(capability: tuple[int, int], torch_archs: list[str]) -> list[Finding]:
    """A GPU's compute capability against the wheels. torch_archs: as `torch.cuda.get_arch_list` names them."""
    name = f"sm_{capability[0]}{capability[1]}"
    findings = []
    major = {arch.split("_")[1][:-1] for arch in torch_archs}
    if name not in torch_archs and str(capability[0]) not in major:
        text = f"this torch has no code for {name} ({', '.join(torch_archs)}): install another build"
        findings.append(Finding("bad", text))
    if capability > SPCONV_NEWEST:
        text = f"spconv's wheels end at sm_90: on {name} they compile from PTX at the first step, or fail"
        findings.append(Finding("warning", text))
    return findings


def _threads() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0))
    text = f"{cores} cores, torch uses {torch.get_num_threads()} threads; spconv's CPU code is held to one"
    return Finding("ok", text)


def check_numbers() -> list[Finding]:
    """Sparse convolutions against dense ones, on the CPU and on the GPU, in the precisions of training."""
    import torch

    try:
        from train.nets import backends, sparse

        cuda = torch.cuda.is_available()
        names = ("spconv", TRITON) if cuda else ("spconv",)
        loaded = [backends.load(name) for name in names if backends.installed(name)]
    except (ImportError, OSError, RuntimeError, Refused) as error:
        return [Finding("bad", f"spconv does not import ({reason(error)}): {REMEDY}")]
    runs = [("cuda", torch.float32), ("cuda", torch.float16)] if cuda else [("cpu", torch.float32)]
    findings = []
    for backend, (device, dtype) in itertools.product(loaded, runs):
        what = f"sparse convolutions by {backend.name} on {device} in {dtype}"
        try:
            backends.use(backend.name, "float32", torch.device(device))
            sparse.self_check(device, dtype)
            findings.append(Finding("ok", f"{what} equal dense ones"))
        except (ValueError, RuntimeError, AssertionError) as error:
            findings.append(Finding("bad", f"{what}: {reason(error)}"))
    return findings
