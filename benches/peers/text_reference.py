"""Hugging Face's BertTokenizerFast beside ours.

    python text_reference.py DATA            seconds to read and tokenise SST-2's training part (67,349 sentences), five
                                             times after a warm-up: by transformers' tokenizer, and by the library below
                                             it alone
    python text_reference.py DATA TOKENISE   also compares ids, input by input, with what our example prints: TOKENISE is
                                             target/release/examples/tokenise, made by
                                             `cargo build --release -p core-tensor --example tokenise`

DATA holds `bert-base-uncased-vocab.txt`, `glue/` and `squad/`. Needs transformers < 5. Prints one JSON object a line.
Both ways keep what ours keeps: ids, types and labels. `tokens` counts the ids.
"""

import json
import os
import subprocess
import sys

from timing import seconds
from transformers import BertTokenizerFast
from transformers.data.processors.squad import SquadExample, squad_convert_examples_to_features

# Columns of the texts, and whether the file has a header.
TASKS = {
    "CoLA": ([3], False),
    "SST-2": ([0], True),
    "MRPC": ([3, 4], True),
    "STS-B": ([7, 8], True),
    "QNLI": ([1, 2], True),
    "RTE": ([1, 2], True),
    "WNLI": ([1, 2], True),
}


def rows(data, task, split):
    columns, header = TASKS[task]
    with open(f"{data}/glue/{task}/{split}.tsv", encoding="utf-8-sig", newline="\n") as file:
        lines = file.read().removesuffix("\n").split("\n")[int(header) :]
    fields = [line.split("\t") for line in lines]
    return [[row[column] for row in fields] for column in columns]


def encode(tokenizer, texts):
    # No mask: nothing is padded yet, and ours makes none either.
    return tokenizer(*texts, truncation="longest_first", max_length=128, return_attention_mask=False)


def labelled(data):
    """The sentences of SST-2's training part, and their labels."""
    with open(f"{data}/glue/SST-2/train.tsv", encoding="utf-8", newline="\n") as file:
        lines = file.read().removesuffix("\n").split("\n")[1:]
    texts, labels = zip(*(line.split("\t") for line in lines))
    return list(texts), [int(label) for label in labels]


def time_tokenizers(data, tokenizer):
    def by_transformers():
        texts, labels = labelled(data)
        return encode(tokenizer, [texts]), labels

    def by_the_library():
        texts, labels = labelled(data)
        backend = tokenizer.backend_tokenizer
        backend.enable_truncation(128, strategy="longest_first")
        found = backend.encode_batch_fast(texts)
        return [(encoding.ids, encoding.type_ids) for encoding in found], labels

    ids = by_transformers()[0]["input_ids"]
    record = {"by": "transformers", "tokens": sum(map(len, ids)), "seconds": seconds(by_transformers)}
    print(json.dumps(record), flush=True)
    ids = [ids for ids, _ in by_the_library()[0]]
    record = {"by": "tokenizers", "tokens": sum(map(len, ids)), "seconds": seconds(by_the_library)}
    print(json.dumps(record), flush=True)


def ours(program, vocabulary, *what):
    printed = subprocess.run([program, "--ids", vocabulary, *what], check=True, capture_output=True, text=True).stdout
    return [[int(number) for number in line.split()] for line in printed.splitlines()]


def compare(name, theirs, mine):
    same = sum(a == b for a, b in zip(theirs, mine))
    print(json.dumps({"compared": name, "inputs": len(theirs), "ours": len(mine), "equal": same}), flush=True)


def squad_features(tokenizer, path):
    examples = []
    with open(path, encoding="utf-8") as file:
        for article in json.load(file)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answer = question["answers"][0]
                    examples.append(
                        SquadExample(
                            question["id"], question["question"], paragraph["context"], answer["text"],
                            answer["answer_start"], article["title"], question["answers"],
                        )
                    )
    features = squad_convert_examples_to_features(examples, tokenizer, 384, 128, 64, True, tqdm_enabled=False)
    return [[id for id, real in zip(feature.input_ids, feature.attention_mask) if real] for feature in features]


def main():
    data, program = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    vocabulary = f"{data}/bert-base-uncased-vocab.txt"
    tokenizer = BertTokenizerFast(vocabulary, do_lower_case=True)
    time_tokenizers(data, tokenizer)
    if not program:
        return
    for task in TASKS:
        for split in ["train", "dev"]:
            if os.path.exists(f"{data}/glue/{task}/{split}.tsv"):
                theirs = encode(tokenizer, rows(data, task, split))["input_ids"]
                compare(f"{task} {split}", theirs, ours(program, vocabulary, task, split, f"{data}/glue"))
    for name in ["proxy-eval.json", "dev-v1.1.json"]:
        path = f"{data}/squad/{name}"
        if os.path.exists(path):
            from transformers import BertTokenizer

            theirs = squad_features(BertTokenizer(vocabulary, do_lower_case=True), path)
            compare(f"SQuAD {name}", theirs, ours(program, vocabulary, "SQuAD", path))


main()
