//! The interpreter of `data.pkl`.
//!
//! Objects live in an arena and are named by their index, as the memo needs: a list that was memoised while empty is
//! the same list after it was filled. What `STOP` leaves is then copied into a tree, within a budget, so that a list
//! that contains itself or doubles at every level is refused rather than unfolded.

use std::collections::HashMap;
use std::sync::Arc;

use super::globals::Global;
use super::tensor::StorageRef;
use super::{PickleLimits, TensorRef, Value};

/// Why the pickle is refused, and at which of its bytes.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) reason: String,
}

/// How many objects more than the pickle has bytes a tree may have.
const SHARED_OBJECTS: usize = 10_000;

type Step<T = ()> = Result<T, String>;

/// An object's place in the arena.
type Id = u32;

enum Node {
    /// None, a truth value, a number, a string or a tensor.
    Leaf(Value),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<StorageRef>),
}

/// Runs a pickle to its end.
pub(super) fn interpret(pickle: &[u8], limits: &PickleLimits) -> Result<Value, Fault> {
    let mut machine = Machine {
        pickle,
        position: 0,
        limits,
        arena: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        storages: HashMap::new(),
    };
    loop {
        let offset = machine.position as u64;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok(value),
            Err(reason) => return Err(Fault { offset, reason }),
        }
    }
}

struct Machine<'a> {
    pickle: &'a [u8],
    position: usize,
    limits: &'a PickleLimits,
    arena: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Every storage seen, so that two tensors cannot disagree about one.
    storages: HashMap<Arc<str>, StorageRef>,
}

impl<'a> Machine<'a> {
    /// One instruction; the value at the last.
    fn step(&mut self) -> Step<Option<Value>> {
        match self.byte()? {
            0x80 => self.protocol()?,
            0x95 => self.frame()?,
            b'.' => return self.stop().map(Some),
            b'(' => self.marks.push(self.stack.len()),

            b'N' => self.push_value(Value::None)?,
            0x88 => self.push_value(Value::Bool(true))?,
            0x89 => self.push_value(Value::Bool(false))?,
            b'K' => {
                let [byte] = self.bytes()?;
                self.push_value(Value::Int(byte.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.bytes()?);
                self.push_value(Value::Int(number.into()))?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.bytes()?);
                self.push_value(Value::Int(number.into()))?;
            }
            0x8a => self.long()?,
            b'G' => {
                let number = f64::from_be_bytes(self.bytes()?);
                self.push_value(Value::Float(number))?;
            }
            0x8c => {
                let [length] = self.bytes()?;
                self.text(length.into())?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.bytes()?);
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.bytes()?);
                self.text(length)?;
            }

            b')' => self.push(Node::Tuple(Box::default()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items.into()))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(items)?;
            }

            b'q' => {
                let [index] = self.bytes()?;
                self.memoise(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.bytes()?);
                self.memoise(index)?;
            }
            0x94 => self.memoise(self.memo.len() as u32)?,
            b'h' => {
                let [index] = self.bytes()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.bytes()?);
                self.recall(index)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.global(&module, &name)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            other => return Err(format!("instruction {other:#04x} is none that a tensor file needs")),
        }
        Ok(None)
    }

    fn protocol(&mut self) -> Step {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(format!("expected pickle protocol 2 to 5, found {other}")),
        }
    }

    fn frame(&mut self) -> Step {
        let length = u64::from_le_bytes(self.bytes()?);
        let left = (self.pickle.len() - self.position) as u64;
        if length > left { Err(format!("a frame of {length} bytes where {left} are left")) } else { Ok(()) }
    }

    fn long(&mut self) -> Step {
        let [length] = self.bytes()?;
        let digits = self.take(length.into())?;
        if digits.len() > 8 {
            return Err(format!("an integer of {length} bytes; at most 8 fit"));
        }
        let is_negative = digits.last().is_some_and(|top| top & 0x80 != 0);
        let mut extended = [if is_negative { 0xff } else { 0 }; 8];
        extended[..digits.len()].copy_from_slice(digits);
        self.push_value(Value::Int(i64::from_le_bytes(extended)))
    }

    fn text(&mut self, length: u64) -> Step {
        let text = std::str::from_utf8(self.take(length)?).map_err(|error| format!("a string: {error}"))?;
        let text = Value::Text(text.into());
        self.push_value(text)
    }

    fn tuple(&mut self, length: usize) -> Step {
        let start = self.stack.len().checked_sub(length).filter(|&start| start >= self.floor());
        let items = self.stack.split_off(start.ok_or("the stack is too short for a tuple")?);
        self.push(Node::Tuple(items.into()))
    }

    fn append(&mut self, items: Vec<Id>) -> Step {
        match self.top()? {
            Node::List(list) => list.extend(items),
            other => return Err(format!("expected a list to append to, found {}", other.describe())),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Step {
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        match self.top()? {
            Node::Dict(entries) => entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            other => return Err(format!("expected a dictionary to add to, found {}", other.describe())),
        }
        Ok(())
    }

    fn memoise(&mut self, index: u32) -> Step {
        let &id = self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(index, id);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Step {
        let &id = self.memo.get(&index).ok_or_else(|| format!("nothing was memoised as {index}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Step {
        let global = Global::find(module, name).ok_or_else(|| {
            format!(
                "refused `{}.{}`: only tensors, containers and plain values are read, and nothing is executed",
                printable(module),
                printable(name)
            )
        })?;
        self.push(Node::Global(global))
    }

    /// `callable(*arguments)`, for the callables there are.
    fn reduce(&mut self) -> Step {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let result = self.call(callable, arguments)?;
        self.push(result)
    }

    fn call(&self, callable: Id, arguments: Id) -> Step<Node> {
        let Node::Tuple(arguments) = self.node(arguments) else {
            return Err("a call whose arguments are no tuple".into());
        };
        let &Node::Global(global) = self.node(callable) else {
            return Err(format!("expected something to call, found {}", self.node(callable).describe()));
        };
        match (global, &**arguments) {
            (Global::OrderedDict, []) => Ok(Node::Dict(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, shape, strides, _requires_gradient, _hooks]) => {
                self.rebuild_tensor(storage, offset, shape, strides)
            }
            (Global::RebuildTensor, &[storage, offset, shape, strides, _requires_gradient, _hooks, metadata]) => {
                match self.node(metadata) {
                    Node::Leaf(Value::None) => {}
                    Node::Dict(entries) if entries.is_empty() => {}
                    _ => return Err("a tensor that is to be conjugated or negated".into()),
                }
                self.rebuild_tensor(storage, offset, shape, strides)
            }
            (Global::RebuildParameter, &[data, _requires_gradient, _hooks]) => match self.node(data) {
                Node::Leaf(Value::Tensor(tensor)) => Ok(Node::Leaf(Value::Tensor(tensor.clone()))),
                other => Err(format!("expected a parameter's tensor, found {}", other.describe())),
            },
            (global, arguments) => Err(format!("{global:?} called with {} arguments", arguments.len())),
        }
    }

    fn rebuild_tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Step<Node> {
        let Node::Storage(storage) = self.node(storage) else {
            return Err(format!("expected a tensor's storage, found {}", self.node(storage).describe()));
        };
        let (offset, shape, strides) = (self.int(offset)?, self.ints(shape)?, self.ints(strides)?);
        let tensor = TensorRef::new((**storage).clone(), offset, shape, strides, self.limits)?;
        Ok(Node::Leaf(Value::Tensor(tensor.into())))
    }

    /// `object.__setstate__(state)`: a state dict's `_metadata`, which only says module versions, is let go.
    fn build(&mut self) -> Step {
        let _state = self.pop()?;
        match self.top()? {
            Node::Dict(_) => Ok(()),
            other => Err(format!("expected a dictionary to set attributes of, found {}", other.describe())),
        }
    }

    /// `('storage', kind, key, location, elements)`.
    fn persistent(&mut self) -> Step {
        let id = self.pop()?;
        let malformed = || "expected ('storage', kind, key, location, elements)".to_owned();
        let Node::Tuple(fields) = self.node(id) else { return Err(malformed()) };
        let &[tag, kind, key, location, elements] = &**fields else { return Err(malformed()) };
        let (Node::Leaf(Value::Text(tag)), Node::Leaf(Value::Text(key)), Node::Leaf(Value::Text(_))) =
            (self.node(tag), self.node(key), self.node(location))
        else {
            return Err(malformed());
        };
        let (Node::Global(Global::Storage(kind)), "storage") = (self.node(kind), &**tag) else {
            return Err(malformed());
        };
        let elements = self.int(elements)?;
        if elements < 0 {
            return Err(format!("a storage of {elements} elements"));
        }
        let storage = StorageRef { key: key.clone(), kind: *kind, elements };
        let known = self.storages.entry(storage.key.clone()).or_insert_with(|| storage.clone());
        if *known != storage {
            return Err(format!(
                "storage `{}` is {} elements of {:?} here, {} of {:?} before",
                printable(&storage.key),
                storage.elements,
                storage.kind,
                known.elements,
                known.kind
            ));
        }
        self.push(Node::Storage(storage.into()))
    }

    fn stop(&mut self) -> Step<Value> {
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(format!("the pickle ends with {} objects too many", self.stack.len() + self.marks.len()));
        }
        // Each object takes at least a byte to write; more than that many come from unfolding shared containers. A
        // little of that is honest: optimizer groups share their settings.
        let mut budget = self.pickle.len().saturating_add(SHARED_OBJECTS);
        self.unfold(root, self.limits.depth, &mut budget)
    }

    /// Copies an object out of the arena.
    fn unfold(&self, id: Id, depth: usize, budget: &mut usize) -> Step<Value> {
        *budget = budget.checked_sub(1).ok_or("its containers share one another without end")?;
        if let Node::Leaf(value) = self.node(id) {
            return Ok(value.clone());
        }
        let depth = depth.checked_sub(1).ok_or_else(|| {
            format!("containers are nested more than {} deep, or one contains itself", self.limits.depth)
        })?;
        let mut inner = |id: Id| self.unfold(id, depth, budget);
        match self.node(id) {
            Node::Tuple(items) => Ok(Value::Tuple(items.iter().map(|&item| inner(item)).collect::<Step<_>>()?)),
            Node::List(items) => Ok(Value::List(items.iter().map(|&item| inner(item)).collect::<Step<_>>()?)),
            Node::Dict(entries) => {
                let entries = entries.iter().map(|&(key, value)| Ok((inner(key)?, inner(value)?)));
                Ok(Value::Dict(entries.collect::<Step<_>>()?))
            }
            other => Err(format!("expected a value, found {}", other.describe())),
        }
    }

    // Objects.

    fn push(&mut self, node: Node) -> Step {
        let id = Id::try_from(self.arena.len()).map_err(|_| "too many objects")?;
        self.arena.push(node);
        self.stack.push(id);
        Ok(())
    }

    fn push_value(&mut self, value: Value) -> Step {
        self.push(Node::Leaf(value))
    }

    /// The lowest height the stack may be popped to.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_text(&mut self) -> Step<Arc<str>> {
        let id = self.pop()?;
        match self.node(id) {
            Node::Leaf(Value::Text(text)) => Ok(text.clone()),
            other => Err(format!("expected a name, found {}", other.describe())),
        }
    }

    fn top(&mut self) -> Step<&mut Node> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        let &id = self.stack.last().ok_or("the stack is empty")?;
        Ok(&mut self.arena[id as usize])
    }

    fn node(&self, id: Id) -> &Node {
        &self.arena[id as usize]
    }

    fn int(&self, id: Id) -> Step<i64> {
        match self.node(id) {
            Node::Leaf(Value::Int(number)) => Ok(*number),
            other => Err(format!("expected an integer, found {}", other.describe())),
        }
    }

    fn ints(&self, id: Id) -> Step<Vec<i64>> {
        match self.node(id) {
            Node::Tuple(items) => items.iter().map(|&item| self.int(item)).collect(),
            other => Err(format!("expected a tuple of integers, found {}", other.describe())),
        }
    }

    // Bytes.

    fn byte(&mut self) -> Step<u8> {
        let [byte] = self.bytes()?;
        Ok(byte)
    }

    fn bytes<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("take gives as many as asked for"))
    }

    fn take(&mut self, length: u64) -> Step<&'a [u8]> {
        let rest = &self.pickle[self.position..];
        let bytes = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or_else(|| format!("the pickle ends {} bytes into something of {length} bytes", rest.len()))?;
        self.position += bytes.len();
        Ok(bytes)
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.pickle[self.position..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = std::str::from_utf8(&rest[..length]).map_err(|error| format!("a name: {error}"))?;
        self.position += length + 1;
        Ok(line.to_owned())
    }
}

impl Node {
    fn describe(&self) -> &'static str {
        match self {
            Self::Leaf(value) => value.describe(),
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a class or function",
            Self::Storage(_) => "a storage",
        }
    }
}

/// A name from the file, fit for a message.
fn printable(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}
