use super::*;
use proptest::prelude::*;

fn gemm(m: u64, n: u64, k: u64) -> Operands {
    Operands { input: [m, k], kernel: [1, k], channels: 1, filters: n, stride: [1, 1], sparsity: None }
}

#[test]
fn operands_that_fit_are_read_once() {
    // 100 × 70 inputs and 50 × 70 weights against 50·655 words of a 64 KiB buffer.
    for dataflow in Dataflow::ALL {
        let array = SystolicArray::new(16, 16, dataflow);
        let found = emulate("fc", &array, &gemm(100, 50, 70), [64; 3]).unwrap();
        assert_eq!((found.input.dram_reads, found.weight.dram_reads), (7000, 3500));
    }
}

#[test]
fn walking_and_the_shortcut_for_resident_operands_agree() {
    let mut ragged = gemm(1, 1, 1);
    ragged = Operands { input: [9, 7], kernel: [3, 2], channels: 5, filters: 20, stride: [2, 1], ..ragged };
    for dataflow in Dataflow::ALL {
        let array = SystolicArray::new(8, 4, dataflow);
        for operands in [gemm(31, 29, 30), gemm(3, 2, 5), ragged] {
            let mut walk = Walk::new("l", &array, &operands).unwrap();
            for stream in [Stream::Input, Stream::Weight] {
                walk.ragged = false;
                let short = walk.reads(stream, 64, &Vec::new());
                // A stall that never applies forces the walk.
                let long = walk.reads(stream, 64, &vec![(i64::MAX, 0)]);
                assert_eq!(short, long);
            }
        }
    }
}

#[test]
fn a_kernel_larger_than_the_input_is_refused() {
    let array = SystolicArray::new(4, 4, Dataflow::OutputStationary);
    let operands = Operands { kernel: [3, 3], input: [2, 5], ..gemm(1, 1, 1) };
    assert!(emulate("c", &array, &operands, [1; 3]).unwrap_err().to_string().contains("kernel"));
    assert!(emulate("c", &array, &gemm(1, 1, 1), [1, 0, 1]).unwrap_err().to_string().contains("weight"));
}

#[test]
fn layers_that_would_take_too_much_are_refused_by_what_they_take() {
    let array = SystolicArray::new(4, 4, Dataflow::OutputStationary);
    let refused = |m, n, k| emulate("c", &array, &gemm(m, n, k), [1; 3]).unwrap_err();
    let too_large = |quantity, found, limit| HwError::TooLarge { layer: "c".into(), quantity, found, limit };
    assert_eq!(refused(1 << 40, 1, 1), too_large("size", 1 << 40, 1 << 28));
    assert_eq!(refused(1 << 20, 1, 1 << 20), too_large("input words", 1 << 40, 1 << 28));
    // 4 bytes an input, 12 an output pixel and 12 for the only window element.
    assert_eq!(refused(1 << 27, 1, 1), too_large("memory in bytes", 16 * (1 << 27) + 12, 1 << 31));
    // 2^14 × 2^14 × 2^14: each of inputs and weights goes through the array 2^12 times, outputs leave once.
    assert_eq!(refused(1 << 14, 1 << 14, 1 << 14), too_large("demands", (1 << 41) + (1 << 28), 1 << 37));
}

proptest! {
    #[test]
    fn reads_lie_between_compulsory_and_demanded(
        rows in 1_u64..20, cols in 1_u64..20, h in 3_u64..12, w in 3_u64..12, c in 1_u64..6, f in 1_u64..30, s in 1_u64..4,
    ) {
        let operands = Operands { input: [h, w], kernel: [3, 2], channels: c, filters: f, stride: [s, s], sparsity: None };
        for dataflow in Dataflow::ALL {
            let array = SystolicArray::new(rows, cols, dataflow);
            let found = emulate("l", &array, &operands, [1; 3]).unwrap();
            let m = ((h - 3).div_ceil(s) + 1) * ((w - 2).div_ceil(s) + 1);
            let cost = array.cost("l", super::super::Gemm { m, n: f, k: 6 * c }).unwrap();
            prop_assert!(found.weight.dram_reads >= f * 6 * c && found.weight.dram_reads <= cost.weight_reads);
            prop_assert!(found.input.dram_reads <= cost.input_reads);
            prop_assert!(found.output.dram_writes >= cost.output_writes);
            prop_assert!(found.output.dram_writes < cost.output_writes + cols * (1 + cost.output_writes / 512));
        }
    }
}
