//! Tickets in files.

use super::{Ticket, TicketRecord};
use crate::mask::{MaskLayout, MaskSet};
use crate::{Error, Result};
use core_tensor::checkpoint::{Header, SafetensorsFile, write_safetensors};
use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;

const SCHEMA: &str = "lth.ticket";
const VERSION: u32 = 1;
const MASK: &str = "mask/";
const START: &str = "start/";

#[derive(Debug, Serialize, Deserialize)]
struct TicketHeader {
    record: TicketRecord,
    mask: MaskLayout,
}

impl Ticket {
    /// Writes the ticket to a safetensors file, atomically: `mask/{name}` as in a mask file, `start/{name}` dense.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = TicketHeader { record: self.record.clone(), mask: self.mask.layout() };
        let mut tensors = self.mask.packed(MASK);
        tensors.extend(self.start.iter().map(|(name, tensor)| (format!("{START}{name}"), tensor.shallow_clone())));
        Ok(write_safetensors(path, &tensors, &Header::new(SCHEMA, VERSION, header).to_metadata()?)?)
    }

    /// Reads back what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file that is not a ticket, or whose parts contradict each other.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let header: TicketHeader = Header::from_metadata(file.metadata(), SCHEMA, VERSION, path)?.content;
        let mask = MaskSet::unpack(&mut file, MASK, &header.mask, path)?;
        let names: Vec<String> = file.tensors().keys().cloned().collect();
        let mut start = NamedTensors::new();
        for stored in names {
            if let Some(name) = stored.strip_prefix(START) {
                start.insert(name.to_owned(), file.tensor(&stored)?);
            }
        }
        let digest = super::architecture_digest(&start);
        if digest != header.record.architecture {
            let reason = format!("expected weights of architecture {}, found {digest}", header.record.architecture);
            return Err(Error::file(path, reason));
        }
        Self::from_parts(mask, start, header.record)
    }
}
