//! Source files: their imports, definitions, `impl` blocks and functions.
//!
//! The reading relies on code that compiles and that `rustfmt` has formatted. Code under
//! `#[cfg(test)]` is left out.

use crate::lexer::{Token, behind, behind_generics, is, tokens};
use greenroom_tests::root;
use std::collections::BTreeSet;
use std::path::Path;

/// Source file, read and cut into tokens.
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: String,
    /// Whole text, tests included.
    pub(crate) text: String,
    /// Tokens without those of tests.
    pub(crate) tokens: Vec<Token>,
    /// Lines that are not a test's. Comments and empty lines count.
    pub(crate) lines: usize,
}

impl Source {
    fn read(path: &Path) -> Source {
        let text = std::fs::read_to_string(path).expect("a source file");
        Source::new(path.strip_prefix(root()).expect("below the root").display().to_string(), text)
    }

    pub(crate) fn new(path: String, text: String) -> Source {
        let (tokens, test_lines) = without_tests(&tokens(&text));
        let lines = text.lines().count() - test_lines;
        Source { path, text, tokens, lines }
    }

    /// Folder, as a path from the repository's root.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// All files of a folder and of those below it, in order. Files of tests alone are left out unless
/// `with_tests`.
pub(crate) fn sources(folder: &str, with_tests: bool) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let tests = name == "tests.rs" || name.ends_with("_tests.rs") || name == "test_support.rs";
            if path.is_dir() && name != "target" {
                open.push(path);
            } else if name.ends_with(".rs") && (with_tests || !tests) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.iter().map(|path| Source::read(path)).collect()
}

/// Leaves out items under `#[cfg(test)]`. Also returns how many lines they have.
fn without_tests(all: &[Token]) -> (Vec<Token>, usize) {
    let (mut kept, mut lines, mut at) = (Vec::new(), BTreeSet::new(), 0);
    while at < all.len() {
        if !is(all, at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            kept.push(all[at].clone());
            at += 1;
            continue;
        }
        let first = all[at].line;
        at += 7;
        // Further attributes belong to the same item.
        while is(all, at, &["#", "["]) {
            at = behind(all, at + 1);
        }
        at = end_of_item(all, at);
        lines.extend(first..=all[at - 1].line);
    }
    (kept, lines.len())
}

/// Place behind an item: its semicolon or its block.
fn end_of_item(all: &[Token], mut at: usize) -> usize {
    let import = is(all, at, &["use"]);
    while at < all.len() {
        match all[at].text.as_str() {
            ";" => return at + 1,
            "{" if !import => return behind(all, at),
            "(" | "[" | "{" => at = behind(all, at),
            _ => at += 1,
        }
    }
    at
}

/// A block that tokens stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    Module(String),
    Other,
}

/// Items that a file defines, and the paths in it.
#[derive(Default)]
pub(crate) struct Items {
    /// Child modules that have files of their own.
    pub(crate) children: BTreeSet<String>,
    /// Types: name, line, and whether others see it.
    pub(crate) types: Vec<(String, usize, bool)>,
    /// Types that have an `impl` block, with its line and its methods.
    pub(crate) impls: Vec<(String, usize, Vec<String>)>,
    /// Functions with their lines: name, first line, and their number.
    pub(crate) functions: Vec<(String, usize, usize)>,
    /// Paths as they are written, with the inline modules that they stand in, and their lines:
    /// of imports and of others.
    pub(crate) paths: Vec<(Vec<String>, Vec<String>, usize)>,
}

impl Items {
    /// Reads the items off a file, in one walk over its tokens.
    pub(crate) fn of(source: &Source) -> Items {
        let t = &source.tokens;
        let mut items = Items::default();
        let (mut blocks, mut at, mut public) = (Vec::new(), 0, false);
        while at < t.len() {
            let text = t[at].text.as_str();
            let inside: Vec<String> = blocks
                .iter()
                .filter_map(|b| match b {
                    Block::Module(name) => Some(name.clone()),
                    Block::Other => None,
                })
                .collect();
            let name = t.get(at + 1).map(|t| t.text.clone()).unwrap_or_default();
            // A type inside a function is nobody else's, and is left out.
            let in_module = !blocks.contains(&Block::Other);
            match text {
                "pub" => {
                    public = true;
                    at = if is(t, at + 1, &["("]) { behind(t, at + 1) } else { at + 1 };
                    continue;
                }
                "mod" if is(t, at + 2, &[";"]) => _ = items.children.insert(name),
                "mod" if is(t, at + 2, &["{"]) => {
                    blocks.push(Block::Module(name));
                    at += 2;
                }
                "use" if begins_item(t, at) => {
                    let end = end_of_item(t, at);
                    imports(&t[at + 1..end], &mut Vec::new(), &inside, &mut items.paths);
                    at = end - 1;
                }
                "struct" | "enum" | "union" | "trait" | "type" if in_module && is_name(&name) => {
                    items.types.push((name, t[at].line, public));
                }
                "impl" if begins_item(t, at) => items.impls.extend(implemented(t, at)),
                "fn" if is_name(&name) => items.functions.extend(function(t, at)),
                "{" => blocks.push(Block::Other),
                "}" => _ = blocks.pop(),
                "(" | "[" => {}
                _ if is_name(text) && !is(t, at.wrapping_sub(1), &["::"]) && is(t, at + 1, &["::"]) => {
                    let path = path(t, at);
                    items.paths.push((path, inside, t[at].line));
                }
                _ => {}
            }
            // Words between `pub` and the item's name; any other token ends its effect.
            public &= ["unsafe", "const", "extern", "async"].contains(&text);
            at += 1;
        }
        items
    }
}

/// Whether a token is an identifier or a keyword, not a mark or a literal.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Whether an item may begin here: not a type (`-> impl Trait`), nor a name (`use` in a macro's
/// pattern).
fn begins_item(t: &[Token], at: usize) -> bool {
    let before = at.checked_sub(1).map_or("", |i| t[i].text.as_str());
    ["", "}", ";", "{", "]", ")", "pub", "unsafe", "default"].contains(&before)
}

/// Names of a path that begins at `at`.
fn path(t: &[Token], mut at: usize) -> Vec<String> {
    let mut names = vec![t[at].text.clone()];
    while is(t, at + 1, &["::"]) && t.get(at + 2).is_some_and(|t| is_name(&t.text)) {
        names.push(t[at + 2].text.clone());
        at += 2;
    }
    names
}

/// Paths of a tree of imports. `before`: the names in front of the tree.
fn imports(
    t: &[Token],
    before: &mut Vec<String>,
    inside: &[String],
    found: &mut Vec<(Vec<String>, Vec<String>, usize)>,
) {
    let (mut at, depth) = (0, before.len());
    while at < t.len() {
        match t[at].text.as_str() {
            "{" => {
                let end = behind(t, at);
                imports(&t[at + 1..end - 1], &mut before.clone(), inside, found);
                before.truncate(depth);
                at = end;
                continue;
            }
            "," | ";" => before.truncate(depth),
            // The name behind it is the file's own.
            "as" => at += 1,
            "::" => {}
            name => {
                if name != "*" {
                    before.push(name.to_owned());
                }
                if !is(t, at + 1, &["::"]) {
                    found.push((before.clone(), inside.to_vec(), t[at].line));
                }
            }
        }
        at += 1;
    }
}

/// Type that an `impl` block is of, its line, and its methods. `None`: no type with a name.
fn implemented(t: &[Token], at: usize) -> Option<(String, usize, Vec<String>)> {
    let start = behind_generics(t, at + 1);
    let (mut i, mut name_from) = (start, start);
    while i < t.len() && !["{", ";", "where"].contains(&t[i].text.as_str()) {
        match t[i].text.as_str() {
            // `for<'a>` names lifetimes; any other `for` comes before the type.
            "for" if !is(t, i + 1, &["<"]) => {
                name_from = i + 1;
                i += 1;
            }
            "<" => i = behind_generics(t, i),
            "(" | "[" => i = behind(t, i),
            _ => i += 1,
        }
    }
    while t
        .get(name_from)
        .is_some_and(|t| ["&", "mut", "dyn"].contains(&t.text.as_str()) || t.text.starts_with('\''))
    {
        name_from += 1;
    }
    let name = t.get(name_from).filter(|t| is_name(&t.text)).map(|_| path(t, name_from))?.pop()?;
    let open = (i..t.len()).find(|i| t[*i].text == "{")?;
    let body = &t[open + 1..behind(t, open) - 1];
    let (mut methods, mut j) = (Vec::new(), 0);
    while j < body.len() {
        match body[j].text.as_str() {
            "fn" => methods.extend(body.get(j + 1).map(|t| t.text.clone())),
            "{" => {
                j = behind(body, j);
                continue;
            }
            _ => {}
        }
        j += 1;
    }
    Some((name, t[at].line, methods))
}

/// Function with a body: its name, its first line, and its number of lines. `None`: a trait's
/// signature.
fn function(t: &[Token], at: usize) -> Option<(String, usize, usize)> {
    let mut i = behind_generics(t, at + 2);
    while i < t.len() && !["{", ";"].contains(&t[i].text.as_str()) {
        i = if ["(", "["].contains(&t[i].text.as_str()) { behind(t, i) } else { i + 1 };
    }
    let last = is(t, i, &["{"]).then(|| behind(t, i) - 1)?;
    Some((t[at + 1].text.clone(), t[at].line, t[last].line - t[at].line + 1))
}

/// Number of fields that a struct of this name has; `None`: the file defines none.
pub(crate) fn fields(source: &Source, name: &str) -> Option<usize> {
    let t = &source.tokens;
    let at = (0..t.len()).find(|i| is(t, *i, &["struct", name]))?;
    let open = behind_generics(t, at + 2);
    let body = is(t, open, &["{"]).then(|| &t[open + 1..behind(t, open) - 1])?;
    let (mut count, mut i) = (0, 0);
    while i < body.len() {
        match body[i].text.as_str() {
            "<" => i = behind_generics(body, i) - 1,
            "(" | "[" | "{" => i = behind(body, i) - 1,
            ":" => count += 1,
            _ => {}
        }
        i += 1;
    }
    Some(count)
}

/// Sample of everything that the rules see, and of what they must not take for it.
#[test]
fn a_source_is_read() {
    let text = r##"//! use crate::comment::Not;
use crate::a::{B, c::{self, D as E}};
pub(in crate::not) struct One<'a, T: Into<u8>> { x: &'a T, y: [char; 2], z: fn(u8) -> u8 }
struct Two(One);
mod inner {
    enum Three {}
    fn here() -> super::up::Name { let c = '{'; let s = "}"; let r = r#"use crate::text::"#; child::f(c, s, r) }
}
mod child;
impl<'a, T: Into<u8>> Trait<One> for &'a mut crate::x::One<'a, T>
where
    T: Copy,
{
    type Not = u8;
    fn long(&self, f: impl Fn()) -> impl Iterator {
        match b'\\'' { _ => f() }

    }
    fn other(&self);
}
#[cfg(test)]
mod tests {
    use crate::test::Not;
}
"##;
    let source = Source::new("a/b.rs".into(), text.into());
    let items = Items::of(&source);
    let paths: Vec<_> =
        items.paths.iter().map(|(path, inside, line)| (path.join("::"), inside.join("::"), *line)).collect();
    let path = |path: &str, inside: &str, line| (path.to_owned(), inside.to_owned(), line);
    assert_eq!(
        paths,
        [
            path("crate::a::B", "", 2),
            path("crate::a::c::self", "", 2),
            path("crate::a::c::D", "", 2),
            path("super::up::Name", "inner", 7),
            path("child::f", "inner", 7),
            path("crate::x::One", "", 10),
        ]
    );
    let types: Vec<_> = items.types.iter().map(|(name, _, public)| (name.as_str(), *public)).collect();
    assert_eq!(types, [("One", true), ("Two", false), ("Three", false)]);
    assert_eq!(items.impls, [("One".to_owned(), 10, vec!["long".to_owned(), "other".to_owned()])]);
    assert_eq!(items.functions, [("here".to_owned(), 7, 1), ("long".to_owned(), 15, 4)]);
    assert!(items.children.contains("child") && items.children.len() == 1);
    assert_eq!((fields(&source, "One"), source.lines, source.folder()), (Some(3), 20, "a"));
}
