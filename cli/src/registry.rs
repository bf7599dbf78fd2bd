//! Where processes of a fleet find each other: the options that name an etcd, and the fleet in it.
//!
//! Shared by every command that joins a fleet or looks at one. User and password come from the environment and are
//! never shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vst_common::clock::{SECOND_NS, mono_ns};
use vst_common::exit::Exit;
use vst_etcd::{Client, Endpoints, Fleet, Tls};

use crate::error::Failure;
use crate::output;
use crate::security::file;

const USER: &str = "VST_ETCD_USER";
const PASSWORD: &str = "VST_ETCD_PASSWORD";

/// Options that name a fleet in etcd.
#[derive(Debug, Args)]
pub(crate) struct Registry {
    /// etcd in which leader and workers register, http://host:port, several separated by commas; user and password
    /// come from VST_ETCD_USER and VST_ETCD_PASSWORD
    #[arg(long, value_name = "URL", env = "VST_ETCD", hide_env_values = true)]
    etcd: Option<String>,
    /// Authority (PEM) of etcd's certificate, for https
    #[arg(long, value_name = "FILE", env = "VST_ETCD_CA", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// Certificate (PEM) that etcd is shown, where it asks for one
    #[arg(long, value_name = "FILE", env = "VST_ETCD_CERT", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = "VST_ETCD_KEY", requires_all = ["etcd_cert", "etcd_ca"])]
    etcd_key: Option<PathBuf>,
    /// The fleet's name in etcd
    #[arg(long, value_name = "NAME", default_value = "vst", value_parser = name)]
    fleet: String,
}

/// How long a process of a fleet waits for those that it needs.
#[derive(Debug, Args)]
pub(crate) struct Patience {
    /// Seconds to wait for what others bring and that is not there yet: an etcd that answers and, with --standby, a run
    /// that has begun
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

impl Patience {
    pub(crate) fn ns(&self) -> u64 {
        self.seconds.saturating_mul(SECOND_NS)
    }
}

/// Between two tries to reach etcd.
const AGAIN: Duration = Duration::from_secs(1);

impl Registry {
    /// The fleet, as soon as its etcd answers; `None` where no etcd is named.
    pub(crate) async fn awaited(&self, patience: &Patience) -> Result<Option<Fleet>, Failure> {
        let until = mono_ns().saturating_add(patience.ns());
        let mut told = false;
        loop {
            let failed = match self.connect().await {
                Ok(None) => return Ok(None),
                Ok(Some(client)) => match client.get("vst").await {
                    Err(e) if e.is_away() => e,
                    // Whatever else it says is for the call that needs it.
                    _ => return Ok(Some(Fleet::new(client, &self.fleet))),
                },
                Err(NoEtcd::Call(e)) if e.is_away() => e,
                Err(e) => return Err(e.into()),
            };
            if mono_ns() >= until {
                let waited = patience.seconds;
                let text = format!("{failed}; waited {waited} s for it (--wait)");
                return Err(Failure::new(Exit::Fleet, text));
            }
            if !told {
                told = true;
                output::note(&format!("waiting up to {} s for etcd: {failed}", patience.seconds));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The fleet; `None` where no etcd is named.
    pub(crate) async fn fleet(&self) -> Result<Option<Fleet>, Failure> {
        Ok(self.connect().await?.map(|client| Fleet::new(client, &self.fleet)))
    }

    async fn connect(&self) -> Result<Option<Client>, NoEtcd> {
        let Some(etcd) = &self.etcd else { return Ok(None) };
        let usage = |e: vst_etcd::Error| NoEtcd::Usage(e.to_string());
        let endpoints: Endpoints = etcd.parse().map_err(usage)?;
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (user, password) = (variable(USER), variable(PASSWORD));
        let login = match (&user, &password) {
            (Some(user), Some(password)) => Some((user.as_str(), password.as_str())),
            (None, None) => None,
            _ => {
                let text = format!("{USER} and {PASSWORD} belong together: set both or none");
                return Err(NoEtcd::Usage(text));
            }
        };
        let tls = self.tls().map_err(|e| NoEtcd::Usage(e.to_string()))?;
        Client::new(&endpoints, tls.as_ref(), login).await.map(Some).map_err(NoEtcd::Call)
    }
}

impl Registry {
    fn tls(&self) -> Result<Option<Tls>, Failure> {
        let Some(authority) = &self.etcd_ca else { return Ok(None) };
        let identity = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => Some((file(certificate)?, file(key)?)),
            _ => None,
        };
        Ok(Some(Tls { authority: file(authority)?, identity }))
    }
}

/// Why there is no connection.
enum NoEtcd {
    /// The options cannot be used.
    Usage(String),
    /// etcd does not answer, or refuses.
    Call(vst_etcd::Error),
}

impl From<NoEtcd> for Failure {
    fn from(none: NoEtcd) -> Self {
        match none {
            NoEtcd::Usage(text) => Self::new(Exit::Usage, text),
            NoEtcd::Call(e) => Self::new(Exit::Fleet, e.to_string()),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(fits) {
        return Err(String::from("a fleet's name is made of letters, digits, `-`, `_` and `.`"));
    }
    Ok(text.to_owned())
}
