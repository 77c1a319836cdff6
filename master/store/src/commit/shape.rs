//! All SQL that writes scheduling state, as shapes.
//!
//! Each update repeats what its row must be: the state that it leaves, and that this is not final. So a statement that
//! does not fit the store changes fewer rows than it was given, and the batch is refused.

use crate::bulk::{Form, Shape};

pub(crate) static VERSION_NEW: Shape = Shape {
    name: "insert workflow_version",
    subject: "workflow version",
    table: "workflow_version",
    columns: &["workflow", "version", "applied_at", "task_names", "source"],
    keys: 2,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static WORKFLOW_NEW: Shape = Shape {
    name: "insert workflow",
    subject: "workflow",
    table: "workflow",
    columns: &["name", "version", "cursor_at"],
    keys: 1,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static WORKFLOW_CHANGED: Shape = Shape {
    name: "update workflow",
    subject: "workflow",
    table: "workflow",
    columns: &["name", "first_version", "last_version", "cursor_at"],
    keys: 1,
    form: Form::Update {
        set: &[
            ("version", "COALESCE(v.last_version, workflow.version)"),
            ("cursor_at", "COALESCE(v.cursor_at, workflow.cursor_at)"),
        ],
        // Versions grow, cursors never fall.
        guard: "workflow.name = v.name \
                AND (v.first_version IS NULL OR workflow.version < v.first_version) \
                AND (v.cursor_at IS NULL OR workflow.cursor_at IS NULL OR workflow.cursor_at <= v.cursor_at)",
    },
    is_exact: true,
};

pub(crate) static SKIP_NEW: Shape = Shape {
    name: "insert firing_skip",
    subject: "skipped intervals of workflow",
    table: "firing_skip",
    columns: &[
        "workflow",
        "term",
        "seq",
        "position",
        "skipped",
        "is_exact",
        "first_start",
        "first_end",
        "last_start",
        "last_end",
    ],
    keys: 1,
    form: Form::Insert,
    is_exact: true,
};

const SETTING_COLUMNS: &[&str] = &[
    "name",
    "value_text",
    "value_by",
    "value_at",
    "refused_text",
    "refused_reason",
    "refused_by",
    "refused_at",
    "revision",
];

pub(crate) static SETTING_NEW: Shape = Shape {
    name: "insert setting",
    subject: "setting",
    table: "setting",
    columns: SETTING_COLUMNS,
    keys: 1,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static SETTING_CHANGED: Shape = Shape {
    name: "update setting",
    subject: "setting",
    table: "setting",
    columns: SETTING_COLUMNS,
    keys: 1,
    form: Form::Update {
        set: &[
            ("value_text", "v.value_text"),
            ("value_by", "v.value_by"),
            ("value_at", "v.value_at"),
            ("refused_text", "v.refused_text"),
            ("refused_reason", "v.refused_reason"),
            ("refused_by", "v.refused_by"),
            ("refused_at", "v.refused_at"),
            ("revision", "v.revision"),
        ],
        guard: "setting.name = v.name",
    },
    is_exact: true,
};

pub(crate) static SETTING_GONE: Shape = Shape {
    name: "delete setting",
    subject: "setting",
    table: "setting",
    columns: &["name"],
    keys: 1,
    form: Form::Delete { guard: "" },
    is_exact: true,
};

pub(crate) static SETTING_HISTORY: Shape = Shape {
    name: "insert setting_change",
    subject: "change of setting",
    table: "setting_change",
    columns: &[
        "name",
        "term",
        "seq",
        "position",
        "changed_at",
        "changed_by",
        "old_text",
        "given_text",
        "refused_reason",
    ],
    keys: 1,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static RUN_NEW: Shape = Shape {
    name: "insert run",
    subject: "run",
    table: "run",
    columns: &[
        "id",
        "workflow",
        "version",
        "trigger_code",
        "retry_of",
        "interval_start",
        "interval_end",
        "params",
        "idempotency_key",
        "created_at",
        "state",
        "started_at",
        "ended_at",
        "reason",
        "ending",
        "ending_reason",
    ],
    keys: 1,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static RUN_CHANGED: Shape = Shape {
    name: "update run",
    subject: "run",
    table: "run",
    columns: &["id", "from_state", "to_state", "started_at", "ended_at", "reason", "ending", "ending_reason"],
    keys: 1,
    form: Form::Update {
        set: &[
            ("state", "COALESCE(v.to_state, run.state)"),
            ("started_at", "COALESCE(run.started_at, v.started_at)"),
            ("ended_at", "v.ended_at"),
            ("reason", "CASE WHEN v.to_state IS NULL THEN run.reason ELSE v.reason END"),
            ("ending", "COALESCE(v.ending, run.ending)"),
            ("ending_reason", "COALESCE(v.ending_reason, run.ending_reason)"),
        ],
        // What is final stays; a run is given one end.
        guard: "run.id = v.id AND run.state = COALESCE(v.from_state, run.state) AND run.state < 10 \
                AND (v.ending IS NULL OR run.ending IS NULL)",
    },
    is_exact: true,
};

pub(crate) static TASK_NEW: Shape = Shape {
    name: "insert task_instance",
    subject: "task instance",
    table: "task_instance",
    columns: &[
        "run_id",
        "instance_index",
        "state",
        "moved_at",
        "started_at",
        "retry_at",
        "attempts",
        "failures",
        "losses",
        "rejections",
        "output_values",
    ],
    keys: 2,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static TASK_CHANGED: Shape = Shape {
    name: "update task_instance",
    subject: "task instance",
    table: "task_instance",
    columns: &[
        "run_id",
        "instance_index",
        "from_state",
        "to_state",
        "moved_at",
        "started_at",
        "retry_at",
        "attempts",
        "failures",
        "losses",
        "rejections",
        "output_values",
    ],
    keys: 2,
    form: Form::Update {
        set: &[
            ("state", "COALESCE(v.to_state, task_instance.state)"),
            ("moved_at", "COALESCE(v.moved_at, task_instance.moved_at)"),
            ("started_at", "COALESCE(task_instance.started_at, v.started_at)"),
            ("retry_at", "CASE WHEN v.to_state IS NULL THEN task_instance.retry_at ELSE v.retry_at END"),
            ("attempts", "COALESCE(v.attempts, task_instance.attempts)"),
            ("failures", "task_instance.failures + v.failures"),
            ("losses", "task_instance.losses + v.losses"),
            ("rejections", "task_instance.rejections + v.rejections"),
            ("output_values", "COALESCE(v.output_values, task_instance.output_values)"),
        ],
        guard: "task_instance.run_id = v.run_id AND task_instance.instance_index = v.instance_index \
                AND task_instance.state = COALESCE(v.from_state, task_instance.state) AND task_instance.state < 10",
    },
    is_exact: true,
};

pub(crate) static ATTEMPT_NEW: Shape = Shape {
    name: "insert attempt",
    subject: "attempt",
    table: "attempt",
    columns: &[
        "run_id",
        "instance_index",
        "attempt_number",
        "state",
        "executor",
        "spool_id",
        "machine_id",
        "assigned_at",
        "assigned_term",
        "assigned_seq",
        "moved_at",
        "started_at",
        "ended_at",
        "ended_term",
        "ended_seq",
        "exit_code",
        "reason",
        "output_values",
        "is_skipped",
        "is_permanent",
        "log_bytes",
        "proof",
    ],
    keys: 3,
    form: Form::Insert,
    is_exact: true,
};

pub(crate) static ATTEMPT_MOVED: Shape = Shape {
    name: "move attempt",
    subject: "attempt",
    table: "attempt",
    columns: &[
        "run_id",
        "instance_index",
        "attempt_number",
        "from_state",
        "to_state",
        "moved_at",
        "started_at",
    ],
    keys: 3,
    form: Form::Update {
        set: &[
            ("state", "v.to_state"),
            ("moved_at", "v.moved_at"),
            ("started_at", "COALESCE(v.started_at, attempt.started_at)"),
        ],
        guard: "attempt.run_id = v.run_id AND attempt.instance_index = v.instance_index \
                AND attempt.attempt_number = v.attempt_number AND attempt.state = v.from_state \
                AND attempt.state < 10",
    },
    is_exact: true,
};

pub(crate) static ATTEMPT_ENDED: Shape = Shape {
    name: "end attempt",
    subject: "attempt",
    table: "attempt",
    columns: &[
        "run_id",
        "instance_index",
        "attempt_number",
        "from_state",
        "to_state",
        "moved_at",
        "started_at",
        "ended_at",
        "ended_term",
        "ended_seq",
        "exit_code",
        "reason",
        "output_values",
        "is_skipped",
        "is_permanent",
        "log_bytes",
        "proof",
    ],
    keys: 3,
    form: Form::Update {
        set: &[
            ("state", "v.to_state"),
            ("moved_at", "v.moved_at"),
            ("started_at", "COALESCE(v.started_at, attempt.started_at)"),
            ("ended_at", "v.ended_at"),
            ("ended_term", "v.ended_term"),
            ("ended_seq", "v.ended_seq"),
            ("exit_code", "v.exit_code"),
            ("reason", "v.reason"),
            ("output_values", "v.output_values"),
            ("is_skipped", "v.is_skipped"),
            ("is_permanent", "v.is_permanent"),
            ("log_bytes", "v.log_bytes"),
            ("proof", "v.proof"),
        ],
        guard: "attempt.run_id = v.run_id AND attempt.instance_index = v.instance_index \
                AND attempt.attempt_number = v.attempt_number AND attempt.state = v.from_state \
                AND attempt.state < 10",
    },
    is_exact: true,
};

pub(crate) static STANDING_GONE: Shape = Shape {
    name: "delete executor_standing",
    subject: "standing of executor",
    table: "executor_standing",
    columns: &["executor"],
    keys: 1,
    form: Form::Delete { guard: "" },
    is_exact: false,
};

pub(crate) static STANDING_NEW: Shape = Shape {
    name: "insert executor_standing",
    subject: "standing of executor",
    table: "executor_standing",
    columns: &["executor", "closed", "reason", "closed_by", "closed_at"],
    keys: 1,
    form: Form::Insert,
    is_exact: true,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreConfig, bulk::ROWS_MAX, dialect::Purpose};

    /// MySQL and MariaDB set columns in no certain order, and a value would see those that are set already.
    #[test]
    fn a_value_names_no_column_of_its_table_but_its_own() {
        for shape in
            [&WORKFLOW_CHANGED, &SETTING_CHANGED, &RUN_CHANGED, &TASK_CHANGED, &ATTEMPT_MOVED, &ATTEMPT_ENDED]
        {
            let Form::Update { set, .. } = &shape.form else { panic!("{} is an update", shape.name) };
            let prefix = format!("{}.", shape.table);
            for (column, value) in *set {
                let named = value.split([' ', '(', ',', ')']).filter_map(|word| word.strip_prefix(&prefix));
                let others: Vec<&str> = named.filter(|named| named != column).collect();
                assert!(others.is_empty(), "{}: {column} is made of {others:?}", shape.name);
            }
        }
    }

    /// A statement over many rows must look each of them up: one that reads a whole table works in every test and stops
    /// the cluster at a million rows.
    #[tokio::test]
    async fn no_statement_reads_a_whole_table() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::sqlite(&folder.path().join("state.db"))).await.unwrap();
        let mut connection = store.inner.database.connect(Purpose::Prepare).await.unwrap();
        for shape in
            [&WORKFLOW_CHANGED, &SETTING_CHANGED, &RUN_CHANGED, &TASK_CHANGED, &ATTEMPT_MOVED, &ATTEMPT_ENDED]
        {
            for rows in [1, ROWS_MAX] {
                let text = format!("EXPLAIN QUERY PLAN {}", store.inner.database.text(shape, rows));
                let plan = connection.fetch(Box::leak(text.into_boxed_str()), &[]).await.unwrap();
                let steps: Vec<String> = plan
                    .iter()
                    .map(|row| {
                        let mut cells = row.cells();
                        let _ = (cells.int(), cells.int(), cells.int());
                        cells.text().unwrap().to_string()
                    })
                    .collect();
                let scan = format!("SCAN {}", shape.table);
                assert!(!steps.contains(&scan), "{}: {steps:?}", shape.name);
                let search = format!("SEARCH {} USING", shape.table);
                assert!(steps.iter().any(|step| step.starts_with(&search)), "{}: {steps:?}", shape.name);
            }
        }
    }
}
