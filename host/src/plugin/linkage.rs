//! Linkage of a library: what it shares with other builds in one process, and what it needs of
//! the loader.
//!
//! A worker never unloads a build, so the next build of a library lives beside the last one. Some
//! kinds of linkage make both use one object, and then new code runs with old data or old code:
//!
//! | linkage | the next build would | here |
//! | --- | --- | --- |
//! | a unique symbol (`STB_GNU_UNIQUE`) of its own | use the object of the first build | refused |
//! | a needed library outside the system's folders | use the file that was loaded first | refused |
//! | initial-exec thread-local storage | find little room in a process | counted |
//!
//! GNU C++ makes unique symbols of static variables in inline functions and templates. Symbols of
//! libraries that a build needs do not count: those libraries are the same for both builds.
//!
//! Only tables that section headers name are read, O(symbols + needed libraries x folders).

use object::LittleEndian;
use object::elf;
use object::read::elf::{Dynamic, ElfFile64, ProgramHeader as _, Sym as _};
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

/// Meanings of `$LIB` in a run path, by system and processor.
const LIB: [&str; 4] = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];

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
    let table = file.elf_dynamic_table().map_err(damaged)?;
    let text = |d: Dynamic| table.string(d).map(|t| String::from_utf8_lossy(t).into_owned()).map_err(damaged);
    let (mut needed, mut rpath, mut runpath, mut is_static_tls) = (Vec::new(), None, None, false);
    for entry in &table {
        match entry.tag {
            elf::DT_NEEDED | elf::DT_AUXILIARY | elf::DT_FILTER | elf::DT_AUDIT | elf::DT_DEPAUDIT => {
                needed.push(text(entry)?);
            }
            elf::DT_RPATH => rpath = Some(text(entry)?),
            elf::DT_RUNPATH => runpath = Some(text(entry)?),
            elf::DT_FLAGS => is_static_tls = entry.val & elf::DF_STATIC_TLS.0 != 0,
            _ => {}
        }
    }
    let folders = searched(path, rpath, runpath, std::env::var("LD_LIBRARY_PATH").ok());
    for name in &needed {
        if let Some(found) = outside(name, &folders) {
            return Err(format!(
                "it needs {}, which is {} and outside the system's folders: a process keeps the first one that it loads, so a later one would not run; link it statically (-l:NAME.a), or install it in /usr/local/lib and start the host anew when it changes",
                short(name),
                short(&found.display().to_string())
            ));
        }
    }
    let tls = file.elf_program_headers().iter().find(|s| s.p_type(LittleEndian) == elf::PT_TLS);
    Ok(tls.filter(|_| is_static_tls).map_or(0, |s| s.p_memsz(LittleEndian)))
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

/// Folders that the loader searches for what a library at `path` needs, before the system's: those
/// of the library, and of the host's environment. They are taken from the library's own place, not
/// from its private copy's.
fn searched(
    path: &Path,
    rpath: Option<String>,
    runpath: Option<String>,
    environment: Option<String>,
) -> Vec<PathBuf> {
    // A run path replaces the older kind.
    let own = rpath.filter(|_| runpath.is_none());
    let lists = [own, environment, runpath];
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let origin = real.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let all = lists.iter().flatten().flat_map(|list| list.split([':', ';'])).filter(|f| !f.is_empty());
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

/// File outside the system's folders that a needed name leads to; `None`: it leads into them, or
/// nowhere, which the loader says itself.
fn outside(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let found = match name.contains('/') {
        true => Some(PathBuf::from(name)),
        false => folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()),
    }?;
    let real = found.canonicalize().unwrap_or(found);
    (!SYSTEM.iter().any(|folder| real.starts_with(folder))).then_some(real)
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
        let folders = searched(&at, text("/rpath"), text("/a:$ORIGIN"), text("/env"));
        assert_eq!(folders, [Path::new("/env"), Path::new("/a"), &dir]);
        assert_eq!(searched(&at, text("${ORIGIN}/x"), None, None), [dir.join("x")]);
        assert_eq!(outside("libhelp.so", &folders), Some(dir.join("libhelp.so")));
        assert_eq!(outside("libother.so", &folders), None);
        // Folders that the loader makes up.
        let within = [("lib64", "/$LIB"), ("glibc-hwcaps/x86-64-v2", ""), ("lib/glibc-hwcaps/x", "/${LIB}")];
        for (n, (folder, path)) in within.into_iter().enumerate() {
            let (folder, name) = (dir.join(folder), format!("libhelp{n}.so"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(&name), "").unwrap();
            let folders = searched(&at, None, text(&format!("$ORIGIN{path}")), None);
            assert_eq!(outside(&name, &folders), Some(folder.join(&name)));
        }
        assert_eq!(outside("/usr/lib/libnone.so", &folders), None);
        assert_eq!(outside("/opt/none/libnone.so", &folders), Some("/opt/none/libnone.so".into()));
    }
}
