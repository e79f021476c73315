"""PGD-20 on 1 000 images of 1 x 28 x 28: torchattacks and foolbox, with the weights and images of `benches/attack.rs`.

    cargo bench -p benches --bench attack      # writes target/attack_pgd.safetensors
    python attack_pgd.py [target/attack_pgd.safetensors] [--rounds 5]

Needs torch, torchattacks, foolbox, safetensors. Prints one JSON object a peer: median seconds, robust accuracy. The packages
attack the network as it is; what torchattacks does on a network whose batch norms were folded first is there to tell folding's
part from the rest.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from attack_models import folded, load, robust_accuracy

CASE = Path(__file__).resolve().parents[2] / "target" / "attack_pgd.safetensors"
EPS, STEPS = 8 / 255, 20


def timed(attack, rounds):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = attack()
        times.append(time.perf_counter() - start)
    return statistics.median(times), found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", default=CASE)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model, images, labels = load(arguments.case, halve=False)

    import foolbox
    import torchattacks

    def pgd(net):
        return torchattacks.PGD(net, eps=EPS, alpha=EPS / 4, steps=STEPS, random_start=False)

    whole, bare = pgd(model), pgd(folded(model))
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=STEPS, random_start=False)

    def plain():
        x = images.clone()
        for _ in range(STEPS):
            x.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(model(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = x.detach() + EPS / 4 * gradient.sign()
            x = torch.min(torch.max(x, images - EPS), images + EPS).clamp(0, 1)
        return x

    peers = {
        "torchattacks": lambda: whole(images, labels),
        "torchattacks, norms folded by hand": lambda: bare(images, labels),
        "foolbox": lambda: theirs(wrapped, images, labels, epsilons=EPS)[1],
        "plain loop": plain,
    }
    for name, attack in peers.items():
        seconds, found = timed(attack, arguments.rounds)
        accuracy = robust_accuracy(model, found, labels)
        print(json.dumps({"peer": name, "seconds": seconds, "robust_accuracy": accuracy, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
