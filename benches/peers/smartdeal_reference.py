"""SmartDeal's published decomposition, transcribed to numpy: the timing peer and the source of the tests' oracles.

Steps and defaults follow `core_decompose` of the authors' repository (VITA-Group/SmartDeal): start at B = I, C = W;
project to powers of two (linear distance, ties down, clipped at 32); fit B; fit C; threshold; repeat.

    smartdeal_reference.py [CASE]     time 20 Gaussian blocks of 192 x 3, five times after a warm-up: those that
                                      `cargo bench -p benches --bench smartdeal` left in
                                      target/smartdeal_blocks.safetensors; needs safetensors
    smartdeal_reference.py --oracles  print error, counts and CRC-32 of the codes for the test matrices
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from timing import seconds

CASE = Path(__file__).resolve().parents[2] / "target" / "smartdeal_blocks.safetensors"


def project(c, c_max=32.0):
    out = np.zeros_like(c)
    live = c != 0
    v = np.abs(c[live])
    hi = np.ceil(np.log2(v))
    lo = hi - 1
    power = np.where(v - 2.0**lo <= 2.0**hi - v, 2.0**lo, 2.0**hi)
    out[live] = np.sign(c[live]) * np.minimum(power, c_max)
    return out


class DeadColumn(Exception):
    pass


def scale_columns(c):
    c = c.copy()
    for k in range(c.shape[1]):
        live = c[:, k] != 0
        if not live.any():
            raise DeadColumn
        log = np.log2(np.abs(c[live, k]))
        c[:, k] *= 2.0 ** np.mean(np.round(log) - log)
    return c


def decompose(w, theta, max_iter=30, tol=1e-10, rcond=1e-10, rows=False, scale=None, powers=True):
    def on_ladder(c):
        if not powers:
            return c
        return project(scale_columns(c) if scale else c)

    try:
        basis, c, previous, trace = np.eye(w.shape[1]), w.copy(), None, []
        for _ in range(max_iter - 1):
            q = on_ladder(c)
            if previous is not None and np.linalg.norm(q - previous) <= tol:
                break
            previous = q
            basis = np.linalg.lstsq(q, w, rcond=rcond)[0]
            trace.append((np.linalg.norm(w - q @ basis), np.count_nonzero(q)))
            c = np.linalg.lstsq(basis.T, w.T, rcond=rcond)[0].T.copy()
            if rows:
                c[np.abs(c).sum(1) < 5 * theta] = 0
            c[np.abs(c) < theta] = 0
        q = on_ladder(c)
        basis = np.linalg.lstsq(q, w, rcond=rcond)[0]
        trace.append((np.linalg.norm(w - q @ basis), np.count_nonzero(q)))
        return q, basis, trace
    except DeadColumn:
        return decompose(w, theta * scale, max_iter, tol, rcond, rows, scale, powers)


def codes(q):
    """0 for zero, otherwise the sign times (exponent + 64), as bytes."""
    out = np.zeros(q.shape, int)
    live = q != 0
    out[live] = np.sign(q[live]) * (np.log2(np.abs(q[live])) + 64)
    return out.astype(np.int8).tobytes()


def oracle_matrix(rows, columns=3):
    k = np.arange(rows * columns)
    return ((((37 * k + 11) % 101) - 50) / 500).reshape(rows, columns)


def oracles():
    cases = [(6, 0.01), (6, 0.02), (6, 0.02, "rows"), (6, 0.05), (12, 0.004), (12, 0.02), (12, 0.05)]
    cases += [(48, 0.004), (48, 0.02), (48, 0.02, "rows"), (48, 0.01, "scale"), (48, 0.0099, "real"), (48, 0.0101, "real")]
    for rows, theta, *kind in cases:
        w = oracle_matrix(rows)
        q, basis, trace = decompose(
            w, theta, rows="rows" in kind, scale=0.5 if "scale" in kind else None, powers="real" not in kind
        )
        error = np.linalg.norm(w - q @ basis) / np.linalg.norm(w)
        checksum = f"{zlib.crc32(codes(q)):#010x}" if "real" not in kind else None
        line = {"rows": rows, "theta": theta, "kind": kind, "relative_error": error, "codes": checksum}
        print(json.dumps(line | {"non_zeros": int(np.count_nonzero(q)), "recorded": len(trace)}))


def main():
    if "--oracles" in sys.argv:
        oracles()
        return
    from safetensors.numpy import load_file

    case = sys.argv[1] if len(sys.argv) > 1 else CASE
    blocks, found = load_file(case)["blocks"], []

    def decompose_all():
        found[:] = [decompose(block, 4e-3) for block in blocks]

    times = [time / len(blocks) for time in seconds(decompose_all)]
    iterations = np.mean([len(trace) for _, _, trace in found])
    error = np.mean([np.linalg.norm(w - q @ basis) / np.linalg.norm(w) for w, (q, basis, _) in zip(blocks, found)])
    record = {"peer": "numpy transcription, 192x3", "mean_iterations": iterations, "relative_error": error}
    print(json.dumps(record | {"seconds": times}))


if __name__ == "__main__":
    main()
