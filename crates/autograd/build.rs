use std::env;
use std::path::PathBuf;

fn main() {
    leyden_setup::link_libtorch();
    println!("cargo:rerun-if-changed=src/node.cpp");
    // Without libtorch, torch-sys fails with its own message.
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else { return };
    let include = lib.with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .warnings(false)
        .include(include.join("torch/csrc/api/include"))
        .include(&include)
        .flag("-std=c++17")
        .file("src/node.cpp")
        .compile("leyden_autograd_node");
}
