"""SCALE-Sim beside hw-sim: the same configuration and layers, the same figures, and the time each takes.

Set-up, in a throw-away environment:
    python -m venv target/peer && target/peer/bin/pip install scalesim "numpy<2"
Run:
    target/peer/bin/python benches/peers/hw_sim_scalesim.py --bin target/release --network resnet18 --size 32 --dataflow os

Prints JSON objects, one a line: CPU seconds of each, whether the compute, bandwidth and access reports are identical to the
byte, and SCALE-Sim's time over the closed form's (`--closed-form-us`, as `cargo bench -p hw-sim` measured it on the same machine).
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

CONFIG = """[general]
run_name = peer
[architecture_presets]
ArrayHeight: {size}
ArrayWidth: {size}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: {dataflow}
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
REPORTS = ["COMPUTE_REPORT.csv", "BANDWIDTH_REPORT.csv", "DETAILED_ACCESS_REPORT.csv"]


def cpu_seconds(command, cwd):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, help="where hw-sim's release binaries are; built if not given")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", default=32, type=int)
    parser.add_argument("--dataflow", default="os", choices=["os", "ws", "is"])
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    parser.add_argument("--closed-form-us", type=float, help="microseconds of the closed form for the same layers")
    arguments = parser.parse_args()
    if not arguments.bin:
        root = pathlib.Path(__file__).resolve().parents[2]
        subprocess.run(["cargo", "build", "--release", "-p", "hw-sim", "--bins", "--examples"], cwd=root, check=True)
        target = os.environ.get("CARGO_TARGET_DIR", "target")
        arguments.bin = root / target / "release"
    binaries = arguments.bin.resolve()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "peer.cfg").write_text(CONFIG.format(size=arguments.size, dataflow=arguments.dataflow))
        exported = subprocess.run([binaries / "examples/export_topology", arguments.network], capture_output=True, text=True, check=True)
        lines = exported.stdout.splitlines()
        lines = lines[: 1 + arguments.layers] if arguments.layers else lines
        (folder / "net.csv").write_text("\n".join(lines) + "\n")
        ours = cpu_seconds([str(binaries / "hw-sim"), "run", "-c", "peer.cfg", "-t", "net.csv", "-i", "conv", "-p", "ours"], folder)
        tool = [sys.executable, "-m", "scalesim.scale", "-c", "peer.cfg", "-t", "net.csv", "-l", "net.csv", "-p", "theirs", "-i", "conv", "-s", "Y"]
        theirs = cpu_seconds(tool, folder)
        same = [(folder / "ours/peer" / name).read_bytes() == (folder / "theirs/peer" / name).read_bytes() for name in REPORTS]

    case = {"network": arguments.network, "layers": len(lines) - 1, "array": arguments.size, "dataflow": arguments.dataflow}
    print(json.dumps({"model": "scalesim", **case, "seconds": theirs}))
    identical = {name: equal for name, equal in zip(REPORTS, same)}
    print(json.dumps({"model": "hw-sim emulation", **case, "seconds": ours, "identical": identical}))
    if arguments.closed_form_us:
        seconds = arguments.closed_form_us * 1e-6
        print(json.dumps({"model": "hw-sim closed form", **case, "seconds": seconds, "times_faster": theirs / seconds}))
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
