//! The tree of commands and all help text.

use std::{path::PathBuf, time::Duration};

use chrono_tz::Tz;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use clap_complete::Shell;
use millrace_common::{
    settings::{KEYS, Key},
    state::RunState,
    text::parse_duration,
    time::Timestamp,
};

/// Exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    what was asked for failed: a run did not succeed, a definition has problems
  2    the command line is wrong, or a file of it cannot be read or written
  3    no master could be reached, or none leads
  4    the master refused: not found, or not possible now
  5    the token is missing or wrong
  6    `verify` found an invariant broken
  7    `verify` found none broken, and could not look at everything
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
    /// Attempts whose executor is gone.
    Attempt {
        #[command(subcommand)]
        what: Attempt,
    },
    /// Live settings: what masters go by while they run.
    #[command(after_long_help = setting_names())]
    Config {
        #[command(subcommand)]
        what: Config,
    },
    /// The cluster.
    Cluster {
        #[command(subcommand)]
        what: Cluster,
    },
    /// Looks whether rows of the database and histories of executors contradict an invariant; changes nothing.
    Verify(Verify),
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

/// Looks whether the past broke an invariant.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Where the range begins: a time such as 2026-01-31T02:30:00Z, or so long ago, such as 2h; a day before its end where
    /// absent.
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub(crate) since: Option<PointInTime>,
    /// Where it ends; a few seconds ago where absent, when everything is settled.
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub(crate) until: Option<PointInTime>,
}

/// A point in time, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PointInTime {
    At(Timestamp),
    Ago(Duration),
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
    /// Shows an executor and the attempts that were placed on it.
    Show {
        /// The executor's name.
        name: String,
    },
    /// Starts nothing new on an executor, whoever leads and however often it restarts; what runs there goes on.
    Drain {
        /// The executor's name.
        name: String,
        /// Why, for the others.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Waits until nothing runs there any more. Ctrl-C ends the waiting; the executor stays drained.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Does the same, and says that something is wrong with the machine; the leader does so by itself where starts fail.
    Cordon {
        /// The executor's name.
        name: String,
        /// What is wrong with it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        who: Who,
    },
    /// Lets an executor that is drained or cordoned take starts again.
    Undrain {
        /// The executor's name.
        name: String,
        #[command(flatten)]
        who: Who,
    },
    /// Leaves out an executor that is not connected and of which nothing can run any more.
    Forget {
        /// The executor's name.
        name: String,
        #[command(flatten)]
        who: Who,
    },
}

/// Who asks, for the record.
#[derive(Debug, Args)]
pub(crate) struct Who {
    /// Who asks, for the record.
    #[arg(
        long = "by",
        env = "USER",
        hide_env_values = true,
        default_value = "somebody",
        value_name = "NAME"
    )]
    pub(crate) by: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Attempt {
    /// Confirms that an attempt has ended although its executor cannot be asked, so that its task goes on.
    ///
    /// A wrong word here lets two attempts of one task run at once. It is refused while the executor is connected and speaks
    /// for the attempt. Should the executor come back with it, it is ended there, and what is recorded stays.
    ConfirmLost {
        /// The attempt's id, as `masterctl executor show` prints it.
        attempt: String,
        /// How you know that nothing of it runs, for the record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Shows what is in force, where it comes from, and what is refused and why.
    Get {
        /// One setting only.
        key: Option<String>,
    },
    /// Sets one; answered once it is in force.
    Set {
        /// The setting's name, such as pools.mes_db.
        key: String,
        /// Its value, such as 4.
        value: String,
        #[command(flatten)]
        who: Who,
    },
    /// Takes one back: what stands in the master's file, or the default, is in force again.
    Unset {
        /// The setting's name.
        key: String,
        #[command(flatten)]
        who: Who,
    },
    /// Shows what is in force, and then every change until it is interrupted.
    Watch {
        /// One setting only.
        key: Option<String>,
    },
    /// Lists what was done, refused values too; newest first.
    History {
        /// Of one setting only.
        key: Option<String>,
        #[command(flatten)]
        page: Page,
    },
}

/// Lists the names of live settings, for `--help`.
fn setting_names() -> String {
    let width = KEYS.iter().map(|key| key.name.len()).max().unwrap_or(0);
    let line =
        |key: &Key| format!("  {:<width$}  {}\n  {:<width$}  {}\n", key.name, key.about, "", key.allowed);
    format!("Settings:\n{}", KEYS.iter().map(line).collect::<String>())
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

fn point_in_time(text: &str) -> Result<PointInTime, String> {
    Timestamp::parse(text)
        .map(PointInTime::At)
        .or_else(|| parse_duration(text).ok().map(PointInTime::Ago))
        .ok_or_else(|| "it is neither an RFC 3339 time nor a duration such as 2h".to_owned())
}

fn logical_date(text: &str) -> Result<LogicalDate, String> {
    let day = || Timestamp::start_of_day(text, Tz::UTC).map(|_| LogicalDate::Day(text.to_owned()));
    Timestamp::parse(text)
        .map(LogicalDate::Time)
        .or_else(day)
        .ok_or_else(|| "it is neither a day such as 2026-01-31 nor an RFC 3339 time".to_owned())
}
