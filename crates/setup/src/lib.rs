//! What build scripts share: linker arguments for every package with a libtorch binary or test, and
//! the revision of the sources.
//!
//! `torch-sys` finds libtorch at build time but leaves two gaps. It sets no run path, so a binary
//! would start only with `LD_LIBRARY_PATH`; and no Rust code refers to a symbol of
//! `libtorch_cuda`, so the linker drops it and CUDA is silently missing. Both need arguments of
//! the final link, which Cargo takes only from the build script of the package that builds the
//! binary: hence each such build script calls `leyden_setup::link_libtorch()`.

mod revision;

use std::env;
use std::path::{Path, PathBuf};

pub use revision::record_revision;

/// Emits the run path of libtorch and keeps its CUDA library linked if present.
///
/// Call it from `build.rs` of a package that depends on `torch-sys` directly: Cargo sets
/// `DEP_TCH_LIBTORCH_LIB` only for those. Without libtorch it emits nothing, and `torch-sys`
/// fails with its own message.
pub fn link_libtorch() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_USE_PYTORCH");
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        return;
    };
    for argument in link_arguments(&lib) {
        println!("cargo:rustc-link-arg={argument}");
    }
    println!("cargo:rustc-env=LEYDEN_LIBTORCH_LIB={}", lib.display());
}

/// The linker arguments for the libtorch with libraries in `lib`.
fn link_arguments(lib: &Path) -> Vec<String> {
    let mut arguments = vec![format!("-Wl,-rpath,{}", lib.display())];
    if lib.join("libtorch_cuda.so").exists() {
        arguments.extend([
            "-Wl,--no-as-needed".to_owned(),
            format!("-L{}", lib.display()),
            "-ltorch_cuda".to_owned(),
            "-Wl,--as-needed".to_owned(),
        ]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::link_arguments;
    use std::path::Path;

    #[test]
    fn a_lean_layout_gets_a_run_path_only() {
        let arguments = link_arguments(Path::new("/nowhere/lib"));
        assert_eq!(arguments, ["-Wl,-rpath,/nowhere/lib"]);
    }
}
