//! The median, of which a comparison takes three: of a round's iterations, of the rounds, of the rounds' ratios.

/// The middle value, or the mean of the two in the middle; nothing of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

/// The lowest and the highest value; nothing of nothing.
pub(super) fn range(values: impl IntoIterator<Item = f64>) -> Option<[f64; 2]> {
    values.into_iter().fold(None, |range, value| match range {
        None => Some([value, value]),
        Some([low, high]) => Some([value.min(low), value.max(high)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median([5.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_range_spans_all_values() {
        assert_eq!(range([2.0, 1.0, 3.0]), Some([1.0, 3.0]));
        assert_eq!(range([]), None);
    }
}
