//! The keys of a document, and how the parts come together.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use super::{
    node::Node,
    param,
    problem::{Problems, Span},
    read::{Fields, boolean, duration, one_of, parsed, text, whole},
    reference, task,
};
use crate::{
    id::ParamName,
    schedule::{EVERY_MAX, EVERY_MIN, Misfire, Schedule, ScheduleError, Trigger, parse_timezone},
    workflow::{Param, SuccessRule, Workflow},
};

pub(super) const KEYS: &[&str] = &[
    "workflow",
    "description",
    "owner",
    "schedule",
    "params",
    "defaults",
    "max_active_runs",
    "timeout",
    "success",
    "tasks",
];
const SCHEDULE_KEYS: &[&str] = &["cron", "every", "timezone", "catchup", "misfire", "calendar"];

/// What happens to missed intervals, as documents write it.
pub(super) const MISFIRES: &[(&str, Misfire)] =
    &[("skip", Misfire::Skip), ("once", Misfire::Once), ("all", Misfire::All)];

/// Which tasks decide whether a run has succeeded, as documents write it.
pub(super) const SUCCESS_RULES: &[(&str, SuccessRule)] =
    &[("leaves", SuccessRule::Leaves), ("all", SuccessRule::All)];

/// How long a run may take: a year is more than anything that is scheduled.
pub(super) const RUN_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24 * 366);
/// Characters of an owner; lists are searched by it, and an index holds 191.
pub(super) const OWNER_CHARS_MAX: usize = 100;
/// Runs of one workflow at once; each holds memory in the leader.
pub(super) const ACTIVE_RUNS: RangeInclusive<i64> = 1..=1_000;

/// Reads the root of a document. The result is whole only where no problem was added.
pub(super) fn read<'t>(root: &Node<'t>, problems: &mut Problems<'t>) -> Option<Workflow> {
    let fields = Fields::open(root, Span::default(), KEYS, problems)?;
    let name = fields.need("workflow", problems).and_then(|node| parsed(node, problems));
    let description = fields.read("description", problems, text).unwrap_or_default().to_owned();
    let owner = fields.read("owner", problems, owner).unwrap_or_default().to_owned();
    let schedule = fields.read("schedule", problems, schedule);
    let params = fields.read("params", problems, param::read_all).unwrap_or_default();
    if let Some(node) = fields.get("schedule") {
        need_defaults(node.span, &params, problems);
    }
    let max_active_runs =
        fields.read("max_active_runs", problems, |node, problems| whole(node, ACTIVE_RUNS, problems));
    let run_timeout =
        fields.read("timeout", problems, |node, problems| duration(node, RUN_TIMEOUT, problems));
    let success = fields.read("success", problems, |node, problems| one_of(node, SUCCESS_RULES, problems));
    let defaults = fields.entry("defaults").and_then(|entry| task::read_defaults(entry, problems));
    let tasks = fields
        .need("tasks", problems)
        .and_then(|node| task::read_all(node, &defaults.unwrap_or_default(), problems))?;
    let (graph, tasks) = reference::resolve(tasks, &params, problems)?;
    Some(Workflow {
        name: name?,
        description,
        owner,
        schedule,
        params,
        max_active_runs: max_active_runs.unwrap_or(1),
        run_timeout,
        success: success.unwrap_or_default(),
        tasks,
        graph,
    })
}

/// Nobody is there to give a scheduled run its parameters.
fn need_defaults(schedule: Span, params: &BTreeMap<ParamName, Param>, problems: &mut Problems<'_>) {
    for (name, _) in params.iter().filter(|(_, param)| param.default.is_none()) {
        let message =
            format!("a scheduled run has no value for the parameter `{name}`, which has no default");
        problems.add_with_hint(schedule, message, format!("give `{name}` a default"));
    }
}

fn owner<'n, 't>(node: &'n Node<'t>, problems: &mut Problems<'t>) -> Option<&'n str> {
    let owner = text(node, problems)?;
    if owner.chars().nth(OWNER_CHARS_MAX).is_some() {
        problems.add(node.span, format!("the owner has more than {OWNER_CHARS_MAX} characters"));
        return None;
    }
    Some(owner)
}

fn schedule<'t>(node: &Node<'t>, problems: &mut Problems<'t>) -> Option<Schedule> {
    if let Some(cron) = node.as_text() {
        let hint = format!("write {{ cron: \"{cron}\" }}");
        problems.add_with_hint(node.span, "a schedule is a map", hint);
        return None;
    }
    let fields = Fields::open(node, node.span, SCHEDULE_KEYS, problems)?;
    if let Some(calendar) = fields.entry("calendar") {
        problems.add(calendar.key.span, "calendars are not supported yet");
    }
    let cron = fields.read("cron", problems, cron);
    let every = fields.read("every", problems, every);
    let trigger = match (fields.get("cron"), fields.get("every")) {
        (Some(_), Some(second)) => {
            problems.add(second.span, "a schedule has either `cron` or `every`, not both");
            None
        }
        (None, None) => {
            problems.add(node.span, "a schedule needs `cron` or `every`");
            None
        }
        _ => cron.or(every),
    };
    let timezone = fields.read("timezone", problems, timezone).unwrap_or(chrono_tz::Tz::UTC);
    let catchup = fields.read("catchup", problems, boolean);
    let misfire = fields.read("misfire", problems, |node, problems| one_of(node, MISFIRES, problems));
    let schedule = Schedule { trigger: trigger?, timezone, catchup: false, misfire: Misfire::Once };
    match schedule.missed(catchup, misfire) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            let at = fields.entry("misfire").map_or(node.span, |entry| entry.value.span);
            problems.add(at, error.to_string());
            None
        }
    }
}

fn cron<'t>(node: &Node<'t>, problems: &mut Problems<'t>) -> Option<Trigger> {
    let trigger = text(node, problems)?.parse::<Trigger>();
    trigger.map_err(|error| add_schedule_error(node.span, &error, problems)).ok()
}

fn every<'t>(node: &Node<'t>, problems: &mut Problems<'t>) -> Option<Trigger> {
    duration(node, EVERY_MIN..=EVERY_MAX, problems).map(Trigger::Every)
}

fn timezone<'t>(node: &Node<'t>, problems: &mut Problems<'t>) -> Option<chrono_tz::Tz> {
    let zone = parse_timezone(text(node, problems)?);
    zone.map_err(|error| add_schedule_error(node.span, &error, problems)).ok()
}

fn add_schedule_error(at: Span, error: &ScheduleError, problems: &mut Problems<'_>) {
    match error.hint() {
        Some(hint) => problems.add_with_hint(at, error.chain(), hint),
        None => problems.add(at, error.chain()),
    }
}
