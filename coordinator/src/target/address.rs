//! Where a target is and how to be let in.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use url::Url;

const FORM: &str = "valkey://[user@]host[:port]";
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
}

/// A target's address, user and password. Prints without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUrl {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<String>,
}

impl TargetUrl {
    /// Reads a URL; the password comes from the environment.
    ///
    /// # Errors
    /// [`TargetUrlError`].
    pub fn from_env(url: &str) -> Result<Self, TargetUrlError> {
        let password =
            PASSWORD_VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|p| !p.is_empty()));
        Self::new(url, password)
    }

    /// Reads a URL; the password is given.
    ///
    /// # Errors
    /// [`TargetUrlError`].
    pub fn new(url: &str, password: Option<String>) -> Result<Self, TargetUrlError> {
        let form = |why| TargetUrlError::Form { url: url.to_owned(), why };
        let Ok(parsed) = Url::parse(url) else {
            // What cannot be parsed may still hold a password, and must not be repeated.
            let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest).to_owned();
            return Err(TargetUrlError::Form { url: shown, why: "not a URL" });
        };
        if parsed.password().is_some() {
            return Err(TargetUrlError::Password);
        }
        match parsed.scheme() {
            "valkey" | "redis" => {}
            "valkeys" | "rediss" => return Err(form("TLS is not supported yet")),
            _ => return Err(form("the scheme is not `valkey`")),
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(form("something follows the port; vst uses database 0"));
        }
        let info = url.into_connection_info().map_err(|_| form("no host"))?;
        let ConnectionAddr::Tcp(host, _) = info.addr() else { return Err(form("no host")) };
        Ok(Self {
            host: host.clone(),
            port: parsed.port().unwrap_or(DEFAULT_PORT),
            user: info.redis_settings().username().map(str::to_owned),
            password,
        })
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        join(&self.host, self.port)
    }

    /// The host's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The user that we say we are.
    #[must_use]
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(DEFAULT_USER)
    }

    /// What MIGRATE has to say so that the other node lets it in.
    pub(super) fn words_for_migrate(&self) -> Vec<&str> {
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => vec!["AUTH2", user, password],
            (None, Some(password)) => vec!["AUTH", password],
            (_, None) => Vec::new(),
        }
    }

    /// How to connect to one node with these credentials.
    pub(super) fn connection_to(&self, address: &str) -> Option<ConnectionInfo> {
        let (host, port) = split(address)?;
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = &self.user {
            // Without a password the client library would not say who we are.
            settings = settings.set_username(user).set_password(self.password.as_deref().unwrap_or_default());
        } else if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let address = ConnectionAddr::Tcp(host.to_owned(), port);
        address.into_connection_info().ok().map(|info| info.set_redis_settings(settings))
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        write!(f, "valkey://{user}{}", self.address())
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetUrl({self})")
    }
}

pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `host:port`, `[v6]:port` or the server's own `v6:port`.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_user() {
        let read = |text: &str| {
            let url = TargetUrl::new(text, None).unwrap();
            (url.address(), url.user().to_owned(), url.to_string())
        };
        let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("valkey://h:7000"), of("h:7000", "default", "valkey://h:7000"));
        assert_eq!(read("redis://10.0.0.1"), of("10.0.0.1:6379", "default", "valkey://10.0.0.1:6379"));
        assert_eq!(read("valkey://me@h:1/"), of("h:1", "me", "valkey://me@h:1"));
        assert_eq!(read("valkey://[::1]:7000"), of("[::1]:7000", "default", "valkey://[::1]:7000"));
        assert_eq!(split("[::1]:7000"), Some(("::1", 7000)));
        assert_eq!(split("::1:7000"), Some(("::1", 7000)));
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
            "valkeys://h",
        ] {
            let error = TargetUrl::new(text, None).unwrap_err();
            assert!(error.to_string().contains(FORM), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_printed_nowhere() {
        let secret = "s3cr3t";
        let url = TargetUrl::new("valkey://me@h:1", Some(secret.to_owned())).unwrap();
        assert!(!format!("{url} {url:?} {:?}", url.connection_to("h:1")).contains(secret));
        assert_eq!(url.connection_to("h:1").unwrap().redis_settings().password(), Some(secret));
        for text in ["valkey://me:s3cr3t@h:1", "valkey://me:s3cr3t@h:99999", "valkey://:s3cr3t@h"] {
            let error = TargetUrl::new(text, None).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }

    #[test]
    fn a_user_without_a_password_still_says_who_it_is() {
        let url = TargetUrl::new("valkey://me@h:1", None).unwrap();
        let info = url.connection_to("h:1").unwrap();
        assert_eq!(
            (info.redis_settings().username(), info.redis_settings().password()),
            (Some("me"), Some(""))
        );
    }
}
