//! Parses the names of devices and number types in configurations.

use tch::{Cuda, Device, Kind};

use crate::error::LmError;

/// Parses `cpu`, `cuda` or `cuda:N`, and checks that the device exists.
///
/// # Errors
/// An unknown name, or CUDA if libtorch finds no device (with the reason).
pub fn parse_device(name: &str) -> Result<Device, LmError> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        other => other
            .strip_prefix("cuda:")
            .and_then(|n| n.parse::<usize>().ok())
            .ok_or_else(|| LmError::UnknownDevice(name.to_owned()))?,
    };
    let unavailable =
        |why: &str| LmError::NoDevice { device: name.to_owned(), why: why.to_owned() };
    if !Cuda::is_available() {
        return Err(unavailable(
            "libtorch finds no CUDA device (run `leyden doctor` for the reason)",
        ));
    }
    if index as i64 >= Cuda::device_count() {
        return Err(unavailable(&format!("there are only {} CUDA devices", Cuda::device_count())));
    }
    Ok(Device::Cuda(index))
}

/// Parses `f32`, `bf16` or `f16` (or PyTorch's long names).
///
/// # Errors
/// An unknown name.
pub fn parse_kind(name: &str) -> Result<Kind, LmError> {
    match name {
        "f32" | "float32" => Ok(Kind::Float),
        "bf16" | "bfloat16" => Ok(Kind::BFloat16),
        "f16" | "float16" => Ok(Kind::Half),
        _ => Err(LmError::UnknownKind(name.to_owned())),
    }
}
