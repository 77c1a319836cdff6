//! What a scenario is: a cluster, a load, harm, and what must hold on top of the invariants.

use std::time::Duration;

use crate::{
    capability::Need,
    cluster::Setting,
    history::Figures,
    load::{Plan, workflows::Shape},
    scene::Scene,
};

/// How a scenario sets the stage.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) setting: Setting,
    pub(crate) shape: Shape,
    pub(crate) plan: Plan,
    /// How long after the last fault everything accepted may take to end.
    pub(crate) ends_within: Duration,
    /// How many attempts must have run before the harm begins.
    pub(crate) warm_up: usize,
    /// Whether a task instance may be tried again for another reason than its own failure.
    pub(crate) may_lose: bool,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            setting: Setting::default(),
            shape: Shape::default(),
            plan: Plan { per_second: 2.0, cancels: 10, workflows: Vec::new() },
            ends_within: Duration::from_secs(120),
            warm_up: 12,
            may_lose: false,
        }
    }
}

/// One scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Such as `S01`.
    pub(crate) id: &'static str,
    /// What is tried.
    pub(crate) title: &'static str,
    /// By which means, honestly.
    pub(crate) injected: &'static str,
    /// Whether it is one of the few that the test command runs.
    pub(crate) in_selection: bool,
    /// What it needs beside what every cluster needs.
    pub(crate) needs: &'static [Need],
    /// The cluster and its load; absent where the scenario brings its own.
    pub(crate) stage: Option<fn() -> Stage>,
    /// Why it cannot be run by this rig at all, where that is so.
    pub(crate) not_run: Option<&'static str>,
    /// The harm.
    pub(crate) act: fn(&mut Scene<'_>) -> anyhow::Result<()>,
    /// What must hold on top of the invariants, and what is worth telling.
    pub(crate) judge: fn(&mut Scene<'_>, &Figures),
}

/// For scenarios that ask for nothing on top of the invariants.
pub(crate) fn nothing_more(_: &mut Scene<'_>, _: &Figures) {}
