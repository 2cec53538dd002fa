//! Templates of handlers: the files of `host/templates`, for a name and a port.
//!
//! A template is a handler `hello` at port 4100 that compiles as it is. The tests build each.

use clap::ValueEnum;
use std::path::{Path, PathBuf};
use toml::Value;

/// Port of the templates.
pub(super) const PORT: u16 = 4100;
/// Beginning of the part of the manifest that only the root of a workspace has.
pub(super) const PROFILES: &str = "\n# What `cargo build --release` makes";

// Doc comments of the variants are the help text of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Lines of text over TCP
    Line,
    /// Lines over telnet, with a prompt
    Telnet,
    /// A page and a WebSocket for browsers
    Websocket,
    /// Datagrams over UDP, without sessions
    Udp,
    /// Questions over TCP, one after the other
    Dialogue,
    /// Lines of text over TCP, in C
    C,
}

/// Text of a template.
macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../templates/", $name))
    };
}

/// Files of a handler, with their paths in its folder. `sdk` is the laid-down SDK.
pub(super) fn files(kind: Kind, name: &str, port: u16, sdk: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let Some(sdk) = sdk.to_str() else {
        return Err(format!("{}: the path of the SDK is no text; set XDG_DATA_HOME", sdk.display()));
    };
    let symbol = format!("greenroom_entry_{}", name.replace('-', "_"));
    let named = |text: &str| {
        let text = text.replace("greenroom_entry_hello", &symbol);
        text.replace("hello", name).replace(&PORT.to_string(), &port.to_string())
    };
    let mut config = named(template!("greenroom.toml.txt"));
    let source = match kind {
        Kind::C => {
            // As make reads it.
            let sdk = sdk.replace('$', "$$").replace('#', "\\#");
            return Ok(vec![
                ("Makefile".into(), named(template!("c/Makefile")).replace("SDK_PATH", &sdk)),
                ("handler.c".into(), named(template!("c/handler.c"))),
                (".gitignore".into(), format!("{}/build\n", template!("gitignore.txt"))),
                (
                    "greenroom.toml".into(),
                    config.replace("cargo build --release", "make").replace("target/release", "build"),
                ),
            ]);
        }
        Kind::Line => template!("line.rs"),
        Kind::Telnet => template!("telnet.rs"),
        Kind::Websocket => template!("websocket.rs"),
        Kind::Udp => template!("udp.rs"),
        Kind::Dialogue => template!("dialogue.rs"),
    };
    let path = Value::from(format!("{sdk}/handlers/sdk")).to_string();
    let manifest = named(template!("Cargo.toml.txt")).replace("\"SDK\"", &path);
    if kind == Kind::Udp {
        // An address without a kind is one of TCP.
        config = config
            .replace("\"127.0.0.1:", "\"udp://127.0.0.1:")
            .replace("also of other kinds: \"ws://", "also of other kinds: \"peer+udp://");
    }
    if kind == Kind::Line {
        config += template!("settings.toml.txt");
    }
    let mut files = vec![
        ("Cargo.toml".into(), manifest),
        ("src/lib.rs".into(), named(source)),
        (".gitignore".into(), template!("gitignore.txt").into()),
        ("greenroom.toml".into(), config),
    ];
    if kind == Kind::Websocket {
        files.push(("src/page.html".into(), named(template!("page.html"))));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing of the templates' own names is left, and what is quoted stays whole.
    #[test]
    fn a_handler_has_its_own_name_and_port() {
        for kind in Kind::value_variants() {
            let files = files(*kind, "my-game", 5000, Path::new("/a \"b\"/$c")).unwrap();
            let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
            assert!(!all.contains("hello") && !all.contains("4100") && !all.contains("SDK_PATH"), "{all}");
            assert!(all.contains("my-game") && all.contains("5000"), "{all}");
            for (path, text) in &files {
                if path.extension().is_some_and(|e| e == "toml") {
                    text.parse::<toml::Table>().unwrap();
                }
            }
            if *kind == Kind::C {
                assert!(all.contains("greenroom_entry_my_game(void)") && all.contains("$$c"), "{all}");
            } else {
                assert!(all.contains(PROFILES) && all.contains(r#"'/a "b"/$c/handlers/sdk'"#), "{all}");
            }
        }
    }
}
