//! Whether a round's mask keeps as much as a search's settings leave.

use super::ImpConfig;
use crate::criterion::Criterion;
use crate::mask::{Mask, MaskSet};
use crate::selector::{Amount, EmptyLayer, Units};

/// Compares a round's mask, by its counts, with what the settings leave of the round before.
///
/// # Errors
/// In words, what the mask keeps too much or too little of.
pub(super) fn check(
    config: &ImpConfig,
    criterion: &dyn Criterion,
    before: &MaskSet,
    after: &MaskSet,
) -> Result<(), String> {
    let selector = &config.selector;
    if selector.empty_layer == EmptyLayer::Refuse
        && let Some((name, _)) = after.iter().find(|(_, mask)| mask.survivors() == 0)
    {
        return Err(format!("its mask keeps nothing of `{name}`"));
    }
    let pairs = before.pairs(after).map_err(|error| error.to_string())?;
    let (mut layers, mut kept) = (Vec::with_capacity(pairs.len()), 0);
    for (name, before, after) in pairs {
        let weights = before.weights();
        let divides = |unit: &usize| *unit > 0 && weights.is_multiple_of(*unit);
        let Some(unit) = criterion.unit(before.shape()).filter(divides) else { return Ok(()) };
        let layer = Units { all: weights / unit, alive: alive(before, unit) };
        let (found, least) = (alive(after, unit), layer.alive.min(selector.min_per_layer));
        if found < least {
            return Err(format!("its mask keeps {found} of `{name}`, expected at least {least}"));
        }
        kept += found;
        layers.push(layer);
    }
    let left: usize = layers.iter().map(|layer| layer.alive).sum();
    let dropped = selector.dropped(&layers, Amount::Rate(config.rate)).map_err(|error| error.to_string())?;
    let expected = left - dropped;
    if kept != expected {
        return Err(format!("its mask keeps {kept} of {left}, expected {expected} at a rate of {}", config.rate));
    }
    Ok(())
}

/// How many units of consecutive weights a mask keeps something of.
fn alive(mask: &Mask, unit: usize) -> usize {
    match unit {
        1 => mask.survivors(),
        _ => mask.bits().counts(unit).into_iter().filter(|kept| *kept > 0).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criterion::{FilterNorm, Magnitude};
    use crate::selector::Selector;
    use tch::Tensor;

    fn masks(a: &[u8], b: &[u8]) -> MaskSet {
        // Filters of two weights.
        let layer = |name: &str, bits: &[u8]| (name.to_owned(), Tensor::from_slice(bits).view([-1, 2]));
        MaskSet::from_tensors(&[layer("a", a), layer("b", b)]).unwrap()
    }

    fn refused(config: &ImpConfig, before: &MaskSet, after: &MaskSet) -> String {
        check(config, &Magnitude, before, after).unwrap_err()
    }

    #[test]
    fn a_mask_keeps_what_the_rate_leaves_of_the_round_before() {
        let before = masks(&[1, 1, 1, 1, 1, 1], &[1, 1, 1, 0]);
        let after = masks(&[1, 1, 0, 1, 1, 1], &[1, 0, 1, 0]);
        // round(0.2 · 9) = 2.
        assert_eq!(check(&ImpConfig::default(), &Magnitude, &before, &after), Ok(()));
        let other = ImpConfig { rate: 0.5, ..ImpConfig::default() };
        assert_eq!(refused(&other, &before, &after), "its mask keeps 7 of 9, expected 5 at a rate of 0.5");
        assert_eq!(refused(&other, &before, &before), "its mask keeps 9 of 9, expected 5 at a rate of 0.5");
    }

    #[test]
    fn layer_by_layer_each_layer_counts_for_itself() {
        let before = masks(&[1, 1, 1, 1, 1, 1], &[1, 1, 1, 1]);
        // round(0.4 · 6) + round(0.4 · 4) = 2 + 2, of which a minimum of 3 spares one of `b`.
        let config = |min_per_layer| {
            let selector = Selector { min_per_layer, ..Selector::per_layer() };
            ImpConfig { rate: 0.4, selector, ..ImpConfig::default() }
        };
        let after = masks(&[1, 1, 1, 1, 0, 0], &[1, 1, 0, 0]);
        assert_eq!(check(&config(0), &Magnitude, &before, &after), Ok(()));
        assert_eq!(refused(&config(3), &before, &after), "its mask keeps 2 of `b`, expected at least 3");
        let spared = masks(&[1, 1, 1, 1, 0, 0], &[1, 1, 1, 0]);
        assert_eq!(check(&config(3), &Magnitude, &before, &spared), Ok(()));
        assert_eq!(refused(&config(0), &before, &spared), "its mask keeps 7 of 10, expected 6 at a rate of 0.4");
    }

    #[test]
    fn filters_are_counted_whole() {
        // A filter that lost a weight counts; one that lost both does not: 5, then 4.
        let before = masks(&[1, 0, 1, 1, 1, 1], &[1, 1, 0, 1]);
        let after = masks(&[1, 0, 0, 0, 1, 1], &[1, 1, 0, 1]);
        let filters = FilterNorm::default();
        assert_eq!(check(&ImpConfig::default(), &filters, &before, &after), Ok(()));
        let other = ImpConfig { rate: 0.4, ..ImpConfig::default() };
        let refused = check(&other, &filters, &before, &after).unwrap_err();
        assert_eq!(refused, "its mask keeps 4 of 5, expected 3 at a rate of 0.4");
    }

    #[test]
    fn an_emptied_layer_is_refused_unless_it_is_allowed() {
        let before = masks(&[1, 1, 1, 1, 1, 1], &[1, 1]);
        let after = masks(&[1, 1, 1, 1, 1, 1], &[0, 0]);
        let config = |empty_layer| {
            let selector = Selector { empty_layer, ..Selector::global() };
            ImpConfig { selector, rate: 0.25, ..ImpConfig::default() }
        };
        assert_eq!(refused(&config(EmptyLayer::Refuse), &before, &after), "its mask keeps nothing of `b`");
        assert_eq!(check(&config(EmptyLayer::Allow), &Magnitude, &before, &after), Ok(()));
    }
}
