"""One process or several: which device this one uses, and how several agree. Started by `torchrun`, or not at all."""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from train.errors import Refused
from train.run.norms import share_norms

_PATIENCE = datetime.timedelta(minutes=30)  # for the slowest process: reading a data set's first shards takes a while

Value = TypeVar("Value")


class DeviceError(Refused):
    """A device that is not there."""


class World(NamedTuple):
    """This process among `size`; rank 0 writes logs and checkpoints."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def replicate(self, model: nn.Module, shared_norms: bool = False) -> nn.Module:
        """The module to call: it averages gradients over processes. Norms see their own process's share of the batch,
        and their running statistics are rank 0's; shared ones see all of it."""
        if self.size == 1:
            return model
        return DistributedDataParallel(share_norms(model, self.device) if shared_norms else model)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over processes of a vector that every process has."""
        if self.size > 1:
            distributed.all_reduce(values)
            values = values / self.size
        return values

    def led(self, do: Callable[[], Value]) -> Value:
        """What `do` returns in the leading process, given to all; where it fails, all of them raise its error.

        What only one process looks at (a folder, of which others may see another) cannot set them apart.
        """
        if self.size == 1:
            return do()
        outcome: list = [None]
        if self.leads:
            try:
                outcome = [(do(), None)]
            except Exception as error:  # of whatever kind: the others wait for it
                outcome = [(None, error)]
        distributed.broadcast_object_list(outcome, src=0, device=self.device if self.device.type == "cuda" else None)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value


def choose_device(name: str | None = None, number: int = 0) -> torch.device:
    """The device "cpu", or the GPU `number` for "cuda"; by default what there is. Raises DeviceError."""
    kind = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind != "cuda":
        return torch.device(kind)
    if not torch.cuda.is_available():
        why = "finds no GPU" if torch.version.cuda else "is a CPU build"
        raise DeviceError(
            f"--device cuda: torch {torch.__version__} {why}: use --device cpu; gen4d-train doctor says more"
        )
    count = torch.cuda.device_count()
    if number >= count:
        raise DeviceError(f"GPU {number} of this machine is asked for, it has {count}: start --nproc_per_node {count}")
    return torch.device(kind, number)


@contextlib.contextmanager
def join_world(device: str | None = None) -> Iterator[World]:
    """The processes that torchrun started, or this one alone. device: "cpu" or "cuda", by default what there is.

    CUDA processes take the GPU of their local rank and talk by nccl, CPU processes by gloo. Raises DeviceError.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    place = choose_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    kind = place.type
    if kind == "cuda":
        torch.cuda.set_device(place)
    if size == 1:
        yield World(0, 1, place)
        return
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield World(rank, size, place)
    finally:
        distributed.destroy_process_group()


def to_device(value, device: torch.device):
    """A batch, or any nest of tuples with tensors, with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        parts = [to_device(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
