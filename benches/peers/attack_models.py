"""The residual nets of the attack comparisons, with the weights that our side wrote (imported by the attack_*.py scripts)."""

import copy

import torch
from resnet import ResNet
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


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


def folded(model):
    """The same function with its batch norms in the convolutions before them, as PyTorch's own fusion makes it."""
    model = copy.deepcopy(model)

    def fold(module, conv, norm):
        module._modules[conv] = fuse_conv_bn_eval(module._modules[conv], module._modules[norm])
        module._modules[norm] = nn.Identity()

    fold(model, "conv1", "bn1")
    for stage in (model.layer1, model.layer2, model.layer3):
        for block in stage:
            fold(block, "conv1", "bn1")
            fold(block, "conv2", "bn2")
            if block.downsample is not None:
                fold(block.downsample, "0", "1")
    return model


@torch.no_grad()
def robust_accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).float().mean().item()
