//! A scenario while it is played: the cluster, the clients, and the notes of the scenario itself.

use std::{fmt::Display, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use millrace_checker::Event;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    clock,
    cluster::{Cluster, Leader},
    load::{Notes, workflows::Witnesses},
    network::Host,
    random::Random,
};

/// What a scenario has at hand.
#[derive(Debug)]
pub(crate) struct Scene<'n> {
    pub(crate) cluster: Cluster<'n>,
    pub(crate) seed: Random,
    pub(crate) notes: Arc<Notes>,
    pub(crate) witnesses: Witnesses,
    /// What was measured, in the order of the report.
    pub(crate) measured: Vec<(String, String)>,
    /// What did not hold, beside the invariants.
    pub(crate) broken: Vec<String>,
    /// When each fault that is to be measured began.
    pub(crate) faults: Vec<u64>,
}

impl Scene<'_> {
    /// Notes that a fault begins now.
    pub(crate) fn fault(&mut self) -> u64 {
        let now = clock::now();
        self.faults.push(now);
        now
    }

    /// Notes a figure for the report.
    pub(crate) fn measure(&mut self, what: &str, value: impl Display) {
        self.measured.push((what.to_owned(), value.to_string()));
    }

    /// Notes a time for the report.
    pub(crate) fn measure_time(&mut self, what: &str, micros: u64) {
        self.measure(what, seconds(micros));
    }

    /// Notes that something does not hold, where it does not.
    pub(crate) fn expect(&mut self, holds: bool, what: impl Display) {
        if !holds {
            self.broken.push(what.to_string());
        }
    }

    pub(crate) fn note(&self, event: Event) {
        self.notes.note(event);
    }

    /// Lets a random time pass, in milliseconds.
    pub(crate) fn pause_between(&mut self, least: u64, most: u64) -> anyhow::Result<()> {
        let millis = self.seed.between(least, most);
        self.cluster.pause(Duration::from_millis(millis))
    }

    pub(crate) fn pause(&mut self, seconds: f64) -> anyhow::Result<()> {
        self.cluster.pause(Duration::from_secs_f64(seconds))
    }

    pub(crate) fn leader(&mut self) -> anyhow::Result<Leader> {
        self.cluster.expect_leader()
    }

    pub(crate) fn name_of(&self, leader: &Leader) -> String {
        self.cluster.masters[leader.index].program.name.clone()
    }

    /// Waits until somebody leads under a later term.
    pub(crate) fn next_leader(&mut self, after: &Leader, bound: u64) -> anyhow::Result<Leader> {
        self.cluster.next_leader(after.term, Duration::from_secs(bound))
    }

    pub(crate) fn signal(&mut self, name: &str, signal: Signal) -> anyhow::Result<()> {
        self.cluster.program(name)?.signal(signal);
        Ok(())
    }

    /// Returns what a program has written.
    pub(crate) fn log(&mut self, name: &str) -> anyhow::Result<String> {
        Ok(self.cluster.program(name)?.log())
    }

    /// Puts a definition in force.
    pub(crate) fn apply(&self, text: &str) -> anyhow::Result<()> {
        let file = self.file("definition.yaml");
        fs::write(&file, text)?;
        self.cluster.ctl(&["apply", &file.display().to_string()]).map(drop)
    }

    pub(crate) fn start_run(&self, workflow: &str) -> anyhow::Result<String> {
        Ok(self.cluster.ctl(&["run", workflow])?.trim().to_owned())
    }

    /// Asks the database for one number.
    pub(crate) fn count(&self, query: &str) -> anyhow::Result<u64> {
        let text = self.cluster.database.sql(query)?;
        text.trim().parse().with_context(|| format!("{query} gives {text:?}"))
    }

    /// Waits until a query gives at least so much.
    pub(crate) fn until_count(
        &mut self,
        what: &str,
        query: &str,
        least: u64,
        bound: u64,
    ) -> anyhow::Result<u64> {
        let database = query.to_owned();
        self.cluster.wait(what, Duration::from_secs(bound), |cluster| {
            let Ok(text) = cluster.database.sql(&database) else { return Ok(None) };
            Ok(text.trim().parse().ok().filter(|count| *count >= least))
        })
    }

    /// Returns a file of the scenario's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.cluster.folder().join(name)
    }

    /// Returns how the programs of this name have ended so far.
    pub(crate) fn codes_of(&self, name: &str) -> Vec<Option<i32>> {
        self.cluster.ends.iter().filter(|end| end.name == name).map(|end| end.status.code()).collect()
    }

    /// Returns when a program ended by itself after a moment, by the rig's looks.
    pub(crate) fn ended_after(&self, name: &str, at: u64) -> Option<u64> {
        self.cluster.ends.iter().find(|end| end.name == name && end.at >= at).map(|end| end.at - at)
    }
}

impl Scene<'_> {
    /// Starts runs of a workflow of one long witness each, and waits until all of them run.
    pub(crate) fn long(
        &mut self,
        name: &str,
        count: u64,
        seconds: u64,
        policies: &str,
    ) -> anyhow::Result<()> {
        self.apply(&self.witnesses.single(name, policies, &format!("--millis {}", seconds * 1_000)))?;
        self.runs_of(name, count)
    }

    /// Starts runs of a workflow, and waits until an attempt of each runs.
    pub(crate) fn runs_of(&mut self, workflow: &str, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            self.start_run(workflow)?;
        }
        let running = format!(
            "SELECT count(*) FROM attempt WHERE state = 3 AND run_id IN (SELECT id FROM run WHERE workflow = '{workflow}')"
        );
        self.until_count("the long attempts to run", &running, count, 60).map(drop)
    }

    /// Returns the processes on a machine whose second argument is this.
    pub(crate) fn pids_with(&self, host: Host, argument: &str) -> anyhow::Result<Vec<Pid>> {
        let has = |pid: &Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1).is_some_and(|word| word == argument.as_bytes())
        };
        Ok(self.cluster.network.processes(host)?.into_iter().filter(has).collect())
    }

    /// Kills the supervisor of an executor's attempts.
    pub(crate) fn kill_supervisor(&self, host: Host) -> anyhow::Result<()> {
        let found = self.pids_with(host, "supervise")?;
        anyhow::ensure!(!found.is_empty(), "there is no supervisor on {}", host.name);
        for pid in found {
            kill(pid, Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// Returns the position of etcd's own leader among its members.
    pub(crate) fn etcd_leader(&self) -> anyhow::Result<usize> {
        let etcd = &self.cluster.etcd;
        let leads = |index: &usize| {
            let shown = etcd.try_ctl_of(*index, &["endpoint", "status", "-w", "json"])?;
            let shown: serde_json::Value = serde_json::from_str(&shown).ok()?;
            let status = &shown[0]["Status"];
            Some(status["leader"] == status["header"]["member_id"])
        };
        let found = (0..etcd.count()).find(|index| leads(index) == Some(true));
        found.context("no member of etcd says that it leads")
    }
}

/// Shows microseconds as seconds.
pub(crate) fn seconds(micros: u64) -> String {
    format!("{}.{:03} s", micros / 1_000_000, micros / 1_000 % 1_000)
}
