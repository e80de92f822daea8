//! The files of a crate have no circular imports, so dependencies can be read before their
//! dependents.
//!
//! Imports are parsed from the source text: `use` trees, and paths in the code that start with
//! `crate`, `self`, `super` or a child module of the file's. `mod` lines are not imports, and tests
//! may import the code they test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that are checked.
const CRATES: [&str; 5] = ["core", "rl", "stats", "lm", "train"];

/// A module's path in the crate; empty for the root.
type Module = Vec<String>;

#[test]
fn files_have_no_circular_imports() {
    for name in CRATES {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        let imports = imports_of(&root);
        assert!(imports.len() > 4, "{name}: only {} files were found", imports.len());
        if let Some(cycle) = cycle(&imports) {
            panic!("crates/{name}: {}", cycle.join(" → "));
        }
    }
}

#[test]
fn a_circular_import_is_found() {
    let folder = std::env::temp_dir().join(format!("leyden-structure-{}", std::process::id()));
    fs::create_dir_all(folder.join("wing")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("lib.rs", "mod wing;\npub use wing::Thing;\n");
    write("wing/mod.rs", "mod a;\nmod b;\npub use a::Thing;\n");
    write("wing/a.rs", "use super::b::{self, Other};\npub struct Thing;\n");
    write(
        "wing/b.rs",
        "// use super::a;\npub struct Other;\n#[cfg(test)]\nmod tests { use super::super::a; }\n",
    );
    assert_eq!(cycle(&imports_of(&folder)), None);
    write("wing/b.rs", "fn f() -> crate::wing::a::Thing { todo!(\"{\") }\n");
    let found = cycle(&imports_of(&folder)).unwrap();
    assert_eq!(found, ["wing/a", "wing/b", "wing/a"]);
    fs::remove_dir_all(folder).unwrap();
}

/// The modules that each file imports.
fn imports_of(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = BTreeMap::new();
    collect(root, root, &mut files);
    let known: BTreeSet<Module> = files.keys().cloned().collect();
    let imports = |(module, path): (&Module, &PathBuf)| {
        let code = code_of(&fs::read_to_string(path).unwrap());
        let paths = paths_of(&code);
        let targets = paths.iter().filter_map(|path| target(path, module, &known));
        (module.clone(), targets.filter(|target| target != module).collect())
    };
    files.iter().map(imports).collect()
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let relative = path.strip_prefix(root).unwrap().with_extension("");
            let mut module: Module =
                relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            files.insert(module, path);
        }
    }
}

/// The code without comments, string literals and test modules.
fn code_of(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if next == '"' {
            let mut end = 1;
            while !rest[end..].starts_with('"') {
                let escaped = rest[end..].starts_with('\\');
                end += rest[end..]
                    .chars()
                    .take(1 + usize::from(escaped))
                    .map(char::len_utf8)
                    .sum::<usize>();
            }
            code.push_str("\"\"");
            rest = &rest[end + 1..];
        } else if let Some(character) = character_literal(rest) {
            code.push_str("' '");
            rest = &rest[character..];
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    // Test modules are at the end of a file, or separate files.
    let end = code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|&at| {
        let after = code[at..].lines().nth(1).unwrap_or_default();
        after.ends_with('{') || code[at..].matches("mod ").count() == 1
    });
    code.truncate(end.unwrap_or(code.len()));
    code
}

/// The length of a character literal at the start of the text; `None` for a lifetime.
fn character_literal(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let length = match inner.strip_prefix('\\') {
        Some(escape) => 1 + escape.find('\'').filter(|&end| end > 0).unwrap_or(1),
        None => inner.chars().next()?.len_utf8(),
    };
    inner[length..].starts_with('\'').then_some(length + 2)
}

/// All paths with several parts in the code, with `use` trees expanded.
fn paths_of(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts_word = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let Some(end) = rest[at..].find(';').filter(|_| starts_word) else {
            plain_paths(&rest[..at + 4], &mut paths);
            rest = &rest[at + 4..];
            continue;
        };
        plain_paths(&rest[..at], &mut paths);
        tree_paths(&rest[at + 4..at + end], &[], &mut paths);
        rest = &rest[at + end..];
    }
    plain_paths(rest, &mut paths);
    paths
}

fn tree_paths(tree: &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    for branch in tree.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    }) {
        let (head, inner) = match branch.find('{') {
            Some(at) => (&branch[..at], Some(&branch[at + 1..branch.rfind('}').unwrap()])),
            None => (branch.split(" as ").next().unwrap(), None),
        };
        let parts = head.split("::").map(str::trim).filter(|part| !part.is_empty());
        let path: Vec<String> = before.iter().cloned().chain(parts.map(str::to_owned)).collect();
        match inner {
            Some(inner) => tree_paths(inner, &path, paths),
            None => paths.push(path),
        }
    }
}

fn plain_paths(code: &str, paths: &mut Vec<Vec<String>>) {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for path in code.split(|c: char| !word(c)).filter(|path| path.contains("::")) {
        let parts = path.split("::").filter(|part| !part.is_empty());
        paths.push(parts.map(|part| part.trim_matches(':').to_owned()).collect());
    }
}

/// The file that a path in `module` resolves to, if it belongs to the crate.
fn target(path: &[String], module: &Module, known: &BTreeSet<Module>) -> Option<Module> {
    let mut place = module.clone();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => (place, rest) = (Vec::new(), &rest[1..]),
        "self" | "super" => {
            while let Some(step) = rest.first().filter(|s| ["self", "super"].contains(&s.as_str()))
            {
                if step == "super" {
                    place.pop()?;
                }
                rest = &rest[1..];
            }
        }
        child => {
            let child = [&place[..], &[child.to_owned()]].concat();
            known.get(&child)?;
        }
    }
    while let Some(part) = rest.first() {
        let deeper = [&place[..], std::slice::from_ref(part)].concat();
        if !known.contains(&deeper) {
            break;
        }
        (place, rest) = (deeper, &rest[1..]);
    }
    known.get(&place).cloned()
}

/// A cycle of files, with the first one repeated at the end.
fn cycle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    /// Depth-first search over the imports of `module`; `done` has the fully explored modules.
    fn follow<'a>(
        module: &'a Module,
        imports: &'a BTreeMap<Module, BTreeSet<Module>>,
        stack: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<String>> {
        let name = |module: &Module| match module.is_empty() {
            true => "lib".to_owned(),
            false => module.join("/"),
        };
        if let Some(start) = stack.iter().position(|known| *known == module) {
            return Some(stack[start..].iter().chain([&module]).map(|m| name(m)).collect());
        }
        if done.contains(module) {
            return None;
        }
        stack.push(module);
        let found = imports[module].iter().find_map(|next| follow(next, imports, stack, done));
        stack.pop();
        done.insert(module);
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| follow(module, imports, &mut Vec::new(), &mut done))
}
