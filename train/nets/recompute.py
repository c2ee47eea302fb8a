"""Less memory for more time, with the same numbers: what a net keeps for the backward pass is made again there."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def made_again(net: nn.Module, call: Callable, *given) -> torch.Tensor:
    """call(*given), a forward of `net`, that keeps its input alone: the backward pass makes the forward again.

    Running statistics of norms are those of the first forward alone. Worth it where several forwards wait for one
    backward pass: then only one of them has its tensors at any moment.
    """
    contexts = functools.partial(_contexts, net)
    return checkpoint(call, *given, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _contexts(net: nn.Module):
    return contextlib.nullcontext(), _still_statistics(net)


@contextlib.contextmanager
def _still_statistics(net: nn.Module) -> Iterator[None]:
    """Norms in training mode that leave their running statistics as they are."""
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
