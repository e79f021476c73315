//! The tiling search against a rewrite of BitFusion's simulator that equals the authors' published sweep.

use hw_sim::bitfusion::{BitFusion, FusionLayer, Mapped};

#[test]
fn every_row_has_the_reference_cycles_energy_and_traffic() {
    let mut reader = csv::Reader::from_reader(include_str!("data/bitfusion.csv").as_bytes());
    let headers = reader.headers().unwrap().clone();
    let mut rows = 0;
    for record in reader.records() {
        let record = record.unwrap();
        let text = |column: &str| &record[headers.iter().position(|name| name == column).unwrap()];
        let number = |column: &str| text(column).parse::<u64>().unwrap();
        let array = BitFusion {
            rows: number("N"),
            cols: number("M"),
            max_bits: number("pmax") as u8,
            min_bits: number("pmin") as u8,
            buffer_bytes: [number("wbuf_bytes"), number("ibuf_bytes"), number("obuf_bytes")],
            bandwidth_bits: number("bw_bits"),
            ..BitFusion::default()
        };
        let layer = FusionLayer {
            kernel: [number("K"); 2],
            output: [number("O"); 2],
            stride: number("S"),
            in_channels: number("IC"),
            out_channels: number("OC"),
            batch: number("B"),
            input_bits: number("act_bits") as u8,
            weight_bits: number("wgt_bits") as u8,
            im2col: number("im2col") == 1,
        };
        let found = array.search(text("layer"), &layer).unwrap();
        let case = format!("{} {} {array:?}", text("net"), text("layer"));
        assert_eq!(found.total_cycles, number("total_cycles"), "{case}");
        assert_eq!(found.stall_cycles, number("stall_cycles"), "{case}");
        // The file has six decimals.
        let energy: f64 = text("energy_nj").parse().unwrap();
        assert!((found.energy_nj - energy).abs() < 1e-6 + 1e-12 * energy, "{case}: {}", found.energy_nj);
        let golden = [
            ("wbuf_read_bits", found.weight_buffer.read),
            ("wbuf_write_bits", found.weight_buffer.write),
            ("ibuf_read_bits", found.input_buffer.read),
            ("ibuf_write_bits", found.input_buffer.write),
            ("obuf_read_bits", found.output_buffer.read),
            ("obuf_write_bits", found.output_buffer.write),
            ("dram_read_bits", found.dram_read_bits),
            ("dram_write_bits", found.dram_write_bits),
        ];
        for (column, count) in golden {
            assert_eq!(count, number(column), "{case}: {column}");
        }
        rows += 1;
    }
    assert_eq!(rows, 75);
}

fn published(layer: FusionLayer, bandwidth_bits: u64) -> Mapped {
    BitFusion { bandwidth_bits, ..BitFusion::default() }.search("published", &layer).unwrap()
}

#[test]
fn the_authors_own_sweep_is_met() {
    // Rows of the authors' result table: 16 × 32 units, 8/2 bits, 64/32/16 KiB, batch 16.
    let base = FusionLayer {
        kernel: [5; 2],
        output: [16; 2],
        stride: 1,
        in_channels: 32,
        out_channels: 64,
        batch: 16,
        input_bits: 2,
        weight_bits: 2,
        im2col: false,
    };
    let cost = |m: &Mapped| (m.total_cycles, m.stall_cycles, m.dram_read_bits, m.dram_write_bits);
    assert_eq!(cost(&published(base, 192)), (205_635, 835, 21_626_880, 8_388_608));
    let rnn = FusionLayer {
        kernel: [1; 2],
        output: [1; 2],
        in_channels: 4096,
        out_channels: 4096,
        input_bits: 4,
        weight_bits: 4,
        ..base
    };
    assert_eq!(cost(&published(rnn, 192)), (394_583, 263_511, 71_565_312, 4_194_304));
    assert_eq!(cost(&published(rnn, 4096)), (131_079, 7, 268_697_600, 134_217_728));
    let alexnet = FusionLayer {
        kernel: [3; 2],
        output: [13; 2],
        in_channels: 384,
        out_channels: 384,
        input_bits: 4,
        weight_bits: 4,
        ..base
    };
    assert_eq!(cost(&published(alexnet, 192)), (2_436_097, 403_969, 352_124_928, 115_605_504));
}
