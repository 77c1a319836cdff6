//! The `aoi` kind against real servers: an FTP server with faults, SQLite, MariaDB and PostgreSQL.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests wait for processes and are one")]

mod aoi;

use std::{
    fs,
    io::{Cursor, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aoi::{
    databases::{self, rows, sqlite},
    plant::{DAY, PASSWORD, Plant, with},
    rows::{by, defects, expected},
};
use millrace_examples::aoi::{Film, Roll, archive};
use millrace_kinds::{
    Outcome,
    run::{Payload, ResolvedConnection, run_kind},
};
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Ingests the same twice into a target: all rows arrive, and the second attempt changes nothing.
async fn ingest_twice(target: Option<ResolvedConnection>) {
    let mut plant = Plant::new();
    let rolls = plant.archives(5);
    plant.serve(&json!({}));
    let mut context = plant.context();
    if let Some(target) = target {
        context.connections.insert("aoi".to_owned(), target);
    }
    let run = async || {
        let with = serde_json::from_value(with(&json!({}))).unwrap();
        millrace_kinds::aoi::run(with, &context).await.expect("succeeds").values
    };
    let first = run().await;
    let (found, ids) = rows(&context.connections["aoi"]).await;
    assert_eq!(found, expected(&rolls));
    assert_eq!((&first["rolls"], &first["rolls_now"], &first["files"]), (&json!(10), &json!(10), &json!(10)));
    assert_eq!(first["defects"], json!(defects(&rolls)));
    assert_eq!(first["by_class"], by(&rolls, |defect| defect.class.as_ref()));
    assert_eq!(first["by_severity"], by(&rolls, |defect| defect.severity.as_ref()));
    let second = run().await;
    assert_eq!(rows(&context.connections["aoi"]).await, (expected(&rolls), ids));
    for key in ["files_now", "bytes_now", "unpacked_now", "rolls_now"] {
        assert_eq!(second[key], json!(0), "{key}");
    }
    for key in
        ["files", "bytes", "rolls", "defects", "by_class", "by_severity", "dirty", "quarantined", "late"]
    {
        assert_eq!(second[key], first[key], "{key}");
    }
}

#[tokio::test]
async fn all_rows_arrive_in_sqlite_and_a_second_attempt_changes_nothing() {
    ingest_twice(None).await;
}

#[tokio::test]
async fn all_rows_arrive_in_mariadb_and_a_second_attempt_changes_nothing() {
    let (server, target) = databases::mariadb();
    assert_eq!(target.port, Some(server.port()));
    ingest_twice(Some(target)).await;
}

#[tokio::test]
async fn all_rows_arrive_in_postgresql_and_a_second_attempt_changes_nothing() {
    let (server, target) = databases::postgres();
    assert_eq!(target.port, Some(server.socket_port()));
    ingest_twice(Some(target)).await;
}

/// Reads the rows of the plant's SQLite database.
async fn stored_rows(plant: &Plant) -> aoi::rows::Rows {
    rows(&plant.connections()["aoi"]).await.0
}

#[tokio::test]
async fn each_stage_runs_alone() {
    let mut plant = Plant::new();
    let rolls = plant.archives(2);
    plant.serve(&json!({}));
    let mirrored = plant.values(with(&json!({ "stages": ["mirror"] }))).await;
    assert_eq!(
        (&mirrored["files"], &mirrored["archives"], &mirrored["rolls"]),
        (&json!(4), &json!(0), &json!(0))
    );
    let archives = plant.stored("archives");
    assert!(archives.len() == 4 && archives.iter().all(|path| path.ends_with(".zip")), "{archives:?}");
    let unpacked = plant.values(with(&json!({ "stages": ["unpack"] }))).await;
    assert_eq!((&unpacked["archives"], &unpacked["unpacked_now"]), (&json!(4), &json!(4)));
    assert_eq!(plant.stored("reports").iter().filter(|path| path.ends_with("defectlist.csv")).count(), 4);
    let loaded = plant.values(with(&json!({ "stages": ["load"] }))).await;
    assert_eq!((&loaded["rolls"], &loaded["rolls_now"]), (&json!(4), &json!(4)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn what_another_program_deleted_is_written_again() {
    let mut plant = Plant::new();
    let rolls = plant.archives(2);
    plant.serve(&json!({}));
    plant.values(with(&json!({}))).await;
    sqlite(&plant.connections()["aoi"], "DELETE FROM defects_process3 WHERE defectid = 1 AND pieceid = 1")
        .await;
    let values = plant.values(with(&json!({}))).await;
    assert_eq!(values["rolls_now"], json!(1));
    sqlite(&plant.connections()["aoi"], "DELETE FROM pieces_process3; DELETE FROM defects_process3").await;
    assert_eq!(plant.values(with(&json!({}))).await["rolls_now"], json!(4));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn a_new_version_of_an_archive_replaces_its_roll() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives(2);
    plant.serve(&json!({}));
    plant.values(with(&json!({}))).await;
    rolls[0].defects.truncate(3);
    rolls[0].recipe = Some("corrected".to_owned());
    plant.put(rolls[0].film, &rolls[0].archive, &archive(&rolls[0]).unwrap());
    let values = plant.values(with(&json!({}))).await;
    assert_eq!(
        (&values["files_now"], &values["rolls_now"], &values["rolls"]),
        (&json!(1), &json!(1), &json!(4))
    );
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn of_two_reports_about_one_roll_the_later_holds() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives(1);
    let mut later = rolls[0].clone();
    later.stop_time += chrono::TimeDelta::minutes(5);
    later.comment = Some("inspected again".to_owned());
    plant.put(later.film, "A second report.zip", &archive(&later).unwrap());
    plant.serve(&json!({}));
    for _ in 0..2 {
        let values = plant.values(with(&json!({}))).await;
        assert_eq!((&values["rolls"], &values["superseded"]), (&json!(2), &json!(1)));
    }
    rolls[0] = later;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn a_broken_archive_is_put_aside_and_the_others_arrive() {
    let mut plant = Plant::new();
    let rolls = plant.archives(2);
    let whole = archive(&rolls[0]).unwrap();
    plant.put(Film::Pva, "cut.zip", &whole[..whole.len() / 2]);
    plant.put(Film::Pva, "empty.zip", b"");
    plant.put(Film::Psa, "no report.zip", &zipped(&[("readme.txt", b"nothing")]));
    plant.serve(&json!({}));
    for _ in 0..2 {
        let values = plant.values(with(&json!({}))).await;
        assert_eq!((&values["quarantined"], &values["rolls"]), (&json!(3), &json!(4)));
        assert_eq!(stored_rows(&plant).await, expected(&rolls));
    }
    let quarantine = plant.stored("quarantine");
    for name in ["pva/2018/07/25/cut.zip", "pva/2018/07/25/empty.zip", "psa/2018/07/25/no report.zip"] {
        assert!(quarantine.contains(&name.to_owned()), "{name} in {quarantine:?}");
        let reason = plant.path("state/store/quarantine").join(format!("{name}.reason.json"));
        let reason: Value = serde_json::from_slice(&fs::read(reason).unwrap()).unwrap();
        assert!(!reason["reason"].as_str().unwrap().is_empty());
    }
    let retrieved =
        |plant: &Plant| plant.commands().iter().filter(|line| line.as_str() == "RETR cut.zip").count();
    assert_eq!(retrieved(&plant), 1, "what is broken is not fetched again and again");
    let message = plant.failure(with(&json!({ "on_broken": "fail" }))).await;
    assert!(message.contains("3 archives are broken"), "{message}");
    plant.put(Film::Pva, "cut.zip", &whole);
    fs::remove_file(plant.path("ftp/cloudin_pva/2018/07/25/empty.zip")).unwrap();
    let values = plant.values(with(&json!({ "retry_quarantined": true }))).await;
    assert_eq!(values["quarantined"], json!(2), "what was mended is ingested, what is broken is told again");
    fs::remove_file(plant.path("state/store/quarantine/pva/2018/07/25/empty.zip")).unwrap();
    let values = plant.values(with(&json!({ "retry_quarantined": true }))).await;
    assert_eq!(values["quarantined"], json!(1), "what is gone, here and at its origin, is forgotten");
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn an_archive_that_leads_out_of_its_folder_is_refused() {
    let mut plant = Plant::new();
    for (name, entry) in
        [("up.zip", "../../../../../../evil"), ("root.zip", "/tmp/millrace-evil"), ("back.zip", "..\\evil")]
    {
        plant.put(Film::Pva, name, &zipped(&[("r/header.csv", b"Roll:;1"), (entry, b"evil")]));
    }
    plant.serve(&json!({}));
    let values = plant.values(with(&json!({ "sources": ["pva"] }))).await;
    assert_eq!((&values["quarantined"], &values["rolls"]), (&json!(3), &json!(0)));
    assert_eq!(plant.stored("reports"), Vec::<String>::new());
    let everything =
        Command::new("find").arg(plant.folder.path()).args(["-name", "*evil*"]).output().unwrap();
    assert!(everything.stdout.is_empty(), "{}", String::from_utf8_lossy(&everything.stdout));
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_put_aside_as_a_whole() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    plant.put(Film::Pva, "no roll.zip", &zipped(&[("r/header.csv", b"Job:;1"), ("r/defectlist.csv", b"")]));
    let header = "Roll:;R1;Roll Start:;2018-07-25 01:00:00";
    plant.put(Film::Pva, "no list.zip", &zipped(&[("r/header.csv", header.as_bytes())]));
    let columns =
        zipped(&[("r/header.csv", header.as_bytes()), ("r/defectlist.csv", b"Defect ID;Severity\n1;1")]);
    plant.put(Film::Pva, "no columns.zip", &columns);
    plant.serve(&json!({}));
    for _ in 0..2 {
        let values = plant.values(with(&json!({}))).await;
        assert_eq!(values["quarantined"], json!(3), "{values}");
        assert_eq!(stored_rows(&plant).await, expected(&rolls));
    }
}

#[tokio::test]
async fn a_transfer_that_breaks_is_continued_where_it_broke() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives(1);
    rolls.retain(|roll| roll.film == Film::Pva);
    let size = pad(&plant, &rolls[0], 400_000);
    plant.serve(&json!({ "drops": 6, "drop_after": 50_000 }));
    let values = plant.values(with(&json!({ "sources": [{ "name": "pva", "encoding": "gbk" }] }))).await;
    assert_eq!((&values["bytes_now"], &values["rolls"]), (&json!(size), &json!(1)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    let offsets: Vec<u64> =
        plant.commands().iter().filter_map(|line| line.strip_prefix("REST ")?.parse().ok()).collect();
    assert_eq!(offsets.len(), 6, "{offsets:?}");
    assert!(offsets.is_sorted() && offsets[0] >= 40_000 && offsets[5] >= 240_000, "{offsets:?}");
    let leftover = plant.stored("archives").into_iter().filter(|path| path.contains(".part")).count();
    assert_eq!(leftover, 0);
}

/// Makes the archive of a roll larger by a picture that does not compress, and returns its size.
fn pad(plant: &Plant, roll: &Roll, bytes: usize) -> u64 {
    let mut writer = ZipWriter::new_append(Cursor::new(archive(roll).unwrap())).unwrap();
    writer.start_file("picture.jpg", SimpleFileOptions::default()).unwrap();
    let mut random = millrace_examples::random::Random::new(1, 1);
    let picture: Vec<u8> =
        std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(bytes).collect();
    writer.write_all(&picture).unwrap();
    let padded = writer.finish().unwrap().into_inner();
    plant.put(roll.film, &roll.archive, &padded);
    padded.len() as u64
}

#[tokio::test]
async fn a_transfer_that_never_gets_further_is_given_up() {
    let mut plant = Plant::new();
    plant.archives(1);
    plant.serve(&json!({ "drops": 1_000, "drop_after": 0 }));
    let with = with(&json!({ "sources": ["pva"], "mirror": { "attempts": 3 } }));
    let message = plant.failure(with).await;
    assert!(
        message.contains("1 files could not be fetched") && message.contains("connection broke"),
        "{message}"
    );
    let tries = plant.commands().iter().filter(|line| line.starts_with("RETR")).count();
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn a_server_without_resumption_is_asked_for_the_whole_file() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives(1);
    rolls.retain(|roll| roll.film == Film::Pva);
    pad(&plant, &rolls[0], 200_000);
    plant.serve(&json!({ "drops": 1, "drop_after": 50_000, "unknown": ["REST"] }));
    plant.values(with(&json!({ "sources": [{ "name": "pva", "encoding": "gbk" }] }))).await;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    plant.serve(&json!({ "busy": 3 }));
    plant.values(with(&json!({}))).await;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    plant.serve(&json!({ "busy": 1_000 }));
    let message = plant.failure(with(&json!({ "mirror": { "attempts": 2 } }))).await;
    assert!(message.contains("421") && message.contains("2 of the sources failed"), "{message}");
}

#[tokio::test]
async fn a_file_that_is_still_written_is_waited_for() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    let whole = archive(&rolls[0]).unwrap();
    let path = plant.put(rolls[0].film, &rolls[0].archive, &whole[..100]);
    plant.serve(&json!({}));
    let writer = thread::spawn(move || {
        // Slower than the looks: each of them sees another size until the file is complete.
        for end in (100..whole.len()).step_by(whole.len() / 8).chain([whole.len()]) {
            fs::write(&path, &whole[..end]).unwrap();
            thread::sleep(Duration::from_millis(150));
        }
    });
    let ready = json!({ "ready": { "stable": { "polls": 3, "interval": "300ms" } } });
    let values = plant.values(with(&json!({ "mirror": ready }))).await;
    writer.join().unwrap();
    assert_eq!((&values["unready"], &values["quarantined"]), (&json!(0), &json!(0)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn a_file_that_is_never_complete_is_told_and_the_others_arrive() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    plant.put(Film::Pva, "new.zip", b"half");
    plant.serve(&json!({}));
    for film in Film::ALL {
        for roll in rolls.iter().filter(|roll| roll.film == film) {
            let path = plant.path(format!("ftp/cloudin_{}/2018/07/25/{}", film.name(), roll.archive));
            let yesterday = std::time::SystemTime::now() - Duration::from_hours(24);
            fs::File::options().append(true).open(path).unwrap().set_modified(yesterday).unwrap();
        }
    }
    let mirror = json!({ "ready": { "min_age": "1h" }, "ready_wait": "100ms" });
    let message = plant.failure(with(&json!({ "mirror": mirror }))).await;
    assert!(message.contains("1 files are not complete yet") && message.contains("new.zip"), "{message}");
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    let mirror = json!({ "ready": { "min_age": "1h" }, "ready_wait": "100ms", "on_unready": "leave" });
    let values = plant.values(with(&json!({ "mirror": mirror }))).await;
    assert_eq!(values["unready"], json!(1));
}

#[tokio::test]
async fn a_marker_says_that_a_file_is_complete() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    let stem = rolls[0].archive.trim_end_matches("_zip").trim_end_matches(".zip");
    plant.put(rolls[0].film, &format!("{stem}.ok"), b"");
    plant.serve(&json!({}));
    let mirror = json!({ "ready": { "marker": "*.ok" }, "ready_wait": "100ms", "on_unready": "leave" });
    let values = plant.values(with(&json!({ "mirror": mirror }))).await;
    assert_eq!((&values["unready"], &values["rolls"]), (&json!(1), &json!(1)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls[..1]));
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused_and_counted() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    let evil = [
        "../../evil.zip",
        "/etc/evil.zip",
        "C:evil.zip",
        ".evil.zip",
        "-evil.zip",
        "a\u{7}evil.zip",
        "..\\evil.zip",
    ];
    plant.serve(&json!({ "evil": evil }));
    for _ in 0..2 {
        let values = plant.values(with(&json!({}))).await;
        assert_eq!(values["refused"], json!(2 * evil.len()), "{values}");
        assert_eq!(stored_rows(&plant).await, expected(&rolls));
    }
    assert!(plant.commands().iter().all(|line| !line.contains("evil")), "nothing of it is asked for");
    let everything =
        Command::new("find").arg(plant.folder.path()).args(["-name", "*evil*"]).output().unwrap();
    assert!(everything.stdout.is_empty(), "{}", String::from_utf8_lossy(&everything.stdout));
}

#[tokio::test]
async fn files_beyond_the_limits_are_refused() {
    let mut plant = Plant::new();
    plant.archives(2);
    plant.put(Film::Pva, "huge.zip", &vec![0; 100_000]);
    plant.serve(&json!({}));
    let values = plant.values(with(&json!({ "mirror": { "file_size_max": "90KB" } }))).await;
    assert_eq!((&values["refused"], &values["rolls"]), (&json!(1), &json!(4)));
    let message = plant.failure(with(&json!({ "mirror": { "files_max": 1 } }))).await;
    assert!(message.contains("mirror.files_max"), "{message}");
    plant.put(Film::Pva, "another.zip", b"x");
    let message = plant.failure(with(&json!({ "mirror": { "free_space_min": "900TiB" } }))).await;
    assert!(message.contains("mirror.free_space_min"), "{message}");
}

#[tokio::test]
async fn an_old_server_behind_a_translated_address_is_understood() {
    let mut plant = Plant::new();
    let rolls = plant.archives(3);
    plant.serve(&json!({ "unknown": ["EPSV", "MLSD", "OPTS"], "masquerade": "10.255.255.1" }));
    plant.values(with(&json!({}))).await;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    let commands = plant.commands();
    assert!(
        commands.iter().any(|line| line.starts_with("PASV"))
            && commands.iter().any(|line| line.starts_with("LIST"))
    );
    assert_eq!(plant.values(with(&json!({}))).await["files_now"], json!(0));
}

#[tokio::test]
async fn ports_of_the_extended_mode_that_are_closed_on_the_way_lead_to_the_old_mode() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    plant.serve(&json!({ "dead_epsv": closed }));
    plant.values(with(&json!({}))).await;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    assert!(plant.commands().iter().any(|line| line.starts_with("PASV")));
}

#[tokio::test]
async fn a_server_that_tells_neither_size_nor_time_is_understood() {
    let mut plant = Plant::new();
    let rolls = plant.archives(2);
    plant.serve(&json!({ "unknown": ["MLSD", "SIZE", "MDTM"] }));
    plant.values(with(&json!({}))).await;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    assert_eq!(plant.values(with(&json!({}))).await["files_now"], json!(0));
}

#[tokio::test]
async fn names_in_gbk_are_understood_and_wrong_ones_refused() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives(1);
    rolls.retain(|roll| roll.film == Film::Pva);
    plant.put(Film::Pva, "检测报告（二）.zip", &archive(&rolls[0]).unwrap());
    fs::remove_file(plant.path("ftp/cloudin_pva/2018/07/25").join(&rolls[0].archive)).unwrap();
    plant.serve(&json!({ "encoding": "gbk" }));
    let wrong = plant.values(with(&json!({ "sources": [{ "name": "pva", "encoding": "utf8" }] }))).await;
    assert_eq!((&wrong["refused"], &wrong["rolls"]), (&json!(1), &json!(0)));
    let right = plant.values(with(&json!({ "sources": [{ "name": "pva", "encoding": "gbk" }] }))).await;
    assert_eq!(right["rolls"], json!(1));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_and_without_the_password() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    plant.serve(&json!({}));
    let mut context = plant.context();
    let mut wrong = plant.connections()["pva"].clone();
    wrong.password = millrace_common::secret::Secret::new("wrong-but-secret".to_owned());
    context.connections.insert("pva".to_owned(), wrong);
    let with = serde_json::from_value(with(&json!({}))).unwrap();
    let error = millrace_kinds::aoi::run(with, &context).await.expect_err("the login is refused");
    let source = std::error::Error::source(&error).unwrap();
    let message = format!("{error}: {source} {error:?}");
    assert!(message.contains("[connections.pva]") && message.contains("cloudin_pva"), "{message}");
    assert!(!message.contains("wrong-but-secret") && !message.contains(PASSWORD), "{message}");
    let logins = plant.commands().iter().filter(|line| line.as_str() == "USER cloudin_pva").count();
    assert_eq!(logins, 1, "a refused login is not tried again: accounts get locked");
    let psa: Vec<Roll> = rolls.into_iter().filter(|roll| roll.film == Film::Psa).collect();
    assert_eq!(stored_rows(&plant).await, expected(&psa), "the other source is ingested");
}

#[tokio::test]
async fn an_empty_day_fails_skips_or_succeeds() {
    let mut plant = Plant::new();
    plant.serve(&json!({}));
    for stages in [json!(["mirror", "unpack", "load"]), json!(["unpack"]), json!(["load"])] {
        let with = |on_empty| with(&json!({ "stages": stages, "on_empty": on_empty }));
        let message = plant.failure(with("fail")).await;
        assert!(message.contains("no file for 2018-07-25"), "{message}");
        assert_eq!(plant.ingest(with("skip")).await.unwrap().outcome, Outcome::Skipped);
        assert_eq!(plant.ingest(with("ok")).await.unwrap().outcome, Outcome::Done);
    }
    fs::create_dir_all(plant.path("ftp/cloudin_pva/2018/07/25")).unwrap();
    assert!(
        plant.failure(with(&json!({}))).await.contains("no file for"),
        "an empty folder is no file either"
    );
    plant.archives(1);
    assert_eq!(plant.ingest(with(&json!({ "on_empty": "skip" }))).await.unwrap().outcome, Outcome::Done);
}

#[tokio::test]
async fn late_files_of_earlier_days_are_found() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives_of(DAY.pred_opt().unwrap(), 1);
    rolls.extend(plant.archives(1));
    plant.serve(&json!({}));
    let alone = plant.values(with(&json!({}))).await;
    assert_eq!((&alone["rolls"], &alone["late"]), (&json!(2), &json!(0)));
    let values = plant.values(with(&json!({ "lookback_days": 3 }))).await;
    assert_eq!((&values["files"], &values["late"], &values["rolls"]), (&json!(2), &json!(2), &json!(4)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    assert_eq!(plant.values(with(&json!({ "lookback_days": 3 }))).await["late"], json!(0));
}

#[tokio::test]
async fn a_store_that_was_emptied_is_filled_again() {
    let mut plant = Plant::new();
    let rolls = plant.archives(2);
    plant.serve(&json!({}));
    plant.values(with(&json!({}))).await;
    fs::remove_dir_all(plant.path("state/store")).unwrap();
    fs::remove_file(plant.path("aoi.db")).unwrap();
    let values = plant.values(with(&json!({}))).await;
    assert_eq!((&values["files_now"], &values["rolls_now"]), (&json!(4), &json!(4)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
}

#[tokio::test]
async fn old_days_leave_the_store_and_stay_in_the_database() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives_of(DAY.pred_opt().unwrap(), 1);
    rolls.extend(plant.archives(1));
    plant.serve(&json!({}));
    plant.values(with(&json!({ "lookback_days": 1, "keep_days": 1 }))).await;
    assert_eq!(plant.stored("archives").len(), 4);
    plant.values(with(&json!({ "keep_days": 0 }))).await;
    let archives = plant.stored("archives");
    assert!(archives.len() == 2 && archives.iter().all(|path| path.contains("2018/07/25")), "{archives:?}");
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    assert!(plant.failure(with(&json!({ "lookback_days": 2, "keep_days": 1 }))).await.contains("keep_days"));
}

#[tokio::test]
async fn a_folder_is_a_source_too() {
    let plant = Plant::new();
    let mut rolls = plant.archives(2);
    rolls.retain(|roll| roll.film == Film::Psa);
    let share = plant.path("ftp/cloudin_psa");
    std::os::unix::fs::symlink("/etc/passwd", share.join("2018/07/25/link.zip")).unwrap();
    let source = json!([{ "name": "psa", "folder": share, "encoding": "gbk" }]);
    for _ in 0..2 {
        let values = plant.values(with(&json!({ "sources": source }))).await;
        assert_eq!((&values["files"], &values["rolls"]), (&json!(2), &json!(2)));
        assert_eq!(stored_rows(&plant).await, expected(&rolls));
    }
    let missing = json!([{ "name": "psa", "folder": plant.path("nowhere") }]);
    assert!(plant.failure(with(&json!({ "sources": missing }))).await.contains("nowhere"));
}

#[tokio::test]
async fn a_home_folder_and_a_pattern_lead_to_the_dated_folders() {
    let mut plant = Plant::new();
    let mut rolls = plant.archives(1);
    rolls.retain(|roll| roll.film == Film::Pva);
    let deep = plant.path("ftp/cloudin_pva/film line/aoi");
    fs::create_dir_all(&deep).unwrap();
    fs::rename(plant.path("ftp/cloudin_pva/2018/07/25"), deep.join("20180725")).unwrap();
    plant.serve(&json!({}));
    let source = |home| json!([{ "name": "pva", "home": home, "path": "%Y%m%d", "encoding": "gbk" }]);
    plant.values(with(&json!({ "sources": source("/film line/aoi") }))).await;
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    let message = plant.failure(with(&json!({ "sources": source("/film line/xyz") }))).await;
    assert!(message.contains("/film line/xyz") && message.contains("there is no folder"), "{message}");
}

#[tokio::test]
async fn unreadable_defects_are_counted_up_to_the_limit() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    let list = "Defect ID;Defect Class;Severity;cdAbsBoxCenter;cdBoxCenter;length;mdAbsBoxCenter;mdBoxCenter;size;width;Time\n\
        1;a;1;1;1;1;1;1;1;1;-\n2;a;1;wide;1;1;1;1;1;1;-\nx;a;1;1;1;1;1;1;1;1;-\n";
    let report = zipped(&[
        ("r/header.csv", b"Roll:;AAA;Roll Start:;2018-07-25 00:00:00"),
        ("r/defectlist.csv", list.as_bytes()),
    ]);
    plant.put(Film::Pva, "dirty.zip", &report);
    plant.serve(&json!({}));
    let limited = |limit: Value| with(&json!({ "load": { "error_limit": limit } }));
    for limit in [json!({}), json!({ "record": 1 })] {
        let message = plant.failure(limited(limit)).await;
        assert!(message.contains("load.error_limit") && message.contains("AAA"), "{message}");
        assert!(
            stored_rows(&plant).await.iter().all(|row| row.0[0] != "AAA"),
            "no part of the roll is written"
        );
    }
    let message = plant.failure(limited(json!({ "percentage": 0.001 }))).await;
    assert!(message.contains("2 of "), "{message}");
    let values = plant.values(limited(json!({ "record": 2 }))).await;
    assert_eq!((&values["dirty"], &values["rolls"]), (&json!(2), &json!(3)));
    assert_eq!(values["defects"], json!(defects(&rolls) + 1));
}

#[tokio::test]
async fn tables_that_are_missing_or_ambiguous_are_told() {
    let mut plant = Plant::new();
    let rolls = plant.archives(1);
    plant.serve(&json!({}));
    let message = plant.failure(with(&json!({ "load": { "create_tables": false } }))).await;
    assert!(message.contains("pieces_process3") && message.contains("no such table"), "{message}");
    plant.values(with(&json!({}))).await;
    let double =
        "CREATE TABLE twice AS SELECT * FROM pieces_process3 UNION ALL SELECT * FROM pieces_process3";
    sqlite(&plant.connections()["aoi"], double).await;
    let message = plant.failure(with(&json!({ "load": { "pieces_table": "twice" } }))).await;
    assert!(
        message.contains("2 rows for roll") && rolls.iter().any(|roll| message.contains(&roll.aoi_no)),
        "{message}"
    );
}

#[tokio::test]
async fn a_command_takes_the_place_of_a_stage() {
    let mut plant = Plant::new();
    let rolls = plant.archives(2);
    plant.serve(&json!({}));
    let copy = "set -eu; for s in $MILLRACE_AOI_SOURCES; do mkdir -p \"$MILLRACE_AOI_ARCHIVES/$s\"; \
        cp -r \"$0/cloudin_$s/.\" \"$MILLRACE_AOI_ARCHIVES/$s\"; done; echo \"$MILLRACE_AOI_DAYS\" > \"$0/days\"";
    let mirror = json!({ "command": ["/bin/sh", "-c", copy, plant.path("ftp")] });
    let values = plant.values(with(&json!({ "mirror": mirror }))).await;
    assert_eq!((&values["files"], &values["archives"], &values["rolls"]), (&json!(0), &json!(4), &json!(4)));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    assert_eq!(fs::read_to_string(plant.path("ftp/days")).unwrap(), "2018-07-25\n");
    assert!(plant.commands().is_empty(), "the server is not asked");
    let message = plant.failure(with(&json!({ "unpack": { "command": ["/bin/false"] } }))).await;
    assert!(message.contains("/bin/false") && message.contains("stage unpack"), "{message}");
}

#[tokio::test]
async fn a_command_gets_its_connections_on_standard_input_only() {
    let plant = Plant::new();
    let check = "set -eu; cat > \"$0/input\"; tr '\\0' '\\n' < /proc/self/environ > \"$0/environ\"; echo \"$@\" > \"$0/argv\"";
    let load = json!({ "command": ["/bin/sh", "-c", check, plant.path("work")], "connection": "aoi" });
    plant.values(with(&json!({ "stages": ["load"], "load": load }))).await;
    let input: Value = serde_json::from_slice(&fs::read(plant.path("work/input")).unwrap()).unwrap();
    assert_eq!(input["connections"]["pva"]["password"], json!(PASSWORD));
    for file in ["environ", "argv"] {
        assert!(!fs::read_to_string(plant.path("work").join(file)).unwrap().contains(PASSWORD), "{file}");
    }
}

/// The environment variable that makes the test below the process of an attempt.
const PROCESS: &str = "MILLRACE_TEST_AOI_VALUES";

/// Starts an attempt in a process of its own, as the executor does.
fn process(payload: &[u8], values: &std::path::Path) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_without_a_payload_says_so", "--nocapture"])
        .env(PROCESS, values)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(payload).unwrap();
    child
}

#[test]
fn a_process_without_a_payload_says_so() {
    if let Some(values) = std::env::var_os(PROCESS) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        std::process::exit(runtime.block_on(run_kind(Some(values.into()))));
    }
    let folder = tempfile::tempdir().unwrap();
    let output = process(b"", &folder.path().join("values")).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(millrace_kinds::run::EXIT_PAYLOAD));
    assert!(String::from_utf8_lossy(&output.stderr).contains("payload"));
}

#[tokio::test]
async fn an_attempt_that_was_killed_is_continued_by_the_next() {
    let mut plant = Plant::new();
    let rolls = plant.archives(3);
    let largest = rolls.iter().rfind(|roll| roll.film == Film::Pva).unwrap();
    let size = pad(&plant, largest, 3_000_000);
    plant.serve(&json!({ "freeze_after": 1_000_000 }));
    let payload = |plant: &Plant| {
        let context = plant.context();
        serde_json::to_vec(&Payload {
            kind: "aoi".to_owned(),
            with: with(&json!({ "mirror": { "parallel": 1, "timeout": "60s" } })),
            connections: context.connections,
            work_dir: context.work_dir,
            state_dir: context.state_dir,
            settings: Value::Null,
        })
        .unwrap()
    };
    let mut killed = process(&payload(&plant), &plant.path("values"));
    let part = plant.path(format!(
        "state/store/archives/pva/2018/07/25/.{}.zip.part",
        largest.archive.trim_end_matches(".zip").trim_end_matches("_zip")
    ));
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&part).map_or(0, |metadata| metadata.len()) < 900_000 {
        assert!(Instant::now() < deadline, "the transfer does not get to the middle of {}", part.display());
        thread::sleep(Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    plant.serve(&json!({}));
    let output = process(&payload(&plant), &plant.path("values")).wait_with_output().unwrap();
    let log =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(millrace_kinds::run::EXIT_DONE), "{log}");
    assert!(!log.contains(PASSWORD));
    assert_eq!(stored_rows(&plant).await, expected(&rolls));
    let values: Value = serde_json::from_slice(&fs::read(plant.path("values")).unwrap()).unwrap();
    assert_eq!((&values["rolls"], &values["files"]), (&json!(6), &json!(6)));
    let offsets: Vec<u64> =
        plant.commands().iter().filter_map(|line| line.strip_prefix("REST ")?.parse().ok()).collect();
    assert!(offsets.len() == 1 && (900_000..size).contains(&offsets[0]), "{offsets:?}");
}
