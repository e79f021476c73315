//! One forward pass: block after block decides, then the cost is summed up.

use super::{Decision, State};
use crate::fractrain::{Error, Result};
use tch::{Kind, Tensor};

/// One forward pass of the network.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) decisions: Vec<Option<Decision>>,
    pub(super) macs: Vec<u64>,
}

/// What the gates did in a forward pass.
#[derive(Debug)]
pub struct GatePass {
    /// Mean cost of a sample in units of an average block at full precision, with the gates' gradient.
    pub cost: Tensor,
    /// The realised cost in percent of full precision.
    pub cp: f64,
    /// Samples by block and option.
    pub histogram: Vec<Vec<u64>>,
    /// Multiply-accumulates of a sample's forward pass by block.
    pub macs: Vec<u64>,
}

impl State {
    pub(super) fn begin(&mut self) {
        self.pass = Pass::default();
        self.network.reset();
    }

    pub(super) fn decide(&mut self, block: usize, leads: bool, input: &Tensor) -> Result<Decision> {
        self.pass.decisions.resize(self.blocks.len(), None);
        if let Some(decision) = self.pass.decisions[block].as_ref().filter(|_| !leads) {
            return Ok(decision.clone());
        }
        let mask = match self.forced.as_mut() {
            Some(forced) => forced.draw(block, input)?,
            None => self.network.decide(block, input)?,
        };
        let choice = Vec::<i64>::try_from(mask.detach().f_argmax(1, false)?)?;
        let choice = choice.into_iter().map(|option| option as usize).collect();
        let decision = Decision { mask, choice, options: self.config.options.clone().into() };
        self.pass.decisions[block] = Some(decision.clone());
        Ok(decision)
    }

    pub(super) fn finish(&mut self) -> Result<GatePass> {
        let costs = self.config.costs_at(self.weight);
        let pass = std::mem::take(&mut self.pass);
        self.network.reset();
        let decided = pass.decisions.iter().enumerate().filter_map(|(block, found)| Some((block, found.as_ref()?)));
        let decided: Vec<_> = decided.collect();
        let batch = decided.first().map_or(0, |(_, decision)| decision.choice.len());
        if batch == 0 {
            return Err(Error::shape("samples that gates decided for", "at least 1", 0));
        }
        let macs = |block: usize| pass.macs.get(block).copied().unwrap_or(0);
        let total: f64 = decided.iter().map(|(block, _)| macs(*block) as f64).sum();
        let mean = total / decided.len() as f64;
        let weights: Vec<f32> = costs.iter().map(|cost| *cost as f32).collect();
        let mut histogram = vec![vec![0; costs.len()]; self.blocks.len()];
        let (mut realised, mut terms) = (0.0, Vec::new());
        for (block, decision) in &decided {
            for choice in decision.choice.iter() {
                histogram[*block][*choice] += 1;
                realised += costs[*choice] * macs(*block) as f64;
            }
            let share = decision.mask.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?;
            let weights = Tensor::f_from_slice(&weights)?.f_to_device(share.device())?;
            terms.push(share.f_dot(&weights)?.f_mul_scalar(macs(*block) as f64 / mean)?);
        }
        let cost = Tensor::f_stack(&terms, 0)?.f_sum(Kind::Float)?;
        let cp = 100.0 * realised / (3.0 * batch as f64 * total);
        let all_macs: Vec<u64> = (0..self.blocks.len()).map(macs).collect();
        let kept = GatePass { cost: cost.detach(), cp, histogram: histogram.clone(), macs: all_macs.clone() };
        self.last = Some(kept);
        Ok(GatePass { cost, cp, histogram, macs: all_macs })
    }
}
