//! Rules about the source itself: dependencies of crates and files, places of unsafe code,
//! sizes and words.
//!
//! The tests read the sources as they are, and build nothing. `house.rs` has the rules that
//! allow exceptions, `ratchet.rs` their lists. The rules here allow none.

mod examples;
mod graph;
mod house;
mod lexer;
mod ratchet;
mod source;

use greenroom_tests::root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Packages of the workspace with their dependencies, without those that only their tests need.
fn packages() -> Vec<(String, BTreeSet<String>)> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("its JSON");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let needs = |p: &Value| {
        let all = p["dependencies"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|d| d["kind"].is_null()).map(|d| text(&d["name"])).collect()
    };
    packages.iter().map(|p| (text(&p["name"]), needs(p))).collect()
}

/// The arrows of `host/ARCHITECTURE.md`: handlers know the SDK, and the host knows no handler.
#[test]
fn dependencies_run_one_way() {
    let packages = packages();
    let ours: BTreeSet<_> = packages.iter().map(|(name, _)| name.as_str()).collect();
    let mut seen = 0;
    for (name, needs) in &packages {
        let allowed: &[&str] = match name.as_str() {
            "greenroom-state" => &[],
            "greenroom-handler-macros" => &[],
            "greenroom-handler" => &["greenroom-handler-macros", "greenroom-state"],
            "greenroom-core" => &["greenroom-state"],
            "greenroom" => &["greenroom-core", "greenroom-state"],
            "greenroom-tests" | "linebench" => continue,
            // A handler knows the SDK and nothing else of ours.
            _ => &["greenroom-handler"],
        };
        seen += 1;
        for need in needs.iter().filter(|n| ours.contains(n.as_str())) {
            assert!(allowed.contains(&need.as_str()), "{name} must not depend on {need}");
        }
    }
    assert!(seen >= 6, "{seen} packages were looked at");
}

/// The core gets time and bytes as arguments, so its files name no source of either.
#[test]
fn the_core_knows_no_socket_clock_thread_or_file() {
    let packages = packages();
    let (_, needs) = packages.iter().find(|(name, _)| name == "greenroom-core").expect("the core");
    // httparse, proxy-header and tungstenite parse bytes that they are given; no stream of theirs
    // is used.
    let allowed = [
        "arrayvec",
        "crc32fast",
        "greenroom-state",
        "httparse",
        "ipnet",
        "memchr",
        "proxy-header",
        "serde",
        "smallvec",
        "tungstenite",
        // Wipes memory.
        "zeroize",
    ];
    assert!(needs.iter().all(|n| allowed.contains(&n.as_str())), "{needs:?}");
    for file in rust_files(&root().join("host/core/src")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for word in ["std::fs", "std::thread", "std::env", "Instant", "SystemTime", "TcpStream", "println!"] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

/// Each crate forbids or denies unsafe code; the modules that allow it are listed here.
#[test]
fn unsafe_code_stays_in_its_files() {
    let mut allowed_at = Vec::new();
    for crate_root in
        ["state-schema/src/lib.rs", "host/core/src/lib.rs", "host/src/lib.rs", "handlers/sdk/src/lib.rs"]
    {
        let text = std::fs::read_to_string(root().join(crate_root)).expect("a crate's root");
        assert!(
            text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]"),
            "{crate_root}"
        );
    }
    for dir in ["state-schema", "host", "handlers"] {
        for file in rust_files(&root().join(dir)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.windows(2).filter(|p| p[0].contains("allow(unsafe_code)")) {
                allowed_at.push(format!(
                    "{}: {}",
                    file.strip_prefix(root()).expect("below").display(),
                    pair[1].trim()
                ));
            }
        }
    }
    allowed_at.sort();
    assert_eq!(
        allowed_at,
        [
            "handlers/sdk/src/lib.rs: pub mod export;",
            "host/src/plugin/mod.rs: pub mod ffi;",
            "host/src/sys/mod.rs: pub mod activation;",
            "host/src/sys/mod.rs: pub mod crash_thread;",
            "host/src/sys/mod.rs: pub mod first_descriptors;",
            "host/src/sys/mod.rs: pub mod fork;",
            "host/src/sys/mod.rs: pub mod mapping;",
            "host/src/sys/mod.rs: pub mod peer;",
            "host/src/sys/mod.rs: pub mod process_state;",
            "host/src/sys/mod.rs: pub mod stack;",
            "host/src/sys/mod.rs: pub mod tcp;"
        ]
    );
    let folders = std::fs::read_dir(root().join("handlers")).expect("handlers").flatten();
    for handler in folders.filter(|folder| folder.path().join("Cargo.toml").exists()) {
        let lib = handler.path().join("src/lib.rs");
        let text = std::fs::read_to_string(&lib).expect("a handler's source");
        let sdk = handler.file_name() == "sdk";
        assert!(sdk || text.contains("#![forbid(unsafe_code)]"), "{}", lib.display());
    }
}

/// Rust files of a folder and of those below it, tests included.
fn rust_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Table for operators: every limit with its default, and no other. A star marks limits that a
/// service can have of its own.
#[test]
fn limits_md_has_every_limit() {
    let page = std::fs::read_to_string(root().join("host/LIMITS.md")).expect("host/LIMITS.md");
    let own =
        serde_json::to_value(greenroom_core::limits::per_service::ServiceLimits::default()).expect("JSON");
    let limits = serde_json::to_value(greenroom_core::limits::host::Limits::default()).expect("JSON");
    let limits = limits.as_object().expect("an object");
    for (name, default) in limits {
        let star = if own.get(name).is_some() { " *" } else { "" };
        let row = format!("| `{name}`{star} | {default} | ");
        assert_eq!(page.matches(&row).count(), 1, "{row:?} in host/LIMITS.md");
    }
    let table = page.split("| limit | default |").nth(1).expect("the table");
    let rows = table.lines().skip(2).take_while(|l| l.starts_with("| `")).count();
    assert_eq!(rows, limits.len());
}
