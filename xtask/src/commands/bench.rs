//! `cargo xtask bench`: criterion's benches, and the same work done by Python peers in the same session.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::setup;
use crate::process;
use crate::workspace::Workspace;

/// Set up what is missing, then `cargo bench -p benches`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the peers of benches/peers/peers.toml too, and write docs/results/bench.json and bench.md
    #[arg(long)]
    peers: bool,
    /// Python that has the peers' requirements; without it a throw-away environment is made below target/
    #[arg(long, requires = "peers")]
    python: Option<PathBuf>,
    /// Root of the data sets, for peers that read some
    #[arg(long)]
    data: Option<PathBuf>,
    /// Handed to cargo bench (a filter, `-- --quick`, …)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "--package", "benches"]).args(&args.rest);
    if !args.peers {
        return process::replace_with(cargo);
    }
    let manifest = Manifest::read(&workspace.root().join("benches/peers/peers.toml"))?;
    // File systems stamp files by a clock that ticks a few milliseconds late.
    let begun = SystemTime::now() - std::time::Duration::from_millis(100);
    if process::run(cargo)? != ExitCode::SUCCESS {
        bail!("the benches failed, see above");
    }
    let target = workspace.target_dir()?;
    let benches = measurements(&target.join("criterion"), begun)?;
    let python = match (&args.python, manifest.peers.is_empty()) {
        (Some(python), _) => python.clone(),
        (None, true) => PathBuf::new(),
        (None, false) => environment(&target.join("peers"), &manifest.requirements)?,
    };
    let data = workspace.data_root(args.data.as_deref());
    let scripts = workspace.root().join("benches/peers");
    let peers = compare(&manifest, &benches, |script, arguments| {
        let arguments = arguments.iter().map(|argument| argument.replace("{data}", &data.to_string_lossy()));
        let output = Command::new(&python)
            .arg(scripts.join(script))
            .args(arguments)
            .stderr(std::process::Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", python.display()))?;
        if !output.status.success() {
            bail!("{script} failed ({})", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    })?;
    let results = Results { schema: 1, machine: machine(), benches, peers };
    let folder = workspace.root().join("docs/results");
    write(&folder, "bench.json", &(serde_json::to_string_pretty(&results)? + "\n"))?;
    write(&folder, "bench.md", &results.to_markdown())?;
    Ok(ExitCode::SUCCESS)
}

/// Which scripts do the same work as which of our benches. See `benches/peers/peers.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    requirements: Vec<String>,
    #[serde(rename = "peer", default)]
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    script: String,
    /// `{data}` stands for the data root.
    #[serde(default)]
    args: Vec<String>,
    /// The line of the script's output: the JSON object in which these fields have these values.
    #[serde(default)]
    select: BTreeMap<String, Value>,
    /// The field with the seconds that one iteration takes.
    #[serde(default = "seconds")]
    field: String,
    /// Criterion's id of our bench.
    ours: String,
    /// Bound of ours ÷ theirs.
    want: f64,
}

fn seconds() -> String {
    "seconds".to_owned()
}

impl Manifest {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a list of peers", path.display()))
    }
}

#[derive(Debug, Serialize)]
struct Results {
    schema: u32,
    machine: BTreeMap<&'static str, String>,
    benches: Vec<Measurement>,
    peers: Vec<Comparison>,
}

/// One of our benches: mean seconds of an iteration, with criterion's interval.
#[derive(Clone, Debug, Serialize)]
struct Measurement {
    id: String,
    seconds: f64,
    interval: [f64; 2],
    confidence: f64,
}

#[derive(Debug, Serialize)]
struct Comparison {
    name: String,
    ours: String,
    our_seconds: f64,
    their_seconds: f64,
    /// Ours ÷ theirs: below 1 we are faster.
    ratio: f64,
    want: f64,
    met: bool,
}

/// What criterion measured since `begun`; older results lie in the same folder and are not this session's.
fn measurements(folder: &Path, begun: SystemTime) -> Result<Vec<Measurement>> {
    #[derive(Deserialize)]
    struct Benchmark {
        full_id: String,
    }
    #[derive(Deserialize)]
    struct Estimates {
        mean: Estimate,
    }
    #[derive(Deserialize)]
    struct Estimate {
        point_estimate: f64,
        confidence_interval: Interval,
    }
    #[derive(Deserialize)]
    struct Interval {
        confidence_level: f64,
        lower_bound: f64,
        upper_bound: f64,
    }
    /// Criterion writes nanoseconds.
    const NANO: f64 = 1e-9;

    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        folders.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
        let path = folder.join("estimates.json");
        let fresh = path.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|time| time >= begun);
        if !folder.ends_with("new") || !fresh {
            continue;
        }
        let benchmark: Benchmark = read_json(&folder.join("benchmark.json"))?;
        let Estimates { mean } = read_json(&path)?;
        let interval = mean.confidence_interval;
        found.push(Measurement {
            id: benchmark.full_id,
            seconds: mean.point_estimate * NANO,
            interval: [interval.lower_bound * NANO, interval.upper_bound * NANO],
            confidence: interval.confidence_level,
        });
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not criterion's", path.display()))
}

/// Pairs every peer with our bench; each script runs once, however many peers read its output. A peer whose bench was
/// not run this time (a filter was given) is left out.
fn compare(
    manifest: &Manifest,
    benches: &[Measurement],
    mut run: impl FnMut(&str, &[String]) -> Result<String>,
) -> Result<Vec<Comparison>> {
    let mut outputs: BTreeMap<(&str, &[String]), String> = BTreeMap::new();
    let mut comparisons = Vec::new();
    for peer in &manifest.peers {
        let Some(ours) = benches.iter().find(|bench| bench.id == peer.ours) else { continue };
        let key = (peer.script.as_str(), peer.args.as_slice());
        let output = match outputs.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(run(&peer.script, &peer.args)?),
        };
        let theirs = read_seconds(output, peer)?;
        let ratio = ours.seconds / theirs;
        comparisons.push(Comparison {
            name: peer.name.clone(),
            ours: peer.ours.clone(),
            our_seconds: ours.seconds,
            their_seconds: theirs,
            ratio,
            want: peer.want,
            met: ratio <= peer.want,
        });
    }
    Ok(comparisons)
}

/// The peer's figure in its script's output: JSON objects, one a line, among whatever else it prints.
fn read_seconds(output: &str, peer: &Peer) -> Result<f64> {
    let line = output
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|value| value.is_object() && peer.select.iter().all(|(key, wanted)| value.get(key) == Some(wanted)))
        .ok_or_else(|| anyhow!("{} printed no JSON object for {:?}", peer.script, peer.name))?;
    line.get(&peer.field)
        .and_then(Value::as_f64)
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .ok_or_else(|| anyhow!("{}: {:?} is not a number of seconds in {line}", peer.script, peer.field))
}

/// Makes the environment, or takes the one made earlier from the same requirements.
fn environment(folder: &Path, requirements: &[String]) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let record = folder.join("requirements.txt");
    let wanted = requirements.join("\n");
    if python.exists() && fs::read_to_string(&record).is_ok_and(|there| there == wanted) {
        return Ok(python);
    }
    eprintln!("making a Python environment for the peers in {} (PyTorch is large) …", folder.display());
    for mut command in [venv(folder), pip_install(&python, requirements)] {
        let status = command.status().context("cannot run python3")?;
        if !status.success() {
            bail!("the peers' environment could not be made; give one with --python");
        }
    }
    // Written last: an environment without its record is made again.
    fs::write(&record, wanted).with_context(|| format!("cannot write {}", record.display()))?;
    Ok(python)
}

fn venv(folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "venv", "--clear"]).arg(folder);
    command
}

fn pip_install(python: &Path, requirements: &[String]) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(requirements);
    command
}

/// What a reader needs to judge the figures.
fn machine() -> BTreeMap<&'static str, String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    BTreeMap::from([
        ("cpu", cpu.unwrap_or_else(|| "unknown".to_owned())),
        ("cores", cores.to_string()),
        ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("rustc", rustc.unwrap_or_else(|_| "unknown".to_owned())),
    ])
}

impl Results {
    fn to_markdown(&self) -> String {
        let mut text = String::from("# Benches\n\nWritten by `cargo xtask bench --peers`.\n\n");
        for (key, value) in &self.machine {
            text += &format!("- {key}: {value}\n");
        }
        if !self.peers.is_empty() {
            text += "\n| what | ours | theirs | ours ÷ theirs | wanted | met |\n|---|---|---|---|---|---|\n";
        }
        for peer in &self.peers {
            text += &format!(
                "| {} | {} | {} | {:.3} | ≤ {} | {} |\n",
                peer.name,
                time(peer.our_seconds),
                time(peer.their_seconds),
                peer.ratio,
                peer.want,
                if peer.met { "yes" } else { "no" },
            );
        }
        text += "\n| bench | mean | interval |\n|---|---|---|\n";
        for bench in &self.benches {
            let [low, high] = bench.interval;
            text += &format!("| {} | {} | {} – {} |\n", bench.id, time(bench.seconds), time(low), time(high));
        }
        text
    }
}

/// Seconds in the unit that keeps the number readable.
fn time(seconds: f64) -> String {
    let (scale, unit) = match seconds {
        s if s >= 1.0 => (1.0, "s"),
        s if s >= 1e-3 => (1e3, "ms"),
        s if s >= 1e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    format!("{:.3} {unit}", seconds * scale)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        toml::from_str(text).unwrap()
    }

    fn bench(id: &str, seconds: f64) -> Measurement {
        Measurement { id: id.into(), seconds, interval: [seconds, seconds], confidence: 0.95 }
    }

    #[test]
    fn a_peer_is_compared_with_the_bench_it_names_and_its_script_runs_once() {
        let manifest = manifest(
            r#"
            requirements = []
            [[peer]]
            name = "fit"
            script = "p.py"
            select = { model = "rf" }
            field = "fit_s"
            ours = "forest/fit"
            want = 0.5
            [[peer]]
            name = "predict"
            script = "p.py"
            select = { model = "df" }
            ours = "forest/predict"
            want = 0.5
            [[peer]]
            name = "not run this time"
            script = "q.py"
            ours = "other"
            want = 1.0
            "#,
        );
        let mut runs = 0;
        let output = "warming up\n{\"model\": \"rf\", \"fit_s\": 8.0}\n{\"model\": \"df\", \"seconds\": 1.5}\n";
        let compared = compare(&manifest, &[bench("forest/fit", 2.0), bench("forest/predict", 1.0)], |script, _| {
            assert_eq!(script, "p.py");
            runs += 1;
            Ok(output.to_owned())
        })
        .unwrap();
        assert_eq!(runs, 1);
        // 2 s against 8 s, 1 s against 1.5 s.
        assert_eq!(compared.len(), 2);
        assert!(compared[0].met && (compared[0].ratio - 0.25).abs() < 1e-12);
        assert!(!compared[1].met);
    }

    #[test]
    fn output_without_the_figure_is_an_error_that_names_the_script() {
        let manifest = manifest("requirements = []\n[[peer]]\nname = 'x'\nscript = 'p.py'\nours = 'x'\nwant = 1.0\n");
        for output in ["", "{\"seconds\": \"fast\"}", "{\"seconds\": 0}", "[1]"] {
            let error = compare(&manifest, &[bench("x", 1.0)], |_, _| Ok(output.to_owned())).unwrap_err();
            assert!(error.to_string().contains("p.py"), "{output}: {error}");
        }
    }

    #[test]
    fn only_this_sessions_measurements_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("group/function/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("benchmark.json"), r#"{"full_id": "group/function"}"#).unwrap();
        fs::write(
            new.join("estimates.json"),
            r#"{"mean": {"point_estimate": 2e9,
                "confidence_interval": {"confidence_level": 0.95, "lower_bound": 1e9, "upper_bound": 3e9}}}"#,
        )
        .unwrap();
        let found = measurements(folder.path(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(found[0].id, "group/function");
        assert!((found[0].seconds - 2.0).abs() < 1e-9 && (found[0].interval[1] - 3.0).abs() < 1e-9);
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert!(measurements(folder.path(), later).unwrap().is_empty());
    }

    #[test]
    fn the_projects_own_list_of_peers_can_be_read() {
        let workspace = Workspace::current().unwrap();
        let folder = workspace.root().join("benches/peers");
        let manifest = Manifest::read(&folder.join("peers.toml")).unwrap();
        for peer in manifest.peers {
            assert!(folder.join(&peer.script).is_file(), "{} is not there", peer.script);
        }
    }

    #[test]
    fn times_are_written_in_readable_units() {
        assert_eq!(time(1.5), "1.500 s");
        assert_eq!(time(0.0025), "2.500 ms");
        assert_eq!(time(2e-8), "20.000 ns");
    }
}
