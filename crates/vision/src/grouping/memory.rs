//! Cross-batch memory.

use super::{Embedded, Error, MetricLoss, Mined, Result};
use std::collections::VecDeque;
use tch::Tensor;

/// Embeddings of recent batches to find positives and negatives in (Wang, Zhang, Huang and Scott, arXiv 1912.06798).
///
/// Embeddings drift slowly, so those of the last few hundred steps are as good as fresh ones, and cost nothing to compare
/// with. Use it beside the loss within the batch, after a thousand steps or so of warm-up:
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use vision::grouping::{Contrastive, CrossBatchMemory, Embedded, MetricLoss};
///
/// let mut memory = CrossBatchMemory::new(1000)?;
/// let loss = Contrastive::default();
/// let labels = [0, 0, 1, 1];
/// for _ in 0..3 {
///     let embeddings = Tensor::rand([4, 8], (Kind::Float, Device::Cpu));
///     let batch = Embedded::new(&embeddings, &labels)?;
///     let within = loss.loss(&batch, None)?;
///     let across = memory.loss(&loss, &batch)?;
///     memory.push(&batch)?;
///     // (within + across).backward();
///     # let _ = (within, across);
/// }
/// assert_eq!(memory.len(), 12);
/// # Ok::<(), vision::grouping::Error>(())
/// ```
#[derive(Debug)]
pub struct CrossBatchMemory {
    capacity: usize,
    /// Oldest first.
    batches: VecDeque<(Tensor, Vec<i64>)>,
    len: usize,
}

impl CrossBatchMemory {
    /// Keeps up to `capacity` embeddings; batches are dropped whole, the oldest first.
    ///
    /// # Errors
    /// A capacity of 0.
    pub fn new(capacity: usize) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::setting("capacity", "at least 1", capacity));
        }
        Ok(Self { capacity, batches: VecDeque::new(), len: 0 })
    }

    /// Embeddings kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps a batch's embeddings, without their gradient.
    ///
    /// # Errors
    /// A batch larger than the capacity, or of vectors of another length than those kept.
    pub fn push(&mut self, batch: &Embedded) -> Result<()> {
        let count = batch.labels().len();
        if count > self.capacity {
            return Err(Error::setting("batch size", format!("at most the memory's {}", self.capacity), count));
        }
        if let Some((kept, _)) = self.batches.front()
            && kept.size()[1] != batch.dim()
        {
            let expected = format!("vectors of {} numbers", kept.size()[1]);
            return Err(Error::shape("embeddings", expected, batch.dim().to_string()));
        }
        self.batches.push_back((batch.anchors().detach().copy(), batch.labels().to_vec()));
        self.len += count;
        while self.len > self.capacity {
            self.len -= self.batches.pop_front().map_or(0, |(_, labels)| labels.len());
        }
        Ok(())
    }

    /// The loss of a batch's items against those kept; 0 while nothing is kept, or nothing there can be compared.
    ///
    /// # Errors
    /// What the loss refuses.
    pub fn loss(&self, loss: &dyn MetricLoss, batch: &Embedded) -> Result<Tensor> {
        self.mined_loss(loss, batch, |_| Ok(None))
    }

    /// As [`loss`](Self::loss), with what `mine` chooses.
    ///
    /// # Errors
    /// What loss and miner refuse.
    pub fn mined_loss(
        &self,
        loss: &dyn MetricLoss,
        batch: &Embedded,
        mine: impl FnOnce(&Embedded) -> Result<Option<Mined>>,
    ) -> Result<Tensor> {
        let nothing = || batch.anchors().sum(batch.anchors().kind()) * 0.0;
        if self.is_empty() {
            return Ok(nothing());
        }
        let tensors: Vec<&Tensor> = self.batches.iter().map(|(tensor, _)| tensor).collect();
        let kept = Tensor::cat(&tensors, 0);
        let labels: Vec<i64> = self.batches.iter().flat_map(|(_, labels)| labels).copied().collect();
        let across = batch.against(&kept, &labels)?;
        match loss.loss(&across, mine(&across)?.as_ref()) {
            Err(Error::NothingMined { .. }) => Ok(nothing()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::{Contrastive, Triplet};
    use tch::{Device, Kind};

    fn rows(count: i64, phase: f64) -> Tensor {
        (Tensor::arange(count * 4, (Kind::Double, Device::Cpu)) * 0.7 + phase).sin().view([count, 4])
    }

    #[test]
    fn the_oldest_batches_go_first() {
        let mut memory = CrossBatchMemory::new(7).unwrap();
        for phase in 0..4 {
            let embeddings = rows(3, f64::from(phase));
            memory.push(&Embedded::new(&embeddings, &[i64::from(phase); 3]).unwrap()).unwrap();
        }
        assert_eq!(memory.len(), 6);
        let labels: Vec<_> = memory.batches.iter().map(|(_, labels)| labels[0]).collect();
        assert_eq!(labels, [2, 3]);
    }

    #[test]
    fn the_loss_is_that_against_the_kept_ones_and_gradients_stay_out_of_them() {
        let (old, new) = (rows(4, 0.3).set_requires_grad(true), rows(4, 1.9).set_requires_grad(true));
        let labels = [0, 0, 1, 1];
        let mut memory = CrossBatchMemory::new(100).unwrap();
        memory.push(&Embedded::new(&old, &labels).unwrap()).unwrap();
        let batch = Embedded::new(&new, &labels).unwrap();
        let found = memory.loss(&Contrastive::default(), &batch).unwrap();
        found.backward();
        let direct = Contrastive::default().loss(&batch.against(&old, &labels).unwrap(), None).unwrap();
        assert!((found - direct).abs().double_value(&[]) < 1e-15);
        assert!(!old.grad().defined() && new.grad().abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn an_empty_memory_and_one_without_partners_add_nothing() {
        let embeddings = rows(2, 0.0);
        let batch = Embedded::new(&embeddings, &[0, 0]).unwrap();
        let mut memory = CrossBatchMemory::new(4).unwrap();
        assert!(memory.is_empty());
        assert_eq!(memory.loss(&Triplet::default(), &batch).unwrap().double_value(&[]), 0.0);
        memory.push(&batch).unwrap();
        // Positives, but no negative.
        assert_eq!(memory.loss(&Triplet::default(), &batch).unwrap().double_value(&[]), 0.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(CrossBatchMemory::new(0).is_err());
        let mut memory = CrossBatchMemory::new(3).unwrap();
        let large = rows(4, 0.0);
        assert!(memory.push(&Embedded::new(&large, &[0; 4]).unwrap()).is_err());
        let fine = rows(2, 0.0);
        memory.push(&Embedded::new(&fine, &[0; 2]).unwrap()).unwrap();
        let narrow = fine.view([4, 2]).narrow(0, 0, 1);
        assert!(memory.push(&Embedded::new(&narrow, &[0]).unwrap()).is_err());
    }
}
