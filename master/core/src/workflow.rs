//! Workflows and their schedules: which definition is in force, and which runs are due.

use std::sync::Arc;

use millrace_common::{
    id::WorkflowName,
    interval::DataInterval,
    schedule::{FIRES_MAX, Schedule},
    workflow::Workflow,
};

use crate::{
    batch::{Answer, Change, RunCreated, Trigger},
    refusal::Refusal,
    scheduler::Scheduler,
    timers::WallTimer,
};

impl Scheduler {
    pub(crate) fn apply_workflow(
        &mut self,
        workflow: Arc<Workflow>,
        source: Arc<str>,
    ) -> Result<Answer, Refusal> {
        let before = self.state.catalog.get(&workflow.name);
        if let Some(entry) = before.filter(|entry| entry.workflow.as_ref() == Some(&workflow)) {
            return Ok(Answer::WorkflowApplied { version: entry.version, is_changed: false });
        }
        let version = before.map_or(1, |entry| entry.version + 1);
        let name = workflow.name.clone();
        self.emit(Change::WorkflowApplied { version, workflow, source, at: self.now.wall });
        self.ensure_cursor(&name);
        self.arm_schedule(&name);
        self.start_queued_runs(&name);
        Ok(Answer::WorkflowApplied { version, is_changed: true })
    }

    /// A schedule that was never served begins now: the past before it is nobody's.
    pub(crate) fn ensure_cursor(&mut self, name: &WorkflowName) {
        let Some(entry) = self.state.catalog.get(name) else { return };
        if entry.schedule().is_some() && entry.cursor.is_none() {
            let cursor = Schedule::first_cursor(self.now.wall);
            self.emit(Change::CursorMoved { workflow: name.clone(), cursor, skipped: None });
        }
    }

    pub(crate) fn arm_schedule(&mut self, name: &WorkflowName) {
        let Some(entry) = self.state.catalog.get(name) else { return };
        let next =
            entry.schedule().zip(entry.cursor).and_then(|(schedule, cursor)| schedule.next_interval(cursor));
        if let Some(interval) = next {
            self.timers.at_wall(interval.end, WallTimer::ScheduleDue(name.clone()));
        }
    }

    pub(crate) fn on_schedule_due(&mut self, name: &WorkflowName) {
        let Some(entry) = self.state.catalog.get(name) else { return };
        let Some((schedule, cursor)) = entry.schedule().zip(entry.cursor) else { return };
        if self.state.settings.paused_since().is_some() {
            // All schedules are armed again when the pause ends, and go on from their cursors as their policies say.
            return;
        }
        if entry.unfinished() + FIRES_MAX > self.limits.runs_per_workflow_max {
            // Full: the schedule is armed again when a run of the workflow ends, and goes on from the same cursor.
            return;
        }
        let due = schedule.due(cursor, self.now.wall);
        if due.cursor != cursor {
            let skipped = due.skipped;
            self.emit(Change::CursorMoved { workflow: name.clone(), cursor: due.cursor, skipped });
        }
        for interval in due.fire {
            self.create_scheduled_run(name, interval);
        }
        self.start_queued_runs(name);
        self.arm_schedule(name);
    }

    fn create_scheduled_run(&mut self, name: &WorkflowName, interval: DataInterval) {
        let Some(entry) = self.state.catalog.get(name) else { return };
        let Some(params) = entry.workflow.as_deref().map(default_params) else { return };
        let version = entry.version;
        let run = self.ids.run(self.now.wall);
        self.emit(Change::RunCreated(Box::new(RunCreated {
            run,
            workflow: name.clone(),
            version,
            trigger: Trigger::Schedule,
            interval,
            params,
            idempotency_key: None,
            at: self.now.wall,
        })));
    }
}

/// Returns the defaults of a workflow's parameters as a JSON object.
pub(crate) fn default_params(workflow: &Workflow) -> Arc<str> {
    let mut text = String::from("{");
    for (name, param) in &workflow.params {
        if let Some(default) = &param.default {
            let comma = if text.len() == 1 { "" } else { "," };
            text.push_str(&format!("{comma}\"{name}\":{default}"));
        }
    }
    text.push('}');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_common::definition;

    #[test]
    fn defaults_are_a_json_object() {
        let text = "workflow: w
params: { region: { type: string, default: \"no\\\"rth\" }, day: { type: date }, rows: { type: integer, default: 3 } }
tasks: { a: { kind: shell, with: { command: [make] } } }
";
        let workflow = definition::parse(text).unwrap();
        assert_eq!(&*default_params(&workflow), r#"{"region":"no\"rth","rows":3}"#);
    }
}
