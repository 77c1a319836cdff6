//! Reads queries of any database: one task for each table or `querySql`.

use std::sync::Arc;

use futures_util::{StreamExt, stream::BoxStream};

use super::{
    Dialect, Login,
    link::{self, Row},
};
use crate::{
    jdbc::Address,
    plugin::{Batch, BatchLimit, Context, PluginError, ReadTask, Reader, Source, Step},
};

/// A parsed reader.
#[derive(Debug)]
pub(crate) struct ReadSpec {
    pub(crate) dialect: Dialect,
    pub(crate) login: Login,
    pub(crate) origins: Vec<Origin>,
}

/// Queries at addresses of which the first that answers is used.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) addresses: Vec<Address>,
    pub(crate) queries: Vec<String>,
}

#[derive(Debug)]
struct QueryTask {
    addresses: Vec<Address>,
    login: Login,
    query: String,
}

struct QueryReader {
    rows: BoxStream<'static, Result<Row, sqlx::Error>>,
    query: String,
}

impl Source for ReadSpec {
    fn name(&self) -> &'static str {
        self.dialect.reader()
    }

    /// One task for each query. Splitting a table by `splitPk` belongs here, when channels run at once.
    fn split<'a>(&'a self, _context: &'a Context) -> Step<'a, Vec<Box<dyn ReadTask>>> {
        let tasks = self.origins.iter().flat_map(|origin| {
            origin.queries.iter().map(|query| {
                Box::new(QueryTask {
                    addresses: origin.addresses.clone(),
                    login: self.login.clone(),
                    query: query.clone(),
                }) as Box<dyn ReadTask>
            })
        });
        let tasks = tasks.collect();
        Box::pin(async move { Ok(tasks) })
    }
}

impl ReadTask for QueryTask {
    fn open<'a>(self: Box<Self>, context: &'a Context) -> Step<'a, Box<dyn Reader>> {
        Box::pin(async move {
            let link = link::connect(&self.addresses, &self.login, context).await?;
            context.notes.add(format!("Begin to read record by Sql: [{}]", self.query));
            let rows = link.rows(self.query.clone(), Arc::clone(&context.conversion));
            Ok(Box::new(QueryReader { rows, query: self.query }) as Box<dyn Reader>)
        })
    }
}

impl Reader for QueryReader {
    fn next_batch(&mut self, limit: BatchLimit) -> Step<'_, Option<Batch>> {
        Box::pin(async move {
            let mut batch = Batch::default();
            while !batch.is_full(limit) {
                match self.rows.next().await {
                    Some(Ok(Ok(record))) => batch.push(record),
                    Some(Ok(Err(dirty))) => batch.dirty.push(dirty),
                    Some(Err(source)) => {
                        return Err(PluginError::Rows { query: self.query.clone(), source });
                    }
                    None => break,
                }
            }
            Ok(Some(batch).filter(|batch| !batch.is_empty()))
        })
    }
}
