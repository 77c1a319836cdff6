//! Writes, and the one question that only the leader can answer: each goes to the leader and is answered once durable.

use std::sync::Arc;

use millrace_common::{
    definition,
    id::{RunId, WorkflowName},
    limits::{IDEMPOTENCY_KEY_CHARS_MAX, PARAMS_BYTES_MAX},
    state::RunState,
    time::Timestamp,
    workflow::Workflow,
};
use millrace_core::{Answer, Refusal, Request as Ask, StartRun};
use millrace_proto::v1;
use tonic::Status;

use super::{Control, not_answered, run_id, view, workflow_name};
use crate::{definitions::DefinitionError, rpc::status};

/// Differences that are told; more would not be read.
const DIFFERENCES_MAX: usize = 1_000;
/// The first and the last moment that a run can be about: years that every calendar and database can show.
const LOGICAL_DATES: (&str, &str) = ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z");

/// What is in force of a workflow before another definition of it is.
struct InForce {
    version: u32,
    /// Absent where this build cannot read it.
    workflow: Option<Arc<Workflow>>,
}

impl Control {
    pub(super) async fn apply(
        &self,
        request: v1::ApplyWorkflowRequest,
    ) -> Result<v1::ApplyWorkflowResponse, Status> {
        let v1::ApplyWorkflowRequest { source, dry_run } = request;
        let source: Arc<str> = source.into();
        let parsed = self.definitions.parse(Arc::clone(&source)).await.map_err(|_| status::stopping())?;
        let workflow = parsed.map_err(|rejected| status::invalid(rejected.to_string()))?;
        let before = self.before(&workflow.name).await?;
        let differences = before.as_ref().map_or_else(Vec::new, |before| differences(before, &workflow));
        let name = workflow.name.to_string();
        let is_new = before.is_none();
        let (version, changed) = if dry_run {
            let (version, old) = before.map_or((0, None), |before| (before.version, before.workflow));
            let is_changed = old.is_none_or(|old| *old != workflow);
            (version + u32::from(is_changed), is_changed)
        } else {
            match self.ask(Ask::ApplyWorkflow { workflow: Arc::new(workflow), source }).await? {
                Answer::WorkflowApplied { version, is_changed } => (version, is_changed),
                other => return Err(not_answered(&other)),
            }
        };
        Ok(v1::ApplyWorkflowResponse { name, version, is_new, changed, differences })
    }

    /// Returns what is in force. That this build cannot read it is no obstacle to replacing it.
    async fn before(&self, name: &WorkflowName) -> Result<Option<InForce>, Status> {
        let row = self.store.workflow(name, None).await.map_err(|error| status::of_query(&error))?;
        let Some(row) = row else { return Ok(None) };
        let workflow = match self.definitions.get(&self.store, name, row.version).await {
            Ok(workflow) => Some(workflow),
            Err(DefinitionError::Invalid(..)) => None,
            Err(error) => return Err(status::of_definition(&error)),
        };
        Ok(Some(InForce { version: row.version, workflow }))
    }

    pub(super) async fn start(&self, request: v1::StartRunRequest) -> Result<v1::StartRunResponse, Status> {
        let workflow = workflow_name(&request.workflow)?;
        let key = idempotency_key(&request.idempotency_key)?;
        let logical_date = request.logical_date.map(logical_date).transpose()?;
        if let Some(key) = &key
            && let Some(run) =
                self.store.run_by_key(&workflow, key).await.map_err(|error| status::of_query(&error))?
        {
            return Ok(v1::StartRunResponse { run: run.to_string(), existed: true });
        }
        let Some((_, definition)) = self.in_force(&workflow).await? else {
            return Err(status::not_found(format!(
                "there is no workflow {workflow}; apply its definition first"
            )));
        };
        let params = resolve_params(&definition, &request.params)?;
        let start = StartRun { workflow, params, logical_date, idempotency_key: key };
        run_started(&self.ask(Ask::StartRun(start)).await?)
    }

    pub(super) async fn retry(&self, run: &str) -> Result<v1::StartRunResponse, Status> {
        let run = run_id(run)?;
        let ended = self.store.ended_run(run).await.map_err(|error| status::of_query(&error))?;
        let Some(ended) = ended else { return Err(self.not_ended(run).await) };
        run_started(&self.ask(Ask::RetryRun(Box::new(ended))).await?)
    }

    /// Tells a live run from one that never was.
    async fn not_ended(&self, run: RunId) -> Status {
        match self.state_of(run).await {
            Ok(Some(state)) => {
                status::not_now(format!("run {run} is {state}: wait for its end, or cancel it"))
            }
            Ok(None) => status::not_found(format!("there is no run {run}")),
            Err(error) => error,
        }
    }

    pub(super) async fn move_run(
        &self,
        run: &str,
        request: fn(RunId) -> Ask,
    ) -> Result<v1::RunResponse, Status> {
        let run = run_id(run)?;
        match self.ask(request(run)).await? {
            Answer::RunMoved(state) => Ok(v1::RunResponse { state: state.to_string() }),
            Answer::Refused(Refusal::UnknownRun(_)) => Err(self.not_live(run).await),
            other => Err(not_answered(&other)),
        }
    }

    /// Tells an ended run from one that never was, and from one that is live and was taken out of scheduling.
    async fn not_live(&self, run: RunId) -> Status {
        match self.state_of(run).await {
            Ok(Some(state)) if state.is_final() => {
                status::not_now(format!("run {run} has ended: it is {state}"))
            }
            Ok(Some(_)) => self.quarantined(run).await.map_or_else(|error| error, status::not_now),
            Ok(None) => status::not_found(format!("there is no run {run}")),
            Err(error) => error,
        }
    }

    pub(super) async fn explain(
        &self,
        request: v1::ExplainRunRequest,
    ) -> Result<v1::ExplainRunResponse, Status> {
        let v1::ExplainRunRequest { run, task } = request;
        let run = run_id(&run)?;
        let task = Some(task).filter(|task| !task.is_empty());
        let task = task
            .map(|task| task.parse().map_err(|error| status::invalid(format!("{task:?}: {error}"))))
            .transpose()?;
        if self.standby.roles.seat().is_none() {
            return self.explain_rows(run, task.as_ref()).await;
        }
        match self.ask(Ask::ExplainRun { run, task }).await? {
            Answer::Explained(explanation) => Ok(view::explanation(*explanation)),
            Answer::Refused(Refusal::UnknownRun(_)) => self.explain_not_live(run).await,
            other => Err(not_answered(&other)),
        }
    }

    async fn explain_not_live(&self, run: RunId) -> Result<v1::ExplainRunResponse, Status> {
        let row = self.store.run(run).await.map_err(|error| status::of_query(&error))?;
        let Some(row) = row else { return Err(status::not_found(format!("there is no run {run}"))) };
        let reason = if row.state.is_final() {
            row.reason.as_deref().unwrap_or("the run has ended").to_owned()
        } else {
            self.quarantined(run).await?
        };
        let (state, tasks) = (row.state.to_string(), Vec::new());
        Ok(v1::ExplainRunResponse { state, reason, tasks, schedules_paused_since: None })
    }

    /// Says why a live run is taken out of scheduling.
    async fn quarantined(&self, run: RunId) -> Result<String, Status> {
        let created = self.run_detail(run).await?.created;
        let definition = self.definition_for_view(&created.workflow, created.version).await?;
        let reason = match definition {
            Ok(_) => "its rows contradict each other; the master's log says how".to_owned(),
            Err(problem) => {
                format!("{problem}; it goes on once the build that took the definition is started")
            }
        };
        Ok(format!("run {run} is taken out of scheduling: {reason}"))
    }

    async fn state_of(&self, run: RunId) -> Result<Option<RunState>, Status> {
        let row = self.store.run(run).await.map_err(|error| status::of_query(&error))?;
        Ok(row.map(|row| row.state))
    }
}

fn differences(before: &InForce, workflow: &Workflow) -> Vec<String> {
    let Some(before) = &before.workflow else {
        return vec!["the version in force cannot be read by this build".to_owned()];
    };
    let found = definition::diff(before, workflow);
    let mut lines: Vec<String> = found.iter().take(DIFFERENCES_MAX).map(ToString::to_string).collect();
    if found.len() > DIFFERENCES_MAX {
        lines.push(format!("and {} more", found.len() - DIFFERENCES_MAX));
    }
    lines
}

fn idempotency_key(text: &str) -> Result<Option<Arc<str>>, Status> {
    let chars = text.chars().count();
    if chars > IDEMPOTENCY_KEY_CHARS_MAX {
        return Err(status::invalid(format!(
            "the idempotency key has {chars} characters, at most {IDEMPOTENCY_KEY_CHARS_MAX} are kept"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(status::invalid("the idempotency key has a control character"));
    }
    Ok((chars > 0).then(|| text.into()))
}

fn logical_date(micros: i64) -> Result<Timestamp, Status> {
    let (first, last) = LOGICAL_DATES;
    let bounds = Timestamp::parse(first).zip(Timestamp::parse(last));
    let at = Timestamp::from_micros(micros);
    if bounds.is_some_and(|(first, last)| first <= at && at <= last) {
        return Ok(at);
    }
    Err(status::invalid(format!("the logical date is not between {first} and {last}")))
}

fn run_started(answer: &Answer) -> Result<v1::StartRunResponse, Status> {
    match answer {
        Answer::RunStarted { run, is_repeat } => {
            Ok(v1::StartRunResponse { run: run.to_string(), existed: *is_repeat })
        }
        other => Err(not_answered(other)),
    }
}

/// Checks the parameters of a request against the definition and fills in the defaults.
fn resolve_params(workflow: &Workflow, text: &str) -> Result<Arc<str>, Status> {
    if text.len() > PARAMS_BYTES_MAX {
        let bytes = text.len();
        return Err(status::invalid(format!(
            "the parameters have {bytes} bytes, at most {PARAMS_BYTES_MAX} are kept"
        )));
    }
    let given: serde_json::Map<String, serde_json::Value> = if text.is_empty() {
        serde_json::Map::new()
    } else {
        serde_json::from_str(text)
            .map_err(|error| status::invalid(format!("the parameters are not a JSON object: {error}")))?
    };
    let resolved = definition::resolve_params(workflow, &given).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        status::invalid(format!("the parameters do not fit the workflow:\n  {}", problems.join("\n  ")))
    })?;
    Ok(serde_json::Value::Object(resolved).to_string().into())
}
