//! The GGUF container, versions 2 and 3, little-endian: metadata and tensors of one file.
//!
//! All counts and offsets come from the file itself, so each is checked against the file's size
//! before use. Arrays of the metadata are parsed only on access: a vocabulary is the largest part
//! of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use tch::Tensor;

use crate::error::LmError;
use crate::formats::quant::GgmlType;

/// Default alignment of tensor data in bytes; `general.alignment` overrides it.
const ALIGNMENT: u64 = 32;

/// Most keys and tensors of a file. Those of a large model are a few thousand; each takes several
/// times its size in the file.
const MOST_ENTRIES: u64 = 1 << 16;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// Type and number of the elements, and their byte range in the file.
    Array(u32, u64, Range<usize>),
}

struct TensorEntry {
    /// Rows first, as in libtorch (GGUF uses the reverse order).
    shape: Vec<i64>,
    kind: GgmlType,
    bytes: Range<usize>,
}

/// An open file.
pub struct Gguf {
    path: PathBuf,
    bytes: Mmap,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, TensorEntry>,
}

impl Gguf {
    /// Opens a file and parses its metadata and its table of tensors.
    ///
    /// # Errors
    /// Not a GGUF file, version 1, big-endian, truncated, or a tensor of an unsupported type or
    /// beyond the end of the file; with the file and the key or tensor.
    pub fn open(path: &Path) -> Result<Self, LmError> {
        let bytes = crate::formats::files::map(path)?;
        let mut cursor = Cursor { path, bytes: &bytes, at: 0, place: "the header".to_owned() };
        if cursor.take(4)? != b"GGUF" {
            return Err(cursor.error("is not a GGUF file: it does not begin with `GGUF`"));
        }
        match cursor.u32()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => {
                return Err(
                    cursor.error("is a big-endian GGUF file; only little-endian is supported")
                );
            }
            version => {
                return Err(
                    cursor.error(format!("is GGUF version {version}; 2 and 3 are supported"))
                );
            }
        }
        let (tensor_count, key_count) = (cursor.u64()?, cursor.u64()?);
        for (what, count) in [("tensors", tensor_count), ("metadata keys", key_count)] {
            if count > MOST_ENTRIES {
                let what = format!("has {count} {what}; at most {MOST_ENTRIES} are supported");
                return Err(cursor.error(what));
            }
        }
        let metadata = read_metadata(&mut cursor, key_count)?;
        let tensors = read_tensors(&mut cursor, tensor_count, &metadata)?;
        Ok(Self { path: path.to_owned(), metadata, tensors, bytes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// Names and shapes of the tensors.
    pub fn shapes(&self) -> BTreeMap<String, Vec<i64>> {
        self.tensors.iter().map(|(name, entry)| (name.clone(), entry.shape.clone())).collect()
    }

    /// Number of tensors by the name of their number type.
    pub fn types(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.tensors.values() {
            *counts.entry(format!("{:?}", entry.kind)).or_default() += 1;
        }
        counts
    }

    /// Tensor `name`: F32, F16 and BF16 in their own type, quantised ones as f32.
    ///
    /// # Errors
    /// A name that the file does not contain.
    pub fn tensor(&self, name: &str) -> Result<Tensor, LmError> {
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| LmError::file(&self.path, format!("tensor `{name}` is missing")))?;
        entry.kind.tensor(&self.bytes[entry.bytes.clone()], &entry.shape)
    }

    pub(crate) fn key_error(&self, key: &str, what: impl Into<String>) -> LmError {
        LmError::Key { path: self.path.clone(), key: key.to_owned(), what: what.into() }
    }

    /// A non-negative integer.
    ///
    /// # Errors
    /// The key has another type; the same applies to the following methods.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, LmError> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Unsigned(n)) => Ok(Some(*n)),
            Some(GgufValue::Signed(n)) if *n >= 0 => Ok(Some(*n as u64)),
            Some(_) => Err(self.key_error(key, "is not a non-negative integer")),
        }
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>, LmError> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Float(x)) => Ok(Some(*x)),
            Some(_) => Err(self.key_error(key, "is not a floating-point number")),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, LmError> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.key_error(key, "is not true or false")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, LmError> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.key_error(key, "is not a string")),
        }
    }

    /// An array of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, LmError> {
        self.array(key, "an array of strings", |kind, cursor| match kind {
            kinds::TEXT => cursor.text().map(Some),
            _ => Ok(None),
        })
    }

    /// An array of integers that fit i32.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, LmError> {
        self.array(key, "an array of 32-bit integers", |kind, cursor| {
            Ok(match cursor.scalar(kind)? {
                Some(GgufValue::Signed(n)) => i32::try_from(n).ok(),
                Some(GgufValue::Unsigned(n)) => i32::try_from(n).ok(),
                _ => None,
            })
        })
    }

    /// Decodes an array; `element` returns `None` for an element of the wrong type.
    fn array<T>(
        &self,
        key: &str,
        what: &str,
        element: impl Fn(u32, &mut Cursor) -> Result<Option<T>, LmError>,
    ) -> Result<Option<Vec<T>>, LmError> {
        let wrong = || self.key_error(key, format!("is not {what}"));
        let (kind, count, range) = match self.value(key) {
            None => return Ok(None),
            Some(GgufValue::Array(kind, count, range)) => (*kind, *count, range.clone()),
            Some(_) => return Err(wrong()),
        };
        let bytes = &self.bytes[..range.end];
        let mut cursor =
            Cursor { path: &self.path, bytes, at: range.start, place: format!("key `{key}`") };
        (0..count)
            .map(|_| element(kind, &mut cursor)?.ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// Ids of the value types.
mod kinds {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

fn read_metadata(cursor: &mut Cursor, count: u64) -> Result<BTreeMap<String, GgufValue>, LmError> {
    let mut metadata = BTreeMap::new();
    for number in 0..count {
        cursor.place = format!("metadata key {number} of {count}");
        let key = cursor.text()?;
        cursor.place = format!("key `{key}`");
        let kind = cursor.u32()?;
        let value = match kind {
            kinds::TEXT => GgufValue::Text(cursor.text()?),
            kinds::ARRAY => cursor.array()?,
            _ => cursor.scalar(kind)?.ok_or_else(|| cursor.unknown_kind(kind))?,
        };
        if metadata.insert(key, value).is_some() {
            return Err(cursor.error(format!("{} appears twice", cursor.place)));
        }
    }
    Ok(metadata)
}

fn read_tensors(
    cursor: &mut Cursor,
    count: u64,
    metadata: &BTreeMap<String, GgufValue>,
) -> Result<BTreeMap<String, TensorEntry>, LmError> {
    let mut table = Vec::new();
    for number in 0..count {
        cursor.place = format!("entry {number} of the {count} tensors");
        let name = cursor.text()?;
        cursor.place = format!("tensor `{name}`");
        let dimensions = cursor.u32()?;
        if !(1..=4).contains(&dimensions) {
            return Err(cursor.error(format!("{} has {dimensions} dimensions", cursor.place)));
        }
        let mut shape = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        let kind = GgmlType::from_id(cursor.u32()?)
            .map_err(|what| cursor.error(format!("{} {what}", cursor.place)))?;
        table.push((name, shape, kind, cursor.u64()?));
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(GgufValue::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n,
        Some(_) => {
            return Err(cursor.error("key `general.alignment` is not a supported power of two"));
        }
    };
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    let mut total = 0usize;
    for (name, shape, kind, offset) in table {
        cursor.place = format!("tensor `{name}`");
        let bytes = locate(cursor, &shape, kind, data_start, offset)?;
        // Entries that share bytes could require far more memory than the file size.
        total = total.saturating_add(bytes.len());
        if total > cursor.bytes.len() {
            return Err(cursor.error("its tensors overlap"));
        }
        let shape = shape.into_iter().map(|n| n as i64).collect();
        if tensors.insert(name, TensorEntry { shape, kind, bytes }).is_some() {
            return Err(cursor.error(format!("{} appears twice", cursor.place)));
        }
    }
    Ok(tensors)
}

/// Byte range of a tensor, validated against the file's size.
fn locate(
    cursor: &Cursor,
    shape: &[u64],
    kind: GgmlType,
    data_start: u64,
    offset: u64,
) -> Result<Range<usize>, LmError> {
    let place = &cursor.place;
    let size = || {
        let row = usize::try_from(*shape.last()?).ok()?;
        let rows = shape[..shape.len() - 1]
            .iter()
            .try_fold(1usize, |rows, &n| rows.checked_mul(usize::try_from(n).ok()?))?;
        kind.bytes(row, rows)
    };
    let size = size().ok_or_else(|| {
        cursor.error(format!("{place} has shape {shape:?}, which does not fit {kind:?}"))
    })?;
    let end = data_start.checked_add(offset).and_then(|start| start.checked_add(size as u64));
    match end {
        Some(end) if end <= cursor.bytes.len() as u64 => Ok(end as usize - size..end as usize),
        _ => Err(cursor.error(format!(
            "{place} reaches beyond the end of the file ({} bytes): it is cut short or damaged; \
             fetch it again",
            cursor.bytes.len()
        ))),
    }
}

/// Reads forward through the file; `place` names what is being read, for messages.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    place: String,
}

impl<'a> Cursor<'a> {
    fn error(&self, what: impl std::fmt::Display) -> LmError {
        LmError::file(self.path, what)
    }

    fn unknown_kind(&self, kind: u32) -> LmError {
        self.error(format!("{} has the unknown value type {kind}", self.place))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], LmError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.error(format!(
                "ends inside {} ({} bytes): it is cut short or damaged; fetch it again",
                self.place,
                self.bytes.len()
            ))),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], LmError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, LmError> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn u64(&mut self) -> Result<u64, LmError> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    fn text(&mut self) -> Result<String, LmError> {
        let length = self.u64()?;
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.error(format!("{} holds text that is not UTF-8", self.place))),
        }
    }

    /// A number or boolean; `None` for any other type.
    fn scalar(&mut self, kind: u32) -> Result<Option<GgufValue>, LmError> {
        use GgufValue::{Bool, Float, Signed, Unsigned};
        Ok(Some(match kind {
            kinds::U8 => Unsigned(u8::from_le_bytes(self.fixed()?).into()),
            kinds::I8 => Signed(i8::from_le_bytes(self.fixed()?).into()),
            kinds::U16 => Unsigned(u16::from_le_bytes(self.fixed()?).into()),
            kinds::I16 => Signed(i16::from_le_bytes(self.fixed()?).into()),
            kinds::U32 => Unsigned(self.u32()?.into()),
            kinds::I32 => Signed(i32::from_le_bytes(self.fixed()?).into()),
            kinds::F32 => Float(f32::from_le_bytes(self.fixed()?).into()),
            kinds::BOOL => Bool(self.fixed::<1>()?[0] != 0),
            kinds::U64 => Unsigned(self.u64()?),
            kinds::I64 => Signed(i64::from_le_bytes(self.fixed()?)),
            kinds::F64 => Float(f64::from_le_bytes(self.fixed()?)),
            _ => return Ok(None),
        }))
    }

    /// Skips an array, which checks that it lies within the file.
    fn array(&mut self) -> Result<GgufValue, LmError> {
        let (kind, count) = (self.u32()?, self.u64()?);
        let start = self.at;
        let width = match kind {
            kinds::U8 | kinds::I8 | kinds::BOOL => 1,
            kinds::U16 | kinds::I16 => 2,
            kinds::U32 | kinds::I32 | kinds::F32 => 4,
            kinds::U64 | kinds::I64 | kinds::F64 => 8,
            kinds::TEXT => {
                for _ in 0..count {
                    let length = self.u64()?;
                    self.take(length)?;
                }
                return Ok(GgufValue::Array(kind, count, start..self.at));
            }
            kinds::ARRAY => {
                return Err(self.error(format!("{} holds arrays of arrays", self.place)));
            }
            _ => return Err(self.unknown_kind(kind)),
        };
        self.take(count.saturating_mul(width))?;
        Ok(GgufValue::Array(kind, count, start..self.at))
    }
}
