//! Safetensors: one file or the shards of a Hugging Face folder.
//!
//! Files are memory-mapped: a model of 6 GB is copied once, tensor by tensor, and is never in
//! memory twice. The format's own crate validates the header; names and shapes are checked here.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::safetensors::SafeTensorError;
use ::safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use memmap2::Mmap;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::formats::files::{map, read_json, replace_file};
use crate::formats::tensors::{NamedTensors, check_tensors, kind_name};
use crate::model::config::LlamaConfig;
use crate::model::parameters::projection_shapes;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Larger models are written in shards of at most this many bytes, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

/// One mapped file and its header.
struct SafetensorsFile {
    path: PathBuf,
    bytes: Mmap,
    header: Metadata,
    /// Start of the values.
    start: usize,
}

impl SafetensorsFile {
    fn open(path: &Path) -> Result<Self, LmError> {
        let bytes = map(path)?;
        let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            let what = match e {
                SafeTensorError::MetadataIncompleteBuffer
                | SafeTensorError::HeaderTooSmall
                | SafeTensorError::InvalidHeaderLength => {
                    format!("is cut short or damaged ({} bytes: {e}); fetch it again", bytes.len())
                }
                other => format!("is not a valid safetensors file: {other}"),
            };
            LmError::file(path, what)
        })?;
        Ok(Self { path: path.to_owned(), bytes, header, start: 8 + length })
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, LmError> {
        self.header
            .info(name)
            .ok_or_else(|| LmError::file(&self.path, format!("tensor `{name}` is missing")))
    }

    /// A copy of tensor `name` in the file's type.
    fn tensor(&self, name: &str) -> Result<Tensor, LmError> {
        let info = self.info(name)?;
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            other => {
                return Err(LmError::file(
                    &self.path,
                    format!("tensor `{name}` has type {other:?}; weights are F32, F16 or BF16"),
                ));
            }
        };
        // `read_metadata` has checked the offsets against the length of the file.
        let Range { start, end } = info.data_offsets.0..info.data_offsets.1;
        let values = &self.bytes[self.start + start..self.start + end];
        Ok(Tensor::f_from_data_size(values, &shape(info), kind)?)
    }
}

fn shape(info: &TensorInfo) -> Vec<i64> {
    info.shape.iter().map(|&n| n as i64).collect()
}

/// All tensors of one file, in file order, with the header's metadata.
///
/// # Errors
/// A file that cannot be read, is cut short or damaged, or holds a type other than f32, f16,
/// bf16, f64 and i64; the message names file and tensor.
pub fn read_file(path: &Path) -> Result<(NamedTensors, BTreeMap<String, String>), LmError> {
    let file = SafetensorsFile::open(path)?;
    let tensors = file
        .header
        .offset_keys()
        .into_iter()
        .map(|name| file.tensor(&name).map(|tensor| (name, tensor)))
        .collect::<Result<_, _>>()?;
    let metadata = file.header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((tensors, metadata))
}

/// The weight files of a Hugging Face folder, mapped: `model.safetensors` or the shards that
/// `model.safetensors.index.json` lists.
pub(crate) struct SafetensorsFolder {
    source: PathBuf,
    files: Vec<SafetensorsFile>,
    /// For each tensor, the index of its file.
    holder: HashMap<String, usize>,
}

impl SafetensorsFolder {
    /// # Errors
    /// Missing or damaged files; a tensor that is in two of them.
    pub(crate) fn open(folder: &Path) -> Result<Self, LmError> {
        let single = folder.join(SINGLE);
        let index = folder.join(INDEX);
        let (source, files) = if single.is_file() {
            let file = SafetensorsFile::open(&single)?;
            (single, vec![file])
        } else if index.is_file() {
            let files = read_index(&index)?
                .into_iter()
                .map(|name| SafetensorsFile::open(&folder.join(name)))
                .collect::<Result<_, _>>()?;
            (index, files)
        } else {
            return Err(LmError::file(folder, format!("holds neither {SINGLE} nor {INDEX}")));
        };
        let mut holder = HashMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.header.tensors().into_keys() {
                if let Some(first) = holder.insert(name.clone(), number) {
                    let first: &SafetensorsFile = &files[first];
                    let what = format!("tensor `{name}` is also in {}", first.path.display());
                    return Err(LmError::file(&file.path, what));
                }
            }
        }
        Ok(Self { source, files, holder })
    }

    /// The single file or the index.
    pub(crate) fn source(&self) -> &Path {
        &self.source
    }

    /// Shapes by name.
    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<i64>> {
        let all = self.files.iter().flat_map(|file| file.header.tensors());
        all.map(|(name, info)| (name, shape(info))).collect()
    }

    /// A copy of tensor `name` in its file's type.
    ///
    /// # Errors
    /// A missing tensor; a type other than f32, f16 and bf16.
    pub(crate) fn weight(&self, name: &str) -> Result<Tensor, LmError> {
        let Some(&number) = self.holder.get(name) else {
            return Err(LmError::file(&self.source, format!("tensor `{name}` is missing")));
        };
        let file = &self.files[number];
        let info = file.info(name)?;
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let what =
                format!("tensor `{name}` has type {:?}; weights are F32, F16 or BF16", info.dtype);
            return Err(LmError::file(&file.path, what));
        }
        file.tensor(name)
    }
}

/// Reads the weights of a Hugging Face folder, `model.safetensors` or the shards that
/// `model.safetensors.index.json` lists, in the order of [`projection_shapes`] and in the
/// files' own types.
///
/// # Errors
/// Missing or damaged files, missing or unexpected tensors, wrong shapes, other types.
pub fn read_folder(folder: &Path, config: &LlamaConfig) -> Result<NamedTensors, LmError> {
    let files = SafetensorsFolder::open(folder)?;
    check_tensors(files.source(), config, &files.shapes())?;
    projection_shapes(config)
        .into_iter()
        .map(|(name, _)| files.weight(&name).map(|tensor| (name, tensor)))
        .collect()
}

/// The shard files named in an index, without duplicates.
fn read_index(path: &Path) -> Result<Vec<String>, LmError> {
    let json = read_json(path)?;
    let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
        return Err(LmError::file(path, "key `weight_map` is missing or not an object"));
    };
    let mut files = Vec::new();
    for (tensor, file) in map {
        // Only plain names: an index must not reference files outside its folder.
        let plain = file.as_str().filter(|name| {
            Path::new(name).file_name().is_some_and(|base| base.to_str() == Some(name))
        });
        let Some(name) = plain else {
            return Err(LmError::file(
                path,
                format!("tensor `{tensor}` is listed in {file}, which is not a file name"),
            ));
        };
        if !files.iter().any(|known| known == name) {
            files.push(name.to_owned());
        }
    }
    files.sort();
    Ok(files)
}

/// Writes one file atomically. `kind`: the type to store; `None` keeps each tensor's type.
///
/// # Errors
/// File-system errors; a type that the format does not support.
pub fn write_file(
    path: &Path,
    tensors: &[(&str, &Tensor)],
    kind: Option<Kind>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), LmError> {
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (name, tensor) in tensors {
        let kind = kind.unwrap_or(tensor.kind());
        let start = end;
        end += tensor.numel() * kind.elt_size_in_bytes();
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        let dtype = dtype(kind).ok_or_else(|| LmError::Tensor {
            name: (*name).to_owned(),
            what: format!("has type {kind:?}, which cannot be written"),
        })?;
        infos.push(((*name).to_owned(), TensorInfo { dtype, shape, data_offsets: (start, end) }));
    }
    let metadata = metadata.clone().into_iter().collect();
    let header = Metadata::new(Some(metadata), infos)
        .and_then(|header| Ok(serde_json::to_string(&header)?))
        .map_err(|e| LmError::file(path, e))?;
    // Values begin at a multiple of 8 bytes; spaces are white space in JSON.
    let length = header.len().next_multiple_of(8);
    replace_file(path, |out| {
        out.write_all(&(length as u64).to_le_bytes())?;
        out.write_all(format!("{header:length$}").as_bytes())?;
        for (_, tensor) in tensors {
            out.write_all(&little_endian(tensor, kind).map_err(std::io::Error::other)?)?;
        }
        Ok(())
    })
}

fn dtype(kind: Kind) -> Option<Dtype> {
    match kind {
        Kind::Float => Some(Dtype::F32),
        Kind::Half => Some(Dtype::F16),
        Kind::BFloat16 => Some(Dtype::BF16),
        Kind::Double => Some(Dtype::F64),
        Kind::Int64 => Some(Dtype::I64),
        _ => None,
    }
}

/// The values of `tensor` as bytes, in `kind` where given.
fn little_endian(tensor: &Tensor, kind: Option<Kind>) -> Result<Vec<u8>, tch::TchError> {
    let _guard = tch::no_grad_guard();
    let kind = kind.unwrap_or(tensor.kind());
    let cast = tensor.f_to_kind(kind)?;
    let mut bytes = vec![0; cast.numel() * kind.elt_size_in_bytes()];
    cast.f_copy_data_u8(&mut bytes, cast.numel())?;
    Ok(bytes)
}

/// Writes a folder that transformers loads: `config.json`, `generation_config.json` and the
/// weights in `kind`, in shards where they exceed 5 GB. Each file is replaced atomically.
///
/// # Errors
/// Tensors that do not match `config`; file-system errors.
pub fn write_folder(
    folder: &Path,
    config: &LlamaConfig,
    tensors: &[(&str, &Tensor)],
    kind: Kind,
) -> Result<(), LmError> {
    write_shards(folder, config, tensors, kind, SHARD_BYTES)
}

pub(super) fn write_shards(
    folder: &Path,
    config: &LlamaConfig,
    tensors: &[(&str, &Tensor)],
    kind: Kind,
    shard_bytes: usize,
) -> Result<(), LmError> {
    let present = tensors.iter().map(|(name, t)| ((*name).to_owned(), t.size())).collect();
    check_tensors(folder, config, &present)?;
    std::fs::create_dir_all(folder).map_err(|e| LmError::file(folder, e))?;
    let dtype = kind_name(kind)?;
    write_json(&folder.join("config.json"), &config.to_json(dtype))?;
    let config_json = config.to_json(dtype);
    let generation = json!({
        "_from_model_config": true,
        "bos_token_id": config_json["bos_token_id"],
        "eos_token_id": config_json["eos_token_id"],
    });
    write_json(&folder.join("generation_config.json"), &generation)?;

    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let size = |tensor: &Tensor| tensor.numel() * kind.elt_size_in_bytes();
    let shards = split(tensors, size, shard_bytes);
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    if let [all] = shards.as_slice() {
        write_file(&single, all, Some(kind), &metadata)?;
        // Left behind by an earlier, sharded model; readers prefer the single file.
        return remove(&index);
    }
    let mut weight_map = serde_json::Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_file(&folder.join(&file), shard, Some(kind), &metadata)?;
        weight_map.extend(shard.iter().map(|(name, _)| ((*name).to_owned(), json!(file))));
    }
    let total: usize = tensors.iter().map(|(_, tensor)| size(tensor)).sum();
    let contents = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    write_json(&index, &contents)?;
    remove(&single)
}

/// Splits the list before the tensor that would exceed `limit` bytes.
fn split<'a>(
    tensors: &[(&'a str, &'a Tensor)],
    size: impl Fn(&Tensor) -> usize,
    limit: usize,
) -> Vec<Vec<(&'a str, &'a Tensor)>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for &(name, tensor) in tensors {
        let bytes = size(tensor);
        if filled > 0 && filled + bytes > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(last) = shards.last_mut() {
            last.push((name, tensor));
        }
    }
    shards
}

pub(crate) fn write_json(path: &Path, json: &Value) -> Result<(), LmError> {
    replace_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, json)?;
        out.write_all(b"\n")
    })
}

fn remove(path: &Path) -> Result<(), LmError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(LmError::file(path, e)),
        _ => Ok(()),
    }
}
