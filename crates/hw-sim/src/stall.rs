//! Stalls of a double-buffered memory: loads for the next tile overlap the current one, only the first load and the
//! last store are bare (the form of BitFusion's simulator, Sharma et al., arXiv 1712.01507).

use serde::Serialize;

/// One layer at one memory boundary; all amounts in the same unit (bits or words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DoubleBuffer {
    /// Cycles that the array computes.
    pub compute: u64,
    /// Everything that crosses the boundary, the first load and last store included.
    pub traffic: u64,
    /// What must arrive before anything can start.
    pub first_load: u64,
    /// What leaves after everything is done.
    pub last_store: u64,
}

impl DoubleBuffer {
    /// Cycles beyond `compute`: `max(0, ⌈(D − d₀ − d₁)/b⌉ − compute) + ⌈d₀/b⌉ + ⌈d₁/b⌉` at `b` units a cycle.
    /// `compute + stall` is never below `traffic / b`, nor does more bandwidth raise it. A bandwidth of 0 counts as 1, cycles
    /// past 64 bits as `u64::MAX`.
    pub fn stall(&self, bandwidth: u64) -> u64 {
        let bandwidth = bandwidth.max(1);
        let middle = self.traffic.saturating_sub(self.first_load).saturating_sub(self.last_store);
        let ends = self.first_load.div_ceil(bandwidth).saturating_add(self.last_store.div_ceil(bandwidth));
        middle.div_ceil(bandwidth).saturating_sub(self.compute).saturating_add(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlapped_traffic_is_hidden_behind_compute() {
        let layer = DoubleBuffer { compute: 100, traffic: 1000, first_load: 50, last_store: 30 };
        assert_eq!(layer.stall(10), 5 + 3); // 920/10 = 92 < 100: only the ends show
        assert_eq!(layer.stall(8), 15 + 7 + 4); // 920/8 = 115: 15 more than compute
    }

    #[test]
    fn amounts_that_fill_64_bits_stall_as_long() {
        let all = u64::MAX;
        let layer = DoubleBuffer { compute: 0, traffic: all, first_load: all, last_store: all };
        assert_eq!([0, 1].map(|bandwidth| layer.stall(bandwidth)), [all; 2]);
    }

    proptest! {
        #[test]
        fn the_roofline_holds_and_bandwidth_helps(compute in 0_u64..1 << 40, traffic in 0_u64..1 << 40, a in 0_u64..1 << 20, b in 0_u64..1 << 20, bandwidth in 1_u64..4096) {
            let (first_load, last_store) = (a.min(traffic), b.min(traffic - a.min(traffic)));
            let layer = DoubleBuffer { compute, traffic, first_load, last_store };
            let total = compute + layer.stall(bandwidth);
            prop_assert!(total >= compute.max(traffic.div_ceil(bandwidth)));
            prop_assert!(compute + layer.stall(bandwidth + 1) <= total);
        }
    }
}
