//! Parsed definitions for readers, by workflow and version; a version never changes.
//!
//! Reading a definition of 10,000 tasks takes a processor a tenth of a second, so it happens beside the tasks that serve
//! calls, a few at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use millrace_common::{definition, id::WorkflowName, workflow::Workflow};
use millrace_store::{Store, query::QueryError};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// Parsed versions that are kept: more than a page of a list shows.
const KEPT_MAX: usize = 1_024;
/// Tasks of all parsed versions that are kept, at about a kilobyte each.
const TASKS_KEPT_MAX: usize = 50_000;
/// Definitions that are read at once; each may need a processor and a hundred megabytes for a moment.
const PARSING_MAX: usize = 2;

/// Reads definitions through the store and keeps what it parsed; what was not asked for the longest time gives way.
#[derive(Debug)]
pub(crate) struct Definitions {
    kept: Mutex<Cache>,
    parsing: Semaphore,
}

impl Default for Definitions {
    fn default() -> Self {
        Self { kept: Mutex::default(), parsing: Semaphore::new(PARSING_MAX) }
    }
}

/// Why a definition is not to be had.
#[derive(Debug, Error)]
pub(crate) enum DefinitionError {
    /// The store did not answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is no such version.
    #[error("workflow {0} has no version {1}")]
    Absent(WorkflowName, u32),
    /// It was accepted once and is refused by this build.
    #[error("version {1} of workflow {0} is not valid for this build: apply the definition again")]
    Invalid(WorkflowName, u32, #[source] definition::Rejected),
    /// The program ends.
    #[error("this master is stopping")]
    Stopped(#[source] JoinError),
}

impl Definitions {
    /// Returns a version of a workflow in its valid form.
    pub(crate) async fn get(
        &self,
        store: &Store,
        name: &WorkflowName,
        version: u32,
    ) -> Result<Arc<Workflow>, DefinitionError> {
        let key = (name.clone(), version);
        if let Some(found) = self.kept().get(&key) {
            return Ok(found);
        }
        let row = store
            .workflow(name, Some(version))
            .await?
            .ok_or_else(|| DefinitionError::Absent(name.clone(), version))?;
        let parsed = self.parse(row.source).await.map_err(DefinitionError::Stopped)?;
        let parsed = parsed.map_err(|rejected| DefinitionError::Invalid(name.clone(), version, rejected))?;
        let parsed = Arc::new(parsed);
        self.kept().insert(key, Arc::clone(&parsed));
        Ok(parsed)
    }

    /// Reads a document, beside the tasks that serve calls.
    pub(crate) async fn parse(
        &self,
        source: Arc<str>,
    ) -> Result<Result<Workflow, definition::Rejected>, JoinError> {
        // The semaphore is never closed; without a permit nothing worse happens than a busy processor.
        let _permit = self.parsing.acquire().await;
        spawn_blocking(move || definition::parse(&source)).await
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Key = (WorkflowName, u32);

#[derive(Debug, Default)]
struct Cache {
    parsed: BTreeMap<Key, (u64, Arc<Workflow>)>,
    tasks: usize,
    /// Counts uses; the entry with the lowest number was not used for the longest time.
    uses: u64,
}

impl Cache {
    fn get(&mut self, key: &Key) -> Option<Arc<Workflow>> {
        self.uses += 1;
        let (used, workflow) = self.parsed.get_mut(key)?;
        *used = self.uses;
        Some(Arc::clone(workflow))
    }

    fn insert(&mut self, key: Key, workflow: Arc<Workflow>) {
        self.uses += 1;
        self.tasks += workflow.tasks.len();
        if let Some((_, before)) = self.parsed.insert(key, (self.uses, workflow)) {
            self.tasks -= before.tasks.len();
        }
        while self.parsed.len() > KEPT_MAX || (self.tasks > TASKS_KEPT_MAX && self.parsed.len() > 1) {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let oldest = self.parsed.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
        if let Some((_, gone)) = oldest.and_then(|key| self.parsed.remove(&key)) {
            self.tasks -= gone.tasks.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(tasks: usize) -> Arc<Workflow> {
        use std::fmt::Write as _;
        let mut text = "workflow: w\ntasks:\n".to_owned();
        for task in 0..tasks {
            writeln!(text, "  t{task}: {{ kind: custom }}").unwrap();
        }
        Arc::new(definition::parse(&text).unwrap())
    }

    fn key(number: usize) -> Key {
        (format!("w{number}").parse().unwrap(), 1)
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_gives_way() {
        let mut cache = Cache::default();
        for number in 0..KEPT_MAX {
            cache.insert(key(number), workflow(1));
        }
        assert!(cache.get(&key(0)).is_some());
        cache.insert(key(KEPT_MAX), workflow(1));
        assert_eq!((cache.parsed.len(), cache.tasks), (KEPT_MAX, KEPT_MAX));
        assert!(cache.get(&key(0)).is_some());
        assert!(cache.get(&key(1)).is_none());
    }

    #[test]
    fn large_definitions_are_bounded_together() {
        let mut cache = Cache::default();
        let large = workflow(10_000);
        for number in 0..7 {
            cache.insert(key(number), Arc::clone(&large));
        }
        assert_eq!((cache.parsed.len(), cache.tasks), (5, 50_000));
        cache.insert(key(6), large);
        assert_eq!((cache.parsed.len(), cache.tasks), (5, 50_000));
    }
}
