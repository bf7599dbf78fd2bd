//! A run directory as SQL tables.
//!
//! Opens one or more run directories and answers queries over them: every table of `vst_common::batch` (its Parquet
//! parts and the log entries that no part covers, as one view), and `runs`, `phases`, `workers`, `streams` and
//! `deliveries` from what the log says. `latency` counts each request of a measured window once; with warm-up and the
//! nodes' parts of fanned-out queries it is `latency_all` (and the same for `latency_rollup`). Summary and
//! `vst analyze query` read nothing else. Law: a run that was killed at any instant opens, and each acknowledged batch
//! is in the answer once, compacted or not; so does one that lacks columns of today.

mod columns;
mod functions;
mod log;
mod log_tables;
mod part;
mod rollup;
pub(crate) mod rows;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::config::TableParquetOptions;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::prelude::SessionConfig;
use object_store::ObjectStoreExt;
use url::Url;
use vst_common::batch::{self, Table};
use vst_common::exit::Exit;
use vst_common::latency::Window;
use vst_common::run_dir::{self, Cover, Part, RunDir};

pub(crate) use log::{Log, PhaseRecord};
pub(crate) use log_tables::loop_word;
use part::Stored;
pub(crate) use slots::len as hdr_len;

/// Stack of the threads that plan queries: the planner recurses deeply where it was built without optimisation.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Why a run directory could not be read or a query not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be read.
    #[error("`{directory}`: {source}")]
    RunDir {
        /// Which.
        directory: String,
        /// What is wrong in it.
        source: run_dir::Error,
    },
    /// A Parquet part is damaged.
    #[error(
        "`{directory}`: part `{path}` is damaged: {reason}; if the log still holds its entries, move the part away and \
         they are read instead"
    )]
    Part {
        /// Which.
        directory: String,
        /// The file, relative to the directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement that does more than read.
    #[error("a query only reads: {0}; write a SELECT, and redirect its output to keep it")]
    ReadOnly(String),
    /// There is a folder, but no run in it.
    #[error(
        "`{directory}` holds no run: neither run.json nor log entries; give the directory that `vst run` printed"
    )]
    NoRun {
        /// Where.
        directory: String,
    },
    /// Nothing to predict from.
    #[error(
        "no checkpoint with live rows and a baseline before it: run a scenario with checkpoints while it grows"
    )]
    NoGrowth,
    /// Nothing to compare with.
    #[error(
        "one run directory given, a comparison needs two or more; the others are compared with the first"
    )]
    OneRun,
    /// No directory was named.
    #[error("no run directory given")]
    NoDirectory,
    /// A batch in the log is not one of its table.
    #[error("`{directory}`: log entry {entry}, a batch of {table}: {source}")]
    Batch {
        /// The run directory.
        directory: String,
        /// The entry.
        entry: u64,
        /// The table.
        table: Table,
        /// What is wrong.
        source: batch::Error,
    },
    /// The query is wrong or could not be run.
    #[error("query failed: {}", root(.0))]
    Query(Box<DataFusionError>),
    /// A histogram in a result is damaged.
    #[error(transparent)]
    Histogram(#[from] vst_common::latency::Error),
    /// The result could not be written.
    #[error("result could not be written: {0}")]
    Write(String),
    /// No thread or runtime for the query engine.
    #[error("query engine could not start: {0}")]
    Start(#[source] std::io::Error),
    /// The thread of the query engine ended without an answer; a bug.
    #[error("query engine ended without an answer")]
    Ended,
}

impl Error {
    /// The exit code of a command that fails with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::RunDir { .. }
            | Self::Part { .. }
            | Self::ReadOnly(_)
            | Self::NoRun { .. }
            | Self::NoDirectory
            | Self::OneRun
            | Self::NoGrowth
            | Self::Query(_) => Exit::Usage,
            Self::Batch { .. } | Self::Histogram(_) | Self::Write(_) | Self::Start(_) | Self::Ended => {
                Exit::Bug
            }
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        Self::Query(Box::new(error))
    }
}

/// What is wrong, without the engine's prefixes of where it noticed.
fn root(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace()
}

/// A session over run directories.
pub(crate) struct Engine {
    context: SessionContext,
    logs: Vec<Log>,
    /// The parts that tables are read from.
    parts: Vec<Stored>,
}

impl Engine {
    /// Opens run directories; tables hold the rows of all of them, told apart by column `run`.
    pub(crate) async fn open(directories: &[String]) -> Result<Self, Error> {
        if directories.is_empty() {
            return Err(Error::NoDirectory);
        }
        let mut config = SessionConfig::new().with_information_schema(true);
        // The tables state their types; parts read back as views of the same would not union with the log's batches.
        config.options_mut().execution.parquet.schema_force_view_types = false;
        let context = SessionContext::new_with_config(config);
        functions::register(&context);
        let mut views: BTreeMap<Table, Vec<DataFrame>> = BTreeMap::new();
        let (mut logs, mut stored) = (Vec::new(), Vec::new());
        for (i, directory) in directories.iter().enumerate() {
            let (dir, log, covers) = read(directory).await?;
            // A base that no real store has, so that several runs of one store do not collide.
            let base = format!("run://run{i}/");
            if let Ok(url) = Url::parse(&base) {
                context.register_object_store(&url, Arc::clone(dir.store()));
            }
            for (table, cover) in &covers {
                let frames = views.entry(*table).or_default();
                frames.push(context.read_table(memory_table(*table, log.batches(*table))?)?);
                if *table == Table::LatencyRollup && !log.unmerged.is_empty() {
                    frames.push(rollup::merged(&context, log.unmerged.clone()).await?);
                }
                stored.extend(cover.parts.iter().map(|part| Stored::of(directory, &dir, part)));
                if !cover.parts.is_empty() {
                    frames.push(context.read_table(parquet_table(*table, &base, &dir, &cover.parts)?)?);
                }
            }
            logs.push(log);
        }
        for (table, frames) in views {
            let Some(view) = union(frames)? else { continue };
            if matches!(table, Table::Latency | Table::LatencyRollup) {
                context.register_table(format!("{table}_all"), view.into_view())?;
                let requests = context.sql(&requests(table)).await?;
                context.register_table(table.as_str(), requests.into_view())?;
            } else {
                context.register_table(table.as_str(), view.into_view())?;
            }
        }
        log_tables::register(&context, &logs)?;
        // A damaged part is named now, before a query gives the rows of the others.
        for part in &stored {
            part.check_footer().await?;
        }
        Ok(Self { context, logs, parts: stored })
    }

    /// What the logs say, one per directory.
    pub(crate) fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// Answers a query.
    pub(crate) async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        Ok(self.sql_with_schema(sql).await?.1)
    }

    /// Answers a query, with the columns also where there are no rows. Nothing but queries is answered.
    pub(crate) async fn sql_with_schema(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
        let plan = self.context.state().create_logical_plan(sql).await?;
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(|e| Error::ReadOnly(root(&e)))?;
        let frame = self.context.execute_logical_plan(plan).await?;
        let schema = Arc::clone(frame.schema().inner());
        match frame.collect().await {
            Ok(batches) => Ok((schema, batches)),
            Err(error) => {
                // The engine does not say which file it read.
                if matches!(
                    error.find_root(),
                    DataFusionError::ParquetError(_) | DataFusionError::ArrowError(..)
                ) {
                    for part in &self.parts {
                        part.check_rows().await?;
                    }
                }
                Err(error.into())
            }
        }
    }
}

/// Runs work of the engine on threads of its own and waits for it, so that the caller's runtime neither stalls while
/// a query is planned nor has to have stacks that are deep enough for that.
pub(crate) async fn on_own_threads<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: AsyncFnOnce() -> Result<T, Error> + Send + 'static,
{
    let (done, answer) = tokio::sync::oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(Error::Start);
        // A caller that went away wants no answer.
        let _ = done.send(runtime.and_then(|runtime| runtime.block_on(work())));
    };
    std::thread::Builder::new()
        .name(String::from("query-engine"))
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map_err(Error::Start)?;
    answer.await.unwrap_or(Err(Error::Ended))
}

async fn read(directory: &str) -> Result<(RunDir, Log, BTreeMap<Table, Cover>), Error> {
    let wrong = |source| Error::RunDir { directory: directory.to_owned(), source };
    let dir = RunDir::open(directory).map_err(wrong)?;
    let facts = match dir.store().head(&dir.path(run_dir::RUN_JSON)).await {
        Ok(_) => Some(dir.read_run_json().await.map_err(wrong)?),
        // The log opens with the same facts; a run killed before it wrote the file is still a run.
        Err(object_store::Error::NotFound { .. }) => None,
        Err(source) => {
            return Err(wrong(run_dir::Error::Store { path: run_dir::RUN_JSON.to_owned(), source }));
        }
    };
    let entries = dir.list_entries().await.map_err(wrong)?;
    let mut covers = BTreeMap::new();
    for table in Table::ALL {
        let mut cover = dir.cover(table).await.map_err(wrong)?;
        // The run may go on: all tables end at the same entry.
        cover.uncovered.retain(|number| entries.last().is_some_and(|last| number <= last));
        covers.insert(table, cover);
    }
    if facts.is_none() && entries.is_empty() && covers.values().all(|cover| cover.parts.is_empty()) {
        return Err(Error::NoRun { directory: directory.to_owned() });
    }
    let log = Log::read(&dir, directory, facts, entries, &covers).await?;
    Ok((dir, log, covers))
}

/// Rows of the measured window, without the parts of fanned-out queries: what a plain `group by phase` means.
fn requests(table: Table) -> String {
    format!(
        "select * from {table}_all where \"window\" = '{}' and operation <> 'knn_part'",
        Window::Measure.as_str()
    )
}

fn memory_table(table: Table, batches: &[RecordBatch]) -> Result<Arc<dyn TableProvider>, Error> {
    Ok(Arc::new(MemTable::try_new(columns::schema(table), vec![batches.to_vec()])?))
}

fn parquet_table(
    table: Table,
    base: &str,
    dir: &RunDir,
    parts: &[Part],
) -> Result<Arc<dyn TableProvider>, Error> {
    let urls = parts
        .iter()
        .map(|part| ListingTableUrl::parse(format!("{base}{}", dir.path(&part.path()))))
        .collect::<Result<Vec<_>, _>>()?;
    let mut reading = TableParquetOptions::default();
    reading.global.schema_force_view_types = false;
    // Histograms of rows that a query leaves out are not even unpacked.
    reading.global.pushdown_filters = true;
    reading.global.reorder_filters = true;
    let format = ParquetFormat::default().with_options(reading);
    let options = ListingOptions::new(Arc::new(format)).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(columns::schema(table));
    Ok(Arc::new(ListingTable::try_new(config)?))
}

fn union(frames: Vec<DataFrame>) -> Result<Option<DataFrame>, Error> {
    let mut whole: Option<DataFrame> = None;
    for frame in frames {
        whole = Some(match whole {
            Some(whole) => whole.union(frame)?,
            None => frame,
        });
    }
    Ok(whole)
}
