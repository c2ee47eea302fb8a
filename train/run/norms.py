"""Batch norms that see all processes' batches.

On GPUs they are torch's own, which take CUDA tensors only; on CPUs they are `SharedNorm`. Names of parameters and
statistics stay, so checkpoints of either kind fit.
"""

import torch
from torch import distributed, nn


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over processes, and of its gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def sum_over_processes(x: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor that every process has, through which gradients go; of one process the tensor itself."""
    return _SumOverProcesses.apply(x) if distributed.is_initialized() else x


class SharedNorm(nn.BatchNorm1d):
    """Batch norm with mean and variance over the rows of all processes; in evaluation mode it is an ordinary one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels), n may differ between processes -> the same shape."""
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        total = sum_over_processes(torch.cat([wide.sum(0), wide.new_full((1,), len(wide))]))
        rows = total[-1].detach()
        mean = total[:-1] / rows
        centred = wide - mean
        variance = sum_over_processes(centred.square().sum(0)) / rows
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * rows / (rows - 1)).to(self.running_var.dtype), self.momentum)
        normed = centred * torch.rsqrt(variance + self.eps)
        return (normed * self.weight + self.bias if self.affine else normed).to(x.dtype)


def share_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with norms over all processes, in place; its parameters are the same objects."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for part in list(model.modules()):
        for name, norm in list(part.named_children()):
            if type(norm) is nn.BatchNorm1d:
                setattr(part, name, _shared(norm))
    return model


def _shared(norm: nn.BatchNorm1d) -> SharedNorm:
    shared = SharedNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
    shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    return shared.train(norm.training)
