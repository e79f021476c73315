//! Compiles the C++ side of the gradient hooks against the libtorch that torch-sys links.

fn main() {
    println!("cargo:rerun-if-changed=src/autograd/shim.cpp");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    #[cfg(feature = "torch")]
    compile_shim();
}

#[cfg(feature = "torch")]
fn compile_shim() {
    let Some(root) = std::env::var_os("LIBTORCH").map(std::path::PathBuf::from) else {
        panic!("LIBTORCH is not set; run `cargo xtask setup`, or point it at an unpacked libtorch 2.11.0");
    };
    let include = root.join("include");
    assert!(include.is_dir(), "{}: no such folder; run `cargo xtask setup`", include.display());
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .warnings(false)
        .opt_level(2)
        .file("src/autograd/shim.cpp")
        .compile("core_tensor_autograd");
}
