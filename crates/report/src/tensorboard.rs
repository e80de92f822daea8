//! TensorBoard event files.
//!
//! An event file is a sequence of frames, each a serialised protobuf `Event`:
//! `u64 length | u32 masked CRC of the length | bytes | u32 masked CRC of the bytes`, all
//! little endian (TFRecord; CRC-32C, masked as in TensorFlow's `crc32c.h`). A scalar needs only
//! five fields of that message, so they are encoded here instead of with a protobuf library and
//! generated code.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc};
use leyden_core::record::{EvalRecord, Record, StepRecord};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Writes scalars to one event file.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Creates `events.out.tfevents.leyden` in `dir`, replacing an earlier one.
    /// `wall_time`: seconds since 1970.
    ///
    /// # Errors
    /// If the folder cannot be created or the file cannot be written.
    pub fn create(dir: &Path, wall_time: f64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("events.out.tfevents.leyden");
        let mut file = File::create(&path)?;
        let mut event = wall_time_field(wall_time);
        bytes_field(&mut event, 3, b"brain.Event:2");
        file.write_all(&frame(&event))?;
        Ok(Self { file, path })
    }

    /// Like [`EventWriter::create`], and also writes the existing records of `metrics` (a
    /// `metrics.jsonl`, which need not exist). For resumed runs: records beyond the checkpoint,
    /// which the run discarded, disappear here too. These events get `wall_time`, because records
    /// have no timestamp.
    ///
    /// # Errors
    /// If the file cannot be written or `metrics` cannot be read.
    pub fn resume(dir: &Path, metrics: &Path, wall_time: f64) -> io::Result<Self> {
        let records = crate::run::records(metrics, &mut Vec::new()).map_err(io::Error::other)?;
        let mut writer = Self::create(dir, wall_time)?;
        for record in &records {
            writer.record(record, wall_time)?;
        }
        Ok(writer)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all metrics of a record as one event.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record(&mut self, record: &Record, wall_time: f64) -> io::Result<()> {
        match record {
            Record::Step(step) => self.scalars(step.step, wall_time, &step_scalars(step)),
            Record::Eval(eval) => self.scalars(eval.step, wall_time, &eval_scalars(eval)),
        }
    }

    /// Writes named scalars of one step as one event.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(
        &mut self,
        step: u64,
        wall_time: f64,
        scalars: &[(String, f64)],
    ) -> io::Result<()> {
        self.file.write_all(&frame(&scalar_event(step, wall_time, scalars)))
    }
}

/// Metrics of a training step by tag.
pub fn step_scalars(step: &StepRecord) -> Vec<(String, f64)> {
    let named = [
        ("reward", step.reward_mean),
        ("reward_std", step.reward_std),
        ("rollouts_without_reward", step.rollouts_without_reward as f64),
        ("groups_without_variance", step.groups_without_variance as f64),
        ("groups_of_one", step.groups_of_one as f64),
        ("calls_per_rollout", step.calls_per_rollout),
        ("response_length", step.response_length),
        ("truncated", step.truncated),
        ("row_tokens", step.row_tokens as f64),
        ("packed_tokens", step.packed_tokens as f64),
        ("action_tokens", step.action_tokens as f64),
        ("loss", step.loss),
        ("entropy", step.entropy),
        ("grad_norm", step.grad_norm),
        ("learning_rate", step.learning_rate),
        ("clip_fraction", step.clip_fraction),
        ("sampler_kl", step.sampler_kl),
        ("sampler_gap", step.sampler_gap),
        ("sampler_outside", step.sampler_outside),
    ];
    let mut scalars: Vec<(String, f64)> =
        named.into_iter().map(|(name, value)| (format!("train/{name}"), value)).collect();
    scalars.extend(counts("train/signals", &step.signals));
    scalars.extend(step.extra.iter().map(|(name, value)| (format!("train/{name}"), *value)));
    scalars
}

/// Metrics of an evaluation by tag.
pub fn eval_scalars(eval: &EvalRecord) -> Vec<(String, f64)> {
    let prefix = format!("test/{}", eval.mode);
    let mut scalars = vec![
        (format!("{prefix}/reward"), eval.reward_mean),
        (format!("{prefix}/without_reward"), eval.without_reward as f64),
        (format!("{prefix}/response_length"), eval.response_length),
        (format!("{prefix}/calls_per_rollout"), eval.calls_per_rollout),
    ];
    for (label, values) in &eval.by_label {
        for (value, (mean, _)) in values {
            scalars.push((format!("{prefix}/reward/{label}={value}"), *mean));
        }
    }
    scalars.extend(counts(&format!("{prefix}/signals"), &eval.signals));
    scalars
}

fn counts<'a>(
    prefix: &'a str,
    signals: &'a std::collections::BTreeMap<String, usize>,
) -> impl Iterator<Item = (String, f64)> + 'a {
    signals.iter().map(move |(kind, count)| (format!("{prefix}/{kind}"), *count as f64))
}

/// `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }`.
fn scalar_event(step: u64, wall_time: f64, scalars: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | 5);
        entry.extend((*value as f32).to_le_bytes());
        bytes_field(&mut summary, 1, &entry);
    }
    let mut event = wall_time_field(wall_time);
    event.push(2 << 3);
    varint(&mut event, step);
    bytes_field(&mut event, 5, &summary);
    event
}

fn wall_time_field(wall_time: f64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(wall_time.to_le_bytes());
    event
}

/// A length-delimited field: text, bytes or a message.
fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn frame(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(event.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(event);
    out.extend(masked_crc(event).to_le_bytes());
    out
}

/// CRC-32C, rotated and offset so that the CRC of data that contains CRCs stays reliable.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_the_one_tensorflow_writes() {
        // The header of any event file: 24 bytes, wall time, file version; the CRC of the
        // length 24 is the same in all of them.
        let mut event = wall_time_field(0.0);
        bytes_field(&mut event, 3, b"brain.Event:2");
        let bytes = frame(&event);
        assert_eq!(bytes[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(bytes.len(), 8 + 4 + 24 + 4);
        assert_eq!(&bytes[21..36], b"\x1a\x0dbrain.Event:2");
    }

    #[test]
    fn crc_of_the_rfc() {
        // RFC 3720 B.4: 32 bytes of zeros.
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_scalar_event_by_hand() {
        let event = scalar_event(300, 1.0, &[("a".to_owned(), 0.5)]);
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..], // wall_time = 1.0
            &[0x10, 0xac, 0x02],                       // step = 300
            &[0x2a, 10, 0x0a, 8],                      // summary { value {
            &[0x0a, 1, b'a'],                          // tag = "a"
            &[0x15, 0, 0, 0, 0x3f],                    // simple_value = 0.5
        ]
        .concat();
        assert_eq!(event, expected);
    }
}
