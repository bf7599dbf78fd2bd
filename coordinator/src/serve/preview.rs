//! What a run would find on a target and do there, without doing it.
//!
//! Asked by the dry run. Law: what would be refused is refused here with the same words; nothing is written anywhere.

use std::path::Path;

use vst_common::scenario::check::Checked;

use super::prepare::{Prepared, prepare};
use super::{Error, TargetError};
use crate::target::{Found, Holder, OwnerMarker, left_behind};

/// A run that could begin.
#[derive(Debug)]
pub struct Preview {
    /// What a run begins with.
    pub prepared: Prepared,
    /// What an earlier run left, which `--cleanup` would remove first.
    pub left: Option<OwnerMarker>,
    /// Who is alive under the prefix; a run waits until its time has run out.
    pub holder: Option<Holder>,
}

/// [`prepare`], and a look under the prefix.
///
/// # Errors
/// [`Error`].
pub async fn preview(
    checked: &Checked,
    base_dir: &Path,
    target: &str,
    cleanup: bool,
) -> Result<Preview, Error> {
    let prepared = prepare(checked, base_dir, target).await?;
    let prefix = &checked.scenario.population.prefix;
    let foreign = |what| Error::Target(TargetError::Foreign { prefix: prefix.clone(), what });
    let holder = prepared.target.holder(prefix).await?;
    let left = match prepared.target.inspect(prefix).await? {
        Found::Empty => None,
        Found::Foreign { what } => return Err(foreign(what)),
        Found::OursLeftBehind(marker) => Some(marker),
    };
    if let Some(left) = &left
        && let Some(what) = prepared.target.beside(left).await?
    {
        return Err(foreign(what));
    }
    match (&holder, &left) {
        (Some(holder), _) if !cleanup => Err(prepared.target.in_use(prefix, holder)?.into()),
        (None, Some(left)) if !cleanup && prepared.plan.reuses().is_none() => {
            Err(left_behind(left.clone()).into())
        }
        _ => Ok(Preview { prepared, left, holder }),
    }
}
