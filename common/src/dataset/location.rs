//! Where data is: from what a person wrote to an absolute URL, from there to a store and a path in it.
//!
//! Credentials come from the environment in each store's own variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`), never from a
//! URL, because URLs travel in plans, logs and run directories. Repetition is the reader's business, so that every
//! repeated request is counted: the stores themselves are told not to repeat.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::{Error, generate};

/// The URL schemes that can be read, as a message names them.
pub(super) const SCHEMES: &str = "file://, s3://, gs://, az://, http://, https:// and generate:";
/// For so long a request to a run directory is sent again.
const REPEATED_FOR: Duration = Duration::from_secs(10);
const REMOTE: &[&str] = &["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https"];

/// The absolute URL of a reference: a URL stays what it is, a path is taken relative to `base_dir` (`..` is resolved
/// in the text, without a look at the disk). A name that ends in `#section` names a section of a file that has several
/// (`glove.hdf5#test`).
///
/// # Errors
/// When the reference is empty or not a URL, or its scheme is not supported.
pub fn resolve(reference: &str, base_dir: &Path) -> Result<Url, Error> {
    let refused =
        |reason: &str| Error::Reference { reference: reference.to_owned(), reason: reason.to_owned() };
    if reference.contains("://") || generate::is_generated(reference) {
        let url = Url::parse(reference).map_err(|reason| refused(&reason.to_string()))?;
        check_scheme(&url)?;
        return Ok(url);
    }
    if reference.is_empty() {
        return Err(refused("it is empty"));
    }
    let (file, section) = split_section(reference);
    let path = std::path::absolute(base_dir.join(file)).map_err(|reason| refused(&reason.to_string()))?;
    let url = Url::from_file_path(without_parents(&path));
    let mut url = url.map_err(|()| refused("it is not an absolute path"))?;
    url.set_fragment(section);
    Ok(url)
}

/// A name may contain `#`; it names a section only where a file that can have some ends before it.
fn split_section(reference: &str) -> (&str, Option<&str>) {
    match reference.rsplit_once('#') {
        Some((file, section))
            if !section.is_empty()
                && section.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && super::Format::has_sections(file) =>
        {
            (file, Some(section))
        }
        _ => (reference, None),
    }
}

fn check_scheme(url: &Url) -> Result<(), Error> {
    let refused = |reason: &str| Error::Reference { reference: shown(url), reason: reason.to_owned() };
    match url.scheme() {
        "file" => local_path(url).map(|_| ()),
        generate::SCHEME => Ok(()),
        scheme if REMOTE.contains(&scheme) => {
            if !url.username().is_empty() || url.password().is_some() {
                return Err(refused("credentials do not belong in a URL: give them in the environment"));
            }
            if url.host_str().is_none_or(str::is_empty) {
                return Err(refused("it names no bucket, container or host"));
            }
            Ok(())
        }
        scheme => Err(Error::UnsupportedScheme { url: shown(url), scheme: scheme.to_owned() }),
    }
}

/// The store that holds a URL's object, and the object's path in it.
///
/// # Errors
/// When the scheme is not supported, the URL names no path of this machine, or the store's settings in the environment
/// cannot be used.
pub fn open_store(url: &Url) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path), Error> {
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    Ok((store_of(url, once)?, path_of(url)?))
}

/// As [`open_store`], but requests that fail on their way are sent again for a while by the store's own client. For
/// what is not counted: run directories.
///
/// # Errors
/// As [`open_store`].
pub fn open_store_that_repeats(url: &Url) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path), Error> {
    let some = RetryConfig { max_retries: 5, retry_timeout: REPEATED_FOR, ..RetryConfig::default() };
    Ok((store_of(url, some)?, path_of(url)?))
}

/// The object's path in its store.
pub(super) fn path_of(url: &Url) -> Result<object_store::path::Path, Error> {
    check_scheme(url)?;
    let refused = |reason: String| Error::Reference { reference: shown(url), reason };
    if url.scheme() == "file" {
        let path = local_path(url)?;
        return object_store::path::Path::from_absolute_path(path).map_err(|e| refused(e.to_string()));
    }
    let (_, path) = ObjectStoreScheme::parse(url).map_err(|e| refused(e.to_string()))?;
    if path.as_ref().is_empty() {
        return Err(refused(String::from("it names no object")));
    }
    Ok(path)
}

fn store_of(url: &Url, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>, Error> {
    check_scheme(url)?;
    let failed = |source| failed(&shown(url), source);
    let plain =
        |variables: &[&str]| variables.iter().any(|name| env(name).is_some_and(|v| v.starts_with("http://")));
    Ok(match url.scheme() {
        "file" => Arc::new(LocalFileSystem::new()),
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
            let builder = if plain(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]) {
                builder.with_allow_http(true)
            } else {
                builder
            };
            Arc::new(builder.build().map_err(failed)?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry);
            Arc::new(builder.build().map_err(failed)?)
        }
        "http" | "https" => {
            // The query stays with the host's part, since a signed URL is valid with it only.
            let mut base = url.clone();
            base.set_path("");
            base.set_fragment(None);
            let client = ClientOptions::new().with_allow_http(url.scheme() == "http");
            let builder = HttpBuilder::new().with_url(base).with_client_options(client).with_retry(retry);
            Arc::new(builder.build().map_err(failed)?)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry);
            let builder = if plain(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]) {
                builder.with_allow_http(true)
            } else {
                builder
            };
            Arc::new(builder.build().map_err(failed)?)
        }
    })
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether requests go over a network, where a repetition can help.
pub(super) fn is_remote(url: &Url) -> bool {
    REMOTE.contains(&url.scheme())
}

/// A URL as it may be shown and kept: without credentials and without a query, which can be a signature.
pub(super) fn shown(url: &Url) -> String {
    if !is_remote(url) {
        return url.to_string();
    }
    let mut url = url.clone();
    // Neither can fail for a URL with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// A store's error with what can be done about it.
pub(super) fn failed(url: &str, source: object_store::Error) -> Error {
    use object_store::Error as E;
    let url = url.to_owned();
    let refused = matches!(source, E::Unauthenticated { .. } | E::PermissionDenied { .. });
    let scheme = url.split(':').next().unwrap_or_default();
    let local = matches!(scheme, "file" | "memory");
    if !local && (refused || is_about_credentials(&source)) {
        let fix = match scheme {
            "s3" | "s3a" => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
            }
            "gs" => "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
            "http" | "https" => {
                "the server wants a login, which vst does not send: use a store or a signed URL"
            }
            _ => "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        };
        return Error::Credentials { url, fix, source };
    }
    match source {
        source @ E::NotFound { .. } => Error::NotFound { url, source },
        source => Error::Store { url, source },
    }
}

/// Whether a request failed before it was sent because there was nothing to sign it with.
pub(super) fn is_about_credentials(error: &object_store::Error) -> bool {
    let text = with_causes(error).to_lowercase();
    // The last resort for credentials is the machine's own metadata service, wherever that is.
    let words = [
        "169.254.",
        "metadata.google",
        "/latest/api/token",
        "/latest/meta-data",
        "credential",
        "account must be specified",
        "missing account",
    ];
    words.iter().any(|word| text.contains(word))
}

/// An error and what is behind it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

pub(super) fn local_path(url: &Url) -> Result<PathBuf, Error> {
    if url.scheme() != "file" {
        return Err(Error::UnsupportedScheme { url: shown(url), scheme: url.scheme().to_owned() });
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
