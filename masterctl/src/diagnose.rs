//! Problems of a definition, shown in its text.

use miette::{LabeledSpan, MietteDiagnostic, NamedSource, Report, Severity};
use millrace_common::definition::Rejected;

/// Returns a report for each problem.
pub(crate) fn reports(name: &str, text: &str, rejected: &Rejected) -> Vec<Report> {
    rejected
        .problems
        .iter()
        .map(|problem| {
            let span = problem.span.start.min(text.len())..problem.span.end.min(text.len());
            let mut diagnostic = MietteDiagnostic::new(problem.message.clone())
                .with_severity(Severity::Error)
                .with_label(LabeledSpan::at(span, "here"));
            if let Some(hint) = &problem.hint {
                diagnostic = diagnostic.with_help(hint.clone());
            }
            Report::new(diagnostic).with_source_code(NamedSource::new(name, text.to_owned()))
        })
        .collect()
}
