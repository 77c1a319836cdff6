//! What tasks refer to: other tasks in `after`, parameters and values in templates.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    node::{Content, Node},
    problem::{Problems, Span},
    read::short,
    task::Draft,
};
use crate::{
    graph::{Cycle, Graph},
    id::{InstanceIndex, ParamName},
    nearest::nearest,
    template::{Template, TemplateError},
    workflow::{Param, Task},
};

/// Tasks of a cycle that a message shows.
const CYCLE_TASKS_MAX: usize = 20;

/// A mention of another task's values.
struct ValueRef<'n> {
    by: InstanceIndex,
    of: InstanceIndex,
    text: &'n str,
    name: String,
    at: Span,
}

/// Resolves all references. `None` where tasks are missing or the graph has a cycle.
pub(super) fn resolve<'t>(
    drafts: Vec<Draft<'_, 't>>,
    params: &BTreeMap<ParamName, Param>,
    problems: &mut Problems<'t>,
) -> Option<(Graph, Vec<Task>)> {
    let positions: HashMap<&str, InstanceIndex> = drafts.iter().map(|draft| draft.key).zip(0..).collect();
    let edges = edges(&drafts, &positions, problems);
    let graph = Graph::new(drafts.len(), &edges).map_err(|cycle| add_cycle(&cycle, &drafts, problems)).ok();
    let mut refs = Vec::new();
    let mut templated = Vec::with_capacity(drafts.len());
    for (draft, by) in drafts.iter().zip(0..) {
        let mut texts = Texts {
            params,
            drafts: &drafts,
            positions: &positions,
            by,
            refs: &mut refs,
            is_templated: false,
            problems,
        };
        draft.with.into_iter().for_each(|with| texts.walk(with));
        templated.push(texts.is_templated);
    }
    let graph = graph?;
    check_upstream(&refs, &drafts, &graph, problems);
    finish(drafts, &templated, &refs).map(|tasks| (graph, tasks))
}

fn finish(drafts: Vec<Draft<'_, '_>>, templated: &[bool], refs: &[ValueRef<'_>]) -> Option<Vec<Task>> {
    let mut value_refs: HashMap<InstanceIndex, Vec<InstanceIndex>> = HashMap::new();
    for reference in refs {
        value_refs.entry(reference.by).or_default().push(reference.of);
    }
    let finished = drafts.into_iter().zip(templated).zip(0..).map(|((draft, is_templated), at)| {
        let mut task = draft.task?;
        if let Some(with) = draft.with {
            task.with = Arc::new(with.to_json());
        }
        task.is_templated = *is_templated;
        task.value_refs = value_refs.remove(&at).unwrap_or_default();
        task.value_refs.sort_unstable();
        task.value_refs.dedup();
        Some(task)
    });
    finished.collect()
}

fn edges<'n>(
    drafts: &[Draft<'n, '_>],
    positions: &HashMap<&'n str, InstanceIndex>,
    problems: &mut Problems<'_>,
) -> Vec<(InstanceIndex, InstanceIndex)> {
    let mut edges = Vec::new();
    // One mark for each task, so that a repetition is found without a set for each list.
    let mut marks: Vec<Option<InstanceIndex>> = vec![None; drafts.len()];
    for (draft, down) in drafts.iter().zip(0..) {
        for (name, at) in &draft.after {
            match positions.get(name) {
                None => add_unknown(name, *at, drafts, problems),
                Some(up) if *up == down => {
                    problems.add(*at, format!("the task `{}` comes after itself", short(name)));
                }
                Some(up) if marks[*up as usize] == Some(down) => {
                    problems.add(*at, format!("the task `{}` is given twice", short(name)));
                }
                Some(up) => {
                    marks[*up as usize] = Some(down);
                    edges.push((*up, down));
                }
            }
        }
    }
    edges
}

fn add_unknown(name: &str, at: Span, drafts: &[Draft<'_, '_>], problems: &mut Problems<'_>) {
    if problems.is_full() {
        return;
    }
    let message = format!("there is no task `{}`", short(name));
    match nearest(name, drafts.iter().map(|draft| draft.key)) {
        Some(near) => problems.add_with_hint(at, message, format!("did you mean `{near}`?")),
        None => problems.add(at, message),
    }
}

fn add_cycle(cycle: &Cycle, drafts: &[Draft<'_, '_>], problems: &mut Problems<'_>) {
    let tasks: Vec<_> = cycle.0.iter().filter_map(|at| drafts.get(*at as usize)).collect();
    let Some(first) = tasks.first() else { return };
    let mut path: Vec<&str> = tasks.iter().take(CYCLE_TASKS_MAX).map(|draft| draft.key).collect();
    if tasks.len() > CYCLE_TASKS_MAX {
        path.push("...");
    }
    path.push(first.key);
    // The edge into the first task is the one that closes the cycle.
    let closing = tasks.last().and_then(|last| first.after.iter().find(|(name, _)| *name == last.key));
    let at = closing.map_or(first.at, |(_, at)| *at);
    problems.add(at, format!("tasks wait for each other in a circle: {}", path.join(" -> ")));
}

struct Texts<'a, 'n, 'p, 't> {
    params: &'a BTreeMap<ParamName, Param>,
    drafts: &'a [Draft<'n, 't>],
    positions: &'a HashMap<&'n str, InstanceIndex>,
    by: InstanceIndex,
    refs: &'a mut Vec<ValueRef<'n>>,
    is_templated: bool,
    problems: &'p mut Problems<'t>,
}

impl<'n, 't> Texts<'_, 'n, '_, 't> {
    fn walk(&mut self, node: &'n Node<'t>) {
        match &node.content {
            Content::Text(text) => self.text(text, node.span),
            Content::List(items) => items.iter().for_each(|item| self.walk(item)),
            Content::Map(entries) => entries.iter().for_each(|entry| self.walk(&entry.value)),
            Content::Null | Content::Bool(_) | Content::Number(_) => {}
        }
    }

    fn text(&mut self, text: &'n str, at: Span) {
        if !text.contains('{') {
            return;
        }
        self.is_templated |= crate::template::is_template(text);
        let refs = match Template::check(text) {
            Ok(refs) => refs,
            Err(TemplateError { at: range, message, hint }) => {
                self.problems.add_inside(at, text.get(range).unwrap_or(text), message, hint);
                return;
            }
        };
        for (name, range) in refs.params() {
            self.param(name, text.get(range.clone()).unwrap_or(text), at);
        }
        for (task, range) in refs.values() {
            let text = text.get(range.clone()).unwrap_or(text);
            match self.positions.get(task) {
                Some(of) if *of == self.by => {
                    self.problems.add_inside(at, text, "a task cannot read its own values".to_owned(), None);
                }
                Some(of) => {
                    let name = task.to_owned();
                    self.refs.push(ValueRef { by: self.by, of: *of, text, name, at });
                }
                None => {
                    let near = nearest(task, self.drafts.iter().map(|draft| draft.key));
                    let hint = near.map(|near| format!("did you mean `{near}`?"));
                    self.problems.add_inside(at, text, format!("there is no task `{}`", short(task)), hint);
                }
            }
        }
    }

    fn param(&mut self, name: &str, part: &str, at: Span) {
        if self.params.contains_key(name) {
            return;
        }
        let hint = match nearest(name, self.params.keys().map(ParamName::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "declare it under `params`".to_owned(),
        };
        let message = format!("the parameter `{}` is not declared", short(name));
        self.problems.add_inside(at, part, message, Some(hint));
    }
}

/// Reports values of tasks that need not have ended when they are read.
fn check_upstream(
    refs: &[ValueRef<'_>],
    drafts: &[Draft<'_, '_>],
    graph: &Graph,
    problems: &mut Problems<'_>,
) {
    let far: Vec<&ValueRef<'_>> = refs
        .iter()
        .filter(|reference| graph.upstream(reference.by).binary_search(&reference.of).is_err())
        .collect();
    let mut targets: Vec<InstanceIndex> = far.iter().map(|reference| reference.of).collect();
    targets.sort_unstable();
    targets.dedup();
    for block in targets.chunks(u64::BITS as usize) {
        let reaches = reached(graph, block);
        for reference in &far {
            let Ok(bit) = block.binary_search(&reference.of) else { continue };
            if reaches[reference.by as usize] & (1 << bit) == 0 {
                let by = drafts[reference.by as usize].key;
                let message = format!("`{}` is not upstream of `{by}`", reference.name);
                let hint = format!("add `{}` to `after` of `{by}`", reference.name);
                problems.add_inside(reference.at, reference.text, message, Some(hint));
            }
        }
    }
}

/// Returns for each task which of up to 64 targets are upstream of it, one bit each: one pass for all of them, so that
/// the cost does not grow with the number of mentions.
fn reached(graph: &Graph, targets: &[InstanceIndex]) -> Vec<u64> {
    let mut own = vec![0_u64; graph.len()];
    for (bit, target) in targets.iter().enumerate() {
        own[*target as usize] |= 1 << bit;
    }
    let mut reached = vec![0_u64; graph.len()];
    for at in graph.order() {
        let ups = graph.upstream(*at).iter();
        reached[*at as usize] = ups.fold(0, |mask, up| mask | reached[*up as usize] | own[*up as usize]);
    }
    reached
}
