//! Names of handlers: which are refused, and what to do.
//!
//! A name is that of a crate, of a library, of a service and of a folder. Each has rules; those
//! here satisfy all of them.

use greenroom_state::elf_note::is_name;

/// Names that the compiler or its standard library has, and those of crates that every handler
/// uses. Cargo refuses them, or an `use` would mean the wrong one.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "greenroom_handler",
    "greenroom_state",
    "schemars",
    "serde",
    "tracing",
    "build",
    "deps",
    "examples",
    "incremental",
];

/// Refuses a name, and says what to do.
pub(super) fn check(name: &str) -> Result<(), String> {
    let begin = |c: char| c.is_ascii_lowercase();
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() {
        return Err("the handler has no name: say `greenroom new hello`".into());
    }
    if name.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("{name:?} has capitals: call it {:?}", name.to_ascii_lowercase()));
    }
    if !name.chars().all(fine) {
        return Err(format!("{name:?} is no name of a handler: use small letters, digits, - and _"));
    }
    if !name.starts_with(begin) {
        return Err(format!("{name:?} does not begin with a letter: call it {:?}", format!("x{name}")));
    }
    if !is_name(name) {
        return Err(format!("the name has {} letters: a service's name has at most 64", name.len()));
    }
    if RESERVED.contains(&name.replace('-', "_").as_str()) {
        return Err(format!("{name:?} is reserved by Rust or by a crate of the SDK: call it \"my-{name}\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cargo_or_a_host_refuses_is_refused_with_a_way_out() {
        for (name, way_out) in [
            ("", "say `greenroom new hello`"),
            ("9lives", "call it \"x9lives\""),
            ("-x", "call it \"x-x\""),
            ("Hello", "call it \"hello\""),
            ("two words", "use small letters"),
            ("grüße", "use small letters"),
            ("fn", "call it \"my-fn\""),
            ("proc-macro", "call it \"my-proc-macro\""),
            ("serde", "call it \"my-serde\""),
            (&"x".repeat(65), "at most 64"),
        ] {
            let why = check(name).unwrap_err();
            assert!(why.contains(way_out), "{name}: {why}");
        }
        for name in ["hello", "a", "my-game_2", &"x".repeat(64)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }
}
