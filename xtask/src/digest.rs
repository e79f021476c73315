//! SHA-256 of files, as they lie or of what a `.gz` unpacks to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// SHA-256 of a file's bytes, in lower-case hexadecimal.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    hash(open(path)?).with_context(|| format!("cannot read {}", path.display()))
}

/// SHA-256 of a file's content: of the unpacked bytes when its name ends in `.gz`.
pub(crate) fn of_content(path: &Path) -> Result<String> {
    if path.extension().is_some_and(|extension| extension == "gz") {
        hash(MultiGzDecoder::new(open(path)?)).with_context(|| format!("{} is not a whole gzip file", path.display()))
    } else {
        of_file(path)
    }
}

/// Refuses a file whose bytes are not the expected ones; says which came instead.
pub(crate) fn expect_file(path: &Path, expected: &str) -> Result<()> {
    let found = of_file(path)?;
    if found != expected {
        bail!(
            "{} has the wrong checksum: expected SHA-256 {expected}, found {found} ({} bytes)",
            path.display(),
            path.metadata().map_or(0, |metadata| metadata.len()),
        );
    }
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(BufReader::with_capacity(1 << 18, file))
}

fn hash(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_same_content_has_one_digest_however_it_was_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("abc");
        std::fs::write(&plain, b"abc").unwrap();
        assert_eq!(of_file(&plain).unwrap(), ABC);
        for level in [0, 9] {
            let packed = folder.path().join(format!("abc{level}.gz"));
            let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::new(level));
            encoder.write_all(b"abc").unwrap();
            encoder.finish().unwrap();
            assert_eq!(of_content(&packed).unwrap(), ABC);
            assert_ne!(of_file(&packed).unwrap(), ABC);
        }
    }

    #[test]
    fn a_truncated_gzip_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.gz");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&[7; 4096]).unwrap();
        let bytes = encoder.finish().unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let error = of_content(&path).unwrap_err().to_string();
        assert!(error.contains("images.gz is not a whole gzip file"), "{error}");
    }

    #[test]
    fn a_wrong_checksum_names_file_expected_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wheel.whl");
        std::fs::write(&path, b"abc").unwrap();
        expect_file(&path, ABC).unwrap();
        let error = expect_file(&path, "00").unwrap_err().to_string();
        assert!(error.contains("wheel.whl") && error.contains("expected SHA-256 00") && error.contains(ABC));
    }
}
