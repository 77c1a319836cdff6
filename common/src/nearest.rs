//! What was probably meant by a word that is not known.

/// Characters of a word for which a near one is looked for; the search costs the square of it.
const WORD_CHARS_MAX: usize = 64;
/// Known words that are compared; a workflow can have thousands of tasks.
const CANDIDATES_MAX: usize = 2_000;

/// Returns the known word that is most like `word`, where one is so near that a slip explains the difference.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let len = word.chars().count();
    if len > WORD_CHARS_MAX {
        return None;
    }
    let distance_max = (len / 3).clamp(1, 3);
    known
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= distance_max * 4)
        .map(|candidate| (strsim::osa_distance(&candidate.to_lowercase(), &word.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["retries", "retry_delay", "timeout"];
        assert_eq!(nearest("retires", known), Some("retries"));
        assert_eq!(nearest("Timeout", known), Some("timeout"));
        assert_eq!(nearest("retry-delay", known), Some("retry_delay"));
        assert_eq!(nearest("schedule", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
