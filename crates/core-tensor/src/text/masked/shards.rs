//! Inputs on disk, in files small enough to be held in memory one at a time.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{NextSentence, PretrainingInput};
use crate::checkpoint::{Header, SafetensorsFile, write_safetensors};
use crate::text::{Encoded, TextError};
use crate::{Error, Result};

const SCHEMA: &str = "core-tensor.pretraining-inputs";
const VERSION: u32 = 1;

/// What a shard says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Its number, from 0.
    shard: usize,
    /// How many shards there are.
    of: usize,
    /// Inputs in it.
    inputs: usize,
    /// Tokens of the vocabulary that the ids belong to.
    vocabulary: usize,
}

/// Writes inputs into files of `per_shard` each, `inputs-00000.safetensors` and so on, holding one shard at a time.
///
/// A shard holds `ids`, `lengths` (tokens of each input), `first` (of them in the first text) and `next` (0 follows, 1
/// random, −1 only one text), all `i32`.
///
/// # Errors
/// No input, `per_shard` of 0, an id that is not below `vocabulary`, types that are not zeros followed by ones (a shard
/// stores only how many are 0), or a file that cannot be written.
pub fn write_shards(
    folder: &Path,
    inputs: impl ExactSizeIterator<Item = PretrainingInput>,
    per_shard: usize,
    vocabulary: usize,
) -> Result<Shards> {
    if per_shard == 0 {
        return Err(Error::setting("per_shard", "at least 1", 0));
    }
    if inputs.len() == 0 {
        return Err(TextError::Empty { what: "the corpus".to_owned() }.into());
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let of = inputs.len().div_ceil(per_shard);
    let mut inputs = inputs.enumerate().peekable();
    let mut shard = 0;
    while inputs.peek().is_some() {
        let part: Vec<_> = inputs.by_ref().take(per_shard).collect();
        for (position, input) in &part {
            input.encoded.check(*position, vocabulary, usize::MAX)?;
            let types = &input.encoded.types;
            if !types.is_sorted() || types.last().is_some_and(|&last| last > 1) {
                let name = format!("types of input {position}");
                return Err(Error::tensor(name, "zeros, then ones", format!("{types:?}")));
            }
        }
        let part: Vec<_> = part.into_iter().map(|(_, input)| input).collect();
        let header = Header::new(SCHEMA, VERSION, Content { shard, of, inputs: part.len(), vocabulary });
        write_safetensors(&file(folder, shard), &tensors(&part), &header.to_metadata()?)?;
        shard += 1;
    }
    Shards::open(folder)
}

fn file(folder: &Path, shard: usize) -> PathBuf {
    folder.join(format!("inputs-{shard:05}.safetensors"))
}

fn tensors(inputs: &[PretrainingInput]) -> IndexMap<String, Tensor> {
    // Ids and lengths are far below 2³¹: a vocabulary has thousands of tokens, an input hundreds.
    let column = |of: &dyn Fn(&PretrainingInput) -> i32| Tensor::from_slice(&inputs.iter().map(of).collect::<Vec<_>>());
    let ids: Vec<_> = inputs.iter().flat_map(|input| &input.encoded.ids).map(|&id| id as i32).collect();
    IndexMap::from([
        ("ids".to_owned(), Tensor::from_slice(&ids)),
        ("lengths".to_owned(), column(&|input| input.encoded.len() as i32)),
        ("first".to_owned(), column(&|input| input.encoded.types.iter().filter(|&&kind| kind == 0).count() as i32)),
        (
            "next".to_owned(),
            column(&|input| match input.next {
                None => -1,
                Some(NextSentence::Follows) => 0,
                Some(NextSentence::Random) => 1,
            }),
        ),
    ])
}

/// The shards of a corpus, read one at a time.
#[derive(Debug, Clone)]
pub struct Shards {
    files: Vec<(PathBuf, Content)>,
}

impl Shards {
    /// Looks at the headers of what [`write_shards`] wrote.
    ///
    /// # Errors
    /// No shard, a missing one, one of another corpus, one whose columns are not as long as it says, or a file that is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let first = Self::content(&file(folder, 0))?;
        let mut files = Vec::new();
        for shard in 0..first.of.max(1) {
            let path = file(folder, shard);
            let content = Self::content(&path)?;
            if (content.shard, content.of, content.vocabulary) != (shard, first.of, first.vocabulary) {
                let expected = Content { shard, inputs: content.inputs, ..first };
                return Err(Error::malformed(&path, 8, format!("expected {expected:?}, found {content:?}")));
            }
            files.push((path, content));
        }
        Ok(Self { files })
    }

    fn content(path: &Path) -> Result<Content> {
        let file = SafetensorsFile::open(path)?;
        let content: Content = Header::from_metadata(file.metadata(), SCHEMA, VERSION, path)?.content;
        // An epoch's number of batches is made of these counts, before any column is read.
        for name in ["lengths", "first", "next"] {
            let shape = file.tensors().get(name).map(|column| column.shape.as_slice());
            if !matches!(shape, Some(&[length]) if usize::try_from(length) == Ok(content.inputs)) {
                let found = shape.map_or("none".to_owned(), |shape| format!("{shape:?}"));
                return Err(Error::malformed(
                    path,
                    8,
                    format!("`{name}`: expected [{}], found {found}", content.inputs),
                ));
            }
        }
        Ok(content)
    }

    /// Every `of`-th shard from `part` on, for processes that share the work. Positions count from 0 in each part: give each
    /// process's loader a seed of its own, or all hide the same places.
    ///
    /// # Errors
    /// `part` is not below `of`, or no shard is left for it.
    pub fn part(&self, part: usize, of: usize) -> Result<Self> {
        if part >= of || part >= self.files.len() {
            return Err(Error::setting("part", format!("below {}", of.min(self.files.len())), part));
        }
        Ok(Self { files: self.files.iter().skip(part).step_by(of).cloned().collect() })
    }

    /// Inputs of each shard.
    pub fn counts(&self) -> Vec<usize> {
        self.files.iter().map(|(_, content)| content.inputs).collect()
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.files[0].1.vocabulary
    }

    /// Reads the shard at a position of [`counts`](Self::counts).
    ///
    /// # Errors
    /// No such shard, a file that cannot be read, columns that contradict each other, or an id outside the vocabulary.
    pub fn read(&self, position: usize) -> Result<Vec<PretrainingInput>> {
        let Some((path, content)) = self.files.get(position) else {
            return Err(Error::setting("shard", format!("below {}", self.files.len()), position));
        };
        let mut stored = SafetensorsFile::open(path)?;
        let mut column = |name: &str| -> Result<Vec<i32>> {
            let tensor = stored.tensor(name)?;
            let (kind, size) = (tensor.kind(), tensor.size());
            if kind != Kind::Int || size.len() != 1 {
                return Err(Error::tensor(
                    format!("{name} of {}", path.display()),
                    "Int [n]",
                    format!("{kind:?} {size:?}"),
                ));
            }
            Ok(Vec::try_from(tensor)?)
        };
        let (ids, lengths, first, next) = (column("ids")?, column("lengths")?, column("first")?, column("next")?);
        let refuse = |reason: String| Error::malformed(path, 8, reason);
        if [lengths.len(), first.len(), next.len()] != [content.inputs; 3] {
            return Err(refuse(format!("expected {} inputs, found columns of other lengths", content.inputs)));
        }
        let (mut inputs, mut rest) = (Vec::with_capacity(content.inputs), ids.as_slice());
        for (number, ((&length, &first), &next)) in lengths.iter().zip(&first).zip(&next).enumerate() {
            let sizes = (usize::try_from(length), usize::try_from(first));
            let (Ok(length), Ok(first)) = sizes else {
                return Err(refuse(format!("input {number} has {length} tokens, {first} of them in the first text")));
            };
            if length > rest.len() || first > length {
                return Err(refuse(format!(
                    "input {number} has {length} tokens, {first} in the first text, {} are left",
                    rest.len()
                )));
            }
            let (own, after) = rest.split_at(length);
            rest = after;
            let id = |&id: &i32| u32::try_from(id).ok().filter(|id| (*id as usize) < content.vocabulary);
            let ids: Option<Vec<_>> = own.iter().map(id).collect();
            let ids = ids
                .ok_or_else(|| refuse(format!("input {number} has an id that is not below {}", content.vocabulary)))?;
            let next = match next {
                -1 => None,
                0 => Some(NextSentence::Follows),
                1 => Some(NextSentence::Random),
                other => return Err(refuse(format!("input {number}: expected -1, 0 or 1 as `next`, found {other}"))),
            };
            let types = (0..length).map(|position| u8::from(position >= first)).collect();
            inputs.push(PretrainingInput { encoded: Encoded { ids, types }, next });
        }
        if !rest.is_empty() {
            return Err(refuse(format!("{} ids belong to no input", rest.len())));
        }
        Ok(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(count: usize) -> Vec<PretrainingInput> {
        let input = |number: usize| {
            let second = number % 3;
            let ids: Vec<_> = (0..3 + second as u32).map(|id| 5 + (id + number as u32) % 7).collect();
            let types = (0..ids.len()).map(|position| u8::from(position >= 3)).collect();
            let next = [None, Some(NextSentence::Follows), Some(NextSentence::Random)][second];
            PretrainingInput { encoded: Encoded { ids, types }, next }
        };
        (0..count).map(input).collect()
    }

    #[test]
    fn inputs_survive_their_shards_and_can_be_shared_out() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_shards(folder.path(), inputs(11).into_iter(), 3, 12).unwrap();
        assert_eq!((written.counts(), written.vocabulary()), (vec![3, 3, 3, 2], 12));
        let read: Vec<_> = (0..4).flat_map(|shard| written.read(shard).unwrap()).collect();
        assert_eq!(read, inputs(11));
        assert_eq!(written.part(1, 3).unwrap().read(0).unwrap(), inputs(11)[3..6]);
        assert_eq!(written.part(0, 3).unwrap().counts(), [3, 2]);
        assert_eq!(written.part(3, 3).unwrap_err().to_string(), "part is 3, expected below 3");
    }

    #[test]
    fn missing_foreign_and_broken_shards_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path(), inputs(6).into_iter(), 2, 12).unwrap();
        std::fs::copy(file(folder.path(), 0), file(folder.path(), 1)).unwrap();
        let error = Shards::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("expected Content { shard: 1") && error.contains("found Content { shard: 0"), "{error}");
        std::fs::remove_file(file(folder.path(), 1)).unwrap();
        assert!(matches!(Shards::open(folder.path()), Err(Error::Io { path, .. }) if path == file(folder.path(), 1)));

        let broken = |change: &dyn Fn(&mut IndexMap<String, Tensor>)| {
            let mut columns = tensors(&inputs(2));
            change(&mut columns);
            let header = Header::new(SCHEMA, VERSION, Content { shard: 0, of: 1, inputs: 2, vocabulary: 12 });
            write_safetensors(&file(folder.path(), 0), &columns, &header.to_metadata().unwrap()).unwrap();
            Shards::open(folder.path()).and_then(|shards| shards.read(0)).unwrap_err().to_string()
        };
        let set = |name: &'static str, values: &'static [i32]| {
            move |columns: &mut IndexMap<String, Tensor>| {
                drop(columns.insert(name.to_owned(), Tensor::from_slice(values)))
            }
        };
        assert!(broken(&set("lengths", &[3])).contains("`lengths`: expected [2], found [1]"));
        assert!(broken(&|columns| drop(columns.shift_remove("next"))).contains("`next`: expected [2], found none"));
        assert!(broken(&set("lengths", &[3, 9])).contains("input 1 has 9 tokens, 3 in the first text, 4 are left"));
        assert!(broken(&set("lengths", &[3, -1])).contains("input 1 has -1 tokens"));
        assert!(broken(&set("lengths", &[3, 3])).contains("1 ids belong to no input"));
        assert!(broken(&set("ids", &[1, 2, 3, 4, 5, 6, 12])).contains("input 1 has an id that is not below 12"));
        assert!(broken(&set("next", &[-1, 2])).contains("found 2"));

        // A count that promises an epoch's batches is not believed, and neither is a file that changes after it was opened.
        write_shards(folder.path(), inputs(2).into_iter(), 2, 12).unwrap();
        let opened = Shards::open(folder.path()).unwrap();
        let header = Header::new(SCHEMA, VERSION, Content { shard: 0, of: 1, inputs: 9, vocabulary: 12 });
        write_safetensors(&file(folder.path(), 0), &tensors(&inputs(3)), &header.to_metadata().unwrap()).unwrap();
        let error = Shards::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`lengths`: expected [9], found [3]"), "{error}");
        assert!(opened.read(0).unwrap_err().to_string().contains("columns of other lengths"));
    }

    #[test]
    fn inputs_outside_the_vocabulary_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_shards(folder.path(), inputs(4).into_iter(), 2, 10).unwrap_err().to_string();
        assert_eq!(error, "sequence 2: token id 10, but the embedding has 10 rows");
        for types in [vec![0, 1, 0], vec![0, 0, 2]] {
            let mut input = inputs(1);
            input[0].encoded.types = types;
            let error = write_shards(folder.path(), input.into_iter(), 2, 12).unwrap_err().to_string();
            assert!(error.starts_with("`types of input 0`: expected zeros, then ones"), "{error}");
        }
        assert!(write_shards(folder.path(), inputs(0).into_iter(), 2, 10).is_err());
        assert!(write_shards(folder.path(), inputs(1).into_iter(), 0, 10).is_err());
    }
}
