//! Where processes of a fleet find each other: the options that name an etcd, and the fleet in it.
//!
//! Shared by every command that joins a fleet or looks at one. User and password come from the environment and are
//! never shown.

use clap::Args;
use vst_common::exit::Exit;
use vst_etcd::{Client, Endpoints, Fleet};

use crate::error::Failure;

const USER: &str = "VST_ETCD_USER";
const PASSWORD: &str = "VST_ETCD_PASSWORD";

/// Options that name a fleet in etcd.
#[derive(Debug, Args)]
pub(crate) struct Registry {
    /// etcd in which leader and workers register, http://host:port, several separated by commas; user and password
    /// come from VST_ETCD_USER and VST_ETCD_PASSWORD
    #[arg(long, value_name = "URL", env = "VST_ETCD", hide_env_values = true)]
    etcd: Option<String>,
    /// The fleet's name in etcd
    #[arg(long, value_name = "NAME", default_value = "vst", value_parser = name)]
    fleet: String,
}

impl Registry {
    /// The fleet; `None` where no etcd is named.
    pub(crate) async fn fleet(&self) -> Result<Option<Fleet>, Failure> {
        let Some(etcd) = &self.etcd else { return Ok(None) };
        let usage = |e: vst_etcd::Error| Failure::new(Exit::Usage, e.to_string());
        let endpoints: Endpoints = etcd.parse().map_err(usage)?;
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (user, password) = (variable(USER), variable(PASSWORD));
        let login = match (&user, &password) {
            (Some(user), Some(password)) => Some((user.as_str(), password.as_str())),
            (None, None) => None,
            _ => {
                let text = format!("{USER} and {PASSWORD} belong together: set both or none");
                return Err(Failure::new(Exit::Usage, text));
            }
        };
        let client = Client::new(&endpoints, None, login).await;
        let client = client.map_err(|e| Failure::new(Exit::Fleet, e.to_string()))?;
        Ok(Some(Fleet::new(client, &self.fleet)))
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(fits) {
        return Err(String::from("a fleet's name is made of letters, digits, `-`, `_` and `.`"));
    }
    Ok(text.to_owned())
}
