use super::tiling::permute;
use super::*;
use proptest::prelude::*;

fn conv(in_channels: u64, out_channels: u64, output: u64, bits: [u8; 2]) -> FusionLayer {
    FusionLayer {
        kernel: [3, 3],
        output: [output; 2],
        stride: 1,
        in_channels,
        out_channels,
        batch: 1,
        input_bits: bits[0],
        weight_bits: bits[1],
        im2col: false,
    }
}

/// Every tile and all 120 orders, without bounds, shortcuts or symmetry.
fn exhaustive(array: &BitFusion, layer: &FusionLayer, outputs: OutputRatio) -> Option<(u64, f64)> {
    let problem = Problem::new(array, "l", layer, outputs).unwrap();
    let mut best: Option<(u64, f64)> = None;
    for tile in problem.tiles() {
        permute(&mut Vec::new(), &[0, 1, 2, 3, 4], &mut |order: &[usize]| {
            let order: [usize; 5] = order.try_into().unwrap();
            let traffic = problem.traffic(&tile, &order);
            let (stall, total) = problem.cycles(&tile, &traffic);
            let energy = problem.energy(&tile, &traffic, total - stall);
            if best.is_none_or(|(cycles, least)| total < cycles || (total == cycles && energy < least)) {
                best = Some((total, energy));
            }
        });
    }
    best
}

#[test]
fn narrower_operands_fuse_as_published() {
    let array = BitFusion::default();
    let pairs = [(8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (3, 6), (5, 5)];
    assert_eq!(pairs.map(|(a, w)| array.fused(a, w).unwrap()), [1, 2, 4, 8, 16, 2, 1]);
    let training = BitFusion { max_bits: 16, ..array.clone() };
    let pairs = [(3, 6), (4, 6), (4, 8), (8, 8), (8, 12), (8, 16)];
    assert_eq!(pairs.map(|(a, w)| training.fused(a, w).unwrap()), [10, 8, 8, 4, 2, 2]);
    let bricks = BitFusion { fusion: Fusion::PowerOfTwo, ..training };
    assert_eq!(bricks.fused(3, 6).unwrap(), 4 * 2);
    assert!(array.fused(16, 8).is_err());
}

#[test]
fn an_array_made_by_hand_is_refused_before_it_fuses() {
    let refused = |array: BitFusion| array.fused(8, 8).unwrap_err().to_string();
    for (min_bits, max_bits) in [(2, 255), (0, 8), (9, 8)] {
        let array = BitFusion { min_bits, max_bits, fusion: Fusion::PowerOfTwo, ..BitFusion::default() };
        let message = format!("bits is {min_bits} to {max_bits}, expected 1 ≤ min_bits ≤ max_bits ≤ 32");
        assert_eq!(refused(array), format!("bit-composable array: {message}"));
    }
    for dram in [f64::NAN, f64::INFINITY, 1e300, -1.0] {
        let energy = BitFusionEnergy { dram, ..BitFusionEnergy::default() };
        let message = refused(BitFusion { energy, ..BitFusion::default() });
        assert!(message.ends_with("expected 0 to 1e12 nJ"), "{message}");
    }
}

#[test]
fn compute_cycles_are_those_of_the_closed_form() {
    // 64→64, 3×3 on 8×8: ⌈64/32⌉·64·9·⌈64/(16·f)⌉ = 4608 at 8/8, 1152 at 4/4, 2304 at 3/6, 1152 at 2/2.
    let array = BitFusion::default();
    for (bits, cycles) in [([8, 8], 4608), ([4, 4], 1152), ([3, 6], 2304), ([2, 2], 1152)] {
        let found = array.search("c", &conv(64, 64, 8, bits)).unwrap();
        // Halved channel tiles cannot compute faster than the whole layer.
        assert_eq!(found.total_cycles - found.stall_cycles, cycles, "{bits:?}");
    }
}

#[test]
fn a_layer_that_fits_no_buffer_names_the_operand() {
    let array = BitFusion { buffer_bytes: [65536, 4, 16384], ..BitFusion::default() };
    let error = array.search("conv7", &conv(64, 64, 8, [8, 8])).unwrap_err();
    assert!(matches!(error, HwError::NoFit { operand: "input", .. }), "{error}");
    assert!(error.to_string().contains("conv7"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_pruned_search_equals_the_exhaustive_one(
        ic in 1_u64..40, oc in 1_u64..80, side in 1_u64..18, batch in 1_u64..5, stride in 1_u64..3, k in 1_u64..4,
        a in 1_u8..9, w in 1_u8..9, im2col in any::<bool>(), bandwidth in 1_u64..400, kib in 1_u64..16, words in 1_u64..20,
    ) {
        let outputs = OutputRatio { words, iterations: 4 };
        let layer = FusionLayer { kernel: [k; 2], output: [side; 2], stride, in_channels: ic, out_channels: oc, batch,
            input_bits: a, weight_bits: w, im2col };
        let array = BitFusion { rows: 8, cols: 8, bandwidth_bits: bandwidth, buffer_bytes: [1024 * kib; 3], ..BitFusion::default() };
        let found = array.search_with("l", &layer, outputs).ok().map(|mapped| (mapped.total_cycles, mapped.energy_nj));
        let brute = exhaustive(&array, &layer, outputs);
        prop_assert_eq!(found.map(|f| f.0), brute.map(|b| b.0));
        if let (Some((_, energy)), Some((_, least))) = (found, brute) {
            prop_assert!((energy - least).abs() <= 1e-9 * least);
        }
    }

    #[test]
    fn half_the_bits_never_slow_a_tile_down(
        ic in 1_u64..400, oc in 1_u64..80, side in 1_u64..18, k in 1_u64..4, a in 1_u8..17, w in 1_u8..17,
        im2col in any::<bool>(), bricks in any::<bool>(),
    ) {
        let fusion = if bricks { Fusion::PowerOfTwo } else { Fusion::ReferenceFloor };
        // Room for every tile: narrower ones are padded to more lanes.
        let array = BitFusion { max_bits: 16, fusion, buffer_bytes: [1 << 36; 3], ..BitFusion::default() };
        let compute = |input_bits, weight_bits| {
            let layer = FusionLayer { kernel: [k; 2], im2col, input_bits, weight_bits, ..conv(ic, oc, side, [1, 1]) };
            let tiles = Problem::new(&array, "l", &layer, OutputRatio::ONE).unwrap().tiles();
            tiles.into_iter().map(|tile| (tile.size, tile.compute)).collect::<Vec<_>>()
        };
        let (wide, narrow) = (compute(a, w), compute(a.div_ceil(2), w.div_ceil(2)));
        prop_assert_eq!(wide.len(), narrow.len());
        for ((size, slow), (same, fast)) in wide.into_iter().zip(narrow) {
            prop_assert_eq!(size, same);
            prop_assert!(fast <= slow, "{:?}: {} > {}", size, fast, slow);
        }
    }

    #[test]
    fn any_layer_gives_a_mapping_or_an_error(sizes in proptest::array::uniform7(any::<u64>()), a in any::<u8>(), w in any::<u8>()) {
        let [k, o, s, ic, oc, b, q] = sizes;
        for shrink in [1, 1 << 50, 1 << 58] {
            let layer = FusionLayer { kernel: [k / shrink, q / shrink], output: [o / shrink, o / shrink], stride: s / shrink,
                in_channels: ic / shrink, out_channels: oc / shrink, batch: b / (1 << 61), input_bits: a % 9, weight_bits: w % 9, im2col: a > 99 };
            let _ = BitFusion { buffer_bytes: [1 << 14; 3], ..BitFusion::default() }.search("l", &layer);
        }
    }
}
