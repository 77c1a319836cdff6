//! The generation of terms: which election service numbers them, and how often it was replaced.
//!
//! An election service numbers leaderships; a new or restored one begins again, and its numbers would fall below those
//! that were claimed. So a term begins with a generation that is kept here, beside the fence, together with the service
//! that it belongs to. Another service is a stranger until somebody adopts it, which makes the generation grow.
//!
//! This row is not under the fence: it is changed by whoever the operator asks, and the change compares with what was read.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    Store,
    claim::TermError,
    dialect::{Purpose, Row},
    row::RowError,
};

const READ: &str = "SELECT generation, service FROM coordination WHERE id = 1";
const ADOPT: &str =
    "UPDATE coordination SET generation = generation + 1, service = ? WHERE id = 1 AND generation = ?";

/// Characters of a service's id, as its column has them.
const SERVICE_CHARS_MAX: usize = 191;

/// Which election service numbers the terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// How many services were adopted so far.
    pub number: u32,
    /// The id of the last one; absent before the first.
    pub service: Option<Arc<str>>,
}

/// Why the generation could not be read or changed.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// The database does not answer.
    #[error("the generation of terms cannot be read or changed")]
    Database(#[from] sqlx::Error),
    /// The row makes no sense.
    #[error("the generation of terms cannot be read")]
    Row(#[from] RowError),
    /// The row is not there, or the database cannot be asked.
    #[error(transparent)]
    Missing(#[from] TermError),
    /// Somebody changed it since it was read.
    #[error("the generation of terms changed meanwhile: look again")]
    Changed,
    /// The id is too long.
    #[error("the id of the election service has {0} characters, at most {SERVICE_CHARS_MAX} are kept")]
    Service(usize),
}

impl Store {
    /// Returns the generation.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn generation(&self) -> Result<Generation, GenerationError> {
        generation_of(&self.inner.database.read(READ, &[]).await?)
    }

    /// Makes `service` the one that numbers the terms, in the generation after `current`, and returns that.
    ///
    /// The future must run to its end.
    ///
    /// # Errors
    /// Where the generation is not `current` any more, or the database does not answer; it may have been done then.
    pub async fn adopt(&self, service: &str, current: &Generation) -> Result<Generation, GenerationError> {
        let chars = service.chars().count();
        if chars > SERVICE_CHARS_MAX {
            return Err(GenerationError::Service(chars));
        }
        let mut connection = self.inner.database.connect(Purpose::Load).await?;
        let changed = connection.execute(ADOPT, &[service.into(), current.number.into()]).await;
        connection.close_hard().await;
        match changed? {
            0 => Err(GenerationError::Changed),
            _ => Ok(Generation { number: current.number + 1, service: Some(service.into()) }),
        }
    }
}

fn generation_of(rows: &[Row]) -> Result<Generation, GenerationError> {
    let row = rows.first().ok_or(TermError::Missing)?;
    let mut cells = row.cells();
    let number = cells.int()?;
    let number = u32::try_from(number)
        .map_err(|_| RowError::Number { value: number, meaning: "generation of terms" })?;
    let service = cells.text()?;
    Ok(Generation { number, service: Some(service).filter(|service| !service.is_empty()) })
}
