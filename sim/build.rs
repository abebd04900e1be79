//! Has the program's calls of two of zstd's functions go through `src/contexts.rs`, by an option of the linkers of Linux.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        for function in ["ZSTD_createCCtx", "ZSTD_freeCCtx"] {
            println!("cargo:rustc-link-arg-bins=-Wl,--wrap={function}");
        }
    }
}
