//! An exact sum of floating-point numbers.
//!
//! Every finite number is a multiple of 2^-1074. The sum of such multiples is a whole number of at
//! most 2,100 bits and the carries; it is kept as limbs of 32 bits, of which only those between the
//! lowest and the highest one that was ever used exist. A limb is kept in 64 bits with a sign, so
//! that carries wait for a while. Numbers that are not finite are counted.
//!
//! The bytes of a sum, part of stored state and of partial results; those of 0 are empty:
//!
//! | bytes | content |
//! | --- | --- |
//! | 0 | bit 0: the finite part is negative; bit 1: numbers that are not finite follow |
//! | … | the numbers of NaN, ∞ and −∞, as counts |
//! | … | the place of the lowest limb, as the length of bytes is written |
//! | … | the limbs of the absolute value, four bytes each, lowest first |

use crate::pipeline::Failure;
use crate::pipeline::cell::{damaged, put_count, put_length, take_byte, take_count, take_length};

const LIMB_BITS: usize = 32;
/// Limbs take so many additions before their carries have to be moved.
const ADDITIONS: u32 = 1 << 29;
/// Limbs above this place cannot occur: 2,098 bits of a number and 64 of carries.
const LIMBS: usize = 68;

const NEGATIVE: u8 = 1;
const SPECIAL: u8 = 2;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Exact {
    /// The place of the first limb.
    base: usize,
    limbs: Vec<i64>,
    /// Additions since carries were moved.
    additions: u32,
    special: Option<Box<Special>>,
}

/// Numbers that are not finite.
#[derive(Clone, Debug, Default)]
struct Special {
    nan: i64,
    positive: i64,
    negative: i64,
}

impl Exact {
    /// Adds a number, or takes it out.
    pub(super) fn add(&mut self, value: f64, is_delete: bool) {
        if !value.is_finite() {
            let special = self.special.get_or_insert_default();
            let count = match value {
                f64::INFINITY => &mut special.positive,
                f64::NEG_INFINITY => &mut special.negative,
                _ => &mut special.nan,
            };
            *count += if is_delete { -1 } else { 1 };
            return;
        }
        let bits = value.to_bits();
        let exponent = (bits >> 52) as usize & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, shift) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | 1 << 52, exponent - 1),
        };
        if mantissa == 0 {
            return;
        }
        let is_negative = value.is_sign_negative() != is_delete;
        self.add_bits(u128::from(mantissa) << (shift % LIMB_BITS), shift / LIMB_BITS, is_negative);
    }

    /// Adds a number of three limbs from a place on.
    fn add_bits(&mut self, bits: u128, place: usize, is_negative: bool) {
        self.reach(place, place + 3);
        let first = place - self.base;
        for (number, limb) in self.limbs[first..first + 3].iter_mut().enumerate() {
            let part = i64::from((bits >> (number * LIMB_BITS)) as u32);
            *limb += if is_negative { -part } else { part };
        }
        self.additions += 1;
        if self.additions == ADDITIONS {
            self.carry();
        }
    }

    /// Makes room for limbs.
    fn reach(&mut self, first: usize, end: usize) {
        if self.limbs.is_empty() {
            self.base = first;
        }
        if first < self.base {
            self.limbs.splice(0..0, std::iter::repeat_n(0, self.base - first));
            self.base = first;
        }
        if self.limbs.len() < end - self.base {
            self.limbs.resize(end - self.base, 0);
        }
    }

    /// Moves carries up. All limbs have 32 bits afterwards, and the highest one the sign.
    fn carry(&mut self) {
        self.additions = 0;
        let mut carry = 0;
        for limb in &mut self.limbs {
            let sum = *limb + carry;
            *limb = sum & i64::from(u32::MAX);
            carry = sum >> LIMB_BITS;
        }
        while carry != 0 && carry != -1 {
            self.limbs.push(carry & i64::from(u32::MAX));
            carry >>= LIMB_BITS;
        }
        match self.limbs.last_mut() {
            // A sum that is negative has the rest of its sign in the highest limb.
            Some(last) if carry == -1 => *last -= 1 << LIMB_BITS,
            _ => {}
        }
    }

    /// The sign, the place of the lowest limb and the limbs of the absolute value, without zeros at
    /// either end.
    fn magnitude(&self) -> (bool, usize, Vec<u32>) {
        let mut sum = self.clone();
        sum.carry();
        let is_negative = sum.limbs.last().is_some_and(|last| *last < 0);
        if is_negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.carry();
        }
        let limbs: Vec<u32> = sum.limbs.iter().map(|limb| *limb as u32).collect();
        let first = limbs.iter().position(|limb| *limb != 0).unwrap_or(limbs.len());
        let end = limbs.iter().rposition(|limb| *limb != 0).map_or(first, |last| last + 1);
        (is_negative, sum.base + first, limbs[first..end].to_vec())
    }

    /// Appends its bytes.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        let (is_negative, base, limbs) = self.magnitude();
        let special = self.special.filter(|special| (special.nan, special.positive, special.negative) != (0, 0, 0));
        if limbs.is_empty() && special.is_none() {
            return;
        }
        out.push(if is_negative { NEGATIVE } else { 0 } | if special.is_some() { SPECIAL } else { 0 });
        if let Some(special) = special {
            [special.nan, special.positive, special.negative].into_iter().for_each(|count| put_count(count, out));
        }
        put_length(base as u64, out);
        limbs.iter().for_each(|limb| out.extend_from_slice(&limb.to_le_bytes()));
    }

    /// Adds the sum with these bytes, which are its own.
    pub(super) fn merge(&mut self, input: &mut &[u8]) -> Result<(), Failure> {
        if input.is_empty() {
            return Ok(());
        }
        let flags = take_byte(input)?;
        if flags & SPECIAL != 0 {
            let special = self.special.get_or_insert_default();
            for count in [&mut special.nan, &mut special.positive, &mut special.negative] {
                *count += take_count(input)?;
            }
        }
        let base = usize::try_from(take_length(input)?).map_err(|_| damaged())?;
        let (limbs, []) = input.as_chunks::<4>() else { return Err(damaged()) };
        if base + limbs.len() > LIMBS {
            return Err(damaged());
        }
        for (number, limb) in limbs.iter().enumerate() {
            let limb = u32::from_le_bytes(*limb);
            self.add_bits(limb.into(), base + number, flags & NEGATIVE != 0);
        }
        Ok(())
    }

    /// The memory that it takes beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.limbs.capacity() * size_of::<i64>() + self.special.as_ref().map_or(0, |_| size_of::<Special>())
    }

    /// The sum as a double; `None` if it is out of range.
    pub(super) fn double(&self) -> Option<f64> {
        if let Some(value) = self.not_finite() {
            return Some(value);
        }
        let (is_negative, mantissa, shift) = self.round(53, 0);
        // A mantissa that was not shifted is the number itself, in the bits of a double.
        let bits = match shift {
            0 => mantissa,
            _ if shift + 1 >= 0x7ff => return None,
            _ => (shift as u64 + 1) << 52 | mantissa & ((1 << 52) - 1),
        };
        Some(f64::from_bits(bits | u64::from(is_negative) << 63))
    }

    /// The sum as a single; `None` if it is out of range.
    pub(super) fn single(&self) -> Option<f32> {
        if let Some(value) = self.not_finite() {
            return Some(value as f32);
        }
        // The least single is 2^-149.
        let (is_negative, mantissa, shift) = self.round(24, 1074 - 149);
        let power = i32::try_from(shift).ok()? - 1074;
        let value = (mantissa as f64 * 2_f64.powi(power)) as f32;
        value.is_finite().then_some(if is_negative { -value } else { value })
    }

    fn not_finite(&self) -> Option<f64> {
        let special = self.special.as_ref()?;
        match (special.nan, special.positive, special.negative) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(f64::INFINITY),
            (0, 0, _) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// The sign, a mantissa of at most so many bits, and the number of bits below it, which are
    /// rounded away; halves to even. At least `least` bits are below it.
    fn round(&self, mantissa_bits: usize, least: usize) -> (bool, u64, usize) {
        let (is_negative, base, limbs) = self.magnitude();
        let Some(highest) = limbs.last() else { return (false, 0, 0) };
        let bits = (base + limbs.len()) * LIMB_BITS - highest.leading_zeros() as usize;
        let shift = bits.saturating_sub(mantissa_bits).max(least);
        let (mut mantissa, mut half, mut below) = (0_u64, false, false);
        for (number, limb) in limbs.iter().enumerate() {
            let place = (base + number) * LIMB_BITS;
            if place >= shift {
                mantissa |= u64::from(*limb) << (place - shift);
                continue;
            }
            // So many bits of this limb are below the mantissa; the highest of them is the half.
            let cut = (shift - place).min(LIMB_BITS + 1);
            mantissa |= u64::from(*limb) >> cut;
            half |= cut <= LIMB_BITS && u64::from(*limb) >> (cut - 1) & 1 == 1;
            below |= u64::from(*limb) & ((1 << (cut - 1)) - 1) != 0;
        }
        if half && (below || mantissa & 1 == 1) {
            mantissa += 1;
        }
        match mantissa >> mantissa_bits {
            0 => (is_negative, mantissa, shift),
            _ => (is_negative, mantissa >> 1, shift + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> Exact {
        let mut sum = Exact::default();
        values.iter().for_each(|value| sum.add(*value, false));
        sum
    }

    fn bytes(sum: &Exact) -> Vec<u8> {
        let mut out = Vec::new();
        sum.clone().put(&mut out);
        out
    }

    #[test]
    fn nothing_is_lost_between_large_and_small() {
        assert_eq!(sum(&[1e308, 1e-308, -1e308]).double(), Some(1e-308));
        assert_eq!(sum(&[f64::MAX, f64::MAX]).double(), None);
        assert_eq!(sum(&[f64::MAX, f64::MAX, f64::MIN]).double(), Some(f64::MAX));
        assert_eq!(sum(&[0.1; 10]).double(), Some(1.0));
        assert_eq!(sum(&[1.0, f64::EPSILON / 2.0]).double(), Some(1.0));
        assert_eq!(sum(&[1.0, f64::EPSILON / 2.0, 5e-324]).double(), Some(1.0 + f64::EPSILON));
        assert_eq!(sum(&[]).double(), Some(0.0));
    }

    #[test]
    fn what_is_not_finite_leaves_again() {
        let mut total = sum(&[1.5, f64::INFINITY, f64::NEG_INFINITY]);
        assert!(total.double().is_some_and(f64::is_nan));
        total.add(f64::NEG_INFINITY, true);
        assert_eq!(total.double(), Some(f64::INFINITY));
        total.add(f64::INFINITY, true);
        assert_eq!(total.double(), Some(1.5));
        assert_eq!(bytes(&total), bytes(&sum(&[1.5])));
    }

    #[test]
    fn the_bytes_do_not_change() {
        assert_eq!(bytes(&sum(&[])), [0_u8; 0]);
        assert_eq!(bytes(&sum(&[1.0])), [0, 33, 0, 0, 4, 0]);
        assert_eq!(bytes(&sum(&[-1.0, f64::NAN])), [3, 2, 0, 0, 33, 0, 0, 4, 0]);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bytes in [&[0][..], &[0, 33, 1], &[0, 68, 1, 0, 0, 0], &[2, 0]] {
            assert_eq!(Exact::default().merge(&mut { bytes }), Err(damaged()));
        }
    }

    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |value| value.is_finite()),
            (-1000..1000_i32).prop_map(f64::from),
            Just(f64::from_bits(1)),
        ]
    }

    proptest! {
        #[test]
        fn one_number_is_its_own_sum(value in any_finite(), single in any::<f32>()) {
            prop_assert_eq!(sum(&[value]).double(), Some(value));
            if single.is_finite() {
                prop_assert_eq!(sum(&[single.into()]).single(), Some(single));
            }
        }

        /// A sum of two is rounded as the processor rounds it.
        #[test]
        fn two_numbers_are_rounded_once(one in any_finite(), other in any_finite()) {
            let expected = one + other;
            prop_assert_eq!(sum(&[one, other]).double(), expected.is_finite().then_some(expected));
            let (one, other) = (one as f32, other as f32);
            let expected = one + other;
            if one.is_finite() && other.is_finite() {
                let found = sum(&[one.into(), other.into()]).single();
                prop_assert_eq!(found, expected.is_finite().then_some(expected));
            }
        }

        #[test]
        fn what_was_added_can_be_taken_out(
            values in prop::collection::vec(any_finite(), 0..20), others in prop::collection::vec(any_finite(), 0..20)
        ) {
            let mut total = sum(&values);
            let mut part = Exact::default();
            others.iter().for_each(|value| part.add(*value, false));
            total.merge(&mut bytes(&part).as_slice()).expect("its own bytes");
            others.iter().rev().for_each(|value| total.add(*value, true));
            prop_assert_eq!(bytes(&total), bytes(&sum(&values)));
            let mut reversed = values.clone();
            reversed.reverse();
            prop_assert_eq!(sum(&reversed).double(), sum(&values).double());
        }
    }
}
