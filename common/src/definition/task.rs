//! The tasks of a document and the policies that they share.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    node::{Content, Entry, Node},
    problem::{Problems, Span},
    read::{Fields, decimal, duration, expected, one_of, parsed, short, text, whole},
    with,
};
use crate::{
    id::{KindName, PoolName, TaskName},
    limits::TASKS_MAX,
    workflow::{OnLost, RetryPolicy, Task, TriggerRule},
};

/// Keys of `defaults`; a task knows them too.
pub(super) const POLICY_KEYS: &[&str] = &[
    "retries",
    "retry_delay",
    "retry_backoff",
    "retry_delay_max",
    "timeout",
    "kill_grace",
    "on_lost",
    "orphan_timeout",
    "pool",
    "pool_slots",
    "priority",
    "trigger_rule",
    "executor",
];
pub(super) const TASK_KEYS: &[&str] = &[
    "kind",
    "after",
    "with",
    "description",
    "retries",
    "retry_delay",
    "retry_backoff",
    "retry_delay_max",
    "timeout",
    "kill_grace",
    "on_lost",
    "orphan_timeout",
    "pool",
    "pool_slots",
    "priority",
    "trigger_rule",
    "executor",
];

/// Trigger rules, as documents write them.
pub(super) const TRIGGER_RULES: &[(&str, TriggerRule)] = &[
    ("all_success", TriggerRule::AllSuccess),
    ("all_failed", TriggerRule::AllFailed),
    ("all_done", TriggerRule::AllDone),
    ("all_done_min_one_success", TriggerRule::AllDoneMinOneSuccess),
    ("all_skipped", TriggerRule::AllSkipped),
    ("one_failed", TriggerRule::OneFailed),
    ("one_success", TriggerRule::OneSuccess),
    ("one_done", TriggerRule::OneDone),
    ("none_failed", TriggerRule::NoneFailed),
    ("none_failed_min_one_success", TriggerRule::NoneFailedMinOneSuccess),
    ("none_skipped", TriggerRule::NoneSkipped),
    ("always", TriggerRule::Always),
];

/// What happens to lost attempts, as documents write it.
pub(super) const ON_LOST: &[(&str, OnLost)] =
    &[("retry", OnLost::Retry), ("confirm", OnLost::Confirm), ("fail", OnLost::Fail)];

/// Further attempts; each is kept in the store for as long as its run.
pub(super) const RETRIES: RangeInclusive<i64> = 0..=1_000;
/// Delay between attempts.
pub(super) const RETRY_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24 * 31);
/// Growth of that delay.
pub(super) const RETRY_BACKOFF: RangeInclusive<f64> = 1.0..=100.0;
/// How long one attempt may take.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 366);
/// Time between TERM and KILL.
pub(super) const KILL_GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
/// Time without contact; shorter than 15 s a fail-over of the leader would end healthy attempts.
pub(super) const ORPHAN_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(15)..=Duration::from_hours(24 * 7);
/// Places of a pool.
pub(super) const POOL_SLOTS: RangeInclusive<i64> = 1..=10_000;
/// Priority of a task.
pub(super) const PRIORITY: RangeInclusive<i64> = -1_000_000..=1_000_000;

/// What a task has where neither it nor `defaults` says otherwise.
const RETRY_DELAY_DEFAULT: Duration = Duration::from_mins(5);
const RETRY_DELAY_MAX_DEFAULT: Duration = Duration::from_hours(24);
const KILL_GRACE_DEFAULT: Duration = Duration::from_secs(10);
const ORPHAN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Labels of one task, and characters of each.
const LABELS_MAX: usize = 32;
const LABEL_CHARS_MAX: usize = 100;

/// What `defaults` and a task may both say.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    retries: Option<u32>,
    retry_delay: Option<Duration>,
    retry_backoff: Option<f64>,
    retry_delay_max: Option<Duration>,
    timeout: Option<Duration>,
    kill_grace: Option<Duration>,
    on_lost: Option<OnLost>,
    orphan_timeout: Option<Duration>,
    pool: Option<PoolName>,
    pool_slots: Option<u32>,
    priority: Option<i32>,
    trigger_rule: Option<TriggerRule>,
    labels: Option<Arc<BTreeMap<String, String>>>,
}

/// A task whose references are not resolved yet.
#[derive(Debug)]
pub(super) struct Draft<'n, 't> {
    /// Its name as it stands in the document.
    pub(super) key: &'n str,
    /// Where its name stands.
    pub(super) at: Span,
    /// What it comes after.
    pub(super) after: Vec<(&'n str, Span)>,
    /// Its parameters.
    pub(super) with: Option<&'n Node<'t>>,
    /// The task without references; absent where its name or kind is wrong.
    pub(super) task: Option<Task>,
}

pub(super) fn read_defaults<'t>(entry: &Entry<'t>, problems: &mut Problems<'t>) -> Option<Policy> {
    if entry.value.is_null() {
        return None;
    }
    Fields::open(&entry.value, entry.key.span, POLICY_KEYS, problems).map(|fields| policy(&fields, problems))
}

/// Reads the map of tasks, in its order.
pub(super) fn read_all<'n, 't>(
    node: &'n Node<'t>,
    defaults: &Policy,
    problems: &mut Problems<'t>,
) -> Option<Vec<Draft<'n, 't>>> {
    let Some(entries) = node.as_map() else {
        if node.as_list().is_some() {
            let hint = "write `tasks:` and below it `<name>:` for each task";
            problems.add_with_hint(node.span, "tasks are a map from name to task, not a list", hint);
        } else {
            expected("a map from name to task", node, problems);
        }
        return None;
    };
    if entries.is_empty() {
        problems.add(node.span, "a workflow needs at least one task");
    }
    if entries.len() > TASKS_MAX {
        problems.add(entries[TASKS_MAX].key.span, format!("a workflow has at most {TASKS_MAX} tasks"));
        return None;
    }
    Some(entries.iter().map(|entry| read(entry, defaults, problems)).collect())
}

fn read<'n, 't>(entry: &'n Entry<'t>, defaults: &Policy, problems: &mut Problems<'t>) -> Draft<'n, 't> {
    let at = entry.key.span;
    let name = entry.key.text.parse::<TaskName>();
    if let Err(error) = &name {
        problems.add(at, error.to_string());
    }
    let mut draft = Draft { key: &entry.key.text, at, after: Vec::new(), with: None, task: None };
    if entry.value.is_null() {
        problems.add(at, format!("the task `{}` is empty, it needs `kind`", short(draft.key)));
        return draft;
    }
    let Some(fields) = Fields::open(&entry.value, at, TASK_KEYS, problems) else { return draft };
    let kind = fields.need("kind", problems).and_then(|node| with::kind(node, problems));
    draft.after = fields.read("after", problems, after).unwrap_or_default();
    draft.with = fields.get("with");
    if let Some(kind) = &kind {
        with::check(kind, draft.with, at, problems);
    }
    let description = fields.read("description", problems, text).unwrap_or_default().to_owned();
    let policy = policy(&fields, problems);
    if let (Ok(name), Some(kind)) = (name, kind) {
        draft.task = Some(Task { description, ..build(name, kind, policy, defaults) });
    }
    draft
}

fn policy<'t>(fields: &Fields<'_, 't>, problems: &mut Problems<'t>) -> Policy {
    Policy {
        retries: fields.read("retries", problems, |node, p| whole(node, RETRIES, p)),
        retry_delay: fields.read("retry_delay", problems, |node, p| duration(node, RETRY_DELAY, p)),
        retry_backoff: fields.read("retry_backoff", problems, |node, p| decimal(node, RETRY_BACKOFF, p)),
        retry_delay_max: fields.read("retry_delay_max", problems, |node, p| duration(node, RETRY_DELAY, p)),
        timeout: fields.read("timeout", problems, |node, p| duration(node, TIMEOUT, p)),
        kill_grace: fields.read("kill_grace", problems, |node, p| duration(node, KILL_GRACE, p)),
        on_lost: fields.read("on_lost", problems, |node, p| one_of(node, ON_LOST, p)),
        orphan_timeout: fields.read("orphan_timeout", problems, |node, p| duration(node, ORPHAN_TIMEOUT, p)),
        pool: fields.read("pool", problems, parsed),
        pool_slots: fields.read("pool_slots", problems, |node, p| whole(node, POOL_SLOTS, p)),
        priority: fields.read("priority", problems, |node, p| whole(node, PRIORITY, p)),
        trigger_rule: fields.read("trigger_rule", problems, |node, p| one_of(node, TRIGGER_RULES, p)),
        labels: fields.read("executor", problems, labels),
    }
}

fn build(name: TaskName, kind: KindName, own: Policy, defaults: &Policy) -> Task {
    Task {
        name,
        description: String::new(),
        kind,
        with: empty(),
        is_templated: false,
        value_refs: Vec::new(),
        trigger_rule: own.trigger_rule.or(defaults.trigger_rule).unwrap_or_default(),
        retry: RetryPolicy {
            retries: own.retries.or(defaults.retries).unwrap_or(0),
            delay: own.retry_delay.or(defaults.retry_delay).unwrap_or(RETRY_DELAY_DEFAULT),
            backoff: own.retry_backoff.or(defaults.retry_backoff).unwrap_or(1.0),
            delay_max: own.retry_delay_max.or(defaults.retry_delay_max).unwrap_or(RETRY_DELAY_MAX_DEFAULT),
        },
        timeout: own.timeout.or(defaults.timeout),
        kill_grace: own.kill_grace.or(defaults.kill_grace).unwrap_or(KILL_GRACE_DEFAULT),
        on_lost: own.on_lost.or(defaults.on_lost).unwrap_or_default(),
        orphan_timeout: own.orphan_timeout.or(defaults.orphan_timeout).unwrap_or(ORPHAN_TIMEOUT_DEFAULT),
        pool: own.pool.or_else(|| defaults.pool.clone()),
        pool_slots: own.pool_slots.or(defaults.pool_slots).unwrap_or(1),
        priority: own.priority.or(defaults.priority).unwrap_or(0),
        labels: own.labels.or_else(|| defaults.labels.clone()).unwrap_or_default(),
    }
}

fn empty() -> Arc<serde_json::Value> {
    Arc::new(serde_json::Value::Object(serde_json::Map::new()))
}

/// Reads `after: name` or `after: [name, ...]`.
fn after<'n, 't>(node: &'n Node<'t>, problems: &mut Problems<'t>) -> Option<Vec<(&'n str, Span)>> {
    match &node.content {
        Content::Text(name) => Some(vec![(name.as_ref(), node.span)]),
        Content::List(items) => {
            Some(items.iter().filter_map(|item| Some((text(item, problems)?, item.span))).collect())
        }
        _ => {
            expected("the name of a task or a list of names", node, problems);
            None
        }
    }
}

fn labels<'t>(node: &Node<'t>, problems: &mut Problems<'t>) -> Option<Arc<BTreeMap<String, String>>> {
    let fields = Fields::open(node, node.span, &["labels"], problems)?;
    let node = fields.get("labels")?;
    let Some(entries) = node.as_map() else {
        expected("a map of labels", node, problems);
        return None;
    };
    if entries.len() > LABELS_MAX {
        problems.add(node.span, format!("a task has at most {LABELS_MAX} labels"));
        return None;
    }
    let mut labels = BTreeMap::new();
    for entry in entries {
        let Some(value) = text(&entry.value, problems) else { continue };
        for (part, at) in [(entry.key.text.as_ref(), entry.key.span), (value, entry.value.span)] {
            if part.is_empty() || part.chars().count() > LABEL_CHARS_MAX {
                let message = format!("`{}` is no label: 1 to {LABEL_CHARS_MAX} characters", short(part));
                problems.add(at, message);
            }
        }
        labels.insert(entry.key.text.to_string(), value.to_owned());
    }
    Some(Arc::new(labels))
}
