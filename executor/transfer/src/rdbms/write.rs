//! Writes to tables of any database: a batch in one transaction, and row by row where that fails.
//!
//! Order: the target is checked (columns, number of tables) before `preSql` changes anything.
//! `preSql` and `postSql` run once where there is one table, else with the task of their table.

use super::{
    Dialect, Login,
    link::{self, Bound, Link, TargetColumn, Verdict},
    query::{InsertText, WriteMode},
};
use crate::{
    column::{Column, Record},
    convert::Conversion,
    dirty::{DirtyRecord, Side},
    jdbc::Address,
    limits::ROW_TRIES,
    plugin::{BatchLimit, Context, Notes, Outcome, PluginError, Sink, Step, Target, Writer},
};
use std::sync::Arc;

/// A parsed writer.
#[derive(Debug, Clone)]
pub(crate) struct WriteSpec {
    pub(crate) dialect: Dialect,
    pub(crate) login: Login,
    pub(crate) tables: Vec<TargetTable>,
    pub(crate) columns: Vec<String>,
    pub(crate) mode: WriteMode,
    pub(crate) pre_sql: Vec<String>,
    pub(crate) post_sql: Vec<String>,
    pub(crate) limit: BatchLimit,
    pub(crate) empty_as_null: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct TargetTable {
    pub(crate) addresses: Vec<Address>,
    pub(crate) table: String,
}

struct Tables {
    spec: WriteSpec,
    columns: Vec<Vec<TargetColumn>>,
}

struct TableWriter {
    link: Box<dyn Link>,
    table: String,
    insert: InsertText,
    columns: Vec<TargetColumn>,
    empty_as_null: bool,
    conversion: Arc<Conversion>,
    notes: Notes,
    post_sql: Vec<String>,
}

impl Sink for WriteSpec {
    fn name(&self) -> &'static str {
        self.dialect.writer()
    }

    fn batch_limit(&self) -> BatchLimit {
        self.limit
    }

    fn prepare<'a>(&'a self, context: &'a Context, tasks: usize) -> Step<'a, Box<dyn Target>> {
        Box::pin(async move {
            if self.tables.len() != 1 && self.tables.len() != tasks {
                return Err(PluginError::Tables { tables: self.tables.len(), tasks });
            }
            let mut columns = Vec::with_capacity(self.tables.len());
            for target in &self.tables {
                columns.push(self.checked_columns(target, context).await?);
            }
            if let [single] = self.tables.as_slice() {
                self.run_statements(&self.pre_sql, single, context).await?;
            }
            Ok(Box::new(Tables { spec: self.clone(), columns }) as Box<dyn Target>)
        })
    }
}

impl WriteSpec {
    async fn checked_columns(
        &self,
        target: &TargetTable,
        context: &Context,
    ) -> Result<Vec<TargetColumn>, PluginError> {
        let mut link = link::connect(&target.addresses, &self.login, context).await?;
        let names = self.columns.join(",");
        let found = link.columns(&target.table, &names).await;
        link.close().await;
        let found = found.map_err(|source| PluginError::Statement {
            statement: format!("select {names} from {} where 1=2", target.table),
            source,
        })?;
        if !self.takes_all() && found.len() != self.columns.len() {
            let what = format!("{} are named, {} are found", self.columns.len(), found.len());
            return Err(PluginError::Columns { table: target.table.clone(), what });
        }
        Ok(found)
    }

    fn takes_all(&self) -> bool {
        matches!(self.columns.as_slice(), [single] if single.trim() == "*")
    }

    async fn run_statements(
        &self,
        statements: &[String],
        target: &TargetTable,
        context: &Context,
    ) -> Result<(), PluginError> {
        if statements.is_empty() {
            return Ok(());
        }
        let mut link = link::connect(&target.addresses, &self.login, context).await?;
        let done = run_statements(link.as_mut(), statements, &target.table, &context.notes).await;
        link.close().await;
        done
    }
}

async fn run_statements(
    link: &mut dyn Link,
    statements: &[String],
    table: &str,
    notes: &Notes,
) -> Result<(), PluginError> {
    for statement in statements {
        let statement = statement.replace("@table", table);
        notes.add(format!("Begin to execute: [{statement}]"));
        link.execute(&statement).await.map_err(|source| PluginError::Statement { statement, source })?;
    }
    Ok(())
}

impl Target for Tables {
    fn open<'a>(&'a mut self, context: &'a Context, task: usize) -> Step<'a, Box<dyn Writer>> {
        Box::pin(async move {
            let spec = &self.spec;
            let several = spec.tables.len() > 1;
            let index = if several { task } else { 0 };
            let target = &spec.tables[index];
            let columns = self.columns[index].clone();
            let mut link = link::connect(&target.addresses, &spec.login, context).await?;
            if several {
                run_statements(link.as_mut(), &spec.pre_sql, &target.table, &context.notes).await?;
            }
            let names = if spec.takes_all() {
                columns.iter().map(|column| spec.dialect.quoted(&column.name)).collect()
            } else {
                spec.columns.clone()
            };
            let writer = TableWriter {
                link,
                table: target.table.clone(),
                insert: spec.dialect.insert_text(&spec.mode, &target.table, &names),
                columns,
                empty_as_null: spec.empty_as_null,
                conversion: Arc::clone(&context.conversion),
                notes: context.notes.clone(),
                post_sql: if several { spec.post_sql.clone() } else { Vec::new() },
            };
            Ok(Box::new(writer) as Box<dyn Writer>)
        })
    }

    fn post<'a>(&'a mut self, context: &'a Context) -> Step<'a, ()> {
        Box::pin(async move {
            match self.spec.tables.as_slice() {
                [single] => self.spec.run_statements(&self.spec.post_sql, single, context).await,
                _ => Ok(()),
            }
        })
    }
}

/// Records that can be bound, beside their bound rows.
#[derive(Default)]
struct Bindable {
    records: Vec<Record>,
    rows: Vec<Vec<Bound>>,
}

impl Writer for TableWriter {
    fn write(&mut self, records: Vec<Record>) -> Step<'_, Outcome> {
        Box::pin(async move {
            let mut outcome = Outcome::default();
            let good = self.bind_all(records, &mut outcome)?;
            if good.rows.is_empty() {
                return Ok(outcome);
            }
            if let Err(error) = self.link.insert_all(&self.insert, &good.rows).await {
                if self.link.verdict(&error) == Verdict::Fatal {
                    return Err(self.fatal(error));
                }
                self.notes.add(format!("batch was rolled back and is written row by row, because: {error}"));
                self.write_rows(good, &mut outcome).await?;
            }
            Ok(outcome)
        })
    }

    fn finish(mut self: Box<Self>) -> Step<'static, ()> {
        Box::pin(async move {
            let done = run_statements(self.link.as_mut(), &self.post_sql, &self.table, &self.notes).await;
            self.link.close().await;
            done
        })
    }
}

impl TableWriter {
    fn fatal(&self, source: sqlx::Error) -> PluginError {
        PluginError::Insert { table: self.table.clone(), source }
    }

    fn bind_all(&self, records: Vec<Record>, outcome: &mut Outcome) -> Result<Bindable, PluginError> {
        let mut good = Bindable::default();
        for record in records {
            if record.len() != self.columns.len() {
                return Err(PluginError::ColumnCount { found: record.len(), wanted: self.columns.len() });
            }
            match self.bind(&record) {
                Ok(row) => {
                    good.rows.push(row);
                    good.records.push(record);
                }
                Err(message) => {
                    outcome.dirty.push(DirtyRecord { side: Side::Writer, record, message });
                }
            }
        }
        Ok(good)
    }

    fn bind(&self, record: &[Column]) -> Result<Vec<Bound>, String> {
        let values = record.iter().zip(&self.columns);
        values
            .map(|(column, target)| {
                let empty = matches!(column, Column::String(Some(text)) if text.is_empty());
                if column.is_null() || (empty && self.empty_as_null && target.kind.is_numeric()) {
                    return Ok(Bound::Null);
                }
                self.link
                    .bind(column, target.kind, &self.conversion)
                    .map_err(|why| format!("column {}: {why}", target.name))
            })
            .collect()
    }

    async fn write_rows(&mut self, good: Bindable, outcome: &mut Outcome) -> Result<(), PluginError> {
        for (record, row) in good.records.into_iter().zip(good.rows) {
            if let Err(error) = self.write_row(&row).await {
                if self.link.verdict(&error) == Verdict::Fatal {
                    return Err(self.fatal(error));
                }
                let message = message_of(&error);
                outcome.dirty.push(DirtyRecord { side: Side::Writer, record, message });
            }
        }
        Ok(())
    }

    /// A row that only lost a lock is not bad, so it is tried again.
    async fn write_row(&mut self, row: &[Bound]) -> Result<(), sqlx::Error> {
        let mut tries = 1;
        loop {
            match self.link.insert_one(&self.insert, row).await {
                Err(error) if tries < ROW_TRIES && self.link.verdict(&error) == Verdict::Again => tries += 1,
                done => return done,
            }
        }
    }
}

/// The database's own words.
fn message_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}
