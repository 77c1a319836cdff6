//! Which masters there are: each says so in etcd, for people, for each other, and for a leader whose database is away.
//!
//! Two keys for each: `masters/NAME` stays, so that one that is down is known and missed; `presence/NAME` goes with its
//! lease a few seconds after the process. Nothing that is decided here is a matter of safety.

use std::{collections::BTreeMap, time::Duration};

use millrace_runtime::Chain;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    etcd::{Etcd, EtcdError, LeaseId},
    record::Record,
    settings::EtcdSettings,
};
use crate::{
    database::Condition,
    fleet::{FleetSender, Member},
};

/// How often within its time to live a presence is renewed.
const RENEWALS_IN_TTL: u32 = 3;
/// Masters of a cluster that are read; a handful is usual.
const MASTERS_MAX: i64 = 100;
/// How long saying good-bye may take.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Says that this master is there, and learns who else is.
pub(crate) struct Presence {
    pub(crate) etcd: Etcd,
    pub(crate) settings: EtcdSettings,
    pub(crate) me: Record,
    pub(crate) condition: Condition,
    pub(crate) fleet: FleetSender,
}

/// What a master says of itself while it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    instance: String,
    /// Version of its program.
    program: String,
    /// What keeps it from using the database.
    database_problem: Option<String>,
}

/// What of it is in etcd.
#[derive(Default)]
struct Told {
    is_registered: bool,
    lease: Option<LeaseId>,
    said: Option<Said>,
}

impl Presence {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut told = Told::default();
        let mut condition = self.condition.follow();
        let pause = self.settings.ttl / RENEWALS_IN_TTL;
        loop {
            condition.mark_unchanged();
            // Nothing of it has to run to its end.
            match stop.run_until_cancelled(self.tell(&mut told)).await {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(error = %Chain(&error), "etcd does not take that this master is there");
                    told = Told::default();
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                // What others should know is told at once.
                Ok(()) = condition.changed() => {}
            }
        }
        if let Some(lease) = told.lease {
            // Where etcd does not answer, the lease runs out.
            let _ = tokio::time::timeout(FAREWELL_TIME_MAX, self.etcd.revoke(lease)).await;
        }
    }

    async fn tell(&self, told: &mut Told) -> Result<(), EtcdError> {
        if !told.is_registered {
            self.etcd.put(&self.key("masters", &self.me.name), &self.me.to_value(), None).await?;
            told.is_registered = true;
        }
        if let Some(lease) = told.lease
            && self.etcd.renew(lease).await?.is_zero()
        {
            told.lease = None;
        }
        let lease = match told.lease {
            Some(lease) => lease,
            None => {
                told.said = None;
                *told.lease.insert(self.etcd.grant(self.settings.ttl).await?)
            }
        };
        let said = Said {
            instance: self.me.instance.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            database_problem: self.condition.now().problem.map(|(_, problem)| problem),
        };
        if told.said.as_ref() != Some(&said) {
            // Texts always have a form in JSON.
            let value = serde_json::to_string(&said).unwrap_or_default();
            self.etcd.put(&self.key("presence", &self.me.name), &value, Some(lease)).await?;
            told.said = Some(said);
        }
        self.fleet.publish(self.read().await?);
        Ok(())
    }

    async fn read(&self) -> Result<Vec<Member>, EtcdError> {
        let masters = self.below("masters").await?;
        let present = self.below("presence").await?;
        let member = |(name, value): (String, Vec<u8>)| {
            let record = Record::from_value(&value).ok().filter(|record| record.name == name)?;
            let said = present.get(&name).and_then(|value| serde_json::from_slice::<Said>(value).ok());
            let said = said.filter(|said| said.instance == record.instance);
            Some(Member {
                is_present: said.is_some(),
                version: said.as_ref().map_or_else(String::new, |said| said.program.clone()),
                database_problem: said.and_then(|said| said.database_problem),
                record,
            })
        };
        Ok(masters.into_iter().filter_map(member).collect())
    }

    /// Returns what is at the keys below a name, by the rest of each key.
    async fn below(&self, name: &str) -> Result<BTreeMap<String, Vec<u8>>, EtcdError> {
        let first = self.key(name, "");
        // The character after the slash: the first key that is not below it.
        let end = format!("{}/{name}0", self.settings.prefix);
        let found = self.etcd.range(&first, &end, MASTERS_MAX).await?;
        let named = found.entries.into_iter().filter_map(|entry| {
            let key = String::from_utf8(entry.key).ok()?;
            Some((key.strip_prefix(&first)?.to_owned(), entry.value))
        });
        Ok(named.collect())
    }

    fn key(&self, name: &str, rest: &str) -> String {
        format!("{}/{name}/{rest}", self.settings.prefix)
    }
}
