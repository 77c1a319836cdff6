//! Looking whether the past broke an invariant: asks the store and the executors, and tells what was found.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use millrace_common::{
    id::ExecutorName,
    time::{Clock as _, Timestamp},
};
use millrace_proto::v1;
use millrace_runtime::SystemClock;
use tonic::Status;

use super::Control;
use crate::{
    rpc::status,
    verify::{self, Findings, LedgerError, Ledgers, RANGE, Range, SETTLED_AFTER, VerifyError},
};

impl Control {
    pub(super) async fn verify_range(
        &self,
        request: v1::VerifyRequest,
    ) -> Result<v1::VerifyResponse, Status> {
        let range = range(&request, SystemClock.now().wall)?;
        // It holds much in memory: it takes one of the places of those who watch and follow.
        let _place = self.place()?;
        let past = verify::read(&self.store, range).await.map_err(|error| failed(&error))?;
        // After the rows: whatever an executor has written down by then, they may tell of, and not the other way round.
        let executors: BTreeSet<ExecutorName> =
            past.executors().into_iter().chain(self.histories.connected()).collect();
        let ledgers = self.read_ledgers(executors, range).await;
        let found = verify::judge(&self.store, range, past, ledgers).await;
        Ok(response(range, found.map_err(|error| failed(&error))?))
    }

    async fn read_ledgers(&self, executors: BTreeSet<ExecutorName>, range: Range) -> Ledgers {
        let Some(seat) = self.standby.roles.seat() else {
            return executors.into_iter().map(|executor| (executor, Err(LedgerError::NoLeader))).collect();
        };
        let leader = &seat.leader;
        let reads = executors.into_iter().map(|executor| async move {
            let read = self.histories.read(leader, &executor, range.since, range.until).await;
            (executor, read)
        });
        join_all(reads).await.into_iter().collect()
    }
}

fn range(request: &v1::VerifyRequest, now: Timestamp) -> Result<Range, Status> {
    let settled = now - SETTLED_AFTER;
    let until = request.until.map_or(settled, Timestamp::from_micros).min(settled);
    let since = request.since.map_or(until - RANGE, Timestamp::from_micros);
    if since >= until {
        return Err(status::invalid(format!(
            "the range from {since} to {until} is empty: it ends {} s ago at the latest, when everything is settled",
            SETTLED_AFTER.as_secs()
        )));
    }
    Ok(Range { since, until })
}

fn failed(error: &VerifyError) -> Status {
    match error {
        VerifyError::Query(error) => status::of_query(error),
        VerifyError::TooMany => status::not_now(error.to_string()),
        VerifyError::Stopped(_) => status::stopping(),
    }
}

fn response(range: Range, findings: Findings) -> v1::VerifyResponse {
    let Findings { found, is_truncated, unjudged, runs, attempts, claims, executors } = findings;
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    v1::VerifyResponse {
        since: range.since.as_micros(),
        until: range.until.as_micros(),
        violations: found
            .into_iter()
            .map(|found| v1::Violation { rule: found.rule.to_owned(), what: found.what, rows: found.rows })
            .collect(),
        is_truncated,
        executors: executors
            .into_iter()
            .map(|(executor, read)| {
                let executor = executor.to_string();
                match read {
                    Ok((begins_at, entries)) => v1::HistoryRead {
                        executor,
                        problem: String::new(),
                        begins_at: begins_at.map(Timestamp::as_micros),
                        entries: count(entries),
                    },
                    Err(problem) => v1::HistoryRead { executor, problem, begins_at: None, entries: 0 },
                }
            })
            .collect(),
        unjudged: unjudged
            .into_iter()
            .map(|unjudged| v1::Unjudged {
                rules: unjudged.rules.into_iter().map(str::to_owned).collect(),
                why: unjudged.why,
            })
            .collect(),
        runs: count(runs),
        attempts: count(attempts),
        claims: count(claims),
    }
}
