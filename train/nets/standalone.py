"""A 3D backbone that gen4d-train wrote, in one file that needs torch, spconv 2 and safetensors alone.

    net = load("backbone.safetensors", "cuda")
    features = net(coordinate, given, batch_size)  # (n, channels)

coordinate (n, 4) int32: unique rows of [cloud, x, y, z] >= 0, in voxels of `net.about["voxel_m"]` metres, z up.
given (n, 3 x inputs): what `net.about["inputs"]` names, in its order. occupancy is ones; colour is red, green, blue
from -0.5 to 0.5; normal is a vector of length 1; a voxel has the mean of its points.

The net is in evaluation mode; net.train() and an optimiser go on from its weights. On a CPU, spconv is wrong with more
than one thread: set OMP_NUM_THREADS=1.

Pointcept: import this file where its models are built, and name the backbone in a config of DefaultSegmentorV2:
backbone=dict(type="gen4d", weights="backbone.safetensors"), backbone_out_channels=96. Grid size: the voxels' metres.
"""

import json

import spconv.pytorch as spconv
import torch
from safetensors import safe_open
from spconv.core import ConvAlgo
from torch import nn


class ConvNorm(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, conv, channels):
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm1d(channels)

    def forward(self, x):
        x = self.conv(x)
        return x.replace_feature(torch.relu(self.norm(x.features)))


class Block(nn.Module):
    """Two convolutions with norms beside an identity, or a pointwise layer with norm where channels change."""

    def __init__(self, c_in, c_out, level, algo):
        super().__init__()
        kind = {"padding": 1, "bias": False, "indice_key": f"sub{level}", "algo": algo}
        self.first = ConvNorm(spconv.SubMConv3d(c_in, c_out, 3, **kind), c_out)
        self.second, self.norm = spconv.SubMConv3d(c_out, c_out, 3, **kind), nn.BatchNorm1d(c_out)
        self.shortcut = nn.Identity()
        if c_in != c_out:
            self.shortcut = nn.Sequential(nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out))

    def forward(self, x):
        y = self.second(self.first(x))
        return y.replace_feature(torch.relu(self.norm(y.features) + self.shortcut(x.features)))


def blocks(c_in, c_out, count, level, algo):
    """`count` blocks, the first of which changes the channels."""
    return nn.Sequential(*(Block(c_out if number else c_in, c_out, level, algo) for number in range(count)))


class UNet(nn.Module):
    """layers, planes: blocks and channels of every stage, encoder then decoder; stem: channels of the first layer."""

    def __init__(self, layers, planes, stem, channels_in, algo=None):
        super().__init__()
        self.levels, self.channels, self.channels_in = len(planes) // 2, planes[-1], channels_in
        skips = (stem, *planes[: self.levels - 1])
        first = spconv.SubMConv3d(channels_in, stem, 3, padding=1, bias=False, indice_key="sub0", algo=algo)
        self.stem = ConvNorm(first, stem)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(skips):
            kind = {"bias": False, "indice_key": f"down{level}", "algo": algo}
            self.down.append(ConvNorm(spconv.SparseConv3d(width, width, 2, stride=2, **kind), width))
            self.encoder.append(blocks(width, planes[level], layers[level], level + 1, algo))
        width = planes[self.levels - 1]
        for stage, level in enumerate(reversed(range(self.levels)), start=self.levels):
            kind = {"bias": False, "indice_key": f"down{level}", "algo": algo}
            self.up.append(ConvNorm(spconv.SparseInverseConv3d(width, planes[stage], 2, **kind), planes[stage]))
            width = planes[stage]
            self.decoder.append(blocks(width + skips[level], width, layers[stage], level, algo))

    def forward(self, coordinate, given, batch_size):
        """(n, 4) int32 and (n, channels_in) -> (n, channels)."""
        step = 2**self.levels  # a size that strides do not divide would lose the last voxels
        size = [(int(most) // step + 1) * step for most in coordinate[:, 1:].amax(0)]
        x = self.stem(spconv.SparseConvTensor(given, coordinate.contiguous(), size, batch_size))
        skips = []
        for down, encoder in zip(self.down, self.encoder, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = up(x)
            x = decoder(x.replace_feature(torch.cat([x.features, skips.pop().features], dim=1)))
        return x.features


def load(path, device="cuda"):
    """The net of a file that `gen4d-train export-weights` wrote, in evaluation mode on a device."""
    with safe_open(path, "pt") as opened:
        about = json.loads(opened.metadata()["gen4d"])
        weights = {name: opened.get_tensor(name) for name in opened.keys()}
    algo = None if torch.device(device).type == "cuda" else ConvAlgo.Native  # the only one of spconv's CPU code
    net = UNet(**about["shape"], channels_in=weights["stem.conv.weight"].shape[-1], algo=algo)
    net.load_state_dict(weights)
    net.about = about
    return net.eval().to(device)


class PointceptBackbone(nn.Module):
    """The net as Pointcept calls its backbones."""

    def __init__(self, weights, device="cuda"):
        super().__init__()
        self.net = load(weights, device)

    def forward(self, data):
        """data: grid_coord (n, 3), unique in a cloud; offset (clouds,), ends of the clouds' rows; feat (n, channels),
        which is not read where the net takes occupancy alone. Returns (n, channels)."""
        cell, offset = data["grid_coord"], data["offset"]
        counts = torch.diff(offset, prepend=offset.new_zeros(1))
        cloud = torch.repeat_interleave(torch.arange(len(offset), device=cell.device), counts)
        given = data["feat"]
        if self.net.about["inputs"] in (None, ["occupancy"]):
            given = given.new_ones(len(cell), self.net.channels_in)
        return self.net(torch.cat([cloud[:, None], cell], dim=1).int(), given, len(offset))


try:
    from pointcept.models.builder import MODELS
except ImportError:
    pass
else:
    MODELS.register_module("gen4d")(PointceptBackbone)
