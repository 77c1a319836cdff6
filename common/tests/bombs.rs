//! Documents that are made to cost much. Each is refused, or read, after work that is bounded by the limits; without them
//! a test here would not end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use millrace_common::{
    definition::{Problem, parse},
    limits::{DOCUMENT_BYTES_MAX, PROBLEMS_MAX, TASKS_MAX},
};

/// The one problem of a document that is given up.
fn only(text: &str) -> Problem {
    let mut problems = parse(text).unwrap_err().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

fn message(text: &str) -> String {
    only(text).message
}

const TOO_DEEP: &str = "the document is nested deeper than 64 levels";
const TOO_MUCH: &str = "aliases repeat too much, at most 20000 values and 4194304 bytes";

#[test]
fn nesting_is_bounded() {
    for unit in ["[", "{", "[[{", "- ", "{a: ", "[a: ", "\"a\": [", "!!str [", "? [", "&a ["] {
        for count in [1_000, 100_000, DOCUMENT_BYTES_MAX / unit.len()] {
            let problem = only(&unit.repeat(count));
            assert!(
                problem.message == TOO_DEEP
                    || problem.message.contains("tag")
                    || problem.message.contains("key")
                    || problem.message.starts_with("this is not YAML"),
                "{unit}: {problem:?}"
            );
        }
    }
    assert_eq!(message(&"[".repeat(100_000)), TOO_DEEP);
    assert_eq!(message(&"- ".repeat(100_000)), TOO_DEEP);
    let indented: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(message(&indented), TOO_DEEP);
}

#[test]
fn a_billion_laughs_are_not_laughed() {
    let mut bomb = "l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        let below = vec![format!("*l{}", level - 1); 10].join(", ");
        writeln!(bomb, "l{level}: &l{level} [{below}]").unwrap();
    }
    assert_eq!(message(&bomb), TOO_MUCH);
}

#[test]
fn long_texts_are_not_repeated_for_ever() {
    let bomb = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(19_000));
    assert_eq!(message(&bomb), TOO_MUCH);
    let keys = format!("a: &a {}\nb:\n{}", "x".repeat(1 << 20), "  - *a : 1\n".repeat(19_000));
    assert_eq!(message(&keys), TOO_MUCH);
}

#[test]
fn merge_keys_are_bounded_like_aliases() {
    let mut bomb = "m0: &m0 { k: 1 }\n".to_owned();
    for level in 1..5_000 {
        writeln!(bomb, "m{level}: &m{level} {{ <<: *m{}, k{level}: 1 }}", level - 1).unwrap();
    }
    assert_eq!(message(&bomb), TOO_MUCH);
}

#[test]
fn aliases_cannot_nest_deeper_than_a_document() {
    let mut bomb = format!("a0: &a0 {}1{}\n", "[".repeat(40), "]".repeat(40));
    for level in 1..10 {
        writeln!(bomb, "a{level}: &a{level} {}*a{}{}", "[".repeat(10), level - 1, "]".repeat(10)).unwrap();
    }
    assert_eq!(message(&bomb), TOO_DEEP);
    assert_eq!(message("a: &a [*a]"), "the alias refers to a value that it is a part of");
}

#[test]
fn sizes_are_bounded() {
    let document = "x".repeat(DOCUMENT_BYTES_MAX + 1);
    assert_eq!(message(&document), "the document has 4194305 bytes, at most 4194304 are read");
    let values = format!("a: [{}]", "1,".repeat(400_001));
    assert_eq!(message(&values), "the document has more than 400000 values");
    let tasks: String =
        (0..=TASKS_MAX).map(|at| format!("  t{at}: {{ kind: shell, with: {{ script: x }} }}\n")).collect();
    assert_eq!(message(&format!("workflow: big\ntasks:\n{tasks}")), "a workflow has at most 10000 tasks");
}

#[test]
fn repeated_mistakes_are_counted_up_to_a_bound() {
    for text in [
        format!("{{{}}}", "a: 1, ".repeat(40_000)),
        format!("workflow: w\ntasks: {{ a: {{ kind: shell, after: [{}] }} }}", "a, nobody, ".repeat(40_000)),
        (0..40_000).map(|at| format!("key{at}: 1\n")).collect(),
        format!("workflow: w\ntasks: {{ a: {{ kind: shell, with: {{ {}: 1 }} }} }}", "k".repeat(1_000)),
        format!("{}: 1", "k".repeat(1_000)),
        format!("workflow: {}", "k".repeat(3_000_000)),
    ] {
        let problems = parse(&text).unwrap_err().problems;
        assert!((1..=PROBLEMS_MAX).contains(&problems.len()));
        for problem in problems {
            assert!(problem.message.len() < 2_000 && problem.found.len() < 400, "{problem:?}");
        }
    }
}

#[test]
fn templates_in_one_text_cost_its_length() {
    for unit in
        ["{{", "{{ ds }}", "{% if", "{# ", "{{ 'a' | replace('a', 'b') }}", "{{ ds | upper | ", "{{ '"]
    {
        let text = unit.repeat(1_000_000 / unit.len());
        let document = format!("workflow: w\ntasks: {{ a: {{ kind: x, with: {{ t: \"{text}\" }} }} }}");
        if let Err(rejected) = parse(&document) {
            assert_eq!(rejected.problems.len(), 1, "{unit}");
        }
    }
}

fn shell_tasks(after: impl Fn(usize) -> String, with: impl Fn(usize) -> String, count: usize) -> String {
    let mut document = "workflow: w\ntasks:\n".to_owned();
    for at in 0..count {
        let (after, with) = (after(at), with(at));
        writeln!(document, "  t{at}: {{ kind: shell, after: [{after}], with: {{ script: \"{with}\" }} }}")
            .unwrap();
    }
    document
}

#[test]
fn a_circle_of_all_tasks_is_found() {
    let circle = shell_tasks(|at| format!("t{}", (at + 1) % TASKS_MAX), |_| "x".to_owned(), TASKS_MAX);
    let problem = only(&circle);
    assert!(problem.message.starts_with("tasks wait for each other in a circle: t"), "{problem:?}");
    assert!(problem.message.len() < 400);
}

#[test]
fn dense_circles_are_found() {
    let everyone = (0..600).map(|at| format!("t{at}")).collect::<Vec<_>>();
    let others =
        |at: usize| everyone.iter().filter(|name| **name != format!("t{at}")).cloned().collect::<Vec<_>>();
    let problem = only(&shell_tasks(|at| others(at).join(","), |_| "x".to_owned(), 600));
    assert!(problem.message.starts_with("tasks wait for each other in a circle: t"), "{problem:?}");
}

#[test]
fn values_of_far_tasks_are_found_upstream_in_long_chains() {
    let before = |at: usize| if at == 0 { String::new() } else { format!("t{}", at - 1) };
    let far = |at: usize| format!("{{{{ values.t{}.x | default('-') }}}}", at / 2);
    let chain = shell_tasks(before, |at| if at == 0 { "x".to_owned() } else { far(at) }, 8_000);
    let workflow = parse(&chain).unwrap();
    assert_eq!(workflow.tasks[7_999].value_refs, [3_999]);
}
