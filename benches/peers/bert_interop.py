"""Writes a small random BERT as Hugging Face saves it (safetensors and `.bin`, encoder and task model), has
`cargo run --example bert_hidden` compute the pooled vector, and prints the largest difference from Hugging Face's own.

    cargo build -p core-tensor --example bert_hidden
    python benches/peers/bert_interop.py target/debug/examples/bert_hidden
"""

import json
import subprocess
import sys
import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification


@torch.no_grad()
def main(program):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16
    )
    model = BertForSequenceClassification(config).eval()
    ids = [2, 17, 56, 99, 3]
    expected = model.bert(input_ids=torch.tensor([ids])).pooler_output[0]
    for what, source in [("task model", model), ("encoder", model.bert)]:
        for form in ["safetensors", "bin"]:
            with tempfile.TemporaryDirectory() as folder:
                source.config.save_pretrained(folder)
                if form == "bin":
                    weights = f"{folder}/pytorch_model.bin"
                    torch.save(source.state_dict(), weights)
                else:
                    source.save_pretrained(folder)
                    weights = f"{folder}/model.safetensors"
                command = [program, f"{folder}/config.json", weights, *map(str, ids)]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = torch.tensor([float(value) for value in out.split()])
            print(json.dumps({"what": what, "form": form, "largest_difference": (found - expected).abs().max().item()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
