//! A document of the largest size is read in one go. The time is printed, not asserted: machines differ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fmt::Write, time::Instant};

use millrace_common::{definition::parse, limits::TASKS_MAX};

fn document() -> String {
    let mut document =
        "workflow: large\nparams: { region: north }\ndefaults: { retries: 3 }\ntasks:\n".to_owned();
    for at in 0..TASKS_MAX {
        let after = match at {
            0 => String::new(),
            1..10 => "task_0".to_owned(),
            _ => format!("task_{}, task_{}", at / 2, at - 1),
        };
        writeln!(
            document,
            "  task_{at}:\n    kind: shell\n    after: [{after}]\n    timeout: 2h\n    executor: {{ labels: {{ site: plant-{} }} }}\n    \
             with:\n      command: [./transfer.sh, --table, orders_{at}, --day, \"{{{{ ds }}}}\"]\n      \
             env: {{ REGION: \"{{{{ params.region }}}}\", ROWS: \"{{{{ values.task_0.rows | default(0) }}}}\" }}",
            at % 7,
        )
        .unwrap();
    }
    document.replacen("{{ values.task_0.rows | default(0) }}", "none", 1)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a measurement for the person who runs the test")]
fn ten_thousand_tasks_are_read() {
    let text = document();
    let start = Instant::now();
    let workflow = parse(&text).unwrap();
    println!("{} tasks of {} bytes read in {:?}", workflow.tasks.len(), text.len(), start.elapsed());
    assert_eq!(workflow.tasks.len(), TASKS_MAX);
    assert_eq!(workflow.graph.upstream(9_999), [4_999, 9_998]);
    assert_eq!(workflow.tasks[9_999].value_refs, [0]);
}
