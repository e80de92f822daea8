//! `cargo run -p leyden-setup`: downloads libtorch from the PyPI wheel into `.libtorch`.
//!
//! Without an NVIDIA driver only the CPU libraries are kept (about 600 MB instead of 4.7 GB):
//! links to the required libraries and a one-line linker script in place of `libtorch.so`, which
//! would otherwise pull in the CUDA libraries. With a driver the whole wheel is kept. Does
//! nothing if `LIBTORCH` or `LIBTORCH_USE_PYTORCH` is set, or if the layout is already complete.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The libtorch that `tch` 0.26 binds.
const TORCH_VERSION: &str = "2.13.0";
/// `libtorch_cpu` of this wheel links to these two CUDA libraries even without a GPU.
const CUDA_STUBS: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

fn main() -> ExitCode {
    match run() {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("cannot set up libtorch: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    let target = root.join(".libtorch");
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return Ok("libtorch: the installed PyTorch is used (LIBTORCH_USE_PYTORCH)".to_owned());
    }
    // Cargo sets LIBTORCH to our own folder; another value is the user's.
    if let Some(own) = std::env::var_os("LIBTORCH").map(PathBuf::from)
        && own.canonicalize().ok() != target.canonicalize().ok()
        && own != target
    {
        return Ok(format!("libtorch: {} is used (LIBTORCH)", own.display()));
    }
    let cuda = Path::new("/proc/driver/nvidia/version").exists();
    let flavour = if cuda { "cuda" } else { "cpu" };
    let marker = target.join("flavour");
    let complete = fs::read_to_string(target.join("build-version"))
        .is_ok_and(|v| v.trim() == TORCH_VERSION)
        && fs::read_to_string(&marker).is_ok_and(|f| f.trim() == flavour);
    if complete {
        return Ok(format!(
            "libtorch {TORCH_VERSION} ({flavour}) is already set up: {}",
            target.display()
        ));
    }
    println!(
        "libtorch {TORCH_VERSION} ({flavour}): downloading the wheel into {}",
        target.display()
    );
    // Built in a temporary folder and renamed, so that an interrupted set-up never looks complete.
    let temporary = root.join(".libtorch.tmp");
    remove_dir(&temporary)?;
    let site = temporary.join("site");
    pip_install(&site, cuda)?;
    let layout = if cuda { full_layout(&temporary) } else { lean_layout(&temporary) };
    layout.map_err(|e| format!("creating the layout in {}: {e}", temporary.display()))?;
    write(&temporary.join("build-version"), TORCH_VERSION)?;
    write(&temporary.join("flavour"), flavour)?;
    remove_dir(&target)?;
    fs::rename(&temporary, &target).map_err(|e| format!("{}: {e}", target.display()))?;
    Ok(format!("libtorch {TORCH_VERSION} ({flavour}) is ready: {}", target.display()))
}

fn remove_dir(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("{}: {e}", path.display())),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Installs the wheel (and, without CUDA, the two stub libraries alone) into `site`.
///
/// Fixes Python version and platform, so that a Python without a matching wheel can still
/// download one: only the C++ libraries are used.
fn pip_install(site: &Path, cuda: bool) -> Result<(), String> {
    let arch = std::env::consts::ARCH;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--root-user-action=ignore", "--only-binary=:all:", "--target"])
        .arg(site)
        .args(["--implementation", "cp", "--python-version", "3.12"])
        .arg(format!("torch=={TORCH_VERSION}"));
    // Older versions of pip take a platform literally, not as "this glibc or an older one".
    for minor in 17..=28 {
        pip.arg("--platform").arg(format!("manylinux_2_{minor}_{arch}"));
    }
    pip.args(["--platform", &format!("manylinux2014_{arch}")]);
    if !cuda {
        pip.arg("--no-deps").args(CUDA_STUBS);
    }
    let status = pip.status().map_err(|e| {
        format!("python3 did not start ({e}); install python3 with pip, or set LIBTORCH")
    })?;
    if !status.success() {
        return Err(format!(
            "pip could not download torch {TORCH_VERSION} ({status}); is the package index reachable?"
        ));
    }
    Ok(())
}

/// The CPU layout: `include`, links to the libraries, a linker script for `libtorch.so`.
fn lean_layout(root: &Path) -> io::Result<()> {
    let torch = Path::new("site/torch");
    symlink(torch.join("include"), root.join("include"))?;
    fs::create_dir(root.join("lib"))?;
    for name in ["libc10.so", "libtorch_cpu.so", "libgomp.so.1"] {
        symlink(Path::new("..").join(torch).join("lib").join(name), root.join("lib").join(name))?;
    }
    for name in ["libcudart.so.13", "libcupti.so.13"] {
        symlink(Path::new("../site/nvidia/cu13/lib").join(name), root.join("lib").join(name))?;
    }
    fs::write(root.join("lib/libtorch.so"), "INPUT(libtorch_cpu.so)\n")?;
    prune(root)
}

/// Deletes the CUDA libraries and the Python files, which the CPU layout does not use.
fn prune(root: &Path) -> io::Result<()> {
    let keep_torch = ["include", "lib"];
    for entry in fs::read_dir(root.join("site/torch"))? {
        let path = entry?.path();
        let kept =
            path.file_name().and_then(|n| n.to_str()).is_some_and(|n| keep_torch.contains(&n));
        if !kept {
            remove_any(&path)?;
        }
    }
    let keep_lib = ["libc10.so", "libtorch_cpu.so", "libgomp.so.1"];
    for entry in fs::read_dir(root.join("site/torch/lib"))? {
        let path = entry?.path();
        let kept = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| keep_lib.contains(&n));
        if !kept {
            remove_any(&path)?;
        }
    }
    Ok(())
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// The whole wheel: its own folder already has the layout that torch-sys expects.
fn full_layout(root: &Path) -> io::Result<()> {
    symlink("site/torch/include", root.join("include"))?;
    symlink("site/torch/lib", root.join("lib"))
}
