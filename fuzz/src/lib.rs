//! What the fuzz targets share: files and folders to read from, formats whose lengths and checksums are mended so that an
//! input gets past them, and a bound on single allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;

use tempfile::TempDir;

/// The system's allocator, which ends the program where one request is so large that a length must have been believed
/// without the bytes to go with it: inputs have kilobytes.
struct Bounded;

/// Bytes of one allocation at most.
const MOST: usize = 1 << 28;

fn check(size: usize) {
    if size > MOST {
        eprintln!("one allocation of {size} bytes");
        std::process::abort();
    }
}

// SAFETY: every request goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// A folder that is gone when it is dropped, in memory where there is such a place.
pub struct Folder(TempDir);

impl Default for Folder {
    fn default() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        Self(tempfile::tempdir_in(place).expect("a temporary folder"))
    }
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// The folder itself.
    pub fn root(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Writes a file, and the folders on the way to it.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a folder");
        }
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

/// What stands between the parts of an input that has several; no UTF-8 contains it.
pub const SEPARATOR: u8 = 0xff;

/// An input in `N` parts at its first separators; what is missing is empty.
pub fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut rest = bytes.splitn(N, |&byte| byte == SEPARATOR);
    [(); N].map(|()| rest.next().unwrap_or_default())
}

/// A safetensors file of a header and data, `header ff data`, whose length prefix is right.
pub fn safetensors(input: &[u8]) -> Vec<u8> {
    let [header, data] = parts(input);
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// A forest's file, `header ff numbers`, whose lengths and checksum are right.
pub fn forest(input: &[u8]) -> Vec<u8> {
    let [header, numbers] = parts(input);
    let numbers = &numbers[..numbers.len() / 4 * 4];
    let mut file = b"dforest\0\x01\0\0\0".to_vec();
    file.extend((header.len() as u64).to_le_bytes());
    file.extend((numbers.len() as u64 / 4).to_le_bytes());
    file.extend(header);
    file.extend(numbers);
    let checksum = crc32fast::hash(&file);
    file.extend(checksum.to_le_bytes());
    file
}

/// An `.sdz` file with all its checksums made right, as far as its records reach.
pub fn sdz(input: &[u8]) -> Vec<u8> {
    let mut file = input.to_vec();
    let mut mend = |from: usize, to: usize| -> Option<u64> {
        let sum = crc32fast::hash(file.get(from..to)?);
        file.get_mut(to..to + 4)?.copy_from_slice(&sum.to_le_bytes());
        let length = file.get(from + 4..from + 12)?;
        Some(u64::from_le_bytes(length.try_into().ok()?))
    };
    let mut at = 12;
    let mut more = mend(0, 8).is_some();
    while more {
        let body = at + 16;
        let end = mend(at, at + 12).and_then(|length| body.checked_add(usize::try_from(length).ok()?));
        more = end.is_some_and(|end| end < input.len());
        if let Some(end) = end.filter(|_| more) {
            let _ = mend(body, end);
            at = end + 4;
        }
    }
    file
}

/// A PyTorch checkpoint around a pickle: storages `0` to `3` of 64 bytes each, nothing compressed.
pub fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let storages: Vec<u8> = (0..64).map(|byte| byte % 2).collect();
    let members = [("m/data.pkl", pickle), ("m/byteorder", b"little")];
    let data = ["m/data/0", "m/data/1", "m/data/2", "m/data/3"].map(|name| (name, &storages[..]));
    for (name, content) in members.into_iter().chain(data) {
        zip.start_file(name, stored).and_then(|()| Ok(zip.write_all(content)?)).expect("a zip in memory");
    }
    zip.finish().expect("a zip in memory").into_inner()
}
