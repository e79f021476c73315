//! Every figure of SCALE-Sim 3.0.0 (numpy 1.26, Python 3.11) on 224 layers that were run through it end to end.

use hw_sim::scalesim::{Interface, LayerReport, ScaleSimConfig, Sparsity, Topology, TopologyKind, run};
use hw_sim::systolic::{Dataflow, SparseFormat, SystolicArray};

struct Row {
    case: String,
    user: bool,
    config: ScaleSimConfig,
    topology: Topology,
    golden: csv::StringRecord,
    headers: csv::StringRecord,
}

impl Row {
    fn number(&self, column: &str) -> f64 {
        self.text(column).parse().unwrap()
    }

    fn text(&self, column: &str) -> &str {
        &self.golden[self.headers.iter().position(|name| name == column).unwrap()]
    }
}

fn rows() -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(include_str!("data/scalesim-3.0.0.csv").as_bytes());
    let headers = reader.headers().unwrap().clone();
    reader
        .records()
        .map(|record| {
            let golden = record.unwrap();
            let get = |column: &str| &golden[headers.iter().position(|name| name == column).unwrap()];
            let size = |column: &str| get(column).parse::<u64>().unwrap();
            let dataflow = Dataflow::ALL.into_iter().find(|dataflow| dataflow.short_name() == get("dataflow")).unwrap();
            let sparse = !get("sparsity").is_empty();
            let format = match get("rep") {
                "csr" => Some(SparseFormat::Csr),
                "csc" => Some(SparseFormat::Csc),
                "ellpack_block" => Some(SparseFormat::EllpackBlock),
                _ => None,
            };
            let user = get("mode") == "USER";
            let config = ScaleSimConfig {
                run_name: "golden".into(),
                array: SystolicArray::new(size("R"), size("Ccols"), dataflow),
                buffer_kb: [size("if_kb"), size("fl_kb"), size("of_kb")],
                interface: if user { Interface::User { words: size("bw") } } else { Interface::Calc },
                sparsity: format.map(|format| Sparsity { format }),
            };
            let sparsity = if sparse { format!("{},", get("sparsity")) } else { String::new() };
            let (kind, fields) = match get("kind") {
                "conv" => (TopologyKind::Conv, &["H", "W", "kh", "kw", "C", "F", "stride"][..]),
                _ => (TopologyKind::Gemm, &["M", "N", "K"][..]),
            };
            let sizes: Vec<_> = fields.iter().map(|field| get(field)).collect();
            let text = format!("header\n{},{},{sparsity}\n", get("name"), sizes.join(","));
            Row {
                case: format!("case {} ({})", get("case"), get("name")),
                user,
                topology: Topology::parse("golden.csv", &text, kind).unwrap(),
                config,
                headers: headers.clone(),
                golden: golden.clone(),
            }
        })
        .collect()
}

fn close(found: f64, golden: f64) -> bool {
    // The tool averages per-fold shares, which rounds in the last digits; the closed form does not.
    (found - golden).abs() <= 1e-9 * golden.abs()
}

#[test]
fn every_layer_equals_the_tools_own_run() {
    let (mut calc, mut user) = (0, 0);
    for row in rows() {
        let reports = run(&row.config, &row.topology).unwrap();
        let [found]: &[LayerReport; 1] = reports.layers.as_slice().try_into().unwrap();
        let case = &row.case;
        let golden = |column: &str| row.number(column);
        if row.user {
            // Its stalls are known to be wrong; what it computes is not.
            let compute = golden("cycles_reported") - golden("stall_cycles");
            assert_eq!((found.total_cycles - found.stall_cycles) as f64, compute, "{case}");
            user += 1;
            continue;
        }
        assert_eq!(found.total_cycles as f64, golden("cycles_reported"), "{case}");
        assert_eq!(found.stall_cycles as f64, golden("stall_cycles"), "{case}");
        assert!(close(found.overall_util, golden("overall_util")), "{case}: {}", found.overall_util);
        assert!(close(found.mapping_efficiency, golden("mapping_eff")), "{case}: {}", found.mapping_efficiency);
        assert!(close(found.compute_util, golden("compute_util")), "{case}: {}", found.compute_util);
        assert_eq!(found.sram_ifmap_reads, golden("sram_if_reads"), "{case}");
        assert_eq!(found.sram_filter_reads as f64, golden("sram_fl_reads"), "{case}");
        assert_eq!(found.sram_ofmap_writes as f64, golden("sram_of_writes"), "{case}");
        let streams = found.streams;
        assert_eq!(streams.input.dram_reads as f64, golden("dram_if_reads"), "{case}");
        assert_eq!(streams.weight.dram_reads as f64, golden("dram_fl_reads"), "{case}");
        assert_eq!(streams.output.dram_writes as f64, golden("dram_of_writes"), "{case}");
        calc += 1;
    }
    assert_eq!((calc, user), (184, 40));
}
