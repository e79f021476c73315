//! Tables as text, CSV and Markdown.

use crate::comparison::{Comparison, Point};
use crate::cost::NetworkCost;
use crate::scalesim::Reports;

/// Headers and rows of text; numbers are formatted by whoever fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Column names.
    pub headers: Vec<String>,
    /// Rows, each as long as the headers.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn new(headers: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { headers: headers.iter().map(|&header| header.to_owned()).collect(), rows }
    }

    /// Aligned columns: the first to the left, the others to the right.
    pub fn to_text(&self) -> String {
        let widths: Vec<usize> = (0..self.headers.len())
            .map(|column| {
                let cells = self.lines().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in self.lines() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }

    /// Comma-separated values, quoted where needed.
    pub fn to_csv(&self) -> String {
        let quote = |cell: &String| {
            if cell.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        };
        self.lines().map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\n").collect()
    }

    /// A Markdown table.
    pub fn to_markdown(&self) -> String {
        let line = |row: &Vec<String>| {
            format!("| {} |\n", row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
        };
        let rule = format!("|{}\n", "---|".repeat(self.headers.len()));
        line(&self.headers) + &rule + &self.rows.iter().map(line).collect::<String>()
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.headers).chain(&self.rows)
    }
}

impl NetworkCost {
    /// One row a pass of a layer, and a total.
    pub fn table(&self) -> Table {
        let headers = [
            "layer",
            "pass",
            "macs",
            "compute_cycles",
            "stall_cycles",
            "utilisation",
            "dram_bits",
            "on_chip_bits",
            "energy_pj",
        ];
        let mut rows: Vec<Vec<String>> = self
            .layers
            .iter()
            .map(|layer| {
                let on_chip =
                    (1..self.levels.len()).fold(0_u64, |total, level| total.saturating_add(layer.level_bits(level)));
                vec![
                    layer.name.clone(),
                    format!("{:?}", layer.pass),
                    layer.macs.to_string(),
                    layer.compute_cycles.to_string(),
                    layer.stall_cycles.to_string(),
                    format!("{:.4}", layer.utilisation),
                    layer.level_bits(0).to_string(),
                    on_chip.to_string(),
                    format!("{:.1}", layer.energy_pj()),
                ]
            })
            .collect();
        let on_chip = (1..self.levels.len()).fold(0_u64, |total, level| total.saturating_add(self.level_bits(level)));
        rows.push(vec![
            "total".into(),
            String::new(),
            self.macs().to_string(),
            (self.cycles() - self.stall_cycles()).to_string(),
            self.stall_cycles().to_string(),
            format!("{:.4}", self.utilisation()),
            self.level_bits(0).to_string(),
            on_chip.to_string(),
            format!("{:.1}", self.energy_pj()),
        ]);
        Table::new(&headers, rows)
    }

    /// One row a component of the energy.
    pub fn energy_table(&self) -> Table {
        let total = self.energy_pj();
        let row = |name: &str, energy: f64| {
            let percent = if total > 0.0 { 100.0 * energy / total } else { 0.0 };
            vec![name.to_owned(), format!("{energy:.1}"), format!("{percent:.2}")]
        };
        let mut rows: Vec<_> = self.components().iter().map(|part| row(&part.name, part.energy_pj)).collect();
        rows.push(row("total", total));
        Table::new(&["component", "energy_pj", "percent"], rows)
    }
}

impl Reports {
    /// One row a layer.
    pub fn table(&self) -> Table {
        let headers = [
            "layer",
            "cycles_reported",
            "stall_cycles",
            "overall_util",
            "mapping_eff",
            "compute_util",
            "sram_if_reads",
            "sram_fl_reads",
            "sram_of_writes",
            "dram_if_reads",
            "dram_fl_reads",
            "dram_of_writes",
        ];
        let rows = self
            .layers
            .iter()
            .map(|layer| {
                vec![
                    layer.name.clone(),
                    layer.total_cycles.to_string(),
                    layer.stall_cycles.to_string(),
                    layer.overall_util.to_string(),
                    layer.mapping_efficiency.to_string(),
                    layer.compute_util.to_string(),
                    layer.sram_ifmap_reads.to_string(),
                    layer.sram_filter_reads.to_string(),
                    layer.sram_ofmap_writes.to_string(),
                    layer.streams.input.dram_reads.to_string(),
                    layer.streams.weight.dram_reads.to_string(),
                    layer.streams.output.dram_writes.to_string(),
                ]
            })
            .collect();
        Table::new(&headers, rows)
    }
}

/// One row an accelerator and network; `inf` where there is no ratio because one alone takes nothing.
pub fn comparison_table(rows: &[Comparison]) -> Table {
    let headers = [
        "network",
        "accelerator",
        "cycles",
        "latency_ms",
        "energy_uj",
        "dram_mbit",
        "dram_energy_percent",
        "speedup",
        "energy_ratio",
    ];
    let times = |ratio: Option<f64>| format!("{:.3}", ratio.unwrap_or(f64::INFINITY));
    let cells = rows
        .iter()
        .map(|row| {
            vec![
                row.network.clone(),
                row.accelerator.clone(),
                row.cycles.to_string(),
                format!("{:.4}", row.latency_ms),
                format!("{:.2}", row.energy_pj * 1e-6),
                format!("{:.2}", row.dram_bits as f64 * 1e-6),
                format!("{:.1}", 100.0 * row.dram_energy_share),
                times(row.speedup),
                times(row.energy_ratio),
            ]
        })
        .collect();
    Table::new(&headers, cells)
}

/// One row a point of a sweep; an asterisk where the energy of a buffer's access is that of the nearest size known.
pub fn sweep_table(points: &[Point]) -> Table {
    let headers = ["array", "buffer_scale", "energy_clamped", "bits", "densities", "cycles", "energy_uj", "pareto"];
    let kept = || "as given".to_owned();
    let mark = |marked: bool| if marked { "*".to_owned() } else { String::new() };
    let rows = points
        .iter()
        .map(|point| {
            vec![
                point.array.map_or_else(kept, |[a, b]| format!("{a}x{b}")),
                point.buffer_scale.to_string(),
                mark(point.energy_clamped),
                point.bits.map_or_else(kept, |[a, b]| format!("{a}/{b}")),
                point.densities.map_or_else(kept, |[a, b]| format!("{a}/{b}")),
                point.cycles.to_string(),
                format!("{:.3}", point.energy_pj * 1e-6),
                mark(point.pareto),
            ]
        })
        .collect();
    Table::new(&headers, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_energy_has_no_share() {
        let cost = crate::Accelerator::preset("tpu-like").unwrap().cost_tasks("empty", &[]).unwrap();
        let rows = cost.energy_table().rows;
        assert_eq!((rows.len(), rows[0][0].as_str(), rows[0][2].as_str()), (1, "total", "0.00"));
    }

    #[test]
    fn a_ratio_to_nothing_is_inf_in_tables_and_null_in_json() {
        let row = Comparison {
            accelerator: "a".into(),
            network: "n".into(),
            cycles: 0,
            latency_ms: 0.0,
            energy_pj: 2.0,
            dram_bits: 0,
            dram_energy_share: 0.0,
            speedup: None,
            energy_ratio: Some(0.5),
        };
        let json = serde_json::to_value(&row).unwrap();
        assert!(json["speedup"].is_null() && json["energy_ratio"] == 0.5, "{json}");
        assert_eq!(comparison_table(&[row]).rows[0][7..], ["inf", "0.500"]);
    }

    #[test]
    fn a_table_is_aligned_quoted_and_piped() {
        let table = Table::new(&["name", "n"], vec![vec!["a,b".into(), "1".into()], vec!["c|d".into(), "22".into()]]);
        assert_eq!(table.to_text(), "name   n\na,b    1\nc|d   22\n");
        assert_eq!(table.to_csv(), "name,n\n\"a,b\",1\nc|d,22\n");
        let ragged = Table { headers: vec!["a".into(), "b".into()], rows: vec![vec!["1".into()], Vec::new()] };
        assert_eq!(ragged.to_text(), "a  b\n1\n\n");
        assert_eq!(Table::new(&["a\rb"], Vec::new()).to_csv(), "\"a\rb\"\n");
        assert_eq!(table.to_markdown(), "| name | n |\n|---|---|\n| a,b | 1 |\n| c\\|d | 22 |\n");
    }
}
