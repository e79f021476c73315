//! Writing a file record by record.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::bytes::put_u32;
use super::{DENSE, END, FileWriter, LAYER, SDZ_MAGIC, SDZ_VERSION, payload};
use crate::smartdeal::{IndexScheme, SdLayer, smallest_scheme};
use crate::{Error, Result};

/// Writes records to any stream. Nothing is valid before [`finish`](Self::finish).
#[derive(Debug)]
pub struct SdzWriter<W: Write> {
    stream: W,
    names: HashSet<String>,
    written: u64,
}

impl<W: Write> SdzWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// [`Error::Stream`] for a stream that refuses.
    pub fn new(mut stream: W) -> Result<Self> {
        let mut header = Vec::with_capacity(12);
        header.extend(SDZ_MAGIC);
        header.extend(SDZ_VERSION.to_le_bytes());
        header.extend([0; 2]);
        header.extend(crc32fast::hash(&header).to_le_bytes());
        stream.write_all(&header)?;
        Ok(Self { stream, names: HashSet::new(), written: header.len() as u64 })
    }

    /// Writes a compressed layer; without a scheme the cheapest for it.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that was written before or is longer than 65535 bytes, and for a scheme whose
    /// `run_bits` lie outside 1 to 16; [`Error::Shape`] for more than 2^31 coefficients or a dimension of 2^32 or more;
    /// [`Error::Stream`] for a stream that refuses.
    pub fn layer(&mut self, name: &str, layer: &SdLayer, scheme: Option<IndexScheme>) -> Result<()> {
        let scheme = match scheme {
            Some(scheme) => scheme,
            None => smallest_scheme(layer)?,
        };
        let body = payload::encode(layer, scheme, self.start(name)?)?;
        self.named(LAYER, name, &body)
    }

    /// Writes a dense tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] for values that do not fit the dimensions, more than 255 dimensions, or one of 2^32 or more;
    /// [`Error::Config`] for a name that was written before or is longer than 65535 bytes; [`Error::Stream`] for a
    /// stream that refuses.
    pub fn dense(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<()> {
        let expected: usize = dims.iter().product();
        if values.len() != expected || dims.len() > usize::from(u8::MAX) {
            return Err(Error::Shape {
                what: format!("tensor `{name}`"),
                expected: format!("{expected} values in at most 255 dimensions"),
                found: format!("{} values in {} dimensions", values.len(), dims.len()),
            });
        }
        let mut body = self.start(name)?;
        body.push(dims.len() as u8);
        for dim in dims {
            put_u32(&mut body, *dim, "a dimension")?;
        }
        body.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self.named(DENSE, name, &body)
    }

    /// Ends the file and gives the stream back.
    ///
    /// # Errors
    /// [`Error::Stream`] for a stream that refuses.
    pub fn finish(mut self) -> Result<W> {
        let count = (self.names.len() as u64).to_le_bytes();
        self.record(END, &count)?;
        self.stream.flush()?;
        Ok(self.stream)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// A body that begins with the record's name.
    fn start(&self, name: &str) -> Result<Vec<u8>> {
        let len = u16::try_from(name.len()).map_err(|_| Error::Config {
            name: "record name",
            expected: "at most 65535 bytes",
            found: format!("{} bytes", name.len()),
        })?;
        if self.names.contains(name) {
            return Err(Error::Config { name: "record name", expected: "a new name", found: name.into() });
        }
        let mut body = len.to_le_bytes().to_vec();
        body.extend(name.as_bytes());
        Ok(body)
    }

    /// Writes a record whose body is whole: one that was refused is not counted, and leaves its name free.
    fn named(&mut self, kind: u8, name: &str, body: &[u8]) -> Result<()> {
        self.names.insert(name.into());
        self.record(kind, body)
    }

    fn record(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let mut frame = [0; 16];
        frame[0] = kind;
        frame[4..12].copy_from_slice(&(body.len() as u64).to_le_bytes());
        let checksum = crc32fast::hash(&frame[..12]);
        frame[12..].copy_from_slice(&checksum.to_le_bytes());
        self.stream.write_all(&frame)?;
        self.stream.write_all(body)?;
        self.stream.write_all(&crc32fast::hash(body).to_le_bytes())?;
        self.written += (frame.len() + body.len() + 4) as u64;
        Ok(())
    }
}

/// A file that appears under its name only when it is whole: written beside it, synced, then renamed. Dropped
/// before [`finish`](Self::finish) it leaves nothing behind.
#[derive(Debug)]
pub struct SdzFile {
    writer: SdzWriter<FileWriter>,
    path: PathBuf,
}

impl SdzFile {
    /// Starts the file `path`; what is there stays until the new one is whole.
    ///
    /// # Errors
    /// [`Error::File`] for a folder that is not there or cannot be written to; [`Error::Stream`] for a header that
    /// cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let refuse = |source| Error::File { path: path.into(), source };
        let temporary = tempfile::Builder::new().prefix(".sdz-").tempfile_in(folder_of(path)).map_err(refuse)?;
        let writer = SdzWriter::new(BufWriter::with_capacity(1 << 20, temporary))?;
        Ok(Self { writer, path: path.into() })
    }

    /// The writer of its records.
    pub fn writer(&mut self) -> &mut SdzWriter<impl Write + use<>> {
        &mut self.writer
    }

    /// Ends, syncs and renames the file; returns its length in bytes.
    ///
    /// # Errors
    /// [`Error::Stream`] for bytes that cannot be written, on a full disk for instance; [`Error::File`] for a file that
    /// cannot be synced or renamed, or a folder that cannot be synced.
    pub fn finish(self) -> Result<u64> {
        let refuse = |source| Error::File { path: self.path.clone(), source };
        let buffered = self.writer.finish()?;
        let temporary = buffered.into_inner().map_err(|e| refuse(e.into_error()))?;
        temporary.as_file().sync_all().map_err(refuse)?;
        let length = temporary.as_file().metadata().map_err(refuse)?.len();
        temporary.persist(&self.path).map_err(|e| refuse(e.error))?;
        // The rename itself must survive a crash.
        #[cfg(unix)]
        File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all()).map_err(refuse)?;
        Ok(length)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
