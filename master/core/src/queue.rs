//! Task instances that may start, in the order in which they would like to.
//!
//! Instances that need the same (kind, labels, pool) form a class: while one of a class cannot be placed, none can, so a
//! placement pass costs what it places plus the number of classes, however many instances wait.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    id::{InstanceId, KindName, PoolName},
    workflow::Task,
};

/// What a task needs of a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) kind: KindName,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) pool: Option<PoolName>,
    pub(crate) pool_slots: u32,
}

impl Class {
    pub(crate) fn of(task: &Task) -> Self {
        Self {
            kind: task.kind.clone(),
            labels: Arc::clone(&task.labels),
            pool: task.pool.clone(),
            pool_slots: task.pool_slots,
        }
    }
}

/// The order within a class and between classes: higher priority, then the older run, then the definition's order.
pub(crate) type Rank = (Reverse<i32>, InstanceId);

/// Ready instances by class.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    classes: BTreeMap<Class, BTreeSet<Rank>>,
    len: usize,
}

impl Queue {
    pub(crate) fn insert(&mut self, task: &Task, instance: InstanceId) {
        let rank = (Reverse(task.priority), instance);
        if self.classes.entry(Class::of(task)).or_default().insert(rank) {
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, task: &Task, instance: InstanceId) {
        let class = Class::of(task);
        let Some(ranks) = self.classes.get_mut(&class) else { return };
        if ranks.remove(&(Reverse(task.priority), instance)) {
            self.len -= 1;
        }
        if ranks.is_empty() {
            self.classes.remove(&class);
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn classes(&self) -> impl Iterator<Item = (&Class, &BTreeSet<Rank>)> {
        self.classes.iter()
    }

    pub(crate) fn contains(&self, task: &Task, instance: InstanceId) -> bool {
        self.classes
            .get(&Class::of(task))
            .is_some_and(|ranks| ranks.contains(&(Reverse(task.priority), instance)))
    }
}
