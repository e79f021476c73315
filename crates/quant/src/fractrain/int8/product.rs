//! Products of bytes whose sums are exact.
//!
//! libtorch multiplies bytes through oneDNN, which on processors without VNNI adds pairs of products in 16 bits, where they
//! saturate: 2 · 127 · 255 is 64,770. (oneDNN's guide describes it under "Nuances of int8 computations".) libtorch leaves oneDNN
//! alone on such processors, as far as we have seen, but not where a variable like `ONEDNN_MAX_CPU_ISA` takes VNNI away. So it is
//! tried once what comes out.

use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// `rows` (`[n, taps]`, whole numbers from −128 to 127 of any kind) times `filters` (`[taps, m]`, `Int8`): `[n, m]` in single
/// precision, rounded once from the exact sum.
pub(super) fn product(rows: &Tensor, filters: &Tensor) -> Tensor {
    static EXACT: OnceLock<bool> = OnceLock::new();
    if *EXACT.get_or_init(bytes_are_exact) { in_bytes(rows, filters) } else { in_doubles(rows, filters) }
}

fn in_bytes(rows: &Tensor, filters: &Tensor) -> Tensor {
    rows.to_kind(Kind::Int8).contiguous().internal_int_mm(filters).to_kind(Kind::Float)
}

/// Exact up to 2³⁹ taps, and several times slower.
fn in_doubles(rows: &Tensor, filters: &Tensor) -> Tensor {
    rows.to_kind(Kind::Double).matmul(&filters.to_kind(Kind::Double)).to_kind(Kind::Float)
}

/// Whether the largest sums come out right.
fn bytes_are_exact() -> bool {
    let (n, taps) = (32, 64);
    let full = |shape: [i64; 2]| Tensor::full(shape, 127, (Kind::Int8, Device::Cpu));
    let (rows, filters) = (full([n, taps]), full([taps, n]));
    in_bytes(&rows, &filters).equal(&in_doubles(&rows, &filters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes, one in three of them the largest or the smallest.
    fn bytes(count: usize) -> impl Strategy<Value = Vec<i8>> {
        proptest::collection::vec(prop_oneof![2 => any::<i8>(), 1 => prop_oneof![Just(i8::MIN), Just(i8::MAX)]], count)
    }

    fn matrices() -> impl Strategy<Value = (usize, usize, Vec<i8>, Vec<i8>)> {
        (1_usize..40, 1_usize..80, 1_usize..40)
            .prop_flat_map(|(n, taps, m)| (Just(n), Just(m), bytes(n * taps), bytes(taps * m)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sums_are_those_of_whole_numbers((n, m, rows, filters) in matrices()) {
            let taps = rows.len() / n;
            let expected: Vec<f32> = (0..n * m)
                .map(|place| {
                    let (row, column) = (place / m, place % m);
                    let terms = (0..taps).map(|tap| i64::from(rows[row * taps + tap]) * i64::from(filters[tap * m + column]));
                    terms.sum::<i64>() as f32
                })
                .collect();
            let rows = Tensor::from_slice(&rows).view([n as i64, taps as i64]);
            let filters = Tensor::from_slice(&filters).view([taps as i64, m as i64]);
            for found in [product(&rows, &filters), in_doubles(&rows, &filters), product(&rows.to_kind(Kind::Float), &filters)] {
                prop_assert_eq!(Vec::<f32>::try_from(found.flatten(0, -1)).unwrap(), expected.clone());
            }
        }
    }

    /// oneDNN reads the variable once, so that it takes a process of its own.
    #[test]
    fn sums_are_exact_where_onednn_is_kept_from_vnni() {
        let itself = std::env::current_exe().unwrap();
        let mut test = std::process::Command::new(itself);
        let test = test.args(["--exact", "fractrain::int8::product::tests::sums_are_those_of_whole_numbers"]);
        let output = test.env("ONEDNN_MAX_CPU_ISA", "AVX2").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
