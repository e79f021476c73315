//! The topology CSV: one header line, then a layer a line.
//!
//! `name, ifmap h, ifmap w, filter h, filter w, channels, filters, stride,` or, for matrix products, `name, M, N, K,`.
//! As in the tool, whatever follows a line's last comma is dropped, so the comma is required; a field `n:m` before it
//! is the layer's structured sparsity; and a convolution whose name contains `DP` is split into one layer a channel.

use core_tensor::workload::{Layer, Operator, Workload};
use serde::{Deserialize, Serialize};

use crate::error::HwError;
use crate::systolic::{NmRatio, Operands};

/// A network as SCALE-Sim describes it: no padding, batch 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// A name for reports.
    pub name: String,
    /// The layers, in order.
    pub layers: Vec<TopologyLayer>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyLayer {
    /// The first field.
    pub name: String,
    /// The sizes.
    pub shape: TopologyShape,
    /// The optional `n:m` field; `1:1` is dense.
    pub sparsity: Option<NmRatio>,
}

/// The sizes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TopologyShape {
    /// A convolution without padding whose partial last window counts.
    Conv {
        /// Input height and width.
        input: [u64; 2],
        /// Kernel height and width.
        kernel: [u64; 2],
        /// Input channels.
        channels: u64,
        /// Filters.
        filters: u64,
        /// Stride of both axes.
        stride: u64,
    },
    /// A matrix product `[m, k] × [k, n]`.
    Gemm {
        /// Rows of the input.
        m: u64,
        /// Columns of the weight.
        n: u64,
        /// The contracted size.
        k: u64,
    },
}

/// Which of the two line formats a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopologyKind {
    /// Eight fields a line.
    Conv,
    /// Four fields a line.
    Gemm,
}

impl TopologyKind {
    /// Reads it off the header: a matrix-product file has `M`, `N` and `K` for its second to fourth names, or at most six
    /// names in all.
    pub fn detect(text: &str) -> Self {
        let header = text.lines().next().unwrap_or_default();
        let names: Vec<_> = header.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let gemm =
            ["m", "n", "k"].iter().zip(names.iter().skip(1)).filter(|(size, name)| name.eq_ignore_ascii_case(size));
        if gemm.count() == 3 || (4..=6).contains(&names.len()) { Self::Gemm } else { Self::Conv }
    }
}

/// Layers that one `DP` line may expand into.
const MAX_DEPTHWISE: u64 = 1 << 16;

impl Topology {
    /// Reads a topology file's text; `file` names it in errors.
    ///
    /// # Errors
    /// Line and column of the first field that is missing, not a positive integer, or does not fit the others.
    pub fn parse(file: &str, text: &str, kind: TopologyKind) -> Result<Self, HwError> {
        let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
        let name = name.strip_suffix(".csv").unwrap_or(name).to_owned();
        let mut layers = Vec::new();
        for (index, raw) in text.lines().enumerate().skip(1) {
            if raw.trim().is_empty() {
                continue;
            }
            let line = Line::split(file, index + 1, raw)?;
            match kind {
                TopologyKind::Conv => line.conv(&mut layers)?,
                TopologyKind::Gemm => layers.push(line.gemm()?),
            }
        }
        if layers.is_empty() {
            let message = "no layers: a header line and one line a layer expected".into();
            return Err(HwError::Parse { file: file.into(), line: 1, column: 1, message });
        }
        Ok(Self { name, layers })
    }

    /// The file's text: convolution lines, a matrix product as a `1 × K` kernel on an `M × K` input.
    pub fn to_csv(&self) -> String {
        let mut text = String::from(
            "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n",
        );
        for layer in &self.layers {
            let Operands { input, kernel, channels, filters, stride, .. } = layer.operands();
            let sizes = [input[0], input[1], kernel[0], kernel[1], channels, filters, stride[0]];
            let sizes = sizes.map(|size| size.to_string()).join(", ");
            let sparsity = layer.sparsity.map_or_else(String::new, |ratio| format!(" {}:{},", ratio.n, ratio.m));
            // A comma would end the name, and `DP` would split the layer.
            let name = layer.name.replace(',', "_").replace("DP", "dp");
            text += &format!("{name}, {sizes},{sparsity}\n");
        }
        text
    }

    /// A workload as the tool would have it: padding is folded into the input, groups and matrix products become layers
    /// of their own, linear layers matrix products over the batch.
    ///
    /// # Errors
    /// A layer that does not validate, or that the format cannot say: dilated, or strided differently by axis.
    pub fn from_workload(workload: &Workload) -> Result<Self, HwError> {
        workload.validate()?;
        let mut layers = Vec::new();
        for layer in &workload.layers {
            let copies = |count: u64, shape: TopologyShape, layers: &mut Vec<TopologyLayer>| {
                if count.saturating_add(layers.len() as u64) > MAX_DEPTHWISE {
                    let thing = format!("layer `{}`", layer.name);
                    return Err(HwError::field(
                        thing,
                        "groups",
                        format!("at most {MAX_DEPTHWISE} layers in all"),
                        count,
                    ));
                }
                layers.extend((0..count).map(|copy| {
                    let name = if count > 1 { format!("{}.{copy}", layer.name) } else { layer.name.clone() };
                    TopologyLayer { name, shape, sparsity: None }
                }));
                Ok(())
            };
            let rows = |rows: u64| {
                rows.checked_mul(workload.batch)
                    .ok_or_else(|| HwError::Overflow { layer: layer.name.clone(), quantity: "rows" })
            };
            match layer.op {
                Operator::Conv2d { in_channels, out_channels, kernel, stride, dilation, groups, .. } => {
                    if dilation != [1, 1] || stride[0] != stride[1] {
                        let thing = format!("layer `{}`", layer.name);
                        let reason = "a topology file has one stride and no dilation".into();
                        return Err(HwError::Unsupported { thing, reason });
                    }
                    let outputs = layer.op.output_size();
                    let input = std::array::from_fn(|axis| {
                        (outputs[axis] - 1).saturating_mul(stride[axis]).saturating_add(kernel[axis])
                    });
                    let (channels, filters) = (in_channels / groups, out_channels / groups);
                    let shape = TopologyShape::Conv { input, kernel, channels, filters, stride: stride[0] };
                    copies(groups.saturating_mul(workload.batch), shape, &mut layers)?;
                }
                Operator::Linear { in_features, out_features, rows: count } => {
                    copies(1, TopologyShape::Gemm { m: rows(count)?, n: out_features, k: in_features }, &mut layers)?;
                }
                Operator::MatMul { m, n, k, count } => {
                    copies(rows(count)?, TopologyShape::Gemm { m, n, k }, &mut layers)?
                }
            }
        }
        Ok(Self { name: workload.name.clone(), layers })
    }

    /// The same layers for the other models: inputs are cropped or extended to exactly what the windows cover.
    pub fn to_workload(&self) -> Workload {
        let layers = self.layers.iter().map(TopologyLayer::to_layer).collect();
        Workload::new(self.name.clone(), layers)
    }
}

impl TopologyLayer {
    /// Output positions of each axis, counting a partial last window.
    pub fn outputs(&self) -> [u64; 2] {
        match self.shape {
            TopologyShape::Conv { input, kernel, stride, .. } => {
                let steps = |axis: usize| input[axis].saturating_sub(kernel[axis]).div_ceil(stride.max(1));
                std::array::from_fn(|axis| steps(axis).saturating_add(1))
            }
            TopologyShape::Gemm { m, .. } => [m, 1],
        }
    }

    /// The layer as addresses.
    pub fn operands(&self) -> Operands {
        match self.shape {
            TopologyShape::Conv { input, kernel, channels, filters, stride } => {
                Operands { input, kernel, channels, filters, stride: [stride; 2], sparsity: self.sparsity }
            }
            TopologyShape::Gemm { m, n, k } => Operands {
                input: [m, k],
                kernel: [1, k],
                channels: 1,
                filters: n,
                stride: [1; 2],
                sparsity: self.sparsity,
            },
        }
    }

    fn to_layer(&self) -> Layer {
        let outputs = self.outputs();
        let op = match self.shape {
            TopologyShape::Conv { kernel, channels, filters, stride, .. } => Operator::Conv2d {
                in_channels: channels,
                out_channels: filters,
                kernel,
                stride: [stride; 2],
                padding: [0; 2],
                dilation: [1; 2],
                groups: 1,
                input: std::array::from_fn(|axis| {
                    (outputs[axis] - 1).saturating_mul(stride).saturating_add(kernel[axis])
                }),
            },
            TopologyShape::Gemm { m, n, k } => Operator::Linear { in_features: k, out_features: n, rows: m },
        };
        let mut layer = Layer::new(self.name.clone(), op);
        for operand in [&mut layer.weight, &mut layer.activation, &mut layer.gradient] {
            operand.bits = 8; // a word of the tool is a byte
        }
        if let Some(ratio) = self.sparsity {
            layer.weight.density = ratio.n as f64 / ratio.m as f64;
        }
        layer
    }
}

struct Line<'a> {
    file: &'a str,
    number: usize,
    /// 1-based column and text of each field before the last comma.
    fields: Vec<(usize, &'a str)>,
    length: usize,
}

impl<'a> Line<'a> {
    fn split(file: &'a str, number: usize, raw: &'a str) -> Result<Self, HwError> {
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

    fn gemm(&self) -> Result<TopologyLayer, HwError> {
        let shape = TopologyShape::Gemm { m: self.size(1, "M")?, n: self.size(2, "N")?, k: self.size(3, "K")? };
        Ok(TopologyLayer { name: self.fields[0].1.to_owned(), shape, sparsity: self.sparsity(4)? })
    }

    fn conv(&self, layers: &mut Vec<TopologyLayer>) -> Result<(), HwError> {
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
            if channels > MAX_DEPTHWISE {
                let (column, _) = self.fields[5];
                return Err(self.error(column, format!("at most {MAX_DEPTHWISE} depthwise channels, found {channels}")));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONV: &str = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n\
        Conv1, 224,224,7,7,3,64,2,\n\nDP1,5,6,3,3,2,1,1, 2:4,\nFC,1,1,1,1,512,1000,1, a note\n";

    #[test]
    fn convolutions_depthwise_lines_and_notes_are_read_as_the_tool_does() {
        let net = Topology::parse("dir/net.csv", CONV, TopologyKind::detect(CONV)).unwrap();
        assert_eq!(net.name, "net");
        let names: Vec<_> = net.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["Conv1", "DP1Channel_0", "DP1Channel_1", "FC"]);
        assert_eq!(net.layers[0].outputs(), [110, 110]); // ⌈(224 − 7 + 2)/2⌉ = 110, the partial window included
        assert_eq!(net.layers[1].sparsity, Some(NmRatio { n: 2, m: 4 }));
        let workload = net.to_workload();
        workload.validate().unwrap();
        assert_eq!(workload.layers[0].op.output_size(), [110, 110]);
    }

    #[test]
    fn a_workload_becomes_a_topology_and_a_file_again() {
        let net = crate::networks::builtin("resnet50").unwrap();
        let topology = Topology::from_workload(&net).unwrap();
        assert_eq!(topology.layers.len(), 54);
        assert_eq!(topology.to_workload().macs().unwrap(), net.macs().unwrap());
        let again = Topology::parse("resnet50.csv", &topology.to_csv(), TopologyKind::Conv).unwrap();
        let macs = |net: &Topology| net.to_workload().macs().unwrap();
        assert_eq!(macs(&again), macs(&topology));
        let mobile = Topology::from_workload(&crate::networks::builtin("mobilenet_v2").unwrap()).unwrap();
        assert!(mobile.layers.len() > 5000, "a depthwise layer is one layer a channel");
        assert!(Topology::from_workload(&crate::networks::builtin("deeplab").unwrap()).is_err());
    }

    #[test]
    fn matrix_products_are_recognised() {
        let text = "Layer,M,N,K,\nq,128,1536,512,\ns,1,2,3,1:4,\n";
        let net = Topology::parse("g.csv", text, TopologyKind::detect(text)).unwrap();
        assert_eq!(net.layers[0].shape, TopologyShape::Gemm { m: 128, n: 1536, k: 512 });
        assert_eq!(net.layers[1].sparsity, Some(NmRatio { n: 1, m: 4 }));
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let refuse = |text: &str, kind, start: &str, needle: &str| {
            let message = Topology::parse("n.csv", text, kind).unwrap_err().to_string();
            assert!(message.starts_with(start) && message.contains(needle), "{message}");
        };
        let conv = TopologyKind::Conv;
        refuse("h\nc,5,5,3,3,2,4,1\n", conv, "n.csv:2:16:", "stride is missing");
        refuse("h\nc,5,-5,3,3,2,4,1,\n", conv, "n.csv:2:5:", "positive integer");
        refuse("h\nc,5,5,7,3,2,4,1,\n", conv, "n.csv:2:7:", "larger than the input");
        refuse("h\nc,5,5,3,3,2,4,0,\n", conv, "n.csv:2:15:", "stride");
        refuse("h\nc,5,5,3,3,2,4,1,5:4,\n", conv, "n.csv:2:17:", "n:m");
        refuse("h\ng,1,2,\n", TopologyKind::Gemm, "n.csv:2:7:", "K is missing");
        refuse("", conv, "n.csv:1:1:", "no layers");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), sizes in proptest::array::uniform7(any::<u64>())) {
            let noise = String::from_utf8_lossy(&bytes);
            let [a, b, c, d, e, f, g] = sizes;
            for text in [noise.to_string(), format!("h\nx,{a},{b},{c},{d},{e},{f},{g},\n"), format!("h\nx,{a},{b},{noise},\n")] {
                for kind in [TopologyKind::Conv, TopologyKind::Gemm, TopologyKind::detect(&text)] {
                    if let Ok(net) = Topology::parse("x", &text, kind) {
                        let _ = net.to_workload().validate();
                    }
                }
            }
        }
    }
}
