//! A sub-network and where its training starts.

mod file;

use crate::mask::{MaskRecord, MaskSet, hexadecimal};
use crate::masked::{MaskObserver, trainable};
use crate::rewind::{Rewind, copies};
use crate::transfer::Pretrained;
use crate::{Error, Result};
use core_tensor::checkpoint::LoadReport;
use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Tensor, nn, no_grad};

/// A mask and the weights its training starts from, with a record of where both come from.
///
/// ```
/// # use core_tensor::{checkpoint::state_of, networks::Architecture, nn::Standard};
/// # use lth::{MaskRecord, Prunable, PruningSchedule, Rewind, Selector, Ticket, criterion::Magnitude};
/// # let store = tch::nn::VarStore::new(tch::Device::Cpu);
/// # let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard)?;
/// # let weights = Prunable::default().select_from(&store)?;
/// # let mask = PruningSchedule::OneShot { density: 0.2 }.prune(&weights, &Magnitude, &Selector::global())?;
/// # let start = state_of(&store);
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("ticket.safetensors");
/// let record = MaskRecord { criterion: "magnitude".into(), scope: "global".into(), ..MaskRecord::default() };
/// Ticket::new(mask, &start, record, Rewind::Init, 0)?.save(&path)?;
///
/// // Elsewhere, on a network of the same architecture:
/// let ticket = Ticket::load(&path)?;
/// let mut masked = ticket.apply(&store)?; // weights set, and an observer that keeps the mask
/// # drop(masked);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ticket {
    mask: MaskSet,
    start: NamedTensors,
    record: TicketRecord,
}

/// Where a ticket comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TicketRecord {
    /// Where its mask comes from.
    pub mask: MaskRecord,
    /// Where its weights come from.
    pub rewind: Rewind,
    /// The step of the training schedule at which re-training starts.
    pub start_step: u64,
    /// The digest of the model's variable names and shapes: see [`architecture_digest`].
    pub architecture: String,
}

impl Ticket {
    /// Joins a mask with copies of the weights to start from (all variables of the model).
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a masked tensor that `start` lacks or has in another shape, or that the record's predicate does
    /// not choose, as far as its name and number of axes tell.
    pub fn new(
        mask: MaskSet,
        start: &NamedTensors,
        record: MaskRecord,
        rewind: Rewind,
        start_step: u64,
    ) -> Result<Self> {
        let start = copies(start.iter().filter(|(name, _)| !is_counter(name)));
        let architecture = architecture_digest(&start);
        let record = TicketRecord { mask: record, rewind, start_step, architecture };
        Self::from_parts(mask, start, record)
    }

    /// Joins what it is given, without a copy.
    pub(crate) fn from_parts(mask: MaskSet, start: NamedTensors, record: TicketRecord) -> Result<Self> {
        record.mask.check(&mask)?;
        let named: Vec<_> = start.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        mask.matched(&named)?;
        Ok(Self { mask, start, record })
    }

    /// The same ticket with its start weights in this memory, which must hold the same numbers.
    pub(crate) fn sharing(self, start: &NamedTensors) -> Self {
        Self { start: shared(start), ..self }
    }

    /// Which weights are kept.
    pub fn mask(&self) -> &MaskSet {
        &self.mask
    }

    /// The weights to start from, not masked. Tickets of one search, and those with another mask, share their memory: change
    /// copies.
    pub fn start(&self) -> &NamedTensors {
        &self.start
    }

    /// Where the ticket comes from.
    pub fn record(&self) -> &TicketRecord {
        &self.record
    }

    /// The same mask with other weights, such as a pre-trained network's mask with random ones.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_start(&self, start: &NamedTensors, rewind: Rewind, start_step: u64) -> Result<Self> {
        Self::new(self.mask.clone(), start, self.record.mask.clone(), rewind, start_step)
    }

    /// The same weights with another mask, such as a random control.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_mask(&self, mask: MaskSet, record: MaskRecord) -> Result<Self> {
        Self::from_parts(mask, shared(&self.start), TicketRecord { mask: record, ..self.record.clone() })
    }

    /// The masked weights: dense tensors with zeros.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn materialise(&self) -> Result<NamedTensors> {
        let dense = copies(&self.start);
        let named: Vec<_> = dense.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        self.mask.apply(&named)?;
        Ok(dense)
    }

    /// Sets all variables of a model to the masked weights, and returns the observer that keeps the mask in training.
    ///
    /// # Errors
    /// [`Error::OtherArchitecture`] unless the model has exactly the ticket's names and shapes, [`Error::Mismatch`] for
    /// a masked variable that is frozen; nothing is changed then.
    pub fn apply(&self, store: &nn::VarStore) -> Result<MaskObserver> {
        let fitted = fitted(&self.start, store)?;
        let trainable = trainable(&self.mask, store)?;
        copy(fitted)?;
        MaskObserver::on(&self.mask, &trainable)
    }

    /// Sets a network for another task to the masked weights, as [`Pretrained::load_state`] sets one to dense ones: what lies
    /// under a prefix of `own`, such as `fc.`, stays the network's own. Returns what became of each name, and the observer that
    /// keeps the mask in training.
    ///
    /// ```
    /// # use core_tensor::{checkpoint::state_of, networks::Architecture, nn::Standard};
    /// # use lth::{MaskRecord, Prunable, PruningSchedule, Rewind, Selector, Ticket, criterion::Magnitude};
    /// use lth::transfer::Pretrained;
    /// # let build = |classes| -> Result<_, Box<dyn std::error::Error>> {
    /// #     let store = tch::nn::VarStore::new(tch::Device::Cpu);
    /// #     let network = Architecture::cifar_resnet(8, classes)?.build(&store.root(), &Standard)?;
    /// #     Ok((store, network))
    /// # };
    /// # let (source, _network) = build(10)?;
    /// # let prunable = Prunable::conv_only();
    /// # let weights = prunable.select_from(&source)?;
    /// # let mask = PruningSchedule::OneShot { density: 0.3 }.prune(&weights, &Magnitude, &Selector::global())?;
    /// # let record = MaskRecord { prunable, ..MaskRecord::default() };
    /// # let ticket = Ticket::new(mask, &state_of(&source), record, Rewind::Init, 0)?;
    /// let (store, network) = build(7)?; // the ticket's network has ten classes
    /// let (report, masked) = ticket.transfer(&store, Pretrained::Torchvision, ["fc."])?;
    /// assert!(report.missing.is_empty() && !report.loaded.contains(&"fc.weight".to_owned()));
    /// # drop((network, masked));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a masked tensor that the network lacks, has in another shape or has frozen, and what
    /// [`Pretrained::load_state`] refuses; nothing is changed then. A mask under other names than the network's comes in by
    /// [`MaskSet::renamed`].
    pub fn transfer<S: Into<String>>(
        &self,
        store: &nn::VarStore,
        layout: Pretrained,
        own: impl IntoIterator<Item = S>,
    ) -> Result<(LoadReport, MaskObserver)> {
        let trainable = trainable(&self.mask, store)?;
        self.mask.matched(&trainable)?;
        let report = layout.load_state(&self.start, store, own)?;
        Ok((report, MaskObserver::on(&self.mask, &trainable)?))
    }
}

/// The same tensors, not copies of them.
pub(crate) fn shared(tensors: &NamedTensors) -> NamedTensors {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Sets all variables of a model to these weights, such as a [snapshot](crate::Snapshots). Counters of batches
/// (`num_batches_tracked`) stay as they are.
///
/// # Errors
/// [`Error::OtherArchitecture`] unless names and shapes are exactly the model's; nothing is changed then.
pub fn restore(weights: &NamedTensors, store: &nn::VarStore) -> Result<()> {
    copy(fitted(weights, store)?)
}

/// A model's variables, each with the weight it is to be set to.
///
/// # Errors
/// As [`restore`].
pub(crate) fn fitted(weights: &NamedTensors, store: &nn::VarStore) -> Result<Vec<(Tensor, Tensor)>> {
    let weights: NamedTensors = weights
        .iter()
        .filter(|(name, _)| !is_counter(name))
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    let variables: NamedTensors = store.variables().into_iter().filter(|(name, _)| !is_counter(name)).collect();
    if let Some(difference) = first_difference(&weights, &variables) {
        return Err(Error::OtherArchitecture {
            expected: architecture_digest(&weights),
            found: architecture_digest(&variables),
            difference,
        });
    }
    Ok(variables.into_iter().map(|(name, variable)| (variable, weights[&name].shallow_clone())).collect())
}

fn copy(fitted: Vec<(Tensor, Tensor)>) -> Result<()> {
    no_grad(|| fitted.into_iter().try_for_each(|(mut variable, weight)| variable.f_copy_(&weight)))?;
    Ok(())
}

/// A SHA-256 over the sorted names and shapes of a model's variables, in hexadecimal. Counters of batches
/// (`num_batches_tracked`) do not count.
pub fn architecture_digest(variables: &NamedTensors) -> String {
    let counted = variables.iter().filter(|(name, _)| !is_counter(name));
    let lines = counted.map(|(name, tensor)| format!("{name} {:?}\n", tensor.size()));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    hexadecimal(&Sha256::digest(lines.concat()))
}

/// PyTorch's state dicts count batches beside each batch norm; tch's own batch norms do not.
pub(crate) fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

fn first_difference(ticket: &NamedTensors, model: &NamedTensors) -> Option<String> {
    let shape = |tensor: Option<&Tensor>| tensor.map_or("absent".to_owned(), |tensor| format!("{:?}", tensor.size()));
    let mut names: Vec<&String> = ticket.keys().chain(model.keys()).collect();
    names.sort();
    names.into_iter().find_map(|name| {
        let (expected, found) = (shape(ticket.get(name)), shape(model.get(name)));
        (expected != found).then(|| format!("`{name}` is {expected} in the ticket and {found} in the model"))
    })
}

#[cfg(test)]
mod tests;
