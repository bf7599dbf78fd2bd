//! What was done to the target, by whom and why: every command that changes it or steers it, in order.
//!
//! Every connection of the coordinator reports what it sent; the run says what for, and what its workers were ordered to
//! send. Read by the shell of the run, which keeps it beside the log. Laws: a command that is not known to read counts as
//! one that changes; no argument but a name or the beginning of a key is kept, so no value and no secret.

use std::sync::{Mutex, PoisonError};

use redis::{Arg, Cmd};
use vst_common::count;
use vst_common::deed::Deed;

/// Commands that change nothing and steer nothing.
const READING: &[&str] = &[
    "INFO",
    "PING",
    "MODULE LIST",
    "FT.INFO",
    "FT._LIST",
    "FT.SEARCH",
    "CLIENT LIST",
    "CONFIG GET",
    "CLUSTER NODES",
    "CLUSTER INFO",
    "CLUSTER MYID",
    "CLUSTER GETKEYSINSLOT",
    "CLUSTER COUNTKEYSINSLOT",
    "HGETALL",
    "HGET",
    "HMGET",
    "GET",
    "MGET",
    "EXISTS",
    "TYPE",
    "TTL",
    "PTTL",
    "SCAN",
    "DBSIZE",
    "STRLEN",
    "RANDOMKEY",
    "MEMORY USAGE",
    "MEMORY MALLOC-STATS",
    "COMMAND",
    "COMMAND DOCS",
    "ACL WHOAMI",
    "ACL DRYRUN",
    "READONLY",
    "HLEN",
    "HSTRLEN",
    "TIME",
    "HKEYS",
    "HVALS",
    "HEXISTS",
    "LLEN",
    "LRANGE",
    "LINDEX",
    "SISMEMBER",
    "SMEMBERS",
    "SCARD",
    "SRANDMEMBER",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZSCORE",
    "ZRANK",
    "ZREVRANK",
    "ZCARD",
    "ZCOUNT",
    "XLEN",
    "XRANGE",
    "XREVRANGE",
    "XREAD",
    "GETRANGE",
];
/// Keys of this beginning are vst's own; they are kept whole.
const OWN: &str = "_vst";
/// The sign of life.
const ALIVE: &str = "_vst_alive";

/// What has been done so far.
#[derive(Debug)]
pub struct Audit(Mutex<Book>);

#[derive(Debug)]
struct Book {
    deeds: Vec<Deed>,
    why: String,
    /// Whether there is anything that nobody has taken yet.
    news: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self(Mutex::new(Book { deeds: Vec::new(), why: String::from("before the run"), news: false }))
    }
}

impl Audit {
    /// From now on things are done for this.
    pub fn purpose(&self, why: impl Into<String>) {
        self.book().why = why.into();
    }

    /// Puts what another coordinator did before what this one does.
    pub fn precede(&self, mut earlier: Vec<Deed>) {
        let mut book = self.book();
        earlier.append(&mut book.deeds);
        book.deeds = earlier;
    }

    /// Workers were ordered to send these commands.
    pub fn ordered(&self, commands: &[String], subject: &str) {
        for command in commands.iter().filter(|command| !is_reading(command)) {
            let mut deed = Deed::new("*", command.to_uppercase(), subject);
            deed.by = String::from("workers");
            self.note(deed, "");
        }
    }

    /// Everything, if something has come since it was last asked; the sign of life alone is nothing new.
    pub fn take_news(&self) -> Option<Vec<Deed>> {
        let mut book = self.book();
        std::mem::take(&mut book.news).then(|| book.deeds.clone())
    }

    /// Everything.
    #[must_use]
    pub fn all(&self) -> Vec<Deed> {
        self.book().deeds.clone()
    }

    /// A command was sent to a node; `refused` where it did not take it.
    pub(super) fn saw(&self, node: &str, command: &Cmd, refused: bool) {
        let words: Vec<&[u8]> = command
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(word) => word,
                _ => b"",
            })
            .collect();
        let word = |n: usize| words.get(n).map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
        let mut name = word(0).to_uppercase();
        if matches!(name.as_str(), "CLUSTER" | "MODULE" | "CONFIG" | "CLIENT" | "MEMORY" | "ACL" | "COMMAND")
        {
            name = format!("{name} {}", word(1).to_uppercase()).trim_end().to_owned();
        }
        if is_reading(&name) {
            return;
        }
        let subject = match name.as_str() {
            "FT.CREATE" | "FT.DROPINDEX" => word(1).into_owned(),
            "EVAL" => key(&word(3)),
            "CLUSTER SETSLOT" => word(3).to_uppercase(),
            "CLUSTER FAILOVER" | "CLUSTER RESET" => word(2).to_uppercase(),
            "CLUSTER MEET" => format!("{}:{}", word(2), word(3)),
            "CLUSTER REPLICATE" | "CLUSTER FORGET" | "CONFIG SET" => word(2).into_owned(),
            "MIGRATE" => format!("to {}:{}", word(1), word(2)),
            name if name.contains(' ') => String::new(),
            _ => key(&word(1)),
        };
        let mut deed = Deed::new(node, name, subject);
        (deed.commands, deed.refused) = (1, u64::from(refused));
        deed.keys = match deed.command.as_str() {
            "DEL" | "UNLINK" => count::len(words.len().saturating_sub(1)),
            _ => 0,
        };
        let alive = deed.subject.starts_with(ALIVE);
        self.note(deed, if alive { "sign of life" } else { "" });
    }

    /// Adds to the last deed of its kind for the same purpose, or begins one.
    fn note(&self, mut deed: Deed, why: &str) {
        let mut book = self.book();
        deed.why = if why.is_empty() { book.why.clone() } else { why.to_owned() };
        book.news |= why.is_empty();
        let same = book.deeds.iter_mut().rev().find(|known| known.is_like(&deed));
        match same {
            Some(known) => {
                known.last = deed.last;
                known.commands = known.commands.saturating_add(deed.commands);
                known.keys = known.keys.saturating_add(deed.keys);
                known.refused = known.refused.saturating_add(deed.refused);
            }
            None => book.deeds.push(deed),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_reading(name: &str) -> bool {
    READING.contains(&name.to_uppercase().as_str())
}

/// What is kept of a key: all of vst's own, else what stands before its first digit.
fn key(key: &str) -> String {
    if key.starts_with(OWN) {
        return key.to_owned();
    }
    key.chars().take_while(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use redis::cmd;

    use super::*;

    #[test]
    fn what_changes_the_target_is_kept_without_values_and_counted_by_purpose() {
        let audit = Audit::default();
        audit.saw("h:1", &cmd("INFO"), false);
        audit.saw("h:1", cmd("CLUSTER").arg("NODES"), false);
        assert_eq!(audit.take_news(), None, "reading is no deed");
        audit.saw("h:1", cmd("HSET").arg("_vst_owner:vst:").arg("run").arg("hidden"), false);
        audit.purpose("phase create");
        audit.saw("h:1", cmd("FT.CREATE").arg("vst_index{3}").arg("ON").arg("HASH"), true);
        audit.purpose("clean-up");
        for n in 0..3 {
            audit.saw("h:2", cmd("DEL").arg(format!("vst:00{n}")).arg(format!("vst:01{n}")), false);
        }
        audit.saw("h:2", cmd("CONFIG").arg("SET").arg("requirepass").arg("hidden"), false);
        audit.saw(
            "h:2",
            cmd("MIGRATE").arg("h").arg(7).arg("").arg(0).arg(9).arg("AUTH").arg("hidden"),
            false,
        );
        audit.saw("h:2", cmd("NEW.COMMAND").arg("vst:1").arg("hidden"), false);
        audit.ordered(&[String::from("hset"), String::from("FT.SEARCH")], "vst:");
        let deeds = audit.take_news().unwrap();
        let shown: Vec<String> = deeds
            .iter()
            .map(|d| {
                format!(
                    "{} {} {} {}+{} -{} {} {}",
                    d.node, d.command, d.subject, d.commands, d.keys, d.refused, d.why, d.by
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "h:1 HSET _vst_owner:vst: 1+0 -0 before the run coordinator",
                "h:1 FT.CREATE vst_index{3} 1+0 -1 phase create coordinator",
                "h:2 DEL vst: 3+6 -0 clean-up coordinator",
                "h:2 CONFIG SET requirepass 1+0 -0 clean-up coordinator",
                "h:2 MIGRATE to h:7 1+0 -0 clean-up coordinator",
                "h:2 NEW.COMMAND vst: 1+0 -0 clean-up coordinator",
                "* HSET vst: 0+0 -0 clean-up workers",
            ]
        );
        assert!(!serde_json::to_string(&deeds).unwrap().contains("hidden"), "no value is kept");
        assert_eq!(audit.take_news(), None);
        audit.saw("h:1", cmd("EVAL").arg("return 1").arg(1).arg("_vst_alive:vst:").arg("run"), false);
        assert_eq!(audit.take_news(), None, "the sign of life alone is nothing new");
        assert_eq!(audit.all().last().map(|d| d.why.as_str()), Some("sign of life"));
    }
}
