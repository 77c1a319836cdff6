//! A picture for a terminal: a line for each task, with the edges beside it in lanes, as version control draws history.
//!
//! A lane is an edge on its way down to a task. Where more lanes are needed than a terminal has room for, the tasks are
//! listed by rank instead, each with what it comes after.

use std::fmt::Write as _;

use super::{Shape, downstream, order};

/// Lanes that a person can still follow.
const LANES_MAX: usize = 16;
/// Upstream tasks that a line of the list names.
const NAMES_MAX: usize = 5;

/// Draws tasks in lanes where that is readable, and as a list where it is not.
pub(super) fn draw(shapes: &[Shape]) -> String {
    Lanes::draw(shapes).unwrap_or_else(|| list(shapes))
}

/// The state of a drawing between two lines.
struct Lanes<'s> {
    shapes: &'s [Shape],
    /// For each lane the task that it leads to; free lanes are reused.
    targets: Vec<Option<usize>>,
    /// Each line with what stands beside it.
    lines: Vec<(String, Option<usize>)>,
}

impl<'s> Lanes<'s> {
    /// Returns `None` where there would be too many lanes.
    fn draw(shapes: &'s [Shape]) -> Option<String> {
        if shapes.iter().filter(|shape| shape.upstream.is_empty()).count() > LANES_MAX {
            return None;
        }
        let downstream = downstream(shapes);
        let mut lanes = Self { shapes, targets: Vec::new(), lines: Vec::new() };
        for at in order(shapes) {
            let lane = lanes.join(at);
            lanes.stand(lane, at);
            lanes.fork(lane, &downstream[at]);
            if lanes.targets.len() > LANES_MAX {
                return None;
            }
        }
        Some(lanes.finish())
    }

    /// Brings all lanes that lead to a task together and returns the lane that the task stands in.
    fn join(&mut self, at: usize) -> usize {
        let arriving: Vec<usize> =
            (0..self.targets.len()).filter(|lane| self.targets[*lane] == Some(at)).collect();
        match arriving.as_slice() {
            [] => {
                self.space();
                self.free_after(None)
            }
            [only] => *only,
            [first, .., last] => {
                self.turn(*first, *last, &arriving, ['┴', '╯']);
                for lane in &arriving[1..] {
                    self.targets[*lane] = None;
                }
                *first
            }
        }
    }

    /// Keeps a task that comes after none apart from the one above it, which would seem to lead to it.
    fn space(&mut self) {
        if !self.lines.is_empty() {
            let cell = |target: &Option<usize>| if target.is_some() { "│ " } else { "  " };
            self.lines.push((self.targets.iter().map(cell).collect(), None));
        }
    }

    /// Draws the line of a task.
    fn stand(&mut self, lane: usize, at: usize) {
        // Even a task that nothing leads to takes its lane.
        self.targets[lane] = Some(at);
        let cell = |(index, target): (usize, &Option<usize>)| match target {
            _ if index == lane => "● ",
            Some(_) => "│ ",
            None => "  ",
        };
        let line = self.targets.iter().enumerate().map(cell).collect();
        self.lines.push((line, Some(at)));
    }

    /// Opens a lane for each task below; the first goes on in the lane of the task itself.
    fn fork(&mut self, lane: usize, below: &[usize]) {
        self.targets[lane] = below.first().copied();
        let mut leaving = vec![lane];
        for down in below.iter().skip(1) {
            let free = self.free_after(Some(lane));
            self.targets[free] = Some(*down);
            leaving.push(free);
            if self.targets.len() > LANES_MAX {
                return;
            }
        }
        if let Some(last) = leaving.iter().copied().max().filter(|last| *last > lane) {
            self.turn(lane, last, &leaving, ['┬', '╮']);
        }
        while self.targets.last().is_some_and(Option::is_none) {
            self.targets.pop();
        }
    }

    /// Draws a line on which lanes between two of them turn; `corners` are those in between and the last one.
    fn turn(&mut self, first: usize, last: usize, turning: &[usize], corners: [char; 2]) {
        let mut line = String::new();
        for (lane, target) in self.targets.iter().enumerate() {
            let is_between = (first..last).contains(&lane);
            line.push(match (turning.contains(&lane), target) {
                (true, _) if lane == first => '├',
                (true, _) if lane == last => corners[1],
                (true, _) => corners[0],
                (false, Some(_)) if is_between => '┼',
                (false, Some(_)) => '│',
                (false, None) if is_between => '─',
                (false, None) => ' ',
            });
            line.push(if is_between { '─' } else { ' ' });
        }
        self.lines.push((line, None));
    }

    /// Returns a lane that leads nowhere, right of another one.
    fn free_after(&mut self, lane: Option<usize>) -> usize {
        let from = lane.map_or(0, |lane| lane + 1);
        let free = (from..self.targets.len()).find(|lane| self.targets[*lane].is_none());
        free.unwrap_or_else(|| {
            self.targets.push(None);
            self.targets.len() - 1
        })
    }

    fn finish(self) -> String {
        let lanes = self.lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let names = self.shapes.iter().map(|shape| shape.name.len()).max().unwrap_or(0);
        let mut picture = String::new();
        for (line, at) in self.lines {
            let line = match at.map(|at| &self.shapes[at]) {
                Some(Shape { name, state, .. }) => {
                    format!("{line:<lanes$}{name:<names$}  {}", state.as_deref().unwrap_or_default())
                }
                None => line,
            };
            let _ = writeln!(picture, "{}", line.trim_end());
        }
        picture
    }
}

/// Lists tasks by rank.
fn list(shapes: &[Shape]) -> String {
    let mut ordered: Vec<&Shape> = shapes.iter().collect();
    ordered.sort_by_key(|shape| shape.rank);
    let width = ordered.iter().map(|shape| shape.name.len()).max().unwrap_or(0);
    let mut picture = String::new();
    for shape in ordered {
        let state = shape.state.as_ref().map_or_else(String::new, |state| format!("  {state:<16}"));
        let line = format!("{:>3}  {:<width$}{state}{}", shape.rank + 1, shape.name, after(shape, shapes));
        let _ = writeln!(picture, "{}", line.trim_end());
    }
    picture
}

fn after(shape: &Shape, shapes: &[Shape]) -> String {
    let names: Vec<&str> =
        shape.upstream.iter().take(NAMES_MAX).map(|up| shapes[*up].name.as_str()).collect();
    match shape.upstream.len().saturating_sub(NAMES_MAX) {
        _ if names.is_empty() => String::new(),
        0 => format!("  ← {}", names.join(", ")),
        more => format!("  ← {} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{diamond, workflow},
        *,
    };

    #[test]
    fn branches_leave_a_task_and_come_together_again() {
        assert_eq!(
            draw(&diamond()),
            "\
●   a
├─╮
● │ b
│ ● c
├─╯
●   d
"
        );
    }

    #[test]
    fn an_edge_past_other_tasks_keeps_its_lane() {
        let shapes =
            workflow(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a", "c"]), ("alone", &[])]);
        assert_eq!(
            draw(&shapes),
            "\
●   a
├─╮
● │ b
● │ c
├─╯
●   d

●   alone
"
        );
    }

    #[test]
    fn lanes_cross_what_lies_between_them() {
        let shapes = workflow(&[
            ("a", &[]),
            ("b", &["a"]),
            ("c", &["a"]),
            ("d", &["a"]),
            ("e", &["b", "d"]),
            ("f", &["c", "e"]),
        ]);
        let picture = draw(&shapes);
        assert!(picture.contains("├─┬─╮\n"), "{picture}");
        assert!(picture.contains("├─┼─╯\n"), "{picture}");
        assert_eq!(picture.matches('●').count(), 6, "{picture}");
    }

    #[test]
    fn states_stand_in_a_column() {
        let mut shapes = workflow(&[("a", &[]), ("longer", &["a"])]);
        shapes[0].state = Some("success".to_owned());
        shapes[1].state = Some("waiting".to_owned());
        assert_eq!(draw(&shapes), "● a       success\n● longer  waiting\n");
    }

    #[test]
    fn a_wide_workflow_is_a_list_of_short_lines() {
        let names: Vec<String> = (0..2_000).map(|at| format!("t{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut tasks: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, [].as_slice())).collect();
        tasks.push(("end", &names));
        let picture = draw(&workflow(&tasks));
        assert_eq!(picture.lines().count(), 2_001);
        assert!(picture.ends_with("  2  end    ← t0, t1, t2, t3, t4 and 1995 more\n"), "{picture}");
    }
}
