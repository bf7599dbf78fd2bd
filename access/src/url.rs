//! Where a target is and how to be let in.

use std::fmt;

use redis::{ConnectionAddr, IntoConnectionInfo};
use url::Url;

use crate::{Credentials, Tls, TlsError, join};

const FORM: &str = "valkey://[user@]host[:port], valkeys:// with TLS, or unix:///path[?user=name]";
const DEFAULT_PORT: u16 = 6379;
const DEFAULT_USER: &str = "default";
/// Variables that may hold the password; the first that is set counts.
const PASSWORD_VARIABLES: [&str; 2] = ["VST_PASSWORD", "VALKEY_PASSWORD"];

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetUrlError {
    /// Not of the form.
    #[error("target `{url}` is not of the form {FORM}: {why}")]
    Form {
        /// The text, without a password.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A password in the URL would show in process lists and shell histories.
    #[error("the target's URL holds a password: take it out and put it into the environment as VST_PASSWORD")]
    Password,
    /// TLS that cannot be set up.
    #[error("target `{url}` wants TLS: {source}")]
    Tls {
        /// The text.
        url: String,
        /// Why not.
        source: TlsError,
    },
}

/// A target's address and the way in. Prints without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUrl {
    host: String,
    port: u16,
    credentials: Credentials,
}

impl TargetUrl {
    /// Reads a URL; password and TLS files come from the environment.
    ///
    /// # Errors
    /// [`TargetUrlError`].
    pub fn from_env(url: &str) -> Result<Self, TargetUrlError> {
        Self::with(url, &|name| std::env::var(name).ok())
    }

    /// Reads a URL; the password is given, TLS files come from the environment.
    ///
    /// # Errors
    /// [`TargetUrlError`].
    pub fn new(url: &str, password: Option<String>) -> Result<Self, TargetUrlError> {
        let read = Self::with(url, &|name| match name {
            _ if PASSWORD_VARIABLES.contains(&name) => None,
            name => std::env::var(name).ok(),
        })?;
        Ok(Self { credentials: Credentials { password, ..read.credentials }, ..read })
    }

    /// Reads a URL; what is no business of a URL comes from variables.
    ///
    /// # Errors
    /// [`TargetUrlError`].
    pub fn with(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, TargetUrlError> {
        let form = |why| TargetUrlError::Form { url: url.to_owned(), why };
        let Ok(parsed) = Url::parse(url) else {
            // What cannot be parsed may still hold a password, and must not be repeated.
            let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest).to_owned();
            return Err(TargetUrlError::Form { url: shown, why: "not a URL" });
        };
        if parsed.password().is_some() {
            return Err(TargetUrlError::Password);
        }
        let password = PASSWORD_VARIABLES.iter().find_map(|name| variable(name).filter(|p| !p.is_empty()));
        let (plain, encrypted) = match parsed.scheme() {
            "unix" => return Self::socket(&parsed, password, form),
            "valkey" | "redis" => (url.to_owned(), false),
            "valkeys" => (url.replacen("valkeys", "valkey", 1), true),
            "rediss" => (url.replacen("rediss", "redis", 1), true),
            _ => return Err(form("the scheme is not `valkey`")),
        };
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(form("something follows the port; vst uses database 0"));
        }
        let info = plain.into_connection_info().map_err(|_| form("no host"))?;
        let ConnectionAddr::Tcp(host, _) = info.addr() else { return Err(form("no host")) };
        let tls = encrypted.then(|| Tls::from_variables(variable)).transpose();
        let tls = tls.map_err(|source| TargetUrlError::Tls { url: url.to_owned(), source })?;
        let username = info.redis_settings().username().map(str::to_owned);
        Ok(Self {
            host: host.clone(),
            port: parsed.port().unwrap_or(DEFAULT_PORT),
            credentials: Credentials { username, password, tls },
        })
    }

    fn socket(
        parsed: &Url,
        password: Option<String>,
        form: impl Fn(&'static str) -> TargetUrlError,
    ) -> Result<Self, TargetUrlError> {
        if parsed.host_str().is_some_and(|host| !host.is_empty()) || parsed.path().len() < 2 {
            return Err(form("the path of a socket begins with `/`, so there are three of them"));
        }
        let mut username = None;
        for (key, value) in parsed.query_pairs() {
            match &*key {
                "user" => username = Some(value.into_owned()),
                _ => return Err(form("only `?user=name` may follow the path")),
            }
        }
        let host = parsed.path().to_owned();
        Ok(Self { host, port: 0, credentials: Credentials { username, password, tls: None } })
    }

    /// `host:port`, or the path of the socket.
    #[must_use]
    pub fn address(&self) -> String {
        join(&self.host, self.port)
    }

    /// The host's name or address, or the path of the socket.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 of a socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user that we say we are.
    #[must_use]
    pub fn user(&self) -> &str {
        self.credentials.username.as_deref().unwrap_or(DEFAULT_USER)
    }

    /// What MIGRATE has to say so that the other node lets it in.
    #[must_use]
    pub fn words_for_migrate(&self) -> Vec<&str> {
        match (&self.credentials.username, &self.credentials.password) {
            (Some(user), Some(password)) => vec!["AUTH2", user, password],
            (None, Some(password)) => vec!["AUTH", password],
            (_, None) => Vec::new(),
        }
    }

    /// How every node of the target lets us in.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials.username.as_deref();
        if crate::is_socket_path(&self.host) {
            let user = user.map(|user| format!("?user={user}")).unwrap_or_default();
            return write!(f, "unix://{}{user}", self.host);
        }
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let scheme = if self.credentials.tls.is_some() { "valkeys" } else { "valkey" };
        write!(f, "{scheme}://{user}{}", self.address())
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TargetUrl, TargetUrlError> {
        TargetUrl::with(text, &|name| (name == "VST_TARGET_INSECURE").then(|| String::from("1")))
    }

    #[test]
    fn a_url_gives_host_port_and_user() {
        let shown = |text: &str| {
            let url = read(text).unwrap();
            (url.address(), url.user().to_owned(), url.to_string())
        };
        let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(shown("valkey://h:7000"), of("h:7000", "default", "valkey://h:7000"));
        assert_eq!(shown("redis://10.0.0.1"), of("10.0.0.1:6379", "default", "valkey://10.0.0.1:6379"));
        assert_eq!(shown("valkey://me@h:1/"), of("h:1", "me", "valkey://me@h:1"));
        assert_eq!(shown("valkey://[::1]:7000"), of("[::1]:7000", "default", "valkey://[::1]:7000"));
        assert_eq!(shown("valkeys://me@h"), of("h:6379", "me", "valkeys://me@h:6379"));
        assert_eq!(shown("rediss://h:1"), of("h:1", "default", "valkeys://h:1"));
        assert_eq!(shown("unix:///run/v.sock"), of("/run/v.sock", "default", "unix:///run/v.sock"));
        assert_eq!(shown("unix:///run/v?user=me"), of("/run/v", "me", "unix:///run/v?user=me"));
        assert!(read("valkeys://h").unwrap().credentials().tls.is_some());
        assert!(read("valkey://h").unwrap().credentials().tls.is_none());
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_form() {
        for text in [
            "localhost:7000",
            "",
            "h",
            "http://h:1",
            "valkey://",
            "valkey://h:99999",
            "valkey://h/3",
            "valkeys://h/3",
            "unix://run/v.sock",
            "unix:///",
            "unix:///run/v?db=3",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.to_string().contains(FORM), "{text}: {error}");
        }
    }

    #[test]
    fn tls_that_cannot_be_set_up_says_whose_fault_it_is() {
        let error = TargetUrl::with("valkeys://h", &|name| {
            (name == "VST_TARGET_CA").then(|| String::from("/nowhere/ca.pem"))
        });
        assert!(error.unwrap_err().to_string().contains("VST_TARGET_CA names `/nowhere/ca.pem`"));
    }

    #[test]
    fn a_password_comes_from_the_environment_and_is_printed_nowhere() {
        let secret = "s3cr3t";
        let set = |name: &str| (name == "VALKEY_PASSWORD").then(|| secret.to_owned());
        let url = TargetUrl::with("valkey://me@h:1", &set).unwrap();
        assert_eq!(url.credentials().password.as_deref(), Some(secret));
        assert!(!format!("{url} {url:?} {:?}", url.credentials()).contains(secret));
        for text in ["valkey://me:s3cr3t@h:1", "valkey://me:s3cr3t@h:99999", "valkey://:s3cr3t@h"] {
            let error = read(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }
}
