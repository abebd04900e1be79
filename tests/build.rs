//! Generates a gRPC client from the contract with KEDA that the agent ships, so that its scaler is tested by code that nobody here wrote.

use std::error::Error;

const DIRECTORY: &str = "../agent/deploy/keda";
const PROTO: &str = "externalscaler.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DIRECTORY}/{PROTO}");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::compile([PROTO], [DIRECTORY])?;
    tonic_prost_build::configure().build_server(false).build_transport(true).compile_fds(descriptors)?;
    Ok(())
}
