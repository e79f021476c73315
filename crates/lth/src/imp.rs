//! Iterative magnitude pruning, one resumable round at a time.

mod count;

use crate::criterion::Criterion;
use crate::mask::{MaskRecord, MaskSet};
use crate::prunable::{NamedTensor, Prunable};
use crate::rewind::{Rewind, copies};
use crate::selector::{Amount, Selector};
use crate::ticket::{Ticket, TicketRecord, architecture_digest, fitted, is_counter, restore, shared};
use crate::{Error, Result};
use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::nn;

/// What iterative pruning repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImpConfig {
    /// Share of the survivors dropped in each round, in `[0, 1)`. Default and papers: 0.2.
    pub rate: f64,
    /// Rounds. Default: 16, to 97.2 % sparsity.
    pub rounds: u32,
    /// Which tensors are pruned.
    pub prunable: Prunable,
    /// Within what weights are ranked. Default: all tensors together.
    pub selector: Selector,
    /// Whether the first round trains before it prunes. Default: it does.
    pub first_round: FirstRound,
    /// Where the start weights come from, for the tickets' records.
    pub rewind: Rewind,
    /// The step of the schedule at which each round's training starts, for the tickets' records.
    pub start_step: u64,
    /// What identifies the experiment, such as a hash of its description: rounds on disk from another one are refused.
    pub source: Option<String>,
}

/// Whether the first round trains before it prunes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstRound {
    /// From the start weights.
    #[default]
    TrainFirst,
    /// Ranks the weights that the model holds: those of a dense training just finished, or pre-trained ones.
    PruneImmediately,
}

impl Default for ImpConfig {
    fn default() -> Self {
        Self {
            rate: 0.2,
            rounds: 16,
            prunable: Prunable::default(),
            selector: Selector::global(),
            first_round: FirstRound::TrainFirst,
            rewind: Rewind::Init,
            start_step: 0,
            source: None,
        }
    }
}

/// Finds a sequence of nested tickets: train, drop a share of the survivors, rewind, repeat.
///
/// ```
/// # use core_tensor::{checkpoint::state_of, networks::Architecture, nn::Standard};
/// use lth::{Imp, ImpConfig, MaskSet, criterion::Magnitude};
/// # let store = tch::nn::VarStore::new(tch::Device::Cpu);
/// # let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard)?;
/// # let start = state_of(&store);
/// let mut imp = Imp::new(ImpConfig { rounds: 3, ..ImpConfig::default() }, &store, &start, &Magnitude)?;
/// // The model holds the masked start weights when this is called; train it with a `MaskObserver`.
/// let mut train = |_round: u32, _mask: &MaskSet| Ok::<(), lth::Error>(());
/// while let Some(ticket) = imp.next_round(&mut train)? {
///     println!("{:.1} % sparse", 100.0 * ticket.mask().sparsity());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Imp<'a> {
    config: ImpConfig,
    store: &'a nn::VarStore,
    weights: Vec<NamedTensor>,
    /// A copy: what the caller holds may be the model's live state, which training changes. All tickets share it.
    start: NamedTensors,
    criterion: &'a dyn Criterion,
    folder: Option<PathBuf>,
    round: u32,
    mask: MaskSet,
}

impl std::fmt::Debug for Imp<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("Imp");
        fields.field("config", &self.config).field("round", &self.round).finish_non_exhaustive()
    }
}

impl<'a> Imp<'a> {
    /// Rounds that rewind a model to what `start` holds now, of which a copy is kept.
    ///
    /// # Errors
    /// A setting outside its range, a selector with densities of its own ([`Selector::layer_densities`]), nothing to
    /// prune, or start weights of another architecture.
    pub fn new(
        config: ImpConfig,
        store: &'a nn::VarStore,
        start: &NamedTensors,
        criterion: &'a dyn Criterion,
    ) -> Result<Self> {
        if !(0.0..1.0).contains(&config.rate) {
            return Err(Error::setting("rate", "in [0, 1)", config.rate));
        }
        config.selector.takes(Amount::Rate(config.rate))?;
        let weights = config.prunable.select_from(store)?;
        let mask = MaskSet::ones_like(&weights);
        match config.first_round {
            FirstRound::TrainFirst => restore(start, store)?,
            FirstRound::PruneImmediately => drop(fitted(start, store)?),
        }
        let start = copies(start.iter().filter(|(name, _)| !is_counter(name)));
        Ok(Self { config, store, weights, start, criterion, folder: None, round: 0, mask })
    }

    /// Keeps each round's ticket as `round-{n}.safetensors` in a folder, made if need be, and takes rounds that are
    /// already there from it instead of computing them again. Each file holds all start weights beside its mask, a
    /// thirty-second of their size, so that it can be used alone: twenty rounds take the disk of twenty dense checkpoints.
    ///
    /// A round on disk must have this search's record, start weights and counts: as many weights (or filters) as the
    /// rate leaves of the round before, no layer with less than its minimum or emptied where that is refused. What a
    /// file does not tell is not checked: [`FirstRound`], a criterion's settings that its name leaves out (a seed, a
    /// batch), a minimum that was higher, the training. Put those into [`ImpConfig::source`], or take another folder. A
    /// criterion without a [`unit`](Criterion::unit) is not counted.
    #[must_use]
    pub fn in_folder(self, folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..self }
    }

    /// What the last round kept.
    pub fn mask(&self) -> &MaskSet {
        &self.mask
    }

    /// The ticket of the next round, or `None` after the last.
    ///
    /// `train(round, mask)` trains the model, which holds the masked start weights, with the mask held.
    ///
    /// # Errors
    /// [`Error::Training`] with the closure's error, [`Error::File`] for a round on disk that does not continue this
    /// search, and what ranking and saving refuse. A failed round can be tried again.
    pub fn next_round<E>(&mut self, mut train: impl FnMut(u32, &MaskSet) -> Result<(), E>) -> Result<Option<Ticket>>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.round == self.config.rounds {
            return Ok(None);
        }
        let path = self.folder.as_ref().map(|folder| folder.join(format!("round-{}.safetensors", self.round + 1)));
        let ticket = match &path {
            Some(path) if path.exists() => {
                let ticket = Ticket::load(path)?;
                self.check(&ticket).map_err(|reason| Error::file(path, reason))?;
                ticket.sharing(&self.start)
            }
            _ => {
                if let Some(folder) = &self.folder {
                    // Before the training, which would be lost without it.
                    std::fs::create_dir_all(folder).map_err(core_tensor::Error::io(folder, "create"))?;
                }
                let ticket = self.search(&mut train)?;
                if let Some(path) = &path {
                    ticket.save(path)?;
                }
                ticket
            }
        };
        self.mask = ticket.mask().clone();
        self.round += 1;
        Ok(Some(ticket))
    }

    fn search<E>(&self, train: &mut impl FnMut(u32, &MaskSet) -> Result<(), E>) -> Result<Ticket>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.round > 0 || self.config.first_round == FirstRound::TrainFirst {
            restore(&self.start, self.store)?;
            self.mask.apply(&self.weights)?;
            let failed = |error: E| Error::Training { round: self.round, source: error.into() };
            train(self.round, &self.mask).map_err(failed)?;
        }
        let scores = self.criterion.score(&self.weights, Some(&self.mask))?;
        let mask = self.config.selector.prune(&scores, Amount::Rate(self.config.rate), Some(&self.mask))?;
        Ticket::from_parts(mask, shared(&self.start), self.record())
    }

    fn record(&self) -> TicketRecord {
        TicketRecord {
            mask: MaskRecord {
                criterion: self.criterion.name(),
                scope: self.config.selector.name().into(),
                prunable: self.config.prunable.clone(),
                source: self.config.source.clone(),
            },
            rewind: self.config.rewind,
            start_step: self.config.start_step,
            architecture: architecture_digest(&self.store.variables().into_iter().collect()),
        }
    }

    /// Whether a ticket from disk is the one that this round would record, as far as can be told without training.
    fn check(&self, ticket: &Ticket) -> Result<(), String> {
        let expected = self.record();
        if *ticket.record() != expected {
            return Err(format!("expected a ticket of {expected:?}, found one of {:?}", ticket.record()));
        }
        if !ticket.mask().is_subset_of(&self.mask).map_err(|error| error.to_string())? {
            return Err("its mask keeps weights that the round before dropped".into());
        }
        count::check(&self.config, self.criterion, &self.mask, ticket.mask())?;
        for (name, tensor) in ticket.start() {
            // Files are read into CPU memory, wherever the start weights live.
            if self.start.get(name).is_none_or(|start| !start.equal(&tensor.to_device(start.device()))) {
                return Err(format!("its start weights differ in `{name}`"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
