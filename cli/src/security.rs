//! The options that name certificates, shared by every command that serves the fleet's port or calls it.
//!
//! Law: a file that cannot be read is named before anything is started; what is in it is never shown.

use std::path::{Path, PathBuf};

use clap::Args;
use vst_common::exit::Exit;
use vst_proto::security::{Own, Security};

use crate::error::Failure;

/// Certificates of this process, and whom it trusts.
#[derive(Debug, Args)]
pub(crate) struct SecurityOptions {
    /// Authority (PEM) that signed the other side's certificate: connections are TLS, and a coordinator lets in only who
    /// shows a certificate of it
    #[arg(long, value_name = "FILE", env = CA)]
    tls_ca: Option<PathBuf>,
    /// Certificate of this process (PEM, with its chain)
    #[arg(long, value_name = "FILE", env = CERTIFICATE, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = KEY, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name in the coordinator's certificate, where it is not the host that is called
    #[arg(long, value_name = "NAME", env = NAME, requires = "tls_ca")]
    tls_name: Option<String>,
}

const CA: &str = "VST_TLS_CA";
const CERTIFICATE: &str = "VST_TLS_CERT";
const KEY: &str = "VST_TLS_KEY";
const NAME: &str = "VST_TLS_NAME";

/// The variables behind the options, for whoever starts a process that is not to have them.
pub(crate) const VARIABLES: [&str; 4] = [CA, CERTIFICATE, KEY, NAME];

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Serves the port.
    Coordinator,
    /// Calls it.
    Caller,
}

impl SecurityOptions {
    /// Reads the files, and makes sure that they can be used.
    pub(crate) fn read(&self, side: Side) -> Result<Security, Failure> {
        if side == Side::Coordinator && self.tls_ca.is_some() && self.tls_cert.is_none() {
            let text =
                "--tls-ca without --tls-cert: a coordinator that asks for certificates shows one itself";
            return Err(Failure::new(Exit::Usage, text));
        }
        let own = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Own { certificate: file(certificate)?, key: file(key)? }),
            _ => None,
        };
        let authority = self.tls_ca.as_deref().map(file).transpose()?;
        let security = Security { authority, own, name: self.tls_name.clone() };
        let usable = match side {
            Side::Coordinator => security.server().map(drop),
            Side::Caller => security.endpoint("localhost:1").map(drop),
        };
        usable.map_err(|e| {
            Failure::new(Exit::Usage, format!("the certificates cannot be used: {}", chain(&e)))
        })?;
        Ok(security)
    }
}

/// The bytes of a PEM file.
pub(crate) fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|e| Failure::new(Exit::Usage, format!("`{}` cannot be read: {e}", path.display())))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
