"""The weights of a backbone, on voxels or on points: read from runs and files, written for others."""

import hashlib
import json
import pathlib
from dataclasses import asdict
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import nn

from gen4d import files
from train.nets import foreign
from train.nets.heads import CHANNELS_IN
from train.nets.pooled import BACKBONES, POINT_NETS, Trained, make_backbone
from train.nets.unet import NETS, NetShape, UNet
from train.run import checkpoint
from train.run.checkpoint import CheckpointError

LAYOUT = (
    "Sparse convolution weights are (out, kx, ky, kz, in), as spconv 2 keeps them, on coordinates [batch, x, y, z]. "
    "spconv 1: weight.permute(1, 2, 3, 4, 0). torch.nn.Conv3d: weight.permute(0, 4, 1, 2, 3). "
    "down.N: kernel 2, stride 2, channels kept; up.N: its inverse. shortcut.0: a linear layer (out, in). "
    "Input per voxel: three channels for each of `inputs`, ones for occupancy. Norms are torch.nn.BatchNorm1d."
)
POINT_LAYOUT = (
    "Linear layers (out, in) without bias on points (x, y, z), each followed by its torch.nn.BatchNorm1d. pointnet: "
    "layers.0, 3, 6, 9 and 12, norms layers.1, 4, .., ReLU; a cloud has the maximum over its points. dgcnn, dgcnn-seg: "
    "layers.N.first takes [x_j - x_i | x_i] of the k nearest points j of i, i among them, in what the layer before "
    "gave, norm layers.N.norm, LeakyReLU 0.2; layers.N.rest.0 and its norm rest.1, where there, go on from it; "
    "then the maximum over j. last.0 and its norm last.1, LeakyReLU 0.2, take all layers side by side; a cloud has the "
    "maximum over its points and, of dgcnn, their mean behind it."
)


class Backbone(NamedTuple):
    """A pre-trained net in evaluation mode, the voxels that it was trained on (0: it is on points), the names of the
    scans that it has seen, of which earlier versions say nothing, what its first layer takes (None: weights of others
    do not say), and its name among `pooled.BACKBONES`."""

    net: nn.Module
    voxel_m: float
    scans: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = ("occupancy",)
    name: str = ""

    @property
    def on_points(self) -> bool:
        """Whether the net takes points, not voxels."""
        return self.name in POINT_NETS


def load_backbone(path: pathlib.Path) -> Backbone:
    """From a run folder (its newest checkpoint), a checkpoint folder, a file of `export_weights`, or a .pth file of
    PointContrast or Contrastive Scene Contexts.

    Raises CheckpointError.
    """
    weights, about = _read_any(path)
    if about["net"] in POINT_NETS:
        net = make_backbone(about["net"], about["k"], torch.Generator().manual_seed(0))
        checkpoint.load_weights(weights, net, str(path))
        return Backbone(net.eval(), 0.0, tuple(about["scans"]), name=about["net"])
    shape = {name: tuple(value) if isinstance(value, list) else value for name, value in about["shape"].items()}
    inputs = about.get("inputs", ["occupancy"])
    net = UNet(NetShape(**shape), 3, torch.Generator().manual_seed(0), CHANNELS_IN * len(inputs or "1"))
    checkpoint.load_weights(weights, net, str(path))
    seen = tuple(about.get("scans", ()))
    return Backbone(net.eval(), about["voxel_m"], seen, inputs and tuple(inputs), about["net"])


def load_trained(path: pathlib.Path, k: int) -> Trained:
    """The same, for nets whose features are pooled. k: of DGCNN's where the weights do not say. Raises
    CheckpointError."""
    weights, about = _read_any(path)
    named = {f"backbone.{name}": value for name, value in weights.items()}
    return Trained(about["net"], about.get("k", k), named, about.get("voxel_m", 0.0), tuple(about.get("scans", ())))


def check_geometry(weights: Backbone) -> None:
    """Raises CheckpointError unless a backbone takes the occupancy of voxels alone."""
    if weights.on_points:
        raise CheckpointError(
            f"the weights are of {weights.name}, a net on points, and only nets on voxels can be used here: give them "
            "to classify, or to finetune --task blocks"
        )
    if weights.inputs not in (None, ("occupancy",)):
        raise CheckpointError(
            f"the weights' first layer takes {', '.join(weights.inputs)}, and only nets of geometry can be used here: "
            "fine-tune with inputs=occupancy, or evaluate the run on its own inputs"
        )


def _read_any(path: pathlib.Path) -> tuple[dict[str, torch.Tensor], dict]:
    """A backbone's tensors, and what is needed to use them."""
    if path.is_file() and path.suffix in (".pth", ".pt"):
        about = {"net": foreign.NET, "shape": asdict(NETS[foreign.NET]), "voxel_m": foreign.VOXEL_M, "inputs": None}
        return foreign.read_foreign(path), about | {"method": path.name, "step": None, "layout": LAYOUT}
    return _read_export(path) if path.is_file() else backbone_weights(_find_checkpoint(path))


def _find_checkpoint(path: pathlib.Path) -> checkpoint.Checkpoint:
    if path.name.startswith("checkpoint-"):
        return checkpoint.read(path)
    found = checkpoint.newest(path)
    if not found:
        raise CheckpointError(f"{path}: no checkpoint there: give a run folder, a checkpoint or exported weights")
    return found


def backbone_weights(found: checkpoint.Checkpoint) -> tuple[dict[str, torch.Tensor], dict]:
    """The backbone's tensors of a run's checkpoint, and what is needed to use them. Raises CheckpointError."""
    own = found.config.get("backbone", {})
    prefix = own.get("prefix", "nothing")
    weights = {name.removeprefix(prefix): value for name, value in found.model.items() if name.startswith(prefix)}
    if not weights or own.get("net") not in BACKBONES:
        raise CheckpointError(f"{found.path}: holds no backbone of this version: give a run of this version")
    seen = sorted({*found.config.get("scans", ()), *found.config.get("weights_scans", ())})
    about = {"net": own["net"], "method": own["method"], "step": found.step, "scans": seen}
    if own["net"] in POINT_NETS:
        return weights, about | {"k": own["k"], "points": own["points"], "layout": POINT_LAYOUT}
    about |= {"shape": asdict(NETS[own["net"]]), "voxel_m": own["voxel_m"]}
    return weights, about | {"inputs": own.get("inputs", ["occupancy"]), "layout": LAYOUT}


def stored_backbone(
    net: str, voxel_m: float, prefix: str, method: str, inputs: tuple[str, ...] = ("occupancy",)
) -> dict:
    """What a run's checkpoints remember of the backbone in them. prefix: of its tensors' names; method: what taught it;
    inputs: what its first layer takes."""
    return {"net": net, "voxel_m": voxel_m, "prefix": prefix, "method": method, "inputs": list(inputs)}


def export_weights(run: pathlib.Path, out: pathlib.Path, module: bool = False) -> dict:
    """Write the backbone of whatever `load_backbone` reads as one safetensors file; returns what its header says.

    module: and beside it, as .py, the net itself for those who have torch and spconv alone (`standalone.py`). Raises
    CheckpointError.
    """
    weights, about = _read_any(run)
    if module and about["net"] in POINT_NETS:
        raise CheckpointError(f"{run}: of {about['net']}, a net on points: leave out --module, which writes U-Nets")
    files.make_folder(out.parent)
    if module:
        files.write(out.with_suffix(".py"), pathlib.Path(__file__).with_name("standalone.py").read_bytes())
    files.write(out, safetensors.torch.save(weights, {"format": "pt", "gen4d": json.dumps(about)}))
    return about


def _read_export(path: pathlib.Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            about = json.loads((opened.metadata() or {})["gen4d"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, about
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not weights that export-weights wrote ({error}): give a run folder") from None


def weights_digest(weights: Backbone) -> str:
    """SHA-256 over a backbone's names and values."""
    digest = hashlib.sha256()
    for name, value in weights.net.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
