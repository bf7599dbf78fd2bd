//! Nothing: this crate only asks for features of the shared dependencies (see its Cargo.toml).
