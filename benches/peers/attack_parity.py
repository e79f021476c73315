"""Do our attacks agree with torchattacks, foolbox and pyautoattack, example by example?

    cargo run --release -p contrast --example attack_case -- train FASHION_MNIST_FOLDER case.safetensors
    cargo run --release -p contrast --example attack_case -- attack case.safetensors ours.safetensors
    python attack_parity.py case.safetensors ours.safetensors

Checks, and exits with 1 when one fails:
1. logits equal to 1e-4 of the largest, predictions all equal;
2. deterministic attacks from the clean image: after one step at most 0.1 % of pixels differ, after twenty at most 1 %;
   robust accuracy within one example in 1 000;
3. our images keep ball and box when measured here, and this side's network counts the same robust accuracy;
4. stochastic attacks (random start, APGD) are no weaker than the peer's by more than half a point;
5. Carlini and Wagner's median distance is at most 1.02 times foolbox's.
"""

import json
import sys

import torch
from attack_models import load, robust_accuracy
from safetensors.torch import load_file

EPS = 0.1
failed = []


def check(name, passed, **figures):
    print(json.dumps({"check": name, "passed": bool(passed), **figures}))
    if not passed:
        failed.append(name)


def main():
    case, path = sys.argv[1:3]
    model, images, labels = load(case, halve=True)
    ours = load_file(path)
    with torch.no_grad():
        logits = model(images)
    gap = (logits - ours["logits"]).abs().max().item()
    same = (logits.argmax(1) == ours["logits"].argmax(1)).all().item()
    check("logits", gap <= 1e-4 * logits.abs().max().item() and same, gap=gap, clean=robust_accuracy(model, images, labels))

    import foolbox
    import torchattacks

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def linf(steps):
        attack = foolbox.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=steps, random_start=False)
        return attack(wrapped, images, labels, epsilons=EPS)[1]

    theirs = {
        ("fgsm", "torchattacks"): torchattacks.FGSM(model, eps=EPS)(images, labels),
        ("fgsm", "foolbox"): foolbox.attacks.FGSM(random_start=False)(wrapped, images, labels, epsilons=EPS)[1],
        ("pgd1", "torchattacks"): torchattacks.PGD(model, EPS, EPS / 4, 1, random_start=False)(images, labels),
        ("pgd1", "foolbox"): linf(1),
        ("pgd20", "torchattacks"): torchattacks.PGD(model, EPS, EPS / 4, 20, random_start=False)(images, labels),
        ("pgd20", "foolbox"): linf(20),
        ("pgd20_l2", "torchattacks"): torchattacks.PGDL2(model, 1.0, 0.25, 20, random_start=False)(images, labels),
        ("pgd20_l2", "foolbox"): foolbox.attacks.L2PGD(abs_stepsize=0.25, steps=20, random_start=False)(
            wrapped, images, labels, epsilons=1.0
        )[1],
        ("mifgsm10", "torchattacks"): torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / 10, steps=10, decay=1.0)(images, labels),
    }
    for (name, peer), found in theirs.items():
        mine = ours[name]
        differing = ((mine - found).abs() > 1e-5).float().mean().item()
        accuracies = robust_accuracy(model, mine, labels), robust_accuracy(model, found, labels)
        allowed = 0.001 if name in ("fgsm", "pgd1") else 0.01
        check(
            f"{name} against {peer}",
            differing <= allowed and abs(accuracies[0] - accuracies[1]) <= 0.001 + 1e-9,
            pixels_differing=differing,
            ours=accuracies[0],
            theirs=accuracies[1],
        )

    for name, found in ours.items():
        if name == "logits":
            continue
        change = (found - images[: len(found)]).double().flatten(1)
        size = change.norm(dim=1).max().item() if "l2" in name else change.abs().max().item()
        radius = {"pgd20_l2": 1.0, "cw_l2": 28.0}.get(name, EPS)
        inside = found.min().item() >= 0 and found.max().item() <= 1
        check(f"{name} keeps ball and box", size <= radius * (1 + 1e-6) + 1.2e-7 and inside, size=size)

    torch.manual_seed(0)
    random_start = [
        robust_accuracy(model, torchattacks.PGD(model, EPS, EPS / 4, 20, random_start=True)(images, labels), labels)
        for _ in range(3)
    ]
    mine = robust_accuracy(model, ours["pgd20_random"], labels)
    check("random start", mine <= sum(random_start) / 3 + 0.005, ours=mine, theirs=random_start)

    from pyautoattack.autopgd_base import APGDAttack

    apgd = APGDAttack(model, n_iter=100, norm="Linf", n_restarts=1, eps=EPS, seed=0, loss="ce", device="cpu")
    theirs = robust_accuracy(model, apgd.perturb(images, labels), labels)
    mine = robust_accuracy(model, ours["apgd_ce"], labels)
    check("APGD-CE", mine <= theirs + 0.005, ours=mine, theirs=theirs)

    few = len(ours["cw_l2"])
    cw = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=4, steps=100, stepsize=0.01, initial_const=1.0, abort_early=False
    )
    found = cw(wrapped, images[:few], labels[:few], epsilons=None)[0]
    both = (model(found).argmax(1) != labels[:few]) & (model(ours["cw_l2"]).argmax(1) != labels[:few])
    distance = lambda x: (x - images[:few]).flatten(1).norm(dim=1)[both].median().item()
    check("CW distance", distance(ours["cw_l2"]) <= 1.02 * distance(found), ours=distance(ours["cw_l2"]), theirs=distance(found))
    sys.exit(f"failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
