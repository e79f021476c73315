//! What a checkpoint holds, as plain data.

use std::fmt;
use std::sync::Arc;

use super::TensorRef;

/// Anything a checkpoint may hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A list.
    List(Vec<Value>),
    /// A `dict` or `OrderedDict`.
    Dict(Dict),
    /// A tensor or a parameter; [`PickleFile::tensor`](super::PickleFile::tensor) reads it.
    Tensor(Arc<TensorRef>),
}

/// A dictionary's entries in their order. A key that was set twice appears twice; [`Dict::get`] finds the later one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dict(Vec<(Value, Value)>);

impl Value {
    /// The entry of a dictionary under a text key; nothing when this is no dictionary.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Dict(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The float, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for an error.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Tensor(_) => "a tensor",
        }
    }

    /// A dictionary's first text keys, for an error.
    pub(super) fn text_keys(&self) -> Vec<&str> {
        match self {
            Self::Dict(entries) => entries.iter().filter_map(|(key, _)| key.as_text()).take(20).collect(),
            _ => Vec::new(),
        }
    }
}

/// A key, for an error: numbers and strings as they are, anything else by what it is.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Int(number) => write!(formatter, "{number}"),
            Self::Float(number) => write!(formatter, "{number}"),
            other => formatter.write_str(other.describe()),
        }
    }
}

impl Dict {
    /// The entry under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(candidate, _)| candidate.as_text() == Some(key)).map(|(_, value)| value)
    }

    /// The entry under an integer key, as optimizers number their parameters.
    pub fn get_index(&self, key: i64) -> Option<&Value> {
        self.0.iter().rev().find(|(candidate, _)| candidate.as_int() == Some(key)).map(|(_, value)| value)
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Value, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (Value, Value)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
