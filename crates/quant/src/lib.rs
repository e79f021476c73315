//! Precision as a resource: FracTrain and SmartDeal.
