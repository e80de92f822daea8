//! GGML's number types and the conversion of their blocks to f32.
//!
//! A row is divided into blocks of 32 (or, for the K types, 256) values that share a scale and, in
//! the `_1` and most K types, an offset. Layouts are those of llama.cpp's `ggml-quants.c`; the
//! expected values in the tests were computed with its `gguf` Python package.

use half::f16;
use tch::{Kind, Tensor};

use crate::error::LmError;

/// The supported types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum GgmlType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl GgmlType {
    /// The type with number `id`.
    ///
    /// # Errors
    /// An unsupported type, by its name if known.
    pub fn from_id(id: u32) -> Result<Self, String> {
        let unread = match id {
            0 => return Ok(Self::F32),
            1 => return Ok(Self::F16),
            2 => return Ok(Self::Q4_0),
            3 => return Ok(Self::Q4_1),
            6 => return Ok(Self::Q5_0),
            7 => return Ok(Self::Q5_1),
            8 => return Ok(Self::Q8_0),
            12 => return Ok(Self::Q4_K),
            13 => return Ok(Self::Q5_K),
            14 => return Ok(Self::Q6_K),
            30 => return Ok(Self::BF16),
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            15 => "Q8_K",
            16..=23 | 29 => "one of the IQ family",
            24..=28 => "an integer or F64",
            34 | 35 => "one of the TQ family",
            39 => "MXFP4",
            _ => "unknown",
        };
        Err(format!(
            "has type {id} ({unread}); supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, \
             Q4_K, Q5_K and Q6_K"
        ))
    }

    /// Number of values and bytes per block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
        }
    }

    /// Bytes of a tensor whose rows have `row` values; `None` if a row is not a whole number of
    /// blocks or the size overflows.
    pub fn bytes(self, row: usize, rows: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        if !row.is_multiple_of(values) {
            return None;
        }
        (row / values).checked_mul(bytes)?.checked_mul(rows)
    }

    /// A tensor of `shape` from its bytes: F32, F16 and BF16 in their own type, the others as f32.
    ///
    /// # Errors
    /// Errors of libtorch. `bytes` must contain the blocks of `shape`.
    pub fn tensor(self, bytes: &[u8], shape: &[i64]) -> Result<Tensor, LmError> {
        let raw = |kind| Ok(Tensor::f_from_data_size(bytes, shape, kind)?);
        match self {
            Self::F32 => raw(Kind::Float),
            Self::F16 => raw(Kind::Half),
            Self::BF16 => raw(Kind::BFloat16),
            _ => Ok(Tensor::f_from_slice(&self.dequantise(bytes))?.f_view(shape)?),
        }
    }

    /// The values of whole blocks.
    fn dequantise(self, bytes: &[u8]) -> Vec<f32> {
        let (values, size) = self.block();
        let mut out = vec![0.0; bytes.len() / size * values];
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(values)) {
            match self {
                Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::F16 => out[0] = half_at(block, 0),
                Self::BF16 => out[0] = half::bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                Self::Q4_0 => nibbles(half_at(block, 0), 8, 0.0, &block[2..], None, out),
                Self::Q4_1 => {
                    nibbles(half_at(block, 0), 0, half_at(block, 2), &block[4..], None, out);
                }
                Self::Q5_0 => {
                    nibbles(half_at(block, 0), 16, 0.0, &block[6..], Some(&block[2..6]), out);
                }
                Self::Q5_1 => {
                    let offset = half_at(block, 2);
                    nibbles(half_at(block, 0), 0, offset, &block[8..], Some(&block[4..8]), out);
                }
                Self::Q8_0 => {
                    let scale = half_at(block, 0);
                    for (value, &q) in out.iter_mut().zip(&block[2..]) {
                        *value = scale * f32::from(q as i8);
                    }
                }
                Self::Q4_K => k_nibbles(block, None, &block[16..], out),
                Self::Q5_K => k_nibbles(block, Some(&block[16..48]), &block[48..], out),
                Self::Q6_K => q6_k(block, out),
            }
        }
        out
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// scale · (q − centre) + offset; the low nibbles are the first 16 values, the high ones the last
/// 16. `fifth`: one further bit per value, as a little-endian u32.
fn nibbles(
    scale: f32,
    centre: i32,
    offset: f32,
    quants: &[u8],
    fifth: Option<&[u8]>,
    out: &mut [f32],
) {
    let fifth = fifth.map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    for (j, &q) in quants.iter().enumerate().take(16) {
        let bit = |at: usize| ((fifth >> at & 1) << 4) as i32;
        let low = i32::from(q & 15) | bit(j);
        let high = i32::from(q >> 4) | bit(j + 16);
        out[j] = (low - centre) as f32 * scale + offset;
        out[j + 16] = (high - centre) as f32 * scale + offset;
    }
}

/// Q4_K and Q5_K: eight groups of 32 with 6-bit scales and minima, packed in 12 bytes after
/// the block's two f16. Groups come in pairs: low nibbles, then high ones.
fn k_nibbles(block: &[u8], fifth: Option<&[u8]>, quants: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = six_bit_pair(packed, group);
        let (s, m) = (scale * f32::from(s), minimum * f32::from(m));
        let quants = &quants[group / 2 * 32..][..32];
        for (j, (value, &q)) in out.iter_mut().zip(quants).enumerate() {
            let nibble = if group % 2 == 0 { q & 15 } else { q >> 4 };
            let bit = fifth.map_or(0, |bits| (bits[j] >> group & 1) << 4);
            *value = s * f32::from(nibble | bit) - m;
        }
    }
}

/// Scale and minimum of `group`: the first four are in bytes 0–3 and 4–7, the last four in the
/// nibbles of bytes 8–11 and the two unused high bits of the others.
fn six_bit_pair(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let nibbles = packed[group + 4];
    let scale = (nibbles & 15) | (packed[group - 4] >> 6) << 4;
    let minimum = (nibbles >> 4) | (packed[group] >> 6) << 4;
    (scale, minimum)
}

/// Q6_K: 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, one f16.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 208);
    for (n, out) in out.chunks_exact_mut(128).enumerate() {
        let low = &block[64 * n..][..64];
        let high = &block[128 + 32 * n..][..32];
        let scales = &block[192 + 8 * n..][..8];
        for (index, value) in out.iter_mut().enumerate() {
            let (quarter, l) = (index / 32, index % 32);
            let byte = low[l + 32 * (quarter % 2)];
            let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
            let pair = high[l] >> (2 * quarter) & 3;
            let q = i32::from(nibble | pair << 4) - 32;
            *value = scale * f32::from(scales[index / 16] as i8) * q as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GgmlType;
    use half::f16;

    /// Byte i of a block is (37 i + 11) mod 256, with the f16 scale 0.5 and, where there is a
    /// second f16, −0.25. First, second, last value, sum and sum weighted by 1, 2, 3 … are
    /// those of `gguf.quants.dequantize` (gguf 0.19, PyPI) on the same bytes; all are exact.
    #[test]
    fn dequantised_blocks_match_the_reference() {
        for (kind, halves, expected) in [
            (GgmlType::Q4_0, &[0][..], [-1.5, 1.0, 0.0, -10.5, -259.0]),
            (GgmlType::Q4_1, &[0, 2], [7.25, 1.75, 5.75, 114.5, 1859.5]),
            (GgmlType::Q5_0, &[0], [4.5, -1.0, 0.5, 7.5, 56.0]),
            (GgmlType::Q5_1, &[0, 2], [9.25, 11.75, 2.25, 244.5, 3818.5]),
            (GgmlType::Q8_0, &[0], [42.5, 61.0, -24.0, -88.0, -4040.0]),
            (GgmlType::Q4_K, &[0, 2], [183.25, 12.75, 41.75, 31444.0, 4262132.0]),
            (GgmlType::Q5_K, &[0, 2], [431.25, 12.75, 71.75, 62332.0, 8489436.0]),
            (GgmlType::Q6_K, &[208], [-715.5, 848.0, -30.0, 2306.0, 392210.0]),
        ] {
            let (values, size) = kind.block();
            let mut block: Vec<u8> = (0..size).map(|i| ((37 * i + 11) % 256) as u8).collect();
            for (&at, half) in halves.iter().zip([0.5, -0.25]) {
                block[at..at + 2].copy_from_slice(&f16::from_f64(half).to_le_bytes());
            }
            let x = kind.dequantise(&block);
            assert_eq!(x.len(), values);
            let sum: f64 = x.iter().map(|&v| f64::from(v)).sum();
            let weighted: f64 = x.iter().zip(1..).map(|(&v, w)| f64::from(v) * f64::from(w)).sum();
            let found = [f64::from(x[0]), f64::from(x[1]), f64::from(x[values - 1]), sum, weighted];
            assert_eq!(found, expected, "{kind:?}");
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(GgmlType::Q4_1.bytes(64, 3), Some(120));
        assert_eq!(GgmlType::Q4_1.bytes(48, 3), None);
        assert_eq!(GgmlType::F32.bytes(usize::MAX / 4, 16), None);
    }
}
