//! Embedding of the SDK: writes a table of all its files, for `src/cli/new/sdk.rs`.
//!
//! The SDK is `handlers/sdk`, what it depends on by path, and the book. Sources stay as they are.
//! Manifests are resolved: outside this workspace nothing can be inherited from it. Links of pages
//! to what is not embedded become words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};
use toml::{Table, Value};

/// Folder of the SDK in the repository.
const SDK: &str = "handlers/sdk";
/// Folder of the book.
const BOOK: &str = "handlers/book";

fn main() {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("..");
    let root = root.canonicalize().expect("the repository");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let workspace = read(&root.join("Cargo.toml"));
    let workspace = workspace["workspace"].as_table().expect("a workspace");
    println!("cargo::rerun-if-changed={}", root.join("Cargo.toml").display());

    let (mut files, mut manifests) = (BTreeSet::new(), BTreeMap::new());
    let mut folders = BTreeSet::new();
    let mut wanted = vec![BOOK.to_owned(), SDK.to_owned()];
    while let Some(folder) = wanted.pop() {
        if !folders.insert(folder.clone()) {
            continue;
        }
        let dir = root.join(&folder);
        println!("cargo::rerun-if-changed={}", dir.display());
        list(&dir, &mut files);
        let path = dir.join("Cargo.toml");
        if files.contains(&path) {
            let manifest = alone(read(&path), workspace, &folder, &mut wanted);
            manifests.insert(path, toml::to_string(&manifest).expect("a manifest"));
        }
    }
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).expect("a file of the repository");
        let changed = match file.extension().is_some_and(|e| e == "md") {
            true => Some(linked(file, &files, &root)),
            false => manifests.remove(file),
        };
        let from = match changed {
            Some(text) => {
                let written = out.join(name.to_string_lossy().replace('/', "-"));
                fs::write(&written, text).expect("OUT_DIR takes files");
                written
            }
            None => file.clone(),
        };
        writeln!(table, "    ({name:?}, include_bytes!({from:?})),").expect("a string takes all");
    }
    table.push_str("]\n");
    fs::write(out.join("sdk.rs"), table).expect("OUT_DIR takes files");
}

/// Text of a page whose links all lead somewhere: one to what is not among `files` becomes its
/// words, and the place in the repository.
fn linked(page: &Path, files: &BTreeSet<PathBuf>, root: &Path) -> String {
    let text = fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some((before, behind)) = rest.split_once("](") {
        let (target, after) = behind.split_once(')').expect("the end of a link");
        let path = target.split('#').next().unwrap_or_default();
        // Without a file it is an address elsewhere, or a place on this page.
        let to = page.parent().unwrap_or(root).join(path).canonicalize().unwrap_or_default();
        match before.rsplit_once('[') {
            Some((before, words)) if !path.is_empty() && to.is_file() && !files.contains(&to) => {
                let at = to.strip_prefix(root).expect("a file of the repository").display();
                write!(out, "{before}{words} (`{at}` of the repository)").expect("a string takes all");
            }
            _ => write!(out, "{before}]({target})").expect("a string takes all"),
        }
        rest = after;
    }
    out + rest
}

/// Reads a file of TOML.
fn read(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files of a package, in all folders but hidden ones, those of builds, and other packages.
fn list(dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        match path.is_dir() {
            _ if name.to_string_lossy().starts_with('.') || name == "target" => {}
            true if path.join("Cargo.toml").exists() => {}
            true => list(&path, files),
            false => _ = files.insert(path),
        }
    }
}

/// Manifest that needs no workspace. Adds the folders that it depends on by path to `wanted`.
fn alone(mut manifest: Table, workspace: &Table, package: &str, wanted: &mut Vec<String>) -> Table {
    let given = workspace["package"].as_table().expect("what packages inherit");
    let own = manifest["package"].as_table_mut().expect("a package");
    for (key, value) in own.iter_mut().filter(|(_, value)| inherits(value)) {
        *value = given[key.as_str()].clone();
    }
    let given = workspace["dependencies"].as_table().expect("dependencies of the workspace");
    let own = manifest.get_mut("dependencies").and_then(Value::as_table_mut);
    for (key, value) in own.into_iter().flatten().filter(|(_, value)| inherits(value)) {
        *value = given[key.as_str()].clone();
        // Paths of the workspace begin in its root. The laid-down copy has the same folders.
        if let Some(Value::String(path)) = value.get_mut("path") {
            wanted.push(path.clone());
            *path = "../".repeat(package.split('/').count()) + path;
        }
    }
    manifest.remove("dev-dependencies");
    // The lints of this repository are not the author's affair: a newer compiler may know more.
    let quiet = Table::from_iter([("warnings".to_owned(), Value::from("allow"))]);
    manifest.insert("lints".into(), Table::from_iter([("rust".to_owned(), Value::from(quiet))]).into());
    manifest
}

/// Whether a value is the workspace's. None of the SDK's adds to what it inherits.
fn inherits(value: &Value) -> bool {
    value.get("workspace").is_some_and(|w| w.as_bool() == Some(true))
}
