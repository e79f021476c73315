//! The command line, end to end.

use std::path::Path;

use assert_cmd::Command;

const CFG: &str = "[general]\nrun_name = demo\n[architecture_presets]\nArrayHeight: 8\nArrayWidth: 8\n\
    IfmapSramSzkB: 1\nFilterSramSzkB: 1\nOfmapSramSzkB: 1\nIfmapOffset: 0\nFilterOffset: 10000000\nOfmapOffset: 20000000\n\
    Bandwidth : 10\nDataflow : os\nReadRequestBuffer: 32\nWriteRequestBuffer: 32\n[layout]\nIfmapCustomLayout: False\n\
    FilterCustomLayout: False\n[sparsity]\nSparsitySupport : false\n[run_presets]\nInterfaceBandwidth: CALC\nUseRamulatorTrace: False\n";
const TOPOLOGY: &str =
    "n,h,w,fh,fw,c,f,s,\nc1,12,12,3,3,8,20,1,\nc2,13,11,3,2,16,9,2,\nfc,1,1,1,1,100,30,1,\ntiny,3,3,3,3,1,1,1,\n";

/// The three files as SCALE-Sim 3.0.0 wrote them for these inputs.
const COMPUTE: &str = "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,\n\
    0, 3461, 3353, 0, 67.10408589322995, 80.12820512820514, 67.08407871198571,\n\
    1, 1189, 1099, 0, 44.222020018198364, 50.625, 44.18181818181819,\n\
    2, 508, 455, 0, 10.302197802197803, 11.71875, 10.279605263157894,\n\
    3, 23, 22, 0, 0.6392045454545454, 1.5625, 0.6114130434782609,\n";
const BANDWIDTH: &str = "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, Avg OFMAP SRAM BW, Avg IFMAP DRAM BW, Avg FILTER DRAM BW, Avg OFMAP DRAM BW,\n\
    0, 6.4419922457500745, 5.583059946316731, 0.782582761705935, 1.6291434197571382, 6.661437908496732, 0.7565020731247644,\n\
    1, 6.289353958143767, 3.9308462238398545, 0.44040036396724297, 4.516071428571428, 7.182481751824818, 7.902439024390244,\n\
    2, 0.8791208791208791, 6.593406593406593, 0.20659340659340658, 10.0, 6.024096385542169, 7.5,\n\
    3, 0.4090909090909091, 0.4090909090909091, 0.7727272727272727, 9.0, 9.0, 1.0,\n";
const DETAIL: &str = "0, 1.0, 3343.0, 21600, 1.0, 3343.0, 18720, 71.0, 3349.0, 2624, -50.0, 2996.0, 4964, -50.0, 2244.0, 15288, 759.0, 3411.0, 2007,\n\
    1, 1.0, 1088.0, 6912, 1.0, 1086.0, 4320, 95.0, 1092.0, 484, -50.0, 1069.0, 5058, -50.0, 497.0, 3936, 1099.0, 1139.0, 324,\n\
    2, 1.0, 442.0, 400, 1.0, 447.0, 3000, 106.0, 453.0, 94, -10.0, -1.0, 100, -50.0, 447.0, 3000, 455.0, 458.0, 30,\n\
    3, 1.0, 9.0, 9, 1.0, 9.0, 9, 15.0, 15.0, 17, -1.0, -1.0, 9, -1.0, -1.0, 9, 22.0, 22.0, 1,\n";

fn hw_sim(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::cargo_bin("hw-sim").unwrap().current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.cfg"), CFG).unwrap();
    std::fs::write(folder.path().join("t.csv"), TOPOLOGY).unwrap();
    folder
}

#[test]
fn the_tools_files_go_in_and_its_reports_come_out_byte_for_byte() {
    let folder = folder();
    let (ok, text, _) = hw_sim(folder.path(), &["run", "-c", "a.cfg", "-t", "t.csv", "-p", "out"]);
    assert!(ok && text.contains("c1"));
    let report = |name: &str| std::fs::read_to_string(folder.path().join("out/demo").join(name)).unwrap();
    assert_eq!(report("COMPUTE_REPORT.csv"), COMPUTE);
    assert_eq!(report("BANDWIDTH_REPORT.csv"), BANDWIDTH);
    let detail = report("DETAILED_ACCESS_REPORT.csv");
    assert_eq!(detail.split_once('\n').unwrap().1, DETAIL);
}

#[test]
fn every_format_says_the_same_cycles() {
    let folder = folder();
    let run = |format| hw_sim(folder.path(), &["run", "-a", "a.cfg", "-n", "t.csv", "--format", format]).1;
    let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!(json["layers"][0]["total_cycles"], 3353);
    assert!(run("csv").contains("c1,3353,0,") && run("markdown").contains("| c1 | 3353 |"));
    // The crate's own model counts every cycle and prices them.
    let own = hw_sim(folder.path(), &["run", "-a", "a.cfg", "-n", "t.csv", "--compat", "none"]).1;
    assert!(own.contains("3354") && own.contains("µJ"), "{own}");
    let json = hw_sim(folder.path(), &["run", "-a", "tpu-like", "-n", "mlp", "--format", "json"]).1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["layers"][0]["compute_cycles"], 6136);
}

#[test]
fn compare_sweep_presets_and_training_print_tables() {
    let folder = folder();
    let run = |arguments: &[&str]| {
        let (ok, text, error) = hw_sim(folder.path(), arguments);
        assert!(ok, "{error}");
        text
    };
    let table = run(&[
        "compare",
        "-a",
        "diannao-like,smartdeal",
        "-n",
        "mlp,resnet20-cifar",
        "--density",
        "0.2/1",
        "--baseline",
        "diannao-like",
    ]);
    assert_eq!(table.lines().count(), 5);
    let sweep = [
        "sweep",
        "-a",
        "diannao-like",
        "-n",
        "mlp",
        "--arrays",
        "8x8,16x16",
        "--sweep-bits",
        "8/8,4/4",
        "--format",
        "csv",
    ];
    assert_eq!(run(&sweep).lines().count(), 5);
    assert!(run(&["presets"]).contains("smartdeal"));
    assert!(run(&["presets", "smartdeal"]).contains("[engine]"));
    assert!(
        run(&["run", "-a", "bitfusion-training", "-n", "mlp", "--training", "--bits", "4/4/8"])
            .contains("WeightGradient")
    );
    assert!(
        run(&["explain", "-a", "smartdeal", "-n", "mlp", "-l", "fc2", "--density", "0.3/1"]).contains("coefficient")
    );
}

#[test]
fn a_workload_in_json_is_priced() {
    let folder = folder();
    let net = serde_json::json!({"name": "one", "layers": [{"name": "l", "op": {"linear": {"in_features": 64, "out_features": 64}},
        "weight": {"bits": 8}, "activation": {"bits": 8}}]});
    std::fs::write(folder.path().join("net.json"), net.to_string()).unwrap();
    let (ok, text, error) = hw_sim(folder.path(), &["run", "-a", "diannao-like", "-n", "net.json", "--format", "csv"]);
    assert!(ok && text.contains("l,Forward,4096,4,"), "{text}{error}"); // 64·64 MACs on 64 × 16 multipliers
}

#[test]
fn bad_input_is_an_error_with_its_place_never_a_panic() {
    let folder = folder();
    let refuse = |file: &str, contents: &str, arguments: &[&str], needle: &str| {
        std::fs::write(folder.path().join(file), contents).unwrap();
        let (ok, _, error) = hw_sim(folder.path(), arguments);
        assert!(!ok && error.contains(needle) && !error.contains("panicked"), "{error}");
    };
    let run = ["run", "-a", "b.cfg", "-n", "t.csv"];
    refuse("b.cfg", &CFG.replace("ArrayWidth: 8", "ArrayWidth: eight"), &run, "b.cfg:5:13:");
    refuse("b.csv", "h\nx,1,1,3,3,1,1,1,\n", &["run", "-a", "a.cfg", "-n", "b.csv", "-i", "conv"], "b.csv:2:7:");
    refuse("b.json", "{\"name\": 3}", &["run", "-a", "tpu-like", "-n", "b.json"], "b.json:1:");
    refuse("b.toml", "name = ", &["run", "-a", "b.toml", "-n", "mlp"], "b.toml:1:");
    refuse("unused", "", &["run", "-a", "abacus", "-n", "mlp"], "diannao-like");
    refuse("unused", "", &["run", "-a", "tpu-like", "-n", "lenet"], "resnet50");
    refuse("unused", "", &["run", "-a", "missing.cfg", "-n", "t.csv"], "missing.cfg");
    refuse("unused", "", &["run", "-a", "tpu-like", "-n", "mlp", "--bits", "0"], "0 bits");
    refuse("unused", "", &["run", "-a", "tpu-like", "-n", "mlp", "--density", "2"], "density");
    refuse("unused", "", &["explain", "-a", "tpu-like", "-n", "mlp", "-l", "nope"], "fc1");
    refuse("unused", "", &["compare", "-a", "tpu-like", "-n", "mlp", "--baseline", "x"], "baseline");
    std::fs::write(folder.path().join("bin.csv"), [0xff, 0xfe, 0]).unwrap();
    let (ok, _, error) = hw_sim(folder.path(), &["run", "-a", "a.cfg", "-n", "bin.csv"]);
    assert!(!ok && error.contains("UTF-8"), "{error}");
}
