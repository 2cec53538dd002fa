//! Tokens of Rust source. Comments are left out, and texts are all the same.
//!
//! The rules need names, marks and brackets, so no parser is needed: a file that compiles has
//! whole literals and brackets in pairs. O(characters).

/// Identifier, lifetime or mark (`::`, `->` and `=>` are single marks), or `"` for any text or
/// character. Numbers are cut like names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Text of the token.
    pub(crate) text: String,
    /// Line that it begins in, from 1.
    pub(crate) line: usize,
}

/// Cuts a text into tokens. Comments are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let b: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < b.len() {
        let start = at;
        let next = b.get(at + 1).copied().unwrap_or(' ');
        let word = |mut at: usize| {
            while b.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                at += 1;
            }
            at
        };
        let token = match b[at] {
            c if c.is_whitespace() => {
                at += 1;
                None
            }
            '/' if next == '/' => {
                at = end_of_line(&b, at);
                None
            }
            '/' if next == '*' => {
                at = end_of_block(&b, at);
                None
            }
            '"' => {
                at = end_of_string(&b, at);
                Some("\"".to_owned())
            }
            // A character literal; any other quote begins a lifetime.
            '\'' if next == '\\' || b.get(at + 2) == Some(&'\'') => {
                at = end_of_char(&b, at);
                Some("\"".to_owned())
            }
            '\'' => {
                at = word(at + 1);
                Some(b[start..at].iter().collect())
            }
            c if c.is_alphanumeric() || c == '_' => {
                at = word(at);
                let text: String = b[start..at].iter().collect();
                match (text.as_str(), b.get(at)) {
                    ("r" | "br" | "cr", Some('"' | '#')) if is_raw(&b, at) => {
                        at = end_of_raw(&b, at);
                        Some("\"".to_owned())
                    }
                    ("b" | "c", Some('"')) => {
                        at = end_of_string(&b, at);
                        Some("\"".to_owned())
                    }
                    ("b", Some('\'')) => {
                        at = end_of_char(&b, at);
                        Some("\"".to_owned())
                    }
                    _ => Some(text),
                }
            }
            c => {
                let pair: String = [c, next].iter().collect();
                at += if ["::", "->", "=>"].contains(&pair.as_str()) { 2 } else { 1 };
                Some(b[start..at].iter().collect())
            }
        };
        found.extend(token.map(|text| Token { text, line }));
        line += b[start..at].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// Place of the line's end, or of the text's.
fn end_of_line(b: &[char], at: usize) -> usize {
    b[at..].iter().position(|c| *c == '\n').map_or(b.len(), |n| at + n)
}

/// Place behind a block comment. Such comments nest.
fn end_of_block(b: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < b.len() {
        match (b[at], b.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Place behind a string whose opening quote is at `at`.
fn end_of_string(b: &[char], mut at: usize) -> usize {
    at += 1;
    while at < b.len() && b[at] != '"' {
        at += if b[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Place behind a character whose opening quote is at `at`. An escaped quote does not end it.
fn end_of_char(b: &[char], mut at: usize) -> usize {
    at += if b[at + 1] == '\\' { 3 } else { 2 };
    while at < b.len() && b[at] != '\'' {
        at += 1;
    }
    at + 1
}

/// Whether a raw string goes on here, not a raw identifier. `at` is behind the `r`.
fn is_raw(b: &[char], at: usize) -> bool {
    b[at..].iter().find(|c| **c != '#') == Some(&'"')
}

/// Place behind a raw string. As many hashes follow its closing quote as precede the opening
/// one.
fn end_of_raw(b: &[char], mut at: usize) -> usize {
    let hashes = b[at..].iter().take_while(|c| **c == '#').count();
    at += hashes + 1;
    while at < b.len() {
        if b[at] == '"' && b[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// Whether the tokens from `at` on are these. False behind the end.
pub(crate) fn is(tokens: &[Token], at: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(i, text)| tokens.get(at + i).is_some_and(|t| t.text == *text))
}

/// Place behind the bracket that closes the one at `at`; the end, if none does.
pub(crate) fn behind(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0usize;
    for (i, t) in tokens.iter().enumerate().skip(at) {
        match t.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Place behind the generics that begin at `at`; `at` itself if none do. `->` is a token of its
/// own.
pub(crate) fn behind_generics(tokens: &[Token], at: usize) -> usize {
    if !is(tokens, at, &["<"]) {
        return at;
    }
    let (mut depth, mut i) = (0usize, at);
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            "<" => depth += 1,
            ">" => depth -= 1,
            "(" | "[" | "{" => i = behind(tokens, i) - 1,
            _ => {}
        }
        i += 1;
        if depth == 0 {
            break;
        }
    }
    i
}
