//! The commands that drive cargo, with a cargo that writes down what it is asked.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;

use support::{Machine, run};

/// A checkout whose libtorch is in order, and a cargo that logs its arguments and ends with `ending`.
fn machine(ending: &str) -> Machine {
    let machine = Machine::new();
    let libtorch = machine.path("checkout/.libtorch");
    for name in
        ["lib/libc10.so", "lib/libtorch_cpu.so", "lib/libtorch.so", "include/torch/csrc/api/include/torch/torch.h"]
    {
        let path = libtorch.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }
    fs::write(libtorch.join("build-version"), "2.11.0").unwrap();
    let log = machine.path("cargo.log");
    machine.tool(
        "cargo",
        &format!("echo \"$@\" >> {}; echo \"data=$REPRO_DATA libtorch=$LIBTORCH\"; {ending}", log.display()),
    );
    machine
}

fn asked(machine: &Machine) -> Vec<String> {
    fs::read_to_string(machine.path("cargo.log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn repro_hands_its_arguments_on_and_its_exit_code_back() {
    let machine = machine("exit 7");
    let mut command = machine.xtask();
    command.args(["repro", "kd-ticket", "--tier", "quick", "--seeds=3", "--strict"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(asked(&machine), ["run --release --package repro -- run kd-ticket --tier quick --seeds=3 --strict"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("fashion-mnist: going on without it"), "{said}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains(&format!(
            "data={}/checkout/data libtorch=",
            machine.path("").display().to_string().trim_end_matches('/')
        )),
        "{said}"
    );
}

#[test]
fn a_listing_and_a_help_text_fetch_nothing() {
    for argument in ["--list", "--help", "-h"] {
        let machine = machine("exit 0");
        let mut command = machine.xtask();
        command.args(["repro", argument]);
        let (ok, said) = run(command);
        assert!(ok && !said.contains("fashion-mnist"), "{said}");
        assert_eq!(asked(&machine), [format!("run --release --package repro -- run {argument}")]);
        assert!(!machine.path("checkout/data").exists());
    }
}

#[test]
fn a_data_root_that_is_named_and_missing_is_not_made() {
    let machine = machine("exit 0");
    let mut command = machine.xtask();
    command.args(["repro", "kd-ticket", "--data"]).arg(machine.path("typo"));
    let (ok, said) = run(command);
    assert!(ok && !said.contains("fashion-mnist"), "{said}");
    assert!(said.contains("data= "), "{said}");
    assert!(!machine.path("typo").exists());
}

#[test]
fn a_signal_that_ends_the_experiments_is_passed_on() {
    let machine = machine("kill -9 $$");
    let mut command = machine.xtask();
    command.args(["repro", "fas"]);
    assert_eq!(command.output().unwrap().status.signal(), Some(9));
}

#[test]
fn test_covers_the_workspace_or_the_crate_that_is_named() {
    let machine = machine("exit 0");
    for arguments in [&["test"][..], &["test", "-p", "lth", "masks"]] {
        let mut command = machine.xtask();
        command.args(arguments);
        assert!(run(command).0);
    }
    assert_eq!(asked(&machine), ["test --workspace", "test -p lth masks"]);
}

#[test]
fn doc_and_bench_hand_their_arguments_on() {
    let machine = machine("exit 0");
    for arguments in [&["doc", "--open"][..], &["bench", "train_step", "--", "--quick"]] {
        let mut command = machine.xtask();
        command.args(arguments);
        assert!(run(command).0);
    }
    assert_eq!(
        asked(&machine),
        ["doc --workspace --no-deps --open", "bench --package benches --package hw-sim train_step -- --quick"]
    );
}

/// A machine whose cargo knows two bench programs, `forest` and `later`, and writes down what is run. `forest` does what is said
/// here; `MEASURE` in it stands for measuring 2 ms an iteration of `predict`. One peer is compared with that bench.
fn machine_with_a_peer(forest: &str, more_peers: &str) -> Machine {
    let machine = machine("");
    // Criterion's files, as far as they are read, and a result.
    let measure = format!(
        r#"mkdir -p {new}
echo '{{"times": [2e6, 2e6]}}' > {new}/sample.json
echo '{{"median": {{"point_estimate": 2e6, "confidence_interval":
  {{"confidence_level": 0.95, "lower_bound": 1e6, "upper_bound": 3e6}}}}}}' > {new}/estimates.json
echo '{{"full_id": "predict"}}' > {new}/benchmark.json
echo '{{"id": "predict", "values": {{"accuracy": 0.871}}}}' > "$BENCH_RESULTS/predict.json""#,
        new = machine.path("target/criterion/predict/new").display()
    );
    machine.tool(
        "cargo",
        &format!(
            r#"case "$*" in
metadata*) echo '{{"target_directory": "{target}", "packages": [
  {{"name": "benches", "targets": [{{"name": "benches", "kind": ["lib"]}}, {{"name": "forest", "kind": ["bench"]}},
    {{"name": "later", "kind": ["bench"]}}]}},
  {{"name": "other", "targets": [{{"name": "not ours", "kind": ["bench"]}}]}}]}}'; exit 0;;
esac
echo "${{*#bench --package benches --package hw-sim }}" >> {order}
case "$*" in *'--bench forest'*)
echo "ours: $RAYON_NUM_THREADS threads"
{forest}
esac"#,
            order = machine.path("order").display(),
            target = machine.path("target").display(),
            forest = forest.replace("MEASURE", &measure),
        ),
    );
    let peers = machine.path("checkout/benches/peers");
    fs::create_dir_all(&peers).unwrap();
    let peer = "[[peer]]\nname = 'prediction'\nscript = 'p.py'\nargs = ['{data}/x', '--jobs={threads}']\n\
                ours = 'predict'\nwant = 0.6\nagree = { accuracy = 0.01 }\n";
    fs::write(peers.join("peers.toml"), format!("[environments]\ndefault = ['numpy']\n{peer}{more_peers}")).unwrap();
    machine
}

/// `bench --peers` with a Python that does what `python` says.
fn bench_with_peers(machine: &Machine, python: &str, arguments: &[&str]) -> (bool, String) {
    let script = format!(
        r#"case "$*" in --version) echo Python 3.11.2; exit;; *freeze) echo numpy==2.1.0; exit;; esac
echo peer >> {}
echo "theirs: $OMP_NUM_THREADS threads, $@" >&2
{python}"#,
        machine.path("order").display()
    );
    machine.tool("peers-python", &script);
    let mut command = machine.xtask();
    command.args(["bench", "--peers", "--threads", "3", "--data", "/d", "--python"]);
    command.arg(machine.path("bin/peers-python")).args(arguments);
    run(command)
}

/// What was run, in order, since this was asked last.
fn order(machine: &Machine) -> Vec<String> {
    let path = machine.path("order");
    let order = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    order.lines().map(str::to_owned).collect()
}

/// A script that takes 4 ms and is right.
const GOOD: &str = r#"echo '{"seconds": [0.003, 0.004, 0.005], "accuracy": 0.872}'"#;

#[test]
fn ours_and_theirs_are_run_in_turn_and_the_pairs_are_written_down() {
    let machine = machine_with_a_peer("MEASURE", "");
    let (ok, said) = bench_with_peers(&machine, GOOD, &["--rounds", "2"]);
    assert!(ok && said.contains("ours: 3 threads") && said.contains("theirs: 3 threads"), "{said}");
    assert!(said.contains("benches/peers/p.py /d/x --jobs=3"), "{said}");
    assert_eq!(
        order(&machine),
        ["--no-run", "--bench forest", "peer", "--bench forest -- ^(predict)$", "peer", "--bench later"]
    );
    let results = machine.path("checkout/docs/results");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(results.join("bench.json")).unwrap()).unwrap();
    assert_eq!((&json["schema"], &json["benches"][0]["id"]), (&3.into(), &"predict".into()));
    assert_eq!((&json["peers"][0]["verdict"], &json["peers"][0]["agreement"]), (&"yes".into(), &"agrees".into()));
    assert_eq!(json["environments"]["default"]["packages"][0], "numpy==2.1.0");
    let text = fs::read_to_string(results.join("bench.md")).unwrap();
    let row =
        "| prediction | 2.000 ms | 4.000 ms | 4, 6 | 0.500 | 2 | 0.500 – 0.500 | ≤ 0.6 | yes | accuracy 0.871, 0.872 |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("- Python environment `default`: Python 3.11.2, numpy 2.1.0\n"), "{text}");
}

#[test]
fn a_peer_that_fails_and_one_without_its_bench_say_why() {
    let absent = "[[peer]]\nname = 'images'\nscript = 'p.py'\nours = 'absent'\nwant = 1\n";
    let machine = machine_with_a_peer("MEASURE", absent);
    let python = "echo 'reading' >&2; echo \"no vocabulary in $2\" >&2; exit 3";
    let (ok, said) = bench_with_peers(&machine, python, &["--rounds", "1"]);
    assert!(!ok && said.contains("1 of the peers could not be run in every round"), "{said}");
    let text = fs::read_to_string(machine.path("checkout/docs/results/bench.md")).unwrap();
    let reason = "p.py failed (exit status: 3): no vocabulary in {data}/x";
    let row = format!("| prediction | 2.000 ms | – | 2, – | – | 0 | – | ≤ 0.6 | not run: {reason} | – |");
    assert!(text.contains(&row), "{text}");
    assert!(text.contains("| images | – | – | – | – | 0 | – | ≤ 1 | not run: no bench `absent` | – |"), "{text}");
}

#[test]
fn a_program_of_ours_that_fails_does_not_end_the_run() {
    let machine = machine_with_a_peer("MEASURE\nexit 101", "");
    let (ok, said) = bench_with_peers(&machine, GOOD, &["--rounds", "1"]);
    assert!(!ok && said.contains("1 runs of our programs failed"), "{said}");
    assert_eq!(order(&machine), ["--no-run", "--bench forest", "peer", "--bench later"]);
    let text = fs::read_to_string(machine.path("checkout/docs/results/bench.md")).unwrap();
    assert!(text.contains("- `forest`, round 1: exit status: 101\n"), "{text}");
    assert!(text.contains("| prediction | 2.000 ms | 4.000 ms | 2, 3 | 0.500 | 1 | – | ≤ 0.6 | yes |"), "{text}");
}

#[test]
fn other_results_than_ours_are_a_failure() {
    let machine = machine_with_a_peer("MEASURE", "");
    let (ok, said) = bench_with_peers(&machine, r#"echo '{"seconds": 0.004, "accuracy": 0.9}'"#, &["--rounds", "1"]);
    assert!(!ok && said.contains("1 of the peers have other results than ours"), "{said}");
    let text = fs::read_to_string(machine.path("checkout/docs/results/bench.md")).unwrap();
    assert!(text.contains("| **differs**: accuracy 0.871, 0.900 (at most 0.01 apart) |"), "{text}");
}

#[test]
fn a_part_of_the_benches_is_not_written_over_the_projects_results() {
    let machine = machine_with_a_peer("MEASURE", "");
    for arguments in [&["--rounds", "2", "--", "--quick"][..], &["--rounds", "2", "pred", "--", "--quick"]] {
        let (ok, said) = bench_with_peers(&machine, GOOD, arguments);
        assert!(ok, "{said}");
        assert!(!machine.path("checkout/docs/results").exists());
        let text = fs::read_to_string(machine.path("target/bench-results/bench.md")).unwrap();
        let handed_on = arguments[2..].join(" ");
        assert!(text.contains(&format!("- arguments: `{handed_on}`\n")), "{text}");
        let filter = if handed_on.starts_with("pred") { " pred" } else { "" };
        assert_eq!(
            order(&machine),
            [
                &format!("--no-run {handed_on}"),
                &format!("--bench forest -- --quick{filter}"),
                "peer",
                "--bench forest -- --quick ^(predict)$",
                "peer",
                &format!("--bench later -- --quick{filter}"),
            ]
        );
    }
}

#[test]
fn ci_runs_every_check_with_warnings_denied() {
    let machine = machine("exit 0");
    let mut command = machine.xtask();
    command.arg("ci");
    let (ok, said) = run(command);
    assert!(ok && said.contains("ci: all steps passed"), "{said}");
    assert_eq!(
        asked(&machine)[2..],
        [
            "fmt --all --check",
            "clippy --workspace --all-targets -- --deny warnings",
            "doc --workspace --no-deps",
            "test --workspace",
            "clippy -p forest --all-features --all-targets -- --deny warnings",
            "test -p forest --all-features",
            "clippy -p core-tensor --no-default-features -- --deny warnings",
            "tree -p hw-sim --edges normal,build --prefix none",
            "tree -p forest --edges normal,build --prefix none",
        ]
    );
}

#[test]
fn ci_refuses_libtorch_where_none_is_promised() {
    let machine = machine("case \"$*\" in 'tree -p forest'*) echo 'torch-sys v0.24.0';; esac");
    let mut command = machine.xtask();
    command.arg("ci");
    let (ok, said) = run(command);
    assert!(!ok && said.contains("forest depends on torch-sys"), "{said}");
}

#[test]
fn ci_stops_at_the_first_failure_and_names_it() {
    let machine = machine("case \"$*\" in 'clippy --workspace'*) exit 101;; esac");
    let mut command = machine.xtask();
    command.arg("ci");
    let (ok, said) = run(command);
    assert!(!ok && said.contains("lints: failed"), "{said}");
    assert!(!asked(&machine).iter().any(|line| line.starts_with("test")));
}

#[test]
fn ci_names_a_component_that_is_missing() {
    let machine = machine("[ $1 != clippy ]");
    let mut command = machine.xtask();
    command.arg("ci");
    let (ok, said) = run(command);
    assert!(!ok && said.contains("rustup component add"), "{said}");
}

#[test]
fn a_command_that_builds_sets_libtorch_up_first() {
    let machine = machine("exit 0");
    fs::remove_dir_all(machine.path("checkout/.libtorch")).unwrap();
    let mut command = machine.xtask();
    command.arg("test");
    let (ok, said) = run(command);
    assert!(!ok && said.contains("could not be fetched from anywhere"), "{said}");
    assert!(asked(&machine).is_empty());
}
