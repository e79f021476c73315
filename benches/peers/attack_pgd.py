"""PGD-20 on 1 000 images of 1 x 28 x 28: torchattacks and foolbox, with the weights and images of `benches/attack.rs`.

    cargo bench -p benches --bench attack      # writes target/attack_pgd.safetensors
    python attack_pgd.py [target/attack_pgd.safetensors] [--rounds 5]

Needs torch, torchattacks, foolbox, safetensors. Each peer attacks the network as it is and with its batch norms folded
by hand, both frozen, since only the images' gradients are wanted. First short attacks find the memory layout and the
number of images at a time that suit it best; what is timed has these. Prints one JSON object a peer: seconds of each
round after a warm-up, robust accuracy of the network as it is on what was found.
"""

import argparse
import copy
import json
from pathlib import Path

import torch
from attack_models import folded, load, robust_accuracy
from timing import seconds

CASE = Path(__file__).resolve().parents[2] / "target" / "attack_pgd.safetensors"
EPS, STEPS = 8 / 255, 20
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
BATCHES = [1000, 256, 128]


def torchattack(net, steps):
    import torchattacks

    return torchattacks.PGD(net, eps=EPS, alpha=EPS / 4, steps=steps, random_start=False)


def foolbox_attack(net, steps):
    import foolbox

    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=steps, random_start=False)
    return lambda images, labels: attack(wrapped, images, labels, epsilons=EPS)[1]


def plain_loop(net, steps):
    def attack(images, labels):
        x = images.clone()
        for _ in range(steps):
            x.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(net(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = x.detach() + EPS / 4 * gradient.sign()
            x = torch.min(torch.max(x, images - EPS), images + EPS).clamp(0, 1)
        return x

    return attack


def in_parts(make, net, steps, layout, batch):
    """The whole attack as one call: `batch` images at a time, in a memory layout."""
    attack = make(copy.deepcopy(net).to(memory_format=layout), steps)

    def run(images, labels):
        parts = zip(images.contiguous(memory_format=layout).split(batch), labels.split(batch))
        return torch.cat([attack(*part) for part in parts])

    return run


def best(make, net, images, labels):
    """The layout's name and the batch that are fastest."""
    times = {}
    for name, layout in LAYOUTS.items():
        for batch in BATCHES:
            attack = in_parts(make, net, 2, layout, batch)
            times[name, batch] = min(seconds(lambda: attack(images, labels), rounds=2))
    return min(times, key=times.get)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", default=CASE)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model, images, labels = load(arguments.case, halve=False)
    model.requires_grad_(False)
    bare = folded(model).requires_grad_(False)
    peers = {
        "torchattacks": (torchattack, model),
        "torchattacks, norms folded by hand": (torchattack, bare),
        "foolbox": (foolbox_attack, model),
        "foolbox, norms folded by hand": (foolbox_attack, bare),
        "plain loop": (plain_loop, model),
    }
    for name, (make, net) in peers.items():
        layout, batch = best(make, net, images, labels)
        attack, found = in_parts(make, net, STEPS, LAYOUTS[layout], batch), []
        times = seconds(lambda: found.append(attack(images, labels)), arguments.rounds)
        record = {"peer": name, "layout": layout, "batch": batch, "seconds": times}
        record |= {"robust_accuracy": robust_accuracy(model, found[-1], labels), "threads": torch.get_num_threads()}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
