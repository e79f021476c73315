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
///
/// What [`LoopNest::accesses`] gives passes [`validate`](Self::validate); its words are counted without an error.
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
    /// Checks that every count is there and that what is made of them fits.
    ///
    /// # Errors
    /// A count of 0, passes that do not divide the fills, or words past 63 bits.
    pub fn validate(&self) -> Result<(), HwError> {
        let thing = || format!("access of {} at level {}", self.operand.name(), self.level);
        let Self { footprint, fills, reduction_passes, distinct, multicast_to, .. } = *self;
        let counts = [
            ("footprint", footprint),
            ("fills", fills),
            ("reduction_passes", reduction_passes),
            ("distinct", distinct),
            ("multicast_to", multicast_to),
        ];
        if let Some((field, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(HwError::field(thing(), field, "at least 1", 0));
        }
        if !fills.is_multiple_of(reduction_passes) {
            let expected = format!("a divisor of the {fills} fills");
            return Err(HwError::field(thing(), "reduction_passes", expected, reduction_passes));
        }
        // No count below is more than twice the words of all copies.
        let most = [fills, footprint, distinct, multicast_to].into_iter().try_fold(2, u64::checked_mul);
        most.map(drop).ok_or_else(|| HwError::Overflow { layer: thing(), quantity: "words" })
    }

    /// Words that leave the outer level: one transfer serves all elements that share a tile.
    /// An output goes out in every pass and comes back in all but the first: `2C′ − 1` transfers for `C′` passes.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn outer_words(&self) -> Result<u64, HwError> {
        self.validate()?;
        let words = self.fills * self.footprint * self.distinct;
        Ok(match self.operand {
            OperandKind::Output => words / self.reduction_passes * (2 * self.reduction_passes - 1),
            _ => words,
        })
    }

    /// Words that the elements take in (or hand out), all copies counted.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn inner_words(&self) -> Result<u64, HwError> {
        self.validate()?;
        Ok(self.fills * self.footprint * self.distinct * self.multicast_to)
    }

    /// Accesses that accumulating partial sums causes in the elements: each of `C′ · P` contributions is read and
    /// written, but the first is only written.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn accumulations(&self) -> Result<u64, HwError> {
        self.validate()?;
        let outputs = self.fills / self.reduction_passes * self.footprint * self.distinct;
        Ok(outputs * (2 * self.reduction_passes * self.multicast_to - 1))
    }

    /// Partial sums handed from element to element on their way through the `P` that share an output.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn forwards(&self) -> Result<u64, HwError> {
        self.validate()?;
        Ok(self.fills * self.footprint * self.distinct * (self.multicast_to - 1))
    }
}

impl LoopNest {
    /// Every `Keep` line's movements.
    ///
    /// # Errors
    /// A bound, stride or dilation of zero, or counts past 64 bits.
    pub fn accesses(&self) -> Result<Vec<Access>, HwError> {
        for (field, [vertical, horizontal]) in [("stride", self.stride), ("dilation", self.dilation)] {
            if vertical == 0 || horizontal == 0 {
                let found = format!("{vertical} × {horizontal}");
                return Err(HwError::field("loop nest", field, "at least 1 × 1", found));
            }
        }
        let all = self.steps.iter().try_fold(1_u128, |total, step| match *step {
            Step::Loop(_, 0) | Step::Spatial(_, 0) => Err(HwError::field("loop nest", "bound", "at least 1", 0)),
            Step::Loop(_, bound) | Step::Spatial(_, bound) => Ok(total.saturating_mul(u128::from(bound))),
            Step::Keep(..) => Ok(total),
        })?;
        // Every count below is at most twice all iterations times a halo that is within their square.
        let reach = u128::from(self.stride[0].max(self.dilation[0])) * u128::from(self.stride[1].max(self.dilation[1]));
        if all.saturating_mul(reach).saturating_mul(4) > 1 << 60 {
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
        assert_eq!(get(Input, 1).outer_words().unwrap() * data, 1_525_440);
        assert_eq!(get(Output, 1).outer_words().unwrap() * data, 2_365_440);
        assert_eq!(get(Weight, 1).outer_words().unwrap() * data, 2_230_272);
        assert_eq!(get(Weight, 2).outer_words().unwrap() * data, 2_230_272);
        assert_eq!(get(Weight, 2).inner_words().unwrap() * data, 15_611_904);
        let output = get(Output, 2);
        assert_eq!(output.reduction_passes, 3);
        assert_eq!(output.outer_words().unwrap() * sum, 17_740_800);
        assert_eq!(output.accumulations().unwrap() * sum, 230_630_400);
        assert_eq!(output.forwards().unwrap() * sum, 106_444_800);
        assert_eq!(output.fills * output.footprint * output.distinct * sum, 10_644_480);
    }

    #[test]
    fn empty_and_enormous_loops_are_refused() {
        let nest = |bound| LoopNest { steps: vec![Loop(N, bound), Loop(K, bound)], stride: [1; 2], dilation: [1; 2] };
        assert!(nest(0).accesses().is_err());
        assert!(matches!(nest(u64::MAX).accesses(), Err(HwError::Overflow { .. })));
        let still = LoopNest { stride: [1, 0], ..nest(2) };
        assert_eq!(still.accesses().unwrap_err().to_string(), "loop nest: stride is 1 × 0, expected at least 1 × 1");
    }

    #[test]
    fn an_access_made_by_hand_is_refused_where_it_counts_nothing_or_too_much() {
        let (operand, level) = (Output, 1);
        let good = Access { operand, level, footprint: 2, fills: 6, reduction_passes: 3, distinct: 5, multicast_to: 7 };
        // 6·2·5 words in 3 passes, 7 copies: 20 outputs, out three times and back twice; 21 contributions of each.
        let counts =
            |access: Access| [access.outer_words(), access.inner_words(), access.accumulations(), access.forwards()];
        assert_eq!(counts(good), [Ok(20 * 5), Ok(60 * 7), Ok(20 * 41), Ok(60 * 6)]);
        for (access, message) in [
            (Access { reduction_passes: 0, ..good }, "reduction_passes is 0, expected at least 1"),
            (Access { multicast_to: 0, ..good }, "multicast_to is 0, expected at least 1"),
            (Access { reduction_passes: 4, ..good }, "reduction_passes is 4, expected a divisor of the 6 fills"),
        ] {
            let message = format!("access of output at level 1: {message}");
            assert!(counts(access).into_iter().all(|count| count.unwrap_err().to_string() == message), "{message}");
        }
        let huge = Access { footprint: u64::MAX / 2, ..good };
        let error = HwError::Overflow { layer: "access of output at level 1".into(), quantity: "words" };
        assert!(counts(huge).into_iter().all(|count| count == Err(error.clone())));
    }
}
