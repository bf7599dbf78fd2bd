//! Compiles the contract with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=fleet");
    let files = protox::compile(["fleet/v1/fleet.proto"], ["."])?;
    let mut contract = tonic_prost_build::configure();
    // What people and scripts are shown is this very message as JSON.
    for shown in ["Status", "Member"] {
        contract = contract.type_attribute(format!("vst.fleet.v1.{shown}"), "#[derive(serde::Serialize)]");
    }
    contract.compile_fds(files)?;
    Ok(())
}
