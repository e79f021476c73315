//! A training on disk: weights, optimizer, observers and progress in one file, replaced atomically.

use super::{Progress, Trainer};
use crate::checkpoint::{Header, LoadPolicy, SafetensorsFile, load_state, state_of, write_safetensors};
use crate::optim::NamedTensors;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use tch::nn::VarStore;

const SCHEMA: &str = "core-tensor.training";
const VERSION: u32 = 1;

/// What the header of a training's file holds.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Content<T> {
    progress: Progress,
    /// The caller's own: best accuracy so far, the stage of a schedule.
    extra: T,
}

impl<B> Trainer<'_, B> {
    /// Writes everything that a resumed training needs: the variables of `store`, the optimizer's and the observers'
    /// state, the progress, and whatever serialisable `extra` the caller keeps.
    ///
    /// # Errors
    /// A file that cannot be written (the previous one is then untouched), an `extra` without a JSON form, or two observers of
    /// one name that both keep state.
    pub fn save(&self, path: &Path, store: &VarStore, extra: &impl Serialize) -> Result<()> {
        self.check_observers()?;
        let mut tensors = self.state();
        for (name, tensor) in state_of(store) {
            tensors.insert(format!("model/{name}"), tensor);
        }
        let header = Header::new(SCHEMA, VERSION, Content { progress: self.progress(), extra });
        write_safetensors(path, &tensors, &header.to_metadata()?)
    }

    /// Goes on where [`save`](Self::save) left off, and returns the caller's `extra`. The same network and optimizer
    /// must have been built and the same observers added. After an error some of it may be restored and some not: build the
    /// training anew rather than going on.
    ///
    /// # Errors
    /// A file that is missing, malformed, or of another network, optimizer or set of observers.
    pub fn restore<T: DeserializeOwned>(&mut self, path: &Path, store: &VarStore) -> Result<T> {
        let mut file = SafetensorsFile::open(path)?;
        let header = Header::<Content<T>>::from_metadata(file.metadata(), SCHEMA, VERSION, path)?;
        let (mut model, mut state) = (NamedTensors::new(), NamedTensors::new());
        let names: Vec<String> = file.tensors().keys().cloned().collect();
        for name in names {
            let tensor = file.tensor(&name)?;
            match name.strip_prefix("model/") {
                Some(variable) => model.insert(variable.to_owned(), tensor),
                None => state.insert(name, tensor),
            };
        }
        self.resume(header.content.progress, &state)?;
        // A store without variables (everything lives elsewhere) has nothing to load.
        if !(model.is_empty() && store.is_empty()) {
            load_state(store, &model, &LoadPolicy { strip: Vec::new(), ..LoadPolicy::strict() })?;
        }
        Ok(header.content.extra)
    }

    /// [`restore`](Self::restore) if the file exists; otherwise nothing happens and nothing is returned.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn restore_if_present<T: DeserializeOwned>(&mut self, path: &Path, store: &VarStore) -> Result<Option<T>> {
        match path.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => self.restore(path, store).map(Some),
            Err(error) => Err(Error::io(path, "look up")(error)),
        }
    }
}
