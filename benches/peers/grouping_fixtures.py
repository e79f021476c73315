"""Values that pytorch-metric-learning 2.9.0 gives on embeddings made by a formula: what the unit tests of
`vision::grouping` compare with. Prints one JSON object a line: loss, and the gradient's inner product with a fixed pattern.
"""

import json
import math

import torch
from pytorch_metric_learning import distances, losses, miners, reducers

ITEMS, DIM, CLASSES = 12, 8, 4


def pattern(rows, columns, phase):
    values = [[math.sin(0.7 * i + 1.3 * j + 0.1 * i * j + phase) for j in range(columns)] for i in range(rows)]
    return torch.tensor(values, dtype=torch.float64)


labels = torch.arange(ITEMS) % CLASSES
weights = pattern(ITEMS, DIM, 2.0)


def report(name, loss_function, mined=None, normalise=True):
    raw = pattern(ITEMS, DIM, 0.0).requires_grad_(True)
    embeddings = torch.nn.functional.normalize(raw) if normalise else raw * 0.3
    loss = loss_function(embeddings, labels, mined)
    loss.backward()
    print(json.dumps({"name": name, "loss": loss.item(), "gradient": (raw.grad * weights).sum().item()}))


def proxied(loss, attribute):
    own = pattern(CLASSES, DIM, 1.0)
    parameter = getattr(loss, attribute)
    parameter.data = own.T.contiguous() if parameter.shape != own.shape else own
    return loss


report("contrastive", losses.ContrastiveLoss(pos_margin=0.0, neg_margin=1.0))
report("contrastive all", losses.ContrastiveLoss(reducer=reducers.MeanReducer()))
report("triplet", losses.TripletMarginLoss(margin=0.2))
report("margin", losses.MarginLoss(margin=0.2, beta=1.2))
report("multi-similarity", losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5))
report("n-pair", losses.NPairsLoss(), normalise=False)
report("lifted", losses.GeneralizedLiftedStructureLoss(neg_margin=1, pos_margin=0))
report("proxy-nca", proxied(losses.ProxyNCALoss(CLASSES, DIM), "proxies"))
report("proxy-anchor", proxied(losses.ProxyAnchorLoss(CLASSES, DIM, margin=0.1, alpha=32), "proxies"))
report("normalised softmax", proxied(losses.NormalizedSoftmaxLoss(CLASSES, DIM, temperature=0.05), "W"))

embeddings = torch.nn.functional.normalize(pattern(ITEMS, DIM, 0.0))
a, p, b, n = miners.MultiSimilarityMiner(epsilon=0.1)(embeddings, labels)
pairs = lambda x, y: sorted(zip(x.tolist(), y.tolist()))
print(json.dumps({"name": "multi-similarity miner", "positives": pairs(a, p), "negatives": pairs(b, n)}))
a, p, n = miners.BatchHardMiner()(embeddings, labels)
print(json.dumps({"name": "batch-hard miner", "triplets": sorted(zip(a.tolist(), p.tolist(), n.tolist()))}))
a, p, n = miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard")(embeddings, labels)
print(json.dumps({"name": "semi-hard triplets", "triplets": sorted(zip(a.tolist(), p.tolist(), n.tolist()))}))
mined = miners.MultiSimilarityMiner(epsilon=0.1)(embeddings, labels)
report("multi-similarity mined", losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5), mined)
report("contrastive mined", losses.ContrastiveLoss(), mined)
