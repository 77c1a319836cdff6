//! Tells code from comments and literals in Rust source, without understanding more of it.
//!
//! The parts keep the length and the line breaks of the text, so that a position in one is a position in all.

/// A Rust file, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lexed {
    /// The text with comments and the contents of literals blanked.
    pub(crate) code: String,
    /// The text with everything but comments blanked.
    pub(crate) comments: String,
    /// String literals: the line each begins on, from 1, and its contents as written.
    pub(crate) strings: Vec<(usize, String)>,
}

/// Takes Rust source apart.
pub(crate) fn lex(text: &str) -> Lexed {
    let mut lexer =
        Lexer { text: text.as_bytes(), at: 0, line: 1, code: vec![], comments: vec![], strings: vec![] };
    while lexer.at < lexer.text.len() {
        lexer.step();
    }
    // Blanking replaces whole bytes by spaces, and keeps whole characters otherwise.
    Lexed {
        code: String::from_utf8(lexer.code).expect("code keeps whole characters"),
        comments: String::from_utf8(lexer.comments).expect("comments keep whole characters"),
        strings: lexer.strings,
    }
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
    strings: Vec<(usize, String)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        if rest.starts_with(b"//") {
            let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            self.take(length, Part::Comment);
        } else if rest.starts_with(b"/*") {
            self.take(block_comment_length(rest), Part::Comment);
        } else if let Some((prefix, hashes)) = self.raw_string_start() {
            self.take(prefix, Part::Code);
            self.take_string(raw_contents_length(&self.text[self.at..], hashes), 1 + hashes);
        } else if rest[0] == b'"' {
            self.take(1, Part::Code);
            self.take_string(quoted_contents_length(&self.text[self.at..], b'"'), 1);
        } else if rest[0] == b'\'' && is_character_literal(rest) {
            self.take(1, Part::Code);
            self.take(quoted_contents_length(&self.text[self.at..], b'\''), Part::Literal);
            self.take(1, Part::Code);
        } else {
            self.take(1, Part::Code);
        }
    }

    fn take_string(&mut self, contents: usize, closing: usize) {
        let text = String::from_utf8_lossy(&self.text[self.at..self.at + contents]).into_owned();
        self.strings.push((self.line, text));
        self.take(contents, Part::Literal);
        self.take(closing, Part::Code);
    }

    fn take(&mut self, length: usize, part: Part) {
        let end = (self.at + length).min(self.text.len());
        for byte in &self.text[self.at..end] {
            let blank = if *byte == b'\n' { b'\n' } else { b' ' };
            self.code.push(if part == Part::Code { *byte } else { blank });
            self.comments.push(if part == Part::Comment { *byte } else { blank });
            self.line += usize::from(*byte == b'\n');
        }
        self.at = end;
    }

    /// Returns the length up to and with the opening quote, and the number of hashes.
    fn raw_string_start(&self) -> Option<(usize, usize)> {
        let inside_word = self.at > 0 && is_word(self.text[self.at - 1]);
        let rest = &self.text[self.at..];
        let letters = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
        if inside_word || !matches!(&rest[..letters], b"r" | b"br" | b"cr") {
            return None;
        }
        let hashes = rest[letters..].iter().take_while(|byte| **byte == b'#').count();
        (rest.get(letters + hashes) == Some(&b'"')).then_some((letters + hashes + 1, hashes))
    }
}

/// Returns whether a byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn raw_contents_length(rest: &[u8], hashes: usize) -> usize {
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    rest.windows(closing.len()).position(|window| window == closing).unwrap_or(rest.len())
}

fn quoted_contents_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at.min(rest.len())
}

/// A lifetime or a label has no closing quote after one character.
fn is_character_literal(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) => {
            let width = match first {
                0xF0.. => 4,
                0xE0.. => 3,
                0xC0.. => 2,
                _ => 1,
            };
            rest.get(1 + width) == Some(&b'\'')
        }
        None => false,
    }
}

mod tests {
    use super::lex;

    #[test]
    fn comments_and_literals_are_blanked_in_code() {
        let lexed = lex("let a = \"fn { // }\"; // fn {\nlet b = '{'; /* { /* } */ { */ b");
        assert_eq!(lexed.code, "let a = \"         \";        \nlet b = ' ';                   b");
        assert_eq!(lexed.strings, [(1, "fn { // }".to_string())]);
        assert!(lexed.comments.contains("// fn {") && lexed.comments.contains("/* { /* } */ { */"));
    }

    #[test]
    fn raw_and_escaped_strings_end_where_rust_ends_them() {
        let lexed = lex(r####"a(r#"x " { "#, br"\", "\" {", b"\\", c"é") + rest"####);
        assert_eq!(lexed.code.split_whitespace().last(), Some("rest"));
        assert!(!lexed.code.contains('{'), "{}", lexed.code);
        let contents: Vec<&str> = lexed.strings.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(contents, [r#"x " { "#, r"\", r#"\" {"#, r"\\", "é"]);
    }

    #[test]
    fn lifetimes_labels_and_raw_identifiers_are_code() {
        let text = "fn f<'a>(r: &'a str) { 'outer: loop { r#match('\\'', 'é', '\"'); break 'outer } }";
        let lexed = lex(text);
        assert_eq!(lexed.code.matches('{').count(), 2);
        assert!(lexed.code.contains("'outer: loop") && lexed.code.contains("r#match("));
        assert!(lexed.strings.is_empty());
    }

    #[test]
    fn positions_and_lines_are_kept() {
        let text = "a\n\"two\nlines\"\n/* é\n */ b \"c\"\n";
        let lexed = lex(text);
        assert_eq!(lexed.code.len(), text.len());
        assert_eq!(lexed.code.lines().count(), text.lines().count());
        assert_eq!(lexed.strings, [(2, "two\nlines".to_string()), (5, "c".to_string())]);
    }

    #[test]
    fn unfinished_text_ends_instead_of_hanging() {
        for text in ["\"open", "r#\"open", "/* open", "'\\", "r", "'"] {
            assert_eq!(lex(text).code.len(), text.len(), "{text}");
        }
    }
}
