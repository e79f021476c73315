//! Cars-196.

use super::super::{Error, Result};
use super::{ClassSplit, ImageList, list_error, read_list};
use std::path::Path;

const SET: &str = "Cars-196";
const HEADER: &str = "relative_im_path,class";
const LAYOUT: &str = "cars_annos.csv (relative_im_path,class) beside car_ims/, or a folder for each of the 196 classes";

/// Reads Cars-196 (Krause et al. 2013): the first 98 classes (8,054 images) for training, the last 98 for testing.
///
/// The published annotations are a MATLAB file, which is not read here. Write its two columns out once, for example with
/// SciPy, as `cars_annos.csv`:
///
/// ```python
/// import scipy.io
/// rows = scipy.io.loadmat("cars_annos.mat")["annotations"][0]
/// lines = [f"{row['relative_im_path'][0]},{int(row['class'][0][0])}" for row in rows]
/// open("cars_annos.csv", "w").write("relative_im_path,class\n" + "\n".join(lines) + "\n")
/// ```
///
/// Without it, `folder` (or `folder/images`) must hold a folder for each class, in the order of the class numbers.
///
/// # Errors
/// Neither of both, an image that is not there, another header, a line that does not fit.
pub fn cars196(folder: &Path) -> Result<ClassSplit> {
    let table = folder.join("cars_annos.csv");
    let files = if table.is_file() { from_table(folder, &table)? } else { from_folders(folder)? };
    let last = files.iter().map(|(class, _)| *class).max().unwrap_or(0);
    if last != CLASSES {
        return Err(Error::shape("classes of Cars-196", CLASSES.to_string(), last.to_string()));
    }
    let side = |wanted: &dyn Fn(u32) -> bool| {
        let mut files: Vec<_> = files.iter().filter(|(class, _)| wanted(*class)).collect();
        files.sort_by_key(|(class, _)| *class);
        ImageList::new(files.into_iter().map(|(class, path)| (path.clone(), class.to_string())).collect(), SET)
    };
    Ok(ClassSplit { train: side(&|class| class <= CLASSES / 2)?, test: side(&|class| class > CLASSES / 2)? })
}

const CLASSES: u32 = 196;

type Files = Vec<(u32, std::path::PathBuf)>;

fn from_table(folder: &Path, path: &Path) -> Result<Files> {
    let text = read_list(SET, path, LAYOUT)?;
    let mut lines = text.lines().enumerate();
    // Without it the first line would be an image, and lost.
    let header = lines.next().map_or("", |(_, line)| line.trim());
    if header != HEADER {
        return Err(list_error(path, 1, format!("expected `{HEADER}`, found `{header}`")));
    }
    let mut files = Vec::new();
    for (number, line) in lines {
        let parsed = line.split_once(',').and_then(|(file, class)| Some((file, class.trim().parse().ok()?)));
        let Some((file, class @ 1..=CLASSES)) = parsed else {
            return Err(list_error(path, number + 1, format!("expected `<file>,<class 1–196>`, found `{line}`")));
        };
        files.push((class, folder.join(file)));
    }
    Ok(files)
}

fn from_folders(folder: &Path) -> Result<Files> {
    let inner = folder.join("images");
    let root = if inner.is_dir() { inner } else { folder.to_path_buf() };
    if !root.is_dir() {
        return Err(Error::DataMissing { set: SET, path: root, expected: LAYOUT });
    }
    let sorted = |path: &Path| -> Result<Vec<std::path::PathBuf>> {
        let listing = std::fs::read_dir(path).map_err(core_tensor::Error::io(path, "list"))?;
        let mut found = Vec::new();
        for entry in listing {
            found.push(entry.map_err(core_tensor::Error::io(path, "list"))?.path());
        }
        found.sort_unstable();
        Ok(found)
    };
    let classes: Vec<_> = sorted(&root)?.into_iter().filter(|path| path.is_dir()).collect();
    if classes.is_empty() {
        return Err(Error::DataMissing { set: SET, path: root, expected: LAYOUT });
    }
    let mut files = Vec::new();
    for (number, class) in classes.iter().enumerate() {
        files.extend(sorted(class)?.into_iter().filter(|path| path.is_file()).map(|path| (number as u32 + 1, path)));
    }
    Ok(files)
}
