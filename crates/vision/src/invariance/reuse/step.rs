//! One step of a network: what it is, what it costs, and how it is done on maps and on tables.

use super::axis::{self, Axis};
use super::table::Table;
use super::winograd::{Axes, MapAxes, Winograd};
use crate::invariance::{Error, Result};
use tch::Tensor;

/// One step of a convolutional network in evaluation mode.
#[derive(Debug)]
pub enum Step {
    /// A convolution without groups, `[outputs, inputs, side, side]`, zero padding.
    Conv {
        /// The weight.
        weight: Tensor,
        /// `[outputs]`.
        bias: Option<Tensor>,
        /// Stride in both directions.
        stride: usize,
        /// Zeros on each side.
        padding: usize,
    },
    /// Negative values become 0.
    Relu,
    /// The largest value of a square window.
    MaxPool {
        /// Side of the window.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Padding on each side.
        padding: usize,
    },
    /// The sum of two branches; an empty one is the identity.
    Sum {
        /// One branch.
        branch: Vec<Step>,
        /// The other.
        shortcut: Vec<Step>,
    },
    /// Names the map at this point; its feature is the mean over all places.
    Tap(String),
}

impl Step {
    pub(super) fn check(&self, top: bool) -> Result<()> {
        let window = |kernel: usize, stride: usize, padding: usize| {
            let found = format!("window {kernel}, stride {stride}, padding {padding}");
            let fine = kernel > 0 && stride > 0 && padding < kernel;
            if fine {
                Ok(())
            } else {
                Err(Error::setting("step", "window and stride above 0, less padding than window", found))
            }
        };
        match self {
            Self::Conv { weight, bias, stride, padding } => {
                let size = weight.size();
                let &[outputs, _, height, width] = size.as_slice() else {
                    return Err(Error::shape("weight", "[outputs, inputs, side, side]", format!("{size:?}")));
                };
                if height != width || size.contains(&0) {
                    return Err(Error::shape("weight", "[outputs, inputs, side, side]", format!("{size:?}")));
                }
                if let Some(found) = bias.as_ref().map(Tensor::size).filter(|found| *found != [outputs]) {
                    return Err(Error::shape("bias", format!("[{outputs}]"), format!("{found:?}")));
                }
                window(height as usize, *stride, *padding)
            }
            Self::MaxPool { kernel, padding, .. } if 2 * padding > *kernel => {
                Err(Error::setting("padding of max pooling", format!("at most half of {kernel}"), padding))
            }
            Self::MaxPool { kernel, stride, padding } => window(*kernel, *stride, *padding),
            Self::Relu => Ok(()),
            Self::Sum { branch, shortcut } => branch.iter().chain(shortcut).try_for_each(|step| step.check(false)),
            Self::Tap(name) if !top => Err(Error::setting("tap", "outside sums", format!("`{name}`"))),
            Self::Tap(_) => Ok(()),
        }
    }

    /// The same step on the same tensors.
    pub(super) fn shared(&self) -> Self {
        let all = |steps: &[Self]| steps.iter().map(Self::shared).collect();
        match self {
            Self::Conv { weight, bias, stride, padding } => Self::Conv {
                weight: weight.shallow_clone(),
                bias: bias.as_ref().map(Tensor::shallow_clone),
                stride: *stride,
                padding: *padding,
            },
            Self::Relu => Self::Relu,
            Self::MaxPool { kernel, stride, padding } => {
                Self::MaxPool { kernel: *kernel, stride: *stride, padding: *padding }
            }
            Self::Sum { branch, shortcut } => Self::Sum { branch: all(branch), shortcut: all(shortcut) },
            Self::Tap(name) => Self::Tap(name.clone()),
        }
    }

    /// Channels of the map after a step that decides them.
    pub(super) fn outputs(&self) -> Option<i64> {
        match self {
            Self::Conv { weight, .. } => Some(weight.size()[0]),
            Self::Sum { branch, shortcut } => {
                let last = |steps: &[Self]| steps.iter().rev().find_map(Self::outputs);
                last(branch).or_else(|| last(shortcut))
            }
            _ => None,
        }
    }

    /// Window, stride and padding of a step that has them.
    pub(super) fn window(&self) -> Option<[usize; 3]> {
        match self {
            Self::Conv { weight, stride, padding, .. } => Some([weight.size()[2] as usize, *stride, *padding]),
            Self::MaxPool { kernel, stride, padding } => Some([*kernel, *stride, *padding]),
            _ => None,
        }
    }

    /// Moves the axes through this step and says what it costs.
    pub(super) fn count(&self, rows: &mut Axis, columns: &mut Axis, channels: &mut usize) -> Result<Cost> {
        if let Self::Sum { branch, shortcut } = self {
            let start = (rows.clone(), columns.clone(), *channels);
            let mut total = Cost::default();
            let mut ends = Vec::new();
            for side in [branch, shortcut] {
                let (mut rows, mut columns, mut channels) = start.clone();
                for step in side {
                    total = total.and(step.count(&mut rows, &mut columns, &mut channels)?);
                }
                ends.push((rows, columns, channels));
            }
            let [first, second] = [&ends[0], &ends[1]];
            let sizes = |end: &(Axis, Axis, usize)| [end.0.cells(), end.1.cells(), end.2];
            if sizes(first) != sizes(second) {
                let (expected, found) = (format!("{:?}", sizes(first)), format!("{:?}", sizes(second)));
                return Err(Error::shape("second branch of a sum (height, width, channels)", expected, found));
            }
            (*rows, *columns, *channels) = (first.0.joined(&second.0).0, first.1.joined(&second.1).0, first.2);
            total.largest = total.largest.max(axis::cell_count(rows, columns) * *channels);
            return Ok(total);
        }
        let Some([kernel, stride, padding]) = self.window() else { return Ok(Cost::default()) };
        let before = [rows.clone(), columns.clone()];
        *rows = rows.windows(kernel, stride, padding)?.0;
        *columns = columns.windows(kernel, stride, padding)?.0;
        let distinct = axis::cell_count(rows, columns);
        let Self::Conv { weight, .. } = self else {
            return Ok(Cost { largest: distinct * *channels, ..Cost::default() });
        };
        let [outputs, inputs] = [0, 1].map(|axis| weight.size()[axis] as usize);
        if inputs != *channels {
            return Err(Error::shape("weight", format!("{channels} inputs"), format!("{inputs}")));
        }
        *channels = outputs;
        let macs = self.taps();
        let plain = macs * (rows.cells() * columns.cells()) as f64;
        let quick = self.quick_macs(before.each_ref().map(Axis::cells)).unwrap_or(plain);
        let axes = Axes { from: before.each_ref(), to: [rows, columns] };
        let gathered = macs * distinct as f64;
        let [shared, effort] = self.tiled_macs(axes).map_or([gathered, gathered * GATHER], |tiled| [tiled; 2]);
        Ok(Cost { plain, quick, shared, effort, largest: distinct * outputs })
    }

    /// A step that is no sum. `owned`: whether the map may be overwritten.
    pub(super) fn on_map(&self, map: Tensor, owned: bool) -> Result<Tensor> {
        let both = |value: usize| [value as i64; 2];
        Ok(match self {
            Self::Conv { weight, bias, stride, padding } => {
                map.f_conv2d(weight, bias.as_ref(), both(*stride), both(*padding), [1, 1], 1)?
            }
            Self::Relu if owned => {
                let mut map = map;
                map.f_relu_()?
            }
            Self::Relu => map.f_relu()?,
            Self::MaxPool { kernel, stride, padding } => {
                map.f_max_pool2d(both(*kernel), both(*stride), both(*padding), [1, 1], false)?
            }
            Self::Tap(_) | Self::Sum { .. } => map,
        })
    }

    pub(super) fn on_table(&self, table: Table) -> Result<Table> {
        match self {
            Self::Conv { weight, bias, stride, padding } => {
                let tiled = table.convolved(|axes| {
                    self.tiled_macs(axes).map(|_| Winograd::new(weight, bias.as_ref(), axes)).transpose()
                })?;
                tiled.map_or_else(|| table.conv(weight, bias.as_ref(), *stride, *padding), Ok)
            }
            Self::Relu => table.relu(),
            Self::MaxPool { kernel, stride, padding } => table.max_pool(*kernel, *stride, *padding),
            Self::Sum { branch, shortcut } => {
                let run = |steps: &[Self]| {
                    // The first step of a branch must not overwrite what the other branch reads.
                    let start = table.shared_copy(matches!(steps.first(), Some(Self::Relu)))?;
                    steps.iter().try_fold(start, |table, step| step.on_table(table))
                };
                run(branch)?.sum(run(shortcut)?)
            }
            Self::Tap(_) => Ok(table),
        }
    }

    /// Multiply-accumulates by [`Winograd`], for steps that can be done so.
    fn winograd_macs(&self, axes: Axes) -> Option<f64> {
        let Self::Conv { weight, stride: 1, padding: 1, .. } = self else { return None };
        let &[outputs, inputs, 3, 3] = weight.size().as_slice() else { return None };
        Some(axes.macs([outputs, inputs].map(|count| count as usize)))
    }

    /// The same on a table, where that is less work than to gather windows.
    fn tiled_macs(&self, axes: Axes) -> Option<f64> {
        let gathered = self.taps() * axis::cell_count(axes.to[0], axes.to[1]) as f64;
        self.winograd_macs(axes).filter(|tiled| *tiled < gathered * GATHER)
    }

    /// The same on a map of this size, where those are fewer.
    pub(super) fn quick_macs(&self, side: [usize; 2]) -> Option<f64> {
        let plain = self.taps() * (side[0] * side[1]) as f64;
        self.winograd_macs(MapAxes::new(side).ok()?.axes()).filter(|quick| *quick < plain)
    }

    /// Values of a convolution's weight.
    fn taps(&self) -> f64 {
        if let Self::Conv { weight, .. } = self { weight.numel() as f64 } else { 0.0 }
    }

    /// Height and width of the map after this step; [`count`](Self::count) has refused those that shrink to nothing.
    pub(super) fn side_after(&self, side: [usize; 2]) -> [usize; 2] {
        if let Self::Sum { branch, .. } = self {
            return branch.iter().fold(side, |side, step| step.side_after(side));
        }
        let Some([kernel, stride, padding]) = self.window() else { return side };
        side.map(|cells| (cells + 2 * padding).saturating_sub(kernel) / stride + 1)
    }
}

/// Distinct cells cost more than cells of a map, because their windows are gathered: measured, 20 to 40 %.
const GATHER: f64 = 1.3;

/// What a step costs.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    /// Multiply-accumulates on one map.
    pub(super) plain: f64,
    /// The same the cheaper way.
    pub(super) quick: f64,
    /// On all distinct cells.
    pub(super) shared: f64,
    /// The same as time, in multiply-accumulates of a map.
    pub(super) effort: f64,
    /// Values of the largest table.
    pub(super) largest: usize,
}

impl Cost {
    fn and(self, other: Self) -> Self {
        Self {
            plain: self.plain + other.plain,
            quick: self.quick + other.quick,
            shared: self.shared + other.shared,
            effort: self.effort + other.effort,
            largest: self.largest.max(other.largest),
        }
    }
}
