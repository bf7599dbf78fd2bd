//! Where the server and the search module are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const SERVER_VARIABLE: &str = "VST_VALKEY_SERVER";
const MODULE_VARIABLE: &str = "VST_SEARCH_MODULE";
const SERVER_NAME: &str = "valkey-server";
const MODULE_NAME: &str = "redisearch.so";
/// Where `make servers` puts them, seen from the project's root.
const FETCHED: &str = ".local/servers";

/// A binary could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerFilesError {
    /// A variable names a file that is not there.
    #[error("{variable} names {}, which is not a file; correct or unset it", path.display())]
    Named {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// Nowhere.
    #[error(
        "no {what} found: run `make servers` in the project's folder, set {variable}, or name a running server with \
         `--target valkey://host:port`"
    )]
    Missing {
        /// Which binary.
        what: &'static str,
        /// The environment variable that can name it.
        variable: &'static str,
    },
}

/// The binaries that a local cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// `valkey-server`.
    pub valkey_server: PathBuf,
    /// The module to load; `None` starts servers without vector search.
    pub search_module: Option<PathBuf>,
}

impl ServerFiles {
    /// Looks at `VST_VALKEY_SERVER` and `VST_SEARCH_MODULE`; then at `.local/servers` in the current folder, in the
    /// executable's and in all folders above them; then, for the server, along `PATH`.
    ///
    /// # Errors
    /// [`ServerFilesError`], with what to do about it.
    pub fn find() -> Result<Self, ServerFilesError> {
        let current = std::env::current_dir().ok();
        let executable = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let starts: Vec<PathBuf> = current.into_iter().chain(executable).collect();
        Self::find_in(|name| std::env::var_os(name), &starts)
    }

    fn find_in(
        variable: impl Fn(&str) -> Option<OsString>,
        starts: &[PathBuf],
    ) -> Result<Self, ServerFilesError> {
        let named = |name: &'static str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => {
                let path = PathBuf::from(value);
                // A server changes its folder at its start, so a relative path would lead elsewhere.
                match path.canonicalize() {
                    Ok(whole) if whole.is_file() => Ok(Some(whole)),
                    _ => Err(ServerFilesError::Named { variable: name, path }),
                }
            }
        };
        let fetched = |file: &str| {
            let folders = starts.iter().flat_map(|start| start.ancestors());
            folders.map(|folder| folder.join(FETCHED).join(file)).find(|path| path.is_file())
        };
        let installed = || {
            let path = variable("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(SERVER_NAME)).find(|path| path.is_file())
        };
        let missing = |what, variable| ServerFilesError::Missing { what, variable };
        let valkey_server = named(SERVER_VARIABLE)?
            .or_else(|| fetched(SERVER_NAME))
            .or_else(installed)
            .ok_or_else(|| missing("Valkey server", SERVER_VARIABLE))?;
        let search_module = named(MODULE_VARIABLE)?
            .or_else(|| fetched(MODULE_NAME))
            .ok_or_else(|| missing("vector search module", MODULE_VARIABLE))?;
        Ok(Self { valkey_server, search_module: Some(search_module) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    fn find(variables: &[(&str, &Path)], start: &Path) -> Result<ServerFiles, ServerFilesError> {
        let variables: HashMap<String, OsString> =
            variables.iter().map(|(k, v)| ((*k).to_owned(), v.as_os_str().to_owned())).collect();
        ServerFiles::find_in(|name| variables.get(name).cloned(), &[start.to_owned()])
    }

    #[test]
    fn variables_come_before_fetched_files_and_those_before_the_path() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let deep = root.join("project/a/b");
        let (bin, own) = (root.join("bin"), root.join("own"));
        std::fs::create_dir_all(&deep).unwrap();
        touch(&bin.join(SERVER_NAME));
        touch(&own);

        let missing = find(&[("PATH", &bin)], &deep).unwrap_err();
        assert_eq!(
            missing,
            ServerFilesError::Missing { what: "vector search module", variable: MODULE_VARIABLE }
        );
        let from_path = find(&[("PATH", &bin), (MODULE_VARIABLE, &own)], &deep).unwrap();
        assert_eq!(from_path.valkey_server, bin.join(SERVER_NAME));
        assert_eq!(from_path.search_module.as_ref(), Some(&own));

        let fetched = root.join("project").join(FETCHED);
        touch(&fetched.join(SERVER_NAME));
        touch(&fetched.join(MODULE_NAME));
        let found = find(&[("PATH", &bin)], &deep).unwrap();
        assert_eq!(found.valkey_server, fetched.join(SERVER_NAME));
        assert_eq!(found.search_module, Some(fetched.join(MODULE_NAME)));
        let named = find(&[("PATH", &bin), (SERVER_VARIABLE, &own)], &deep).unwrap();
        assert_eq!(named.valkey_server, own);
    }

    #[test]
    fn a_variable_that_names_nothing_is_an_error_and_not_ignored() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = root.path().join("nowhere");
        let error = find(&[(SERVER_VARIABLE, &nowhere)], root.path()).unwrap_err();
        assert_eq!(error, ServerFilesError::Named { variable: SERVER_VARIABLE, path: nowhere });
    }

    #[test]
    fn what_is_missing_is_named_with_the_ways_out() {
        let root = tempfile::tempdir().unwrap();
        let text = find(&[], root.path()).unwrap_err().to_string();
        for way in ["Valkey server", "make servers", SERVER_VARIABLE, "--target"] {
            assert!(text.contains(way), "{text}");
        }
    }
}
