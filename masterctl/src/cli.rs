//! The tree of commands and all help text.

use std::path::PathBuf;

use chrono_tz::Tz;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use clap_complete::Shell;
use millrace_common::{state::RunState, time::Timestamp};

/// Exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    what was asked for failed: a run did not succeed, a definition has problems
  2    the command line is wrong, or a file of it cannot be read or written
  3    no master could be reached, or none leads
  4    the master refused: not found, or not possible now
  5    the token is missing or wrong
  130  interrupted while waiting; the run goes on

Environment:
  MILLRACE_MASTER      addresses of masters, such as http://10.0.0.1:7070,http://10.0.0.2:7070
  MILLRACE_TOKEN_FILE  file that holds the token
  NO_COLOR             no colours, whatever the terminal can do";

/// Talks to a Millrace master: workflows, runs, executors.
#[derive(Debug, Parser)]
#[command(name = "masterctl", version, about, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Address of a master; several with commas, of which the first that answers is taken.
    #[arg(
        long = "master",
        global = true,
        env = "MILLRACE_MASTER",
        default_value = "http://127.0.0.1:7070",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub(crate) masters: Vec<String>,
    /// File that holds the token; the master wrote it at its first start.
    #[arg(
        long,
        global = true,
        env = "MILLRACE_TOKEN_FILE",
        default_value = "/var/lib/millrace/token",
        value_name = "FILE"
    )]
    pub(crate) token_file: PathBuf,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs; keys never change their meaning.
    Json,
    /// The same as JSON, in YAML.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks definitions without a master; prints every problem with its place.
    Validate {
        /// Files, folders, or - for standard input.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Puts definitions in force; prints what changes.
    Apply {
        /// Files, folders, or - for standard input.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Only says what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Starts a run.
    Run(Run),
    /// Lists workflows, or runs.
    #[command(args_conflicts_with_subcommands = true)]
    List {
        #[command(subcommand)]
        what: Option<List>,
        #[command(flatten)]
        page: Page,
    },
    /// Shows a run, or the definition of a workflow.
    Show {
        /// A run's id or a workflow's name.
        #[arg(value_name = "RUN|WORKFLOW")]
        what: String,
    },
    /// Prints the output of a task's attempt.
    Logs(Logs),
    /// Ends a run: nothing new starts, what runs is killed.
    Cancel {
        /// The run's id.
        run: String,
    },
    /// Starts nothing new of a run; what runs goes on.
    Pause {
        /// The run's id.
        run: String,
    },
    /// Undoes a pause.
    Resume {
        /// The run's id.
        run: String,
    },
    /// Starts a new run of an ended one that keeps what succeeded.
    Retry {
        /// The run's id.
        run: String,
        /// Waits until it has ended.
        #[arg(long)]
        wait: bool,
    },
    /// Says why a run, or a task of it, waits.
    Explain {
        /// The run's id.
        run: String,
        /// One task only.
        task: Option<String>,
    },
    /// Draws the tasks of a definition or a run.
    Graph {
        /// A file, - for standard input, a workflow's name or a run's id.
        #[arg(value_name = "FILE|WORKFLOW|RUN")]
        what: String,
        /// How to draw.
        #[arg(long, value_enum, default_value_t = Picture::Text)]
        format: Picture,
    },
    /// Executors.
    Executor {
        #[command(subcommand)]
        what: Executor,
    },
    /// The cluster.
    Cluster {
        #[command(subcommand)]
        what: Cluster,
    },
    /// Prints the JSON Schema of definitions, for editors.
    Schema,
    /// Prints the completion script of a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

/// Prints the output of a task's attempt.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The run's id.
    pub(crate) run: String,
    /// The task's name.
    pub(crate) task: String,
    /// Which attempt; the last one where absent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Goes on until the attempt has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// Starts a run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The workflow's name.
    pub(crate) workflow: String,
    /// A parameter; may be repeated.
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    /// What the run is about: a day such as 2026-01-31 (its first moment in the time zone of the workflow's schedule) or a
    /// time such as 2026-01-31T02:30:00+08:00; now where absent.
    #[arg(long, value_name = "TIME", value_parser = logical_date)]
    pub(crate) logical_date: Option<LogicalDate>,
    /// The same key gives the same run, however often this is repeated; a new key where absent.
    #[arg(long, value_name = "TEXT")]
    pub(crate) key: Option<String>,
    /// Waits until it has ended, showing how it goes; exit code 1 unless it succeeds.
    ///
    /// Ctrl-C ends the waiting; the run goes on.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// What a run is about, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogicalDate {
    /// A day; when it begins depends on the workflow's time zone.
    Day(String),
    /// A point in time.
    Time(Timestamp),
}

#[derive(Debug, Subcommand)]
pub(crate) enum List {
    /// Workflows, by name.
    Workflows {
        #[command(flatten)]
        page: Page,
    },
    /// Runs, newest first.
    Runs {
        /// Of this workflow only.
        #[arg(long)]
        workflow: Option<String>,
        /// In this state only.
        #[arg(long, value_parser = PossibleValuesParser::new(RunState::ALL.iter().map(|state| state.as_str())))]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
}

/// Which part of a long list.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Rows of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// What the page before said under "next".
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TOKEN")]
    pub(crate) after: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Executor {
    /// Lists executors.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Says who leads and what there is to do.
    Status,
    /// Lets the leader finish what is under way and make way for another master.
    HandOver,
    /// Binds the cluster to the etcd that the master is connected to, after etcd was replaced or restored.
    AdoptEtcd,
}

/// How to draw a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Picture {
    /// For the terminal.
    Text,
    /// For Graphviz.
    Dot,
    /// A picture for a browser.
    Svg,
}

fn logical_date(text: &str) -> Result<LogicalDate, String> {
    let day = || Timestamp::start_of_day(text, Tz::UTC).map(|_| LogicalDate::Day(text.to_owned()));
    Timestamp::parse(text)
        .map(LogicalDate::Time)
        .or_else(day)
        .ok_or_else(|| "it is neither a day such as 2026-01-31 nor an RFC 3339 time".to_owned())
}
