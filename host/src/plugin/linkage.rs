//! Linkage of a library: what it shares with other builds in one process, and what it needs of
//! the loader.
//!
//! A worker never unloads a build, so the next build of a library lives beside the last one. Some
//! kinds of linkage make both use one object, and then new code runs with old data or old code:
//!
//! | linkage | the next build would | here |
//! | --- | --- | --- |
//! | a unique symbol (`STB_GNU_UNIQUE`) of its own | use the object of the first build | refused |
//! | a library outside the system's folders, needed at any depth | use the first file | refused |
//! | initial-exec thread-local storage | find little room in a process | counted |
//!
//! GNU C++ makes unique symbols of static variables in inline functions and templates. Symbols of
//! libraries that a build needs do not count: those libraries are the same for both builds.
//!
//! Only tables that section headers name are read, O(symbols + needed libraries x folders).
//! Libraries that a handler opens by itself (`dlopen`) are in no table, and are not seen.

use object::LittleEndian;
use object::elf;
use object::read::elf::{Dynamic, ElfFile64, ProgramHeader as _, Sym as _};
use object::read::{ReadCache, ReadRef};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// ELF file as its tables are found in it.
type File<'a> = ElfFile64<'a, LittleEndian>;

/// Longest name in a reason, in bytes.
const NAME_BYTES_MAX: usize = 250;

/// Folders whose libraries belong to the system: the loader searches them by itself, or their files
/// never change.
const SYSTEM: [&str; 9] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
];

/// Folders below those of the system that the loader searches, by processor.
const SUBFOLDERS: [&str; 3] = ["", "x86_64-linux-gnu", "aarch64-linux-gnu"];

/// Meanings of `$LIB` in a run path, by system and processor.
const LIB: [&str; 4] = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];

/// Libraries that are looked through for what they need in turn. More are let pass.
const LIBRARIES_MAX: usize = 500;

/// Checks the linkage of a library that lies at `path`, and returns the bytes of initial-exec
/// thread-local storage that each process must have for it. An error says what to link otherwise.
pub(super) fn check(bytes: &[u8], path: &Path) -> Result<u64, String> {
    let damaged = |e: object::read::Error| format!("it is damaged: {e}");
    let file = File::parse(bytes).map_err(damaged)?;
    if let Some(name) = unique_symbol(&file) {
        return Err(format!(
            "it defines the unique symbol {name}: a later build would use the object of the first one; compile with -fno-gnu-unique, and link static libraries that bring it with -Wl,--exclude-libs,ALL"
        ));
    }
    let needs = Needs::of(&file).map_err(damaged)?;
    let is_static_tls = needs.is_static_tls;
    let environment = std::env::var("LD_LIBRARY_PATH").ok();
    if let Some((chain, found)) = outside_at_any_depth(needs, path, environment.as_deref(), &SYSTEM) {
        return Err(format!(
            "it needs {}, which is {} and outside the system's folders: a process keeps the first one that it loads, so a later one would not run; link it statically (-l:NAME.a), or install it in /usr/local/lib and start the host anew when it changes",
            chain.iter().map(|name| short(name)).collect::<Vec<_>>().join(", which needs "),
            short(&found.display().to_string())
        ));
    }
    let tls = file.elf_program_headers().iter().find(|s| s.p_type(LittleEndian) == elf::PT_TLS);
    Ok(tls.filter(|_| is_static_tls).map_or(0, |s| s.p_memsz(LittleEndian)))
}

/// Words of a library for the loader.
#[derive(Default)]
struct Needs {
    /// Names of the libraries that it needs.
    needed: Vec<String>,
    rpath: Option<String>,
    runpath: Option<String>,
    is_static_tls: bool,
}

impl Needs {
    /// Reads them off a file.
    fn of<'a, R: ReadRef<'a>>(file: &ElfFile64<'a, LittleEndian, R>) -> Result<Needs, object::read::Error> {
        let table = file.elf_dynamic_table()?;
        let text = |d: Dynamic| table.string(d).map(|t| String::from_utf8_lossy(t).into_owned());
        let mut needs = Needs::default();
        for entry in &table {
            match entry.tag {
                elf::DT_NEEDED | elf::DT_AUXILIARY | elf::DT_FILTER | elf::DT_AUDIT | elf::DT_DEPAUDIT => {
                    needs.needed.push(text(entry)?);
                }
                elf::DT_RPATH => needs.rpath = Some(text(entry)?),
                elf::DT_RUNPATH => needs.runpath = Some(text(entry)?),
                elf::DT_FLAGS => needs.is_static_tls = entry.val & elf::DF_STATIC_TLS.0 != 0,
                _ => {}
            }
        }
        Ok(needs)
    }

    /// Reads them off a library on disk, without the rest of it. `None`: the file is no library
    /// that can be read.
    fn of_file(path: &Path) -> Option<Needs> {
        let cache = ReadCache::new(std::fs::File::open(path).ok()?);
        Needs::of(&ElfFile64::parse(&cache).ok()?).ok()
    }
}

/// First needed library outside the system's folders, in the order in which the loader meets them:
/// the names that lead to it, and its file. `None`: there is none.
///
/// Each name is loaded once in a process, so it is looked at once. Libraries of the system are
/// followed for what they need in turn, with the folders of their own run paths.
fn outside_at_any_depth(
    needs: Needs,
    path: &Path,
    environment: Option<&str>,
    system: &[&str],
) -> Option<(Vec<String>, PathBuf)> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = real.parent().unwrap_or(Path::new("/"));
    // A folder of handlers may lie below one of the system's, as that of a package does.
    let is_searched = searched(system).any(|folder| folder == own);
    let belongs = |found: &Path| {
        system.iter().any(|folder| found.starts_with(folder)) && (is_searched || !found.starts_with(own))
    };
    let mut met = BTreeSet::new();
    let mut open = VecDeque::from([(needs, path.to_owned(), Vec::new(), Vec::new())]);
    while let Some((needs, path, inherited, chain)) = open.pop_front() {
        let own = needs.rpath.filter(|_| needs.runpath.is_none());
        // The older kind counts for what is needed in turn, too.
        let inherited = [expanded(own.as_deref(), &path), inherited].concat();
        let mut folders = if needs.runpath.is_none() { inherited.clone() } else { Vec::new() };
        folders.extend(expanded(environment, &path));
        folders.extend(expanded(needs.runpath.as_deref(), &path));
        for name in needs.needed {
            if met.len() >= LIBRARIES_MAX || !met.insert(name.clone()) {
                continue;
            }
            let chain = [&chain[..], std::slice::from_ref(&name)].concat();
            let Some(found) = find(&name, &folders, system) else { continue };
            if !belongs(&found) {
                return Some((chain, found));
            }
            if let Some(needs) = Needs::of_file(&found) {
                open.push_back((needs, found, inherited.clone(), chain));
            }
        }
    }
    None
}

/// Name of a unique symbol that a library defines; `None`: it defines none.
fn unique_symbol(file: &File<'_>) -> Option<String> {
    let symbols = file.elf_dynamic_symbol_table();
    let is_unique =
        |s: &&elf::Sym64<LittleEndian>| s.st_bind() == elf::STB_GNU_UNIQUE && !s.is_undefined(LittleEndian);
    let unique = symbols.iter().find(is_unique)?;
    let name = symbols.symbol_name(LittleEndian, unique).unwrap_or_default();
    Some(short(&String::from_utf8_lossy(name)).to_owned())
}

/// Beginning of a name, for a reason: names of C++ may be long, and in a damaged file anything.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// Folders of a run path or of the environment, for a library at `path`. They are taken from the
/// library's own place, not from its private copy's.
fn expanded(list: Option<&str>, path: &Path) -> Vec<PathBuf> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let origin = real.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let all = list.unwrap_or_default().split([':', ';']).filter(|f| !f.is_empty());
    let all = all.map(|f| f.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
    all.flat_map(|f| with_subfolders(&f)).collect()
}

/// Folders that the loader makes of one in a run path: `$LIB` is one of [`LIB`], and folders for
/// kinds of processors go first.
fn with_subfolders(folder: &str) -> Vec<PathBuf> {
    let is_varied = folder.contains("$LIB") || folder.contains("${LIB}");
    let variants = if is_varied { &LIB[..] } else { &LIB[..1] };
    let mut all = Vec::new();
    for lib in variants {
        let folder = PathBuf::from(folder.replace("${LIB}", lib).replace("$LIB", lib));
        let processors = std::fs::read_dir(folder.join("glibc-hwcaps")).into_iter().flatten().flatten();
        all.extend(processors.map(|entry| entry.path()));
        all.push(folder);
    }
    all
}

/// Folders of the system that the loader searches by itself.
fn searched(system: &[&str]) -> impl Iterator<Item = PathBuf> {
    system.iter().flat_map(|folder| SUBFOLDERS.map(|below| Path::new(folder).join(below)))
}

/// File that a needed name leads to, in these folders or behind them in those of the system;
/// `None`: it leads nowhere, which the loader says itself.
fn find(name: &str, folders: &[PathBuf], system: &[&str]) -> Option<PathBuf> {
    let found = match name.contains('/') {
        true => PathBuf::from(name),
        false => {
            let all = folders.iter().cloned().chain(searched(system));
            all.map(|folder| folder.join(name)).find(|file| file.is_file())?
        }
    };
    Some(found.canonicalize().unwrap_or(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_libraries_are_looked_for_as_the_loader_does() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().canonicalize().unwrap();
        std::fs::write(dir.join("libhelp.so"), "").unwrap();
        let text = |s: &str| Some(s.to_owned());
        let at = dir.join("libx.so");
        let needs = |name: &str, rpath, runpath| Needs {
            needed: vec![name.to_owned()],
            rpath,
            runpath,
            ..Needs::default()
        };
        let outside = |needs, env| outside_at_any_depth(needs, &at, env, &SYSTEM).map(|(_, file)| file);
        let here = Some(dir.join("libhelp.so"));
        assert_eq!(expanded(Some("/a:$ORIGIN"), &at), [Path::new("/a"), &dir]);
        assert_eq!(expanded(Some("${ORIGIN}/x;"), &at), [dir.join("x")]);
        assert_eq!(outside(needs("libhelp.so", None, text("/a:$ORIGIN")), None), here);
        assert_eq!(outside(needs("libhelp.so", text("$ORIGIN"), None), None), here);
        assert_eq!(outside(needs("libhelp.so", None, None), dir.to_str()), here);
        assert_eq!(outside(needs("libhelp.so", text("$ORIGIN"), text("/a")), None), None, "the newer kind");
        assert_eq!(outside(needs("libother.so", None, text("$ORIGIN")), None), None);
        // Folders that the loader makes up.
        let within = [("lib64", "/$LIB"), ("glibc-hwcaps/x86-64-v2", ""), ("lib/glibc-hwcaps/x", "/${LIB}")];
        for (n, (folder, path)) in within.into_iter().enumerate() {
            let (folder, name) = (dir.join(folder), format!("libhelp{n}.so"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(&name), "").unwrap();
            let found = outside(needs(&name, None, text(&format!("$ORIGIN{path}"))), None);
            assert_eq!(found, Some(folder.join(&name)));
        }
        // A package's folder of handlers is none of the loader's.
        let top = dir.to_str().unwrap();
        std::fs::create_dir(dir.join("handlers")).unwrap();
        std::fs::write(dir.join("handlers/libhelp9.so"), "").unwrap();
        let below = |file: &str, name: &str| {
            let at = dir.join(file);
            outside_at_any_depth(needs(name, None, text("$ORIGIN")), &at, None, &[top]).map(|(_, file)| file)
        };
        assert_eq!(below("handlers/libx.so", "libhelp9.so"), Some(dir.join("handlers/libhelp9.so")));
        assert_eq!(below("handlers/libx.so", "libhelp.so"), None, "of the system");
        assert_eq!(below("libx.so", "libhelp.so"), None, "beside a library of the system");
        assert_eq!(outside(needs("/usr/lib/libnone.so", None, None), None), None);
        let named = outside(needs("/opt/none/libnone.so", None, None), None);
        assert_eq!(named, Some("/opt/none/libnone.so".into()));
    }
}
