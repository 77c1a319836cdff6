use millrace_common::definition::parse;
use std::time::Instant;
#[test]
fn times() {
    for (name, text) in [
        ("dups", format!("{{{}}}", "a: 1, ".repeat(150_000))),
        ("after", format!("workflow: w\ntasks: {{ a: {{ kind: shell, after: [{}] }} }}", "a, nobody, ".repeat(150_000))),
        ("keys", (0..150_000).map(|at| format!("key{at}: 1\n")).collect::<String>()),
        ("longkey", format!("workflow: w\ntasks: {{ a: {{ kind: shell, with: {{ {}: 1 }} }} }}", "k".repeat(1_000))),
        ("longkey2", format!("{}: 1", "k".repeat(1_000))),
        ("longname", format!("workflow: {}", "k".repeat(3_000_000))),
        ("flat list", format!("a: [{}]", "1,".repeat(300_001))),
        ("block", (0..300_000).map(|_| "- a\n").collect::<String>()),
        ("10k", {
            let mut d = "workflow: w\ntasks:\n".to_owned();
            for at in 0..10_000 { d += &format!("  task_{at}:\n    kind: shell\n    after: [task_{}]\n    timeout: 2h\n    with:\n      command: [./run.sh, \"{{{{ ds }}}}\", --verbose]\n      env: {{ A: b, ROWS: \"{{{{ params.n }}}}\" }}\n", if at == 0 { "x".into() } else { (at-1).to_string() }); }
            d.replace("[task_x]", "[]").replace("tasks:\n", "params: { n: 1 }\ntasks:\n")
        }),
    ] {
        let at = Instant::now();
        let r = parse(&text);
        println!("{name}: {} bytes {:?} {}", text.len(), at.elapsed(), r.map(|w| w.tasks.len().to_string()).unwrap_or_else(|e| e.problems[0].to_string().chars().take(90).collect()));
    }
}
