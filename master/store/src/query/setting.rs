//! Live settings and what was done to them.

use std::sync::Arc;

use millrace_common::{term::Term, time::Timestamp};
use millrace_core::SettingRow;

use super::{Page, QueryError, fetched, page, read_all};
use crate::{
    Store,
    dialect::Cell,
    load::SETTINGS,
    row::{Cells, RowError},
};

/// What was once done to a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// Which change recorded it.
    pub key: SettingChangeKey,
    /// The setting's name.
    pub name: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Arc<str>,
    /// The value that was in force.
    pub old: Option<Arc<str>>,
    /// The value that was given; absent where it was unset.
    pub given: Option<Arc<str>>,
    /// Why it was refused, where it was.
    pub refusal: Option<Arc<str>>,
}

/// Names a change of a setting: later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingChangeKey {
    /// The term that committed it.
    pub term: Term,
    /// The transaction within the term.
    pub seq: u64,
    /// Its place among those of the transaction.
    pub position: u32,
}

impl SettingChangeKey {
    /// Comes after all others.
    const LAST: Self = Self { term: Term(u64::MAX), seq: u64::MAX, position: u32::MAX };

    fn cells(self) -> [Cell; 5] {
        let (term, seq): (Cell, Cell) = (self.term.0.into(), self.seq.into());
        [term.clone(), term, seq.clone(), seq, self.position.into()]
    }
}

const CHANGES: &str = "SELECT term, seq, position, name, changed_at, changed_by, old_text, given_text, refused_reason \
     FROM setting_change WHERE (term < ? OR (term = ? AND (seq < ? OR (seq = ? AND position < ?)))) \
     ORDER BY term DESC, seq DESC, position DESC LIMIT ?";
const CHANGES_OF: &str = "SELECT term, seq, position, name, changed_at, changed_by, old_text, given_text, refused_reason \
     FROM setting_change WHERE (term < ? OR (term = ? AND (seq < ? OR (seq = ? AND position < ?)))) AND name = ? \
     ORDER BY term DESC, seq DESC, position DESC LIMIT ?";

impl Store {
    /// Returns what operators gave the live settings, by name.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn settings(&self) -> Result<Vec<SettingRow>, QueryError> {
        let rows = self.inner.database.read(SETTINGS, &[]).await?;
        read_all("setting", &rows, setting)
    }

    /// Returns what was done to live settings, newest first: those before `before`, of one name or of all.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn setting_changes(
        &self,
        name: Option<&str>,
        before: Option<SettingChangeKey>,
        limit: u32,
    ) -> Result<Page<SettingChange, SettingChangeKey>, QueryError> {
        let mut cells = before.unwrap_or(SettingChangeKey::LAST).cells().to_vec();
        cells.extend(name.map(Cell::from));
        cells.push(fetched(limit).into());
        let sql = if name.is_some() { CHANGES_OF } else { CHANGES };
        let rows = self.inner.database.read(sql, &cells).await?;
        Ok(page(read_all("setting_change", &rows, change)?, limit, |change| change.key))
    }
}

fn setting(cells: &mut Cells<'_>) -> Result<SettingRow, RowError> {
    cells.setting()
}

fn change(cells: &mut Cells<'_>) -> Result<SettingChange, RowError> {
    let key = SettingChangeKey { term: cells.term()?, seq: cells.long()?, position: cells.count()? };
    Ok(SettingChange {
        key,
        name: cells.text()?,
        at: cells.time()?,
        by: cells.text()?,
        old: cells.opt_text()?,
        given: cells.opt_text()?,
        refusal: cells.opt_text()?,
    })
}
