"""The residual net that several scripts compare (imported by them), with parameters under torchvision's names, and its
training."""

import torch
from safetensors.torch import load_file
from timing import seconds
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


class ResNet(nn.Module):
    """Three stages of `blocks` blocks each for small images; the second and third halve the map."""

    def __init__(self, channels, widths, blocks, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for stage, width in enumerate(widths, start=1):
            strides = [1 if stage == 1 else 2] + [1] * (blocks - 1)
            layers = [Block(inputs if place == 0 else width, width, stride) for place, stride in enumerate(strides)]
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
            inputs = width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet20():
    return ResNet(3, [16, 32, 64], 3)


def training(model, case, layout, lr, rounds, warm_up):
    """Trains on the one batch of a case, from its weights: the first step's loss, and the seconds of every step."""
    state = load_file(case)
    images, labels = state.pop("images").contiguous(memory_format=layout), state.pop("labels")
    model.load_state_dict(state)
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, fused=True)
    losses = []

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())

    times = seconds(step, rounds, warm_up)
    return {"loss": losses[0].item(), "seconds": times}
