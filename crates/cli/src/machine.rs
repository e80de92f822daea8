//! Resources of this machine: processor, memory, disk, libtorch, CUDA, model cache.
//!
//! Facts are collected into plain data before they are formatted, so that the formatting can be
//! tested without such machines.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leyden_hub::ModelCache;
use serde::Serialize;

/// The folder of the libtorch that this binary is linked with.
const LINKED_LIBTORCH: &str = env!("LEYDEN_LIBTORCH_LIB");

/// All facts.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub leyden: String,
    pub system: String,
    pub processor: Processor,
    pub memory: Memory,
    pub disk: Option<Disk>,
    pub libtorch: Libtorch,
    pub cuda: Cuda,
    pub cache: ModelCache,
}

#[derive(Debug, Clone, Serialize)]
pub struct Processor {
    pub model: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Threads that libtorch uses by default.
    pub libtorch_threads: i32,
    pub omp_wait_policy: Option<String>,
}

/// Bytes of main memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    pub total: Option<u64>,
    pub available: Option<u64>,
}

/// Bytes of the file system that run folders are created on.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    pub folder: PathBuf,
    pub total: u64,
    pub free: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Libtorch {
    pub version: String,
    /// Folder of the loaded libraries.
    pub path: PathBuf,
    /// Whether they include the CUDA libraries.
    pub has_cuda: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cuda {
    pub available: bool,
    pub devices: Vec<CudaDevice>,
    /// Why CUDA is not available.
    pub why_not: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CudaDevice {
    pub index: usize,
    pub name: String,
    pub total: Option<u64>,
    pub free: Option<u64>,
}

impl Machine {
    /// Inspects the machine; `runs` is the folder whose disk is reported.
    pub fn look(runs: &Path) -> Self {
        let libtorch = libtorch();
        Self {
            leyden: env!("CARGO_PKG_VERSION").to_owned(),
            system: system(),
            processor: Processor {
                model: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|s| cpu_model(&s)),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                libtorch_threads: tch::get_num_threads(),
                omp_wait_policy: std::env::var("OMP_WAIT_POLICY").ok(),
            },
            memory: Memory {
                total: std::fs::read_to_string("/proc/meminfo").ok().and_then(|s| total(&s)),
                available: leyden_lm::memory::available_memory(tch::Device::Cpu),
            },
            disk: disk(runs),
            cuda: cuda(libtorch.has_cuda),
            libtorch,
            cache: ModelCache::look(),
        }
    }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map_or(std::env::consts::OS, |name| name.trim_matches('"'));
    format!("{name}, {}", std::env::consts::ARCH)
}

/// `MemTotal` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Space on the file system of `folder`, or of its nearest existing ancestor.
fn disk(folder: &Path) -> Option<Disk> {
    let absolute = std::path::absolute(folder).ok()?;
    let existing = absolute.ancestors().find(|path| path.exists())?;
    let path = CString::new(existing.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` is a valid C string, `found` has space for the structure, and all bits zero
    // is a valid value of it if nothing is written.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Disk { folder: absolute, total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
}

fn libtorch() -> Libtorch {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = loaded_library(&maps, "libtorch_cpu")
        .and_then(|file| file.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from(LINKED_LIBTORCH));
    let has_cuda = path.join("libtorch_cuda.so").exists();
    let roots = [path.parent(), Path::new(LINKED_LIBTORCH).parent()];
    let version = roots.into_iter().flatten().find_map(installed_version);
    let version = version.unwrap_or_else(|| leyden_lm::TORCH_VERSION.to_owned());
    Libtorch { version, path, has_cuda }
}

/// The path of a loaded library, from the text of `/proc/self/maps`.
fn loaded_library(maps: &str, name: &str) -> Option<PathBuf> {
    let path = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    let is_it = |path: &PathBuf| {
        path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(name))
    };
    maps.lines().filter_map(path).find(is_it)
}

/// The version that a libtorch folder declares.
fn installed_version(root: &Path) -> Option<String> {
    if let Ok(version) = std::fs::read_to_string(root.join("build-version")) {
        return Some(version.trim().to_owned());
    }
    let header = root.join("include/torch/headeronly/version.h");
    let header = std::fs::read_to_string(header).ok()?;
    let part = |name: &str| {
        let key = format!("#define TORCH_VERSION_{name} ");
        header.lines().find_map(|line| line.strip_prefix(&key)).map(|n| n.trim().to_owned())
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}

fn cuda(libtorch_has_cuda: bool) -> Cuda {
    let available = tch::Cuda::is_available();
    let devices = if available { cuda_devices(tch::Cuda::device_count()) } else { Vec::new() };
    let facts = CudaFacts {
        libtorch_has_cuda,
        driver: nvidia_driver(),
        visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
    };
    Cuda { available, devices, why_not: (!available).then(|| facts.why_not()) }
}

/// Facts that determine whether CUDA is available.
struct CudaFacts {
    libtorch_has_cuda: bool,
    driver: Option<String>,
    /// `CUDA_VISIBLE_DEVICES`.
    visible: Option<String>,
}

impl CudaFacts {
    /// The first reason why CUDA is not available, and its remedy.
    fn why_not(&self) -> String {
        match (&self.driver, self.libtorch_has_cuda) {
            (None, false) => {
                "there is no NVIDIA driver, and this libtorch is the CPU half (which is all a \
                 machine without a GPU needs)"
            }
            (None, true) => "libtorch has its CUDA half, but there is no NVIDIA driver",
            (Some(_), false) => {
                "there is an NVIDIA driver, but this libtorch is the CPU half: remove .libtorch \
                 and run `make setup` again, then build again"
            }
            (Some(driver), true) => {
                return match self.visible.as_deref().map(str::trim) {
                    Some("" | "-1" | "none" | "NoDevFiles") => {
                        "CUDA_VISIBLE_DEVICES hides all devices".to_owned()
                    }
                    _ => format!(
                        "libtorch has its CUDA half and there is an NVIDIA driver ({driver}), \
                         but no device answers: `nvidia-smi` should list it, and the driver \
                         must be new enough for libtorch's CUDA"
                    ),
                };
            }
        }
        .to_owned()
    }
}

fn nvidia_driver() -> Option<String> {
    if let Ok(text) = std::fs::read_to_string("/proc/driver/nvidia/version") {
        let line = text.lines().next().unwrap_or_default();
        let version = line.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
        return Some(version.unwrap_or("version unknown").to_owned());
    }
    nvidia_smi("driver_version").and_then(|text| Some(text.lines().next()?.trim().to_owned()))
}

fn nvidia_smi(fields: &str) -> Option<String> {
    let output = Command::new("nvidia-smi")
        .arg(format!("--query-gpu={fields}"))
        .arg("--format=csv,noheader,nounits")
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cuda_devices(count: i64) -> Vec<CudaDevice> {
    let output = nvidia_smi("name,memory.total,memory.free").unwrap_or_default();
    (0..usize::try_from(count).unwrap_or(0)).map(|index| cuda_device(index, &output)).collect()
}

/// Device `index` from the output of `nvidia-smi`: `name, total MiB, free MiB` per line.
fn cuda_device(index: usize, output: &str) -> CudaDevice {
    let fields: Vec<&str> =
        output.lines().nth(index).unwrap_or_default().split(',').map(str::trim).collect();
    let mebibytes = |field: usize| fields.get(field)?.parse::<u64>().ok()?.checked_mul(1 << 20);
    let name = fields.first().copied().filter(|name| !name.is_empty());
    CudaDevice {
        index,
        name: name.unwrap_or("unknown").to_owned(),
        total: mebibytes(1),
        free: mebibytes(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_against_cuda_has_its_own_remedy() {
        let why = |libtorch_has_cuda, driver: Option<&str>, visible: Option<&str>| {
            let driver = driver.map(str::to_owned);
            CudaFacts { libtorch_has_cuda, driver, visible: visible.map(str::to_owned) }.why_not()
        };
        assert!(why(false, None, None).contains("no NVIDIA driver, and this libtorch is the CPU"));
        assert!(why(true, None, None).ends_with("there is no NVIDIA driver"));
        assert!(why(false, Some("570.1"), None).contains("`make setup`"));
        assert!(why(true, Some("570.1"), Some("")).starts_with("CUDA_VISIBLE_DEVICES"));
        assert!(why(true, Some("570.1"), Some("0")).contains("570.1"));
    }

    #[test]
    fn system_files_and_nvidia_smi_are_parsed() {
        assert_eq!(cpu_model("flags: a\nmodel name\t: X 1\n").as_deref(), Some("X 1"));
        assert_eq!(total("MemTotal:       100 kB\nMemFree: 1 kB\n"), Some(102_400));
        let maps = "7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 08:01 13   /opt/my torch/lib/libtorch_cpu.so\n";
        let library = loaded_library(maps, "libtorch_cpu").unwrap();
        assert_eq!(library, Path::new("/opt/my torch/lib/libtorch_cpu.so"));
        assert_eq!(loaded_library(maps, "libtorch_cuda"), None);
        let output = "NVIDIA A100, 40960, 40000\nNVIDIA T4, [N/A], 15000\n";
        let expected = CudaDevice {
            index: 1,
            name: "NVIDIA T4".to_owned(),
            total: None,
            free: Some(15_000 << 20),
        };
        assert_eq!(cuda_device(1, output), expected);
        assert_eq!(cuda_device(2, output).name, "unknown");
    }

    #[test]
    fn the_disk_of_a_folder_that_does_not_exist_yet_is_its_parents() {
        let disk = disk(Path::new("/tmp/not/made/yet")).unwrap();
        assert!(disk.total >= disk.free && disk.total > 0);
    }
}
