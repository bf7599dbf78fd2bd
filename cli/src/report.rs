//! The report at the end of a run, as far as this build can make one.
//!
//! Called by `vst run`. A build for a fleet's image has no query engine (feature `analysis`); it says where the run is
//! and how to read it.

#[cfg(not(feature = "analysis"))]
use vst_common::exit::Exit;

#[cfg(feature = "analysis")]
pub(crate) use crate::analyze::summary;
#[cfg(not(feature = "analysis"))]
use crate::{error::Failure, output};

/// Names the run directory; whether the run is valid is not known here.
#[cfg(not(feature = "analysis"))]
pub(crate) async fn summary(run: &str, json: bool) -> Result<Exit, Failure> {
    output::note("this vst has no query engine: read the run with `vst analyze summary` of a full build");
    let shown = if json { serde_json::json!({ "run_directory": run }).to_string() } else { run.to_owned() };
    output::result(&shown)?;
    Ok(Exit::Valid)
}
