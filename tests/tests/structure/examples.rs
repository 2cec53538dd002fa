//! Rule of the SDK's reference: each public item has an example, which runs as a doc test, or is
//! used in one of its file.
//!
//! Items of one family share an example, at the first of them, at their type or at their `impl`
//! block. Variants and fields are left out.

use crate::ratchet::Findings;
use crate::source::{Source, sources};
use std::collections::BTreeSet;

/// Words in front of the name of an item.
const KINDS: [&str; 7] = ["fn", "struct", "enum", "trait", "type", "const", "static"];
/// Words between `pub` and those.
const BEFORE: [&str; 2] = ["const", "unsafe"];

#[test]
fn each_public_item_of_the_sdk_has_an_example() {
    let mut found = Findings::default();
    let sources = sources("handlers/sdk/src", false);
    let mut count = 0;
    for source in &sources {
        // What `export!` needs is public and hidden.
        if source.folder().ends_with("/export") && !source.path.ends_with("/mod.rs") {
            continue;
        }
        // A folder below the crate's is one part.
        let beside = |other: &&Source| match source.folder() {
            "handlers/sdk/src" => other.path == source.path,
            folder => other.folder() == folder,
        };
        let examples: String = sources.iter().filter(beside).map(|s| examples(&s.text)).collect();
        let words: BTreeSet<_> = examples.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for Item { name, line, has_example } in public_items(source) {
            count += 1;
            if !has_example && !words.contains(name.as_str()) {
                found.count(format!("{} {name}", source.path), format!("{}:{line}", source.path));
            }
        }
    }
    assert!(count > 200, "{count} items were found");
    found.check("examples", "public items without an example");
}

/// Code of the examples in doc comments.
fn examples(text: &str) -> String {
    let (mut code, mut inside) = (String::new(), false);
    for line in text.lines().map(str::trim_start) {
        let Some(says) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else { continue };
        match says.trim_start().starts_with("```") {
            true => inside = !inside,
            false if inside => code.extend([says, "\n"]),
            false => {}
        }
    }
    code
}

/// Item that authors see.
struct Item {
    name: String,
    line: usize,
    /// Whether its own comment has an example.
    has_example: bool,
}

/// Items that authors see: those of `pub`, members of public traits, macros that are exported.
fn public_items(source: &Source) -> Vec<Item> {
    let (mut found, mut in_trait, mut in_tests, mut in_attribute) = (Vec::new(), false, false, false);
    let (mut hidden, mut exported, mut has_example) = (false, false, false);
    for (text, line) in source.text.lines().zip(1..) {
        let says = text.trim_start();
        if in_tests && !says.ends_with(';') {
            break;
        }
        in_tests = says == "#[cfg(test)]";
        hidden |= says == "#[doc(hidden)]";
        exported |= says == "#[macro_export]";
        has_example |= says.starts_with("/// ```");
        in_attribute |= says.starts_with("#[");
        if in_attribute {
            in_attribute = !says.ends_with(']');
            continue;
        }
        if says.starts_with("//") {
            continue;
        }
        let member = in_trait && text.starts_with("    ") && !text.starts_with("     ");
        let mut words = says.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
        let mut word = words.next().unwrap_or_default();
        let public = says.starts_with("pub ") || exported && word == "macro_rules";
        if public && word == "pub" {
            word = words.next().unwrap_or_default();
        }
        let mut name = words.next().unwrap_or_default();
        while BEFORE.contains(&word) && KINDS.contains(&name) {
            (word, name) = (name, words.next().unwrap_or_default());
        }
        let is_item = KINDS.contains(&word) || word == "macro_rules";
        if is_item && (public || member) && !hidden {
            found.push(Item { name: name.to_owned(), line, has_example });
        }
        let begins_trait = text.starts_with("pub trait") && !text.ends_with('}') && !hidden;
        in_trait = begins_trait || in_trait && !text.starts_with('}');
        (hidden, exported, has_example) = (false, false, false);
    }
    found
}

/// Sample of what is an item, and of what is none.
#[test]
fn items_and_examples_are_read() {
    let text = r#"//! Head.
/// Thing.
///
/// ```
/// let thing = Thing::new();
/// ```
pub struct Thing<T>(u8);
impl Thing {
    /// Makes `one`.
    pub const fn new() -> Thing { Thing(0) }
    #[must_use]
    pub fn long<T>(
        fn_not: u8,
    ) {}
    pub(crate) fn not() {}
    #[doc(hidden)]
    pub fn neither() {}
    fn nor() {}
}
pub trait Has<T> {
    const SIZE: usize;
    type Part;
    fn part(&self) -> Self::Part {
        fn inner() {}
    }
}
pub trait Empty {}
fn free() {}
#[doc(hidden)]
#[diagnostic::on(
    note = "long",
)]
pub trait Hidden {
    fn hidden();
}
#[macro_export]
macro_rules! shout { () => {} }
macro_rules! whisper { () => {} }
#[cfg(test)]
pub fn test() {}
"#;
    let source = Source::new("a/b.rs".into(), text.into());
    let names: Vec<_> = public_items(&source).into_iter().map(|item| item.name).collect();
    assert_eq!(names, ["Thing", "new", "long", "Has", "SIZE", "Part", "part", "Empty", "shout"]);
    assert_eq!(examples(text).trim(), "let thing = Thing::new();");
}
