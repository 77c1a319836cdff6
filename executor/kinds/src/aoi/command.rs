//! A plant's own command in the place of a stage.
//!
//! The command gets folders and days in variables `MILLRACE_AOI_*` and, on standard input, one JSON object with the
//! connections that the task names: passwords never stand in argv or the environment. Its output is the attempt's log.

use std::process::{ExitStatus, Stdio};

use millrace_common::kind::aoi::Stage;
use serde_json::json;
use thiserror::Error;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    plan::{Origin, Plan},
    store::{Area, Store},
};
use crate::run::Context;

/// Why a plant's command did not do its stage.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("the command {program:?} of stage {stage} cannot be started")]
    Start {
        /// The program.
        program: String,
        /// The stage.
        stage: Stage,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("the command {program:?} of stage {stage} failed: {status}")]
    Failed {
        /// The program.
        program: String,
        /// The stage.
        stage: Stage,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Runs a command in the place of a stage. An exit code other than 0 is a failure.
pub(crate) async fn run(
    stage: Stage,
    argv: &[String],
    plan: &Plan,
    store: &Store,
    ctx: &Context,
) -> Result<(), CommandError> {
    // The plan has seen to it that there is a program.
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let failed = |source| CommandError::Start { program: program.clone(), stage, source };
    ctx.log(format_args!("stage {stage}: running {program:?}"));
    let mut command = Command::new(program);
    command.args(arguments).envs(variables(stage, plan, store)).current_dir(&ctx.work_dir);
    let mut child = command.stdin(Stdio::piped()).kill_on_drop(true).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is no failure.
        let _ = stdin.write_all(connections(ctx).as_bytes()).await;
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(CommandError::Failed { program: program.clone(), stage, status })
    }
}

fn variables(stage: Stage, plan: &Plan, store: &Store) -> Vec<(&'static str, String)> {
    let path = |area| store.area(area).display().to_string();
    let joined = |texts: &mut dyn Iterator<Item = String>| texts.collect::<Vec<_>>().join(" ");
    let sources = plan.sources.iter().map(|source| match &source.origin {
        Origin::Ftp { connection, .. } => format!("{}={connection}", source.name),
        Origin::Folder(path) => format!("{}={}", source.name, path.display()),
    });
    vec![
        ("MILLRACE_AOI_STAGE", stage.to_string()),
        ("MILLRACE_AOI_ARCHIVES", path(Area::Archives)),
        ("MILLRACE_AOI_REPORTS", path(Area::Reports)),
        ("MILLRACE_AOI_QUARANTINE", path(Area::Quarantine)),
        ("MILLRACE_AOI_SOURCES", joined(&mut plan.sources.iter().map(|source| source.name.clone()))),
        ("MILLRACE_AOI_ORIGINS", sources.collect::<Vec<_>>().join("\n")),
        ("MILLRACE_AOI_DAYS", joined(&mut plan.days.main.iter().map(ToString::to_string))),
        ("MILLRACE_AOI_EARLIER_DAYS", joined(&mut plan.days.earlier.iter().map(ToString::to_string))),
        (
            "MILLRACE_AOI_CONNECTION",
            plan.load.as_ref().and_then(|load| load.connection.clone()).unwrap_or_default(),
        ),
    ]
}

fn connections(ctx: &Context) -> String {
    let mut text = json!({ "connections": &ctx.connections }).to_string();
    text.push('\n');
    text
}
