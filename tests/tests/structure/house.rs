//! Rules of the house: imports between folders, the place of a type's code, lengths, and the
//! beginnings of comments.
//!
//! Each test finds all that breaks its rule and hands it to the ratchet, which knows the
//! exceptions. A failure names every place. A crate or folder with a new top-level module needs
//! a floor here.

use crate::graph::Graph;
use crate::ratchet::Findings;
use crate::source::{Items, Source, fields, sources};
use std::collections::{BTreeMap, BTreeSet};

/// Folders of a crate, highest first. Rooms of one floor do not know each other.
type Floors = &'static [&'static [&'static str]];

/// Crates with their floors. `host/ARCHITECTURE.md` describes those of core and shell.
const CRATES: [(&str, Floors); 4] = [
    (
        "host/core/src",
        &[
            &["lib"],
            &["core"],
            &["reload", "operate", "recovery"],
            &["pass"],
            &["execute"],
            &["host_state"],
            &["command", "input"],
            &["service", "watch"],
            &["turn"],
            &["session", "effects", "tables", "tls"],
            &["limits"],
            &["store", "framing", "ledger"],
            &["ids"],
        ],
    ),
    (
        "host/src",
        &[
            &["main"],
            &["lib"],
            &["cli"],
            &["keeper", "worker", "handshaker", "observe"],
            &["admin"],
            &["plugin", "watchdog", "net", "job_threads", "saved_file"],
            &["protocol"],
            &["config"],
            &["memory", "runtime_dir"],
            &["saved_place"],
            &["sys", "clock", "mailbox", "exit_status", "crash_points", "handler_output", "tls"],
            &["logs"],
            &["printable"],
        ],
    ),
    (
        "handlers/sdk/src",
        &[
            &["lib"],
            &["testing"],
            &["export"],
            &["convert"],
            &["run"],
            &["values"],
            &["handler"],
            &["map"],
            &["table_scan"],
            &["table"],
            &["migrate"],
            &["dialogue_run"],
            &["dialogue_steps"],
            &["dialogue"],
            &["talk"],
            &["stream_effects", "session_effects", "telnet_effects", "job_effects", "host_questions"],
            &["topic_effects"],
            &["turn"],
            &["host"],
            &["carried"],
            &["encode"],
            &["log"],
            &["key"],
            &["framing", "action"],
            &["book", "bounds", "bytes", "custom_framing", "fault", "file", "page", "telnet"],
        ],
    ),
    (
        "state-schema/src",
        &[
            &["lib"],
            &["dump_lines"],
            &["rehearsal_report", "dump"],
            &["edit"],
            &["compatibility", "misfit"],
            &["schema_diff"],
            &["schema_text", "same_value", "condition", "difference", "value_change", "byte_text"],
            &["sets", "parse"],
            &["schema"],
            &[
                "path",
                "json",
                "session_record",
                "elf_note",
                "abi",
                "address_text",
                "address_binary",
                "endpoint",
                "dialogue_report",
            ],
            &["address", "nesting", "settings_file"],
        ],
    ),
];

/// Folders whose files are the product: limits of length hold there.
const PRODUCT: [&str; 3] = ["host", "handlers", "state-schema"];
/// Folders whose comments are ours, tests included.
const ALL: [&str; 4] = ["host", "handlers", "state-schema", "tests"];

/// Files of the product, without files of tests.
fn product() -> Vec<Source> {
    PRODUCT.iter().flat_map(|folder| sources(folder, false)).collect()
}

/// The floors of `host/ARCHITECTURE.md`, for each arrow between two files.
#[test]
fn a_file_imports_from_its_own_folder_and_from_those_below() {
    let mut found = Findings::default();
    for (folder, floors) in CRATES {
        let graph = Graph::of(folder);
        for ((from, to), (line, path)) in upward(&graph, floors) {
            let [a, b] = [from, to].map(|at| graph.sources[at].path.as_str());
            found.count(format!("{a} {b}"), format!("{a}:{line}: {path}"));
        }
    }
    found.check("floors", "imports from a folder that is not below");
}

/// Arrows between files whose folders are on one floor, or that run up. Panics if a folder has
/// no floor.
fn upward(graph: &Graph, floors: Floors) -> Vec<((usize, usize), (usize, String))> {
    let floor = |file: usize| {
        let room = graph.room(file);
        let found = floors.iter().position(|floor| floor.contains(&room.as_str()));
        found.unwrap_or_else(|| panic!("{}: {room} has no floor", graph.sources[file].path))
    };
    let up = |(from, to): (usize, usize)| graph.room(from) != graph.room(to) && floor(from) >= floor(to);
    graph.arrows.iter().filter(|(arrow, _)| up(**arrow)).map(|(a, b)| (*a, b.clone())).collect()
}

/// A loop has no bottom to read from.
#[test]
fn no_files_import_each_other_in_a_loop() {
    let mut found = Findings::default();
    for (folder, _) in CRATES {
        let graph = Graph::of(folder);
        for group in graph.loops() {
            for ((from, to), (line, path)) in &graph.arrows {
                if group.contains(from) && group.contains(to) {
                    let [a, b] = [from, to].map(|at| graph.sources[*at].path.as_str());
                    found.count(format!("{a} {b}"), format!("{a}:{line}: {path}"));
                }
            }
        }
    }
    found.check("loops", "imports that close a loop");
}

/// Types of a crate, with the places that define them. `public`: only those that other files
/// see.
fn types<'a>(
    sources: &'a [Source],
    items: &'a [Items],
    public: bool,
) -> BTreeMap<&'a str, Vec<(&'a Source, usize)>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (source, items) in sources.iter().zip(items) {
        for (name, line, _) in items.types.iter().filter(|(.., seen)| *seen || !public) {
            all.entry(name.as_str()).or_default().push((source, *line));
        }
    }
    all
}

#[test]
fn the_code_of_a_type_stands_in_the_folder_that_defines_it() {
    let mut found = Findings::default();
    for (folder, _) in CRATES {
        let Graph { sources, items, .. } = Graph::of(folder);
        let types = types(&sources, &items, false);
        for (source, items) in sources.iter().zip(&items) {
            for (name, line, _) in &items.impls {
                let Some(defined) = types.get(name.as_str()) else { continue };
                let here = match name.as_str() {
                    // The front door has one file: methods elsewhere would be a second way in.
                    "Core" => source.path == "host/core/src/core.rs",
                    _ => defined.iter().any(|(d, _)| d.folder() == source.folder()),
                };
                if !here {
                    let place = format!("{}:{line}: impl {name}, of {}", source.path, defined[0].0.path);
                    found.count(format!("{} {name}", source.path), place);
                }
            }
        }
    }
    found.check("impls", "code of a type outside the folder that defines it");
}

/// A name that two types share in a crate says nothing in a message or a search.
#[test]
fn a_public_type_has_a_name_of_its_own() {
    let mut found = Findings::default();
    for (folder, _) in CRATES {
        let Graph { sources, items, .. } = Graph::of(folder);
        for (name, places) in types(&sources, &items, true) {
            if places.len() > 1 {
                for (source, line) in &places {
                    found.count(format!("{folder} {name}"), format!("{}:{line}", source.path));
                }
            }
        }
    }
    found.check("names", "public types of one name");
}

/// Lines of a file, without its tests, comments included.
const FILE_LINES_MAX: usize = 400;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn files_and_functions_are_short() {
    let mut found = Findings::default();
    for source in product() {
        if source.lines > FILE_LINES_MAX {
            found.largest(source.path.clone(), source.lines, "lines without tests".into());
        }
        for (name, line, lines) in Items::of(&source).functions {
            if lines > FUNCTION_LINES_MAX {
                found.largest(format!("{} {name}", source.path), lines, format!("{}:{line}", source.path));
            }
        }
    }
    found.check("sizes", "files above 400 lines, functions above 70");
}

/// Words that no head and no doc comment begins with: they have no meaning without a text
/// before them.
const NO_SUBJECT: [&str; 13] =
    ["What", "Who", "Whose", "It", "That", "They", "As", "See", "How", "Which", "One", "The other", "Its"];

#[test]
fn heads_and_doc_comments_begin_with_a_noun_or_a_verb() {
    let mut found = Findings::default();
    for source in ALL.iter().flat_map(|folder| sources(folder, true)) {
        let mut before = "";
        for (at, line) in source.text.lines().enumerate() {
            let line = line.trim_start();
            let mark = ["///", "//!"].into_iter().find(|m| line.starts_with(m) && !line.starts_with("////"));
            let says = line.get(3..).unwrap_or_default().trim_start();
            let none = |word: &&str| {
                says.strip_prefix(*word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
            };
            if mark.is_some_and(|m| m != before) && NO_SUBJECT.iter().any(none) {
                found.count(source.path.clone(), format!("{}:{}: {says}", source.path, at + 1));
            }
            before = mark.unwrap_or_default();
        }
        if !source.text.starts_with("//!") {
            found.count(source.path.clone(), format!("{}:1: no head", source.path));
        }
    }
    found.check("heads", "heads and doc comments without a subject");
}

/// Columns of a line of comment, with its indentation. Code is `rustfmt`'s.
const COMMENT_COLUMNS_MAX: usize = 100;

#[test]
fn comment_lines_are_short() {
    let mut found = Findings::default();
    for source in ALL.iter().flat_map(|folder| sources(folder, true)) {
        for (at, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if line.trim_start().starts_with("//") && columns > COMMENT_COLUMNS_MAX {
                found.count(source.path.clone(), format!("{}:{}: {columns} columns", source.path, at + 1));
            }
        }
    }
    found.check("columns", "comment lines above 100 columns");
}

/// Prints the figures that the house is measured by: `cargo test --test structure figures --
/// --nocapture`.
#[test]
fn figures() {
    let mut impls = BTreeMap::new();
    println!(
        "| folder | files | floors | arrows | arrows up | loops | files in loops |\n|---|---|---|---|---|---|---|"
    );
    for (folder, floors) in CRATES {
        let graph = Graph::of(folder);
        let loops = graph.loops();
        println!(
            "| `{folder}` | {} | {} | {} | {} | {} | {} |",
            graph.sources.len(),
            graph.floors(),
            graph.arrows.len(),
            upward(&graph, floors).len(),
            loops.len(),
            loops.iter().map(BTreeSet::len).sum::<usize>()
        );
        for (source, items) in graph.sources.iter().zip(&graph.items) {
            for (name, _, methods) in &items.impls {
                let (files, count) = impls.entry((folder, name.clone())).or_insert((BTreeSet::new(), 0));
                files.insert(source.path.clone());
                *count += methods.len();
            }
        }
    }
    println!("\n| type | fields | methods | files with its code |\n|---|---|---|---|");
    for (folder, name) in [("host/core/src", "Core"), ("host/src", "Worker"), ("host/src", "Keeper")] {
        let defined = sources(folder, false).iter().find_map(|s| fields(s, name)).expect("a struct");
        let (files, methods) = &impls[&(folder, name.to_owned())];
        println!("| `{name}` | {defined} | {methods} | {} |", files.len());
        // Zeros would say that the type was not read, not that it is empty.
        assert!(defined > 0 && *methods > 0, "{name} was read");
    }
}
