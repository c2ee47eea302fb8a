"""Batches on the device, the next one made ready there while the device still works on the last.

A convolution needs its index pairs, and how many voxels the next coarser level has: the forward pass waits for the GPU
at every level. Both depend on coordinates alone. So the next batch is copied, checked and given its rulebooks on a
stream of its own as soon as the backward pass of this one is under way.
"""

from collections.abc import Callable, Iterator

import torch

from train.run.log import Meter
from train.run.world import to_device


class Ahead:
    """The batches of an iterator, on a device."""

    def __init__(self, batches: Iterator, device: torch.device, meter: Meter, prepare: Callable | None):
        """prepare: what gives a batch on the device its rulebooks; None, or a CPU: batches are moved when asked for."""
        self._batches, self._device, self._meter = batches, device, meter
        self._prepare = prepare if device.type == "cuda" else None
        self._side = torch.cuda.Stream(device) if self._prepare else None
        self._ready = None

    def make_next(self) -> None:
        """Get the next batch ready on the side stream."""
        if self._side is None:
            return
        with torch.cuda.stream(self._side):
            batch = self._prepare(to_device(self._meter.next_of(self._batches), self._device))
        self._ready = batch, self._side.record_event()

    def take(self):
        """The next batch."""
        if self._side is None:
            return to_device(self._meter.next_of(self._batches), self._device)
        if self._ready is None:
            self.make_next()
        (batch, event), self._ready = self._ready, None
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        _used_by(stream, batch)
        return batch


def _used_by(stream: torch.cuda.Stream, value) -> None:
    """Tensors anywhere in a value stay until the stream is done with them."""
    if isinstance(value, torch.Tensor):
        if value.is_cuda:
            value.record_stream(stream)
    elif isinstance(value, dict):
        _used_by(stream, tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for part in value:
            _used_by(stream, part)
