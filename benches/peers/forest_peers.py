"""Random forest (scikit-learn) and DF21 (the `deep-forest` package) on Fashion-MNIST, for comparison with `forest`.

    python forest_peers.py DATA_DIR [--train 60000] [--models rf100,df21] [--jobs N]

DATA_DIR holds the four IDX files, gzipped. Each model runs in a process of its own, so that peak memory is its own, and
prints one JSON line: test accuracy, training seconds (wall and CPU), prediction seconds of a batch of 10,000 (wall and
CPU, each of runs after a warm-up: ten, or three of a second and more), milliseconds for one row (median of 20), bytes
of the pickled or saved model, peak resident memory. Jobs are as many as OMP_NUM_THREADS says, or all cores, unless
given. Tried with Python 3.9, numpy 1.23, scikit-learn 1.2.2, deep-forest 0.1.7 (newer numpy breaks the package's
compiled parts).
"""

import argparse
import gzip
import json
import multiprocessing
import os
import pickle
import resource
import statistics
import struct
import tempfile
import time

import numpy as np


def read_idx(path):
    with gzip.open(path, "rb") as file:
        magic, count = struct.unpack(">II", file.read(8))
        if magic == 0x803:
            rows, columns = struct.unpack(">II", file.read(8))
            return np.frombuffer(file.read(), np.uint8).reshape(count, rows * columns)
        if magic == 0x801:
            return np.frombuffer(file.read(), np.uint8)
        raise ValueError(f"{path}: not an IDX file of bytes")


def load(folder, train):
    images = read_idx(f"{folder}/train-images-idx3-ubyte.gz")[:train].astype(np.float32) / 255
    labels = read_idx(f"{folder}/train-labels-idx1-ubyte.gz")[:train].astype(np.int64)
    test_images = read_idx(f"{folder}/t10k-images-idx3-ubyte.gz").astype(np.float32) / 255
    test_labels = read_idx(f"{folder}/t10k-labels-idx1-ubyte.gz").astype(np.int64)
    return images, labels, test_images, test_labels


def build(name, jobs):
    if name.startswith("rf"):
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(int(name[2:]), n_jobs=jobs, random_state=1)
    if name.startswith("et"):
        from sklearn.ensemble import ExtraTreesClassifier

        return ExtraTreesClassifier(int(name[2:]), n_jobs=jobs, random_state=1)
    if name == "df21":
        from deepforest import CascadeForestClassifier

        return CascadeForestClassifier(n_jobs=jobs, random_state=1, verbose=0)
    raise ValueError(f"unknown model {name}")


def size_on_disk(name, model):
    with tempfile.TemporaryDirectory() as folder:
        if name == "df21":
            model.save(os.path.join(folder, "model"))
            return sum(
                os.path.getsize(os.path.join(root, file)) for root, _, files in os.walk(folder) for file in files
            )
        return len(pickle.dumps(model, protocol=5))


def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measure(name, folder, train, jobs):
    x, y, test_x, test_y = load(folder, train)
    model = build(name, jobs)
    _, fit_wall, fit_cpu = timed(lambda: model.fit(x, y))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predicted, wall, _ = timed(lambda: model.predict(test_x))
    runs = [timed(lambda: model.predict(test_x))[1:] for _ in range(10 if wall < 1 else 3)]
    single = [timed(lambda: model.predict(test_x[i : i + 1]))[1] for i in range(20)]
    print(
        json.dumps(
            {
                "model": name,
                "train_rows": len(x),
                "accuracy": float((np.asarray(predicted) == test_y).mean()),
                "fit_wall_s": round(fit_wall, 2),
                "fit_cpu_s": round(fit_cpu, 2),
                "jobs": jobs,
                "predict_10000_wall_s": [round(wall, 4) for wall, _ in runs],
                "predict_10000_cpu_s": [round(cpu, 4) for _, cpu in runs],
                "single_row_ms": round(1e3 * statistics.median(single), 3),
                "bytes": size_on_disk(name, model),
                "peak_mb": round(peak / 1024),
            }
        ),
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--train", type=int, default=60_000)
    parser.add_argument("--models", default="rf100,df21")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count()))
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for name in args.models.split(","):
        process = context.Process(target=measure, args=(name, args.data, args.train, args.jobs))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
