//! CRC32 of bytes whose parts' CRC32s are known.

/// The polynomial, as all numbers here with the coefficient of x⁰ in the top bit.
const POLYNOMIAL: u32 = 0xEDB8_8320;
/// x⁰.
const ONE: u32 = 1 << 31;

/// A part of so many bytes pays for having its own CRC32 joined to that of the bytes around it.
const MIN_PART: usize = 512;

/// `POWERS[k][d]` is what `d * 256^k` bytes behind it multiply a CRC32 by.
static POWERS: [[u32; 256]; 4] = powers();

/// CRC32 of `bytes`, of which those at `part` have the CRC32 `crc`.
pub fn around(bytes: &[u8], part: std::ops::Range<usize>, crc: u32) -> u32 {
    if part.len() < MIN_PART {
        return crc32fast::hash(bytes);
    }
    let before = crc32fast::hash(&bytes[..part.start]);
    let mut all = crc32fast::Hasher::new_with_initial(followed_by(before, part.len()) ^ crc);
    all.update(&bytes[part.end..]);
    all.finalize()
}

/// What a CRC32 comes to behind which `len` bytes follow, without these bytes' own CRC32.
fn followed_by(mut crc: u32, len: usize) -> u32 {
    let digits = u32::try_from(len).expect("a part is below 4 GiB").to_le_bytes();
    for (power, digit) in POWERS.iter().zip(digits) {
        if digit != 0 {
            crc = multiply(crc, power[usize::from(digit)]);
        }
    }
    crc
}

const fn powers() -> [[u32; 256]; 4] {
    let mut powers = [[ONE; 256]; 4];
    let (mut k, mut base) = (0, ONE >> 8);
    while k < 4 {
        let mut digit = 1;
        while digit < 256 {
            powers[k][digit] = multiply_by_bits(powers[k][digit - 1], base);
            digit += 1;
        }
        base = multiply_by_bits(powers[k][255], base);
        k += 1;
    }
    powers
}

/// The product modulo the polynomial.
fn multiply(a: u32, b: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the processor has the instruction.
        return unsafe { multiply_without_carry(a, b) };
    }
    multiply_by_bits(a, b)
}

/// In a few steps instead of 32: the product, reduced by Barrett's method.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq")]
fn multiply_without_carry(a: u32, b: u32) -> u32 {
    use std::arch::x86_64::{_mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si64};
    /// The polynomial, with the coefficient of x³².
    const WHOLE: u64 = (POLYNOMIAL as u64) << 1 | 1;
    /// x⁶⁴ divided by it.
    const INVERSE: u64 = 0x1_F701_1641;
    let product = |a: u64, b: u64| {
        let product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(a as i64), _mm_cvtsi64_si128(b as i64), 0);
        _mm_cvtsi128_si64(product) as u64
    };
    let whole = product(u64::from(a), u64::from(b)) << 1;
    let quotient = product(u64::from(whole as u32), INVERSE) as u32;
    ((whole ^ product(u64::from(quotient), WHOLE)) >> 32) as u32
}

/// One bit of `a` after the other.
const fn multiply_by_bits(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, ONE);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 0 { b >> 1 } else { b >> 1 ^ POLYNOMIAL };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_parts_have_the_crc_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            ends: [prop::sample::Index; 2],
        ) {
            let [a, b] = ends.map(|end| end.index(bytes.len() + 1));
            let part = a.min(b)..a.max(b);
            let crc = crc32fast::hash(&bytes[part.clone()]);
            prop_assert_eq!(around(&bytes, part.clone(), crc), crc32fast::hash(&bytes));
            let joined = followed_by(crc32fast::hash(&bytes[..part.start]), part.len()) ^ crc;
            prop_assert_eq!(joined, crc32fast::hash(&bytes[..part.end]));
        }

        #[test]
        fn both_ways_of_multiplying_agree(a: u32, b: u32) {
            prop_assert_eq!(multiply(a, b), multiply_by_bits(a, b));
        }

        #[test]
        fn any_length_may_follow(first: u32, second: u32, len: u32) {
            let mut joined = crc32fast::Hasher::new_with_initial(first);
            joined.combine(&crc32fast::Hasher::new_with_initial_len(second, u64::from(len)));
            prop_assert_eq!(followed_by(first, len as usize) ^ second, joined.finalize());
        }
    }
}
