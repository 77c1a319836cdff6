//! Reads: pages and single things, from the store.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{InstanceId, InstanceIndex, RunId, WorkflowName},
    workflow::Workflow,
};
use millrace_proto::v1;
use millrace_runtime::chain::Chain;
use millrace_store::query::{Page, RunDetail, RunFilter};
use tonic::{Response, Status};

use super::{Control, Reply, view, workflow_name};
use crate::{definitions::DefinitionError, rpc::status};

/// Rows of a page where the caller does not say.
const PAGE_SIZE: u32 = 50;
/// Rows of a page at most.
const PAGE_SIZE_MAX: u32 = 500;
/// Tasks of a run whose values are shown with it.
const VALUES_SHOWN_MAX: usize = 200;

impl Control {
    pub(super) async fn definition(&self, name: &WorkflowName, version: u32) -> Result<Arc<Workflow>, Status> {
        self.definitions.get(&self.store, name, version).await.map_err(|error| match error {
            DefinitionError::Query(error) => status::of_query(&error),
            DefinitionError::Absent(..) => Status::not_found(error.to_string()),
            DefinitionError::Invalid(..) => Status::failed_precondition(Chain(&error).to_string()),
        })
    }

    /// Returns the version of a workflow that is in force.
    pub(super) async fn in_force(&self, name: &WorkflowName) -> Result<Option<(u32, Arc<Workflow>)>, Status> {
        let row = self.store.workflow(name, None).await.map_err(|error| status::of_query(&error))?;
        match row {
            Some(row) => Ok(Some((row.version, self.definition(name, row.version).await?))),
            None => Ok(None),
        }
    }

    pub(super) async fn read_workflows(&self, request: v1::ListWorkflowsRequest) -> Reply<v1::ListWorkflowsResponse> {
        let after = Some(request.page_token).filter(|token| !token.is_empty());
        let after = after.as_deref().map(workflow_name).transpose()?;
        let Page { rows, next } =
            self.store.workflows(after.as_ref(), page_size(request.page_size)).await.map_err(|error| status::of_query(&error))?;
        let mut workflows = Vec::with_capacity(rows.len());
        for row in rows {
            let definition = self.definition(&row.name, row.version).await?;
            workflows.push(view::workflow(&row, &definition));
        }
        let next_page_token = next.map_or_else(String::new, |name| name.to_string());
        Ok(Response::new(v1::ListWorkflowsResponse { workflows, next_page_token }))
    }

    pub(super) async fn read_workflow(&self, request: v1::GetWorkflowRequest) -> Reply<v1::GetWorkflowResponse> {
        let name = workflow_name(&request.name)?;
        let version = Some(request.version).filter(|version| *version != 0);
        let row = self.store.workflow(&name, version).await.map_err(|error| status::of_query(&error))?;
        let row = row.ok_or_else(|| Status::not_found(format!("there is no workflow {name}, or not that version of it")))?;
        let definition = self.definition(&name, row.version).await?;
        let summary = Some(view::version(&row, &definition));
        Ok(Response::new(v1::GetWorkflowResponse { summary, source: row.source.to_string() }))
    }

    pub(super) async fn read_runs(&self, request: v1::ListRunsRequest) -> Reply<v1::ListRunsResponse> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let state = given(request.state)
            .map(|text| text.parse().map_err(|error| Status::invalid_argument(format!("{error}"))))
            .transpose()?;
        let filter = RunFilter {
            workflow: given(request.workflow).as_deref().map(workflow_name).transpose()?,
            state,
        };
        let after = given(request.page_token).as_deref().map(super::run_id).transpose()?;
        let page = self.store.runs(&filter, after, page_size(request.page_size)).await;
        let Page { rows, next } = page.map_err(|error| status::of_query(&error))?;
        let runs = rows.iter().map(view::run).collect();
        let next_page_token = next.map_or_else(String::new, |run| run.to_string());
        Ok(Response::new(v1::ListRunsResponse { runs, next_page_token }))
    }

    pub(super) async fn read_run(&self, run: RunId) -> Result<v1::GetRunResponse, Status> {
        let detail = self.store.run(run).await.map_err(|error| status::of_query(&error))?;
        let detail = detail.ok_or_else(|| Status::not_found(format!("there is no run {run}")))?;
        let definition = self.definition(&detail.created.workflow, detail.created.version).await?;
        let values = self.values_of(&detail).await?;
        Ok(view::run_detail(&detail, &definition, values))
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

    pub(super) async fn explain_ended(&self, run: RunId, error: Status) -> Reply<v1::ExplainRunResponse> {
        match self.store.run(run).await.map_err(|error| status::of_query(&error))? {
            Some(row) => Ok(Response::new(v1::ExplainRunResponse {
                state: row.state.to_string(),
                reason: row.reason.as_deref().unwrap_or("the run has ended").to_owned(),
                tasks: Vec::new(),
            })),
            None => Err(error),
        }
    }
}

fn page_size(asked: u32) -> u32 {
    if asked == 0 { PAGE_SIZE } else { asked.min(PAGE_SIZE_MAX) }
}
