//! What a scenario does besides loading: to the target's cluster, and on the coordinator's own machine.
//!
//! Part of the checked form. Operations are phases of their own, hooks accompany phases; both come only from a file that
//! the operator names, and commands run only where the operator has allowed it.

use serde::{Deserialize, Serialize};

/// What is done in a phase without load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A replica takes its primary's place.
    Failover(FailoverSpec),
    /// Slots move from primary to primary until each serves its share.
    MigrateSlots(MigrateSpec),
    /// A server that runs joins the cluster.
    AddNode(AddNodeSpec),
    /// A node leaves the cluster; its server goes on running.
    RemoveNode(RemoveNodeSpec),
    /// A program runs on the coordinator's machine.
    Command(CommandRun),
}

impl Operation {
    /// The word for it in files and tables.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Failover(_) => "failover",
            Self::MigrateSlots(_) => "migrate_slots",
            Self::AddNode(_) => "add_node",
            Self::RemoveNode(_) => "remove_node",
            Self::Command(_) => "command",
        }
    }
}

/// How a replica comes to take over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailoverHow {
    /// The primary waits until the replica has everything.
    #[default]
    Orderly,
    /// The replica does not ask the primary (`FORCE`).
    Force,
    /// The replica asks nobody (`TAKEOVER`).
    Takeover,
}

/// A failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverSpec {
    /// Which primary hands over: its place, from 1, among the primaries in the order of their addresses.
    pub primary: u32,
    /// How.
    pub how: FailoverHow,
    /// Give up after this long, milliseconds.
    pub timeout_ms: u64,
}

/// Where slots go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrateSpec {
    /// The share of all slots that each primary serves afterwards, 0..=1, in the order of their addresses; the same for
    /// each where none are given.
    pub shares: Vec<f64>,
    /// Give up after this long, milliseconds.
    pub timeout_ms: u64,
}

/// A server that joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddNodeSpec {
    /// `host:port`.
    pub address: String,
    /// The primary that it copies: its place, from 1, in the order of addresses; it becomes a primary without slots where
    /// absent.
    pub replica_of: Option<u32>,
    /// Give up after this long, milliseconds.
    pub timeout_ms: u64,
}

/// A node that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveNodeSpec {
    /// `host:port`.
    pub address: String,
    /// Give up after this long, milliseconds.
    pub timeout_ms: u64,
}

/// What happens to the run when a program fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is noted.
    Continue,
    /// The run ends.
    Stop,
}

/// A program on the coordinator's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRun {
    /// The program and its arguments; no shell reads them.
    pub run: Vec<String>,
    /// It is ended after this long, milliseconds.
    pub timeout_ms: u64,
    /// What happens when it does not end with 0.
    pub on_failure: OnFailure,
}

/// A program that accompanies phases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program.
    pub command: CommandRun,
    /// It is told to end (SIGINT) when the phase ends, and has its time from then on.
    pub until_end: bool,
    /// The phases that it accompanies; all where none are named.
    pub phases: Vec<String>,
}

impl Hook {
    fn written(&self) -> serde_json::Value {
        // What looks like a parameter is none.
        let words = self.command.run.iter().map(|word| word.replace("${", "$${"));
        let mut hook = serde_json::json!({
            "run": words.collect::<Vec<_>>(),
            "timeout": format!("{}ms", self.command.timeout_ms),
            "on_failure": self.command.on_failure,
        });
        if let serde_json::Value::Object(hook) = &mut hook {
            if self.until_end {
                hook.insert(String::from("lasts"), serde_json::json!("phase"));
            }
            if !self.phases.is_empty() {
                hook.insert(String::from("phases"), serde_json::json!(self.phases));
            }
        }
        hook
    }

    /// Whether it accompanies a phase.
    #[must_use]
    pub fn is_for(&self, phase: &str) -> bool {
        self.phases.is_empty() || self.phases.iter().any(|name| name == phase)
    }
}

/// The hooks of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Run when a phase starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_phase_start: Vec<Hook>,
    /// Run when a phase has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_phase_end: Vec<Hook>,
}

impl Hooks {
    /// As a scenario would say it, in JSON, which is YAML too.
    #[must_use]
    pub fn written(&self) -> String {
        let list = |hooks: &[Hook]| hooks.iter().map(Hook::written).collect::<Vec<_>>();
        serde_json::json!({
            "on_phase_start": list(&self.on_phase_start),
            "on_phase_end": list(&self.on_phase_end),
        })
        .to_string()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.on_phase_start.is_empty() && self.on_phase_end.is_empty()
    }
}
