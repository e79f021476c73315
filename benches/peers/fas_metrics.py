"""HTER, ACER and AUC with bootstrap intervals in plain numpy, as an evaluation script would have them.

    python fas_metrics.py [DRAWS]     100,000 scores, 1000 resampled sets unless DRAWS says otherwise

Every resampled set is drawn by index and measured afresh: AUC from ranks, rates by comparison. With fewer draws, `seconds`
is scaled to 1000. Prints one JSON object.
"""

import json
import sys
import time

import numpy as np


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


def rates(live, attack, species, threshold):
    bpcer = np.mean(live < threshold)
    accepted = attack >= threshold
    apcer = max(accepted[species == s].mean() for s in np.unique(species))
    hter, acer = (bpcer + accepted.mean()) / 2, (bpcer + apcer) / 2
    return hter, acer, bpcer, auc(live, attack), eer(live, attack)


def main():
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rng = np.random.default_rng(7)
    live = 0.8 + rng.random((50_000, 4)).sum(1)
    species = np.arange(50_000) % 3
    attack = 0.2 * species + rng.random((50_000, 4)).sum(1)
    start = time.perf_counter()
    drawn = []
    for _ in range(draws):
        some_live = live[rng.integers(0, len(live), len(live))]
        some = rng.integers(0, len(attack), len(attack))
        drawn.append(rates(some_live, attack[some], species[some], 2.4))
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0)
    seconds = (time.perf_counter() - start) * 1000 / draws
    print(json.dumps({"seconds": seconds, "draws": draws, "auc": [low[3], high[3]], "hter": [low[0], high[0]]}))


if __name__ == "__main__":
    main()
