use std::{fs::File, io::Read as _, os::fd::AsFd as _, path::Path};

use super::*;

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn program(argv: &[&str], cwd: &Path) -> Rc<Program> {
    Rc::new(Program {
        path: text(argv[0]),
        argv: argv.iter().map(|argument| text(argument)).collect(),
        env: vec![text("ONLY=this")],
        cwd: text(cwd.to_str().unwrap()),
    })
}

/// Starts a program and returns its exit status and what it wrote.
fn run(argv: &[&str], cwd: &Path) -> Result<(ExitStatus, String), Failure> {
    let (input, output) = (File::open("/dev/null").unwrap(), tempfile::tempfile().unwrap());
    let streams = Streams { input: input.as_fd(), output: output.as_fd() };
    let mut spawner = Spawner::default();
    let child = spawner.spawn(&program(argv, cwd), streams, None)?;
    let status = wait_for(child.pid);
    if let Some(failure) = spawner.failure(child) {
        return Err(failure);
    }
    let mut text = String::new();
    let mut output = output;
    io::Seek::rewind(&mut output).unwrap();
    output.read_to_string(&mut text).unwrap();
    Ok((status, text))
}

fn wait_for(pid: i32) -> ExitStatus {
    let mut status = 0;
    // SAFETY: waits for a child of this test.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    ExitStatus::from_raw(status)
}

#[test]
fn a_process_has_what_it_was_given_and_nothing_else() {
    keep_descriptors().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = "pwd; env | sort; ls /proc/$$/fd; echo error >&2; cat; exit 7";
    let (status, text) = run(&["/bin/sh", "-c", script], folder.path()).unwrap();
    assert_eq!(status.code(), Some(7));
    let folder = folder.path().canonicalize().unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("OLDPWD")).collect();
    assert_eq!(lines[0], folder.to_str().unwrap());
    assert!(lines.contains(&"ONLY=this") && lines.contains(&"error"), "{text}");
    let descriptors: Vec<&&str> = lines.iter().filter(|line| line.parse::<u32>().is_ok()).collect();
    assert!(descriptors.iter().all(|number| number.parse::<u32>().unwrap() < 3), "{text}");
}

#[test]
fn a_process_leads_its_group_and_has_no_signal_blocked_or_ignored() {
    let script = "cat /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo pid $$";
    let (_, text) = run(&["/bin/sh", "-c", script], Path::new("/")).unwrap();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(value("SigBlk:"), "0000000000000000");
    let ignored = u64::from_str_radix(&value("SigIgn:"), 16).unwrap();
    let counted_on = [1, 2, 3, 13, 15, 17].map(|number| 1_u64 << (number - 1)).iter().sum::<u64>();
    assert_eq!(ignored & counted_on, 0, "{ignored:x}");
    let pid = value("pid ");
    assert!(text.lines().any(|line| line == pid), "{text}");
}

#[test]
fn what_fails_says_at_which_step_and_leaves_nothing() {
    let missing = run(&["/no/such/program"], Path::new("/")).unwrap_err();
    assert_eq!((missing.step, missing.source.kind()), (Step::Load, io::ErrorKind::NotFound));
    let folder = run(&["/bin/true"], Path::new("/no/such/folder")).unwrap_err();
    assert_eq!((folder.step, folder.source.kind()), (Step::Folder, io::ErrorKind::NotFound));
}

#[test]
fn a_note_is_used_again_and_holds_nothing_of_the_child_before() {
    let mut spawner = Spawner::default();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let streams = Streams { input: null.as_fd(), output: null.as_fd() };
    for _ in 0..3 {
        let child = spawner.spawn(&program(&["/no/such"], Path::new("/")), streams, None).unwrap();
        wait_for(child.pid);
        assert!(spawner.failure(child).is_some());
        let child = spawner.spawn(&program(&["/bin/true"], Path::new("/")), streams, None).unwrap();
        wait_for(child.pid);
        assert!(spawner.failure(child).is_none());
    }
}

#[test]
fn a_process_dies_with_the_thread_that_started_it() {
    let pid = std::thread::spawn(|| {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let streams = Streams { input: null.as_fd(), output: null.as_fd() };
        let sleep = program(&["/bin/sleep", "1000"], Path::new("/"));
        let pid = Spawner::default().spawn(&sleep, streams, None).unwrap().pid;
        // Its program runs once it has asked for the signal; a thread that ends before that is not its concern.
        let comm = format!("/proc/{pid}/comm");
        let has_begun = (0..10_000_000).any(|_| {
            std::thread::yield_now();
            std::fs::read_to_string(&comm).unwrap().trim() == "sleep"
        });
        assert!(has_begun);
        pid
    })
    .join()
    .unwrap();
    assert_eq!(wait_for(pid).signal(), Some(libc::SIGKILL));
}

#[test]
fn each_of_many_that_are_started_at_once_gets_its_own_plan() {
    let mut spawner = Spawner::default();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let streams = Streams { input: null.as_fd(), output: null.as_fd() };
    let mut start = |number: usize| {
        let exit = format!("exit {}", number % 100);
        let argv = ["/no/such/program", "/bin/sh"].map(|path| [path, "-c", &exit]);
        let child = spawner.spawn(&program(&argv[number % 2], Path::new("/")), streams, None).unwrap();
        (number, child)
    };
    let children: Vec<_> = (0..400).map(&mut start).collect();
    for (number, child) in children {
        let code = wait_for(child.pid).code();
        let failure = spawner.failure(child);
        assert_eq!(failure.is_some(), number % 2 == 0);
        assert_eq!(code, Some(if number % 2 == 0 { 127 } else { i32::try_from(number % 100).unwrap() }));
    }
}
