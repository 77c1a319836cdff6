//! The `aoi` kind: inspection archives of film rolls, from FTP servers or folders into a database.
//!
//! Three stages over the dated folders of an interval: `mirror` fetches archives into the `store`, `unpack` opens
//! them, `load` writes rolls and defects; a plant's `command` may take the place of each. Every stage is idempotent,
//! file by file and roll by roll, so that a second attempt goes on where the first ended. What is broken is put aside and
//! told, what is not there yet is waited for and told, and an attempt that could not do everything fails after it has done
//! what it could.

mod archive;
mod blocking;
mod cell;
mod command;
mod days;
mod fetch;
mod folder;
mod ftp;
mod ingest;
mod ledger;
mod listing;
mod load;
mod mirror;
mod name;
mod part;
mod plan;
mod ready;
mod remote;
mod roll;
mod session;
mod store;
mod summary;
mod tables;
mod target;
mod unpack;

use millrace_common::kind::aoi::AoiWith;
use serde_json::Value;
use thiserror::Error;

pub use self::{
    command::CommandError, fetch::FetchError, ledger::LedgerError, load::LoadError, mirror::MirrorError,
    remote::RemoteError, store::StoreError,
};
use self::{ingest::Ingestion, plan::Plan};
use crate::{
    builtin,
    launch::{Kind, Launch, LaunchError, Misfits, Site, Work},
    report::Report,
    run::Context,
};

/// The name of the kind.
const NAME: &str = "aoi";

/// The `aoi` kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aoi;

impl Kind for Aoi {
    fn launch(&self, work: &Work<'_>, site: &Site) -> Result<Launch, LaunchError> {
        let with: AoiWith = builtin::parameters(NAME, work.with)?;
        Plan::new(&with).map_err(|misfits| LaunchError::Misfits { kind: NAME.to_owned(), misfits })?;
        builtin::launch(NAME, &with.connections(), work, site, Value::Null)
    }
}

/// Why an ingestion failed.
#[derive(Debug, Error)]
pub enum AoiError {
    /// The parameters are not what the kind takes.
    #[error("the parameters are not what kind aoi takes: {0}")]
    Parameters(Misfits),
    /// A connection is missing in the payload.
    #[error("connection {0:?} is not in the payload")]
    Connection(String),
    /// A connection leads to something else than what it is used for.
    #[error("connection {connection:?} leads to {engine}, and {needed} is needed")]
    Engine {
        /// The connection.
        connection: String,
        /// What it leads to.
        engine: String,
        /// What it should lead to.
        needed: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A plant's command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Loading failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Sources could not be mirrored; what could be fetched has been ingested.
    #[error("source {name:?} could not be mirrored ({count} of the sources failed)")]
    Mirror {
        /// The first of them.
        name: String,
        /// How many.
        count: usize,
        /// Why the first could not.
        #[source]
        source: MirrorError,
    },
    /// Files could not be fetched; all others have been ingested.
    #[error("{count} files could not be fetched, the first is {name:?}")]
    Unfetched {
        /// How many.
        count: usize,
        /// The first of them.
        name: String,
        /// Why the first could not.
        #[source]
        source: FetchError,
    },
    /// Files were not complete in time; all others have been ingested.
    #[error(
        "{count} files are not complete yet, the first is {name:?}; the next attempt takes them, or see mirror.on_unready"
    )]
    Unready {
        /// How many.
        count: usize,
        /// The first of them.
        name: String,
    },
    /// Archives or reports are broken; all others have been ingested.
    #[error(
        "{count} archives are broken and in the quarantine, the first is {name:?}; see on_broken and retry_quarantined"
    )]
    Broken {
        /// How many.
        count: usize,
        /// The first of them.
        name: String,
    },
    /// There is nothing to ingest.
    #[error("there is no file for {0}; see on_empty")]
    Empty(String),
}

/// Ingests the archives that the parameters name.
///
/// # Errors
/// Where the parameters do not fit, or anything could not be done; see [`AoiError`].
pub async fn run(with: AoiWith, ctx: &Context) -> Result<Report, AoiError> {
    let plan = Plan::new(&with).map_err(AoiError::Parameters)?;
    // On the heap: the future of three stages is large, and the caller holds those of other kinds beside it.
    let mut ingestion = Box::pin(Ingestion::open(plan, ctx)).await?;
    Box::pin(ingestion.run()).await
}
