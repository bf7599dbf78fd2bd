//! `vst info fleet`: asks the leader what it and its workers do, and etcd who else is registered.
//!
//! Reads what the coordinator's `Watch` gives and what stands in etcd; writes a text or JSON. A worker that is
//! registered and in no run yet is shown as waiting.

use std::time::Duration;

use clap::Args;
use comfy_table::{Table, TableStyle};
use serde_json::json;
use vst_common::count;
use vst_common::exit::Exit;
use vst_etcd::{Fleet, Leader, Member as Registered};
use vst_proto::fleet::fleet_client::FleetClient;
use vst_proto::fleet::{Member, Status, WatchRequest};
use vst_proto::security::Security;

use crate::error::Failure;
use crate::registry::Registry;
use crate::security::{SecurityOptions, Side};
use crate::{output, token};

/// The coordinator answers within this time or not at all.
const ANSWER: Duration = Duration::from_secs(10);

/// Options of `vst info fleet`.
#[derive(Debug, Args)]
pub(crate) struct FleetOptions {
    /// The coordinator, host:port
    #[arg(long, conflicts_with = "etcd", required_unless_present = "etcd")]
    coordinator: Option<String>,
    #[command(flatten)]
    registry: Registry,
    #[command(flatten)]
    security: SecurityOptions,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: &FleetOptions) -> Result<Exit, Failure> {
    let token = token::from_env()?.unwrap_or_default();
    let security = options.security.read(Side::Caller)?;
    let (leader, registered) = match options.registry.fleet().await? {
        Some(fleet) => in_etcd(&fleet).await.map_err(|e| Failure::new(Exit::Fleet, e.to_string()))?,
        None => (None, Vec::new()),
    };
    let address =
        options.coordinator.clone().or_else(|| leader.as_ref().map(|leader| leader.address.clone()));
    let status = match &address {
        Some(address) => Some(ask(address, &security, token).await?),
        None => None,
    };
    if options.json {
        let value = json!({ "leader": leader, "status": status, "registered": registered });
        output::result(&value.to_string())?;
    } else {
        output::result(&text(address.as_deref(), status.as_ref(), &registered))?;
    }
    Ok(Exit::Valid)
}

async fn in_etcd(fleet: &Fleet) -> Result<(Option<Leader>, Vec<Registered>), vst_etcd::Error> {
    Ok((fleet.leaders_followed().await?.current(None), fleet.members().await?))
}

async fn ask(address: &str, security: &Security, token: String) -> Result<Status, Failure> {
    let failed = |what: String| {
        let text = format!("coordinator `{address}` does not say how the fleet is: {what}");
        Failure::new(Exit::Fleet, text)
    };
    let asked = async {
        let endpoint = security.endpoint(address).map_err(|e| failed(with_cause(&e)))?;
        let mut client = FleetClient::connect(endpoint).await.map_err(|e| failed(with_cause(&e)))?;
        let request = WatchRequest { token, members: true };
        let statuses = client.watch(request).await.map_err(|e| failed(e.message().to_owned()))?;
        let first = statuses.into_inner().message().await.map_err(|e| failed(e.message().to_owned()))?;
        first.ok_or_else(|| failed(String::from("the run is over")))
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(format!("no answer for {} s", ANSWER.as_secs()))),
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_cause(cause)),
        None => error.to_string(),
    }
}

fn text(address: Option<&str>, status: Option<&Status>, registered: &[Registered]) -> String {
    let mut lines = Vec::new();
    match (address, status) {
        (Some(address), Some(status)) => {
            let Status { run, leader, epoch, version, .. } = status;
            lines.push(format!("run {run}: {}", status.run_directory));
            lines.push(format!("led at {address} by {leader} (epoch {epoch}, vst {version})"));
            lines.push(doing(status));
        }
        _ => lines.push(String::from("nobody leads")),
    }
    let members = status.map_or(&[] as &[Member], |status| &status.members);
    let waiting: Vec<&Registered> =
        registered.iter().filter(|r| !members.iter().any(|m| m.worker == r.worker.as_str())).collect();
    if members.is_empty() && waiting.is_empty() {
        lines.push(String::from("no workers"));
        return lines.join("\n");
    }
    lines.push(String::new());
    lines.push(table(members, &waiting).to_string());
    lines.join("\n")
}

fn doing(status: &Status) -> String {
    let Status { phase_name, step, message, workers, workers_wanted, .. } = status;
    let phase = match phase_name.as_str() {
        "" => String::from("before the first phase"),
        name => format!("phase {} of {}: {name} ({step})", status.phase.saturating_add(1), status.phases),
    };
    let rate = match status.achieved_per_second > 0.0 {
        true => format!(", achieves {:.0}/s", status.achieved_per_second),
        false => String::new(),
    };
    format!("{phase}, {message}{rate}; {workers} of {workers_wanted} workers")
}

fn table(members: &[Member], waiting: &[&Registered]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header([
        "worker",
        "state",
        "host",
        "address",
        "version",
        "cores",
        "memory",
        "lanes",
        "achieved",
        "not logged",
    ]);
    for m in members {
        table.add_row([
            m.worker.clone(),
            m.presence.clone(),
            m.host.clone(),
            m.address.clone(),
            m.version.clone(),
            m.cores.to_string(),
            gib(m.memory_bytes),
            m.lanes.to_string(),
            format!("{:.0}/s", m.achieved_per_second),
            m.unacknowledged.to_string(),
        ]);
    }
    for r in waiting {
        table.add_row([
            r.worker.to_string(),
            String::from("waiting"),
            r.host.clone(),
            r.address.clone(),
            r.version.clone(),
            r.cores.to_string(),
            gib(r.memory_bytes),
            r.lanes.to_string(),
            String::new(),
            String::new(),
        ]);
    }
    table
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", count::to_f64(bytes) / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_in_no_run_is_shown_as_waiting_and_one_in_the_run_only_once() {
        let registered = |name: &str| Registered {
            worker: vst_common::ids::WorkerId::new(name),
            version: "1".into(),
            host: "h".into(),
            address: "10.0.0.1".into(),
            http: String::new(),
            cores: 2,
            memory_bytes: 1 << 30,
            lanes: 1,
        };
        let here = Member { worker: "in".into(), presence: "here".into(), ..Member::default() };
        let status = Status { run: "r".into(), members: vec![here], ..Status::default() };
        let text = text(Some("a:1"), Some(&status), &[registered("in"), registered("out")]);
        let row =
            |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).map(str::to_owned);
        assert!(row("out").unwrap().contains("waiting"), "{text}");
        assert!(row("in ").unwrap().contains("here"), "{text}");
        assert_eq!(text.matches("waiting").count(), 1, "{text}");
        assert_eq!(super::text(None, None, &[]), "nobody leads\nno workers");
    }
}
