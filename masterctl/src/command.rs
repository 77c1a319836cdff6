//! What each command does.

mod cluster;
mod config;
mod executor;
mod graph;
mod run;
mod source;
mod verify;
mod workflow;

use clap::CommandFactory;
use millrace_common::definition;

use crate::{
    cli::{Arguments, Cluster, Command, List},
    failure::Failure,
    output::{emit, written},
};

/// Runs the command that was given.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    match command {
        Command::Validate { paths } => workflow::validate(&paths, global.output),
        Command::Apply { paths, dry_run } => workflow::apply(&global, &paths, dry_run).await,
        Command::Run(start) => run::start(&global, start).await,
        Command::List { what: None, page } | Command::List { what: Some(List::Workflows { page }), .. } => {
            workflow::list(&global, page).await
        }
        Command::List { what: Some(List::Runs { workflow, state, page }), .. } => {
            run::list(&global, workflow, state, page).await
        }
        Command::Show { what } => run::show(&global, &what).await,
        Command::Logs(logs) => run::logs(&global, logs).await,
        Command::Cancel { run } => run::cancel(&global, run).await,
        Command::Pause { run } => run::pause(&global, run).await,
        Command::Resume { run } => run::resume(&global, run).await,
        Command::Retry { run, wait } => run::retry(&global, run, wait).await,
        Command::Explain { run, task } => run::explain(&global, run, task).await,
        Command::Graph { what, format } => graph::draw(&global, &what, format).await,
        Command::Executor { what } => executor::run(&global, what).await,
        Command::Attempt { what } => executor::attempt(&global, what).await,
        Command::Config { what } => config::run(&global, what).await,
        Command::Cluster { what: Cluster::Status } => cluster::status(&global).await,
        Command::Cluster { what: Cluster::HandOver } => cluster::hand_over(&global).await,
        Command::Cluster { what: Cluster::AdoptEtcd } => cluster::adopt_etcd(&global).await,
        Command::Verify(asked) => verify::verify(&global, asked).await,
        Command::Schema => {
            emit(written(&definition::schema(), global.output)?.as_bytes())?;
            Ok(())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "masterctl", &mut script);
            emit(&script)?;
            Ok(())
        }
    }
}
