//! How a server is reached and let in: the target's URL, TLS, Unix sockets, the login.
//!
//! Read from the command line and the environment by coordinator and workers alike, so that load lanes, samplers and the
//! coordinator's own connections agree on one way in. Laws: a password or key is in no text; nobody is trusted without a
//! certificate that verifies, unless the person who starts the process says so.

mod connect;
mod place;
mod tls;
mod url;

pub use connect::{Limits, connect, is_down};
pub use place::{is_socket_path, join, split};
pub use tls::{Tls, TlsError, explain};
pub use url::{TargetUrl, TargetUrlError};

/// How connections log in, and whether they are encrypted. The same for every node of a target.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user; the default user if absent.
    pub username: Option<String>,
    /// Password; never printed.
    pub password: Option<String>,
    /// Whom to trust, where connections are encrypted.
    pub tls: Option<Tls>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        shown.field("username", &self.username).field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}
