//! Where data is: from what a person wrote to an absolute URL, from there to a store and a path in it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use url::Url;

use super::Error;

/// The URL schemes that [`open_store`] knows, as a message names them.
pub(super) const SCHEMES: &str = "file://";

/// The absolute URL of a reference: a URL stays what it is, a path is taken relative to `base_dir` (`..` is resolved
/// in the text, without a look at the disk).
///
/// # Errors
/// When the reference is empty or not a URL, or its scheme is not supported.
pub fn resolve(reference: &str, base_dir: &Path) -> Result<Url, Error> {
    let refused =
        |reason: &str| Error::Reference { reference: reference.to_owned(), reason: reason.to_owned() };
    if reference.contains("://") {
        let url = Url::parse(reference).map_err(|reason| refused(&reason.to_string()))?;
        local_path(&url)?;
        return Ok(url);
    }
    if reference.is_empty() {
        return Err(refused("it is empty"));
    }
    let path =
        std::path::absolute(base_dir.join(reference)).map_err(|reason| refused(&reason.to_string()))?;
    Url::from_file_path(without_parents(&path)).map_err(|()| refused("it is not an absolute path"))
}

/// The store that holds a URL's object, and the object's path in it.
///
/// # Errors
/// When the scheme is not supported, or the URL names no path of this machine.
pub fn open_store(url: &Url) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path), Error> {
    let path = object_store::path::Path::from_absolute_path(local_path(url)?)
        .map_err(|reason| Error::Reference { reference: url.to_string(), reason: reason.to_string() })?;
    Ok((Arc::new(LocalFileSystem::new()), path))
}

fn local_path(url: &Url) -> Result<PathBuf, Error> {
    if url.scheme() != "file" {
        return Err(Error::UnsupportedScheme { url: url.to_string(), scheme: url.scheme().to_owned() });
    }
    url.to_file_path().map_err(|()| Error::Reference {
        reference: url.to_string(),
        reason: String::from("a file URL names no host: file:///absolute/path"),
    })
}

fn without_parents(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(component),
        }
    }
    out
}
