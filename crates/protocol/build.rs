//! Compiles the protos without a system protoc and keeps their descriptors for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost_types::FileDescriptorSet;

const FILES: [&str; 3] = [
    "com/totvs/ingestion/grpc/table_stream.proto",
    "malote/ingestion/v1/ingestion.proto",
    "malote/fleet/v1/fleet.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    for file in FILES {
        compiler.open_file(file)?;
    }
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let set: FileDescriptorSet = compiler.file_descriptor_set();
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.compile_fds(set)?;
    Ok(())
}
