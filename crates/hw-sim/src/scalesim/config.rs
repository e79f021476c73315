//! The `.cfg` file: an INI dialect with `:` or `=` between key and value.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::accelerator::{Accelerator, MemoryLevel};
use crate::engine::{Engine, Systolic};
use crate::error::HwError;
use crate::systolic::{Dataflow, SparseFormat, SystolicArray};
use crate::task::OperandKind;

/// What a `.cfg` file says, as far as it changes a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleSimConfig {
    /// `run_name`: the folder of the reports.
    pub run_name: String,
    /// `ArrayHeight`, `ArrayWidth`, `Dataflow`.
    pub array: SystolicArray,
    /// `IfmapSramSzkB`, `FilterSramSzkB`, `OfmapSramSzkB`.
    pub buffer_kb: [u64; 3],
    /// `InterfaceBandwidth`.
    pub interface: Interface,
    /// The sparsity section, when `SparsitySupport` is true.
    pub sparsity: Option<Sparsity>,
}

/// `InterfaceBandwidth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// `CALC`: no stalls; the bandwidth that would be needed is reported.
    Calc,
    /// `USER`: the `Bandwidth` key, in words a cycle.
    User {
        /// Words a cycle.
        words: u64,
    },
}

/// Words of 8 bits a cycle, at most: as many bits as an [`Accelerator`] takes.
const MAX_BANDWIDTH: u64 = 1 << 29;
/// KiB of a buffer, at most.
const MAX_BUFFER_KB: u64 = 1 << 30;

/// Layer-wise N:M sparsity; the ratios are in the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sparsity {
    /// `SparseRep`.
    pub format: SparseFormat,
}

impl ScaleSimConfig {
    /// Reads a `.cfg` file's text; `file` names it in errors.
    ///
    /// # Errors
    /// Line and column of what does not parse, a section or key given twice, a missing or impossible value, or an option that is
    /// not modelled.
    pub fn parse(file: &str, text: &str) -> Result<Self, HwError> {
        let ini = Ini::parse(file, text)?;
        let array = SystolicArray::new(
            ini.integer("architecture_presets", "arrayheight")?,
            ini.integer("architecture_presets", "arraywidth")?,
            ini.dataflow()?,
        );
        array.validate()?;
        let mut buffer_kb = [0; 3];
        for (slot, key) in buffer_kb.iter_mut().zip(["ifmapsramszkb", "filtersramszkb", "ofmapsramszkb"]) {
            *slot = ini.integer("architecture_presets", key)?;
            if !(1..=MAX_BUFFER_KB).contains(slot) {
                return Err(ini.error("architecture_presets", key, &format!("1 to 2^30 KiB expected, found {slot}")));
            }
        }
        for key in ["ifmapcustomlayout", "filtercustomlayout"] {
            if ini.flag("layout", key)? {
                return Err(HwError::Unsupported { thing: key.into(), reason: "bank layouts are not modelled".into() });
            }
        }
        if ini.flag("run_presets", "useramulatortrace")? {
            let reason = "no DRAM simulator is linked".into();
            return Err(HwError::Unsupported { thing: "UseRamulatorTrace".into(), reason });
        }
        Ok(Self {
            run_name: ini.get("general", "run_name").unwrap_or("scale_run").to_owned(),
            array,
            buffer_kb,
            interface: ini.interface()?,
            sparsity: ini.sparsity()?,
        })
    }
}

impl ScaleSimConfig {
    /// Checks the array, the buffers and the bandwidth. What [`parse`](Self::parse) reads passes, until a field is changed.
    ///
    /// # Errors
    /// The first that is outside its range.
    pub fn validate(&self) -> Result<(), HwError> {
        self.array.validate()?;
        let thing = || format!("configuration `{}`", self.run_name);
        for (operand, kb) in OperandKind::ALL.into_iter().zip(self.buffer_kb) {
            if !(1..=MAX_BUFFER_KB).contains(&kb) {
                let field = format!("KiB of the {} buffer", operand.name());
                return Err(HwError::field(thing(), field, "1 to 2^30", kb));
            }
        }
        match self.interface {
            Interface::User { words } if !(1..=MAX_BANDWIDTH).contains(&words) => {
                Err(HwError::field(thing(), "words a cycle", "1 to 2^29", words))
            }
            _ => Ok(()),
        }
    }

    /// The same array and buffers under this crate's own model, with the energies of the `tpu-like` preset.
    ///
    /// # Errors
    /// Never for a configuration that was parsed; otherwise those of [`validate`](Self::validate).
    pub fn to_accelerator(&self) -> Result<Accelerator, HwError> {
        self.validate()?;
        let mut accelerator = Accelerator::preset("tpu-like")?;
        let SystolicArray { rows, cols, dataflow, drain } = self.array;
        accelerator.name = self.run_name.clone();
        accelerator.clock_mhz = 1000.0;
        accelerator.engine = Engine::Systolic(Systolic { rows, cols, dataflow, drain, multiplier_bits: 8 });
        accelerator.memory[0].bandwidth_bits = match self.interface {
            Interface::Calc => None,
            Interface::User { words } => Some(words * 8),
        };
        let chip = accelerator.memory[1].clone();
        accelerator.memory.truncate(1);
        for (operand, kb) in OperandKind::ALL.into_iter().zip(self.buffer_kb) {
            let mut level = chip.clone();
            (level.name, level.holds) = (format!("{} buffer", operand.name()), vec![operand]);
            level.capacity_bytes = Some(kb * 1024);
            accelerator.memory.push(level);
        }
        accelerator.validate()?;
        Ok(accelerator)
    }

    /// The configuration of a systolic accelerator; its buffers are rounded down to whole KiB.
    ///
    /// # Errors
    /// An accelerator that does not validate, another engine, or an operand without a buffer of 1 to 2^30 KiB.
    pub fn from_accelerator(accelerator: &Accelerator) -> Result<Self, HwError> {
        accelerator.validate()?;
        let Engine::Systolic(engine) = &accelerator.engine else {
            let (thing, reason) = (accelerator.name.clone(), "SCALE-Sim models systolic arrays alone".into());
            return Err(HwError::Unsupported { thing, reason });
        };
        let array =
            SystolicArray { drain: engine.drain, ..SystolicArray::new(engine.rows, engine.cols, engine.dataflow) };
        let mut buffer_kb = [0; 3];
        for (operand, slot) in OperandKind::ALL.into_iter().zip(&mut buffer_kb) {
            let level = accelerator.memory.iter().skip(1).find(|level| level.holds(operand));
            let share = |level: &MemoryLevel| level.capacity_bytes.map(|bytes| bytes / level.holds.len() as u64 / 1024);
            let kb = level.and_then(share);
            *slot = kb.filter(|kb| (1..=MAX_BUFFER_KB).contains(kb)).ok_or_else(|| {
                let field = format!("KiB of the {} buffer", operand.name());
                let found = kb.map_or_else(|| "none".to_owned(), |kb| kb.to_string());
                HwError::field(format!("accelerator `{}`", accelerator.name), field, "1 to 2^30", found)
            })?;
        }
        let interface = match accelerator.memory[0].bandwidth_bits {
            None => Interface::Calc,
            Some(bits) => Interface::User { words: (bits / 8).max(1) },
        };
        Ok(Self { run_name: accelerator.name.clone(), array, buffer_kb, interface, sparsity: None })
    }
}

/// Sections and keys in lower case, each value with its line.
struct Ini<'a> {
    file: &'a str,
    values: HashMap<(String, String), (usize, usize, &'a str)>,
    last_line: usize,
}

impl<'a> Ini<'a> {
    fn parse(file: &'a str, text: &'a str) -> Result<Self, HwError> {
        let mut values = HashMap::new();
        let (mut sections, mut section) = (HashSet::new(), None);
        let mut last_line = 1;
        for (index, raw) in text.lines().enumerate() {
            last_line = index + 1;
            let line = raw.trim();
            let column = raw.len() - raw.trim_start().len() + 1;
            let fail = |message: String| HwError::Parse { file: file.into(), line: last_line, column, message };
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or_else(|| fail("section header without `]`".into()))?;
                if name.trim() == "DEFAULT" {
                    return Err(fail("`[DEFAULT]`, values for all sections, is not modelled".into()));
                }
                let name = name.trim().to_lowercase();
                // The tool's reader refuses it too; merged, two files pasted together would pass for one.
                if !sections.insert(name.clone()) {
                    return Err(fail(format!("a section that was given before: `{line}`")));
                }
                section = Some(name);
                continue;
            }
            let split = line.find([':', '=']).ok_or_else(|| fail(format!("`key: value` expected, found `{line}`")))?;
            let section = section.clone().ok_or_else(|| fail("a key before any [section]".into()))?;
            let (key, value) = (line[..split].trim().to_lowercase(), line[split + 1..].trim());
            let value_column = column + split + 1 + (line[split + 1..].len() - line[split + 1..].trim_start().len());
            if values.insert((section, key), (last_line, value_column, value)).is_some() {
                return Err(fail(format!("a key that was given before: `{line}`")));
            }
        }
        Ok(Self { file, values, last_line })
    }

    fn get(&self, section: &str, key: &str) -> Option<&'a str> {
        self.values.get(&(section.to_owned(), key.to_owned())).map(|&(_, _, value)| value)
    }

    fn error(&self, section: &str, key: &str, message: &str) -> HwError {
        let place = self.values.get(&(section.to_owned(), key.to_owned()));
        let (line, column) = place.map_or((self.last_line, 1), |&(line, column, _)| (line, column));
        HwError::Parse { file: self.file.into(), line, column, message: format!("[{section}] {key}: {message}") }
    }

    fn require(&self, section: &str, key: &str) -> Result<&'a str, HwError> {
        self.get(section, key).ok_or_else(|| self.error(section, key, "missing"))
    }

    fn integer(&self, section: &str, key: &str) -> Result<u64, HwError> {
        let text = self.require(section, key)?;
        text.parse().map_err(|_| self.error(section, key, &format!("a positive integer expected, found `{text}`")))
    }

    /// An optional boolean, false by default.
    fn flag(&self, section: &str, key: &str) -> Result<bool, HwError> {
        match self.get(section, key).map(str::to_lowercase).as_deref() {
            None | Some("false" | "no" | "off" | "0") => Ok(false),
            Some("true" | "yes" | "on" | "1") => Ok(true),
            Some(other) => Err(self.error(section, key, &format!("True or False expected, found `{other}`"))),
        }
    }

    fn dataflow(&self) -> Result<Dataflow, HwError> {
        let name = self.require("architecture_presets", "dataflow")?;
        Dataflow::ALL.into_iter().find(|dataflow| dataflow.short_name() == name).ok_or_else(|| {
            self.error("architecture_presets", "dataflow", &format!("os, ws or is expected, found `{name}`"))
        })
    }

    fn interface(&self) -> Result<Interface, HwError> {
        match self.get("run_presets", "interfacebandwidth") {
            None | Some("CALC") => Ok(Interface::Calc),
            Some("USER") => {
                let text = self.require("architecture_presets", "bandwidth")?;
                let first = text.split(',').next().unwrap_or_default().trim();
                let fits = |words: &u64| (1..=MAX_BANDWIDTH).contains(words);
                let words = first.parse().ok().filter(fits).ok_or_else(|| {
                    let message = format!("1 to 2^29 words a cycle expected, found `{text}`");
                    self.error("architecture_presets", "bandwidth", &message)
                })?;
                Ok(Interface::User { words })
            }
            Some(other) => {
                let message = format!("CALC or USER expected, found `{other}`");
                Err(self.error("run_presets", "interfacebandwidth", &message))
            }
        }
    }

    fn sparsity(&self) -> Result<Option<Sparsity>, HwError> {
        if !self.flag("sparsity", "sparsitysupport")? {
            return Ok(None);
        }
        if self.flag("sparsity", "optimizedmapping")? {
            let reason = "its row-wise ratios come from another generator's random numbers".into();
            return Err(HwError::Unsupported { thing: "OptimizedMapping".into(), reason });
        }
        let name = self.require("sparsity", "sparserep")?;
        let format = match name {
            "csr" => SparseFormat::Csr,
            "csc" => SparseFormat::Csc,
            "ellpack_block" => SparseFormat::EllpackBlock,
            _ => {
                let message = format!("csr, csc or ellpack_block expected, found `{name}`");
                return Err(self.error("sparsity", "sparserep", &message));
            }
        };
        Ok(Some(Sparsity { format }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const EXAMPLE: &str = "[general]\nrun_name = demo\n\n[architecture_presets]\nArrayHeight:    32\n\
        ArrayWidth:     16\nIfmapSramSzkB:   64\nFilterSramSzkB:  32\nOfmapSramSzkB:   8\nDataflow : ws\nBandwidth : 10\n\
        [run_presets]\nInterfaceBandwidth: USER\n";

    #[test]
    fn the_tools_own_layout_is_read() {
        let config = ScaleSimConfig::parse("a.cfg", EXAMPLE).unwrap();
        assert_eq!(config.array, SystolicArray::new(32, 16, Dataflow::WeightStationary));
        assert_eq!(config.buffer_kb, [64, 32, 8]);
        assert_eq!(config.interface, Interface::User { words: 10 });
        assert_eq!((config.run_name.as_str(), config.sparsity), ("demo", None));
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let refuse = |from: &str, to: &str, start: &str, needle: &str| {
            let message = ScaleSimConfig::parse("a.cfg", &EXAMPLE.replace(from, to)).unwrap_err().to_string();
            assert!(message.starts_with(start) && message.contains(needle), "{message}");
        };
        refuse("ArrayWidth:     16", "ArrayWidth:     -16", "a.cfg:6:17:", "positive integer");
        refuse("Dataflow : ws", "Dataflow : rs", "a.cfg:10:12:", "os, ws or is");
        refuse("[general]", "[general", "a.cfg:1:1:", "`]`");
        refuse("run_name = demo", "run_name", "a.cfg:2:1:", "key: value");
        refuse("OfmapSramSzkB:   8", "OfmapSramSzkB:   0", "a.cfg:9:18:", "KiB");
        refuse("ArrayHeight:    32\n", "", "a.cfg:12:1:", "missing");
        refuse("USER", "AUTO", "a.cfg:13:21:", "CALC or USER");
        refuse("Bandwidth : 10", "Bandwidth : 0", "a.cfg:11:13:", "1 to 2^29 words");
        refuse("Bandwidth : 10", "ArrayWidth = 8", "a.cfg:11:1:", "given before: `ArrayWidth = 8`");
        refuse("[run_presets]", "[DEFAULT]", "a.cfg:12:1:", "`[DEFAULT]`");
        refuse("[run_presets]", "[General]", "a.cfg:12:1:", "a section that was given before: `[General]`");
        refuse("Bandwidth : 10", "Bandwidth : 536870913", "a.cfg:11:13:", "1 to 2^29 words");
    }

    #[test]
    fn the_widest_interface_that_is_read_makes_an_accelerator() {
        let text = EXAMPLE.replace("Bandwidth : 10", "Bandwidth : 536870912");
        let accelerator = ScaleSimConfig::parse("a.cfg", &text).unwrap().to_accelerator().unwrap();
        assert_eq!(accelerator.memory[0].bandwidth_bits, Some(1 << 32));
    }

    #[test]
    fn buffers_and_machines_beyond_the_tools_ranges_are_refused_on_the_way_to_it() {
        let good = ScaleSimConfig::parse("a.cfg", EXAMPLE).unwrap().to_accelerator().unwrap();
        let refused = |change: fn(&mut Accelerator)| {
            let mut accelerator = good.clone();
            change(&mut accelerator);
            ScaleSimConfig::from_accelerator(&accelerator).unwrap_err().to_string()
        };
        let message = refused(|accelerator| accelerator.memory[1].capacity_bytes = Some(1 << 41));
        assert_eq!(message, "accelerator `demo`: KiB of the input buffer is 2147483648, expected 1 to 2^30");
        let message = refused(|accelerator| accelerator.memory[2].capacity_bytes = Some(1023));
        assert_eq!(message, "accelerator `demo`: KiB of the weight buffer is 0, expected 1 to 2^30");
        let message = refused(|accelerator| accelerator.memory.clear());
        assert_eq!(message, "accelerator `demo`: memory is 0 levels, expected 1 to 8 levels, outermost first");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..250) {
            let _ = ScaleSimConfig::parse("x", &String::from_utf8_lossy(&bytes));
            let mut text = EXAMPLE.as_bytes().to_vec();
            let at = cut.min(text.len());
            text.splice(at..(at + 3).min(text.len()), bytes);
            let _ = ScaleSimConfig::parse("x", &String::from_utf8_lossy(&text));
        }
    }
}
