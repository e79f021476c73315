//! A nest written out: loops, spatial loops, and the points where tiles are kept.

use serde::{Deserialize, Serialize};

use super::Dim;
use crate::error::HwError;
use crate::task::OperandKind;

/// One line of a nest, outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A loop in time.
    Loop(Dim, u64),
    /// A loop over processing elements.
    Spatial(Dim, u64),
    /// From here inward, the operand's tile lies in memory level `usize` (0 is DRAM, where everything lies).
    Keep(OperandKind, usize),
}

/// A nest over a convolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopNest {
    /// The lines, outermost first.
    pub steps: Vec<Step>,
    /// Vertical and horizontal stride.
    pub stride: [u64; 2],
    /// Vertical and horizontal distance between taps.
    pub dilation: [u64; 2],
}

/// What one `Keep` line moves.
///
/// `fills` of them, each of `footprint` words: a tile is refetched once an iteration of every loop above the point, but
/// loops inside the innermost one that the operand depends on are free. Spatial loops above the point split into
/// `multicast_to` elements that share a tile and `distinct` elements that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Which operand.
    pub operand: OperandKind,
    /// Where the tile lies.
    pub level: usize,
    /// Words of a tile.
    pub footprint: u64,
    /// Tiles that an element gets.
    pub fills: u64,
    /// Of these, how many passes contribute to the same output tile (1 for inputs and weights).
    pub reduction_passes: u64,
    /// Elements with different tiles.
    pub distinct: u64,
    /// Elements that share each of them.
    pub multicast_to: u64,
}

impl Access {
    /// Words that leave the outer level: one transfer serves all elements that share a tile.
    /// An output goes out in every pass and comes back in all but the first: `2C′ − 1` transfers for `C′` passes.
    pub fn outer_words(&self) -> u64 {
        let words = self.fills * self.footprint * self.distinct;
        match self.operand {
            OperandKind::Output => words / self.reduction_passes * (2 * self.reduction_passes - 1),
            _ => words,
        }
    }

    /// Words that the elements take in (or hand out), all copies counted.
    pub fn inner_words(&self) -> u64 {
        self.fills * self.footprint * self.distinct * self.multicast_to
    }

    /// Accesses that accumulating partial sums causes in the elements: each of `C′ · P` contributions is read and
    /// written, but the first is only written.
    pub fn accumulations(&self) -> u64 {
        let outputs = self.fills / self.reduction_passes * self.footprint * self.distinct;
        outputs * (2 * self.reduction_passes * self.multicast_to - 1)
    }

    /// Partial sums handed from element to element on their way through the `P` that share an output.
    pub fn forwards(&self) -> u64 {
        self.fills * self.footprint * self.distinct * (self.multicast_to - 1)
    }
}

impl LoopNest {
    /// Every `Keep` line's movements.
    ///
    /// # Errors
    /// A bound of zero, or counts past 64 bits.
    pub fn accesses(&self) -> Result<Vec<Access>, HwError> {
        let all = self.steps.iter().try_fold(1_u128, |total, step| match *step {
            Step::Loop(_, 0) | Step::Spatial(_, 0) => Err(HwError::field("loop nest", "bound", "at least 1", 0)),
            Step::Loop(_, bound) | Step::Spatial(_, bound) => Ok(total.saturating_mul(u128::from(bound))),
            Step::Keep(..) => Ok(total),
        })?;
        // Every count below is at most twice all iterations times a halo that is within their square.
        let reach = u128::from(self.stride[0].max(self.dilation[0])) * u128::from(self.stride[1].max(self.dilation[1]));
        if all.saturating_mul(reach.max(1)).saturating_mul(4) > 1 << 60 {
            return Err(HwError::Overflow { layer: "loop nest".into(), quantity: "iterations" });
        }
        let keeps = self.steps.iter().enumerate();
        Ok(keeps
            .filter_map(|(position, step)| match *step {
                Step::Keep(operand, level) => Some(self.access(position, operand, level)),
                _ => None,
            })
            .collect())
    }

    fn access(&self, position: usize, operand: OperandKind, level: usize) -> Access {
        let (above, below) = self.steps.split_at(position);
        let mut extent = [1_u64; 7];
        for step in below {
            if let Step::Loop(dim, bound) | Step::Spatial(dim, bound) = *step {
                extent[dim as usize] *= bound;
            }
        }
        let temporal: Vec<(Dim, u64)> = above
            .iter()
            .filter_map(|step| if let Step::Loop(dim, bound) = *step { Some((dim, bound)) } else { None })
            .collect();
        let last = temporal.iter().rposition(|&(dim, _)| dim.concerns(operand)).map_or(0, |index| index + 1);
        let counted = &temporal[..last];
        let product = |keep: &dyn Fn(Dim) -> bool| {
            counted.iter().filter(|&&(dim, _)| keep(dim)).map(|&(_, bound)| bound).product::<u64>()
        };
        let spatial = |related: bool| {
            let loops = above.iter().filter_map(|step| match *step {
                Step::Spatial(dim, bound) if dim.concerns(operand) == related => Some(bound),
                _ => None,
            });
            loops.product::<u64>()
        };
        Access {
            operand,
            level,
            footprint: footprint(operand, &extent, self.stride, self.dilation),
            fills: product(&|_| true),
            reduction_passes: match operand {
                OperandKind::Output => product(&|dim| !dim.concerns(OperandKind::Output)),
                _ => 1,
            },
            distinct: spatial(true),
            multicast_to: spatial(false),
        }
    }
}

/// Words of an operand's tile of the given extents; the input's halo where windows overlap.
pub(super) fn footprint(operand: OperandKind, extent: &[u64; 7], stride: [u64; 2], dilation: [u64; 2]) -> u64 {
    let of = |dim: Dim| extent[dim as usize];
    let halo = |outputs: u64, taps: u64, axis: usize| {
        ((outputs - 1) * stride[axis] + (taps - 1) * dilation[axis] + 1).min(outputs * taps)
    };
    match operand {
        OperandKind::Input => {
            of(Dim::N) * of(Dim::C) * halo(of(Dim::Y), of(Dim::R), 0) * halo(of(Dim::X), of(Dim::S), 1)
        }
        OperandKind::Weight => of(Dim::K) * of(Dim::C) * of(Dim::R) * of(Dim::S),
        OperandKind::Output => of(Dim::N) * of(Dim::K) * of(Dim::Y) * of(Dim::X),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dim::*;
    use OperandKind::*;
    use Step::{Keep, Loop, Spatial};

    #[test]
    fn alexnet_conv1_moves_what_the_published_predictor_counts() {
        // DNN-Chip Predictor (Zhao et al., arXiv 2002.11270) on its Eyeriss mapping, batch 4, 16-bit data, 24-bit sums.
        // Its input traffic inside the array is left out: the tool drops the wrong loop there.
        let steps = vec![
            Loop(N, 4),
            Loop(K, 1),
            Loop(Y, 8),
            Loop(C, 3),
            Keep(Input, 1),
            Keep(Output, 1),
            Keep(Weight, 1),
            Loop(K, 3),
            Spatial(K, 2),
            Spatial(Y, 7),
            Spatial(C, 1),
            Spatial(R, 11),
            Loop(N, 1),
            Loop(X, 55),
            Keep(Input, 2),
            Keep(Weight, 2),
            Loop(S, 11),
            Loop(C, 1),
            Keep(Output, 2),
            Loop(K, 16),
        ];
        let nest = LoopNest { steps, stride: [4, 4], dilation: [1, 1] };
        let accesses = nest.accesses().unwrap();
        let get = |operand, level| *accesses.iter().find(|a| a.operand == operand && a.level == level).unwrap();
        let (data, sum) = (2, 3);
        assert_eq!(get(Input, 1).outer_words() * data, 1_525_440);
        assert_eq!(get(Output, 1).outer_words() * data, 2_365_440);
        assert_eq!(get(Weight, 1).outer_words() * data, 2_230_272);
        assert_eq!(get(Weight, 2).outer_words() * data, 2_230_272);
        assert_eq!(get(Weight, 2).inner_words() * data, 15_611_904);
        let output = get(Output, 2);
        assert_eq!(output.reduction_passes, 3);
        assert_eq!(output.outer_words() * sum, 17_740_800);
        assert_eq!(output.accumulations() * sum, 230_630_400);
        assert_eq!(output.forwards() * sum, 106_444_800);
        assert_eq!(output.fills * output.footprint * output.distinct * sum, 10_644_480);
    }

    #[test]
    fn empty_and_enormous_loops_are_refused() {
        let nest = |bound| LoopNest { steps: vec![Loop(N, bound), Loop(K, bound)], stride: [1; 2], dilation: [1; 2] };
        assert!(nest(0).accesses().is_err());
        assert!(matches!(nest(u64::MAX).accesses(), Err(HwError::Overflow { .. })));
    }
}
