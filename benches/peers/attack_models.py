"""The residual nets of the attack comparisons, with the weights that our side wrote (imported by the attack_*.py scripts)."""

import torch
from resnet import ResNet
from safetensors.torch import load_file
from torch.nn import functional as F


class ResNet8(ResNet):
    """Widths 8, 16, 32; `halve` averages 2 x 2 pixels first."""

    def __init__(self, halve):
        super().__init__(1, [8, 16, 32], 1)
        self.halve = halve

    def forward(self, x):
        return super().forward(F.avg_pool2d(x, 2) if self.halve else x)


def load(path, halve):
    """The net in evaluation mode, images, labels."""
    state = load_file(path)
    images, labels = state.pop("images"), state.pop("labels")
    model = ResNet8(halve)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert not missing and not unexpected, (missing, unexpected)
    return model.eval(), images, labels


@torch.no_grad()
def robust_accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).float().mean().item()
