"""Writes the small PyTorch checkpoints that core-tensor's pickle tests read.

    python benches/peers/make_pickle_fixtures.py crates/core-tensor/src/checkpoint/pickle/data

Made with PyTorch 2.11.0. Their values are counts and simple fractions, so that the tests can state them by hand.
"""

import io
import os
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn


def save(path, value, **options):
    # From a buffer, so that the archive's folder is always called `archive`.
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    path.write_bytes(buffer.getvalue())


def rezip(source, target, compression=zipfile.ZIP_STORED, replace=None):
    """The same archive with another compression, or with some members' bytes replaced."""
    replace = replace or {}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), replace.get(name, old.read(name)), compression)


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def module():
    """Two layers with counted weights."""
    net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(1, 2, 1, bias=False), bn1=nn.BatchNorm2d(2)))
    with torch.no_grad():
        net.conv1.weight.copy_(torch.tensor([0.5, -0.25]).reshape(2, 1, 1, 1))
        net.bn1.running_mean.copy_(torch.tensor([3.0, 4.0]))
    return net


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    net = module()
    save(folder / "state_dict.pth", net.state_dict())
    weight = torch.arange(4, dtype=torch.float32).reshape(2, 2)
    save(
        folder / "nested.pth",
        {
            "epoch": 3,
            "best": 0.75,
            "arch": "résnet",
            "done": False,
            "none": None,
            "big": -(2**40),
            "betas": (0.5, [1, 300, 70000]),
            "state_dict": OrderedDict([("module.fc.weight", weight), ("module.fc.bias", torch.tensor([7.0, 8.0]))]),
            "optimizer": {"state": {0: {"momentum_buffer": weight}}, "param_groups": [{"lr": 0.125, "params": [0]}]},
        },
    )
    base = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    save(
        folder / "views.pth",
        {
            "base": base,
            "transposed": base.t(),
            "row": base[1],
            "column": base[:, 2],
            "expanded": base[1, 1].expand(2, 2),
            "scalar": base[1, 2],
        },
    )
    save(
        folder / "real.pth",
        {
            "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
            "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
            "double": torch.tensor([0.1], dtype=torch.float64),
            "empty": torch.zeros(0, 3),
        },
    )
    save(
        folder / "whole.pth",
        {
            "int64": torch.tensor([-(2**40)]),
            "int32": torch.tensor([-70000], dtype=torch.int32),
            "int16": torch.tensor([-300], dtype=torch.int16),
            "int8": torch.tensor([-1], dtype=torch.int8),
            "uint8": torch.tensor([255], dtype=torch.uint8),
            "bool": torch.tensor([True, False]),
        },
    )
    save(folder / "parameter.pth", {"weight": nn.Parameter(torch.tensor([1.0, 2.0]))})
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.copy_(torch.tensor([3.0]))
    for protocol in (3, 4, 5):
        save(folder / f"protocol{protocol}.pth", layer.state_dict(), pickle_protocol=protocol)
    save(folder / "legacy.pth", {"weight": torch.tensor([1.0])}, _use_new_zipfile_serialization=False)
    save(folder / "malicious.pth", {"state_dict": Malicious()})
    rezip(folder / "nested.pth", folder / "deflated.pth", zipfile.ZIP_DEFLATED)
    rezip(folder / "parameter.pth", folder / "big_endian.pth", replace={"archive/byteorder": b"big"})
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
