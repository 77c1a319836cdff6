//! Compiles the protocol with a compiler written in Rust: no `protoc` is needed on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "scheduler/v1/types.proto",
    "scheduler/v1/executor.proto",
    "scheduler/v1/control.proto",
    "scheduler/v1/peer.proto",
];

/// Another program's: we only call it, and do not describe it to our callers.
const ETCD: &str = "etcd/rpc.proto";

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES.iter().chain([&ETCD]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // Server reflection serves the same descriptors.
    #[expect(clippy::disallowed_methods, reason = "cargo tells build scripts so")]
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".millrace.scheduler.v1.Start.with").compile_fds(descriptors)?;
    tonic_prost_build::configure().build_server(false).compile_fds(protox::compile([ETCD], ["."])?)?;
    Ok(())
}
