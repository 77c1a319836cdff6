//! The database's own notes: triggers that the rig puts on the tables of the store, which write down every change of a
//! row inside the transaction that makes it.
//!
//! A transaction that does not commit leaves no note, and every transaction of a leader begins with the fence row, whose
//! lock puts them in one order. So the notes are what was committed, in the order in which it was.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::database::{Database, Engine};

/// The tables that are noted, with the columns that matter.
const TABLES: [(&str, &[&str]); 7] = [
    ("leadership", &["term", "seq", "holder"]),
    ("workflow_version", &["workflow", "version", "source"]),
    ("workflow", &["name", "version", "cursor_at"]),
    ("firing_skip", &["workflow", "position", "first_end", "last_end"]),
    (
        "run",
        &["id", "workflow", "version", "trigger_code", "interval_end", "idempotency_key", "state", "ending"],
    ),
    ("task_instance", &["run_id", "instance_index", "state"]),
    (
        "attempt",
        &[
            "run_id",
            "instance_index",
            "attempt_number",
            "state",
            "executor",
            "spool_id",
            "exit_code",
            "is_skipped",
            "proof",
            "reason",
        ],
    ),
];

/// Columns that hold bytes.
const BYTES: [&str; 3] = ["id", "run_id", "spool_id"];

/// A note: a row as it was and as it is.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Row {
    /// Which transaction, where the engine numbers them; 0 where it does not.
    pub(crate) tx: i64,
    /// When, in microseconds since 1970 by the database's clock.
    pub(crate) at: i64,
    /// Which table; `base` for what was there when the notes began.
    pub(crate) what: String,
    pub(crate) old: Option<Map<String, Value>>,
    pub(crate) new: Map<String, Value>,
}

/// Begins to take notes. Nothing but a leader may be there yet.
pub(crate) fn begin(database: &Database) -> anyhow::Result<()> {
    let statements = match database.engine() {
        Engine::Postgres => postgres(),
        Engine::MariaDb => mariadb(),
        Engine::Sqlite => sqlite(),
    };
    database.sql(&statements).context("the tables cannot be watched").map(drop)
}

/// Reads all notes.
pub(crate) fn read(database: &Database) -> anyhow::Result<Vec<Row>> {
    let statement = match database.engine() {
        Engine::Postgres => {
            "SELECT json_build_object('tx', tx, 'at', at, 'what', what, 'old', old, 'new', new) FROM rig_history ORDER BY id"
        }
        Engine::MariaDb => {
            "SELECT JSON_OBJECT('tx', 0, 'at', at, 'what', what, 'old', JSON_EXTRACT(old, '$'), 'new', JSON_EXTRACT(new, '$')) FROM rig_history ORDER BY id"
        }
        Engine::Sqlite => {
            "SELECT json_object('tx', 0, 'at', at, 'what', what, 'old', json(old), 'new', json(new)) FROM rig_history ORDER BY id"
        }
    };
    let rows = database.json(statement)?;
    rows.into_iter().map(|row| serde_json::from_value(row).context("a note cannot be read")).collect()
}

fn postgres() -> String {
    let clock = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let mut text = String::from(
        "CREATE TABLE rig_history (id bigserial PRIMARY KEY, tx bigint, at bigint, what text, old json, new json);\n",
    );
    for (table, columns) in TABLES {
        let object = |row: &str| {
            let cells = columns.iter().map(|name| {
                let hex = BYTES.contains(name);
                if hex {
                    format!("'{name}', encode({row}.{name}, 'hex')")
                } else {
                    format!("'{name}', {row}.{name}")
                }
            });
            format!("json_build_object({})", cells.collect::<Vec<_>>().join(", "))
        };
        let insert = |old: &str| {
            format!(
                "INSERT INTO rig_history (tx, at, what, old, new) VALUES (txid_current(), {clock}, '{table}', {old}, {});",
                object("NEW")
            )
        };
        text.push_str(&format!(
            "CREATE FUNCTION rig_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN\n\
             IF TG_OP = 'INSERT' THEN {} ELSE {} END IF;\nRETURN NULL;\nEND $$;\n\
             CREATE TRIGGER rig_note AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION rig_{table}();\n",
            insert("NULL"),
            insert(&object("OLD")),
        ));
    }
    text.push_str(&format!(
        "INSERT INTO rig_history (tx, at, what, new) SELECT 0, {clock}, 'base', \
         json_build_object('term', term, 'seq', seq, 'holder', holder) FROM leadership;\n"
    ));
    text
}

fn mariadb() -> String {
    let clock = "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)";
    let mut text = String::from(
        "CREATE TABLE rig_history (id BIGINT AUTO_INCREMENT PRIMARY KEY, at BIGINT, what VARCHAR(64), old LONGTEXT, new LONGTEXT);\n",
    );
    for (table, columns) in TABLES {
        let object = |row: &str| {
            let cells = columns.iter().map(|name| {
                let hex = BYTES.contains(name);
                if hex {
                    format!("'{name}', LOWER(HEX({row}.{name}))")
                } else {
                    format!("'{name}', {row}.{name}")
                }
            });
            format!("JSON_OBJECT({})", cells.collect::<Vec<_>>().join(", "))
        };
        for (event, old) in [("INSERT", "NULL".to_owned()), ("UPDATE", object("OLD"))] {
            text.push_str(&format!(
                "CREATE TRIGGER rig_{table}_{} AFTER {event} ON {table} FOR EACH ROW \
                 INSERT INTO rig_history (at, what, old, new) VALUES ({clock}, '{table}', {old}, {});\n",
                event.to_lowercase(),
                object("NEW")
            ));
        }
    }
    text.push_str(&format!(
        "INSERT INTO rig_history (at, what, new) SELECT {clock}, 'base', \
         JSON_OBJECT('term', term, 'seq', seq, 'holder', holder) FROM leadership;\n"
    ));
    text
}

fn sqlite() -> String {
    // Its clock has milliseconds: the middle of one is nearest to when it was.
    let clock = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000 + 500";
    let mut text = String::from(
        "CREATE TABLE rig_history (id INTEGER PRIMARY KEY, at INTEGER, what TEXT, old TEXT, new TEXT);\n",
    );
    for (table, columns) in TABLES {
        let object = |row: &str| {
            let cells = columns.iter().map(|name| {
                let hex = BYTES.contains(name);
                if hex {
                    format!("'{name}', lower(hex({row}.{name}))")
                } else {
                    format!("'{name}', {row}.{name}")
                }
            });
            format!("json_object({})", cells.collect::<Vec<_>>().join(", "))
        };
        for (event, old) in [("INSERT", "NULL".to_owned()), ("UPDATE", object("OLD"))] {
            text.push_str(&format!(
                "CREATE TRIGGER rig_{table}_{} AFTER {event} ON {table} FOR EACH ROW BEGIN \
                 INSERT INTO rig_history (at, what, old, new) VALUES ({clock}, '{table}', {old}, {}); END;\n",
                event.to_lowercase(),
                object("NEW")
            ));
        }
    }
    // Together, so that nothing is committed in between.
    format!(
        "BEGIN IMMEDIATE;\n{text}INSERT INTO rig_history (at, what, new) SELECT {clock}, 'base', \
         json_object('term', term, 'seq', seq, 'holder', holder) FROM leadership;\nCOMMIT;\n"
    )
}
