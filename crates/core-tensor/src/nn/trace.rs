//! What a network computes, seen by running it once.

use super::Network;
use crate::workload::{Layer, Operator, Workload};
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

thread_local! {
    static RECORDING: RefCell<Option<Vec<Layer>>> = const { RefCell::new(None) };
}

/// Called by a layer in its forward pass: notes `name` and the operator if somebody on this thread is tracing.
///
/// Costs one thread-local look-up when nobody is; `operator` is then not called.
pub fn record(name: &str, operator: impl FnOnce() -> Operator) {
    RECORDING.with_borrow_mut(|layers| {
        if let Some(layers) = layers {
            layers.push(Layer::new(name, operator()));
        }
    });
}

/// The workload of whatever `forward` computes on this thread, in order. What a trace inside `forward` records is that
/// trace's alone.
///
/// ```
/// use core_tensor::nn::{record, trace};
/// use core_tensor::workload::Operator;
/// use tch::{Device, Kind, Tensor, nn, nn::Module};
/// let store = nn::VarStore::new(Device::Cpu);
/// let linear = nn::linear(store.root() / "fc", 784, 10, Default::default());
/// let image = Tensor::zeros([1, 784], (Kind::Float, Device::Cpu));
/// let net = trace("mine", || {
///     record("fc", || Operator::linear(784, 10));
///     let _ = linear.forward(&image);
/// })?;
/// assert_eq!(net.macs()?, 7840);
/// # Ok::<(), core_tensor::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) if libtorch refuses what `forward` does, or if nothing was [`record`]ed: plain tch
/// layers do not record themselves. A workload that does not validate.
pub fn trace(name: &str, forward: impl FnOnce()) -> crate::Result<Workload> {
    let layers = recorded(forward);
    of_layers(name, layers.ok_or_else(|| crate::Error::setting("sample", "sizes that the network accepts", "others"))?)
}

/// What `forward` records on this thread; nothing where it panics.
fn recorded(forward: impl FnOnce()) -> Option<Vec<Layer>> {
    /// Goes back to what was recorded around this, if anything, even if the forward pass panics.
    struct Around(Option<Vec<Layer>>);
    impl Drop for Around {
        fn drop(&mut self) {
            RECORDING.set(self.0.take());
        }
    }

    let around = Around(RECORDING.replace(Some(Vec::new())));
    // tch turns libtorch's exceptions into panics; here they mean that the sample does not fit. The guard gives gradients
    // back then too, which `tch::no_grad` does not.
    let forward = std::panic::AssertUnwindSafe(|| {
        let _no_gradients = tch::no_grad_guard();
        forward();
    });
    std::panic::catch_unwind(forward).ok()?;
    let layers = RECORDING.take().unwrap_or_default();
    drop(around);
    Some(layers)
}

fn of_layers(name: &str, layers: Vec<Layer>) -> crate::Result<Workload> {
    if layers.is_empty() {
        let expected = "at least 1: those of a `LayerFactory`, or that call `nn::record`";
        return Err(crate::Error::setting("layers that a forward pass records", expected, 0));
    }
    let workload = Workload::new(name, layers);
    workload.validate()?;
    Ok(workload)
}

/// The dense workload of one sample of shape `[channels, height, width]` (or `[features]`), found by running the network
/// on zeros in evaluation mode.
///
/// # Errors
/// An input too small for the network; a network of which no layer [`record`]s itself; a workload that does not validate.
pub fn trace_workload(name: &str, network: &dyn Network, sample: &[i64], device: Device) -> crate::Result<Workload> {
    let too_small = || crate::Error::setting("sample", "sizes that the network accepts", format!("{sample:?}"));
    if sample.iter().any(|size| *size < 1) {
        return Err(too_small());
    }
    let mut shape = vec![1];
    shape.extend_from_slice(sample);
    let zeros = Tensor::f_zeros(&shape, (Kind::Float, device))?;
    of_layers(name, recorded(|| drop(network.forward(&zeros, false))).ok_or_else(too_small)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_inside_another_leaves_it_its_layers() {
        let layer = |name: &'static str| record(name, || Operator::Linear { in_features: 2, out_features: 3, rows: 1 });
        let names = |workload: &Workload| workload.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>();
        let outer = trace("outer", || {
            layer("before");
            assert_eq!(names(&trace("inner", || layer("inside")).unwrap()), ["inside"]);
            layer("after");
        });
        assert_eq!(names(&outer.unwrap()), ["before", "after"]);
    }

    #[test]
    fn a_network_of_plain_layers_is_refused_and_not_taken_for_one_that_computes_nothing() {
        #[derive(Debug)]
        struct Plain;
        impl Network for Plain {
            fn forward_tapped(&self, input: &Tensor, _: bool, _: super::super::Tap) -> Tensor {
                input.matmul(&Tensor::ones([3, 2], (Kind::Float, Device::Cpu)))
            }

            fn features(&self, input: &Tensor, _: bool) -> Tensor {
                input.shallow_clone()
            }

            fn feature_size(&self) -> i64 {
                3
            }

            fn classifier(&self) -> &str {
                "none"
            }
        }
        let message = "layers that a forward pass records is 0, expected at least 1: those of a `LayerFactory`";
        let traced = trace_workload("plain", &Plain, &[3], Device::Cpu).unwrap_err();
        assert!(traced.to_string().contains(message), "{traced}");
        assert!(trace("nothing", || ()).unwrap_err().to_string().contains(message));
        // What does not fit is still said of the sample.
        let refused = trace_workload("plain", &Plain, &[4], Device::Cpu).unwrap_err().to_string();
        assert!(refused.contains("sizes that the network accepts"), "{refused}");
    }

    #[test]
    fn a_sample_that_does_not_fit_leaves_gradients_as_they_were() {
        let ones = || Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let refused = trace("network", || drop(ones().matmul(&ones())));
        assert!(refused.is_err());
        assert!((ones().set_requires_grad(true) * 2.0).requires_grad());
    }
}
