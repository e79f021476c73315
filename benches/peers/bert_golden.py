"""Golden values for `core-tensor/src/networks/bert/tests.rs`: logits and losses of Hugging Face's BERT on weights that a
formula gives, so that no weights need to be stored.

Every parameter, in the sorted order `n` of its name in a model's state dict, holds `0.3 sin(1.7 n + 0.9 j)` at flat
index `j`, plus 1 in the scales of layer norms. Needs `torch` and `transformers` (values were made with 4.57.6).
"""

import json
import math

import torch
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
)

CONFIG = dict(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=12,
)
IDS = torch.tensor([[2, 17, 5, 39, 8, 3, 0], [2, 11, 3, 30, 3, 0, 0]])
TYPES = torch.tensor([[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0]])


def fill(model):
    """Only what a checkpoint holds: no position numbers, no tied decoder."""
    named = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("position_ids") and "cls.predictions.decoder" not in name
    }
    with torch.no_grad():
        for n, name in enumerate(sorted(named)):
            tensor = named[name]
            values = [0.3 * math.sin(1.7 * n + 0.9 * j) for j in range(tensor.numel())]
            if name.endswith("LayerNorm.weight"):
                values = [1.0 + value for value in values]
            tensor.copy_(torch.tensor(values, dtype=torch.float64).view(tensor.shape))
    return model.eval()


def rounded(tensor):
    return [round(value, 6) for value in tensor.detach().double().flatten().tolist()]


def main():
    inputs = dict(input_ids=IDS, token_type_ids=TYPES, attention_mask=MASK)

    classes = fill(BertForSequenceClassification(BertConfig(**CONFIG, num_labels=3)))
    out = classes(**inputs, labels=torch.tensor([2, 0]))
    print(json.dumps({"what": "three classes", "logits": rounded(out.logits), "loss": rounded(out.loss)}))
    hidden = classes.bert(**inputs).last_hidden_state
    print(json.dumps({"what": "hidden states of token 1 of sequence 0", "values": rounded(hidden[0, 1])}))

    regression = fill(BertForSequenceClassification(BertConfig(**CONFIG, num_labels=1)))
    out = regression(**inputs, labels=torch.tensor([0.5, 4.0]))
    print(json.dumps({"what": "regression", "logits": rounded(out.logits), "loss": rounded(out.loss)}))

    spans = fill(BertForQuestionAnswering(BertConfig(**CONFIG)))
    out = spans(**inputs, start_positions=torch.tensor([3, 0]), end_positions=torch.tensor([4, 9]))
    print(
        json.dumps(
            {
                "what": "spans, the last end position beyond the sequence",
                "start": rounded(out.start_logits),
                "end": rounded(out.end_logits),
                "loss": rounded(out.loss),
            }
        )
    )

    words = fill(BertForPreTraining(BertConfig(**CONFIG)))
    labels = torch.full_like(IDS, -100)
    labels[0, 2], labels[1, 1], labels[1, 3] = 7, 22, 30
    out = words(**inputs, labels=labels, next_sentence_label=torch.tensor([0, 1]))
    print(
        json.dumps(
            {
                "what": "pre-training",
                "words of token 3 of sequence 1, first eight": rounded(out.prediction_logits[1, 3, :8]),
                "next": rounded(out.seq_relationship_logits),
                "loss": rounded(out.loss),
            }
        )
    )

    classes.bert.encoder.layer[0].attention.prune_heads([1])
    classes.bert.encoder.layer[1].attention.prune_heads([0, 3])
    print(json.dumps({"what": "three classes, heads {0: [1], 1: [0, 3]} pruned", "logits": rounded(classes(**inputs).logits)}))


if __name__ == "__main__":
    main()
