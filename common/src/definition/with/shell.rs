//! What the schema of `shell` cannot say.

use super::{Fault, Faults, Node, Span, add};

pub(super) fn check(with: Option<&Node<'_>>, at: Span, faults: &mut Faults) {
    let entries = with.and_then(Node::as_map).unwrap_or_default();
    let given = |key: &str| entries.iter().find(|entry| entry.key.text == key && !entry.value.is_null());
    match (given("command"), given("script")) {
        (None, None) => {
            let message = "a shell task needs `command` or `script`".to_owned();
            let hint = Some(r#"write with: { command: ["program", "argument"] }"#.to_owned());
            faults.push(Fault { at, message, hint });
        }
        (Some(_), Some(second)) => {
            add(faults, second.key.span, "a shell task has either `command` or `script`, not both");
        }
        (Some(command), None) => {
            if is_empty(&command.value) {
                add(faults, command.value.span, "the command is empty");
            }
            if let Some(interpreter) = given("interpreter") {
                add(faults, interpreter.key.span, "`interpreter` is for `script`, a command is run as it is");
            }
        }
        (None, Some(script)) => {
            if script.value.as_text().is_some_and(|text| text.trim().is_empty()) {
                add(faults, script.value.span, "the script is empty");
            }
            if let Some(interpreter) = given("interpreter").filter(|entry| is_empty(&entry.value)) {
                add(faults, interpreter.value.span, "the interpreter is empty");
            }
        }
    }
}

/// Tells whether a list names no program.
fn is_empty(command: &Node<'_>) -> bool {
    let program = command.as_list().and_then(|items| items.first()).and_then(Node::as_text);
    program.is_none_or(|program| program.trim().is_empty())
}
