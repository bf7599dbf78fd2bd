//! Which search module a server runs, from what the module says of itself.

use serde::{Deserialize, Serialize};

use crate::phase::SearchModule;
use crate::resp::Frame;

/// A search module and what matters of its set-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    /// Its dialect.
    pub module: SearchModule,
    /// Its version, as its project writes it.
    pub version: String,
    /// Whether it asks the other nodes of a cluster itself (valkey-search with `--use-coordinator`).
    pub coordinates: bool,
}

/// The module named `search` in the reply to `MODULE LIST` (or in `modules` of `HELLO`), told apart by `info`, the
/// text of `INFO modules`. `None` when there is none, or when it is neither of the two that are known.
///
/// Both modules call themselves `search`. RediSearch prints its version in INFO; valkey-search has sections that
/// nobody else has. Where INFO was refused, the number decides: valkey-search packs major, minor and patch into
/// bytes (1.2.1 is 66049), RediSearch into pairs of decimal digits (2.10.5 is 21005).
#[must_use]
pub fn detect_module(modules: &Frame<'_>, info: &str) -> Option<Detected> {
    let list = modules.get("modules").unwrap_or(modules).as_array()?;
    let entry = list.iter().find(|entry| entry.get("name").and_then(Frame::as_str) == Some("search"))?;
    let number = entry.get("ver").and_then(Frame::as_i64)?;
    let says = |field: &str| info.lines().any(|line| line.starts_with(field));

    let module = if says("search_version:") {
        SearchModule::RediSearch
    } else if says("search_index_reclaimable_memory:") || says("search_string_interning_store_size:") {
        SearchModule::ValkeySearch
    } else {
        match number {
            // 1.0.0 up to 1.31.255: as decimal pairs these would be RediSearch 6.55 to 7.37, which never were.
            0x1_0000..=0x1_1fff => SearchModule::ValkeySearch,
            10_000..=29_999 | 80_000..=99_999 => SearchModule::RediSearch,
            _ => return None,
        }
    };
    let version = match module {
        SearchModule::ValkeySearch => format!("{}.{}.{}", number >> 16, (number >> 8) & 0xff, number & 0xff),
        SearchModule::RediSearch => format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
    };
    let asked_to = entry
        .get("args")
        .and_then(Frame::as_array)
        .is_some_and(|args| args.iter().any(|arg| arg.as_str() == Some("--use-coordinator")));
    let coordinates = module == SearchModule::ValkeySearch
        && (asked_to || says("search_coordinator_server_listening_port:"));
    Some(Detected { module, version, coordinates })
}
