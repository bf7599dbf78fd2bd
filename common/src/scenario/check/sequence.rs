//! Whether the phases can follow one another as they are listed.
//!
//! Fed with the step of every phase, also of those that have faults of their own, so that one slip hides no other. Law:
//! in an accepted order every query finds an index and rows, and every shrink takes rows away.

use super::fault::{Complaint, Place};
use super::reader::Reader;

/// What the order depends on.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Name of the phase.
    pub(super) address: String,
    /// What it does.
    pub(super) word: &'static str,
    /// Where that stands.
    pub(super) place: Place,
    /// Whether it runs beside the one before.
    pub(super) beside: bool,
    /// The share that a shrink leaves, and where that stands.
    pub(super) keep: Option<(f64, Place)>,
    /// The share that a grow leads to, and where that stands.
    pub(super) to: Option<(f64, Place)>,
    /// The share that a churn exchanges, and where that stands.
    pub(super) by: Option<(f64, Place)>,
    /// It leaves a population of which no share says how large it is: only a plan over the data can tell.
    pub(super) moves: bool,
}

/// Notes a fault for every phase that comes too early or does nothing.
pub(super) fn judge(reader: &mut Reader<'_>, phases: &[Told]) {
    let mut index: Option<&str> = None;
    // The share of the planned rows that lives, and the phase that made it so.
    let mut alive: Option<(f64, &str)> = None;
    let mut known = true;
    for phase in phases {
        let Told { address, word, place, keep, to, by, moves, .. } = phase;
        let complaint = match (*word, index, alive) {
            ("create_index", Some(first), _) => Some(Complaint::new(
                format!("phase `{address}` creates the index a second time"),
                format!("phase `{first}` has created it"),
                "keep one of the two",
            )),
            ("drop_index" | "rebuild_index", None, _) => {
                Some(too_early(address, "drops the index", "an index", "create_index: {}"))
            }
            ("query" | "mixed", None, _) => Some(too_early(address, "asks", "an index", "create_index: {}")),
            ("query" | "mixed" | "shrink" | "update" | "churn", _, None) => {
                let verb = match *word {
                    "query" | "mixed" => "asks",
                    "update" => "overwrites",
                    "churn" => "exchanges rows",
                    _ => "deletes",
                };
                Some(too_early(address, verb, "rows", "ingest: {load: {closed: {clients: 8, pipeline: 8}}}"))
            }
            ("query", _, Some((left, by))) if left <= 0.0 && known => Some(Complaint::new(
                format!("phase `{address}` asks when no row is left"),
                format!("phase `{by}` deletes all rows"),
                "let the shrink keep some rows, or move this phase before it",
            )),
            _ => None,
        };
        if let Some(complaint) = complaint {
            reader.complain(*place, complaint);
        }
        match *word {
            "create_index" => index = Some(address),
            "drop_index" => index = None,
            "grow" => {
                if let (Some((to, to_place)), (left, by)) = (*to, alive.unwrap_or((0.0, ""))) {
                    if known && to <= left {
                        reader.complain(to_place, no_growth(address, left, by));
                    }
                    alive = Some((to, address));
                }
            }
            "ingest" => (alive, known) = (Some((1.0, address.as_str())), true),
            "churn" => {
                if let (Some((by, by_place)), Some((left, made_by))) = (*by, alive)
                    && known
                    && by > left.min(1.0 - left) + 1e-12
                {
                    reader.complain(by_place, no_room(address, left, made_by));
                }
            }
            "shrink" => {
                if let (Some((keep, keep_place)), Some((left, by))) = (*keep, alive) {
                    if keep >= left && known {
                        reader.complain(keep_place, no_shrink(address, left, by));
                    }
                    (alive, known) = (Some((keep, address.as_str())), true);
                }
            }
            _ => {}
        }
        known &= !moves;
    }
}

fn too_early(address: &str, verb: &str, what: &str, example: &str) -> Complaint {
    Complaint::new(
        format!("phase `{address}` {verb} before there are {what}").replace("are an", "is an"),
        "too early",
        format!("list a phase before it with `{example}`"),
    )
}

fn no_room(address: &str, left: f64, by: &str) -> Complaint {
    let (alive, room) = (left * 100.0, (1.0 - left) * 100.0);
    Complaint::new(
        format!("phase `{address}` exchanges more rows than it can"),
        format!("phase `{by}` leaves {alive}% alive and {room}% to insert"),
        "no row is deleted and inserted in the same phase: put a `shrink` before it, or exchange less at a time",
    )
}

fn no_growth(address: &str, left: f64, by: &str) -> Complaint {
    Complaint::new(
        format!("phase `{address}` inserts nothing"),
        format!("phase `{by}` leaves {}% alive", left * 100.0),
        "shares are of all planned rows, not of those that live: grow to more than that",
    )
}

fn no_shrink(address: &str, left: f64, by: &str) -> Complaint {
    Complaint::new(
        format!("phase `{address}` deletes nothing"),
        format!("phase `{by}` leaves {}% as it is", left * 100.0),
        "shares are of all planned rows, not of those that live: keep less than that",
    )
}
