//! The commands, each a function from arguments to the text it prints.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use core_tensor::workload::{Pass, Workload};
use hw_sim::comparison::{Sweep, compare};
use hw_sim::networks::{builtin, names, with_bits, with_densities};
use hw_sim::scalesim::{self, ScaleSimConfig, Topology, TopologyKind};
use hw_sim::table::{Table, comparison_table, sweep_table};
use hw_sim::task::Task;
use hw_sim::{Accelerator, HwError, explain, training};

/// What a network costs on an accelerator: cycles, traffic, energy, latency.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One network on one accelerator, layer by layer.
    Run(Run),
    /// Accelerators × networks, with ratios to a baseline.
    Compare(Compare),
    /// Array sizes × buffers × bits × densities, with the Pareto front.
    Sweep(SweepArgs),
    /// The built-in accelerators and networks; with a name, that accelerator's file.
    Presets {
        /// The accelerator to print.
        name: Option<String>,
    },
    /// One layer's loop nest and every term of its energy.
    Explain(Explain),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Text,
    /// Comma-separated values.
    Csv,
    /// JSON with every figure.
    Json,
    /// A Markdown table.
    Markdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compat {
    /// SCALE-Sim 3.0.0's own figures and report files.
    Scalesim,
    /// This crate's own model.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TopologyFormat {
    Conv,
    Gemm,
}

#[derive(Debug, Args)]
struct NetworkArgs {
    /// A built-in network, a SCALE-Sim topology (.csv), or a workload (.json).
    #[arg(short, long = "network", visible_short_alias = 't', visible_alias = "topology")]
    network: String,
    /// Lines of the topology; guessed from its header if absent.
    #[arg(short, long = "input-type", value_enum)]
    input_type: Option<TopologyFormat>,
    /// Weight/activation/gradient bits of every layer; 8 for built-in networks if absent.
    #[arg(long, value_name = "W[/A[/G]]")]
    bits: Option<String>,
    /// Weight/activation densities of every layer.
    #[arg(long, value_name = "W[/A]")]
    density: Option<String>,
    /// Samples at once.
    #[arg(long)]
    batch: Option<u64>,
}

#[derive(Debug, Args)]
struct Run {
    /// A preset, an accelerator (.toml), or a SCALE-Sim configuration (.cfg).
    #[arg(short, long, visible_short_alias = 'c', visible_alias = "arch")]
    accelerator: String,
    #[command(flatten)]
    network: NetworkArgs,
    /// Whose figures; a .cfg means scalesim if absent.
    #[arg(long, value_enum)]
    compat: Option<Compat>,
    /// Price a training step instead of inference.
    #[arg(long)]
    training: bool,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Write the report files into this folder.
    #[arg(short = 'p', long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Compare {
    /// Presets or files, separated by commas.
    #[arg(
        short,
        long,
        value_delimiter = ',',
        default_value = "diannao-like,scnn-like,cambricon-x-like,bit-pragmatic-like,stripes-like,smartdeal"
    )]
    accelerators: Vec<String>,
    /// Built-in networks or files, separated by commas.
    #[arg(short, long, value_delimiter = ',', default_value = "resnet50,mobilenet_v2")]
    networks: Vec<String>,
    /// The accelerator that ratios are to; the first one if absent.
    #[arg(long)]
    baseline: Option<String>,
    /// Weight/activation/gradient bits of every layer; 8 for built-in networks if absent.
    #[arg(long, value_name = "W[/A[/G]]")]
    bits: Option<String>,
    /// Weight/activation densities of every layer.
    #[arg(long, value_name = "W[/A]")]
    density: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Args)]
struct SweepArgs {
    /// A preset or an accelerator (.toml, .cfg).
    #[arg(short, long)]
    accelerator: String,
    #[command(flatten)]
    network: NetworkArgs,
    /// Array sides, such as 8x8,16x16.
    #[arg(long, value_delimiter = ',')]
    arrays: Vec<String>,
    /// Factors on the buffers, such as 0.5,1,2; an access costs more in a larger one (CACTI, 128 bytes to 16 KiB).
    #[arg(long, value_delimiter = ',')]
    buffer_scales: Vec<f64>,
    /// Weight/activation bits, such as 8/8,4/4.
    #[arg(long = "sweep-bits", value_delimiter = ',')]
    sweep_bits: Vec<String>,
    /// Weight/activation densities, such as 1/1,0.5/0.5.
    #[arg(long = "sweep-densities", value_delimiter = ',')]
    sweep_densities: Vec<String>,
    /// Print the Pareto front alone.
    #[arg(long)]
    pareto: bool,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Args)]
struct Explain {
    /// A preset or an accelerator (.toml, .cfg).
    #[arg(short, long)]
    accelerator: String,
    #[command(flatten)]
    network: NetworkArgs,
    /// The layer's name.
    #[arg(short, long)]
    layer: String,
    /// Which pass.
    #[arg(long, value_enum, default_value = "forward")]
    pass: PassName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PassName {
    Forward,
    InputGradient,
    WeightGradient,
}

impl Cli {
    pub(crate) fn run(self) -> Result<String> {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Sweep(args) => args.run(),
            Command::Presets { name: Some(name) } => Ok(Accelerator::preset_text(&name)?.to_owned()),
            Command::Presets { name: None } => presets(),
            Command::Explain(args) => args.run(),
        }
    }
}

fn presets() -> Result<String> {
    let mut text = String::from("accelerators:\n");
    for name in Accelerator::presets() {
        text += &format!("  {name:<20} {}\n", Accelerator::preset(name)?.source);
    }
    text += "networks:\n";
    for name in names() {
        let net = builtin(name)?;
        text +=
            &format!("  {name:<20} {} layers, {} MACs, {} weights\n", net.layers.len(), net.macs()?, net.weights()?);
    }
    Ok(text)
}

fn read(path: &str) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {path}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{path}: not UTF-8 at byte {at}")
    })
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

enum Machine {
    Described(Accelerator),
    ScaleSim(ScaleSimConfig),
}

impl Machine {
    fn load(name: &str) -> Result<Self> {
        Ok(if has_extension(name, "cfg") {
            Self::ScaleSim(ScaleSimConfig::parse(name, &read(name)?)?)
        } else if has_extension(name, "toml") {
            Self::Described(Accelerator::from_toml(name, &read(name)?)?)
        } else {
            Self::Described(Accelerator::preset(name)?)
        })
    }

    fn accelerator(self) -> Result<Accelerator> {
        Ok(match self {
            Self::Described(accelerator) => accelerator,
            Self::ScaleSim(config) => config.to_accelerator()?,
        })
    }
}

enum Network {
    Workload(Workload),
    Topology(Topology),
}

impl NetworkArgs {
    fn load(&self) -> Result<Network> {
        let name = &self.network;
        if has_extension(name, "csv") {
            let text = read(name)?;
            let kind = match self.input_type {
                Some(TopologyFormat::Conv) => TopologyKind::Conv,
                Some(TopologyFormat::Gemm) => TopologyKind::Gemm,
                None => TopologyKind::detect(&text),
            };
            return Ok(Network::Topology(Topology::parse(name, &text, kind)?));
        }
        Ok(Network::Workload(if has_extension(name, "json") {
            let parsed: Workload = serde_json::from_str(&read(name)?).map_err(|error| HwError::Parse {
                file: name.clone(),
                line: error.line(),
                column: error.column(),
                message: error.to_string(),
            })?;
            parsed.validate()?;
            parsed
        } else {
            with_bits(builtin(name)?, [8; 3])
        }))
    }

    fn workload(&self) -> Result<Workload> {
        let mut net = match self.load()? {
            Network::Workload(net) => net,
            Network::Topology(topology) => topology.to_workload(),
        };
        if let Some(bits) = &self.bits {
            net = with_bits(net, parse_bits(bits)?);
        }
        if let Some(density) = &self.density {
            net = with_densities(net, parse_pair(density, "density")?);
        }
        if let Some(batch) = self.batch {
            net.batch = batch;
        }
        net.validate()?;
        Ok(net)
    }
}

fn parse_list<T: std::str::FromStr>(text: &str, what: &str) -> Result<Vec<T>> {
    let part =
        |part: &str| part.trim().parse().map_err(|_| anyhow::anyhow!("{what}: a number expected, found `{part}`"));
    text.split('/').map(part).collect()
}

fn parse_bits(text: &str) -> Result<[u8; 3]> {
    Ok(match parse_list(text, "bits")?[..] {
        [all] => [all; 3],
        [weight, activation] => [weight, activation, activation],
        [weight, activation, gradient] => [weight, activation, gradient],
        _ => bail!("bits: W, W/A or W/A/G expected, found `{text}`"),
    })
}

fn parse_pair<T: std::str::FromStr + Copy>(text: &str, what: &str) -> Result<[T; 2]> {
    Ok(match parse_list(text, what)?[..] {
        [both] => [both; 2],
        [first, second] => [first, second],
        _ => bail!("{what}: one or two numbers expected, found `{text}`"),
    })
}

fn print(table: &Table, format: Format, json: impl FnOnce() -> serde_json::Result<String>) -> Result<String> {
    Ok(match format {
        Format::Text => table.to_text(),
        Format::Csv => table.to_csv(),
        Format::Markdown => table.to_markdown(),
        Format::Json => json()? + "\n",
    })
}

impl Run {
    fn run(self) -> Result<String> {
        let machine = Machine::load(&self.accelerator)?;
        let default = if matches!(machine, Machine::ScaleSim(_)) { Compat::Scalesim } else { Compat::None };
        match self.compat.unwrap_or(default) {
            Compat::Scalesim => self.scalesim(machine),
            Compat::None => self.own(machine.accelerator()?),
        }
    }

    fn scalesim(self, machine: Machine) -> Result<String> {
        if self.training
            || self.network.bits.is_some()
            || self.network.density.is_some()
            || self.network.batch.is_some()
        {
            bail!("SCALE-Sim knows no training, bits, densities or batch; add `--compat none` for this crate's model");
        }
        let config = match machine {
            Machine::ScaleSim(config) => config,
            Machine::Described(accelerator) => ScaleSimConfig::from_accelerator(&accelerator)?,
        };
        let topology = match self.network.load()? {
            Network::Topology(topology) => topology,
            Network::Workload(net) => Topology::from_workload(&net)?,
        };
        let reports = scalesim::run(&config, &topology)?;
        if let Some(folder) = &self.out {
            // The tool makes a folder of the run's name; a name that is a path is not followed.
            let name = Path::new(&reports.run_name).file_name().map_or_else(|| "scale_run".into(), PathBuf::from);
            write_all(&folder.join(name), &reports.files())?;
        }
        print(&reports.table(), self.format, || serde_json::to_string_pretty(&reports))
    }

    fn own(self, accelerator: Accelerator) -> Result<String> {
        let net = self.network.workload()?;
        let cost = if self.training { training::step(&accelerator, &net)? } else { accelerator.cost(&net)? };
        let json = || serde_json::to_string_pretty(&cost);
        if let Some(folder) = &self.out {
            let (layers, energy) = (cost.table().to_csv(), cost.energy_table().to_csv());
            write_all(folder, &[("layers.csv", layers), ("energy.csv", energy), ("cost.json", json()?)])?;
        }
        let mut text = print(&cost.table(), self.format, json)?;
        if self.format == Format::Text {
            text += &format!(
                "\n{}\n{} on {}: {:.4} ms, {:.2} µJ, {:.4} µJ·ms\n",
                cost.energy_table().to_text(),
                cost.network,
                cost.accelerator,
                cost.latency_ms(),
                cost.energy_pj() * 1e-6,
                cost.energy_delay()
            );
        }
        Ok(text)
    }
}

fn write_all(folder: &Path, files: &[(&str, String)]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, contents) in files {
        let path = folder.join(name);
        std::fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

impl Compare {
    fn run(self) -> Result<String> {
        let load = |name: &String| Machine::load(name)?.accelerator();
        let accelerators = self.accelerators.iter().map(load).collect::<Result<Vec<_>>>()?;
        let networks = self.networks.iter().map(|name| {
            let (bits, density) = (self.bits.clone(), self.density.clone());
            NetworkArgs { network: name.clone(), input_type: None, bits, density, batch: None }.workload()
        });
        let networks = networks.collect::<Result<Vec<_>>>()?;
        let baseline = match &self.baseline {
            None => 0,
            Some(name) => {
                let known = self.accelerators.iter().position(|given| given == name);
                known.with_context(|| format!("baseline `{name}` is not among the accelerators"))?
            }
        };
        let rows = compare(&accelerators, &networks, baseline)?;
        print(&comparison_table(&rows), self.format, || serde_json::to_string_pretty(&rows))
    }
}

impl SweepArgs {
    fn run(self) -> Result<String> {
        let accelerator = Machine::load(&self.accelerator)?.accelerator()?;
        let array = |text: &String| parse_pair(&text.replace('x', "/"), "arrays");
        let sweep = Sweep {
            arrays: self.arrays.iter().map(array).collect::<Result<_>>()?,
            buffer_scales: self.buffer_scales,
            bits: self.sweep_bits.iter().map(|text| parse_pair(text, "sweep-bits")).collect::<Result<_>>()?,
            densities: self
                .sweep_densities
                .iter()
                .map(|text| parse_pair(text, "sweep-densities"))
                .collect::<Result<_>>()?,
        };
        let mut points = sweep.run(&accelerator, &self.network.workload()?)?;
        if self.pareto {
            points.retain(|point| point.pareto);
        }
        print(&sweep_table(&points), self.format, || serde_json::to_string_pretty(&points))
    }
}

impl Explain {
    fn run(self) -> Result<String> {
        let accelerator = Machine::load(&self.accelerator)?.accelerator()?;
        let net = self.network.workload()?;
        let layer = net.layers.iter().find(|layer| layer.name == self.layer).ok_or_else(|| HwError::Unknown {
            kind: "layer",
            name: self.layer.clone(),
            known: net.layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let pass = match self.pass {
            PassName::Forward => Pass::Forward,
            PassName::InputGradient => Pass::InputGradient,
            PassName::WeightGradient => Pass::WeightGradient,
        };
        Ok(explain(&accelerator, &Task::new(layer, net.batch, pass)?)?)
    }
}
