//! What a file says about itself.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::Metadata;
use crate::{Error, Result};

/// The typed header of a safetensors file: which schema its `content` follows, and the content.
///
/// The format itself only knows a map of strings, so the file holds four of them:
///
/// | key | value |
/// |---|---|
/// | `format` | `pt`, which Python's loaders expect |
/// | `schema` | the name of what the file is, such as `lth.mask` |
/// | `version` | the schema's version, a decimal number |
/// | `header` | `content` as JSON |
///
/// In Python: `json.loads(safe_open(path, "pt").metadata()["header"])`.
#[derive(Debug, Clone, PartialEq)]
pub struct Header<T> {
    /// What the file is.
    pub schema: String,
    /// The schema's version; a reader refuses later ones than it knows.
    pub version: u32,
    /// The schema's own fields.
    pub content: T,
}

impl<T> Header<T> {
    /// A header to write.
    pub fn new(schema: impl Into<String>, version: u32, content: T) -> Self {
        Self { schema: schema.into(), version, content }
    }
}

impl<T: Serialize> Header<T> {
    /// As the string map that [`write_safetensors`](super::write_safetensors) takes.
    ///
    /// # Errors
    /// [`Error::Setting`] when `content` has no JSON form, such as a map whose keys are not strings.
    pub fn to_metadata(&self) -> Result<Metadata> {
        let json = serde_json::to_string(&self.content)
            .map_err(|error| Error::setting("header content", "something with a JSON form", error))?;
        Ok(Metadata::from_iter([
            ("format".to_owned(), "pt".to_owned()),
            ("schema".to_owned(), self.schema.clone()),
            ("version".to_owned(), self.version.to_string()),
            ("header".to_owned(), json),
        ]))
    }
}

impl<T: DeserializeOwned> Header<T> {
    /// Reads back what [`Header::to_metadata`] made. `path` is for the error's sake.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the file follows another schema, a later version than `newest`, or its content does
    /// not fit `T`.
    pub fn from_metadata(metadata: &Metadata, schema: &str, newest: u32, path: &Path) -> Result<Self> {
        // The map lies in the JSON header, which begins behind its eight-byte length.
        let refuse = |reason: String| Error::malformed(path, 8, reason);
        let field = |key: &str| {
            metadata.get(key).ok_or_else(|| refuse(format!("no `{key}` in its metadata; expected schema `{schema}`")))
        };
        let found = field("schema")?;
        if found != schema {
            return Err(refuse(format!("expected schema `{schema}`, found `{found}`")));
        }
        let version = field("version")?;
        let version = match version.parse::<u32>() {
            Ok(number) if number <= newest => number,
            _ => return Err(refuse(format!("expected `{schema}` of version {newest} or earlier, found `{version}`"))),
        };
        let content = serde_json::from_str(field("header")?)
            .map_err(|error| refuse(format!("its `{schema}` header does not fit: {error}")))?;
        Ok(Self { schema: schema.to_owned(), version, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Progress {
        epoch: u32,
        criterion: String,
        sparsity: f64,
    }

    fn header() -> Header<Progress> {
        Header::new("test.progress", 2, Progress { epoch: 3, criterion: "magnitude".into(), sparsity: 0.1 + 0.2 })
    }

    #[test]
    fn a_typed_header_survives_the_string_map_to_the_bit() {
        let metadata = header().to_metadata().unwrap();
        assert_eq!(metadata["version"], "2");
        assert_eq!(metadata["header"], r#"{"epoch":3,"criterion":"magnitude","sparsity":0.30000000000000004}"#);
        let back = Header::from_metadata(&metadata, "test.progress", 2, Path::new("f")).unwrap();
        assert_eq!(back, header());
    }

    #[test]
    fn another_schema_a_later_version_or_a_foreign_content_is_refused_by_name() {
        let metadata = header().to_metadata().unwrap();
        let refuse = |metadata: &Metadata, schema: &str, newest| {
            Header::<Progress>::from_metadata(metadata, schema, newest, Path::new("f")).unwrap_err().to_string()
        };
        assert!(refuse(&metadata, "test.mask", 2).contains("expected schema `test.mask`, found `test.progress`"));
        assert!(refuse(&metadata, "test.progress", 1).contains("of version 1 or earlier, found `2`"));
        assert!(refuse(&Metadata::new(), "test.progress", 2).contains("no `schema`"));
        let mut foreign = metadata;
        foreign["header"] = r#"{"epoch":"three"}"#.into();
        assert!(refuse(&foreign, "test.progress", 2).contains("does not fit"));
    }
}
