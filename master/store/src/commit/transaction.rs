//! One try of a transaction, on one connection.

use super::{CommitError, Writer};
use crate::{
    bulk::Statement,
    claim::{TermError, read_fence},
    dialect::{ADVANCE, Cell, Connection, Trouble, trouble},
};

/// How a try ended that did not succeed.
pub(super) enum Failure {
    /// Nothing was written, and the same again would fail the same way.
    Certain(CommitError),
    /// Nothing was written, because of another transaction.
    Conflict(sqlx::Error),
    /// The connection is gone. If COMMIT was sent, it is not known what became of it.
    Lost { source: sqlx::Error, is_sent: bool },
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        Self::Certain(error)
    }
}

impl Failure {
    /// Judges an error of a statement before COMMIT.
    fn of(step: &'static str, source: sqlx::Error) -> Self {
        match trouble(&source) {
            Trouble::Conflict => Self::Conflict(source),
            Trouble::Outage => Self::Lost { source, is_sent: false },
            Trouble::Full => Self::Certain(CommitError::DiskFull(source)),
            Trouble::Duplicate | Trouble::Other => Self::Certain(CommitError::Database { step, source }),
        }
    }
}

impl Writer {
    /// Runs statements in one fenced transaction, on the connection that there is.
    pub(super) async fn run(&mut self, statements: &[Statement]) -> Result<(), Failure> {
        let Some(mut connection) = self.connection.take() else {
            return Err(CommitError::Closed(self.term).into());
        };
        let result = self.run_on(&mut connection, statements).await;
        self.connection = Some(connection);
        result
    }

    async fn run_on(&mut self, connection: &mut Connection, statements: &[Statement]) -> Result<(), Failure> {
        if !self.is_done_at_once(connection, statements).await
            && let Err(failure) = self.run_each(connection, statements).await
        {
            if matches!(failure, Failure::Conflict(_)) {
                // What cannot be undone here is undone with the connection, at the next error.
                let _ = connection.rollback().await;
            }
            return Err(failure);
        }
        // Any error from here on leaves the outcome open, whatever it says.
        self.send_commit(connection).await.map_err(|source| Failure::Lost { source, is_sent: true })
    }

    /// Runs the transaction up to its COMMIT in as few messages as the database takes it in. Where anything is not as it
    /// must be, undoes it and returns false: one by one, the statements will tell what.
    async fn is_done_at_once(&mut self, connection: &mut Connection, statements: &[Statement]) -> bool {
        #[cfg(feature = "testing")]
        if self.pause.is_some() {
            return false;
        }
        let Some(sql) = self.texts.joined(&self.inner.database, statements) else { return false };
        if let Ok(rows) = connection.write_joined(sql, &self.fence_cells(), statements).await
            && rows.len() == statements.len()
            && rows.iter().zip(statements).all(|(rows, statement)| statement.is_met_by(*rows))
        {
            return true;
        }
        // It may not have begun, or have been undone already: what matters shows when the next one begins.
        let _ = connection.rollback().await;
        false
    }

    async fn run_each(
        &mut self,
        connection: &mut Connection,
        statements: &[Statement],
    ) -> Result<(), Failure> {
        let begun = connection.begin_write().await;
        begun.map_err(|source| Failure::of("begin a transaction", source))?;
        self.advance(connection).await?;
        #[cfg(feature = "testing")]
        if let Some(pause) = self.pause.take() {
            pause.pass();
        }
        for statement in statements {
            let sql = self.texts.of(&self.inner.database, statement);
            match connection.write(sql, statement).await {
                Ok(rows) if statement.is_met_by(rows) => {}
                result => return Err(self.explained(connection, statement, result.err()).await),
            }
        }
        Ok(())
    }

    fn fence_cells(&self) -> [Cell; 2] {
        [self.term.0.into(), self.seq.into()]
    }

    /// Advances the fence row, first of all.
    async fn advance(&self, connection: &mut Connection) -> Result<(), Failure> {
        let advanced = connection.execute(ADVANCE, &self.fence_cells()).await;
        if advanced.map_err(|source| Failure::of("advance the fence", source))? == 1 {
            return Ok(());
        }
        match read_fence(connection).await {
            Ok(fence) => Err(self.fenced(&fence).into()),
            Err(TermError::Database(source)) => Err(Failure::of("read the fence", source)),
            Err(source) => Err(CommitError::Guard { what: source.to_string() }.into()),
        }
    }

    async fn send_commit(&mut self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        #[cfg(feature = "testing")]
        if let Some(fault) = self.fault.take() {
            return fault.strike(connection).await;
        }
        connection.commit().await
    }

    /// Finds the row for which a statement failed: undoes all, and repeats the statement row by row.
    async fn explained(
        &mut self,
        connection: &mut Connection,
        statement: &Statement,
        error: Option<sqlx::Error>,
    ) -> Failure {
        const STEP: &str = "write the changes";
        if let Some(source) = error
            && trouble(&source) != Trouble::Duplicate
        {
            return Failure::of(STEP, source);
        }
        let subject = statement.shape.subject;
        let unexplained = CommitError::Guard { what: format!("a {subject} among {}", statement.rows) };
        if connection.rollback().await.is_err() || connection.begin_write().await.is_err() {
            return unexplained.into();
        }
        for single in statement.singles() {
            let sql = self.texts.of(&self.inner.database, &single);
            match connection.write(sql, &single).await {
                Ok(rows) if single.is_met_by(rows) => {}
                Ok(_) => {
                    let what = format!("{} is missing or in another state", single.subject());
                    return CommitError::Guard { what }.into();
                }
                Err(source) if trouble(&source) == Trouble::Duplicate => {
                    return CommitError::Duplicate { what: single.subject(), source }.into();
                }
                Err(source) => return Failure::of(STEP, source),
            }
        }
        unexplained.into()
    }
}
