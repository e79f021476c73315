//! From a user's columns to a tree's inputs: missing values, categories, scaling.

use ndarray::{Array2, ArrayView1, ArrayView2, CowArray, Ix2};
use serde::{Deserialize, Serialize};

use crate::error::{ForestError, Result};
use crate::params::{Missing, Scaling, SoftForestParams, require};

/// Learned at fitting, applied at prediction. Numeric columns become one input each (plus a missing-value indicator where
/// training had missing values), categorical ones become one 0/1 input per category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Encoder {
    columns: Vec<Column>,
    missing: Missing,
    /// Subtracted from each input before the gates see it. Travels with the numbers of a file, not with its header.
    #[serde(skip)]
    mean: Vec<f32>,
    /// Multiplied afterwards.
    #[serde(skip)]
    inverse_scale: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Column {
    Numeric { fill: f32, indicator: bool },
    Categorical { categories: Vec<f32> },
}

impl Encoder {
    pub(crate) fn fit(x: ArrayView2<f32>, params: &SoftForestParams) -> Result<Self> {
        if x.is_empty() {
            return Err(ForestError::Empty { what: "features", rows: x.nrows(), columns: x.ncols() });
        }
        for &column in &params.categorical {
            require(column < x.ncols(), "categorical", "column numbers below the number of columns", &column)?;
        }
        let mut columns = Vec::with_capacity(x.ncols());
        for (index, values) in x.columns().into_iter().enumerate() {
            columns.push(if params.categorical.contains(&index) {
                categories(values, index, params.missing)?
            } else {
                numeric(values, index, params.missing)?
            });
        }
        if columns.iter().all(|column| column.inputs() == 0) {
            let what = "inputs made of features, as no category is present";
            return Err(ForestError::Empty { what, rows: x.nrows(), columns: 0 });
        }
        let mut encoder = Self { columns, missing: params.missing, mean: Vec::new(), inverse_scale: Vec::new() };
        let expanded = encoder.expand(x)?;
        let rows = expanded.nrows() as f64;
        let numeric = encoder.is_numeric_input();
        for (values, is_numeric) in expanded.columns().into_iter().zip(numeric) {
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / rows;
            let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / rows;
            encoder.mean.push(if params.scaling == Scaling::None { 0.0 } else { mean as f32 });
            // Sums of equal `f32`s are exact in `f64`, so what does not vary has no variance at all.
            let inverse = (1.0 / variance.sqrt()) as f32;
            let scale = is_numeric && params.scaling == Scaling::Standardise && inverse.is_finite();
            encoder.inverse_scale.push(if scale { inverse } else { 1.0 });
        }
        Ok(encoder)
    }

    /// Columns that users give.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Inputs that gates see.
    pub(crate) fn inputs(&self) -> usize {
        self.mean.len()
    }

    /// Whether the user's columns are the inputs, so that nothing has to be copied before prediction.
    pub(crate) fn is_plain(&self) -> bool {
        self.missing == Missing::Reject && self.columns.iter().all(|c| matches!(c, Column::Numeric { .. }))
    }

    /// The user's column that each input comes from.
    pub(crate) fn source_columns(&self) -> Vec<usize> {
        let mut sources = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            sources.extend(std::iter::repeat_n(index, column.inputs()));
        }
        sources
    }

    pub(crate) fn mean(&self) -> &[f32] {
        &self.mean
    }

    pub(crate) fn inverse_scale(&self) -> &[f32] {
        &self.inverse_scale
    }

    /// Puts back what travelled outside the header. `None` when it does not fit the columns.
    pub(crate) fn with_scaling(mut self, mean: Vec<f32>, inverse_scale: Vec<f32>) -> Option<Self> {
        let inputs: usize = self.columns.iter().map(Column::inputs).sum();
        let finite = mean.iter().chain(&inverse_scale).all(|v| v.is_finite());
        if mean.len() != inputs || inverse_scale.len() != inputs || !finite {
            return None;
        }
        self.mean = mean;
        self.inverse_scale = inverse_scale;
        Some(self)
    }

    fn is_numeric_input(&self) -> Vec<bool> {
        let mut flags = Vec::new();
        for column in &self.columns {
            match column {
                Column::Numeric { indicator, .. } => {
                    flags.push(true);
                    flags.extend(indicator.then_some(false));
                }
                Column::Categorical { categories } => {
                    flags.extend(std::iter::repeat_n(false, categories.len()));
                }
            }
        }
        flags
    }

    /// Checks the user's columns and turns them into unscaled inputs; borrows when there is nothing to do.
    pub(crate) fn expand<'a>(&self, x: ArrayView2<'a, f32>) -> Result<CowArray<'a, f32, Ix2>> {
        if x.ncols() != self.width() {
            return Err(ForestError::Width { expected: self.width(), found: x.ncols() });
        }
        if x.nrows() == 0 {
            return Err(ForestError::Empty { what: "features", rows: 0, columns: x.ncols() });
        }
        if self.is_plain() {
            check_finite(x, "features")?;
            return Ok(x.into());
        }
        let inputs = self.columns.iter().map(Column::inputs).sum();
        let mut out = Array2::zeros((x.nrows(), inputs));
        for (row, (values, mut out)) in x.rows().into_iter().zip(out.rows_mut()).enumerate() {
            let mut at = 0;
            for (index, (column, &value)) in self.columns.iter().zip(values).enumerate() {
                let absent = value.is_nan() && self.missing == Missing::Indicate;
                if !absent && !value.is_finite() {
                    return Err(ForestError::NotFinite { what: "features", row, column: index, value });
                }
                match column {
                    Column::Numeric { fill, indicator } => {
                        out[at] = if absent { *fill } else { value };
                        if *indicator {
                            out[at + 1] = f32::from(u8::from(absent));
                        }
                    }
                    Column::Categorical { categories } if !absent => {
                        let Some(which) = categories.iter().position(|&c| c == value) else {
                            return Err(ForestError::Category { column: index, row, value, known: categories.len() });
                        };
                        out[at + which] = 1.0;
                    }
                    Column::Categorical { .. } => {}
                }
                at += column.inputs();
            }
        }
        Ok(out.into())
    }
}

impl Column {
    fn inputs(&self) -> usize {
        match self {
            Self::Numeric { indicator, .. } => 1 + usize::from(*indicator),
            Self::Categorical { categories } => categories.len(),
        }
    }
}

fn numeric(values: ArrayView1<f32>, column: usize, missing: Missing) -> Result<Column> {
    let mut sum = 0.0f64;
    let mut present = 0usize;
    for (row, &value) in values.iter().enumerate() {
        if value.is_nan() && missing == Missing::Indicate {
            continue;
        }
        if !value.is_finite() {
            return Err(ForestError::NotFinite { what: "features", row, column, value });
        }
        sum += f64::from(value);
        present += 1;
    }
    Ok(Column::Numeric { fill: (sum / present.max(1) as f64) as f32, indicator: present < values.len() })
}

fn categories(values: ArrayView1<f32>, column: usize, missing: Missing) -> Result<Column> {
    let mut categories: Vec<f32> = Vec::new();
    for (row, &value) in values.iter().enumerate() {
        if value.is_nan() && missing == Missing::Indicate {
            continue;
        }
        if !value.is_finite() {
            return Err(ForestError::NotFinite { what: "features", row, column, value });
        }
        if let Err(at) = categories.binary_search_by(|c| c.total_cmp(&value)) {
            categories.insert(at, value);
        }
    }
    Ok(Column::Categorical { categories })
}

/// The first NaN or infinity of a table as an error.
pub(crate) fn check_finite(x: ArrayView2<f32>, what: &'static str) -> Result<()> {
    for (row, values) in x.rows().into_iter().enumerate() {
        // x - x is 0 exactly for finite x, and NaN otherwise: a branch-free pass finds the row, a second one the column.
        let bad = match values.as_slice() {
            Some(slice) => crate::simd::any_not_finite(slice),
            None => values.iter().any(|v| !v.is_finite()),
        };
        if bad {
            for (column, &value) in values.iter().enumerate() {
                if !value.is_finite() {
                    return Err(ForestError::NotFinite { what, row, column, value });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// Columns of 1 and 3 and of 0 and 8 deviate by 1 and by 4 from their means; one that does not vary by nothing.
    #[test]
    fn columns_are_brought_to_mean_zero_and_deviation_one() -> Result<()> {
        let x = array![[1.0, 0.0, 5.0, 7.0], [3.0, 8.0, 5.0, 9.0]];
        let params = SoftForestParams::default().categorical(vec![3]);
        let encoder = Encoder::fit(x.view(), &params)?;
        assert_eq!(encoder.mean(), [2.0, 4.0, 5.0, 0.5, 0.5]);
        // The two inputs of a category are not scaled.
        assert_eq!(encoder.inverse_scale(), [1.0, 0.25, 1.0, 1.0, 1.0]);
        let centred = Encoder::fit(x.view(), &params.clone().scaling(Scaling::Centre))?;
        assert_eq!(centred.mean(), encoder.mean());
        assert_eq!(centred.inverse_scale(), [1.0; 5]);
        // However small the unit.
        let tiny = Encoder::fit((&x * 2f32.powi(-40)).view(), &params)?;
        assert_eq!(tiny.inverse_scale()[..3], [2f32.powi(40), 2f32.powi(38), 1.0]);
        let plain = Encoder::fit(x.view(), &params.scaling(Scaling::None))?;
        assert_eq!(plain.mean(), [0.0; 5]);
        assert_eq!(plain.inverse_scale(), [1.0; 5]);
        Ok(())
    }

    #[test]
    fn missing_values_become_the_mean_and_an_indicator() -> Result<()> {
        let x = array![[1.0, 5.0], [f32::NAN, 5.0], [3.0, 8.0]];
        let params = SoftForestParams::default().missing(Missing::Indicate).scaling(Scaling::None);
        let encoder = Encoder::fit(x.view(), &params)?;
        let expanded = encoder.expand(x.view())?;
        assert_eq!(expanded, array![[1.0, 0.0, 5.0], [2.0, 1.0, 5.0], [3.0, 0.0, 8.0]]);
        assert_eq!(encoder.source_columns(), [0, 0, 1]);
        Ok(())
    }

    #[test]
    fn categories_become_one_input_each_and_unknown_ones_are_refused() -> Result<()> {
        let x = array![[7.0, 0.1], [2.0, 0.2], [7.0, 0.3]];
        let params = SoftForestParams::default().categorical(vec![0]).scaling(Scaling::None);
        let encoder = Encoder::fit(x.view(), &params)?;
        assert_eq!(encoder.expand(x.view())?, array![[0.0, 1.0, 0.1], [1.0, 0.0, 0.2], [0.0, 1.0, 0.3]]);
        let other = array![[7.0, 0.0], [3.0, 0.0]];
        let unknown = encoder.expand(other.view());
        assert!(matches!(unknown, Err(ForestError::Category { column: 0, row: 1, known: 2, .. })));
        Ok(())
    }

    #[test]
    fn features_without_any_category_present_are_refused() {
        let x = Array2::from_elem((3, 2), f32::NAN);
        let params = SoftForestParams::default().missing(Missing::Indicate);
        for fraction in [0.5, 1.0] {
            let all = params.clone().categorical(vec![0, 1]).feature_fraction(fraction);
            let refused = all.fit(x.view(), ndarray::aview1(&[0, 1, 1]));
            assert!(matches!(refused, Err(ForestError::Empty { rows: 3, columns: 0, .. })));
        }
        // A number that is always missing still has its indicator.
        assert!(Encoder::fit(x.view(), &params.categorical(vec![0])).is_ok_and(|encoder| encoder.inputs() == 2));
    }

    #[test]
    fn bad_columns_are_refused_with_their_place() -> Result<()> {
        let params = SoftForestParams::default();
        for value in [f32::NAN, f32::INFINITY] {
            let refused = Encoder::fit(array![[1.0, 2.0], [3.0, value]].view(), &params);
            assert!(matches!(refused, Err(ForestError::NotFinite { row: 1, column: 1, .. })));
        }
        let encoder = Encoder::fit(array![[1.0, 2.0], [3.0, 4.0]].view(), &params)?;
        assert!(matches!(encoder.expand(array![[1.0]].view()), Err(ForestError::Width { expected: 2, found: 1 })));
        assert!(matches!(
            encoder.expand(array![[1.0, f32::NAN]].view()),
            Err(ForestError::NotFinite { row: 0, column: 1, .. })
        ));
        assert!(matches!(Encoder::fit(Array2::zeros((0, 3)).view(), &params), Err(ForestError::Empty { .. })));
        Ok(())
    }
}
