//! What a definition can say besides columns: statements, addresses, several tables.

use millrace_transfer::{PluginError, TransferError};
use serde_json::json;

use crate::{
    server::Server,
    support::{job, plugin, run_job},
};

fn cause(error: &TransferError) -> &PluginError {
    match error {
        TransferError::Read { source, .. } | TransferError::Write { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn statements_run_before_and_after_with_the_name_of_the_table() {
    let server = Server::start();
    server
        .sql(
            "CREATE TABLE src (id INT, who VARCHAR(20)); CREATE TABLE dst (id INT, who VARCHAR(20)); \
             INSERT INTO src VALUES (1, NULL); INSERT INTO dst VALUES (9, 'old')",
        )
        .await;
    let reader =
        server.reader("src", &json!(["id", "@who", "'const'"]), &json!({"session": ["set @who='me'"]}));
    server.sql("ALTER TABLE dst ADD c VARCHAR(9)").await;
    let more = json!({
        "preSql": ["delete from @table", "insert into @table values (0, 'pre', '')"],
        "postSql": ["update @table set id = id + 10"],
        "session": ["set sql_mode=''"],
    });
    let ran = run_job(&job(&reader, &server.writer("dst", &json!(["id", "who", "c"]), &more))).await;
    assert_eq!(ran.counts(), (1, 1, 0), "{}", ran.log);
    assert_eq!(
        server.rows("SELECT * FROM dst ORDER BY id").await,
        [["10", "pre", ""], ["11", "me", "const"]]
    );
    assert_eq!(ran.log.matches("delete from dst").count(), 1, "{}", ran.log);
}

#[tokio::test]
async fn several_tables_go_into_one_or_each_into_its_own() {
    let server = Server::start();
    let mut setup = String::from("CREATE TABLE one (id INT);");
    for table in 0..3 {
        setup.push_str(&format!(
            "CREATE TABLE s0{table} (id INT); INSERT INTO s0{table} VALUES ({table}); CREATE TABLE t{table} (id INT);"
        ));
    }
    server.sql(&setup).await;
    let reader = server.reader("s[00-02]", &json!(["id"]), &json!({}));
    let ran = run_job(&job(&reader, &server.writer("one", &json!(["id"]), &json!({})))).await;
    assert_eq!(ran.counts(), (3, 3, 0), "{}", ran.log);
    assert_eq!(server.count("one").await, 3);

    let each = json!({"preSql": ["insert into @table values (100)"]});
    let ran = run_job(&job(&reader, &server.writer("t0,t1,t2", &json!(["id"]), &each))).await;
    assert_eq!(ran.counts(), (3, 3, 0), "{}", ran.log);
    for table in ["0", "1", "2"] {
        assert_eq!(server.rows(&format!("SELECT id FROM t{table} ORDER BY id")).await, [[table], ["100"]]);
    }

    let ran = run_job(&job(&reader, &server.writer("t[0-1]", &json!(["id"]), &json!({})))).await;
    assert!(matches!(cause(ran.err()), PluginError::Tables { tables: 2, tasks: 3 }), "{:?}", ran.err());
}

#[tokio::test]
async fn first_address_that_answers_is_used() {
    let server = Server::start();
    server.sql("CREATE TABLE src (id INT); INSERT INTO src VALUES (1),(2)").await;
    let urls = json!(["jdbc:mysql://127.0.0.1:1/a", format!("{}&serverTimezone=UTC", server.url())]);
    let connection = json!([{"jdbcUrl": urls, "querySql": ["select id from src where id > 1;"]}]);
    let reader = server.reader("src", &json!([]), &json!({"connection": connection}));
    let ran = run_job(&job(&reader, &plugin("streamwriter", &json!({})))).await;
    assert_eq!(ran.counts(), (1, 1, 0), "{}", ran.log);
    assert!(ran.log.contains("could not connect to jdbc:mysql://127.0.0.1:1/a"), "{}", ran.log);
    assert!(ran.log.contains("option serverTimezone is ignored"), "{}", ran.log);
}

#[tokio::test]
async fn what_cannot_work_is_told_before_anything_changes() {
    let server = Server::start();
    server.sql("CREATE TABLE src (id INT, a INT); CREATE TABLE dst (id INT, a INT); INSERT INTO dst VALUES (1,1); INSERT INTO src VALUES (1,1)").await;
    let both = json!(["id", "a"]);
    let delete = json!({"preSql": ["delete from @table"]});
    let reader = server.reader("src", &both, &json!({}));
    let failed = async |reader, writer| {
        let ran = run_job(&job(&reader, &writer)).await;
        assert_eq!(server.count("dst").await, 1, "{}", ran.log);
        ran
    };

    let ran = failed(reader.clone(), server.writer("dst", &json!(["id", "nope"]), &delete)).await;
    assert!(matches!(cause(ran.err()), PluginError::Statement { .. }), "{:?}", ran.err());
    let ran = failed(reader.clone(), server.writer("none", &both, &delete)).await;
    assert!(matches!(cause(ran.err()), PluginError::Statement { .. }), "{:?}", ran.err());
    let ran = failed(reader.clone(), server.writer("dst", &json!(["id"]), &json!({}))).await;
    assert!(matches!(cause(ran.err()), PluginError::ColumnCount { found: 2, wanted: 1 }), "{:?}", ran.err());
    let wrong = json!({"password": "wrong-password-of-the-test"});
    let ran = failed(reader.clone(), server.writer("dst", &both, &wrong)).await;
    assert!(matches!(cause(ran.err()), PluginError::Connect { tries: 1, .. }), "{:?}", ran.err());
    assert!(!ran.log.contains("wrong-password-of-the-test"), "{}", ran.log);
    let missing = server.reader("missing", &both, &json!({}));
    let ran = failed(missing, server.writer("dst", &both, &json!({}))).await;
    assert!(matches!(cause(ran.err()), PluginError::Rows { .. }), "{:?}", ran.err());
}
