//! The topology CSV: one header line, then a layer a line.
//!
//! `name, ifmap h, ifmap w, filter h, filter w, channels, filters, stride,` or, for matrix products, `name, M, N, K,`.
//! As in the tool, whatever follows a line's last comma is dropped, so the comma is required; a field `n:m` before it
//! is the layer's structured sparsity; and a convolution whose name contains `DP` is split into one layer a channel.

use core_tensor::workload::{Layer, Operator, Workload};
use serde::{Deserialize, Serialize};

use super::line::{Line, MAX_LAYERS, MAX_SPLIT_NAME};
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

impl Topology {
    /// Reads a topology file's text; `file` names it in errors.
    ///
    /// # Errors
    /// Line and column of the first field that is missing, not a positive integer, or does not fit the others; `DP` lines
    /// that make more than 2^18 layers in all, or whose name has more than 256 bytes.
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
            // A comma would end the name, a line break the layer, and `DP` would split it.
            let name = layer.name.replace([',', '\n', '\r'], "_").replace("DP", "dp");
            text += &format!("{name}, {sizes},{sparsity}\n");
        }
        text
    }

    /// A workload as the tool would have it: padding is folded into the input, groups and matrix products become layers
    /// of their own, linear layers matrix products over the batch.
    ///
    /// # Errors
    /// A layer that does not validate, or that the format cannot say: dilated, or strided differently by axis; groups that make
    /// more than 2^18 layers in all, or whose name has more than 256 bytes.
    pub fn from_workload(workload: &Workload) -> Result<Self, HwError> {
        workload.validate()?;
        let mut layers = Vec::new();
        for layer in &workload.layers {
            let copies = |count: u64, shape: TopologyShape, layers: &mut Vec<TopologyLayer>| {
                let fail = |field: &str, expected: String, found: u64| {
                    Err(HwError::field(format!("layer `{}`", layer.name), field, expected, found))
                };
                if count.saturating_add(layers.len() as u64) > MAX_LAYERS {
                    return fail("groups", format!("at most {MAX_LAYERS} layers in all"), count);
                }
                if count > 1 && layer.name.len() > MAX_SPLIT_NAME {
                    let expected = format!("at most {MAX_SPLIT_NAME} where it is split");
                    return fail("bytes of the name", expected, layer.name.len() as u64);
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

    #[test]
    fn what_splits_into_too_many_layers_or_names_is_refused() {
        let refused = |text: &str| Topology::parse("n.csv", text, TopologyKind::Conv).unwrap_err().to_string();
        let many = "n.csv:3:12: at most 262144 layers in all, found 262000 channels after 200";
        assert_eq!(refused("h\nDPa,3,3,1,1,200,1,1,\nDP,3,3,1,1,262000,1,1,\n"), many);
        let long = format!("h\n{}DP,3,3,1,1,2,1,1,\n", "x".repeat(255));
        assert_eq!(refused(&long), "n.csv:2:1: at most 256 bytes in the name of a `DP` layer, found 257");
        // The same of groups: 2^19 products, and two of a name of 257 bytes.
        let split = |name: String, count| {
            let op = Operator::MatMul { m: 2, n: 2, k: 2, count };
            let found = Topology::from_workload(&Workload::new("heads", vec![Layer::new(name, op)]));
            found.unwrap_err().to_string()
        };
        assert_eq!(split("h".into(), 1 << 19), "layer `h`: groups is 524288, expected at most 262144 layers in all");
        let message = split("h".repeat(257), 2);
        assert!(message.ends_with("bytes of the name is 257, expected at most 256 where it is split"), "{message}");
    }

    #[test]
    fn names_cannot_add_lines_to_a_file() {
        let layers = vec![Layer::new("a\nb,1,1,1,1,1,1,1,\r\nDP", Operator::linear(3, 2))];
        let text = Topology::from_workload(&Workload::new("n", layers)).unwrap().to_csv();
        let again = Topology::parse("n.csv", &text, TopologyKind::Conv).unwrap();
        assert_eq!(again.layers.len(), 1);
        assert_eq!(again.layers[0].name, "a_b_1_1_1_1_1_1_1___dp");
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
