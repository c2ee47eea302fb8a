"""Plain twins of the nets on points: every edge written out, layers as the papers print them."""

import torch
import torch.nn.functional as F


def nearest(x, k):
    """(N, k) rows of one cloud's k nearest points (N, c), by every distance."""
    distance = (x[:, None].double() - x[None].double()).square().sum(-1)
    return distance.sort(dim=1, stable=True).indices[:, :k]


def normed(x, norm, training):
    """Batch norm over all axes but the last, by its definition; running statistics are left alone."""
    rows = x.reshape(-1, x.shape[-1])
    mean = rows.mean(0) if training else norm.running_mean
    variance = rows.var(0, unbiased=False) if training else norm.running_var
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def edge_conv(x, layer, neighbours):
    """x (B, N, c), neighbours (B, N, k) rows of each cloud: W [x_j - x_i | x_i] of every edge, norm, LeakyReLU, further
    layers, maximum. Returns it and the first norm's input, of every edge."""
    other = torch.stack([cloud[rows] for cloud, rows in zip(x, neighbours, strict=True)])
    own = x[:, :, None].expand_as(other)
    edge = torch.cat([other - own, own], -1) @ layer.first.weight.T
    made = F.leaky_relu(normed(edge, layer.norm, layer.training), 0.2)
    for linear, norm, _ in zip(*[iter(layer.rest)] * 3, strict=True):
        made = F.leaky_relu(normed(made @ linear.weight.T, norm, layer.training), 0.2)
    return made.max(2).values, edge


def dgcnn(point, net):
    """Features of points (B, N, channels) and what all EdgeConvs made."""
    x, found = point, []
    for layer in net.layers:
        x, _ = edge_conv(x, layer, torch.stack([nearest(cloud, layer.k) for cloud in x]))
        found.append(x)
    linear, norm, _ = net.last
    local = torch.cat(found, -1)
    return F.leaky_relu(normed(local @ linear.weight.T, norm, net.training), 0.2), local


def pointnet(point, net):
    """Features of points (B, N, 1024)."""
    x = point
    for linear, norm, _ in zip(*[iter(net.layers)] * 3, strict=True):
        x = F.relu(normed(x @ linear.weight.T, norm, net.training))
    return x
