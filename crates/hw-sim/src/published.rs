//! Figures of the papers that these models are set beside, each with where it was read. Nothing here is computed.

/// One line of FracTrain's CIFAR tables (Fu et al., arXiv 2012.13113): a training run on the authors' simulator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingRun {
    /// `resnet38-cifar` or `resnet74-cifar`.
    pub network: &'static str,
    /// `CIFAR-10` or `CIFAR-100`.
    pub data: &'static str,
    /// SBM (8/8 bits) is the baseline; DFQ aims at 3 % of full-precision cost.
    pub method: &'static str,
    /// Top-1 accuracy, percent.
    pub accuracy: f64,
    /// Effective MACs of the run.
    pub effective_macs: f64,
    /// Energy, kJ.
    pub kilojoules: f64,
    /// Latency, minutes.
    pub minutes: f64,
}

const fn run(network: &'static str, data: &'static str, method: &'static str, figures: [f64; 4]) -> TrainingRun {
    let [accuracy, effective_macs, kilojoules, minutes] = figures;
    TrainingRun { network, data, method, accuracy, effective_macs, kilojoules, minutes }
}

/// Where [`FRACTRAIN`] was read.
pub const FRACTRAIN_SOURCE: &str =
    "result tables of arXiv 2012.13113, read off the pictures in repository RICE-EIC/FracTrain";

/// FracTrain against its best baseline.
pub const FRACTRAIN: [TrainingRun; 12] = [
    run("resnet38-cifar", "CIFAR-10", "SBM", [92.66, 1.18e14, 33.55, 310.47]),
    run("resnet38-cifar", "CIFAR-10", "DFQ", [92.49, 4.96e13, 23.97, 230.32]),
    run("resnet38-cifar", "CIFAR-10", "FracTrain", [92.54, 3.97e13, 22.93, 221.13]),
    run("resnet38-cifar", "CIFAR-100", "SBM", [69.78, 6.88e13, 19.55, 180.93]),
    run("resnet38-cifar", "CIFAR-100", "DFQ", [69.81, 3.23e13, 16.22, 155.91]),
    run("resnet38-cifar", "CIFAR-100", "FracTrain", [69.82, 2.66e13, 15.74, 151.87]),
    run("resnet74-cifar", "CIFAR-10", "SBM", [93.04, 2.62e14, 75.01, 692.29]),
    run("resnet74-cifar", "CIFAR-10", "DFQ", [93.09, 7.33e13, 35.88, 343.76]),
    run("resnet74-cifar", "CIFAR-10", "FracTrain", [92.97, 5.85e13, 33.40, 321.98]),
    run("resnet74-cifar", "CIFAR-100", "SBM", [71.01, 1.40e14, 40.08, 369.94]),
    run("resnet74-cifar", "CIFAR-100", "DFQ", [70.58, 6.72e13, 32.89, 315.11]),
    run("resnet74-cifar", "CIFAR-100", "FracTrain", [71.03, 5.46e13, 32.23, 310.67]),
];

/// What SmartExchange's accelerator saves over four others in energy and in time, each "up to".
pub const SMARTEXCHANGE: [f64; 2] = [6.7, 19.2];

/// Where [`SMARTEXCHANGE`] was read.
pub const SMARTEXCHANGE_SOURCE: &str = "abstract of arXiv 2005.03403";
