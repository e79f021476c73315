"""The residual nets of the attack comparisons, with the weights that our side wrote (imported by the attack_*.py scripts)."""

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet8(nn.Module):
    """Widths 8, 16, 32; `halve` averages 2 x 2 pixels first."""

    def __init__(self, halve):
        super().__init__()
        self.halve = halve
        self.conv1 = nn.Conv2d(1, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Block(8, 8, 1))
        self.layer2 = nn.Sequential(Block(8, 16, 2))
        self.layer3 = nn.Sequential(Block(16, 32, 2))
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        if self.halve:
            x = F.avg_pool2d(x, 2)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


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
