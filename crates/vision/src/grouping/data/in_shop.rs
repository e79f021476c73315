//! In-Shop Clothes Retrieval.

use super::super::Result;
use super::{ImageList, list_error, read_list};
use std::path::Path;

const SET: &str = "In-Shop Clothes Retrieval";
const LAYOUT: &str = "{Eval/list_eval_partition.txt, Img/img/} of DeepFashion's In-shop benchmark";
const COLUMNS: [&str; 3] = ["image_name", "item_id", "evaluation_status"];

/// The three parts of the benchmark. Labels of queries and gallery are numbered by their own order, so compare items by
/// [`query_items`](Self::query_items) and [`gallery_items`](Self::gallery_items).
#[derive(Debug)]
pub struct InShop {
    /// 25,882 images of 3,997 items.
    pub train: ImageList,
    /// 14,218 images of 3,985 others.
    pub query: ImageList,
    /// 12,612 images of the same 3,985.
    pub gallery: ImageList,
}

impl InShop {
    /// The item number of each query image, comparable with those of the gallery.
    pub fn query_items(&self) -> Vec<i64> {
        items(&self.query)
    }

    /// The item number of each gallery image.
    pub fn gallery_items(&self) -> Vec<i64> {
        items(&self.gallery)
    }
}

/// Items are called `id_00000001`: their number.
fn items(list: &ImageList) -> Vec<i64> {
    let number = |label: &i64| {
        let name = &list.classes()[*label as usize];
        // Checked when the list was read.
        name.trim_start_matches("id_").parse().unwrap_or(-1)
    };
    list.labels().iter().map(number).collect()
}

/// Reads the benchmark's folder (Liu et al. 2016): `Eval/list_eval_partition.txt` says of each image below `Img/` which item it
/// shows and whether it is for training, a query, or in the gallery. A folder with both directly in it will do as well.
///
/// # Errors
/// A list or an image that is not there, another header or number of images than the list says, a line that does not fit.
pub fn in_shop(folder: &Path) -> Result<InShop> {
    let nested = folder.join("Eval/list_eval_partition.txt");
    let path = if nested.is_file() { nested } else { folder.join("list_eval_partition.txt") };
    let images = if folder.join("Img").is_dir() { folder.join("Img") } else { folder.to_path_buf() };
    let text = read_list(SET, &path, LAYOUT)?;
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut head = text.lines().map(str::trim);
    let [count, header] = [0; 2].map(|_| head.next().unwrap_or_default());
    let reason = format!("expected the number of images, found `{count}`");
    let count: usize = count.parse().map_err(|_| list_error(&path, 1, reason))?;
    if !header.split_whitespace().eq(COLUMNS) {
        return Err(list_error(&path, 2, format!("expected `{}`, found `{header}`", COLUMNS.join(" "))));
    }
    for (number, line) in text.lines().enumerate().skip(2) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[file, item, status] = fields.as_slice() else {
            return Err(list_error(&path, number + 1, format!("expected three fields, found {}", fields.len())));
        };
        if item.strip_prefix("id_").is_none_or(|digits| digits.parse::<i64>().is_err()) {
            return Err(list_error(&path, number + 1, format!("expected an item such as id_00000001, found `{item}`")));
        }
        let part = match status {
            "train" => 0,
            "query" => 1,
            "gallery" => 2,
            other => {
                let reason = format!("expected train, query or gallery, found `{other}`");
                return Err(list_error(&path, number + 1, reason));
            }
        };
        parts[part].push((images.join(file), item.to_owned()));
    }
    let found: usize = parts.iter().map(Vec::len).sum();
    if found != count {
        return Err(list_error(&path, 1, format!("expected {count} images, found {found}")));
    }
    let [train, query, gallery] = parts.map(|files| ImageList::new(files, SET));
    Ok(InShop { train: train?, query: query?, gallery: gallery? })
}
