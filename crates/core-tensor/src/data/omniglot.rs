//! Omniglot as IDX (Lake, Salakhutdinov and Tenenbaum, Science 350, 2015): characters of many alphabets, twenty drawers
//! each, with a table that says which is which.

use std::path::Path;

use super::{Dataset, ImageShape, read_idx};
use crate::{Error, Result};

/// Which of the two image files is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OmniglotSide {
    /// 105 × 105, as drawn.
    Full,
    /// 28 × 28, shrunk.
    Small,
}

/// Reads `images105-idx3-ubyte.gz` or `images28-idx3-ubyte.gz` and `labels.csv`. Classes are named `alphabet/character`,
/// so that [`Dataset::only_classes`] can keep some alphabets for training and others for testing.
///
/// # Errors
/// As [`read_idx`]; a table with another header, a row that does not fit it, rows out of order, a class number with two
/// names, or counts that disagree. The error names the file and where in it.
pub fn omniglot(folder: &Path, side: OmniglotSide) -> Result<Dataset> {
    let images = folder.join(match side {
        OmniglotSide::Full => "images105-idx3-ubyte.gz",
        OmniglotSide::Small => "images28-idx3-ubyte.gz",
    });
    let table = folder.join("labels.csv");
    let array = read_idx(&images)?;
    let &[n, height, width] = array.shape.as_slice() else {
        let reason = format!("expected 3 dimensions (images, rows, columns), found {}", array.shape.len());
        return Err(Error::malformed(&images, 3, reason));
    };
    let text = std::fs::read_to_string(&table).map_err(Error::io(&table, "read"))?;
    let Labels { labels, classes } = parse(&table, &text)?;
    if labels.len() != n {
        let reason = format!("expected {n} rows, one for each image in {}, found {}", images.display(), labels.len());
        return Err(Error::malformed(&table, text.len() as u64, reason));
    }
    Dataset::new(array.values, ImageShape::new(1, height, width), labels, classes, "Omniglot")
}

struct Labels {
    labels: Vec<i64>,
    classes: Vec<String>,
}

const HEADER: &str = "row,class,alphabet_id,alphabet,character,drawer,file";

/// Fields hold no commas and no quotes.
fn parse(path: &Path, text: &str) -> Result<Labels> {
    let mut offset = 0;
    let mut rows = text.split_inclusive('\n').map(|line| {
        let start = offset;
        offset += line.len() as u64;
        (start, line.trim_end())
    });
    let header = rows.next().map_or("", |(_, line)| line);
    if header != HEADER {
        return Err(Error::malformed(path, 0, format!("expected the header `{HEADER}`, found `{header}`")));
    }
    let mut labels = Vec::new();
    let mut classes: Vec<String> = Vec::new();
    for (row, (start, line)) in rows.enumerate() {
        let fields: Vec<_> = line.split(',').collect();
        let &[number, class, _, alphabet, character, _, _] = fields.as_slice() else {
            return Err(Error::malformed(path, start, format!("expected 7 fields, found {}", fields.len())));
        };
        if number.parse() != Ok(row) {
            return Err(Error::malformed(path, start, format!("expected row {row}, found `{number}`")));
        }
        let name = format!("{alphabet}/{character}");
        match class.parse::<usize>() {
            Ok(known) if classes.get(known) == Some(&name) => labels.push(known as i64),
            Ok(next) if next == classes.len() => {
                classes.push(name);
                labels.push(next as i64);
            }
            _ => {
                let known = class.parse().ok().and_then(|class: usize| classes.get(class));
                let reason = match known {
                    Some(known) => format!("class {class} is `{known}` above and `{name}` here"),
                    None => format!("expected a class up to {}, found `{class}`", classes.len()),
                };
                return Err(Error::malformed(path, start, reason));
            }
        }
    }
    Ok(Labels { labels, classes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "row,class,alphabet_id,alphabet,character,drawer,file\n\
        0,0,0,Balinese,character01,1,0108_01.png\n\
        1,1,0,Balinese,character02,1,0109_01.png\n\
        2,0,0,Balinese,character01,2,0108_02.png\n\
        3,2,5,Tagalog,character01,1,0900_01.png\n";

    fn refused(text: &str) -> (u64, String) {
        match parse(Path::new("labels.csv"), text) {
            Err(Error::Malformed { offset, reason, .. }) => (offset, reason),
            other => panic!("{:?}", other.map(|labels| labels.labels)),
        }
    }

    fn folder(images: u8, table: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let header = [0, 0, 8, 3, 0, 0, 0, images, 0, 0, 0, 1, 0, 0, 0, 2];
        let pixels: Vec<u8> = (0..2 * images).collect();
        // IDX is recognised by content, so the file need not be gzipped.
        std::fs::write(folder.path().join("images28-idx3-ubyte.gz"), [&header[..], &pixels].concat()).unwrap();
        std::fs::write(folder.path().join("labels.csv"), table).unwrap();
        folder
    }

    #[test]
    fn images_get_the_classes_of_the_table() {
        let set = omniglot(folder(4, TABLE).path(), OmniglotSide::Small).unwrap();
        assert_eq!(set.targets(), [0, 1, 0, 2]);
        assert_eq!(set.classes(), ["Balinese/character01", "Balinese/character02", "Tagalog/character01"]);
        let tagalog = set.only_classes(|name| name.starts_with("Tagalog/")).unwrap();
        assert_eq!((tagalog.targets(), tagalog.pixels()), (&[0][..], &[6, 7][..]));
    }

    #[test]
    fn counts_must_agree() {
        let error = omniglot(folder(5, TABLE).path(), OmniglotSide::Small).unwrap_err().to_string();
        assert!(error.contains("labels.csv") && error.contains("expected 5 rows"), "{error}");
        assert!(omniglot(folder(4, TABLE).path(), OmniglotSide::Full).is_err());
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused_where_it_does_not() {
        assert_eq!(refused("").0, 0);
        assert_eq!(refused("a,b\n").0, 0);
        // The header has 53 bytes with its line break, the first row 41.
        assert_eq!(refused(&TABLE.replace("1,1,0,Balinese,", "1,1,0,")), (94, "expected 7 fields, found 6".to_owned()));
        assert_eq!(refused(&TABLE.replace("\n1,1,", "\n7,1,")), (94, "expected row 1, found `7`".to_owned()));
        let (offset, reason) = refused(&TABLE.replace("\n1,1,", "\n1,0,"));
        assert_eq!(offset, 94);
        assert!(reason.contains("`Balinese/character01` above"), "{reason}");
        assert_eq!(refused(&TABLE.replace("\n1,1,", "\n1,9,")).1, "expected a class up to 1, found `9`");
        assert_eq!(refused(&TABLE.replace("\n1,1,", "\n1,-1,")).1, "expected a class up to 1, found `-1`");
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "\\PC{0,80}", rows in "[0-9,a-z\\n]{0,80}") {
            let _ = parse(Path::new("p"), &text);
            let _ = parse(Path::new("p"), &format!("{HEADER}\n{rows}"));
            let _ = parse(Path::new("p"), &format!("{HEADER}\n{text}"));
        }

        #[test]
        fn a_truncated_table_is_refused_or_shorter(length in 0..TABLE.len()) {
            match parse(Path::new("p"), &TABLE[..length]) {
                Ok(labels) => prop_assert!(labels.labels.len() <= 4),
                Err(error) => prop_assert!(error.to_string().contains("at byte"), "{}", error),
            }
        }
    }
}
