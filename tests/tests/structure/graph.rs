//! Arrows between the files of a crate: an arrow for each file that another one names, in an
//! import or in a path.
//!
//! Only paths that begin with `crate`, `self`, `super` or a child module are followed. A name
//! that a macro makes is not seen.

use crate::source::{Items, Source, sources};
use std::collections::{BTreeMap, BTreeSet};

/// Files of a crate, and the arrows between them.
pub(crate) struct Graph {
    /// Files, in the order of their paths. Numbers of files are places in this list.
    pub(crate) sources: Vec<Source>,
    /// Items of each file, at the same place.
    pub(crate) items: Vec<Items>,
    /// From a file to another one, with the first line that names it and the path.
    pub(crate) arrows: BTreeMap<(usize, usize), (usize, String)>,
    /// Files by their modules.
    modules: BTreeMap<Vec<String>, usize>,
}

/// Module that a file is. `main.rs` is a crate of its own, which names this one from outside.
fn module(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").expect("a source file");
    let mut names: Vec<_> = path.split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|n| n == "mod" || n == "lib") {
        names.pop();
    }
    names
}

impl Graph {
    /// Reads a crate whose sources lie in this folder.
    pub(crate) fn of(folder: &str) -> Graph {
        let sources = sources(folder, false);
        let items: Vec<_> = sources.iter().map(Items::of).collect();
        let below = |s: &Source| module(s.path.strip_prefix(folder).expect("below").trim_start_matches('/'));
        let modules: BTreeMap<_, _> = sources.iter().enumerate().map(|(at, s)| (below(s), at)).collect();
        let mut graph = Graph { sources, items, arrows: BTreeMap::new(), modules };
        let own: BTreeMap<usize, Vec<String>> =
            graph.modules.iter().map(|(m, at)| (*at, m.clone())).collect();
        for (from, items) in graph.items.iter().enumerate() {
            for (path, inside, line) in &items.paths {
                let here = [&own[&from][..], inside].concat();
                if let Some(to) = graph.resolve(&here, &items.children, path).filter(|to| *to != from) {
                    graph.arrows.entry((from, to)).or_insert_with(|| (*line, path.join("::")));
                }
            }
        }
        graph
    }

    /// File that a path leads to, if it is one of this crate. `here` is the module that names
    /// it.
    fn resolve(&self, here: &[String], children: &BTreeSet<String>, path: &[String]) -> Option<usize> {
        let mut rest = path;
        let mut module = match rest.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => here.to_vec(),
            child if children.contains(child) => here.to_vec(),
            _ => return None,
        };
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => _ = module.pop(),
                _ => break,
            }
            rest = &rest[1..];
        }
        module.extend(rest.iter().cloned());
        // Names behind the last module are items in it.
        while !self.modules.contains_key(&module) {
            module.pop()?;
        }
        self.modules.get(&module).copied()
    }

    /// Top folder that a file lies in below the crate's, or its name if it lies in none.
    pub(crate) fn room(&self, file: usize) -> String {
        let module = self.modules.iter().find(|(_, at)| **at == file).expect("a file").0;
        module.first().cloned().unwrap_or_else(|| "lib".into())
    }

    /// Files that reach each other, in groups of two and more.
    pub(crate) fn loops(&self) -> Vec<BTreeSet<usize>> {
        let mut next: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (from, to) in self.arrows.keys() {
            next.entry(*from).or_default().push(*to);
        }
        let reach = |from: usize| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(at) = open.pop() {
                open.extend(next.get(&at).into_iter().flatten().filter(|to| seen.insert(**to)));
            }
            seen
        };
        let reached: Vec<_> = (0..self.sources.len()).map(reach).collect();
        let group = |at: usize| -> BTreeSet<usize> {
            reached[at].iter().copied().filter(|other| reached[*other].contains(&at)).collect()
        };
        let groups: BTreeSet<_> = (0..self.sources.len()).map(group).filter(|g| g.len() > 1).collect();
        groups.into_iter().collect()
    }

    /// Number of files that the longest way down passes; a loop counts once.
    pub(crate) fn floors(&self) -> usize {
        let loops = self.loops();
        let group = |at: usize| {
            loops.iter().find_map(|g| g.first().filter(|_| g.contains(&at)).copied()).unwrap_or(at)
        };
        let arrows: BTreeSet<_> =
            self.arrows.keys().map(|(a, b)| (group(*a), group(*b))).filter(|(a, b)| a != b).collect();
        let mut floor = vec![1; self.sources.len()];
        // No way without loops is longer than there are files, so as many rounds settle every
        // floor.
        for _ in 0..self.sources.len() {
            for (from, to) in &arrows {
                floor[*from] = floor[*from].max(floor[*to] + 1);
            }
        }
        floor.into_iter().max().unwrap_or(0)
    }
}
