//! How the energy of an on-chip access grows with the memory's size.

/// Bytes, and pJ of 32 bits read and written: CACTI at 45 nm, from the sweep table of BitFusion's simulator (repository
/// hsharma35/bitfusion). The memory of 512 bytes has one port for both, the others a port each.
const TABLE: [(f64, [f64; 2]); 7] = [
    (128.0, [0.684, 0.925]),
    (512.0, [1.061, 2.339]),
    (1024.0, [1.133, 3.296]),
    (2048.0, [1.903, 3.639]),
    (4096.0, [3.430, 4.310]),
    (8192.0, [6.392, 5.563]),
    (16384.0, [9.982, 8.421]),
];

/// What an access costs in a memory of another size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    /// Factors on the energies of reading and writing.
    pub(crate) factors: [f64; 2],
    /// Whether either size lies outside the table, and so counts as its nearest end.
    pub(crate) clamped: bool,
}

impl Growth {
    /// From a memory of so many bytes to one of another number: interpolated on log-log axes.
    pub(crate) fn between(before: u64, after: u64) -> Self {
        if before == after {
            return Self { factors: [1.0; 2], clamped: false };
        }
        let ends = TABLE[0].0..=TABLE[TABLE.len() - 1].0;
        let (from, to) = (energies(before as f64), energies(after as f64));
        Self {
            factors: [to[0] / from[0], to[1] / from[1]],
            clamped: [before, after].iter().any(|&bytes| !ends.contains(&(bytes as f64))),
        }
    }
}

/// Energies of 32 bits read and written; the nearest end's outside the table.
fn energies(bytes: f64) -> [f64; 2] {
    let [(least, first), .., (most, _)] = TABLE;
    let bytes = bytes.clamp(least, most);
    let around = TABLE.windows(2).find(|pair| bytes <= pair[1].0);
    around.map_or(first, |pair| {
        let share = (bytes / pair[0].0).ln() / (pair[1].0 / pair[0].0).ln();
        [0, 1].map(|which| pair[0].1[which] * (pair[1].1[which] / pair[0].1[which]).powf(share))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: [f64; 2], expected: [f64; 2]) -> bool {
        found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-12)
    }

    #[test]
    fn a_memory_four_times_as_large_costs_what_the_table_says() {
        let growth = Growth::between(4096, 4 * 4096);
        assert!(close(growth.factors, [9.982 / 3.430, 8.421 / 4.310]) && !growth.clamped, "{growth:?}");
        let back = Growth::between(4 * 4096, 4096);
        assert!(close(back.factors, [3.430 / 9.982, 4.310 / 8.421]) && !back.clamped, "{back:?}");
    }

    #[test]
    fn between_two_sizes_energies_grow_as_a_power() {
        // Halfway from 128 to 512 on a logarithmic axis: the geometric mean.
        let growth = Growth::between(128, 256);
        assert!(close(growth.factors, [(1.061_f64 / 0.684).sqrt(), (2.339_f64 / 0.925).sqrt()]), "{growth:?}");
    }

    #[test]
    fn sizes_outside_the_table_count_as_its_ends_and_say_so() {
        let (above, below) = (Growth::between(16384, 1 << 20), Growth::between(64, 128));
        assert!(
            [above, below].iter().all(|growth| growth.factors == [1.0; 2] && growth.clamped),
            "{above:?} {below:?}"
        );
        let out = Growth::between(4096, 1 << 20);
        assert!(close(out.factors, [9.982 / 3.430, 8.421 / 4.310]) && out.clamped, "{out:?}");
        // A memory that stays is as it was, wherever it lies.
        assert_eq!(Growth::between(1 << 30, 1 << 30), Growth { factors: [1.0; 2], clamped: false });
    }
}
