//! One line of a topology: fields with their columns, and the layers that they make.

use super::{TopologyLayer, TopologyShape};
use crate::error::HwError;
use crate::systolic::NmRatio;

/// Layers that splitting may fill a topology with.
pub(super) const MAX_LAYERS: u64 = 1 << 18;
/// Bytes of the name of a layer that is split: every part carries it.
pub(super) const MAX_SPLIT_NAME: usize = 256;

/// Fields before the last comma.
pub(super) struct Line<'a> {
    file: &'a str,
    number: usize,
    /// 1-based column and text of each.
    fields: Vec<(usize, &'a str)>,
    length: usize,
}

impl<'a> Line<'a> {
    /// Cuts line `number` of `file`, counted from 1, into its fields; one without any is refused.
    pub(super) fn split(file: &'a str, number: usize, raw: &'a str) -> Result<Self, HwError> {
        let mut fields = Vec::new();
        let mut start = 0;
        for (comma, _) in raw.match_indices(',') {
            let field = &raw[start..comma];
            let lead = field.len() - field.trim_start().len();
            fields.push((start + lead + 1, field.trim()));
            start = comma + 1;
        }
        // Empty fields at the end (`1,,`) carry nothing.
        while fields.last().is_some_and(|&(_, field)| field.is_empty()) {
            fields.pop();
        }
        let line = Self { file, number, fields, length: raw.len() };
        if line.fields.is_empty() {
            return Err(line.error(1, "comma-separated fields expected".into()));
        }
        Ok(line)
    }

    fn error(&self, column: usize, message: String) -> HwError {
        HwError::Parse { file: self.file.into(), line: self.number, column, message }
    }

    fn size(&self, index: usize, what: &str) -> Result<u64, HwError> {
        let Some(&(column, text)) = self.fields.get(index) else {
            let message = format!("{what} is missing; every line ends with a comma, what follows it is dropped");
            return Err(self.error(self.length + 1, message));
        };
        text.parse()
            .ok()
            .filter(|&value: &u64| value > 0)
            .ok_or_else(|| self.error(column, format!("{what}: a positive integer expected, found `{text}`")))
    }

    fn sparsity(&self, index: usize) -> Result<Option<NmRatio>, HwError> {
        let Some(&(column, text)) = self.fields.get(index) else { return Ok(None) };
        let expected = || self.error(column, format!("a sparsity `n:m` with 1 ≤ n ≤ m expected, found `{text}`"));
        let (n, m) = text.split_once(':').ok_or_else(expected)?;
        let number = |part: &str| part.trim().parse::<u64>().map_err(|_| expected());
        let ratio = NmRatio { n: number(n)?, m: number(m)? };
        ratio.validate(self.fields[0].1).map_err(|_| expected())?;
        Ok((ratio.n != ratio.m).then_some(ratio))
    }

    /// The fields as `name, M, N, K`.
    pub(super) fn gemm(&self) -> Result<TopologyLayer, HwError> {
        let shape = TopologyShape::Gemm { m: self.size(1, "M")?, n: self.size(2, "N")?, k: self.size(3, "K")? };
        Ok(TopologyLayer { name: self.fields[0].1.to_owned(), shape, sparsity: self.sparsity(4)? })
    }

    /// The fields as a convolution, added to `layers`; a `DP` layer is one a channel.
    pub(super) fn conv(&self, layers: &mut Vec<TopologyLayer>) -> Result<(), HwError> {
        let input = [self.size(1, "ifmap height")?, self.size(2, "ifmap width")?];
        let kernel = [self.size(3, "filter height")?, self.size(4, "filter width")?];
        let (channels, filters) = (self.size(5, "channels")?, self.size(6, "filters")?);
        let stride = self.size(7, "stride")?;
        for (axis, what) in [(0, "filter height"), (1, "filter width")] {
            if kernel[axis] > input[axis] {
                let (column, _) = self.fields[3 + axis];
                let message = format!("{what} {} is larger than the input's {}", kernel[axis], input[axis]);
                return Err(self.error(column, message));
            }
        }
        let (name, sparsity) = (self.fields[0].1, self.sparsity(8)?);
        if name.contains("DP") {
            if channels.saturating_add(layers.len() as u64) > MAX_LAYERS {
                let (column, _) = self.fields[5];
                let before = layers.len();
                let message = format!("at most {MAX_LAYERS} layers in all, found {channels} channels after {before}");
                return Err(self.error(column, message));
            }
            if name.len() > MAX_SPLIT_NAME {
                let (column, _) = self.fields[0];
                let found = name.len();
                let message = format!("at most {MAX_SPLIT_NAME} bytes in the name of a `DP` layer, found {found}");
                return Err(self.error(column, message));
            }
            layers.extend((0..channels).map(|channel| TopologyLayer {
                name: format!("{name}Channel_{channel}"),
                shape: TopologyShape::Conv { input, kernel, channels: 1, filters, stride },
                sparsity,
            }));
        } else {
            let shape = TopologyShape::Conv { input, kernel, channels, filters, stride };
            layers.push(TopologyLayer { name: name.to_owned(), shape, sparsity });
        }
        Ok(())
    }
}
