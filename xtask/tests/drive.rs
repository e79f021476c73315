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

#[test]
fn a_peer_is_run_right_after_the_benches_it_is_compared_with_and_the_pairs_are_written_down() {
    let machine = machine("");
    let (order, new) = (machine.path("order"), machine.path("target/criterion/predict/new"));
    // Two bench programs, of which the first measures 2 ms an iteration: criterion's own two files, as far as they are read.
    machine.tool(
        "cargo",
        &format!(
            r#"echo "$*" >> {order}
case "$*" in
metadata*) echo '{{"target_directory": "{target}", "packages": [
  {{"name": "benches", "targets": [{{"name": "benches", "kind": ["lib"]}}, {{"name": "forest", "kind": ["bench"]}},
    {{"name": "later", "kind": ["bench"]}}]}},
  {{"name": "other", "targets": [{{"name": "not ours", "kind": ["bench"]}}]}}]}}';;
*'--bench forest') mkdir -p {new}
  echo '{{"full_id": "predict"}}' > {new}/benchmark.json
  echo '{{"median": {{"point_estimate": 2e6, "confidence_interval":
    {{"confidence_level": 0.95, "lower_bound": 1e6, "upper_bound": 3e6}}}}}}' > {new}/estimates.json;;
esac"#,
            order = order.display(),
            target = machine.path("target").display(),
            new = new.display(),
        ),
    );
    let peers = machine.path("checkout/benches/peers");
    fs::create_dir_all(&peers).unwrap();
    fs::write(
        peers.join("peers.toml"),
        "[environments]\ndefault = []\n[[peer]]\nname = 'prediction'\nscript = 'p.py'\nargs = ['{data}/x']\nours = 'predict'\nwant = 0.6\n",
    )
    .unwrap();
    // The peer takes 4 ms.
    let script = format!("echo peer >> {}; echo \"$@\" >&2; echo '{{\"seconds\": 0.004}}'", order.display());
    machine.tool("peers-python", &script);
    let mut command = machine.xtask();
    command.args(["bench", "--peers", "--data", "/d", "--python"]).arg(machine.path("bin/peers-python"));
    let (ok, said) = run(command);
    assert!(ok && said.contains("benches/peers/p.py /d/x"), "{said}");
    let order = fs::read_to_string(order).unwrap();
    let order: Vec<_> = order.lines().filter(|line| !line.starts_with("metadata")).collect();
    let bench = |what: &str| format!("bench --package benches --package hw-sim {what}");
    assert_eq!(order, [&bench("--no-run"), &bench("--bench forest"), "peer", &bench("--bench later")]);
    let results = machine.path("checkout/docs/results");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(results.join("bench.json")).unwrap()).unwrap();
    assert_eq!(json["benches"][0]["id"], "predict");
    assert_eq!(json["peers"][0]["met"], true);
    let text = fs::read_to_string(results.join("bench.md")).unwrap();
    assert!(text.contains("| prediction | 2.000 ms | 4.000 ms | 0.500 | ≤ 0.6 | yes |"), "{text}");

    machine.tool("peers-python", "echo 'reading' >&2; echo 'no vocabulary' >&2; exit 3");
    let mut command = machine.xtask();
    command.args(["bench", "--peers", "--python"]).arg(machine.path("bin/peers-python"));
    let (ok, said) = run(command);
    assert!(!ok && said.contains("1 of the peers could not be run"), "{said}");
    let text = fs::read_to_string(results.join("bench.md")).unwrap();
    assert!(
        text.contains(
            "| prediction | 2.000 ms | – | – | ≤ 0.6 | not run: p.py failed (exit status: 3): no vocabulary |"
        ),
        "{text}"
    );
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
