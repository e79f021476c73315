//! FracTrain: precision that grows along training and adapts per input and layer.
