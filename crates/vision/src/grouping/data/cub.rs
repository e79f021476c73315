//! CUB-200-2011.

use super::super::Result;
use super::{ClassSplit, ImageList, list_error, read_list};
use std::collections::HashMap;
use std::path::Path;

const SET: &str = "CUB-200-2011";
const LAYOUT: &str = "CUB_200_2011/{images.txt, image_class_labels.txt, images/}, as in CUB_200_2011.tgz";

/// Reads the folder `CUB_200_2011` (Wah et al. 2011): `images.txt` and `image_class_labels.txt` name 11,788 birds of 200 kinds.
/// The first 100 kinds (5,864 images) are for training, the last 100 for testing, as metric learning splits them; the
/// published `train_test_split.txt` is of another task.
///
/// # Errors
/// A list or an image that is not there, a line that does not fit, an image without a class.
pub fn cub200(folder: &Path) -> Result<ClassSplit> {
    let classes_path = folder.join("image_class_labels.txt");
    let mut classes: HashMap<String, u32> = HashMap::new();
    for (number, line) in read_list(SET, &classes_path, LAYOUT)?.lines().enumerate() {
        let parsed = line.split_once(' ').and_then(|(id, class)| Some((id, class.trim().parse().ok()?)));
        let Some((id, class @ 1..=200)) = parsed else {
            return Err(list_error(
                &classes_path,
                number + 1,
                format!("expected `<image> <class 1–200>`, found `{line}`"),
            ));
        };
        classes.insert(id.to_owned(), class);
    }
    let images_path = folder.join("images.txt");
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (number, line) in read_list(SET, &images_path, LAYOUT)?.lines().enumerate() {
        let Some((id, file)) = line.split_once(' ') else {
            return Err(list_error(&images_path, number + 1, format!("expected `<image> <file>`, found `{line}`")));
        };
        let Some(&class) = classes.get(id) else {
            return Err(list_error(&images_path, number + 1, format!("image {id} has no class")));
        };
        let side = if class <= 100 { &mut train } else { &mut test };
        side.push((class, folder.join("images").join(file.trim())));
    }
    let side = |mut files: Vec<(u32, std::path::PathBuf)>| {
        files.sort_by_key(|(class, _)| *class);
        ImageList::new(files.into_iter().map(|(class, path)| (path, class.to_string())).collect(), SET)
    };
    Ok(ClassSplit { train: side(train)?, test: side(test)? })
}
