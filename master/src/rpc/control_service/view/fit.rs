//! Makes views fit into a message: what is least likely to be read goes first. Sizes are estimates, never too low.

use millrace_proto::{MESSAGE_BYTES_MAX, v1};

/// Bytes that a view may have.
const VIEW_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (64 << 10);
/// Bytes around a text: its tag, its length, and its share of what it stands in.
pub(super) const FRAME_BYTES: usize = 24;
/// Bytes of the numbers and states of an attempt or a task.
const ROW_BYTES: usize = 128;
/// Bytes of a reason in a view that would be too large otherwise.
const REASON_BYTES: usize = 200;

/// Makes a run fit: without values, then without descriptions, then with shorter reasons, then with the last attempts only, then without any.
pub(super) fn run(view: &mut v1::GetRunResponse) {
    let steps: [fn(&mut v1::TaskView); 5] = [
        |task| task.values.clear(),
        |task| task.description.clear(),
        |task| task.attempts.iter_mut().for_each(shorten),
        |task| drop(task.attempts.drain(..task.attempts.len().saturating_sub(1))),
        |task| task.attempts.clear(),
    ];
    for step in steps {
        if view.tasks.iter().map(task_bytes).sum::<usize>() <= VIEW_BYTES_MAX {
            return;
        }
        view.tasks.iter_mut().for_each(step);
    }
}

fn task_bytes(task: &v1::TaskView) -> usize {
    let attempts = task.attempts.iter().map(|one| ROW_BYTES + one.executor.len() + one.reason.len());
    let texts = task.name.len() + task.kind.len() + task.description.len() + task.values.len();
    // A number of the graph has five bytes at most.
    ROW_BYTES + texts + task.upstream.len() * 5 + attempts.sum::<usize>()
}

fn shorten(attempt: &mut v1::AttemptView) {
    let end = (0..=REASON_BYTES).rev().find(|at| attempt.reason.is_char_boundary(*at)).unwrap_or(0);
    attempt.reason.truncate(end);
}

/// Takes the items of a list that fit, whose texts have as many bytes as `texts` says.
pub(super) fn list<T>(items: impl Iterator<Item = T>, texts: impl Fn(&T) -> usize) -> Vec<T> {
    let mut left = VIEW_BYTES_MAX;
    items
        .take_while(|item| {
            let bytes = ROW_BYTES + texts(item);
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(tasks: usize, attempts: u32, reason: usize, values: usize) -> v1::GetRunResponse {
        let attempt =
            |number| v1::AttemptView { number, reason: "é".repeat(reason / 2), ..Default::default() };
        let task = v1::TaskView {
            name: "t".repeat(100),
            values: "v".repeat(values),
            attempts: (1..=attempts).map(attempt).collect(),
            ..Default::default()
        };
        v1::GetRunResponse { run: None, tasks: vec![task; tasks] }
    }

    /// What is left of a view: bytes of values, of a reason, and attempts of each task.
    fn left(mut view: v1::GetRunResponse) -> (usize, usize, usize) {
        run(&mut view);
        assert!(view.tasks.iter().map(task_bytes).sum::<usize>() <= VIEW_BYTES_MAX);
        let task = &view.tasks[0];
        (task.values.len(), task.attempts.first().map_or(0, |one| one.reason.len()), task.attempts.len())
    }

    #[test]
    fn a_run_gives_up_what_is_read_least() {
        assert_eq!(left(view(100, 2, 2_000, 10_000)), (10_000, 2_000, 2));
        assert_eq!(left(view(200, 2, 2_000, 60_000)), (0, 2_000, 2));
        assert_eq!(left(view(10_000, 1, 2_000, 0)), (0, 200, 1));
        assert_eq!(left(view(10_000, 3, 2_000, 0)), (0, 200, 1));
        assert_eq!(left(view(20_000, 1, 2_000, 0)), (0, 0, 0));
    }

    #[test]
    fn a_list_ends_where_the_message_is_full() {
        let texts = std::iter::repeat_n("x".repeat(1 << 20), 20);
        assert_eq!(list(texts, String::len).len(), 7);
    }
}
