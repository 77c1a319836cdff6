//! Problems of a definition, shown in its text.

use std::{io::IsTerminal as _, sync::Arc};

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report, Severity,
    ThemeCharacters, ThemeStyles,
};
use millrace_common::{
    definition::{Problem, Rejected},
    limits::PROBLEMS_MAX,
};

/// Columns of what is shown where there is no narrower terminal.
const WIDTH_MAX: usize = 100;

/// Returns a report for each problem.
pub(crate) fn reports(name: &str, text: &str, rejected: &Rejected) -> Vec<Report> {
    let source = Arc::new(NamedSource::new(name, text.to_owned()));
    let mut reports: Vec<Report> = rejected
        .problems
        .iter()
        .map(|problem| Report::new(diagnostic(text, problem)).with_source_code(Arc::clone(&source)))
        .collect();
    if reports.len() >= PROBLEMS_MAX {
        reports.push(plain(format!("{name} may have more problems, only {PROBLEMS_MAX} are shown"), None));
    }
    reports
}

/// Returns a report about something that has no place in a text.
pub(crate) fn plain(message: String, help: Option<&str>) -> Report {
    let mut diagnostic = MietteDiagnostic::new(message).with_severity(Severity::Error);
    diagnostic.help = help.map(str::to_owned);
    Report::new(diagnostic)
}

fn diagnostic(text: &str, problem: &Problem) -> MietteDiagnostic {
    let start = problem.span.start.min(text.len());
    // One line of it is enough to find it.
    let end = problem.span.end.clamp(start, text.len());
    let end = text.get(start..end).and_then(|found| found.find('\n')).map_or(end, |line| start + line);
    let mut diagnostic = MietteDiagnostic::new(problem.message.clone())
        .with_severity(Severity::Error)
        .with_label(LabeledSpan::at(start..end, "here"));
    diagnostic.help.clone_from(&problem.hint);
    diagnostic
}

/// Shows reports one after the other; with colours on a terminal only.
pub(crate) fn shown(reports: &[Report]) -> String {
    let styles = if wants_colours() { ThemeStyles::ansi() } else { ThemeStyles::none() };
    let theme = GraphicalTheme { characters: ThemeCharacters::unicode(), styles };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width())
        .with_links(false)
        .without_syntax_highlighting();
    let mut text = String::new();
    for report in reports {
        // A string takes everything.
        let _ = handler.render_report(&mut text, report.as_ref());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

fn width() -> usize {
    let terminal = comfy_table::Table::new().use_stderr().width();
    terminal.filter(|width| *width > 0).map_or(WIDTH_MAX, |width| usize::from(width).min(WIDTH_MAX))
}

#[expect(clippy::disallowed_methods, reason = "the common switch of all programs, no setting of this one")]
fn wants_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
