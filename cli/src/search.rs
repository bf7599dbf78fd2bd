//! `vst run tune`, `sweep`, `compare` and `campaign`: the searches of `vst_tuning` on a real target.
//!
//! The searches decide what is measured next; a [`bench::Bench`] measures it; a [`journal::Journal`] writes it down
//! before the next question, so that a stopped search goes on where it was. Law: nothing is decided here.

mod bench;
mod campaign;
mod chart;
mod compare;
mod figures;
mod journal;
mod options;
mod show;
mod sweep;
mod tune;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vst_common::exit::Exit;
use vst_tuning::figure::Figure;
use vst_tuning::measured::Event;
use vst_tuning::search::{Action, Search, Spec};
use vst_tuning::throughput::Offered;
use vst_tuning::tune::Setting;

use self::bench::{Bench, BenchSpec, Point};
pub(crate) use self::campaign::{CampaignCommand, run as campaign};
use self::journal::Journal;
use self::options::SearchOptions;
pub(crate) use self::options::{CompareCommand, SearchCommand, SweepCommand, TuneCommand};
use crate::error::Failure;
use crate::signals::Signals;
use crate::{output, token};

pub(crate) async fn run(command: Box<SearchCommand>) -> Result<Exit, Failure> {
    match *command {
        SearchCommand::Tune(command) => tune::run(command).await,
        SearchCommand::Sweep(command) => sweep::run(command).await,
        SearchCommand::Compare(command) => compare::run(command).await,
    }
}

/// After a point that is not valid the next try waits so long, then twice as long, and so on.
const PATIENCE_FIRST: Duration = Duration::from_millis(500);
/// The longest wait; a point that is not valid after it is told to the search as such.
const PATIENCE_LAST: Duration = Duration::from_secs(4);

/// A question as one point of a bench.
struct Wanted {
    /// Which bench.
    bench: usize,
    setting: Setting,
    offered: Offered,
    figures: Vec<Figure>,
}

/// A search with all that it needs.
struct Session {
    journal: Journal,
    benches: Vec<Bench>,
    quiet: bool,
}

/// Whoever is listened to and what the fleet's secret is, for the benches of one command.
struct Shell {
    signals: Signals,
    token: String,
    quiet: bool,
}

impl Shell {
    fn new(options: &SearchOptions) -> Result<Self, Failure> {
        Self::with_token(options.environment()?.token_file.as_deref(), options.quiet)
    }

    fn with_token(file: Option<&str>, quiet: bool) -> Result<Self, Failure> {
        let signals = Signals::listen()?;
        let token = token::from_env_or(file.map(std::path::Path::new))?.unwrap_or_default();
        Ok(Self { signals, token, quiet })
    }

    async fn bench(&self, spec: BenchSpec, journal: Option<&Journal>) -> Result<Bench, Failure> {
        let runs = journal.map(Journal::runs).unwrap_or_default();
        let points = journal.map_or(0, |journal| journal.written.points.len());
        self.bench_in(spec, runs, points).await
    }

    async fn bench_in(&self, spec: BenchSpec, runs: PathBuf, points: usize) -> Result<Bench, Failure> {
        Bench::new(spec, runs, self.token.clone(), self.signals.clone(), self.quiet, points).await
    }

    /// The benches of a search that is written down.
    async fn session(self, journal: Journal) -> Result<Session, Failure> {
        let mut benches = Vec::new();
        for spec in journal.written.benches.clone() {
            benches.push(self.bench(spec, Some(&journal)).await?);
        }
        Ok(Session { journal, benches, quiet: self.quiet })
    }
}

impl Session {
    /// Runs a search to its end and says what it found; the population is given up however it ends.
    async fn search<S>(&mut self, wanted: impl Fn(&S::Ask) -> Wanted) -> Result<S::Outcome, Failure>
    where
        S: Spec + Serialize + DeserializeOwned,
        S::Error: std::fmt::Display,
        S::Outcome: Serialize,
    {
        let spec: S = self.journal.spec()?;
        let mut search = Search::new(spec).map_err(|e| Failure::new(Exit::Usage, e.to_string()))?;
        for point in &self.journal.written.points {
            search.step(point.event.clone());
        }
        if !self.quiet && !self.journal.written.points.is_empty() {
            output::note(&format!("goes on after {} points", self.journal.written.points.len()));
        }
        let outcome = self.ask(&mut search, wanted).await;
        let mut closed = Ok(());
        for bench in &mut self.benches {
            closed = closed.and(bench.close().await);
        }
        match outcome {
            Ok(outcome) => {
                closed?;
                self.journal.end(&outcome)?;
                Ok(outcome)
            }
            Err(failure) if failure.exit() == Exit::Interrupted => {
                let folder = self.journal.folder().display();
                let n = self.journal.written.points.len();
                let text = format!("{failure}; {n} points are kept, go on with --resume {folder}");
                Err(Failure::new(Exit::Interrupted, text))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn ask<S: Spec>(
        &mut self,
        search: &mut Search<S>,
        wanted: impl Fn(&S::Ask) -> Wanted,
    ) -> Result<S::Outcome, Failure> {
        loop {
            let Some(action) = search.actions().pop() else {
                return Err(Failure::new(Exit::Bug, "the search neither asks nor ends"));
            };
            let ask = match action {
                Action::Done(outcome) => return Ok(*outcome),
                // A phase ends only when all its requests have; nothing is left to drain.
                Action::Drain => continue,
                Action::Measure(ask) => wanted(&ask),
            };
            let point = self.measure(&ask).await?;
            if !self.quiet {
                output::note(&show::point(self.journal.written.points.len() + 1, &point));
            }
            search.step(point.event.clone());
            self.journal.push(point)?;
        }
    }

    async fn measure(&mut self, ask: &Wanted) -> Result<Point, Failure> {
        let Some(bench) = self.benches.get_mut(ask.bench) else {
            return Err(Failure::new(Exit::Bug, "the search asks for a target that there is not"));
        };
        let (journal, quiet) = (&mut self.journal, self.quiet);
        patiently(bench, ask, |tried| {
            if !quiet {
                output::note(&show::point(journal.written.points.len() + 1, &tried));
            }
            journal.push_retry(tried)
        })
        .await
    }
}

/// Measures a point, and again after a while where it is not valid; each such try is told.
async fn patiently(
    bench: &mut Bench,
    ask: &Wanted,
    mut tell: impl FnMut(Point) -> Result<(), Failure>,
) -> Result<Point, Failure> {
    let mut wait = PATIENCE_FIRST;
    loop {
        let mut point = bench.measure(&ask.setting, ask.offered, &ask.figures).await?;
        if let Event::Measured(measured) = &point.event
            && let Some(lacking) = ask.figures.iter().find(|f| !measured.figures.contains_key(f))
        {
            point.event = Event::Invalid(format!("the point does not tell `{lacking}`"));
        }
        if matches!(point.event, Event::Measured(_)) || wait > PATIENCE_LAST {
            return Ok(point);
        }
        // What made the fleet late may go by: another program on this machine, a compaction.
        tell(point)?;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            asked = bench.signals().nth(1) => {
                return Err(Failure::new(Exit::Interrupted, format!("stopped by {asked}")));
            }
        }
        wait = wait.saturating_mul(2);
    }
}

/// Figures that a run's tables do not tell.
fn can_be_told<'a>(figures: impl IntoIterator<Item = &'a Figure>) -> Result<(), Failure> {
    match figures.into_iter().find(|figure| **figure == Figure::P999) {
        Some(figure) => Err(Failure::new(
            Exit::Usage,
            format!("`{figure}` needs more requests than a point has: bound p99 instead"),
        )),
        None => Ok(()),
    }
}
