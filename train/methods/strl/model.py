"""STRL (sections 3.2 and 4, Algorithm 1), which is BYOL on two frames of a sequence.

Shapes. B sequences, d projected width.

    online    encoder e, projector f, predictor r     theta, learned
    target    encoder e, projector f                  phi, follows theta after every update (Eq. 3)

Norms of both see the clouds of one frame at a time, and the target's run in training mode: their running statistics are
those of its own forwards, not averages of the online net's.
"""

import copy

import torch
from torch import nn

from train.methods.ema import decay_at, follow
from train.methods.losses import fit, prediction_loss, spread
from train.methods.strl.batch import Batch
from train.methods.strl.config import Strl
from train.nets.pointnet import pointwise
from train.nets.pooled import Clouds, Pooled
from train.run.loop import Loss
from train.run.memory import Forward


def mlp(c_in: int, hidden: int, c_out: int, generator: torch.Generator) -> nn.Sequential:
    """Projector and predictor: two layers without bias with norm and ReLU between (A: sizes and biases are those of the
    published code)."""
    return nn.Sequential(
        pointwise(c_in, hidden, generator), nn.BatchNorm1d(hidden), nn.ReLU(), pointwise(hidden, c_out, generator)
    )


class Branch(nn.Module):
    """Encoder and projector: z of clouds."""

    def __init__(self, config: Strl, generator: torch.Generator):
        super().__init__()
        self.encoder = Pooled(config.net, config.k, generator)
        self.projector = mlp(self.encoder.channels, config.head_width, config.head_out, generator)

    def forward(self, clouds: Clouds) -> torch.Tensor:
        """(B, d)."""
        return self.projector(self.encoder(clouds))


class Byol(nn.Module):
    """Online and target nets, and Eqs. 4 and 5."""

    def __init__(self, config: Strl, steps: int, generator: torch.Generator):
        """steps: updates of the whole training, over which the target's decay rises; generator (a CPU one) draws all
        weights. The target starts as a copy."""
        super().__init__()
        self.config, self.steps = config, steps
        self.online = Branch(config, generator)
        self.predictor = mlp(config.head_out, config.head_width, config.head_out, generator)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, batch: Batch) -> Loss:
        """Each frame's prediction of what the target makes of the other. Raises sparse.SparseError for a bad batch."""
        z = [self.online(clouds) for clouds in (batch.first, batch.second)]
        p = [self.predictor(x) for x in z]
        with torch.no_grad():
            goal = [self.target(clouds) for clouds in (batch.second, batch.first)]
        terms = {name: prediction_loss(*pair) for name, *pair in zip(("u-v", "v-u"), p, goal, strict=True)}
        found = fit(p[0], goal[0], torch.arange(batch.size, device=p[0].device), 1)
        return Loss(
            sum(terms.values()),
            {name: value.detach() for name, value in terms.items()},
            {"online": spread(z[0]), "target": spread(goal[1])},
            {f"u-v/{kind}": value for kind, value in found.items()},
        )

    def after_update(self, step: int) -> None:
        """Algorithm 1, line 18: the target follows once the online net has been updated. step: updates made."""
        follow(self.target, self.online, decay_at(step, self.steps, self.config.target_decay))

    def forwards(self, batch: Batch, element: int) -> list[Forward]:
        """What the passes over a batch cost in memory, given the bytes of a number: the target's keep nothing."""
        return [self.online.encoder.forward_cost(clouds, element) for clouds in (batch.first, batch.second)]
