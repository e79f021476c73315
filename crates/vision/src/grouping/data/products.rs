//! Stanford Online Products.

use super::super::Result;
use super::{ClassSplit, ImageList, list_error, read_list};
use std::path::Path;

const SET: &str = "Stanford Online Products";
const LAYOUT: &str = "Stanford_Online_Products/{Ebay_train.txt, Ebay_test.txt, <category>_final/}";
const HEADER: &str = "image_id class_id super_class_id path";

/// Reads the folder `Stanford_Online_Products` (Oh Song et al. 2016): `Ebay_train.txt` lists 59,551 images of 11,318 products,
/// `Ebay_test.txt` 60,502 of 11,316 others.
///
/// # Errors
/// A list or an image that is not there, another header, a line that does not fit.
pub fn stanford_online_products(folder: &Path) -> Result<ClassSplit> {
    Ok(ClassSplit { train: side(folder, "Ebay_train.txt")?, test: side(folder, "Ebay_test.txt")? })
}

fn side(folder: &Path, name: &str) -> Result<ImageList> {
    let path = folder.join(name);
    let text = read_list(SET, &path, LAYOUT)?;
    let mut lines = text.lines().enumerate();
    let header = lines.next().map_or("", |(_, line)| line.trim());
    if header != HEADER {
        return Err(list_error(&path, 1, format!("expected `{HEADER}`, found `{header}`")));
    }
    let mut files = Vec::new();
    for (number, line) in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, class, _, file] = fields.as_slice() else {
            return Err(list_error(&path, number + 1, format!("expected four fields, found {}", fields.len())));
        };
        files.push((folder.join(file), class.to_owned()));
    }
    ImageList::new(files, SET)
}
