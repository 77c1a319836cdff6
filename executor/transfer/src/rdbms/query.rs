//! The SQL text that a definition's parts become. Pure text, no connection.

use crate::limits::TASKS;

/// What happens to a row whose key is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// The verb as written: `insert`, `insert ignore`, `replace`.
    Verbatim(String),
    /// The row is overwritten, in all columns that are written.
    Update,
}

impl WriteMode {
    /// Reads `writeMode`: a prefix decides, in any case. More than words is no verb.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("update") {
            return Some(Self::Update);
        }
        let known = lower.starts_with("insert") || lower.starts_with("replace");
        let words =
            lower.chars().all(|letter| letter.is_ascii_alphabetic() || letter == ' ' || letter == '_');
        (known && words).then(|| Self::Verbatim(text.to_owned()))
    }

    pub(crate) fn verb(&self) -> &str {
        match self {
            Self::Verbatim(verb) => verb,
            Self::Update => "INSERT",
        }
    }
}

/// An INSERT for any number of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InsertText {
    head: String,
    row: String,
    tail: String,
    pub(crate) columns: usize,
}

impl InsertText {
    pub(crate) fn new(verb: &str, table: &str, columns: &[String], tail: String) -> Self {
        let row = format!("({})", vec!["?"; columns.len()].join(","));
        let head = format!("{verb} INTO {table} ({}) VALUES ", columns.join(","));
        Self { head, row, tail, columns: columns.len() }
    }

    pub(crate) fn text(&self, rows: usize) -> String {
        let mut text = String::with_capacity(self.head.len() + rows * (self.row.len() + 1) + self.tail.len());
        text.push_str(&self.head);
        for row in 0..rows {
            if row > 0 {
                text.push(',');
            }
            text.push_str(&self.row);
        }
        text.push_str(&self.tail);
        text
    }
}

pub(crate) fn select(columns: &[String], table: &str, condition: Option<&str>) -> String {
    let columns = columns.join(",");
    match condition {
        Some(condition) => format!("select {columns} from {table} where ({condition})"),
        None => format!("select {columns} from {table}"),
    }
}

/// Removes a trailing semicolon, also the wide one of Chinese keyboards.
pub(crate) fn clean_where(text: &str) -> String {
    text.trim().trim_end_matches([';', '；']).trim_end().to_owned()
}

/// Expands `schema.t[00-12]suffix` into its tables; a name without a range stands for itself.
/// `None` where the range is upside down or too long.
pub(crate) fn expand_table(text: &str) -> Option<Vec<String>> {
    let Some((before, first, last, after)) = range(text) else {
        return Some(vec![text.to_owned()]);
    };
    let (from, to) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
    if from > to || to - from >= TASKS {
        return None;
    }
    // A leading zero asks for numbers of one width.
    let width = if first.starts_with('0') { first.len() } else { 0 };
    Some((from..=to).map(|number| format!("{before}{number:0width$}{after}")).collect())
}

fn range(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (range, after) = rest.split_once(']')?;
    let (first, last) = range.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = before.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '.'));
    (digits(first) && digits(last) && plain && !before.is_empty()).then_some((before, first, last, after))
}

/// Returns a column that is named twice, whatever its quotes and case.
pub(crate) fn is_duplicate(columns: &[String]) -> Option<&str> {
    let bare = |name: &str| name.trim().trim_matches(['`', '"', '[', ']']).to_lowercase();
    let mut seen = std::collections::BTreeSet::new();
    columns.iter().find(|name| !seen.insert(bare(name))).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn select_is_that_of_the_recorded_logs() {
        assert_eq!(
            select(&texts(&["id", "name"]), "src", Some("id > 0")),
            "select id,name from src where (id > 0)"
        );
        assert_eq!(select(&texts(&["*"]), "a.b", None), "select * from a.b");
    }

    #[test]
    fn where_loses_its_semicolon() {
        assert_eq!(clean_where(" id > 0 ; "), "id > 0");
        assert_eq!(clean_where("id > 0；"), "id > 0");
        assert_eq!(clean_where("name = ';'"), "name = ';'");
    }

    #[test]
    fn table_ranges_are_expanded() {
        let expand = |text| expand_table(text).unwrap_or_default();
        assert_eq!(expand("db.t[0-2]_x"), ["db.t0_x", "db.t1_x", "db.t2_x"]);
        assert_eq!(expand("t[08-11]"), ["t08", "t09", "t10", "t11"]);
        assert_eq!(expand("plain"), ["plain"]);
        assert_eq!(expand("[dbo].[t-1]"), ["[dbo].[t-1]"]);
        assert_eq!(expand_table("t[5-2]"), None);
        assert_eq!(expand_table("t[0-99999999]"), None);
    }

    #[test]
    fn write_mode_is_a_prefix() {
        assert_eq!(WriteMode::parse("INSERT ignore"), Some(WriteMode::Verbatim("INSERT ignore".into())));
        assert_eq!(WriteMode::parse("updateOnDuplicate"), Some(WriteMode::Update));
        assert_eq!(WriteMode::parse("upsert"), None);
        assert_eq!(WriteMode::parse("insert into x select 1; --"), None);
    }

    #[test]
    fn duplicates_are_seen_through_quotes_and_case() {
        assert_eq!(is_duplicate(&texts(&["a", "`A`"])), Some("`A`"));
        assert_eq!(is_duplicate(&texts(&["a", "b"])), None);
    }

    #[test]
    fn insert_holds_as_many_rows_as_asked() {
        let insert = InsertText::new("INSERT", "t", &texts(&["a", "b"]), " TAIL".into());
        assert_eq!(insert.text(2), "INSERT INTO t (a,b) VALUES (?,?),(?,?) TAIL");
    }
}
