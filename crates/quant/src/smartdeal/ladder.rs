//! The ladder of signed powers of two that coefficients stand on.

use serde::{Deserialize, Serialize};

use super::decompose::Rungs;
use crate::{Error, Result};

/// Where a value goes that lies exactly half-way between two powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// To the smaller magnitude: 3 → 2. The published decomposition.
    Down,
    /// To the larger magnitude: 3 → 4. The published training code.
    Up,
}

/// The values `{0} ∪ {±2^p : p_min ≤ p ≤ p_max}` and the rule that rounds onto them.
///
/// A magnitude goes to the nearest power of two in linear distance (break point `0.75·2^hi`); above the window
/// it is clipped to `2^p_max`; where its nearest power lies below the window it becomes 0. The rule is idempotent.
///
/// ```
/// use quant::smartdeal::Ladder;
/// let ladder = Ladder::default();
/// assert_eq!([0.74, 0.75, 0.7501, 3.0, -6.1, 40.0].map(|v| ladder.project(v)), [0.5, 0.5, 1.0, 2.0, -8.0, 32.0]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ladder {
    /// Lowest exponent; the published decomposition has none (its threshold does that work), hence the default −63.
    pub p_min: i32,
    /// Highest exponent; the published decomposition clips at 32 = 2^5.
    pub p_max: i32,
    /// Where ties go.
    pub tie: Tie,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { p_min: -MAX_EXPONENT, p_max: 5, tie: Tie::Down }
    }
}

/// Exponents run from −63 to 63, so that a sign and an exponent fit one `i8` code.
pub const MAX_EXPONENT: i32 = 63;
const CODE_OFFSET: i32 = MAX_EXPONENT + 1;

const EXPONENT_FIELD: u64 = 0x7ff0_0000_0000_0000;
const SIGN_FIELD: u64 = 0x8000_0000_0000_0000;

impl Ladder {
    /// A ladder of the rungs `2^p_min … 2^p_max`, ties going down.
    pub fn new(p_min: i32, p_max: i32) -> Self {
        Self { p_min, p_max, tie: Tie::Down }
    }

    /// Refuses an empty window and exponents beyond ±63.
    ///
    /// # Errors
    /// [`Error::Config`], named `ladder`.
    pub fn validate(&self) -> Result<()> {
        if self.p_min < -MAX_EXPONENT || self.p_max > MAX_EXPONENT || self.p_min > self.p_max {
            return Err(Error::Config {
                name: "ladder",
                expected: "-63 ≤ p_min ≤ p_max ≤ 63",
                found: format!("p_min = {}, p_max = {}", self.p_min, self.p_max),
            });
        }
        Ok(())
    }

    /// How many distinct magnitudes the ladder has.
    pub fn rungs(&self) -> usize {
        (self.p_max - self.p_min + 1).max(0) as usize
    }

    /// The rung nearest to `value`, on a ladder that [`validate`](Self::validate) accepts. A NaN is near to none: what
    /// comes back is a rung all the same, so that callers look for NaNs first, as [`decompose`](super::decompose())
    /// does.
    #[inline(always)]
    pub fn project(&self, value: f64) -> f64 {
        let half = match self.tie {
            Tie::Down => HALF_DOWN,
            Tie::Up => HALF_UP,
        };
        let bits = value.to_bits();
        let magnitude = f64::from_bits(((bits & !SIGN_FIELD) + half) & EXPONENT_FIELD);
        let clipped = magnitude.min(exp2(self.p_max));
        let kept = if clipped < exp2(self.p_min) { 0.0 } else { clipped };
        f64::from_bits(kept.to_bits() | (if kept == 0.0 { 0 } else { bits & SIGN_FIELD }))
    }

    /// The rung nearest to `value`, as a code; all that [`project`](Self::project) says holds.
    #[inline]
    pub fn code(&self, value: f32) -> i8 {
        code_of_rung(self.project(f64::from(value)))
    }
}

impl Ladder {
    /// This ladder as the vectorised fit needs it.
    pub(super) fn rungs_of_lanes(&self) -> Rungs {
        let half = match self.tie {
            Tie::Down => HALF_DOWN,
            Tie::Up => HALF_UP,
        };
        Rungs { half: half as i64, lowest: exp2(self.p_min), highest: exp2(self.p_max) }
    }
}

/// Adding just under half an exponent step carries into the exponent exactly when the mantissa passes one half.
const HALF_DOWN: u64 = 0x0007_ffff_ffff_ffff;
/// The same when the mantissa reaches one half.
const HALF_UP: u64 = 0x0008_0000_0000_0000;

/// `2^p` for `-1022 ≤ p ≤ 1023`.
#[inline(always)]
fn exp2(p: i32) -> f64 {
    f64::from_bits(((p + 1023) as u64) << 52)
}

/// The code of a rung: 0 for zero, otherwise the sign times `p + 64`.
#[inline(always)]
pub(crate) fn code_of_rung(rung: f64) -> i8 {
    let exponent = ((rung.to_bits() & EXPONENT_FIELD) >> 52) as i32 - 1023;
    let code = if rung == 0.0 { 0 } else { exponent + CODE_OFFSET };
    (if rung < 0.0 { -code } else { code }) as i8
}

/// The code of `value`, or an error where it is no signed power of two within the ladder.
///
/// # Errors
/// [`Error::OffLadder`] for a value that is no rung, a NaN among them; [`Error::Config`] for a ladder that
/// [`Ladder::validate`] refuses.
pub fn encode_coefficient(value: f64, ladder: &Ladder) -> Result<i8> {
    ladder.validate()?;
    if ladder.project(value) != value {
        return Err(Error::OffLadder { value, p_min: ladder.p_min, p_max: ladder.p_max });
    }
    Ok(code_of_rung(value))
}

/// The value of a code: 0, or `±2^(|code| − 64)`.
#[inline(always)]
pub fn decode_coefficient(code: i8) -> f32 {
    let sign = (code as u8 as u32 & 0x80) << 24;
    let magnitude = u32::from(code.unsigned_abs());
    // f32 keeps exponents with a bias of 127, codes with a bias of 64.
    if magnitude == 0 { 0.0 } else { f32::from_bits(sign | ((magnitude + 127 - CODE_OFFSET as u32) << 23)) }
}

/// The exponent of a non-zero code.
#[inline]
pub(crate) fn exponent_of_code(code: i8) -> Option<i8> {
    (code != 0).then(|| (i32::from(code.unsigned_abs()) - CODE_OFFSET) as i8)
}

/// The code with the given sign and exponent.
#[inline]
pub(crate) fn code_of_exponent(exponent: i8, negative: bool) -> i8 {
    let code = (i32::from(exponent) + CODE_OFFSET) as i8;
    if negative { -code } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_down_in_the_decomposition() {
        let ladder = Ladder::default();
        let cases = [
            (0.74, 0.5),
            (0.75, 0.5),
            (0.7501, 1.0),
            (3.0, 2.0),
            (5.9, 4.0),
            (6.0, 4.0),
            (6.1, 8.0),
            (40.0, 32.0),
            (0.005, 2f64.powi(-8)),
            (0.0, 0.0),
        ];
        for (value, rung) in cases {
            assert_eq!(ladder.project(value), rung, "{value}");
            assert_eq!(ladder.project(-value), -rung, "-{value}");
        }
    }

    #[test]
    fn ties_go_up_in_training() {
        let ladder = Ladder { tie: Tie::Up, ..Ladder::default() };
        for (value, rung) in [(0.75, 1.0), (0.7499, 0.5), (3.0, 4.0), (6.0, 8.0)] {
            assert_eq!(ladder.project(value), rung, "{value}");
        }
    }

    #[test]
    fn an_empty_window_is_refused() {
        assert!(matches!(Ladder::new(3, 2).validate(), Err(Error::Config { name: "ladder", .. })));
        assert!(Ladder::new(-64, 0).validate().is_err());
        assert!(Ladder::new(0, 64).validate().is_err());
    }

    #[test]
    fn a_ladder_beyond_the_codes_encodes_nothing() {
        // 2^70 stands on it, but its code would be 134, which an `i8` reads as another number's.
        for (value, ladder) in
            [(2f64.powi(70), Ladder::new(0, 70)), (1.0, Ladder::new(0, 70)), (4.0, Ladder::new(3, 2))]
        {
            assert!(matches!(encode_coefficient(value, &ladder), Err(Error::Config { name: "ladder", .. })), "{value}");
        }
    }

    #[test]
    fn what_is_no_finite_number_has_a_rung_but_no_code() {
        for tie in [Tie::Down, Tie::Up] {
            let ladder = Ladder { tie, ..Ladder::default() };
            let rung = ladder.project(f64::NAN);
            assert_eq!(encode_coefficient(rung, &ladder).map(decode_coefficient).unwrap(), rung as f32);
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let refused = encode_coefficient(value, &ladder);
                assert!(matches!(refused, Err(Error::OffLadder { p_min: -63, p_max: 5, .. })), "{value}");
            }
        }
    }

    #[test]
    fn every_code_has_one_value() {
        for code in -127i8..=127 {
            let value = f64::from(decode_coefficient(code));
            assert_eq!(encode_coefficient(value, &Ladder::new(-63, 63)).unwrap(), code);
        }
    }

    proptest! {
        #[test]
        fn projection_is_idempotent_and_lands_on_the_window(
            value in prop_oneof![-100.0f64..100.0, -1e-3f64..1e-3, prop::num::f64::NORMAL],
            p_min in -20i32..0, span in 0i32..20, up in any::<bool>(),
        ) {
            let ladder = Ladder { p_min, p_max: p_min + span, tie: if up { Tie::Up } else { Tie::Down } };
            let rung = ladder.project(value);
            prop_assert_eq!(ladder.project(rung), rung);
            if rung != 0.0 {
                prop_assert_eq!(rung.signum(), value.signum());
                prop_assert_eq!(rung.to_bits() & 0x000f_ffff_ffff_ffff, 0, "mantissa must be empty");
                prop_assert!(rung.abs() >= 2f64.powi(ladder.p_min) && rung.abs() <= 2f64.powi(ladder.p_max));
            }
        }

        #[test]
        fn no_other_rung_is_nearer(value in -30.0f64..30.0) {
            let rung = Ladder::default().project(value);
            for other in [rung * 2.0, rung / 2.0] {
                prop_assert!((value - rung).abs() <= (value - other).abs());
            }
        }
    }
}
