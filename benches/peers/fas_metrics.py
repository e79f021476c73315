"""HTER, ACER, BPCER, AUC and EER with bootstrap intervals in numpy.

    cargo bench -p benches --bench fas -- bootstrap      # writes target/fas_scores.safetensors
    python fas_metrics.py [target/fas_scores.safetensors] [--draws 1000] [--jobs 2] [--naive]

100,000 scores, 1000 resampled sets unless `--draws` says otherwise. Sorted once: a resampled set is how often each rank
was drawn, and all its rates follow from running sums of these counts. `--jobs` processes share the sets. `--naive`
times another way instead, the script that one writes first: every resampled set is drawn by index and measured afresh,
in one process; with fewer draws its seconds are scaled to 1000. Needs numpy, safetensors. Prints one JSON object: the
rates, their intervals, the seconds of each round after a warm-up.
"""

import argparse
import bisect
import json
import multiprocessing
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from timing import seconds

CASE = Path(__file__).resolve().parents[2] / "target" / "fas_scores.safetensors"
THRESHOLD = 2.4
RATES = ("hter", "acer", "bpcer", "auc", "eer")


class Ordered:
    """Scores in their order: what does not change from one resampled set to the next."""

    def __init__(self, live, attack, species):
        scores = np.concatenate([live, attack])
        order = np.argsort(scores, kind="stable")
        ranks = np.empty(len(order), np.intp)
        ranks[order] = np.arange(len(order))
        ordered = scores[order]
        self.size = len(scores)
        self.live, self.attack = ranks[: len(live)], ranks[len(live) :]
        # The last place of each tie, which is where a threshold can lie; no need to look where no two scores are equal.
        last = np.flatnonzero(np.append(ordered[1:] > ordered[:-1], True))
        self.last = None if len(last) == len(scores) else last
        self.accepted_from = np.searchsorted(ordered, THRESHOLD)
        # The places of each species, for its share of the accepted.
        self.species = [np.sort(self.attack[species == kind]) for kind in np.unique(species)]

    def drawn(self, generator, places):
        return np.bincount(places[generator.integers(0, len(places), len(places))], minlength=self.size)

    def resampled(self, generator):
        return self.rates(self.drawn(generator, self.live), self.drawn(generator, self.attack))

    def rates(self, live, attack):
        """Of a set in which the score at each place stands so many times."""
        lives, attacks = len(self.live), len(self.attack)
        live_below, attack_below = np.cumsum(live), np.cumsum(attack)
        bpcer = live_below[self.accepted_from - 1] / lives
        far = 1 - attack_below[self.accepted_from - 1] / attacks
        apcer = 0.0
        for places in self.species:
            counts = attack[places]
            accepted = counts[np.searchsorted(places, self.accepted_from) :].sum()
            apcer = max(apcer, accepted / counts.sum())
        if self.last is not None:
            live_below, attack_below = live_below[self.last], attack_below[self.last]
            live, attack = np.diff(live_below, prepend=0), np.diff(attack_below, prepend=0)
        auc = np.dot(live, 2 * attack_below - attack) / (2 * lives * attacks)
        # FRR - FAR at a threshold just above a place only rises, so the nearest to zero is beside the change of sign.
        gap = lambda place: int(live_below[place]) * attacks + (int(attack_below[place]) - attacks) * lives
        at = min(bisect.bisect_left(range(len(live_below)), 0, key=gap), len(live_below) - 1)
        at -= at > 0 and -gap(at - 1) <= gap(at)
        eer = (live_below[at] / lives + 1 - attack_below[at] / attacks) / 2
        return (bpcer + far) / 2, (bpcer + apcer) / 2, bpcer, auc, eer


def auc(live, attack):
    scores = np.concatenate([live, attack])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # The mean rank of each tie.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return (ranks[: len(live)].sum() - len(live) * (len(live) + 1) / 2) / (len(live) * len(attack))


def eer(live, attack):
    thresholds = np.unique(np.concatenate([live, attack]))
    frr = np.searchsorted(np.sort(live), thresholds) / len(live)
    far = 1 - np.searchsorted(np.sort(attack), thresholds) / len(attack)
    best = np.argmin(np.abs(far - frr))
    return (far[best] + frr[best]) / 2


def naive_rates(live, attack, species):
    bpcer = np.mean(live < THRESHOLD)
    accepted = attack >= THRESHOLD
    apcer = max(accepted[species == s].mean() for s in np.unique(species))
    hter, acer = (bpcer + accepted.mean()) / 2, (bpcer + apcer) / 2
    return hter, acer, bpcer, auc(live, attack), eer(live, attack)


def naive_resampled(generator, live, attack, species):
    some_live = live[generator.integers(0, len(live), len(live))]
    some = generator.integers(0, len(attack), len(attack))
    return naive_rates(some_live, attack[some], species[some])


def share(work):
    """Some of the resampled sets, in a process of its own."""
    ordered, seed, draws = work
    generator = np.random.Generator(np.random.SFC64(seed))
    return [ordered.resampled(generator) for _ in range(draws)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="?", default=CASE)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--naive", action="store_true")
    arguments = parser.parse_args()
    case = load_file(arguments.case)
    live, attack, species = case["live"], case["attack"], case["species"]
    draws, found = arguments.draws, {}

    def report(rates, drawn):
        low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
        for name, rate, *ends in zip(RATES, rates, low, high):
            found[name], found[f"{name}_low"], found[f"{name}_high"] = map(float, (rate, *ends))

    def naive():
        generator = np.random.default_rng(7)
        drawn = [naive_resampled(generator, live, attack, species) for _ in range(draws)]
        report(naive_rates(live, attack, species), drawn)

    if arguments.naive:
        times = [time * 1000 / draws for time in seconds(naive, arguments.rounds)]
    else:
        with multiprocessing.Pool(arguments.jobs) as pool:

            def sorted_once():
                ordered = Ordered(live, attack, species)
                shares = np.diff(np.linspace(0, draws, arguments.jobs + 1).astype(int))
                seeds = np.random.SeedSequence(7).spawn(arguments.jobs)
                parts = pool.map(share, [(ordered, seed, int(part)) for seed, part in zip(seeds, shares)])
                everyone = np.bincount(ordered.live, minlength=ordered.size)
                report(ordered.rates(everyone, 1 - everyone), sum(parts, []))

            times = seconds(sorted_once, arguments.rounds)
    print(json.dumps({"draws": draws, "jobs": arguments.jobs, **found, "seconds": times}))


if __name__ == "__main__":
    main()
