"""SCALE-Sim beside hw-sim: the same configuration and layers, the same figures, and the time each takes.

    cargo bench -p hw-sim -- resnet18      # writes target/hw_sim_resnet18.csv
    python hw_sim_scalesim.py --topology target/hw_sim_resnet18.csv --size 32 --dataflow os   SCALE-Sim's seconds alone
    python hw_sim_scalesim.py --network resnet18 --size 32 --dataflow os                      also compares the reports

Needs scalesim 3.0.0, numpy < 2. SCALE-Sim is called from Python and writes no traces: what is timed is its run, by the
clock, without the start of Python, imports and reading. Reports are compared with those of our emulation: hw-sim's
release binaries lie where `--bin` says, and are built if it is not given.

Prints JSON objects, one a line: SCALE-Sim's seconds, the network's cycles and the words read from DRAM; with
`--network` also the processor seconds of our emulation, and whether the compute, bandwidth and access reports are
identical to the byte.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

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


def binaries(folder):
    """The folder of hw-sim's release binaries."""
    if folder:
        return folder.resolve()
    root = pathlib.Path(__file__).resolve().parents[2]
    subprocess.run(["cargo", "build", "--release", "-p", "hw-sim", "--bins", "--examples"], cwd=root, check=True)
    return root / os.environ.get("CARGO_TARGET_DIR", "target") / "release"


def cpu_seconds(command, cwd):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def simulate(folder):
    """Runs SCALE-Sim in the folder, and gives the seconds of its run."""
    from scalesim.scale_sim import scalesim

    files = {"config": str(folder / "peer.cfg"), "topology": str(folder / "net.csv"), "layout": str(folder / "net.csv")}
    tool = scalesim(save_disk_space=True, verbose=False, **files)
    start = time.perf_counter()
    tool.run_scale(top_path=str(folder / "theirs"))
    return time.perf_counter() - start


def column(folder, report, name):
    with open(folder / report) as file:
        header, *lines = list(csv.reader(file, skipinitialspace=True))
    return [float(line[header.index(name)]) for line in lines]


def topology(arguments, folder):
    """The layers, as text."""
    if arguments.topology:
        return arguments.topology.read_text()
    export = [folder / "examples/export_topology", arguments.network]
    return subprocess.run(export, capture_output=True, text=True, check=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, help="where hw-sim's release binaries are; built if not given")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--topology", type=pathlib.Path, help="a file of layers, instead of a network; nothing is compared")
    parser.add_argument("--size", default=32, type=int)
    parser.add_argument("--dataflow", default="os", choices=["os", "ws", "is"])
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    arguments = parser.parse_args()
    programs = None if arguments.topology else binaries(arguments.bin)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "peer.cfg").write_text(CONFIG.format(size=arguments.size, dataflow=arguments.dataflow))
        lines = topology(arguments, programs).splitlines()
        lines = lines[: 1 + arguments.layers] if arguments.layers else lines
        (folder / "net.csv").write_text("\n".join(lines) + "\n")
        network = arguments.topology.stem if arguments.topology else arguments.network
        case = {"network": network, "layers": len(lines) - 1, "array": arguments.size, "dataflow": arguments.dataflow}
        took = simulate(folder)
        theirs = folder / "theirs/peer"
        # The tool reports the index of a layer's last cycle, one less than how many there are.
        cycles = sum(1 + last for last in column(theirs, REPORTS[0], "Total Cycles"))
        stalls = sum(column(theirs, REPORTS[0], "Stall Cycles"))
        reads = sum(sum(column(theirs, REPORTS[2], f"DRAM {operand} Reads")) for operand in ("IFMAP", "Filter"))
        record = {"model": "scalesim", **case, "cycles": cycles, "compute_cycles": cycles - stalls, "dram_reads": reads}
        print(json.dumps(record | {"seconds": [took]}), flush=True)
        if not programs:
            return
        command = [str(programs / "hw-sim"), "run", "-c", "peer.cfg", "-t", "net.csv", "-i", "conv", "-p", "ours"]
        seconds, ours = cpu_seconds(command, folder), folder / "ours/peer"
        identical = {name: (ours / name).read_bytes() == (theirs / name).read_bytes() for name in REPORTS}
        print(json.dumps({"model": "hw-sim emulation", **case, "cpu_seconds": seconds, "identical": identical}))
    sys.exit(0 if all(identical.values()) else 1)


if __name__ == "__main__":
    main()
