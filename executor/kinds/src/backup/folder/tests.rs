//! What a folder keeps, deletes and leaves alone.

use std::collections::BTreeMap;

use millrace_common::kind::backup::{BackupTool, BackupWith};
use serde_json::{Value, json};

use super::*;

fn context(folder: &Path) -> Context {
    let (work_dir, state_dir) = (folder.join("work"), folder.join("state"));
    Context { connections: BTreeMap::new(), work_dir, state_dir, settings: Value::Null }
}

fn plan(more: &Value) -> Plan {
    let mut with = json!({ "connection": "mes" });
    with.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    Plan::try_from(serde_json::from_value::<BackupWith>(with).expect("parameters")).expect("a plan")
}

fn day(day: u32) -> DateTime<Utc> {
    format!("2026-05-{day:02}T02:30:00Z").parse().expect("a time")
}

async fn save(folder: &Folder<'_>, day: DateTime<Utc>, plan: &Plan, ctx: &Context) -> Saved {
    let mut archive = folder.start(plan.codec, "sql", day).expect("started");
    archive.write(b"-- a dump\n").expect("written");
    let facts = Facts::new(BackupTool::Mysqldump, "11".into(), Vec::new());
    folder.keep(archive.seal().await.expect("sealed"), day, facts, plan, ctx).expect("kept")
}

fn listing(folder: &Folder<'_>) -> Vec<String> {
    let names = fs::read_dir(&folder.path).expect("the folder");
    let mut names: Vec<String> =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_has_a_manifest_and_two_of_one_second_have_two_names() {
    let root = tempfile::tempdir().expect("a folder");
    let (ctx, plan, database) =
        (context(root.path()), plan(&json!({})), Database::parse("mes").expect("a name"));
    let folder = Folder::open(root.path(), &database, &ctx).expect("opened");
    save(&folder, day(1), &plan, &ctx).await;
    let second = save(&folder, day(1), &plan, &ctx).await;
    assert_eq!(
        listing(&folder),
        [
            "mes_20260501T023000Z-1.sql.zst",
            "mes_20260501T023000Z-1.sql.zst.json",
            "mes_20260501T023000Z.sql.zst",
            "mes_20260501T023000Z.sql.zst.json",
        ]
    );
    let text = fs::read_to_string(with_suffix(&second.file, MANIFEST)).expect("the manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&manifest["format"], &manifest["bytes"], &manifest["tool"]),
        (&json!(1), &json!(10), &json!("mysqldump"))
    );
    assert_eq!(manifest["compressed_bytes"], json!(fs::metadata(&second.file).expect("the file").len()));
    assert_eq!(folder.backups().expect("read").0.len(), 2);
}

#[tokio::test]
async fn the_retention_deletes_backups_with_their_manifests_and_nothing_else() {
    let root = tempfile::tempdir().expect("a folder");
    let ctx = context(root.path());
    let database = Database::parse("mes").expect("a name");
    let folder = Folder::open(root.path(), &database, &ctx).expect("opened");
    let all = plan(&json!({}));
    for number in 1..=4 {
        save(&folder, day(number), &all, &ctx).await;
    }
    let strange = ["mes_20260401T000000Z.sql.zst", "mes_broken.json", "notes.json", "mes_readme.txt"];
    for name in strange {
        fs::write(folder.path.join(name), "{}").expect("written");
    }
    let dry =
        save(&folder, day(5), &plan(&json!({ "retention": { "keep_last": 2, "dry_run": true } })), &ctx)
            .await;
    assert_eq!((dry.deleted, listing(&folder).len()), (0, 10 + strange.len()));
    let saved = save(&folder, day(6), &plan(&json!({ "retention": { "keep_last": 2 } })), &ctx).await;
    assert_eq!(saved.deleted, 4);
    let left = listing(&folder);
    assert_eq!(left.len(), 4 + strange.len(), "{left:?}");
    assert!(strange.iter().all(|name| left.contains(&(*name).to_owned())), "{left:?}");
    assert!(left.contains(&"mes_20260506T023000Z.sql.zst.json".to_owned()), "{left:?}");
}

#[tokio::test]
async fn a_damaged_backup_does_not_take_the_place_of_a_good_one() {
    let root = tempfile::tempdir().expect("a folder");
    let ctx = context(root.path());
    let database = Database::parse("mes").expect("a name");
    let folder = Folder::open(root.path(), &database, &ctx).expect("opened");
    let all = plan(&json!({}));
    let good = save(&folder, day(1), &all, &ctx).await;
    let cut = save(&folder, day(2), &all, &ctx).await;
    fs::write(&cut.file, "cut").expect("spoilt");
    let gone = save(&folder, day(3), &all, &ctx).await;
    fs::remove_file(&gone.file).expect("removed");
    let found = folder.backups().expect("read").0;
    assert_eq!(found.iter().map(|entry| entry.started).collect::<Vec<_>>(), [day(1)]);
    assert_eq!(folder.prune(&Retention { keep_last: 1, ..Retention::default() }, &ctx).expect("pruned"), 0);
    assert!(good.file.exists() && cut.file.exists());
}

#[tokio::test]
async fn a_manifest_that_names_a_file_elsewhere_deletes_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let ctx = context(root.path());
    let database = Database::parse("mes").expect("a name");
    let folder = Folder::open(root.path(), &database, &ctx).expect("opened");
    let victim = root.path().join("victim");
    fs::write(&victim, "precious").expect("written");
    for name in ["../victim", "../../etc/passwd", &victim.display().to_string()] {
        let evil = json!({ "database": "mes", "file": name, "started": day(1), "compressed_bytes": 8 });
        fs::write(folder.path.join("mes_20260401T000000Z.sql.zst.json"), evil.to_string()).expect("written");
        save(&folder, day(2), &plan(&json!({ "retention": { "keep_last": 1 } })), &ctx).await;
        assert_eq!(fs::read_to_string(&victim).expect("the file"), "precious");
    }
}

#[test]
fn only_abandoned_unfinished_files_are_removed() {
    let root = tempfile::tempdir().expect("a folder");
    let ctx = context(root.path());
    let database = Database::parse("mes").expect("a name");
    let folder = Folder::open(root.path(), &database, &ctx).expect("opened");
    for (name, hours) in
        [("mes_old.sql.zst.tmp", 25), ("mes_young.sql.zst.tmp", 23), ("other.tmp", 99), ("mes_old.sql", 99)]
    {
        let file = File::create(folder.path.join(name)).expect("created");
        file.set_modified(SystemTime::from(now()) - Duration::from_hours(hours)).expect("aged");
    }
    Folder::open(root.path(), &database, &ctx).expect("opened");
    assert_eq!(listing(&folder), ["mes_old.sql", "mes_young.sql.zst.tmp", "other.tmp"]);
}

#[test]
fn a_target_whose_parent_is_missing_is_refused() {
    let root = tempfile::tempdir().expect("a folder");
    let settings = Settings::default();
    let missing = root.path().join("mnt/nas");
    let error = target(&plan(&json!({ "target": missing })), &settings, root.path()).expect_err("refused");
    assert!(error.to_string().contains("mnt/nas"), "{error}");
    let there = root.path().join("nas");
    assert_eq!(target(&plan(&json!({ "target": there })), &settings, root.path()).expect("made"), there);
    assert_eq!(target(&plan(&json!({})), &settings, root.path()).expect("made"), root.path().join("mes"));
    let settings = Settings { target: Some(root.path().join("site")), ..settings };
    assert_eq!(
        target(&plan(&json!({})), &settings, root.path()).expect("made"),
        root.path().join("site/mes")
    );
}

#[tokio::test]
async fn the_last_backup_tells_the_space_that_is_needed() {
    let root = tempfile::tempdir().expect("a folder");
    let ctx = context(root.path());
    let database = Database::parse("mes").expect("a name");
    let folder = Folder::open(root.path(), &database, &ctx).expect("opened");
    folder.ensure_space(0, 0).expect("enough");
    let saved = save(&folder, day(1), &plan(&json!({})), &ctx).await;
    let huge = u64::MAX / 4;
    let mut manifest: Value =
        serde_json::from_str(&fs::read_to_string(with_suffix(&saved.file, MANIFEST)).expect("read"))
            .expect("JSON");
    manifest["compressed_bytes"] = json!(huge);
    fs::write(with_suffix(&saved.file, MANIFEST), manifest.to_string()).expect("written");
    folder.ensure_space(0, 0).expect("a damaged backup tells nothing");
    let error = folder.ensure_space(u64::MAX, 0).expect_err("not enough");
    assert!(matches!(error, BackupError::NoSpace { needed: u64::MAX, .. }), "{error}");
}
