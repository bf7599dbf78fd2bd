//! How the parts of a fleet prove to each other who they are: which certificates they show, and whom they trust.
//!
//! Read from files by the command line, given to whoever serves the fleet's port and to whoever calls it. Law: a side
//! that has an authority speaks only with one whose certificate that authority signed, and says nothing in clear; keys
//! are never shown.

use std::fmt;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Error, Identity, Server, ServerTlsConfig};

/// A certificate with its chain and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Own {
    /// The certificate, then those between it and the authority.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// What a process has of certificates; nothing at all means connections in clear.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Signs the certificates of those that are trusted, PEM.
    pub authority: Option<Vec<u8>>,
    /// What this process shows.
    pub own: Option<Own>,
    /// The name in the coordinator's certificate, where it is not the host that is called.
    pub name: Option<String>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("authority", &self.authority.is_some())
            .field("own", &self.own.is_some())
            .field("name", &self.name)
            .finish()
    }
}

impl Security {
    /// A server of the fleet's port: in clear without a certificate of its own; with an authority as well, only for
    /// clients that show a certificate which that authority signed.
    ///
    /// # Errors
    /// When the certificates are not PEM or do not belong to the key.
    pub fn server(&self) -> Result<Server, Error> {
        let Some(own) = &self.own else { return Ok(Server::builder()) };
        let mut config = ServerTlsConfig::new().identity(identity(own));
        if let Some(authority) = &self.authority {
            config = config.client_ca_root(Certificate::from_pem(authority));
        }
        Server::builder().tls_config(config)
    }

    /// The way to a coordinator at `host:port`: in clear without an authority.
    ///
    /// # Errors
    /// When the address is not one, or the certificates are not PEM.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let Some(authority) = &self.authority else {
            return Endpoint::from_shared(format!("http://{address}"));
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        if let Some(own) = &self.own {
            config = config.identity(identity(own));
        }
        if let Some(name) = &self.name {
            config = config.domain_name(name);
        }
        Endpoint::from_shared(format!("https://{address}"))?.tls_config(config)
    }

    /// Why the other side is not spoken with, where an error is about certificates: calling again does not help.
    #[must_use]
    pub fn refusal(error: &dyn std::error::Error) -> Option<String> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if ABOUT_TLS.iter().any(|word| text.contains(word)) {
                return Some(text);
            }
            cause = error.source();
        }
        None
    }
}

/// What the TLS library says when it is at fault itself, and not the network below it.
const ABOUT_TLS: &[&str] =
    &["invalid peer certificate", "received fatal alert", "received corrupt message", "certificate required"];

fn identity(own: &Own) -> Identity {
    Identity::from_pem(&own.certificate, &own.key)
}
