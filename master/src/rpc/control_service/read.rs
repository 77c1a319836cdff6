//! Reads: pages and single things, from the store.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    definition::Rejected,
    id::{InstanceId, InstanceIndex, RunId, WorkflowName},
    workflow::Workflow,
};
use millrace_proto::v1;
use millrace_store::query::{Page, RunDetail, RunFilter};
use tonic::Status;

use super::{Control, view, workflow_name};
use crate::{definitions::DefinitionError, rpc::status};

/// Rows of a page where the caller does not say.
const PAGE_SIZE: u32 = 50;
/// Rows of a page at most.
const PAGE_SIZE_MAX: u32 = 500;
/// Tasks of a run whose values are shown with it.
const VALUES_SHOWN_MAX: usize = 200;

impl Control {
    async fn definition(&self, name: &WorkflowName, version: u32) -> Result<Arc<Workflow>, Status> {
        let found = self.definitions.get(&self.store, name, version).await;
        found.map_err(|error| status::of_definition(&error))
    }

    /// Returns a definition for a view, which is shown without it where this build cannot read it, and then says why.
    pub(super) async fn definition_for_view(
        &self,
        name: &WorkflowName,
        version: u32,
    ) -> Result<Result<Arc<Workflow>, String>, Status> {
        match self.definitions.get(&self.store, name, version).await {
            Ok(workflow) => Ok(Ok(workflow)),
            Err(DefinitionError::Invalid(_, _, rejected)) => Ok(Err(unreadable(version, &rejected))),
            Err(error) => Err(status::of_definition(&error)),
        }
    }

    /// Returns the version of a workflow that is in force.
    pub(super) async fn in_force(&self, name: &WorkflowName) -> Result<Option<(u32, Arc<Workflow>)>, Status> {
        let row = self.store.workflow(name, None).await.map_err(|error| status::of_query(&error))?;
        match row {
            Some(row) => Ok(Some((row.version, self.definition(name, row.version).await?))),
            None => Ok(None),
        }
    }

    pub(super) async fn read_workflows(
        &self,
        request: v1::ListWorkflowsRequest,
    ) -> Result<v1::ListWorkflowsResponse, Status> {
        let after = page_token(&request.page_token, |token| token.parse().ok())?;
        let page = self.store.workflows(after.as_ref(), page_size(request.page_size)).await;
        let Page { rows, next } = page.map_err(|error| status::of_query(&error))?;
        let mut workflows = Vec::with_capacity(rows.len());
        for row in rows {
            let definition = self.definition_for_view(&row.name, row.version).await?;
            workflows.push(view::workflow(&row, definition.as_deref()));
        }
        let next_page_token = next.map_or_else(String::new, |name| name.to_string());
        Ok(v1::ListWorkflowsResponse { workflows, next_page_token })
    }

    pub(super) async fn read_workflow(
        &self,
        request: v1::GetWorkflowRequest,
    ) -> Result<v1::GetWorkflowResponse, Status> {
        let name = workflow_name(&request.name)?;
        let version = Some(request.version).filter(|version| *version != 0);
        let row = self.store.workflow(&name, version).await.map_err(|error| status::of_query(&error))?;
        let row = row.ok_or_else(|| {
            let which = version.map_or_else(String::new, |version| format!(" of version {version}"));
            status::not_found(format!("there is no workflow {name}{which}"))
        })?;
        let definition = self.definition_for_view(&name, row.version).await?;
        let summary = Some(view::version(&row, definition.as_deref()));
        Ok(v1::GetWorkflowResponse { summary, source: row.source.to_string() })
    }

    pub(super) async fn read_runs(
        &self,
        request: v1::ListRunsRequest,
    ) -> Result<v1::ListRunsResponse, Status> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let state = given(request.state)
            .map(|text| text.parse().map_err(|error| status::invalid(format!("{error}"))))
            .transpose()?;
        let workflow = given(request.workflow).as_deref().map(workflow_name).transpose()?;
        let after = page_token(&request.page_token, |token| token.parse().ok())?;
        let filter = RunFilter { workflow, state };
        let page = self.store.runs(&filter, after, page_size(request.page_size)).await;
        let Page { rows, next } = page.map_err(|error| status::of_query(&error))?;
        let runs = rows.iter().map(view::run).collect();
        let next_page_token = next.map_or_else(String::new, |run| run.to_string());
        Ok(v1::ListRunsResponse { runs, next_page_token })
    }

    /// Returns a run as the store has it.
    pub(super) async fn run_detail(&self, run: RunId) -> Result<RunDetail, Status> {
        let detail = self.store.run(run).await.map_err(|error| status::of_query(&error))?;
        detail.ok_or_else(|| status::not_found(format!("there is no run {run}")))
    }

    pub(super) async fn read_run(&self, run: RunId) -> Result<v1::GetRunResponse, Status> {
        let detail = self.run_detail(run).await?;
        let created = &detail.created;
        let definition = self.definition_for_view(&created.workflow, created.version).await?;
        let values = self.values_of(&detail).await?;
        Ok(view::run_detail(&detail, definition.as_deref().ok(), values))
    }

    /// Returns what the tasks hand on; of a large run nothing, since nobody would read it.
    async fn values_of(&self, detail: &RunDetail) -> Result<BTreeMap<InstanceIndex, Arc<str>>, Status> {
        let mut found = BTreeMap::new();
        let with_values: Vec<_> = detail.tasks.iter().filter(|task| task.has_values).collect();
        if with_values.len() > VALUES_SHOWN_MAX {
            return Ok(found);
        }
        for task in with_values {
            let instance = InstanceId { run: detail.created.run, index: task.index };
            let values = self.store.values(instance).await.map_err(|error| status::of_query(&error))?;
            found.extend(values.map(|values| (task.index, values)));
        }
        Ok(found)
    }
}

/// Says what is wrong with a version, on one line.
fn unreadable(version: u32, rejected: &Rejected) -> String {
    let first = rejected.problems.first().map_or_else(String::new, |problem| format!(" ({problem})"));
    format!("version {version} of its definition cannot be read by this master{first}")
}

/// Reads where the page before ended; `None` for the first page.
pub(super) fn page_token<T>(token: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let problem = || status::invalid(format!("{token:?} is not a page token of this list"));
    read(token).map(Some).ok_or_else(problem)
}

fn page_size(asked: u32) -> u32 {
    if asked == 0 { PAGE_SIZE } else { asked.min(PAGE_SIZE_MAX) }
}
