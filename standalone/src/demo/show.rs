//! What the demo prints: progress, a final table, and where to look.
#![expect(clippy::print_stdout, reason = "the demo talks to a person")]

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use millrace_common::{state::TaskState, text::ShowDuration};
use millrace_proto::v1;

use super::Client;

/// How often the picture moves while nothing changes.
const FRAME: Duration = Duration::from_millis(100);
/// Values that the table shows of each task.
const VALUES_SHOWN_MAX: usize = 4;

/// A line for each task that moves while it runs.
pub(crate) struct Progress {
    all: MultiProgress,
    lines: BTreeMap<u32, ProgressBar>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { all: MultiProgress::new(), lines: BTreeMap::new() }
    }

    pub(crate) fn update(&mut self, view: &v1::GetRunResponse) {
        for task in &view.tasks {
            let line = self.lines.entry(task.index).or_insert_with(|| {
                let line = self.all.add(ProgressBar::new_spinner().with_prefix(format!("{:<10}", task.name)));
                if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix} {msg}") {
                    line.set_style(style);
                }
                line
            });
            line.set_message(task.state.clone());
            match task.state.parse::<TaskState>() {
                Ok(state) if state.is_final() => line.finish(),
                Ok(TaskState::Active) => line.enable_steady_tick(FRAME),
                Ok(_) | Err(_) => line.tick(),
            }
        }
    }

    pub(crate) fn finish(self) {
        for line in self.lines.into_values() {
            line.abandon();
        }
    }
}

/// Prints the table of tasks.
pub(crate) fn outcome(view: &v1::GetRunResponse) {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_header(["task", "kind", "state", "attempts", "time", "values"]);
    for task in &view.tasks {
        let time = task.attempts.last().and_then(|attempt| {
            let micros = attempt.ended_at?.checked_sub(attempt.started_at?)?;
            Some(ShowDuration(Duration::from_micros(u64::try_from(micros).ok()?)).to_string())
        });
        table.add_row([
            task.name.clone(),
            task.kind.clone(),
            task.state.clone(),
            task.attempts.len().to_string(),
            time.unwrap_or_default(),
            values(&task.values),
        ]);
    }
    println!("{table}");
    if let Some(run) = &view.run {
        println!("run {} of workflow {}: {}", run.run, run.workflow, run.state);
    }
}

fn values(text: &str) -> String {
    let values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let scalars = values.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
    let shown: Vec<String> =
        scalars.take(VALUES_SHOWN_MAX).map(|(key, value)| format!("{key}={value}")).collect();
    shown.join("\n")
}

/// Prints the output of the last task.
pub(crate) async fn report(client: &mut Client, view: &v1::GetRunResponse) -> anyhow::Result<()> {
    let (Some(run), Some(task)) = (&view.run, view.tasks.last()) else { return Ok(()) };
    if task.attempts.is_empty() {
        return Ok(());
    }
    let request = v1::ReadOutputRequest {
        run: run.run.clone(),
        task: task.name.clone(),
        attempt: 0,
        offset: 0,
        follow: true,
    };
    let mut pieces = client.read_output(request).await?.into_inner();
    println!();
    while let Some(piece) = pieces.message().await? {
        print!("{}", String::from_utf8_lossy(&piece.bytes));
    }
    Ok(())
}

/// Prints how to look at the run with the command line.
pub(crate) fn where_to_look(address: SocketAddr, token_file: &Path) {
    println!("\nmaster: http://{address}");
    println!("look:   masterctl --master http://{address} --token-file {} list runs", token_file.display());
}

/// Prints that the demo goes on.
pub(crate) fn kept(root: &Path) {
    println!("kept:   {} (Ctrl-C stops the demo)", root.display());
}
