//! Compiles etcd's API with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=v3");
    let files = protox::compile(["v3/rpc.proto"], ["."])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
